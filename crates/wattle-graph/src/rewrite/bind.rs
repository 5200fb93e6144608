//! Binding: input shapes become numbers, and everything that follows from them becomes constant.

use super::{Outcome, Pass, Rebuild, remove_dead_code};
use crate::error::GraphError;
use crate::graph::{Graph, Node, Source, TensorType, ValueId};
use crate::operator::{Operand, Operands, Shapes, Tensors};
use crate::ops::{Identity, If, Op};
use crate::shape::{Dim, Shape};
use crate::tensor::{Tensor, element_count};

/// Replaces nodes whose operands are all constant by their results, `Shape` and `Size` of known shapes by
/// constants, and `If` with a constant condition by the branch it takes.
pub const FOLD_CONSTANTS: Pass = Pass { name: "fold-constants", rule: fold };

/// Largest result kept as a constant, in elements: folding must not blow a small file up.
const MAX_FOLDED: usize = 1 << 27;

/// Most that one node may cost to be folded when a graph is prepared; see [`folded`].
const FOLD_BUDGET: usize = 1 << 31;

/// The same while the types of a branch are inferred, where only shapes and axes matter: they are small.
const SHAPE_BUDGET: usize = 1 << 12;

/// Largest constant that is copied into a branch when its types are inferred.
const MAX_SHAPE_CONSTANT: usize = 1 << 10;

/// The input of this name, or an error that lists those there are.
pub(super) fn known_input(graph: &Graph, name: &str) -> Result<ValueId, GraphError> {
    let found = graph.inputs().iter().find(|&&i| graph.value(i).name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = graph.inputs().iter().map(|&i| graph.label(i)).collect();
        GraphError::Invalid(format!("there is no input `{name}`; the inputs are: {}", names.join(", ")))
    })
}

