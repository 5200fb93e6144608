//! What a graph costs: parameters, multiply-accumulates and bytes, node by node.

use std::collections::{BTreeMap, HashSet};

use crate::error::GraphError;
use crate::graph::{Graph, NodeId, Source, ValueId};
use crate::operator::{MacKind, Shapes, Work};
use crate::parameter::Parameters;
use crate::tensor::Tensor;

/// What one node costs.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeCost {
    /// The node.
    pub node: NodeId,
    /// Elements of the parameters that this node is the first to read.
    pub parameters: u64,
    /// How many of them are not zero.
    pub nonzero_parameters: u64,
    /// Arithmetic.
    pub work: Work,
    /// Bytes of the operands; 0 for pure renamings.
    pub bytes_read: u64,
    /// Bytes of the results; 0 for pure renamings.
    pub bytes_written: u64,
}

impl NodeCost {
    /// Fraction of this node's parameters that are not zero; `None` when it has none.
    pub fn density(&self) -> Option<f64> {
        (self.parameters > 0).then(|| self.nonzero_parameters as f64 / self.parameters as f64)
    }
}

/// Sums over a graph.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Totals {
    /// Elements of all parameters, shared ones counted once.
    pub parameters: u64,
    /// How many of them are not zero.
    pub nonzero_parameters: u64,
    /// Multiply-accumulates of Conv, MatMul and Gemm, as published model sizes count them.
    pub macs: u64,
    /// The same without products with zero weights.
    pub effective_macs: u64,
    /// Multiply-accumulates of every other kind.
    pub other_macs: BTreeMap<MacKind, u64>,
    /// Bytes of all operands of all nodes: what would be read if nothing stayed in cache.
    pub bytes_read: u64,
    /// Bytes of all results.
    pub bytes_written: u64,
}

/// The cost of every node of a graph whose shapes are all known.
///
/// Densities of parameters and constants are counted; those of everything else are taken as 1.
pub fn costs(graph: &Graph, parameters: &Parameters) -> Result<Vec<NodeCost>, GraphError> {
    let mut seen = HashSet::new();
    let mut list = vec![];
    for (id, node) in graph.node_ids() {
        let mut inputs = vec![];
        let mut densities = vec![];
        let (mut count, mut nonzero) = (0u64, 0u64);
        for input in &node.inputs {
            let Some(input) = *input else {
                inputs.push(None);
                densities.push(1.0);
                continue;
            };
            let density = density(graph, parameters, input);
            if let Some(parameter) = graph.parameter_of(input)
                && seen.insert(parameter.tensor.clone())
            {
                let elements: usize = graph.extents(input)?.iter().product();
                count += elements as u64;
                nonzero += (elements as f64 * density).round() as u64;
            }
            inputs.push(Some(graph.extents(input)?));
            densities.push(density);
        }
        let mut weights = vec![];
        for nested in node.op.graphs() {
            weights_of_branch(nested, &mut weights);
        }
        for weight in weights {
            count += weight.len() as u64;
            nonzero += (weight.len() as f64 * weight.density()).round() as u64;
        }
        let outputs = node.outputs.iter().map(|&o| graph.extents(o)).collect::<Result<Vec<_>, _>>()?;
        let shapes = Shapes { inputs: &inputs, outputs: &outputs, densities: &densities };
        let work = node.op.work(&shapes);
        let bytes = |ids: &mut dyn Iterator<Item = ValueId>| {
            ids.map(|id| {
                let elements: usize = graph.extents(id).map_or(0, |e| e.iter().product());
                elements as u64 * graph.value(id).ty.dtype.size() as u64
            })
            .sum::<u64>()
        };
        let (read, written) =
            (bytes(&mut node.inputs.iter().flatten().copied()), bytes(&mut node.outputs.iter().copied()));
        list.push(NodeCost {
            node: id,
            parameters: count,
            nonzero_parameters: nonzero,
            work,
            bytes_read: if work.moves_data { read } else { 0 },
            bytes_written: if work.moves_data { written } else { 0 },
        });
    }
    Ok(list)
}

