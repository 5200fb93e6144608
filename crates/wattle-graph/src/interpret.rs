//! The reference interpreter: runs a graph node by node with [`Operator::evaluate`], slowly and plainly.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::GraphError;
use crate::graph::{Graph, Source, ValueId};
use crate::operator::Tensors;
use crate::parameter::Parameters;
use crate::tensor::Tensor;

/// Runs `graph` on named inputs; returns its outputs in order and writes its assignments to `parameters`.
///
/// Every operator runs here; this is the definition that the engine is tested against.
pub fn interpret(
    graph: &Graph,
    parameters: &mut Parameters,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<Vec<Tensor>, GraphError> {
    let mut values: Vec<Option<Arc<Tensor>>> = vec![None; graph.values().len()];
    for id in graph.value_ids() {
        let value = graph.value(id);
        values[id.index()] = match &value.source {
            Source::Input => Some(Arc::new(fed(graph, id, inputs)?.clone())),
            Source::Parameter(p) => Some(parameters.view(p).ok_or_else(|| GraphError::Feed {
                what: "parameter",
                name: value.name.clone(),
                found: "none, or one that the window does not fit".into(),
                expected: value.ty.to_string(),
            })?),
            Source::Constant(t) => Some(t.clone()),
            Source::Node { .. } => None,
        };
    }
    refuse_giants(graph)?;
    let mut remaining_uses = graph.use_counts();
    for node in graph.nodes() {
        let operands: Vec<Option<Arc<Tensor>>> =
            node.inputs.iter().map(|i| i.and_then(|i| values[i.index()].clone())).collect();
        let borrowed: Vec<Option<&Tensor>> = operands.iter().map(|o| o.as_deref()).collect();
        let results =
            node.op.evaluate_checked(Tensors::new(&borrowed)).map_err(|cause| GraphError::Operator {
                node: node.name.clone(),
                op: node.op.name().to_string(),
                operands: describe(&borrowed),
                cause,
            })?;
        for (&output, result) in node.outputs.iter().zip(results) {
            values[output.index()] = Some(Arc::new(result));
        }
        for input in node.inputs.iter().flatten() {
            remaining_uses[input.index()] -= 1;
            if remaining_uses[input.index()] == 0 {
                values[input.index()] = None;
            }
        }
    }
    let result = |id: ValueId| {
        let missing = || GraphError::Invalid(format!("`{}` was not computed", graph.label(id)));
        values[id.index()].clone().ok_or_else(missing)
    };
    for assignment in graph.assignments() {
        if let Some(parameter) = graph.parameter_of(assignment.target) {
            parameters.write_view(parameter, (*result(assignment.value)?).clone());
        }
    }
    graph.outputs().iter().map(|&id| result(id).map(Arc::unwrap_or_clone)).collect()
}

/// Most elements of a result: 2^32, 16 GiB of floats.
const LARGEST: u64 = 1 << 32;

/// Refuses to compute what no memory holds: an allocation that fails ends the process.
fn refuse_giants(graph: &Graph) -> Result<(), GraphError> {
    for &id in graph.nodes().iter().flat_map(|node| &node.outputs) {
        let Some(extents) = graph.value(id).ty.shape.extents() else { continue };
        let elements = extents.iter().fold(1u64, |n, &extent| n.saturating_mul(extent as u64));
        if elements >= LARGEST {
            return Err(GraphError::Invalid(format!(
                "`{}` has {elements} elements, {extents:?}, more than the limit of {LARGEST}; use smaller inputs",
                graph.label(id)
            )));
        }
    }
    Ok(())
}

/// The tensor given for an input, checked against its declared type.
fn fed<'a>(
    graph: &Graph,
    id: ValueId,
    inputs: &'a BTreeMap<String, Tensor>,
) -> Result<&'a Tensor, GraphError> {
    let value = graph.value(id);
    let refuse = |found: String| GraphError::Feed {
        what: "input",
        name: value.name.clone(),
        found,
        expected: value.ty.to_string(),
    };
    let tensor = inputs.get(&value.name).ok_or_else(|| refuse("nothing".into()))?;
    let fits = match value.ty.shape.dims() {
        None => true,
        Some(dims) => {
            dims.len() == tensor.shape().len()
                && dims.iter().zip(tensor.shape()).all(|(d, n)| d.known().is_none_or(|k| k == *n))
        }
    };
    if !fits || tensor.dtype() != value.ty.dtype {
        return Err(refuse(format!("{}{:?}", tensor.dtype(), tensor.shape())));
    }
    Ok(tensor)
}

fn describe(operands: &[Option<&Tensor>]) -> String {
    let text = |o: &Option<&Tensor>| o.map_or("-".to_string(), |t| format!("{}{:?}", t.dtype(), t.shape()));
    operands.iter().map(text).collect::<Vec<_>>().join(", ")
}
