//! Sub-networks: graphs whose parameters are windows on the tensors of a larger network.

use std::collections::BTreeMap;

use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::mask::Mask;
use crate::model::Model;
use crate::ops::{Binary, BinaryFunction, Gather, Slice};
use crate::parameter::{AxisWindow, Parameter, Parameters, Window};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Copies what `graph` sees of `parameters` into a model of its own, whose parameters are whole tensors: the same outputs to
/// the last bit, and nothing of what lies outside the windows.
///
/// A tensor of which the graph has one window keeps its name; further windows of it are called `name.1`, `name.2`, in the
/// order of the graph. Equal windows share a tensor. Masks are cut as their tensors are.
///
/// # Errors
/// When a parameter is missing or smaller than its window, or when windows of one tensor overlap without being equal and
/// the graph assigns to them: copies would no longer change together.
pub fn extract(graph: &Graph, parameters: &Parameters) -> Result<Model, GraphError> {
    let mut named: BTreeMap<&str, Vec<&Window>> = BTreeMap::new();
    for parameter in graph.parameters().filter_map(|id| graph.parameter_of(id)) {
        let windows = named.entry(&parameter.tensor).or_default();
        if !windows.contains(&&parameter.window) {
            windows.push(&parameter.window);
        }
    }
    for assigned in graph.assignments().iter().filter_map(|a| graph.parameter_of(a.target)) {
        let others = &named[assigned.tensor.as_str()];
        if let Some(other) = others.iter().find(|w| ***w != assigned.window && w.meets(&assigned.window)) {
            let tensor = &assigned.tensor;
            return Err(GraphError::Invalid(format!(
                "`{tensor}{}` is assigned and shares elements with `{tensor}{other}`, which a copy would not follow; \
                 extract the network without its training step",
                assigned.window
            )));
        }
    }
    let (mut small, mut own) = (graph.clone(), Parameters::new());
    for id in graph.parameters() {
        let Some(parameter) = graph.parameter_of(id) else { continue };
        let place =
            named[parameter.tensor.as_str()].iter().position(|w| **w == parameter.window).unwrap_or(0);
        let mut name = parameter.tensor.clone();
        if place > 0 {
            name = format!("{name}.{place}");
        }
        if own.get(&name).is_none() {
            own.insert(name.clone(), parameters.view(parameter).ok_or_else(|| missing(graph, id))?);
            if let (Some(mask), Some(full)) =
                (parameters.mask(&parameter.tensor), parameters.get(&parameter.tensor))
            {
                let positions = parameter.window.positions(full.shape()).unwrap_or_default();
                own.set_mask(&name, Mask::from_bools(positions.into_iter().map(|at| mask.get(at))));
            }
        }
        small.make_parameter(id, Parameter { tensor: name, window: Window::full(), role: parameter.role });
    }
    Ok(Model::new(small, own))
}

fn missing(graph: &Graph, id: ValueId) -> GraphError {
    GraphError::Feed {
        what: "parameter",
        name: graph.label(id),
        found: "none, or one that the window does not fit".into(),
        expected: graph.value(id).ty.to_string(),
    }
}

