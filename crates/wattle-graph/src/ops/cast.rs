//! Cast: the same numbers in another element type.

use super::*;
use crate::onnx::{dtype_of_number, number_of_dtype};
use crate::tensor::DType;

/// Converts elements: floats truncate to integers, integers wrap, anything non-zero is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Element type of the result.
    pub to: DType,
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("to", Attribute::Int(number_of_dtype(self.to).into()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![TensorType::new(self.to, inputs.ty(0, "x")?.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.get(0)?.cast(self.to)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (dy, from) = (g.gradient(), g.dtype(g.input(0)));
        if !from.is_float() || !self.to.is_float() {
            return Ok(Gradient::Zero("integers and truth values are piecewise constant"));
        }
        Ok(Gradient::Inputs(vec![Some(g.apply(Cast { to: from }, &[dy])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Cast {
    const ONNX: &'static [&'static str] = &["Cast", "CastLike"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        // Saturation concerns only 8-bit floats, which are refused anyway.
        node.int("saturate", 1)?;
        let x = node.input(0)?;
        let to = if node.op_type() == "CastLike" {
            node.graph().value(node.input(1)?).ty.dtype
        } else {
            let number = node.int("to", 0)?;
            dtype_of_number(i32::try_from(number).unwrap_or(-1)).map_err(|reason| node.refuse(reason))?
        };
        if node.graph().value(x).ty.dtype == to {
            return Ok(vec![node.apply(Identity, &[x])?]);
        }
        Ok(vec![node.apply(Cast { to }, &[x])?])
    }

    fn examples() -> Vec<Example> {
        let x = || Tensor::f32([4], vec![-1.5, 0.0, 2.7, 100.0]);
        let mut examples: Vec<_> =
            [DType::I32, DType::I64, DType::Bool].map(|to| Example::new(Cast { to }, vec![x()])).into();
        examples.push(Example::new(Cast { to: DType::F32 }, vec![Tensor::ints(&[1, -2, 3])]));
        examples.push(Example::new(Cast { to: DType::U8 }, vec![Tensor::ints(&[1, 255, 300])]));
        examples
    }
}
