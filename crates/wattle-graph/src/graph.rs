//! The graph: an arena of values and a list of nodes in topological order, as plain data.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::error::{GraphError, OpError};
use crate::fingerprint::Remembered;
use crate::operator::{Operand, Operands};
use crate::ops::Op;
use crate::parameter::Parameter;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor, element_count};

/// Names a value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    /// Position in the graph's list of values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names a node of one graph; ids grow in topological order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// Position in the graph's list of nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Element type and shape of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, possibly symbolic or unknown.
    pub shape: Shape,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> TensorType {
        TensorType { dtype, shape: shape.into() }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Fed by the caller of each run.
    Input,
    /// Held outside the graph and shared between graphs; trained.
    Parameter(Parameter),
    /// Part of the graph.
    Constant(Arc<Tensor>),
    /// Output number `output` of `node`.
    Node {
        /// The producer.
        node: NodeId,
        /// Which of its outputs.
        output: usize,
    },
}

/// A tensor that flows through the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Unique within the graph, or empty: [`Graph::label`] then makes one up from the id.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// Producer.
    pub source: Source,
}

/// One application of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// For messages and listings; not necessarily unique.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Operands; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Results, one value each.
    pub outputs: Vec<ValueId>,
}

/// After a run, the parameter or state `target` takes the value `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// A value whose source is a parameter.
    pub target: ValueId,
    /// Its next value, of the same type.
    pub value: ValueId,
}

