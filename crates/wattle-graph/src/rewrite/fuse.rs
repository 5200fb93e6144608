//! Fusion: bias, residual addition, activation and the maximum over windows join the product before them.

use super::fold_affine::scalar;
use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, Source, ValueId};
use crate::ops::{Activation, Binary, BinaryFunction, Function, Fused, Op, Pool, PoolKind, Unary};
use crate::tensor::DType;

/// Additions and activations that follow a convolution or matrix product become part of it.
pub const FUSE: Pass = Pass { name: "fuse", rule };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    match &node.op {
        Op::Unary(Unary { function }) if is_cheap(*function) => {
            fuse_activation(rebuild, node, Activation::Function(*function))
        }
        Op::Clip(_) => match limits(rebuild, node) {
            Some((low, high)) => fuse_activation(rebuild, node, Activation::Clip { low, high }),
            None => Ok(Outcome::NoEffect),
        },
        Op::Binary(Binary { function: BinaryFunction::Add | BinaryFunction::Mul })
            if scale_activation(rebuild, node)? =>
        {
            Ok(Outcome::Applied)
        }
        Op::Binary(Binary { function: BinaryFunction::Add }) => fuse_addition(rebuild, node),
        Op::Pool(pool) => fuse_pool(rebuild, node, pool),
        _ => Ok(Outcome::NoEffect),
    }
}

/// Functions cheap enough that computing them in the product's epilogue costs less than a pass over memory.
fn is_cheap(function: Function) -> bool {
    use Function::*;
    matches!(function, Relu | LeakyRelu { .. } | HardSigmoid { .. } | HardSwish | Sigmoid | Silu | Tanh)
}

/// The product that `value` (of the graph being built) is the only, so far unactivated, result of; as a fused
/// operator with its operands.
fn product(rebuild: &Rebuild<'_>, old: ValueId) -> Option<(Fused, Vec<Option<ValueId>>, String)> {
    if rebuild.uses(old) != 1 || rebuild.from.outputs().contains(&old) {
        return None;
    }
    let Source::Node { node, output: 0 } = rebuild.to.value(rebuild.mapped(old)).source else { return None };
    let node = rebuild.to.node(node);
    let fused = match &node.op {
        Op::Fused(fused) if fused.activation.is_none() && fused.pool.is_none() => fused.clone(),
        Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_) | Op::Gemm(_) => {
            Fused::new(node.op.clone(), node.inputs.len())
        }
        _ => return None,
    };
    Some((fused, node.inputs.clone(), node.name.clone()))
}

fn fuse_activation(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    activation: Activation,
) -> Result<Outcome, GraphError> {
    let Some((fused, operands, name)) = node.inputs[0].and_then(|x| product(rebuild, x)) else {
        return Ok(Outcome::NoEffect);
    };
    // A transposed convolution stores pixels of one phase, which lie apart: a function that is not a mere limit would
    // be applied pixel by pixel, which costs more than a pass of its own.
    let limits = matches!(activation, Activation::Function(Function::Relu) | Activation::Clip { .. });
    if !limits && matches!(*fused.body, Op::ConvTranspose(_)) {
        return Ok(Outcome::NoEffect);
    }
    let fused = Fused { activation: Some(activation), ..fused };
    let y = rebuild.to.apply_all(fused, &operands, &name)?[0];
    rebuild.take_name(node.outputs[0], y);
    Ok(Outcome::Applied)
}

