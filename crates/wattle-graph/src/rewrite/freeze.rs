//! Freezing: parameters become constants, so that whatever depends only on them can be computed once.

use std::sync::Arc;

use crate::error::GraphError;
use crate::graph::{Graph, Source};
use crate::parameter::Parameters;

/// The graph with every parameter replaced by its value in `parameters`.
///
/// # Errors
/// When a parameter has no value, or the graph assigns to parameters: a training step cannot be frozen.
pub fn freeze(graph: &Graph, parameters: &Parameters) -> Result<Graph, GraphError> {
    if !graph.assignments().is_empty() {
        return Err(GraphError::Invalid("a graph that assigns to its parameters cannot be frozen".into()));
    }
    let mut frozen = graph.clone();
    for id in graph.value_ids() {
        let Source::Parameter(parameter) = &graph.value(id).source else { continue };
        let tensor: Arc<_> = parameters.view(parameter).ok_or_else(|| GraphError::Feed {
            what: "parameter",
            name: parameter.tensor.clone(),
            found: "none, or one that the window does not fit".into(),
            expected: graph.value(id).ty.to_string(),
        })?;
        frozen.make_constant(id, tensor);
    }
    Ok(frozen)
}
