//! Binding: input shapes become numbers, and everything that follows from them becomes constant.

use super::{Outcome, Pass, Rebuild, remove_dead_code};
use crate::error::GraphError;
use crate::graph::{Graph, Node, ValueId};
use crate::operator::{Operands, Tensors};
use crate::ops::Op;
use crate::shape::Shape;
use crate::tensor::{Tensor, element_count};

/// Replaces nodes whose operands are all constant by their results, `Shape` and `Size` of known shapes by
/// constants, and `If` with a constant condition by the branch it takes.
pub const FOLD_CONSTANTS: Pass = Pass { name: "fold-constants", rule: fold };

/// Largest result kept as a constant, in elements: folding must not blow a small file up.
const MAX_FOLDED: usize = 1 << 27;

/// The graph with the shapes of the named inputs replaced, all types inferred again and constants folded.
///
/// # Errors
/// When an input is unknown, a shape contradicts a known extent, or an operator refuses its new operands.
pub fn bind(graph: &Graph, shapes: &[(&str, &[usize])]) -> Result<Graph, GraphError> {
    for (name, shape) in shapes {
        let found = graph.inputs().iter().find(|&&i| graph.value(i).name == *name);
        let Some(&id) = found else {
            let names: Vec<_> = graph.inputs().iter().map(|&i| graph.label(i)).collect();
            let text = format!("there is no input `{name}`; the inputs are: {}", names.join(", "));
            return Err(GraphError::Invalid(text));
        };
        let declared = &graph.value(id).ty.shape;
        let fits = declared.dims().is_none_or(|dims| {
            dims.len() == shape.len() && dims.iter().zip(*shape).all(|(d, n)| d.known().is_none_or(|k| k == *n))
        });
        if !fits {
            return Err(GraphError::Feed {
                what: "the shape of input",
                name: name.to_string(),
                found: format!("{shape:?}"),
                expected: declared.to_string(),
            });
        }
    }
    let mut rebuild = Rebuild::with_inputs(graph, |to, id| {
        let value = graph.value(id);
        let bound = shapes.iter().find(|(name, _)| *name == value.name);
        let shape = bound.map_or_else(|| value.ty.shape.clone(), |(_, shape)| Shape::known(shape));
        to.input(value.name.clone(), value.ty.dtype, shape)
    });
    for node in graph.nodes() {
        if fold(&mut rebuild, node)? != Outcome::Applied {
            rebuild.copy(node)?;
        }
    }
    remove_dead_code(&rebuild.finish()?)
}

fn fold(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let operands = rebuild.operands(node);
    let Some(results) = folded(&rebuild.to, &node.op, &operands, &node.name)? else {
        return Ok(Outcome::NoEffect);
    };
    for (&old, tensor) in node.outputs.iter().zip(results) {
        let new = rebuild.to.constant(tensor);
        rebuild.take_name(old, new);
    }
    Ok(Outcome::Applied)
}

/// The results of an operator on these operands, where they are known already: all operands are constant, or
/// only their shapes matter and are known.
pub(crate) fn folded(
    graph: &Graph,
    op: &Op,
    operands: &[Option<ValueId>],
    node: &str,
) -> Result<Option<Vec<Tensor>>, GraphError> {
    let shape = |graph: &Graph| operands.first().copied().flatten().map(|x| graph.value(x).ty.shape.clone());
    match op {
        Op::Shape(op) => {
            let known = shape(graph).and_then(|s| {
                let dims = s.dims()?;
                dims[op.range(dims.len())].iter().map(|d| d.known().map(|n| n as i64)).collect::<Option<Vec<_>>>()
            });
            Ok(known.map(|dims| vec![Tensor::ints(&dims)]))
        }
        Op::Size(_) => {
            let count = shape(graph).and_then(|s| element_count(&s.extents()?));
            Ok(count.map(|n| vec![Tensor::i64([], vec![n as i64])]))
        }
        _ => evaluated(graph, op, operands, node),
    }
}

/// The node's results when all its operands are constant and the results are not too large.
fn evaluated(
    graph: &Graph,
    op: &Op,
    operands: &[Option<ValueId>],
    node: &str,
) -> Result<Option<Vec<Tensor>>, GraphError> {
    let mut constants = vec![];
    for operand in operands {
        match operand.map(|id| graph.constant_of(id)) {
            None => constants.push(None),
            Some(Some(tensor)) => constants.push(Some(&**tensor)),
            Some(None) => return Ok(None),
        }
    }
    let inferred: Vec<_> = operands.iter().map(|o| o.map(|o| graph.operand(o))).collect();
    let small = op.infer(Operands::new(&inferred)).is_ok_and(|types| {
        types.iter().all(|t| match t.shape.extents() {
            Some(e) => element_count(&e).is_some_and(|n| n <= MAX_FOLDED),
            // Data-dependent extents (NonZero) are bounded by their operands.
            None => t.shape.dims().is_some(),
        })
    });
    if !small {
        return Ok(None);
    }
    op.evaluate(Tensors::new(&constants)).map(Some).map_err(|cause| GraphError::Operator {
        node: node.to_string(),
        op: op.name().to_string(),
        operands: inferred.iter().map(|o| o.as_ref().map_or("-".into(), |o| o.to_string())).collect::<Vec<_>>().join(", "),
        cause,
    })
}

