//! Gaussian error linear units with a bias, by approximations.

use super::{ForeignNode, ImportError, ValueId};
use crate::ops::{Binary, BinaryFunction, Function, Unary};
use crate::tensor::Tensor;

fn biased(node: &mut ForeignNode<'_>, function: Function) -> Result<Vec<ValueId>, ImportError> {
    let mut x = node.input(0)?;
    if let Some(bias) = node.optional_input(1) {
        x = node.apply(Binary { function: BinaryFunction::Add }, &[x, bias])?;
    }
    Ok(vec![node.apply(Unary { function }, &[x])?])
}

/// `(x, bias) -> gelu(x + bias)`, exact.
pub fn bias_gelu(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    biased(node, Function::Gelu)
}

/// `(x, bias?) -> gelu(x + bias)`, by tanh.
pub fn fast_gelu(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    biased(node, Function::GeluTanh)
}

/// `x sigmoid(alpha x)`.
pub fn quick_gelu(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let (x, alpha) = (node.input(0)?, node.float("alpha", 1.702)?);
    let dtype = node.graph().value(x).ty.dtype;
    let factor = node.constant(Tensor::from_f64(dtype, [], vec![f64::from(alpha)]));
    let multiply = Binary { function: BinaryFunction::Mul };
    let scaled = node.apply(multiply.clone(), &[x, factor])?;
    let gate = node.apply(Unary { function: Function::Sigmoid }, &[scaled])?;
    Ok(vec![node.apply(multiply, &[x, gate])?])
}
