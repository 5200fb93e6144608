//! A node of a foreign file while its operator turns it into nodes of ours.

use std::collections::BTreeMap;

use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, ValueId};
use crate::operator::Attribute;
use crate::ops::Op;
use crate::rewrite;
use crate::tensor::Tensor;

/// Why a node could not be imported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The node is not of a form that its operator knows.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Name of the node, or of its first output.
        node: String,
        /// Its ONNX operator.
        op: String,
        /// What was found and expected.
        reason: String,
    },
    /// The graph refused the node.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// One ONNX node: its operands are already values of the growing graph; its attributes wait to be read.
///
/// An attribute that is left unread when the operator is done is an error: nothing foreign is silently ignored.
#[derive(Debug)]
pub struct ForeignNode<'a> {
    graph: &'a mut Graph,
    op_type: String,
    name: String,
    opset: i64,
    inputs: Vec<Option<ValueId>>,
    output_names: Vec<String>,
    attributes: BTreeMap<String, Attribute>,
    captures: BTreeMap<String, Vec<ValueId>>,
    fold_budget: usize,
    facts: Vec<Fact>,
}

impl<'a> ForeignNode<'a> {
    /// A node about to be imported. `output_names` has an empty text for each optional output not wanted.
    /// `captures` lists, for each graph attribute, the outer values that the inputs of that graph stand for.
    #[allow(clippy::too_many_arguments, reason = "called once, by the importer")]
    pub fn new(
        graph: &'a mut Graph,
        op_type: impl Into<String>,
        name: impl Into<String>,
        opset: i64,
        inputs: Vec<Option<ValueId>>,
        output_names: Vec<String>,
        attributes: BTreeMap<String, Attribute>,
        captures: BTreeMap<String, Vec<ValueId>>,
    ) -> ForeignNode<'a> {
        let (op_type, name) = (op_type.into(), name.into());
        ForeignNode {
            graph,
            op_type,
            name,
            opset,
            inputs,
            output_names,
            attributes,
            captures,
            fold_budget: 0,
            facts: vec![],
        }
    }

    /// Lets nodes on constants become constants themselves, at a cost of at most `elements` elements read, written
    /// and worked on in total.
    pub(crate) fn fold_within(&mut self, elements: usize) {
        self.fold_budget = elements;
    }

    /// What is left of the allowance of [`ForeignNode::fold_within`].
    pub(crate) fn fold_budget(&self) -> usize {
        self.fold_budget
    }

    /// The operator's name without its domain.
    pub fn op_type(&self) -> &str {
        &self.op_type
    }

    /// Version of the operator set the node is written in.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The growing graph.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// Number of operands, counting those left out in the middle.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Operand `index`, which must be there.
    pub fn input(&self, index: usize) -> Result<ValueId, ImportError> {
        self.optional_input(index).ok_or_else(|| self.refuse(format!("operand {index} is missing")))
    }

    /// Operand `index`, unless left out.
    pub fn optional_input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// All operands.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Content of operand `index`; an error when it is there but computed at run time.
    pub fn constant_input(&self, index: usize) -> Result<Option<Tensor>, ImportError> {
        let Some(id) = self.optional_input(index) else { return Ok(None) };
        match self.graph.constant_of(id) {
            Some(tensor) => Ok(Some((**tensor).clone())),
            None => Err(self.refuse(format!("operand {index} must be constant"))),
        }
    }

    /// Whether the file names output `index` and something reads it.
    pub fn wants_output(&self, index: usize) -> bool {
        self.output_names.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Number of outputs listed.
    pub fn output_count(&self) -> usize {
        self.output_names.len()
    }

    /// An error about this node.
    pub fn refuse(&self, reason: impl Into<String>) -> ImportError {
        let named = !self.name.is_empty();
        let node = if named { &self.name } else { self.output_names.first().unwrap_or(&self.name) };
        ImportError::Node { node: node.clone(), op: self.op_type.clone(), reason: reason.into() }
    }

    /// States that something the node asks of training is not done: `what`, and what is done instead.
    pub fn leaves_out(&mut self, what: impl Into<String>) {
        let named = !self.name.is_empty();
        let node = if named { Some(&self.name) } else { self.output_names.first() };
        self.facts.push(Fact::LeftOut { node: node.cloned().unwrap_or_default(), what: what.into() });
    }

    /// What the operator stated by [`ForeignNode::leaves_out`].
    pub(crate) fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// Takes an attribute; `None` when it is not given.
    pub fn attribute(&mut self, name: &str) -> Option<Attribute> {
        self.attributes.remove(name)
    }

    /// Takes an integer attribute.
    pub fn int(&mut self, name: &str, default: i64) -> Result<i64, ImportError> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Int(x)) => Ok(x),
            Some(other) => Err(self.refuse(format!("{name} = {other}; expected an integer"))),
        }
    }

    /// Takes a list of integers.
    pub fn ints(&mut self, name: &str, default: &[i64]) -> Result<Vec<i64>, ImportError> {
        Ok(self.optional_ints(name)?.unwrap_or_else(|| default.to_vec()))
    }

    /// Takes a list of integers; `None` when it is not given.
    pub fn optional_ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, ImportError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(x)) => Ok(Some(x)),
            // An empty list carries no type in the file.
            Some(Attribute::Floats(x)) if x.is_empty() => Ok(Some(vec![])),
            Some(other) => Err(self.refuse(format!("{name} = {other}; expected a list of integers"))),
        }
    }

    /// Takes a number.
    pub fn float(&mut self, name: &str, default: f32) -> Result<f32, ImportError> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Float(x)) => Ok(x),
            Some(other) => Err(self.refuse(format!("{name} = {other}; expected a number"))),
        }
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str, default: &str) -> Result<String, ImportError> {
        match self.attribute(name) {
            None => Ok(default.to_string()),
            Some(Attribute::Text(x)) => Ok(x),
            Some(other) => Err(self.refuse(format!("{name} = {other}; expected a text"))),
        }
    }

    /// Takes a nested graph and the values of this graph that its inputs stand for.
    pub fn subgraph(&mut self, name: &str) -> Result<(Graph, Vec<ValueId>), ImportError> {
        match self.attribute(name) {
            Some(Attribute::Graph(graph)) => Ok((*graph, self.captures.remove(name).unwrap_or_default())),
            Some(other) => Err(self.refuse(format!("{name} = {other}; expected a graph"))),
            None => Err(self.refuse(format!("attribute {name} is missing"))),
        }
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(tensor)
    }

    /// Adds a node.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, ImportError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.apply_all(op, &inputs)?[0])
    }

    /// Adds a node with optional operands; returns all its outputs.
    pub fn apply_all(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, ImportError> {
        let op = op.into();
        if let Some((results, cost)) = rewrite::folded(self.graph, &op, inputs, &self.name, self.fold_budget)?
        {
            self.fold_budget -= cost.min(self.fold_budget);
            return Ok(results.into_iter().map(|t| self.graph.constant(t)).collect());
        }
        Ok(self.graph.apply_all(op, inputs, &self.name)?)
    }

    /// Adds the node as one operator on the same operands; returns all its outputs.
    pub fn finish(&mut self, op: impl Into<Op>) -> Result<Vec<ValueId>, ImportError> {
        let inputs = self.inputs.clone();
        self.apply_all(op, &inputs)
    }

    /// Names of the attributes not read yet.
    pub fn unread(&self) -> Vec<String> {
        self.attributes.keys().cloned().collect()
    }
}
