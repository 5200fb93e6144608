//! ONNX operators that other runtimes made of several: each is read as the operators that it stands for, one file a name
//! or a family. What they compute is Microsoft's documentation of its contributed operators.

mod fused_matmul;
mod gelu;
mod matmul_nbits;
mod rms_norm;
mod skip_layer_norm;

use super::foreign_node::{ForeignNode, ImportError};
use crate::graph::ValueId;

/// Reads a node as several.
pub type Import = fn(&mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError>;

/// Names (with their domain, unless it is ONNX's own), what nodes they become, and how.
pub const ALL: &[(&str, &str, Import)] = &[
    ("com.microsoft:BiasGelu", "Binary, Unary", gelu::bias_gelu),
    ("com.microsoft:FastGelu", "Binary, Unary", gelu::fast_gelu),
    ("com.microsoft:FusedMatMul", "MatMul, Binary", fused_matmul::import),
    ("com.microsoft:MatMulNBits", "MatMul, Binary", matmul_nbits::import),
    ("com.microsoft:QuickGelu", "Unary, Binary", gelu::quick_gelu),
    ("com.microsoft:SkipLayerNormalization", "Binary, LayerNormalization", skip_layer_norm::import),
    ("com.microsoft:SkipSimplifiedLayerNormalization", "Binary, Reduce, Unary", skip_layer_norm::simplified),
    ("com.microsoft:SimplifiedLayerNormalization", "Binary, Reduce, Unary", rms_norm::import),
    ("SimplifiedLayerNormalization", "Binary, Reduce, Unary", rms_norm::import),
];
