//! Binding: input shapes become numbers, and everything that follows from them becomes constant.

use super::{Outcome, Pass, Rebuild, remove_dead_code};
use crate::error::GraphError;
use crate::graph::{Graph, Node, Source, ValueId};
use crate::operator::{Operand, Operands, Tensors};
use crate::ops::{Identity, If, Op};
use crate::shape::Shape;
use crate::tensor::{Tensor, element_count};

/// Replaces nodes whose operands are all constant by their results, `Shape` and `Size` of known shapes by
/// constants, and `If` with a constant condition by the branch it takes.
pub const FOLD_CONSTANTS: Pass = Pass { name: "fold-constants", rule: fold };

/// Largest result kept as a constant, in elements: folding must not blow a small file up.
const MAX_FOLDED: usize = 1 << 27;

/// Largest constant that is copied into a branch when its types are inferred: shapes and axes are small.
const MAX_SHAPE_CONSTANT: usize = 1 << 10;

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
            dims.len() == shape.len()
                && dims.iter().zip(*shape).all(|(d, n)| d.known().is_none_or(|k| k == *n))
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
    fold_all(&mut rebuild)?;
    remove_dead_code(&rebuild.finish()?)
}

/// A branch of an `If` with its inputs given the types (and small constants) of the values they stand for.
pub(crate) fn retyped(branch: &Graph, operands: &[Option<Operand<'_>>]) -> Result<Graph, GraphError> {
    let mut operands = operands.iter();
    let mut rebuild = Rebuild::with_inputs(branch, |to, id| {
        let value = branch.value(id);
        match operands.next().copied().flatten() {
            Some(Operand { constant: Some(tensor), .. }) if tensor.len() <= MAX_SHAPE_CONSTANT => {
                to.named_constant(value.name.clone(), tensor.clone())
            }
            Some(operand) => to.input(value.name.clone(), operand.ty.dtype, operand.ty.shape.clone()),
            None => to.input(value.name.clone(), value.ty.dtype, value.ty.shape.clone()),
        }
    });
    fold_all(&mut rebuild)?;
    rebuild.finish()
}

fn fold_all(rebuild: &mut Rebuild<'_>) -> Result<(), GraphError> {
    for node in rebuild.from.nodes() {
        if fold(rebuild, node)? != Outcome::Applied {
            rebuild.copy(node)?;
        }
    }
    Ok(())
}

fn fold(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let operands = rebuild.operands(node);
    if let Op::If(branches) = &node.op {
        return decide(rebuild, node, branches, &operands);
    }
    let Some(results) = folded(&rebuild.to, &node.op, &operands, &node.name)? else {
        return Ok(Outcome::NoEffect);
    };
    for (&old, tensor) in node.outputs.iter().zip(results) {
        let new = rebuild.to.constant(tensor);
        rebuild.take_name(old, new);
    }
    Ok(Outcome::Applied)
}

/// Puts the branch that a constant condition takes in the place of an `If`.
fn decide(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    branches: &If,
    operands: &[Option<ValueId>],
) -> Result<Outcome, GraphError> {
    let condition = operands[0].and_then(|c| rebuild.to.constant_of(c)).map(|t| t.to_i64().into_owned());
    let Some([condition]) = condition.as_deref() else { return Ok(Outcome::NoEffect) };
    let taken = *condition != 0;
    let results = inline(rebuild, branches.branch(taken), &operands[branches.captures(taken)])?;
    for (&old, mut new) in node.outputs.iter().zip(results) {
        // A result of the whole graph keeps its name even where the branch only passes a named value on.
        if rebuild.from.outputs().contains(&old) && !rebuild.to.value(new).name.is_empty() {
            new = rebuild.to.apply(Identity, &[new])?;
        }
        rebuild.take_name(old, new);
    }
    Ok(Outcome::Applied)
}

/// Copies a branch into the graph being built, with `captures` for its inputs; returns its outputs.
fn inline(
    rebuild: &mut Rebuild<'_>,
    branch: &Graph,
    captures: &[Option<ValueId>],
) -> Result<Vec<ValueId>, GraphError> {
    let mut map: Vec<Option<ValueId>> = vec![None; branch.values().len()];
    for (&input, &capture) in branch.inputs().iter().zip(captures) {
        map[input.index()] = capture;
    }
    for id in branch.value_ids() {
        let value = branch.value(id);
        match &value.source {
            Source::Constant(t) => map[id.index()] = Some(rebuild.to.constant(t.clone())),
            Source::Parameter(p) => {
                map[id.index()] = Some(rebuild.to.parameter_view(&value.name, p.clone(), value.ty.clone()));
            }
            Source::Input | Source::Node { .. } => {}
        }
    }
    // Nodes of the branch may fold now that what it captures is known.
    let mut inner = Rebuild::of_branch(branch, std::mem::take(&mut rebuild.to), map);
    fold_all(&mut inner)?;
    let outputs = branch.outputs().iter().map(|&o| inner.mapped(o)).collect();
    rebuild.to = inner.to;
    Ok(outputs)
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
                dims[op.range(dims.len())]
                    .iter()
                    .map(|d| d.known().map(|n| n as i64))
                    .collect::<Option<Vec<_>>>()
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
        operands: inferred
            .iter()
            .map(|o| o.as_ref().map_or("-".into(), |o| o.to_string()))
            .collect::<Vec<_>>()
            .join(", "),
        cause,
    })
}
