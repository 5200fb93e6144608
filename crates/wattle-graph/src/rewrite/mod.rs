//! Rewrites: small pure functions from a graph to a graph that computes the same.

mod attention;
mod batch_norm;
mod bind;
mod common_subexpressions;
mod dead_code;
mod fold_affine;
mod freeze;
mod fuse;
mod fuse_norm;
mod layer_norm;
mod normalise;
mod part;
mod quantized;
mod rebatch;
mod recognise;

use std::fmt;

use crate::error::GraphError;
use crate::graph::{Graph, Node, Source, ValueId};

pub use attention::RECOGNISE_ATTENTION;
pub use batch_norm::FOLD_BATCH_NORM;
pub use bind::{FOLD_CONSTANTS, bind};
pub(crate) use bind::{folded, retyped};
pub use common_subexpressions::COMMON_SUBEXPRESSIONS;
pub use dead_code::remove_dead_code;
pub use fold_affine::FOLD_AFFINE;
pub use freeze::freeze;
pub use fuse::FUSE;
pub use fuse_norm::FUSE_BATCH_NORM;
pub use layer_norm::RECOGNISE_LAYER_NORM;
pub use normalise::normalise_input;
pub use part::part_of_batch;
pub use quantized::{FOLD_QUANTIZED, FUSE_QUANTIZED};
pub use rebatch::rebatch;
pub use recognise::RECOGNISE;

/// What a rule did with one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node was replaced.
    Applied,
    /// The rule does not concern this node.
    NoEffect,
    /// The rule concerns this node but may not be applied, for the stated reason.
    Refused(&'static str),
}

/// A named rewrite: one rule, offered every node in topological order.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Public name, as logs print it.
    pub name: &'static str,
    /// Replaces the node's outputs in the new graph, or leaves it to be copied.
    pub rule: fn(&mut Rebuild<'_>, &Node) -> Result<Outcome, GraphError>,
}

/// The passes that prepare a frozen graph for inference, in order; dead code is removed after each.
/// Affine folding runs before and after the norms: it may join a convolution to its norm, or what follows the norm.
/// Attention is recognised before anything moves its factor.
/// Quantised weights become floats only where no operator on bytes has taken them in.
pub const INFERENCE_PASSES: &[Pass] = &[
    FOLD_CONSTANTS,
    FUSE_QUANTIZED,
    FOLD_QUANTIZED,
    FOLD_CONSTANTS,
    RECOGNISE_ATTENTION,
    RECOGNISE_LAYER_NORM,
    FOLD_AFFINE,
    FOLD_BATCH_NORM,
    FOLD_AFFINE,
    RECOGNISE,
    FUSE,
    COMMON_SUBEXPRESSIONS,
];

/// The passes that prepare a training graph, in order; dead code is removed after each.
pub const TRAINING_PASSES: &[Pass] = &[COMMON_SUBEXPRESSIONS, FUSE_BATCH_NORM, FUSE];

/// One line of the log: what a pass did, or would not do, at a node.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Name of the pass.
    pub pass: &'static str,
    /// Operator and name of the node.
    pub node: String,
    /// Applied, or refused and why.
    pub outcome: Outcome,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Refused(reason) => write!(f, "{}: {}: not applied: {reason}", self.pass, self.node),
            _ => write!(f, "{}: {}: applied", self.pass, self.node),
        }
    }
}

/// Runs passes in order and returns the new graph with a log of what was applied and refused.
///
/// After `stop_after` applications all further nodes are copied unchanged, so that a wrong rewrite can be found
/// by bisection.
pub fn run_passes(
    graph: &Graph,
    passes: &[Pass],
    stop_after: Option<usize>,
) -> Result<(Graph, Vec<LogEntry>), GraphError> {
    let mut graph = remove_dead_code(graph)?;
    let mut log = vec![];
    let mut left = stop_after.unwrap_or(usize::MAX);
    for pass in passes {
        let mut rebuild = Rebuild::new(&graph);
        for node in graph.nodes() {
            let outcome = if left == 0 { Outcome::NoEffect } else { (pass.rule)(&mut rebuild, node)? };
            match outcome {
                Outcome::Applied => left -= 1,
                Outcome::NoEffect | Outcome::Refused(_) => rebuild.copy(node)?,
            }
            if outcome != Outcome::NoEffect {
                let node = format!("{} `{}`", node.op.name(), node.name);
                log.push(LogEntry { pass: pass.name, node, outcome });
            }
        }
        graph = remove_dead_code(&rebuild.finish()?)?;
        if cfg!(debug_assertions) {
            graph.check()?;
        }
    }
    Ok((graph, log))
}