impl Graph {
    /// Joins the gradients of parameters that are windows of one tensor: returns targets no two of which overlap, and the
    /// gradient of each, to be updated one by one. Where windows overlap, the gradients of what they share add up.
    ///
    /// Targets that overlap no other come back as they are. The others are cut into the largest parts that each lie in the
    /// same windows throughout; an update touches these and nothing else of the tensor.
    ///
    /// # Errors
    /// When a target is no parameter, shows an element twice, or its extents are not known.
    pub fn join_gradients(
        &mut self,
        targets: &[(ValueId, ValueId)],
    ) -> Result<Vec<(ValueId, ValueId)>, GraphError> {
        let mut groups: Vec<Vec<(ValueId, ValueId)>> = vec![];
        for &(target, gradient) in targets {
            let parameter = self.window_of(target)?;
            let meets = |&(other, _): &(ValueId, ValueId)| {
                self.parameter_of(other)
                    .is_some_and(|o| o.tensor == parameter.tensor && o.window.meets(&parameter.window))
            };
            let (joined, mut left): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| g.iter().any(meets));
            let mut joined: Vec<_> = joined.into_iter().flatten().collect();
            joined.push((target, gradient));
            left.push(joined);
            groups = left;
        }
        groups.sort_by_key(|group| group[0].0);
        let mut disjoint = vec![];
        for group in groups {
            match group[..] {
                [alone] => disjoint.push(alone),
                _ => disjoint.extend(self.cells(&group)?),
            }
        }
        Ok(disjoint)
    }

    fn window_of(&self, target: ValueId) -> Result<Parameter, GraphError> {
        let parameter = self.parameter_of(target).filter(|p| !p.window.repeats());
        parameter.cloned().ok_or_else(|| {
            let label = self.label(target);
            GraphError::Invalid(format!("`{label}` is no parameter that shows each of its elements once"))
        })
    }

    /// The parts of overlapping windows of one tensor, with the sum of the gradients of each.
    fn cells(&mut self, group: &[(ValueId, ValueId)]) -> Result<Vec<(ValueId, ValueId)>, GraphError> {
        let mut windows = vec![];
        for &(target, _) in group {
            windows.push(indices(&self.window_of(target)?.window, &self.extents(target)?));
        }
        // Along each axis: indices that lie in the same windows, and in which.
        let mut axes: Vec<Vec<(Vec<bool>, Vec<usize>)>> = vec![];
        for axis in 0..windows[0].len() {
            let mut classes: Vec<(Vec<bool>, Vec<usize>)> = vec![];
            let mut all: Vec<usize> = windows.iter().flat_map(|w| w[axis].iter().copied()).collect();
            all.sort_unstable();
            all.dedup();
            for index in all {
                let within: Vec<bool> = windows.iter().map(|w| w[axis].contains(&index)).collect();
                match classes.iter_mut().find(|(w, _)| *w == within) {
                    Some((_, list)) => list.push(index),
                    None => classes.push((within, vec![index])),
                }
            }
            axes.push(classes);
        }
        let mut cells = vec![(vec![true; group.len()], Vec::<Vec<usize>>::new())];
        for classes in axes {
            let mut finer = vec![];
            for (within, lists) in &cells {
                for (class, list) in &classes {
                    let both: Vec<bool> = within.iter().zip(class).map(|(a, b)| *a && *b).collect();
                    if both.contains(&true) {
                        finer.push((both, lists.iter().cloned().chain([list.clone()]).collect()));
                    }
                }
            }
            cells = finer;
        }
        let mut parts = vec![];
        for (within, lists) in cells {
            let mut sum: Option<ValueId> = None;
            for (member, _) in within.iter().enumerate().filter(|(_, inside)| **inside) {
                let mut part = group[member].1;
                for (axis, list) in lists.iter().enumerate() {
                    let own = &windows[member][axis];
                    let places: Vec<usize> =
                        list.iter().filter_map(|i| own.iter().position(|o| o == i)).collect();
                    part = self.taken(part, axis, &places, own.len())?;
                }
                sum = Some(match sum {
                    None => part,
                    Some(sum) => self.apply(Binary { function: BinaryFunction::Add }, &[sum, part])?,
                });
            }
            let Some(gradient) = sum else { continue };
            parts.push((self.cell(group, &windows, &lists)?, gradient));
        }
        Ok(parts)
    }

    /// The parameter that shows the listed indices of each axis.
    fn cell(
        &mut self,
        group: &[(ValueId, ValueId)],
        windows: &[Vec<Vec<usize>>],
        lists: &[Vec<usize>],
    ) -> Result<ValueId, GraphError> {
        if let Some(same) = windows.iter().position(|w| w == lists) {
            return Ok(group[same].0);
        }
        let axes = lists.iter().map(|list| match list[..] {
            [first, .., last] if last - first + 1 == list.len() => AxisWindow::Range(first, last + 1),
            [only] => AxisWindow::Range(only, only + 1),
            _ => AxisWindow::Indices(list.clone()),
        });
        let like = self.window_of(group[0].0)?;
        let mut ty = self.value(group[0].0).ty.clone();
        ty.shape = Shape::known(&lists.iter().map(Vec::len).collect::<Vec<_>>());
        Ok(self.parameter_view("", Parameter { window: Window::new(axes.collect()), ..like }, ty))
    }

    /// The elements of `x` at `places` along `axis`, which has `extent` elements.
    fn taken(
        &mut self,
        x: ValueId,
        axis: usize,
        places: &[usize],
        extent: usize,
    ) -> Result<ValueId, GraphError> {
        let run = places.windows(2).all(|pair| pair[1] == pair[0] + 1);
        match (places.first(), run) {
            (Some(0), true) if places.len() == extent => Ok(x),
            (Some(&first), true) => {
                let numbers =
                    [first, first + places.len(), axis].map(|n| self.constant(Tensor::ints(&[n as i64])));
                self.apply(Slice, &[x, numbers[0], numbers[1], numbers[2]])
            }
            _ => {
                let list: Vec<i64> = places.iter().map(|&i| i as i64).collect();
                let list = self.constant(Tensor::ints(&list));
                self.apply(Gather { axis: axis as i64 }, &[x, list])
            }
        }
    }
}

