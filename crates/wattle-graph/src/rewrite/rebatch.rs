//! Another batch size than the file was exported with.

use super::bind;
use crate::error::GraphError;
use crate::graph::Graph;
use crate::shape::{Dim, Shape};

/// The graph with the named input bound to `shape`, whatever its first extent (the batch) was.
///
/// # Errors
/// As [`bind`]; also when operators inside the graph insist on the old batch.
pub fn rebatch(graph: &Graph, input: &str, shape: &[usize]) -> Result<Graph, GraphError> {
    rebatch_inputs(graph, &[(input, shape, 0)])
}

/// The graph with named inputs bound to shapes, whatever the extent of each on its axis of the batch was.
///
/// # Errors
/// As [`bind`]; also when operators inside the graph insist on the old batch.
pub fn rebatch_inputs(graph: &Graph, inputs: &[(&str, &[usize], usize)]) -> Result<Graph, GraphError> {
    let mut freed = graph.clone();
    for &(name, _, axis) in inputs {
        if let Some(id) = freed.find(name)
            && let Shape::Ranked(dims) = &graph.value(id).ty.shape
            && axis < dims.len()
        {
            let mut dims = dims.clone();
            dims[axis] = Dim::symbol("batch");
            freed.set_shape(id, Shape::Ranked(dims));
        }
    }
    let shapes: Vec<(&str, &[usize])> = inputs.iter().map(|&(name, shape, _)| (name, shape)).collect();
    bind(&freed, &shapes)
}
