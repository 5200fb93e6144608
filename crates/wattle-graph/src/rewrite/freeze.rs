//! Freezing: parameters become constants, so that whatever depends only on them can be computed once.

use std::sync::Arc;

use crate::error::GraphError;
use crate::graph::{Graph, Source};
use crate::parameter::Parameters;

/// The graph with every parameter of which `parameters` has the tensor replaced by its value.
///
/// # Errors
/// When a window does not fit its tensor, or the graph assigns to one of the tensors.
pub fn freeze(graph: &Graph, parameters: &Parameters) -> Result<Graph, GraphError> {
    let mut frozen = graph.clone();
    for id in graph.value_ids() {
        let Source::Parameter(parameter) = &graph.value(id).source else { continue };
        if parameters.get(&parameter.tensor).is_none() {
            continue;
        }
        let tensor: Arc<_> = parameters.view(parameter).ok_or_else(|| GraphError::Feed {
            what: "parameter",
            name: parameter.tensor.clone(),
            found: "one that the window does not fit".into(),
            expected: graph.value(id).ty.to_string(),
        })?;
        frozen.make_constant(id, tensor);
    }
    if graph.assignments().iter().any(|a| frozen.parameter_of(a.target).is_none()) {
        return Err(GraphError::Invalid("a tensor that the graph assigns to cannot be frozen".into()));
    }
    Ok(frozen)
}