/// The indices that a window of these extents shows along each axis.
fn indices(window: &Window, extents: &[usize]) -> Vec<Vec<usize>> {
    let along = |(axis, &n): (usize, &usize)| match window.axes().get(axis) {
        None | Some(AxisWindow::All) => (0..n).collect(),
        Some(AxisWindow::Range(start, end)) => (*start..*end).collect(),
        Some(AxisWindow::Indices(list)) => list.clone(),
    };
    extents.iter().enumerate().map(along).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::interpret;
    use crate::ops::MatMul;
    use crate::parameter::Role;
    use crate::tensor::DType;
    use AxisWindow::{All, Indices, Range};

    fn view(graph: &mut Graph, axes: &[AxisWindow]) -> ValueId {
        let parameter =
            Parameter { tensor: "w".into(), window: Window::new(axes.to_vec()), role: Role::Trainable };
        graph.parameter(parameter, DType::F32, &[6, 5])
    }

    fn numbers() -> Parameters {
        let mut parameters = Parameters::new();
        parameters.insert("w", Tensor::f32([6, 5], (0..30).map(|i| i as f32).collect()));
        parameters
    }

    /// Adds to each target its joined gradient; the gradient of a window is itself times its number, from 1 on.
    #[test]
    fn gradients_of_overlapping_windows_add_and_nothing_else_changes() {
        let choices: [&[&[AxisWindow]]; 5] = [
            &[&[Range(0, 3), Range(0, 2)], &[Range(0, 2), Range(0, 4)]],
            &[&[], &[Range(1, 2)], &[All, Indices(vec![4, 0])]],
            &[&[Range(0, 2)], &[Range(0, 2)]],
            &[&[Indices(vec![5, 0, 3])], &[Indices(vec![3, 1]), Range(2, 5)], &[Range(4, 6), Range(0, 1)]],
            &[&[Range(0, 1)], &[Range(4, 6)]],
        ];
        for windows in choices {
            let mut graph = Graph::new("g");
            let mut targets = vec![];
            let mut expected = numbers().get("w").unwrap().to_f64().into_owned();
            for (number, axes) in windows.iter().enumerate() {
                let w = view(&mut graph, axes);
                let factor = graph.constant(Tensor::f32([], vec![number as f32 + 1.0]));
                let gradient = graph.apply(Binary { function: BinaryFunction::Mul }, &[w, factor]).unwrap();
                targets.push((w, gradient));
                for at in Window::new(axes.to_vec()).positions(&[6, 5]).unwrap() {
                    expected[at] += at as f64 * (number as f64 + 1.0);
                }
            }
            let joined = graph.join_gradients(&targets).unwrap();
            for (target, gradient) in joined {
                let next =
                    graph.apply(Binary { function: BinaryFunction::Add }, &[target, gradient]).unwrap();
                graph.assign(target, next).expect("targets do not overlap");
            }
            let mut parameters = numbers();
            interpret(&graph, &mut parameters, &BTreeMap::new()).unwrap();
            assert_eq!(parameters.get("w").unwrap().to_f64().as_ref(), &expected, "{windows:?}");
        }
    }

    #[test]
    fn windows_that_do_not_overlap_are_updated_as_they_are() {
        let mut graph = Graph::new("g");
        let (a, b) = (view(&mut graph, &[Range(0, 1)]), view(&mut graph, &[Range(4, 6)]));
        assert_eq!(graph.join_gradients(&[(a, a), (b, b)]).unwrap(), [(a, a), (b, b)]);
        let twice = view(&mut graph, &[Indices(vec![1, 1])]);
        assert!(graph.join_gradients(&[(twice, twice)]).is_err());
    }

    #[test]
    fn an_extracted_network_gives_the_same_outputs_from_tensors_of_its_own() {
        let mut graph = Graph::new("sub");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
        let first = view(&mut graph, &[Range(0, 3), Range(0, 4)]);
        let second = view(&mut graph, &[Indices(vec![5, 0, 2, 1])]);
        let y = graph.apply(MatMul::default(), &[x, first]).unwrap();
        let y = graph.apply(MatMul::default(), &[y, second]).unwrap();
        graph.output(y);
        let mut large = numbers();
        assert!(large.set_mask("w", Mask::from_bools((0..30).map(|i| i % 4 != 1))));
        let small = extract(&graph, &large).unwrap();
        let names: Vec<_> = small.parameters.iter().map(|(n, t)| (n, t.shape().to_vec())).collect();
        assert_eq!(names, [("w", vec![3, 4]), ("w.1", vec![4, 5])]);
        assert_eq!(small.parameters.mask("w").map(|m| m.len()), Some(12));
        let feeds = BTreeMap::from([("x".to_string(), Tensor::f32([2, 3], vec![1., -2., 3., 0.5, 5., 6.]))]);
        let expected = interpret(&graph, &mut large, &feeds).unwrap();
        let mut own = small.parameters.clone();
        assert_eq!(interpret(&small.graph, &mut own, &feeds).unwrap(), expected);
    }
}
