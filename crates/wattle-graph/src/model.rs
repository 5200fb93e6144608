//! A model: a graph and the tensors its parameters stand for.

use std::collections::BTreeMap;

use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::Graph;
use crate::parameter::Parameters;
use crate::rewrite;

/// A network with its weights, as read from a file or made by a preset.
///
/// A model that is made from another keeps its metadata: `Model { graph, ..model.clone() }`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    /// Its weights.
    pub parameters: Parameters,
    /// What else the file says of it, as texts by key (`metadata_props` of ONNX): who made it, what its inputs were
    /// normalised with. Read and written as it is, and no part of what the network computes.
    pub metadata: BTreeMap<String, String>,
    /// What reading its file decided that whoever trains it should know. Not written.
    pub facts: Vec<Fact>,
}

impl Model {
    /// A model without metadata.
    pub fn new(graph: Graph, parameters: Parameters) -> Model {
        Model { graph, parameters, ..Model::default() }
    }

    /// The same model with the named inputs bound to these shapes; see [`rewrite::bind`].
    pub fn bind(&self, shapes: &[(&str, &[usize])]) -> Result<Model, GraphError> {
        Ok(Model { graph: rewrite::bind(&self.graph, shapes)?, ..self.clone() })
    }
}
