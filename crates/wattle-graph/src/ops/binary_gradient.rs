//! Gradients of element-wise functions of two operands that choose between them.

use super::*;
use super::binary::{broadcast_extents, broadcast_indices};
use super::concrete::result_shapes;

/// `f'(a, b) dz` by one operand of Max, Min, PRelu or Mod, in the broadcast shape; operands a, b, dz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryGradient {
    /// f.
    pub function: BinaryFunction,
    /// By the first operand rather than the second.
    pub first: bool,
}

impl BinaryGradient {
    fn slope(&self, a: f64, b: f64) -> f64 {
        use BinaryFunction::*;
        let step = |on: bool| if on { 1.0 } else { 0.0 };
        match (self.function, self.first) {
            // Ties share the gradient, so that Max(x, x) has slope one.
            (Max | Min, _) if a == b => 0.5,
            (Max, first) => step((a > b) == first),
            (Min, first) => step((a < b) == first),
            (PRelu, true) => if a < 0.0 { b } else { 1.0 },
            (PRelu, false) => a.min(0.0),
            (Mod { .. }, true) => 1.0,
            (Mod { fmod: true }, false) => -(a / b).trunc(),
            (Mod { fmod: false }, false) => -(a / b).floor(),
            (Add | Sub | Mul | Div | Pow, _) => f64::NAN,
        }
    }
}

impl Operator for BinaryGradient {
    fn name(&self) -> &'static str {
        "BinaryGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let by = if self.first { "first" } else { "second" };
        let function = Attribute::Text(format!("{:?}", self.function));
        vec![("function", function), ("by", Attribute::Text(by.into()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        use BinaryFunction::*;
        if matches!(self.function, Add | Sub | Mul | Div | Pow) {
            return Err(OpError::mismatch("function", format!("{:?}", self.function), "Max, Min, PRelu or Mod"));
        }
        inputs.expect_float(0, "a")?;
        let forward = Binary { function: self.function }.infer(inputs)?.remove(0);
        let dz = inputs.ty(2, "dz")?;
        if *dz != forward {
            return Err(OpError::mismatch("dz", dz, forward));
        }
        Ok(vec![forward])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (a, b, dz) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let shape = broadcast_extents(a.shape(), b.shape())?;
        let (i, j) = (broadcast_indices(a.shape(), &shape), broadcast_indices(b.shape(), &shape));
        let (x, y, d) = (a.to_f64(), b.to_f64(), dz.to_f64());
        let values = (0..d.len()).map(|k| self.slope(x[i[k]], y[j[k]]) * d[k]).collect();
        Ok(vec![Tensor::from_f64(a.dtype(), shape, values)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of choosing functions are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(2 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for BinaryGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let operands = || vec![Example::noise(&[2, 3], 1), Example::noise(&[3], 2), Example::noise(&[2, 3], 3)];
        let rule = |function, first| Example::new(BinaryGradient { function, first }, operands());
        vec![rule(BinaryFunction::Max, true), rule(BinaryFunction::PRelu, false)]
    }
}