/// A network, or a training step of one.
///
/// Invariant: every node's inputs are inputs, parameters, constants, or outputs of earlier nodes, and every
/// value's type is what its producer infers.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// For listings and exported files.
    pub name: String,
    values: Vec<Value>,
    nodes: Vec<Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    assignments: Vec<Assignment>,
    /// Of all the above but the name; whatever changes the above forgets it.
    pub(crate) content: Remembered,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// All values; a [`ValueId`] is an index into them.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// All nodes in topological order; a [`NodeId`] is an index into them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Values fed by the caller, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Values returned to the caller, in order.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// What parameters become after a run.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// The value named by `id`.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The node named by `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Ids of all values, in order of creation.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// Ids and nodes, in topological order.
    pub fn node_ids(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }

    /// The value with this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.value_ids().find(|&id| self.value(id).name == name)
    }

    /// The constant behind `id`, if it is one.
    pub fn constant_of(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        match &self.value(id).source {
            Source::Constant(t) => Some(t),
            _ => None,
        }
    }

    /// The parameter behind `id`, if it is one.
    pub fn parameter_of(&self, id: ValueId) -> Option<&Parameter> {
        match &self.value(id).source {
            Source::Parameter(p) => Some(p),
            _ => None,
        }
    }

    /// Ids of all parameter values, in order of creation.
    pub fn parameters(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.value_ids().filter(|&id| self.parameter_of(id).is_some())
    }

    /// The name of a value, or one made up from its producer and id where it has none.
    pub fn label(&self, id: ValueId) -> String {
        let value = self.value(id);
        match value.source {
            _ if !value.name.is_empty() => value.name.clone(),
            Source::Node { node, .. } => format!("{}.{}", self.node(node).op.name().to_lowercase(), id.0),
            Source::Constant(_) => format!("constant.{}", id.0),
            Source::Input => format!("input.{}", id.0),
            Source::Parameter(_) => format!("parameter.{}", id.0),
        }
    }

    /// The known extents of `id`, or an error naming it and what to bind.
    pub fn extents(&self, id: ValueId) -> Result<Vec<usize>, GraphError> {
        let shape = &self.value(id).ty.shape;
        shape
            .extents()
            .ok_or_else(|| GraphError::UnboundShape { value: self.label(id), shape: shape.to_string() })
    }

    fn push_value(&mut self, name: String, ty: TensorType, source: Source) -> ValueId {
        self.content.forget();
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(Value { name, ty, source });
        id
    }

    /// Adds a value that the caller feeds.
    pub fn input(&mut self, name: impl Into<String>, dtype: DType, shape: impl Into<Shape>) -> ValueId {
        let id = self.push_value(name.into(), TensorType::new(dtype, shape), Source::Input);
        self.inputs.push(id);
        id
    }

    /// Adds a view of a parameter tensor of the given (full) shape.
    pub fn parameter(&mut self, parameter: Parameter, dtype: DType, full_shape: &[usize]) -> ValueId {
        let shape = Shape::known(&parameter.window.extents(full_shape));
        let name = self.name_of_view(&parameter);
        self.parameter_view(&name, parameter, TensorType::new(dtype, shape))
    }

    /// The tensor's name for its first view; none for further ones, since names are unique.
    fn name_of_view(&self, parameter: &Parameter) -> String {
        if self.find(&parameter.tensor).is_some() { String::new() } else { parameter.tensor.clone() }
    }

    /// Adds a view of a parameter tensor whose type is known already.
    pub(crate) fn parameter_view(&mut self, name: &str, parameter: Parameter, ty: TensorType) -> ValueId {
        self.push_value(name.to_string(), ty, Source::Parameter(parameter))
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        self.named_constant("", tensor)
    }

    /// Adds a constant with a name.
    pub fn named_constant(&mut self, name: impl Into<String>, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        let tensor = tensor.into();
        let ty = TensorType::new(tensor.dtype(), Shape::known(tensor.shape()));
        self.push_value(name.into(), ty, Source::Constant(tensor))
    }

    /// Adds a node and returns all its outputs, whose types are inferred here.
    pub fn apply_all(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        name: &str,
    ) -> Result<Vec<ValueId>, GraphError> {
        let op = op.into();
        let operands: Vec<Option<Operand>> = inputs.iter().map(|id| id.map(|id| self.operand(id))).collect();
        let types = op.infer(Operands::new(&operands)).and_then(countable).map_err(|cause| {
            let seen = operands.iter().map(|o| o.as_ref().map_or("-".into(), Operand::to_string));
            GraphError::Operator {
                node: name.to_string(),
                op: op.name().to_string(),
                operands: seen.collect::<Vec<_>>().join(", "),
                cause,
            }
        })?;
        let node = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        let mut outputs = Vec::with_capacity(types.len());
        for (output, ty) in types.into_iter().enumerate() {
            outputs.push(self.push_value(String::new(), ty, Source::Node { node, output }));
        }
        let node = Node { name: name.to_string(), op, inputs: inputs.to_vec(), outputs: outputs.clone() };
        self.content.forget();
        self.nodes.push(node);
        Ok(outputs)
    }

    /// Adds a node whose operands are all present and returns its first output.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        Ok(self.apply_all(op, &inputs, "")?[0])
    }

    /// The type of a value, and its constant if it is one, as an operator sees it.
    pub fn operand(&self, id: ValueId) -> Operand<'_> {
        let value = self.value(id);
        Operand { ty: &value.ty, constant: self.constant_of(id).map(|t| &**t) }
    }

    /// Turns a parameter into a constant of the same type.
    pub(crate) fn make_constant(&mut self, id: ValueId, tensor: Arc<Tensor>) {
        self.content.forget();
        self.values[id.index()].source = Source::Constant(tensor);
    }

    /// Turns a constant into a view of the whole of a parameter tensor of the same type.
    pub(crate) fn make_parameter(&mut self, id: ValueId, parameter: Parameter) {
        self.content.forget();
        self.values[id.index()].name.clear();
        let name = self.name_of_view(&parameter);
        let value = &mut self.values[id.index()];
        (value.name, value.source) = (name, Source::Parameter(parameter));
    }

    /// Gives an input another shape; the types of what depends on it must be inferred again after.
    pub(crate) fn set_shape(&mut self, id: ValueId, shape: Shape) {
        self.content.forget();
        self.values[id.index()].ty.shape = shape;
    }

    /// Gives a value another name.
    pub fn rename(&mut self, id: ValueId, name: impl Into<String>) {
        self.content.forget();
        self.values[id.index()].name = name.into();
    }

    /// Marks a value as returned to the caller.
    pub fn output(&mut self, id: ValueId) {
        self.content.forget();
        self.outputs.push(id);
    }

    /// Replaces the list of outputs.
    pub fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.content.forget();
        self.outputs = outputs;
    }

    /// Declares that after each run the parameter `target` takes the value `value`. All assignments of a run take place at
    /// once: each value is what it was before any of them.
    ///
    /// # Errors
    /// When `target` is no parameter, the types differ, or an earlier assignment writes an element that this one writes.
    pub fn assign(&mut self, target: ValueId, value: ValueId) -> Result<(), GraphError> {
        let parameter = |id: ValueId| self.parameter_of(id).map(|p| (&p.tensor, &p.window));
        let written = self.assignments.iter().filter_map(|a| parameter(a.target));
        if let Some((tensor, window)) = parameter(target)
            && let Some((_, earlier)) = written
                .chain(window.repeats().then_some((tensor, window)))
                .find(|(t, w)| *t == tensor && w.meets(window))
        {
            return Err(GraphError::AssignedTwice {
                target: format!("{tensor}{window}"),
                earlier: format!("{tensor}{earlier}"),
            });
        }
        self.assign_copied(target, value)
    }

    /// Declares an assignment whose window is one of a graph that this one is made from.
    pub(crate) fn assign_copied(&mut self, target: ValueId, value: ValueId) -> Result<(), GraphError> {
        let (t, v) = (self.value(target), self.value(value));
        if !matches!(t.source, Source::Parameter(_)) || t.ty != v.ty {
            return Err(GraphError::Assignment {
                target: format!("{}: {}", self.label(target), t.ty),
                value: format!("{}: {}", self.label(value), v.ty),
            });
        }
        self.content.forget();
        self.assignments.push(Assignment { target, value });
        Ok(())
    }

    /// How often each value is used: by nodes, as an output, and by assignments.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let used = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        let assigned = self.assignments.iter().flat_map(|a| [&a.target, &a.value]);
        for id in used.chain(&self.outputs).chain(assigned) {
            counts[id.index()] += 1;
        }
        counts
    }

    /// Checks the invariant of the type: order, unique names, and that every type is what its operator infers.
    pub fn check(&self) -> Result<(), GraphError> {
        let mut names = BTreeSet::new();
        for value in &self.values {
            if !value.name.is_empty() && !names.insert(value.name.as_str()) {
                return Err(GraphError::Invalid(format!("two values are named `{}`", value.name)));
            }
        }
        for (id, node) in self.node_ids() {
            for input in node.inputs.iter().flatten() {
                if let Source::Node { node: producer, .. } = self.value(*input).source
                    && producer >= id
                {
                    let text = format!("node {} ({}) reads a value made later", id.0, node.op.name());
                    return Err(GraphError::Invalid(text));
                }
            }
            let operands: Vec<_> = node.inputs.iter().map(|i| i.map(|i| self.operand(i))).collect();
            let types = node.op.infer(Operands::new(&operands)).map_err(|cause| GraphError::Operator {
                node: node.name.clone(),
                op: node.op.name().to_string(),
                operands: String::new(),
                cause,
            })?;
            let stored: Vec<_> = node.outputs.iter().map(|&o| self.value(o).ty.clone()).collect();
            if types != stored {
                let text = format!("node {} ({}) infers other types than stored", id.0, node.op.name());
                return Err(GraphError::Invalid(text));
            }
        }
        Ok(())
    }
}

