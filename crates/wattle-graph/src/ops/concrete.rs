//! Result shapes of concrete operands: what `evaluate` may rely on and allocate.

use super::*;
use crate::tensor::element_count;

/// Most elements of one result; a small file must not make us allocate more than a machine has.
const MAX_ELEMENTS: usize = 1 << 31;

impl Op {
    /// The results of operands that were accepted while some of their extents were symbols, which may have stood
    /// for extents that do not fit together: such operands are refused, as are results of more than 2^31 elements.
    pub fn evaluate_checked(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        for ty in infer_concrete(&**self, inputs)? {
            ty.shape.extents().map_or(Ok(vec![]), bounded)?;
        }
        self.evaluate(inputs)
    }
}

/// Infers again with every extent known. Symbols may have stood for extents that do not fit together, so this
/// is where such operands are refused; it also refuses results of more than 2^31 elements.
pub(super) fn result_shapes(op: &impl Operator, inputs: Tensors<'_>) -> Result<Vec<Vec<usize>>, OpError> {
    infer_concrete(op, inputs)?
        .iter()
        .map(|ty| bounded(ty.shape.extents().ok_or(OpError::Unbound("the result's shape"))?))
        .collect()
}

fn infer_concrete(op: &dyn Operator, inputs: Tensors<'_>) -> Result<Vec<TensorType>, OpError> {
    let tensors: Vec<Option<&Tensor>> = (0..inputs.len()).map(|i| inputs.optional(i)).collect();
    let ty = |t: &&Tensor| TensorType::new(t.dtype(), crate::shape::Shape::known(t.shape()));
    let types: Vec<Option<TensorType>> = tensors.iter().map(|t| t.as_ref().map(ty)).collect();
    let operands: Vec<Option<Operand<'_>>> =
        types.iter().zip(&tensors).map(|(ty, t)| Some(Operand { ty: ty.as_ref()?, constant: *t })).collect();
    op.infer(Operands::new(&operands))
}

/// `shape`, unless it has more elements than one result may.
pub(super) fn bounded(shape: Vec<usize>) -> Result<Vec<usize>, OpError> {
    match element_count(&shape) {
        Some(n) if n <= MAX_ELEMENTS => Ok(shape),
        _ => {
            Err(OpError::mismatch("result", format!("{shape:?}"), format!("at most {MAX_ELEMENTS} elements")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_too_large_to_hold_is_refused() {
        assert!(bounded(vec![1 << 20, 1 << 12]).is_err());
        assert!(bounded(vec![usize::MAX, 2]).is_err());
        assert_eq!(bounded(vec![3, 0]), Ok(vec![3, 0]));
    }
}
