//! Fingerprints: graphs that are the same in everything a plan or a run depends on have the same one.

use std::fmt::{self, Write};

use crate::graph::{Graph, Source};
use crate::tensor::Tensor;

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

/// What is hashed, each piece ended by a zero byte.
struct Pieces(blake3::Hasher);

impl Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Pieces {
    /// Anything that shows all of itself.
    fn add(&mut self, piece: impl fmt::Debug) {
        // Writing to a hash cannot fail, and no `Debug` of a graph's parts does.
        let _ = write!(self, "{piece:?}\0");
    }

    fn add_tensor(&mut self, tensor: &Tensor) {
        self.add((tensor.dtype(), tensor.shape()));
        self.0.update(&tensor.to_le_bytes());
    }
}

impl Graph {
    /// A fingerprint of the graph itself: names, types, operators with their attributes, constants by content, parameters
    /// with their windows and roles, outputs and assignments. The tensors behind parameters are no part of it.
    ///
    /// A custom operator is told from others by what its `Debug` shows, which must be all that it does.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut pieces = Pieces(blake3::Hasher::new());
        pieces.add(&self.name);
        for value in self.values() {
            pieces.add((&value.name, &value.ty));
            match &value.source {
                Source::Constant(tensor) => pieces.add_tensor(tensor),
                other => pieces.add(other),
            }
        }
        for node in self.nodes() {
            pieces.add(node);
        }
        pieces.add((self.inputs(), self.outputs(), self.assignments()));
        Fingerprint(*pieces.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Clip, MatMul, Softmax};
    use crate::parameter::{AxisWindow, Parameter, Role, Window};
    use crate::shape::Shape;
    use crate::tensor::DType;

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
}
