//! A node on its way out: operators say which ONNX nodes they are.

use std::sync::Arc;

use crate::graph::{Graph, NodeId, TensorType};
use crate::operator::Attribute;
use crate::tensor::Tensor;

/// One ONNX node to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Domain of the operator; empty for ONNX's own.
    pub domain: &'static str,
    /// ONNX operator of that domain.
    pub op_type: &'static str,
    /// Names of operands; empty where one is left out.
    pub inputs: Vec<String>,
    /// Names of results; empty where one is not used.
    pub outputs: Vec<String>,
    /// Attributes under their ONNX names.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// Collects the ONNX nodes and constants that one of our nodes becomes.
#[derive(Debug)]
pub struct ExportNode<'a> {
    graph: &'a Graph,
    node: NodeId,
    names: &'a [String],
    emitted: Vec<Emitted>,
    constants: Vec<(String, Arc<Tensor>)>,
}

impl<'a> ExportNode<'a> {
    /// Starts with nothing emitted; `names` has the exported name of every value of the graph.
    pub fn new(graph: &'a Graph, node: NodeId, names: &'a [String]) -> ExportNode<'a> {
        ExportNode { graph, node, names, emitted: Vec::new(), constants: Vec::new() }
    }

    /// Exported name of operand `index`; empty when it is left out.
    pub fn input(&self, index: usize) -> String {
        let id = self.graph.node(self.node).inputs.get(index).copied().flatten();
        id.map_or(String::new(), |id| self.names[id.index()].clone())
    }

    /// Number of operands, counting those left out in the middle.
    pub fn input_count(&self) -> usize {
        self.graph.node(self.node).inputs.len()
    }

    /// Type of operand `index`, which must not be left out.
    ///
    /// # Panics
    /// When it is left out; operators ask only for operands they require.
    pub fn input_type(&self, index: usize) -> &TensorType {
        let id = self.graph.node(self.node).inputs[index].expect("a required operand");
        &self.graph.value(id).ty
    }

    /// Type of result `index`.
    pub fn output_type(&self, index: usize) -> &TensorType {
        &self.graph.value(self.graph.node(self.node).outputs[index]).ty
    }

    /// Whether a node reads result `index`, or the graph returns it.
    pub fn is_read(&self, index: usize) -> bool {
        let id = self.graph.node(self.node).outputs[index];
        let by_node = self.graph.nodes().iter().any(|n| n.inputs.contains(&Some(id)));
        by_node || self.graph.outputs().contains(&id)
    }

    /// Exported name of result `index`.
    pub fn output(&self, index: usize) -> String {
        self.names[self.graph.node(self.node).outputs[index].index()].clone()
    }

    /// Adds an initialiser; returns its name.
    pub fn constant(&mut self, tensor: Tensor) -> String {
        let name = format!("{}.constant{}", self.output(0), self.constants.len());
        self.constants.push((name.clone(), Arc::new(tensor)));
        name
    }

    /// One node of the given ONNX operator with all of this node's operands and results.
    pub fn same(&mut self, op_type: &'static str, attributes: Vec<(&'static str, Attribute)>) {
        let inputs = (0..self.input_count()).map(|i| self.input(i)).collect::<Vec<_>>();
        self.emit_final(op_type, &inputs, attributes);
    }

    /// An intermediate node with one result; returns its name.
    pub fn emit(
        &mut self,
        op_type: &'static str,
        inputs: &[String],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let name = format!("{}.part{}", self.output(0), self.emitted.len());
        let (inputs, outputs) = (inputs.to_vec(), vec![name.clone()]);
        self.emitted.push(Emitted { domain: "", op_type, inputs, outputs, attributes });
        name
    }

    /// The node that gives this node's results.
    pub fn emit_final(
        &mut self,
        op_type: &'static str,
        inputs: &[String],
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let outputs = (0..self.graph.node(self.node).outputs.len()).map(|i| self.output(i)).collect();
        self.emit_outputs(op_type, inputs, outputs, attributes);
    }

    /// A node with its results named by the caller, for operators whose ONNX form has other results.
    pub fn emit_outputs(
        &mut self,
        op_type: &'static str,
        inputs: &[String],
        outputs: Vec<String>,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let mut inputs = inputs.to_vec();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        self.emitted.push(Emitted { domain: "", op_type, inputs, outputs, attributes });
    }

    /// Lets what was emitted last be of another domain than ONNX's own.
    pub(super) fn of_domain(&mut self, domain: &'static str) {
        if let Some(last) = self.emitted.last_mut() {
            last.domain = domain;
        }
    }

    /// What was emitted: nodes in order, and constants.
    pub fn finish(self) -> (Vec<Emitted>, Vec<(String, Arc<Tensor>)>) {
        (self.emitted, self.constants)
    }
}