/// The float arrays that the nodes of a branch and of the graphs nested in it read: they have their weights as
/// constants.
///
/// What several branches compute from the same outer constants has been folded in each of them: equal arrays are one.
fn weights_of_branch<'a>(graph: &'a Graph, found: &mut Vec<&'a Tensor>) {
    for node in graph.nodes() {
        for &input in node.inputs.iter().flatten() {
            if let Source::Constant(tensor) = &graph.value(input).source
                && tensor.dtype().is_float()
                && tensor.len() > 1
                && !found.contains(&tensor.as_ref())
            {
                found.push(tensor);
            }
        }
        for nested in node.op.graphs() {
            weights_of_branch(nested, found);
        }
    }
}

/// Fraction of non-zero elements, where it can be known.
fn density(graph: &Graph, parameters: &Parameters, id: ValueId) -> f64 {
    match &graph.value(id).source {
        Source::Parameter(p) => parameters.view(p).map_or(1.0, |t| t.density()),
        Source::Constant(t) => t.density(),
        Source::Input | Source::Node { .. } => 1.0,
    }
}

/// The sums over all nodes.
pub fn totals(costs: &[NodeCost]) -> Totals {
    let mut totals = Totals::default();
    for cost in costs {
        totals.parameters += cost.parameters;
        totals.nonzero_parameters += cost.nonzero_parameters;
        totals.bytes_read += cost.bytes_read;
        totals.bytes_written += cost.bytes_written;
        if cost.work.kind == MacKind::Standard {
            totals.macs += cost.work.macs;
            totals.effective_macs += cost.work.effective_macs;
        } else {
            *totals.other_macs.entry(cost.work.kind).or_default() += cost.work.macs;
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use crate::ops::{If, MatMul};
    use crate::parameter::Parameter;
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};

    #[test]
    fn a_masked_weight_used_twice_counts_once_and_its_zeros_save_macs() {
        let mut graph = Graph::new("shared");
        let x = graph.input("x", DType::F32, Shape::known(&[3, 4]));
        let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[4, 4]);
        let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
        let z = graph.apply(MatMul::default(), &[y, w]).unwrap();
        graph.output(z);
        let mut parameters = Parameters::new();
        parameters.insert("w", Tensor::f32([4, 4], vec![1.0; 16]));
        parameters.set_mask("w", Mask::from_bools((0..16).map(|i| i % 4 == 0)));
        let totals = totals(&costs(&graph, &parameters).unwrap());
        assert_eq!((totals.parameters, totals.nonzero_parameters), (16, 4));
        assert_eq!((totals.macs, totals.effective_macs), (2 * 48, 2 * 12));
        assert_eq!((totals.bytes_read, totals.bytes_written), (2 * (48 + 64), 2 * 48));
    }

    #[test]
    fn weights_inside_branches_are_parameters_too() {
        let branch = |weight: Vec<f32>| {
            let mut graph = Graph::new("branch");
            let x = graph.input("x", DType::F32, Shape::known(&[2, 2]));
            let w = graph.constant(Tensor::f32([2, 2], weight));
            let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
            graph.output(y);
            Box::new(graph)
        };
        let op = If { then_graph: branch(vec![1.0; 4]), else_graph: branch(vec![1.0, 0.0, 0.0, 1.0]) };
        let mut graph = Graph::new("choice");
        let condition = graph.input("c", DType::Bool, Shape::known(&[]));
        let x = graph.input("x", DType::F32, Shape::known(&[2, 2]));
        let y = graph.apply(op, &[condition, x, x]).unwrap();
        graph.output(y);
        let totals = totals(&costs(&graph, &Parameters::new()).unwrap());
        assert_eq!((totals.parameters, totals.nonzero_parameters), (8, 6));
    }
}
