//! A model: a graph and the tensors its parameters stand for.

use crate::error::GraphError;
use crate::graph::Graph;
use crate::parameter::Parameters;
use crate::rewrite;

/// A network with its weights, as read from a file or made by a preset.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    /// Its weights.
    pub parameters: Parameters,
}

impl Model {
    /// The same model with the named inputs bound to these shapes; see [`rewrite::bind`].
    pub fn bind(&self, shapes: &[(&str, &[usize])]) -> Result<Model, GraphError> {
        Ok(Model { graph: rewrite::bind(&self.graph, shapes)?, parameters: self.parameters.clone() })
    }
}
