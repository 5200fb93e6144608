//! EyeLike: ones on one diagonal of a matrix of the operand's shape.

use super::concrete::result_shapes;
use super::*;
use crate::onnx::{dtype_of_number, number_of_dtype};
use crate::tensor::DType;

/// A matrix as large as the operand, zero but for ones on a diagonal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EyeLike {
    /// Which diagonal: 0 the main one, above it positive.
    pub diagonal: i64,
    /// Element type of the result; the operand's when `None`.
    pub dtype: Option<DType>,
}

impl Operator for EyeLike {
    fn name(&self) -> &'static str {
        "EyeLike"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![];
        if self.diagonal != 0 {
            attributes.push(("k", Attribute::Int(self.diagonal)));
        }
        if let Some(dtype) = self.dtype {
            attributes.push(("dtype", Attribute::Int(number_of_dtype(dtype).into())));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_rank(0, "x", 2)?;
        let x = inputs.ty(0, "x")?;
        Ok(vec![TensorType::new(self.dtype.unwrap_or(x.dtype), x.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let mut eye = vec![0; shape.iter().product()];
        for row in 0..shape[0] {
            let column = usize::try_from((row as i64).saturating_add(self.diagonal)).ok();
            if let Some(column) = column.filter(|&c| c < shape[1]) {
                eye[row * shape[1] + column] = 1;
            }
        }
        let dtype = self.dtype.unwrap_or(inputs.get(0)?.dtype());
        Ok(vec![Tensor::i64(shape, eye).cast(dtype)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("only the shape of the operand matters"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for EyeLike {
    const ONNX: &'static [&'static str] = &["EyeLike"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let diagonal = node.int("k", 0)?;
        let dtype = match node.int("dtype", 0)? {
            0 => None,
            n => Some(dtype_of_number(i32::try_from(n).unwrap_or(-1)).map_err(|reason| node.refuse(reason))?),
        };
        node.finish(EyeLike { diagonal, dtype })
    }

    fn examples() -> Vec<Example> {
        let of = |diagonal, dtype, shape: &[usize]| {
            Example::new(EyeLike { diagonal, dtype }, vec![Example::noise(shape, 1)])
        };
        vec![of(0, None, &[3, 4]), of(1, Some(DType::I32), &[3, 3]), of(-2, Some(DType::Bool), &[4, 2])]
    }
}