/// Refuses types whose known extents multiply to more than 2^48: nothing so large can be computed, and
/// operators may count elements and offsets without fear of overflow.
fn countable(types: Vec<TensorType>) -> Result<Vec<TensorType>, OpError> {
    for ty in &types {
        let known: Vec<usize> =
            ty.shape.dims().unwrap_or(&[]).iter().filter_map(Dim::known).map(|n| n.max(1)).collect();
        if element_count(&known).is_none_or(|n| n > 1 << 48) {
            return Err(OpError::mismatch("result", ty, "at most 2^48 elements"));
        }
    }
    Ok(types)
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: ValueId| self.label(id);
        writeln!(f, "graph {} {{", self.name)?;
        for value in &self.values {
            match &value.source {
                Source::Input => writeln!(f, "  input {}: {}", value.name, value.ty)?,
                Source::Parameter(p) => writeln!(f, "  param {}: {}{}", value.name, value.ty, p.window)?,
                Source::Constant(_) | Source::Node { .. } => {}
            }
        }
        for node in &self.nodes {
            let outputs: Vec<_> = node.outputs.iter().map(|&o| name(o)).collect();
            let inputs: Vec<_> =
                node.inputs.iter().map(|i| i.map_or("-".into(), |i| self.short(i))).collect();
            write!(f, "  {} = {}({})", outputs.join(", "), node.op.name(), inputs.join(", "))?;
            let attributes = node.op.attributes();
            if !attributes.is_empty() {
                let texts: Vec<_> = attributes.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                write!(f, " {{{}}}", texts.join(", "))?;
            }
            let types: Vec<_> = node.outputs.iter().map(|&o| self.value(o).ty.to_string()).collect();
            writeln!(f, " -> {}", types.join(", "))?;
        }
        for a in &self.assignments {
            writeln!(f, "  {} <- {}", name(a.target), name(a.value))?;
        }
        let outputs: Vec<_> = self.outputs.iter().map(|&o| name(o)).collect();
        writeln!(f, "  return {}", outputs.join(", "))?;
        f.write_str("}")
    }
}

impl Graph {
    /// A value as the listing shows it: small constants by content, all else by name.
    fn short(&self, id: ValueId) -> String {
        match self.constant_of(id) {
            Some(t) if t.len() <= 4 => {
                let texts: Vec<_> = t.to_f64().iter().map(|x| x.to_string()).collect();
                if t.shape().is_empty() { texts.concat() } else { format!("[{}]", texts.join(", ")) }
            }
            Some(t) => format!("{}{}", t.dtype(), Shape::known(t.shape())),
            None => self.label(id),
        }
    }
}