/// The graph with the shapes of the named inputs replaced, all types inferred again and constants folded.
///
/// # Errors
/// When an input is unknown, a shape contradicts a known extent, or an operator refuses its new operands.
pub fn bind(graph: &Graph, shapes: &[(&str, &[usize])]) -> Result<Graph, GraphError> {
    for (name, shape) in shapes {
        let id = known_input(graph, name)?;
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
    fold_all(&mut rebuild, FOLD_BUDGET)?;
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
    fold_all(&mut rebuild, SHAPE_BUDGET)?;
    rebuild.finish()
}

fn fold_all(rebuild: &mut Rebuild<'_>, budget: usize) -> Result<(), GraphError> {
    for node in rebuild.from.nodes() {
        if fold_within(rebuild, node, budget)? != Outcome::Applied {
            rebuild.copy(node)?;
        }
    }
    Ok(())
}

fn fold(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    fold_within(rebuild, node, FOLD_BUDGET)
}

fn fold_within(rebuild: &mut Rebuild<'_>, node: &Node, budget: usize) -> Result<Outcome, GraphError> {
    let operands = rebuild.operands(node);
    if let Op::If(branches) = &node.op {
        return decide(rebuild, node, branches, &operands, budget);
    }
    let results = folded(&rebuild.to, &node.op, &operands, &node.name, budget)?;
    Ok(put(rebuild, node, results))
}

/// Evaluates a DequantizeLinear of a constant, which [`folded`] leaves alone.
pub(super) fn fold_quantized(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let operands = rebuild.operands(node);
    let results = evaluated(&rebuild.to, &node.op, &operands, &node.name, FOLD_BUDGET)?;
    Ok(put(rebuild, node, results))
}

/// Lets results, if they are known, take the place of a node.
fn put(rebuild: &mut Rebuild<'_>, node: &Node, results: Option<(Vec<Tensor>, usize)>) -> Outcome {
    let Some((results, _)) = results else { return Outcome::NoEffect };
    for (&old, tensor) in node.outputs.iter().zip(results) {
        let new = rebuild.to.constant(tensor);
        rebuild.take_name(old, new);
    }
    Outcome::Applied
}

/// Puts the branch that a constant condition takes in the place of an `If`.
fn decide(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    branches: &If,
    operands: &[Option<ValueId>],
    budget: usize,
) -> Result<Outcome, GraphError> {
    let condition = operands[0].and_then(|c| rebuild.to.constant_of(c)).map(|t| t.to_i64().into_owned());
    let Some([condition]) = condition.as_deref() else { return Ok(Outcome::NoEffect) };
    let taken = *condition != 0;
    let results = inline(rebuild, branches.branch(taken), &operands[branches.captures(taken)], budget)?;
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
    budget: usize,
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
    fold_all(&mut inner, budget)?;
    let outputs = branch.outputs().iter().map(|&o| inner.mapped(o)).collect();
    rebuild.to = inner.to;
    Ok(outputs)
}

/// The results of an operator on these operands, where they are known already: all operands are constant, or
/// only their shapes matter and are known. Nothing is computed that costs more than `budget` elements read,
/// written and worked on; what it cost is returned too. Tensors stored quantised stay so: they are smaller.
pub(crate) fn folded(
    graph: &Graph,
    op: &Op,
    operands: &[Option<ValueId>],
    node: &str,
    budget: usize,
) -> Result<Option<(Vec<Tensor>, usize)>, GraphError> {
    let shape = |graph: &Graph| operands.first().copied().flatten().map(|x| graph.value(x).ty.shape.clone());
    match op {
        Op::Shape(op) => {
            let known = shape(graph).and_then(|s| {
                let dims = s.dims()?;
                let known = |d: &Dim| d.known().map(|n| n as i64);
                dims[op.range(dims.len())].iter().map(known).collect::<Option<Vec<_>>>()
            });
            Ok(known.map(|dims| (vec![Tensor::ints(&dims)], 1)))
        }
        Op::Size(_) => {
            let count = shape(graph).and_then(|s| element_count(&s.extents()?));
            Ok(count.map(|n| (vec![Tensor::i64([], vec![n as i64])], 1)))
        }
        Op::DequantizeLinear(_) => Ok(None),
        _ => evaluated(graph, op, operands, node, budget),
    }
}

/// The node's results when all its operands are constant and the results are not too large.
fn evaluated(
    graph: &Graph,
    op: &Op,
    operands: &[Option<ValueId>],
    node: &str,
    budget: usize,
) -> Result<Option<(Vec<Tensor>, usize)>, GraphError> {
    let mut constants = vec![];
    for operand in operands {
        match operand.map(|id| graph.constant_of(id)) {
            None => constants.push(None),
            Some(Some(tensor)) => constants.push(Some(&**tensor)),
            Some(None) => return Ok(None),
        }
    }
    let inferred: Vec<_> = operands.iter().map(|o| o.map(|o| graph.operand(o))).collect();
    let types = op.infer(Operands::new(&inferred));
    let Some(cost) = types.ok().and_then(|types| cost(op, &constants, &types)).filter(|c| *c <= budget)
    else {
        return Ok(None);
    };
    let results = op.evaluate(Tensors::new(&constants)).map_err(|cause| {
        let seen = inferred.iter().map(|o| o.as_ref().map_or("-".into(), |o| o.to_string()));
        GraphError::Operator {
            node: node.to_string(),
            op: op.name().to_string(),
            operands: seen.collect::<Vec<_>>().join(", "),
            cause,
        }
    })?;
    Ok(Some((results, cost)))
}

/// Elements that an evaluation reads, writes and works on; `None` when a result is too large to keep.
fn cost(op: &Op, constants: &[Option<&Tensor>], types: &[TensorType]) -> Option<usize> {
    let read: usize = constants.iter().flatten().map(|t| t.len()).sum();
    let mut outputs = vec![];
    for ty in types {
        match ty.shape.extents() {
            Some(extents) => {
                element_count(&extents).filter(|&n| n <= MAX_FOLDED)?;
                outputs.push(extents);
            }
            // Extents that depend on data (NonZero) are bounded by the operands.
            None => outputs.push(vec![ty.shape.rank()?, read]),
        }
    }
    let inputs: Vec<_> = constants.iter().map(|t| t.map(|t| t.shape().to_vec())).collect();
    let densities = vec![1.0; inputs.len()];
    let written: usize = outputs.iter().map(|o| o.iter().product::<usize>()).sum();
    let work = op.work(&Shapes { inputs: &inputs, outputs: &outputs, densities: &densities });
    let worked = usize::try_from(work.macs.saturating_add(work.element_ops)).unwrap_or(usize::MAX);
    Some(worked.saturating_add(read).saturating_add(written))
}
