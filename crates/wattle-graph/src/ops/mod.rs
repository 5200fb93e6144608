//! The operators, one file each, and the one list that names them.

mod cell;
mod concrete;
mod gate;
mod nested;
mod ordering;
mod philox;
mod resampling;

use std::fmt;
use std::sync::Arc;

use crate::custom::CustomOperator;
use crate::error::{GraphError, OpError};
use crate::graph::{TensorType, ValueId};
use crate::onnx::{ExportNode, ForeignNode, ImportError};
use crate::operator::*;
use crate::tensor::Tensor;

pub use gate::{GateActivation, GateFunction};

/// Generates the modules, the enum, its dispatch and the registry from the list of operators.
macro_rules! operators {
    ($($file:ident: $($op:ident),+;)*) => {
        $(mod $file; pub use $file::*;)*

        /// An operator with its attributes.
        #[derive(Clone)]
        #[allow(missing_docs, reason = "each variant is documented at the struct it holds")]
        pub enum Op {
            $($($op($op),)+)*
            Custom(Arc<dyn CustomOperator>),
        }

        impl fmt::Debug for Op {
            /// Everything that decides what it computes: the attributes, or the key of a custom operator.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Op::$op(op) => f.debug_tuple(stringify!($op)).field(op).finish(),)+)*
                    Op::Custom(op) => f.debug_tuple("Custom").field(&op.key()).finish(),
                }
            }
        }

        impl PartialEq for Op {
            fn eq(&self, other: &Op) -> bool {
                match (self, other) {
                    $($((Op::$op(a), Op::$op(b)) => a == b,)+)*
                    (Op::Custom(a), Op::Custom(b)) => a.key() == b.key(),
                    _ => false,
                }
            }
        }

        impl std::ops::Deref for Op {
            type Target = dyn Operator;
            fn deref(&self) -> &(dyn Operator + 'static) {
                match self {
                    $($(Op::$op(op) => op,)+)*
                    Op::Custom(op) => &**op,
                }
            }
        }

        $($(impl From<$op> for Op {
            fn from(op: $op) -> Op { Op::$op(op) }
        })+)*

        /// Every operator there is, in the order of the list.
        pub const ALL: &[Registration] = &[
            $($(Registration {
                name: stringify!($op),
                onnx: <$op as Described>::ONNX,
                import: <$op as Described>::import,
                examples: <$op as Described>::examples,
            },)+)*
        ];
    };
}

/// What is known of an operator without an instance of it.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// Name of the struct.
    pub name: &'static str,
    /// ONNX names it is imported from.
    pub onnx: &'static [&'static str],
    /// See [`Described::import`].
    pub import: fn(&mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError>,
    /// See [`Described::examples`].
    pub examples: fn() -> Vec<Example>,
}

pub use resampling::{Coordinates, Interpolation, Resampled};

operators! {
    adam_update: AdamUpdate;
    arg_extreme: ArgExtreme;
    attention: Attention, AttentionGradient;
    batch_norm: BatchNormalization, BatchNormalizationGradient;
    binary: Binary;
    binary_gradient: BinaryGradient;
    bitwise: Bitwise, BitwiseNot;
    cast: Cast;
    center_crop_pad: CenterCropPad;
    classify: Classify;
    clip: Clip, ClipGradient;
    compare: Compare, Not;
    compress: Compress;
    concat: Concat, Split;
    constant_of_shape: ConstantOfShape;
    conv: Conv;
    conv_gradient: ConvInputGradient, ConvWeightGradient;
    conv_transpose: ConvTranspose;
    cross_entropy: SoftmaxCrossEntropy, SoftmaxCrossEntropyGradient;
    cumsum: CumSum;
    depth_to_space: DepthToSpace, SpaceToDepth;
    det: Det;
    dropout: Dropout;
    einsum: Einsum;
    expand: Expand, Tile;
    eye_like: EyeLike;
    fused: Fused;
    fused_norm: FusedBatchNorm, FusedBatchNormGradient;
    gather: Gather;
    gather_elements: GatherElements;
    gather_nd: GatherNd;
    gemm: Gemm;
    global_pool: GlobalPool, GlobalPoolGradient;
    group_norm: GroupNormalization, GroupNormalizationGradient;
    identity: Identity;
    if_: If;
    integer_conv: ConvInteger, QLinearConv;
    integer_matmul: MatMulInteger, QLinearMatMul;
    layer_norm: LayerNormalization, LayerNormalizationGradient;
    loop_: Loop;
    lp_normalization: LpNormalization, LpNormalizationGradient;
    lrn: Lrn, LrnGradient;
    matmul: MatMul;
    movement_gradient: MovementGradient;
    negative_log_likelihood: NegativeLogLikelihood, NegativeLogLikelihoodGradient;
    non_max_suppression: NonMaxSuppression;
    non_zero: NonZero;
    one_hot: OneHot;
    pad: Pad;
    pool: Pool, PoolGradient;
    qlinear_add: QLinearAdd;
    quantize: DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear;
    random: Random;
    range: Range;
    recurrent: Recurrent;
    recurrent_gradient: RecurrentGradient;
    reduce: Reduce;
    reshape: Reshape;
    resize: Resize, ResizeGradient;
    reverse_sequence: ReverseSequence;
    scatter: ScatterElements, ScatterNd;
    select: Where;
    sgd_update: SgdUpdate;
    shape: Shape, Size;
    shrink: Shrink;
    slice: Slice;
    softmax: Hardmax, Softmax, SoftmaxGradient;
    squeeze: Flatten, Squeeze, Unsqueeze;
    stop_gradient: StopGradient;
    sum_to: SumTo;
    topk: TopK;
    transpose: Transpose;
    trilu: Trilu;
    unary: Unary;
    unary_gradient: UnaryGradient;
    unique: Unique;
}
