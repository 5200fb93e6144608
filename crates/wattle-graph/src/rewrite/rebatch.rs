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
    let mut freed = graph.clone();
    if let Some(id) = freed.find(input)
        && let Shape::Ranked(dims) = &graph.value(id).ty.shape
        && !dims.is_empty()
    {
        let mut dims = dims.clone();
        dims[0] = Dim::symbol("batch");
        freed.set_shape(id, Shape::Ranked(dims));
    }
    bind(&freed, &[(input, shape)])
}
