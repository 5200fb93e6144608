//! ConstantOfShape: one value, repeated over a shape given as an operand.

use std::sync::Arc;

use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// A tensor of the shape that operand 0 (rank-1 i64) holds, filled with `value`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// A tensor of one element.
    pub value: Arc<Tensor>,
}

/// The extents that a shape operand holds, unless one is negative or there are too many elements.
pub(super) fn requested_extents(shape: &[i64]) -> Result<Vec<usize>, OpError> {
    let bad = || OpError::mismatch("shape", format!("{shape:?}"), "extents of at most 2^31 elements in all");
    let extents: Vec<usize> =
        shape.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<_>>().ok_or_else(bad)?;
    match crate::tensor::element_count(&extents) {
        Some(n) if n <= 1 << 31 => Ok(extents),
        _ => Err(bad()),
    }
}

/// The shape that operand `index` asks for, as far as it is known.
pub(super) fn requested_shape(inputs: Operands<'_>, index: usize) -> Result<Shape, OpError> {
    inputs.expect_dtype(index, "shape", &[DType::I64])?;
    inputs.expect_rank(index, "shape", 1)?;
    Ok(match (inputs.ints(index), inputs.dims(index, "shape")?) {
        (Some(shape), _) => Shape::known(&requested_extents(&shape)?),
        (None, Some([Dim::Known(rank)])) if *rank <= 32 => {
            Shape::Ranked((0..*rank).map(|i| Dim::symbol(format!("requested{i}"))).collect())
        }
        _ => Shape::Unknown,
    })
}

impl Operator for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("value", Attribute::Tensor(self.value.clone()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        if self.value.len() != 1 {
            return Err(OpError::mismatch("value", format!("{} elements", self.value.len()), "one"));
        }
        Ok(vec![TensorType::new(self.value.dtype(), requested_shape(inputs, 0)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = requested_extents(&inputs.get(0)?.to_i64())?;
        Ok(vec![self.value.filling(shape)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("the operand is a shape"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for ConstantOfShape {
    const ONNX: &'static [&'static str] = &["ConstantOfShape"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let value = match node.attribute("value") {
            None => Arc::new(Tensor::f32([1], vec![0.0])),
            Some(Attribute::Tensor(value)) => value,
            Some(other) => return Err(node.refuse(format!("value = {other}; expected a tensor"))),
        };
        node.finish(ConstantOfShape { value })
    }

    fn examples() -> Vec<Example> {
        let of = |value: Tensor| {
            Example::new(ConstantOfShape { value: value.into() }, vec![Tensor::ints(&[2, 3])]).constants(&[0])
        };
        vec![of(Tensor::f32([1], vec![0.5])), of(Tensor::ints(&[7]))]
    }
}
