//! `FusedMatMul`: a product with a factor and transposed operands.

use super::{ForeignNode, ImportError, ValueId};
use crate::ops::{Binary, BinaryFunction, MatMul};
use crate::tensor::Tensor;

/// `(a, b) -> alpha a b`.
pub fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let alpha = node.float("alpha", 1.0)?;
    let op = MatMul { transpose_a: node.int("transA", 0)? != 0, transpose_b: node.int("transB", 0)? != 0 };
    if node.int("transBatchA", 0)? != 0 || node.int("transBatchB", 0)? != 0 {
        return Err(node.refuse("transBatchA and transBatchB move the axes of batches, which is not read"));
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    let dtype = node.graph().value(a).ty.dtype;
    let y = node.apply(op, &[a, b])?;
    if alpha == 1.0 {
        return Ok(vec![y]);
    }
    let factor = node.constant(Tensor::from_f64(dtype, [], vec![f64::from(alpha)]));
    Ok(vec![node.apply(Binary { function: BinaryFunction::Mul }, &[y, factor])?])
}