/// A graph being copied into a new one, node by node, with some nodes replaced.
#[derive(Debug)]
pub struct Rebuild<'a> {
    /// The graph being copied.
    pub from: &'a Graph,
    /// The graph being built.
    pub to: Graph,
    map: Vec<Option<ValueId>>,
    uses: Vec<usize>,
    keep_names: bool,
}

impl<'a> Rebuild<'a> {
    /// Starts a copy with inputs, parameters and constants already copied.
    pub fn new(from: &'a Graph) -> Rebuild<'a> {
        Rebuild::with_inputs(from, |graph, id| {
            let value = from.value(id);
            graph.input(value.name.clone(), value.ty.dtype, value.ty.shape.clone())
        })
    }

    /// Starts a copy whose inputs are made by `input`.
    pub(crate) fn with_inputs(
        from: &'a Graph,
        mut input: impl FnMut(&mut Graph, ValueId) -> ValueId,
    ) -> Rebuild<'a> {
        let mut to = Graph::new(from.name.clone());
        let mut map = vec![None; from.values().len()];
        for &id in from.inputs() {
            map[id.index()] = Some(input(&mut to, id));
        }
        for id in from.value_ids() {
            let value = from.value(id);
            match &value.source {
                Source::Parameter(p) => {
                    let copy = to.parameter_view(&value.name, p.clone(), value.ty.clone());
                    map[id.index()] = Some(copy);
                }
                Source::Constant(t) => {
                    map[id.index()] = Some(to.named_constant(value.name.clone(), t.clone()));
                }
                Source::Input | Source::Node { .. } => {}
            }
        }
        Rebuild { from, to, map, uses: from.use_counts(), keep_names: true }
    }

    /// Continues the graph `to` with a copy of `from`, some of whose values already stand for values of `to`.
    /// Names of the branch are dropped: another branch may use them too.
    pub(crate) fn of_branch(from: &'a Graph, to: Graph, map: Vec<Option<ValueId>>) -> Rebuild<'a> {
        Rebuild { from, to, map, uses: from.use_counts(), keep_names: false }
    }

    /// What an old value has become.
    ///
    /// # Panics
    /// When the value has not been copied yet; topological order makes that impossible for operands.
    pub fn mapped(&self, old: ValueId) -> ValueId {
        self.map[old.index()].expect("operands are copied before the nodes that read them")
    }

    /// What the operands of an old node have become.
    pub fn operands(&self, node: &Node) -> Vec<Option<ValueId>> {
        node.inputs.iter().map(|i| i.map(|i| self.mapped(i))).collect()
    }

    /// How often the old graph uses an old value.
    pub fn uses(&self, old: ValueId) -> usize {
        self.uses[old.index()]
    }

    /// The old node that makes an old value, if a node does.
    pub fn producer(&self, old: ValueId) -> Option<&'a Node> {
        match self.from.value(old).source {
            Source::Node { node, .. } => Some(self.from.node(node)),
            _ => None,
        }
    }

    /// Lets `new` stand for the old value and take its name, unless it has one of its own.
    pub fn take_name(&mut self, old: ValueId, new: ValueId) {
        if self.keep_names && self.to.value(new).name.is_empty() {
            self.to.rename(new, self.from.value(old).name.clone());
        }
        self.replace(old, new);
    }

