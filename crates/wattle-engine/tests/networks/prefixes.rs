//! Networks whose parameters are prefixes of a larger network's: as windows on them, or by slices of the whole tensors.

use wattle_graph::layers::{Layers, ParameterSource, Wanted};
use wattle_graph::ops::{Pad, PadMode, Slice, Where};
use wattle_graph::{
    AxisWindow, DType, Data, Graph, GraphError, Parameter, Parameters, Role, Tensor, ValueId, Window,
};

use super::step::Home;

/// How a network sees the part of a tensor that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As a window.
    Windows,
    /// By a Slice of the whole tensor; what is updated is put back among the elements that are not.
    Slices,
}

/// The first elements along each axis of the tensors of a larger network, which must have them all.
#[derive(Debug)]
pub struct Prefixes<'a> {
    of: &'a Parameters,
    view: View,
    wholes: Vec<(String, ValueId)>,
}

/// A network of such parameters.
pub fn within<'a>(of: &'a Parameters, view: View) -> Layers<Prefixes<'a>> {
    Layers::new("part", Prefixes { of, view, wholes: vec![] })
}

fn numbers(graph: &mut Graph, numbers: &[usize]) -> ValueId {
    graph.constant(Tensor::ints(&numbers.iter().map(|&n| n as i64).collect::<Vec<_>>()))
}

impl Prefixes<'_> {
    fn full(&self, name: &str) -> Vec<usize> {
        self.of.get(name).unwrap_or_else(|| panic!("the larger network has `{name}`")).shape().to_vec()
    }

    fn whole(&mut self, graph: &mut Graph, name: &str, role: Role) -> ValueId {
        if let Some((_, id)) = self.wholes.iter().find(|(n, _)| n == name) {
            return *id;
        }
        let parameter = Parameter { tensor: name.into(), window: Window::full(), role };
        let id = graph.parameter(parameter, DType::F32, &self.full(name));
        self.wholes.push((name.into(), id));
        id
    }
}

impl ParameterSource for Prefixes<'_> {
    fn parameter(&mut self, graph: &mut Graph, wanted: Wanted<'_>) -> Result<ValueId, GraphError> {
        let Wanted { name, extents, role, .. } = wanted;
        let full = self.full(name);
        if full == extents {
            return Ok(self.whole(graph, name, role));
        }
        match self.view {
            View::Windows => {
                let window = Window::new(extents.iter().map(|&n| AxisWindow::Range(0, n)).collect());
                Ok(graph.parameter(Parameter { tensor: name.into(), window, role }, DType::F32, &full))
            }
            View::Slices => {
                let whole = self.whole(graph, name, role);
                let axes: Vec<usize> = (0..extents.len()).collect();
                let lists =
                    [vec![0; extents.len()], extents.to_vec(), axes].map(|list| numbers(graph, &list));
                graph.apply(Slice, &[whole, lists[0], lists[1], lists[2]])
            }
        }
    }
}

impl Home for Prefixes<'_> {
    fn assign(&mut self, graph: &mut Graph, name: &str, value: ValueId, next: ValueId) {
        let (full, part) = (self.full(name), graph.extents(next).expect("known"));
        if self.view == View::Windows || full == part {
            return graph.assign(value, next).expect("types agree");
        }
        let whole = self.whole(graph, name, Role::State);
        let more = full.iter().zip(&part).map(|(full, part)| full - part);
        let pads: Vec<usize> = vec![0; full.len()].into_iter().chain(more).collect();
        let pads = numbers(graph, &pads);
        let padded = graph.apply(Pad { mode: PadMode::Constant }, &[next, pads]).expect("operands fit");
        let mut inside = vec![];
        wattle_graph::each_index(&full, |index| {
            inside.push(index.iter().zip(&part).all(|(i, n)| i < n));
        });
        let inside = Tensor::new(full, Data::Bool(inside)).expect("as many");
        let inside = graph.constant(inside);
        let chosen = graph.apply(Where, &[inside, padded, whole]).expect("operands fit");
        graph.assign(whole, chosen).expect("types agree");
    }
}
