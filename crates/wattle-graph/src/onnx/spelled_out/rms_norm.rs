//! Normalisation by the root of the mean square (Zhang & Sennrich 2019, equation 4), which runtimes call simplified.

use super::{ForeignNode, ImportError, ValueId};
use crate::ops::{Binary, BinaryFunction, Function, Reduce, Reduction, Unary};
use crate::tensor::Tensor;

/// `(x, scale) -> scale x / sqrt(mean of x^2 + epsilon)`, the mean over `axis` and all axes after it.
pub fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let (axis, epsilon) = (node.int("axis", -1)?, node.float("epsilon", 1e-5)?);
    node.attribute("stash_type");
    let (x, scale) = (node.input(0)?, node.input(1)?);
    Ok(vec![normalised(node, x, scale, axis, epsilon)?])
}

/// The same for a value that is not an operand.
pub fn normalised(
    node: &mut ForeignNode<'_>,
    x: ValueId,
    scale: ValueId,
    axis: i64,
    epsilon: f32,
) -> Result<ValueId, ImportError> {
    let ty = &node.graph().value(x).ty;
    let (dtype, rank) = (ty.dtype, ty.shape.rank());
    let axes = match (axis, rank) {
        (-1, _) => vec![-1],
        (axis, Some(rank)) => {
            let first = if axis < 0 { axis + rank as i64 } else { axis };
            (first..rank as i64).collect()
        }
        (_, None) => return Err(node.refuse("the number of axes of its operand is not known")),
    };
    let binary = |function| Binary { function };
    let squares = node.apply(binary(BinaryFunction::Mul), &[x, x])?;
    let mean = node.apply(Reduce { kind: Reduction::Mean, axes, keep_dims: true }, &[squares])?;
    let epsilon = node.constant(Tensor::from_f64(dtype, [], vec![f64::from(epsilon)]));
    let sum = node.apply(binary(BinaryFunction::Add), &[mean, epsilon])?;
    let root = node.apply(Unary { function: Function::Sqrt }, &[sum])?;
    let quotient = node.apply(binary(BinaryFunction::Div), &[x, root])?;
    node.apply(binary(BinaryFunction::Mul), &[quotient, scale])
}
