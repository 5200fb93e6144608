//! Fingerprints: graphs that are the same in everything a plan or a run depends on have the same one.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

use crate::graph::{Assignment, Graph, Node, Source, Value, ValueId};

/// A hash (BLAKE3, 256 bits) of a graph's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The hash itself.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    /// All 64 digits in base 16.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The fingerprint of what a graph holds, once it has been asked for. Two graphs are equal whoever was asked.
#[derive(Clone, Default)]
pub(crate) struct Remembered(OnceLock<Fingerprint>);

impl Remembered {
    /// To be called by whatever changes the graph.
    pub fn forget(&mut self) {
        self.0.take();
    }
}

impl PartialEq for Remembered {
    fn eq(&self, _: &Remembered) -> bool {
        true
    }
}

impl fmt::Debug for Remembered {
    /// Always the same, since operators that hold graphs are told apart by what they show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remembered")
    }
}

/// What is hashed: numbers as eight bytes, and before anything of varying length, its length.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    fn number(&mut self, number: usize) {
        self.0.extend_from_slice(&(number as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// What shows all of itself.
    fn shown(&mut self, piece: &impl fmt::Debug) {
        let start = self.0.len();
        self.number(0);
        // Writing to a list cannot fail, and no `Debug` of a graph's parts does.
        let _ = write!(self.0, "{piece:?}");
        let len = (self.0.len() - start) as u64;
        self.0[start..start + 8].copy_from_slice(&len.to_le_bytes());
    }

    fn extents(&mut self, extents: &[usize]) {
        self.number(extents.len());
        extents.iter().for_each(|&n| self.number(n));
    }

    fn ids(&mut self, ids: impl ExactSizeIterator<Item = Option<ValueId>>) {
        self.number(ids.len());
        ids.for_each(|id| self.number(id.map_or(usize::MAX, ValueId::index)));
    }

    fn value(&mut self, value: &Value) {
        self.bytes(value.name.as_bytes());
        self.0.push(value.ty.dtype as u8);
        match value.ty.shape.extents() {
            Some(extents) => {
                self.0.push(0);
                self.extents(&extents);
            }
            None => {
                self.0.push(1);
                self.shown(&value.ty.shape);
            }
        }
        match &value.source {
            Source::Input => self.0.push(0),
            Source::Parameter(parameter) => {
                self.0.push(1);
                self.shown(parameter);
            }
            Source::Constant(tensor) => {
                self.0.push(2);
                self.bytes(&tensor.to_le_bytes());
            }
            Source::Node { node, output } => {
                self.0.push(3);
                self.number(node.index());
                self.number(*output);
            }
        }
    }

    fn hash(&self) -> Fingerprint {
        Fingerprint(*blake3::hash(&self.0).as_bytes())
    }

    fn node(&mut self, node: &Node) {
        self.bytes(node.name.as_bytes());
        self.shown(&node.op);
        self.ids(node.inputs.iter().copied());
        self.ids(node.outputs.iter().copied().map(Some));
    }
}

impl Graph {
    /// A fingerprint of the graph itself: names, types, operators with their attributes, constants by content, parameters
    /// with their windows and roles, outputs and assignments. The tensors behind parameters are no part of it.
    ///
    /// A custom operator is told from others by its key. A graph that has not changed since it was asked last answers at once.
    pub fn fingerprint(&self) -> Fingerprint {
        let content = self.content.0.get_or_init(|| self.hash_content());
        let mut pieces = Pieces::default();
        pieces.bytes(self.name.as_bytes());
        pieces.bytes(content.bytes());
        pieces.hash()
    }

    /// The fingerprint of all but the name, which anyone may change.
    fn hash_content(&self) -> Fingerprint {
        let mut pieces = Pieces::default();
        pieces.number(self.values().len());
        self.values().iter().for_each(|value| pieces.value(value));
        pieces.number(self.nodes().len());
        self.nodes().iter().for_each(|node| pieces.node(node));
        pieces.ids(self.inputs().iter().copied().map(Some));
        pieces.ids(self.outputs().iter().copied().map(Some));
        for ids in [|a: &Assignment| a.target, |a: &Assignment| a.value] {
            pieces.ids(self.assignments().iter().map(|a| Some(ids(a))));
        }
        pieces.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Clip, MatMul, Softmax};
    use crate::parameter::{AxisWindow, Parameter, Role, Window};
    use crate::shape::Shape;
    use crate::tensor::DType;
    use crate::tensor::Tensor;

    /// What a graph is built with; every field can be told from the fingerprint.
    #[derive(Clone)]
    struct Recipe {
        name: &'static str,
        width: usize,
        constant: f32,
        axis: i64,
        transpose: bool,
        tensor: &'static str,
        columns: usize,
        role: Role,
        assigned: bool,
        outputs: usize,
    }

    fn build(r: &Recipe) -> Graph {
        let mut graph = Graph::new(r.name);
        let x = graph.input("x", DType::F32, Shape::known(&[r.width, 4]));
        let c = graph.constant(Tensor::f32([4, 4], vec![r.constant; 16]));
        let window = Window::new(vec![AxisWindow::All, AxisWindow::Range(0, r.columns)]);
        let w =
            graph.parameter(Parameter { tensor: r.tensor.into(), window, role: r.role }, DType::F32, &[4, 9]);
        let y = graph.apply(MatMul { transpose_b: r.transpose, ..MatMul::default() }, &[x, c]).unwrap();
        let z = graph.apply(MatMul::default(), &[y, w]).unwrap();
        let z = graph.apply(Softmax { axis: r.axis, log: false }, &[z]).unwrap();
        let next = graph.apply_all(Clip, &[Some(w), None, None], "").unwrap()[0];
        if r.assigned {
            graph.assign(w, next).unwrap();
        }
        [z, y].into_iter().take(r.outputs).for_each(|id| graph.output(id));
        graph
    }

    #[test]
    fn equal_graphs_have_one_fingerprint_and_every_difference_another() {
        let recipe = Recipe {
            name: "g",
            width: 3,
            constant: 1.0,
            axis: 1,
            transpose: false,
            tensor: "w",
            columns: 5,
            role: Role::Trainable,
            assigned: false,
            outputs: 1,
        };
        let base = build(&recipe).fingerprint();
        assert_eq!(base, build(&recipe).fingerprint());
        assert_eq!(base.to_string().len(), 64);
        let changed = [
            Recipe { name: "h", ..recipe.clone() },
            Recipe { width: 2, ..recipe.clone() },
            Recipe { constant: -1.0, ..recipe.clone() },
            Recipe { axis: 0, ..recipe.clone() },
            Recipe { transpose: true, ..recipe.clone() },
            Recipe { tensor: "v", ..recipe.clone() },
            Recipe { columns: 6, ..recipe.clone() },
            Recipe { role: Role::State, ..recipe.clone() },
            Recipe { assigned: true, ..recipe.clone() },
            Recipe { outputs: 2, ..recipe.clone() },
        ];
        let mut seen = std::collections::BTreeSet::from([base]);
        for (index, recipe) in changed.iter().enumerate() {
            assert!(seen.insert(build(recipe).fingerprint()), "change {index}");
        }
    }

    #[test]
    fn a_graph_that_changes_after_it_was_asked_has_another_fingerprint() {
        let mut graph = Graph::new("g");
        let mut seen = std::collections::BTreeSet::new();
        let mut differs = |graph: &Graph, change: &str| {
            assert_eq!(graph.fingerprint(), graph.fingerprint());
            assert!(seen.insert(graph.fingerprint()), "{change}");
        };
        differs(&graph, "nothing yet");
        let x = graph.input("x", DType::F32, Shape::known(&[2]));
        differs(&graph, "an input");
        let c = graph.constant(Tensor::f32([2], vec![1.0, 2.0]));
        differs(&graph, "a constant");
        let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[2]);
        differs(&graph, "a parameter");
        let y = graph.apply_all(Clip, &[Some(w), None, None], "clip").unwrap()[0];
        differs(&graph, "a node");
        graph.output(y);
        differs(&graph, "an output");
        graph.set_outputs(vec![y, y]);
        differs(&graph, "other outputs");
        graph.assign(w, y).unwrap();
        differs(&graph, "an assignment");
        graph.rename(y, "y");
        differs(&graph, "a name of a value");
        graph.name = "h".into();
        differs(&graph, "its own name");
        graph.make_parameter(c, Parameter::trainable("c"));
        differs(&graph, "a constant that becomes a parameter");
        graph.make_constant(c, std::sync::Arc::new(Tensor::f32([2], vec![1.0, 3.0])));
        differs(&graph, "a parameter that becomes a constant");
        graph.set_shape(x, Shape::known(&[3]));
        differs(&graph, "a shape");
        let mut same = graph.clone();
        same.rename(y, "y");
        assert_eq!((same.fingerprint(), &same), (graph.fingerprint(), &graph));
    }
}
