//! Which kernel computes which node: one exhaustive match, whose first answer is the reference interpreter.

mod conv;
mod conv_gradient;
mod elementwise;
mod matmul;
mod reference;
mod reorder;

use wattle_graph::Op;
use wattle_kernels::{Activation, elementwise::Unary as Curve};

use crate::error::EngineError;
use crate::kernel::{Bound, Site};

pub(crate) use reorder::reorder;

/// The kernel for a node. Every operator runs; those without a fast kernel here run slowly.
pub(crate) fn bind(site: &Site<'_>) -> Result<Bound, EngineError> {
    let fast = match &site.node.op {
        Op::Binary(op) => elementwise::binary(site, op.function),
        Op::Conv(op) => conv::bind(site, op, &Epilogue::none(2)),
        Op::ConvInputGradient(op) => conv_gradient::by_input(site, op),
        Op::ConvWeightGradient(op) => conv_gradient::by_weight(site, op),
        Op::Fused(op) => fused(site, op),
        Op::Identity(_) => Some(elementwise::same(site)),
        Op::MatMul(op) => matmul::bind(site, op, &Epilogue::none(2)),
        Op::Reshape(_) => Some(reorder::view(site)),
        Op::Transpose(op) => reorder::transpose(site, op),
        Op::Unary(op) => elementwise::unary(site, op.function),
        Op::UnaryGradient(op) => elementwise::unary_gradient(site, op.function),
        Op::BinaryGradient(_) | Op::SumTo(_) | Op::Custom(_) => None,
    };
    Ok(fast.unwrap_or_else(|| reference::bind(site)))
}

/// What a product does to each element before storing it, and where its operands are.
pub(crate) struct Epilogue {
    /// Position of the bias, per output channel or column.
    pub bias: Option<usize>,
    /// Position of an addend of the result's shape.
    pub residual: Option<usize>,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue {
    /// Only the bias that the operator itself may have at position `bias`.
    fn none(bias: usize) -> Epilogue {
        Epilogue { bias: Some(bias), residual: None, activation: Activation::None }
    }
}

fn fused(site: &Site<'_>, op: &wattle_graph::ops::Fused) -> Option<Bound> {
    let activation = match op.activation {
        None => Activation::None,
        Some(wattle_graph::ops::Activation::Clip { low, high }) => Activation::Clip { low, high },
        Some(wattle_graph::ops::Activation::Function(f)) => match elementwise::curve(f)? {
            Curve::Relu => Activation::Relu,
            other => Activation::Unary(other),
        },
    };
    let own_bias = (op.operands > 2).then_some(2);
    let epilogue = Epilogue { bias: op.bias_index().or(own_bias), residual: op.residual_index(), activation };
    match &*op.body {
        Op::Conv(conv) => conv::bind(site, conv, &epilogue),
        Op::MatMul(matmul) => matmul::bind(site, matmul, &epilogue),
        _ => None,
    }
}