    /// Lets `new` stand for the old value.
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        self.map[old.index()] = Some(new);
    }

    /// Copies a node unchanged; its outputs keep their names.
    pub fn copy(&mut self, node: &Node) -> Result<(), GraphError> {
        let operands = self.operands(node);
        let outputs = self.to.apply_all(node.op.clone(), &operands, &node.name)?;
        for (&old, new) in node.outputs.iter().zip(outputs) {
            self.take_name(old, new);
        }
        Ok(())
    }

    /// Ends the copy: outputs and assignments follow.
    pub fn finish(mut self) -> Result<Graph, GraphError> {
        let mut outputs = vec![];
        for &old in self.from.outputs() {
            outputs.push(self.mapped(old));
        }
        for assignment in self.from.assignments() {
            let (target, value) = (self.mapped(assignment.target), self.mapped(assignment.value));
            self.to.assign_copied(target, value)?;
        }
        self.to.set_outputs(outputs);
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Example;
    use crate::ops::{Binary, BinaryFunction, Function, MatMul, Reshape, Shape as ShapeOf, Unary};
    use crate::shape::{Dim, Shape};
    use crate::tensor::DType;

    fn after(graph: &Graph, passes: &[Pass]) -> String {
        run_passes(graph, passes, None).unwrap().0.to_string()
    }

    #[test]
    fn bias_residual_and_activation_join_the_product() {
        let mut graph = Graph::new("layer");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 4]));
        let r = graph.input("r", DType::F32, Shape::known(&[2, 5]));
        let w = graph.named_constant("w", Example::noise(&[4, 5], 1));
        let b = graph.named_constant("b", Example::noise(&[5], 2));
        let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
        let y = graph.apply(Binary { function: BinaryFunction::Add }, &[y, b]).unwrap();
        let y = graph.apply(Binary { function: BinaryFunction::Add }, &[r, y]).unwrap();
        let y = graph.apply(Unary { function: Function::Relu }, &[y]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        let expected = "graph layer {\n  input x: f32[2, 4]\n  input r: f32[2, 5]\n  \
            y = Fused(x, f32[4, 5], f32[5], r) {body: MatMul, bias: 1, residual: 1, activation: Function(Relu)} \
            -> f32[2, 5]\n  return y\n}";
        assert_eq!(after(&graph, &[FUSE]), expected);
    }

    #[test]
    fn equal_nodes_become_one_and_unread_ones_go() {
        let mut graph = Graph::new("twice");
        let x = graph.input("x", DType::F32, Shape::known(&[2]));
        let exp = |graph: &mut Graph| graph.apply(Unary { function: Function::Exp }, &[x]).unwrap();
        let (a, b) = (exp(&mut graph), exp(&mut graph));
        graph.apply(Unary { function: Function::Log }, &[a]).unwrap();
        let y = graph.apply(Binary { function: BinaryFunction::Add }, &[a, b]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        let expected = "graph twice {\n  input x: f32[2]\n  exp.1 = Exp(x) -> f32[2]\n  \
            y = Add(exp.1, exp.1) -> f32[2]\n  return y\n}";
        assert_eq!(after(&graph, &[COMMON_SUBEXPRESSIONS]), expected);
    }

    #[test]
    fn binding_turns_shape_arithmetic_into_numbers() {
        let mut graph = Graph::new("flatten");
        let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), Dim::symbol("H"), Dim::Known(2)]);
        let like = graph.input("like", DType::F32, vec![Dim::symbol("A"), Dim::symbol("B")]);
        let shape = graph.apply(ShapeOf::default(), &[like]).unwrap();
        let y = graph.apply(Reshape { allow_zero: false }, &[x, shape]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        assert_eq!(graph.value(y).ty.to_string(), "f32[reshaped0, reshaped1]");
        let bound = bind(&graph, &[("x", &[3, 4, 2]), ("like", &[6, 4])]).unwrap();
        let expected = "graph flatten {\n  input x: f32[3, 4, 2]\n  input like: f32[6, 4]\n  \
            y = Reshape(x, [6, 4]) -> f32[6, 4]\n  return y\n}";
        assert_eq!(bound.to_string(), expected);
        assert!(bind(&graph, &[("x", &[3, 4, 5])]).is_err(), "a known extent cannot change");
        assert!(bind(&graph, &[("z", &[3])]).unwrap_err().to_string().contains("the inputs are: x, like"));
    }

    #[test]
    fn passes_stop_after_the_number_asked_for() {
        let mut graph = Graph::new("chain");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 2]));
        let w = graph.constant(Example::noise(&[2, 2], 1));
        let mut y = x;
        for _ in 0..3 {
            y = graph.apply(MatMul::default(), &[y, w]).unwrap();
            y = graph.apply(Unary { function: Function::Relu }, &[y]).unwrap();
        }
        graph.output(y);
        for limit in 0..4 {
            let (rewritten, log) = run_passes(&graph, &[FUSE], Some(limit)).unwrap();
            assert_eq!((rewritten.nodes().len(), log.len()), (6 - limit, limit));
        }
    }
}
