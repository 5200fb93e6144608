//! Which kernel computes which node: one exhaustive match, whose first answer is the reference interpreter.

mod attention;
mod choice;
mod conv;
mod conv_gradient;
mod elementwise;
mod gather;
mod group_norm;
mod integer;
mod kept;
mod kept_conv;
mod matmul;
mod movement;
mod nested;
mod norm;
mod pool;
mod pooled;
mod quantize;
mod random;
mod recurrent;
mod recurrent_gradient;
mod reduce;
mod reference;
mod reorder;
mod resize;
mod scatter;
mod softmax;
mod sparse;
mod update;

use wattle_graph::Op;
use wattle_kernels::{Activation, elementwise::Unary as Curve};

use crate::error::EngineError;
use crate::kernel::{Bound, Site};

pub(crate) use conv::shape as conv_shape;
pub(crate) use reorder::reorder;

/// The kernel for a node. Every operator runs; those without a fast kernel here run slowly.
pub(crate) fn bind(site: &Site<'_>) -> Result<Bound, EngineError> {
    let fast = match &site.node.op {
        Op::AdamUpdate(op) => update::adam(site, op),
        Op::Attention(op) => attention::bind(site, op, false),
        Op::AttentionGradient(op) => attention::bind(site, &op.forward, true),
        Op::BatchNormalization(op) => norm::batch_norm(site, op),
        Op::BatchNormalizationGradient(_) => norm::batch_norm_gradient(site, false),
        Op::Binary(op) => elementwise::binary(site, op.function),
        Op::Cast(op) => choice::cast(site, op),
        Op::Clip(_) => elementwise::clip(site),
        Op::ClipGradient(_) => elementwise::clip_gradient(site),
        Op::Compare(op) => choice::compare(site, op),
        Op::Concat(op) => movement::concat(site, op.axis),
        Op::Conv(op) => conv::bind(site, op, &Epilogue::none(2)),
        Op::ConvInputGradient(op) => conv_gradient::by_input(site, op),
        Op::ConvInteger(op) => integer::convolution(site, &op.conv, false),
        Op::ConvTranspose(op) => conv::transposed(site, op, &Epilogue::none(2)),
        Op::ConvWeightGradient(op) => conv_gradient::by_weight(site, op),
        Op::DepthToSpace(_)
        | Op::Expand(_)
        | Op::GatherElements(_)
        | Op::Pad(_)
        | Op::ReverseSequence(_)
        | Op::Slice(_)
        | Op::SpaceToDepth(_)
        | Op::Tile(_)
        | Op::Trilu(_) => movement::moved(site, &site.node.op),
        Op::DequantizeLinear(op) => quantize::linear(site, &op.quantization),
        Op::Custom(_) => site.options.kernels.bind(site),
        Op::Dropout(op) => random::dropout(site, op),
        Op::DynamicQuantizeLinear(_) => quantize::dynamic(site),
        Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => Some(reorder::view(site)),
        Op::Fused(op) => fused(site, op),
        Op::FusedBatchNorm(op) => norm::fused_batch_norm(site, op),
        Op::FusedBatchNormGradient(_) => norm::batch_norm_gradient(site, true),
        Op::Gather(op) => gather::rows(site, op).or_else(|| movement::moved(site, &site.node.op)),
        Op::Gemm(op) => matmul::gemm_bind(site, op, site.inputs.len(), &Epilogue::none(2)),
        Op::GlobalPool(op) => pool::global_pool(site, op),
        Op::GlobalPoolGradient(op) => pool::global_pool_gradient(site, op),
        Op::GroupNormalization(op) => group_norm::forward(site, op),
        Op::GroupNormalizationGradient(op) => group_norm::backward(site, op),
        Op::Identity(_) | Op::StopGradient(_) => Some(elementwise::same(site)),
        Op::If(op) => nested::branches(site, op)?,
        Op::Loop(op) => nested::trips(site, op)?,
        Op::LayerNormalization(op) => norm::layer_norm(site, op),
        Op::LayerNormalizationGradient(op) => norm::layer_norm_gradient(site, op),
        Op::MatMul(op) => matmul::bind(site, op, &Epilogue::none(2)),
        Op::MatMulInteger(_) => integer::matmul(site, false),
        Op::MovementGradient(op) => gather::add_rows(site, op).or_else(|| movement::scattered(site, op)),
        Op::Not(_) => Some(choice::not(site)),
        Op::Pool(op) => pool::pool(site, op),
        Op::PoolGradient(op) => pool::pool_gradient(site, op),
        Op::QLinearAdd(_) => quantize::add(site),
        Op::QLinearConv(op) => integer::convolution(site, &op.conv, true),
        Op::QLinearMatMul(_) => integer::matmul(site, true).or_else(|| integer::computed(site)),
        Op::QuantizeLinear(op) => quantize::linear(site, &op.quantization),
        Op::Random(op) => random::random(site, op),
        Op::Recurrent(op) => recurrent::bind(site, op),
        Op::RecurrentGradient(op) => recurrent_gradient::bind(site, op),
        Op::Reduce(op) => reduce::reduce(site, op),
        Op::Resize(op) => movement::nearest(site, &site.node.op).or_else(|| resize::resize(site, op)),
        Op::ResizeGradient(op) => resize::resize_gradient(site, op),
        Op::ScatterNd(op) => scatter::slices(site, op),
        Op::SgdUpdate(op) => update::sgd(site, op),
        Op::Softmax(op) => softmax::softmax(site, op),
        Op::SoftmaxCrossEntropy(op) => softmax::cross_entropy(site, op),
        Op::SoftmaxCrossEntropyGradient(op) => softmax::cross_entropy_gradient(site, op),
        Op::SoftmaxGradient(op) => softmax::softmax_gradient(site, op),
        Op::Split(op) => movement::split(site, op),
        Op::SumTo(op) => reduce::sum_to(site, op),
        Op::Transpose(op) => reorder::transpose(site, op),
        Op::Unary(op) => elementwise::unary(site, op.function),
        Op::UnaryGradient(op) => elementwise::unary_gradient(site, op.function),
        Op::Where(_) => choice::choose(site),
        Op::ArgExtreme(_)
        | Op::BinaryGradient(_)
        | Op::Bitwise(_)
        | Op::BitwiseNot(_)
        | Op::CenterCropPad(_)
        | Op::Classify(_)
        | Op::Compress(_)
        | Op::ConstantOfShape(_)
        | Op::CumSum(_)
        | Op::Det(_)
        | Op::Einsum(_)
        | Op::EyeLike(_)
        | Op::GatherNd(_)
        | Op::Hardmax(_)
        | Op::LpNormalization(_)
        | Op::LpNormalizationGradient(_)
        | Op::Lrn(_)
        | Op::LrnGradient(_)
        | Op::NegativeLogLikelihood(_)
        | Op::NegativeLogLikelihoodGradient(_)
        | Op::NonMaxSuppression(_)
        | Op::NonZero(_)
        | Op::OneHot(_)
        | Op::Range(_)
        | Op::ScatterElements(_)
        | Op::Shape(_)
        | Op::Shrink(_)
        | Op::Size(_)
        | Op::TopK(_)
        | Op::Unique(_) => None,
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
        Some(wattle_graph::ops::Activation::Scaled { function, factor, shift }) => {
            Activation::Scaled { function: elementwise::curve(function)?, factor, shift }
        }
    };
    // A kernel adds one bias.
    if op.bias && op.operands > 2 {
        return None;
    }
    let own_bias = (op.operands > 2).then_some(2);
    let epilogue = Epilogue { bias: op.bias_index().or(own_bias), residual: op.residual_index(), activation };
    match &*op.body {
        Op::Conv(conv) if op.pool.is_some() => pooled::bind(site, conv, op.pool.as_ref()?, epilogue),
        _ if op.pool.is_some() => None,
        Op::Conv(conv) => conv::bind(site, conv, &epilogue),
        Op::ConvTranspose(conv) => conv::transposed(site, conv, &epilogue),
        Op::Gemm(gemm) => matmul::gemm_bind(site, gemm, op.operands, &epilogue),
        Op::MatMul(matmul) => matmul::bind(site, matmul, &epilogue),
        _ => None,
    }
}