/// A constant number that multiplies, or is added to, what an activation has made joins the activation.
fn scale_activation(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<bool, GraphError> {
    let (Op::Binary(Binary { function }), &[Some(a), Some(b)]) = (&node.op, &node.inputs[..]) else {
        return Ok(false);
    };
    for (main, other) in [(a, b), (b, a)] {
        let Some(number) = scalar(rebuild, other).map(|n| n as f32) else { continue };
        if rebuild.uses(main) != 1 || rebuild.from.outputs().contains(&main) {
            continue;
        }
        let result = rebuild.mapped(main);
        let Source::Node { node: product, output: 0 } = rebuild.to.value(result).source else { continue };
        let product = rebuild.to.node(product);
        let Op::Fused(fused) = &product.op else { continue };
        if fused.pool.is_some() {
            continue;
        }
        if matches!(*fused.body, Op::ConvTranspose(_)) {
            continue;
        }
        let (curve, factor, shift) = match fused.activation {
            Some(Activation::Function(curve)) => (curve, 1.0, 0.0),
            Some(Activation::Scaled { function, factor, shift }) => (function, factor, shift),
            _ => continue,
        };
        let (factor, shift) = match function {
            BinaryFunction::Mul => (factor * number, shift * number),
            _ => (factor, shift + number),
        };
        // A single number of higher rank would add axes to the result.
        let same_type = rebuild.from.value(node.outputs[0]).ty == rebuild.from.value(main).ty;
        if !same_type || !factor.is_finite() || !shift.is_finite() {
            continue;
        }
        let fused = Fused {
            activation: Some(Activation::Scaled { function: curve, factor, shift }),
            ..fused.clone()
        };
        let (operands, name) = (product.inputs.clone(), product.name.clone());
        let y = rebuild.to.apply_all(fused, &operands, &name)?[0];
        rebuild.take_name(node.outputs[0], y);
        return Ok(true);
    }
    Ok(false)
}

/// What a two-dimensional convolution makes goes through memory once less when its maxima are taken at once.
fn fuse_pool(rebuild: &mut Rebuild<'_>, node: &Node, pool: &Pool) -> Result<Outcome, GraphError> {
    let Some(x) = node.inputs[0] else { return Ok(Outcome::NoEffect) };
    let plain = pool.kind == PoolKind::Max && !pool.indices && pool.kernel.len() == 2;
    if !plain || node.outputs.len() != 1 || rebuild.uses(x) != 1 || rebuild.from.outputs().contains(&x) {
        return Ok(Outcome::NoEffect);
    }
    let x = rebuild.to.value(rebuild.mapped(x));
    let Source::Node { node: product, output: 0 } = x.source else { return Ok(Outcome::NoEffect) };
    let product = rebuild.to.node(product);
    let fused = match &product.op {
        Op::Fused(fused) if !fused.residual && fused.pool.is_none() => fused.clone(),
        Op::Conv(_) => Fused::new(product.op.clone(), product.inputs.len()),
        _ => return Ok(Outcome::NoEffect),
    };
    if !matches!(&*fused.body, Op::Conv(conv) if conv.groups == 1) || x.ty.dtype != DType::F32 {
        return Ok(Outcome::NoEffect);
    }
    let (operands, name) = (product.inputs.clone(), product.name.clone());
    let y = rebuild.to.apply_all(Fused { pool: Some(pool.clone()), ..fused }, &operands, &name)?[0];
    rebuild.take_name(node.outputs[0], y);
    Ok(Outcome::Applied)
}

fn fuse_addition(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let [Some(a), Some(b)] = node.inputs[..] else { return Ok(Outcome::NoEffect) };
    for (main, other) in [(a, b), (b, a)] {
        let Some((fused, mut operands, name)) = product(rebuild, main) else { continue };
        if fused.residual {
            continue;
        }
        let (result, addend) = (rebuild.mapped(main), rebuild.mapped(other));
        let (result_type, addend_type) = (&rebuild.to.value(result).ty, &rebuild.to.value(addend).ty);
        let channels_last = matches!(*fused.body, Op::MatMul(_) | Op::Gemm(_));
        let result_dims = result_type.shape.dims().unwrap_or(&[]);
        let channels = if channels_last { result_dims.last() } else { result_dims.get(1) };
        let is_row = match addend_type.shape.dims() {
            Some([n]) => channels_last && Some(n) == channels,
            _ => false,
        };
        // A kernel adds one bias: that of the product itself, where it has one, or a later one.
        let has_bias = fused.bias || fused.operands > 2;
        let fused = if is_row && !has_bias {
            operands.push(Some(addend));
            Fused { bias: true, ..fused }
        } else if addend_type == result_type {
            operands.push(Some(addend));
            Fused { residual: true, ..fused }
        } else {
            continue;
        };
        let y = rebuild.to.apply_all(fused, &operands, &name)?[0];
        rebuild.take_name(node.outputs[0], y);
        return Ok(Outcome::Applied);
    }
    Ok(Outcome::NoEffect)
}

/// The limits of a Clip whose bounds are constant; unbounded where left out.
fn limits(rebuild: &Rebuild<'_>, node: &Node) -> Option<(f32, f32)> {
    let bound = |index: usize, default: f32| match node.inputs.get(index).copied().flatten() {
        None => Some(default),
        Some(id) => rebuild.from.constant_of(id)?.as_f32()?.first().copied(),
    };
    Some((bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?))
}
