//! Layer normalisation of a sum with what skipped the layer before.

use super::rms_norm::normalised;
use super::{ForeignNode, ImportError, ValueId};
use crate::ops::{Binary, BinaryFunction, LayerNormalization};

/// `x + skip + bias?`; the statistics, which only training reads, are refused.
fn sum(node: &mut ForeignNode<'_>, bias: usize) -> Result<ValueId, ImportError> {
    if node.wants_output(1) || node.wants_output(2) {
        return Err(node.refuse("its mean and deviation are read, which are not computed apart"));
    }
    let add = Binary { function: BinaryFunction::Add };
    let (x, skip) = (node.input(0)?, node.input(1)?);
    let total = node.apply(add.clone(), &[x, skip])?;
    match node.optional_input(bias) {
        Some(bias) => node.apply(add, &[total, bias]),
        None => Ok(total),
    }
}

/// `(x, skip, scale, shift?, bias?) -> (y, mean, deviation, sum)`.
pub fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let epsilon = node.float("epsilon", 1e-12)?;
    let total = sum(node, 4)?;
    let operands = [Some(total), Some(node.input(2)?), node.optional_input(3)];
    let y = node.apply_all(LayerNormalization { axis: -1, epsilon }, &operands)?[0];
    Ok(vec![y, y, y, total])
}

/// `(x, skip, scale, bias?) -> (y, mean, deviation, sum)`, by the root of the mean square.
pub fn simplified(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let epsilon = node.float("epsilon", 1e-12)?;
    let (total, scale) = (sum(node, 3)?, node.input(2)?);
    let y = normalised(node, total, scale, -1, epsilon)?;
    Ok(vec![y, y, y, total])
}
