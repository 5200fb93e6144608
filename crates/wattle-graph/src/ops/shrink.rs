//! Shrink: values near zero become zero, others move towards it.

use super::concrete::result_shapes;
use super::*;

/// `Shrink(x)`: `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    /// How far the values that stay move.
    pub bias: f32,
    /// Largest absolute value that becomes zero.
    pub lambd: f32,
}

impl Operator for Shrink {
    fn name(&self) -> &'static str {
        "Shrink"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("bias", Attribute::Float(self.bias)), ("lambd", Attribute::Float(self.lambd))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (bias, lambd) = (f64::from(self.bias), f64::from(self.lambd));
        let shrunk = |v: f64| match v {
            _ if v < -lambd => v + bias,
            _ if v > lambd => v - bias,
            _ => 0.0,
        };
        let y = x.to_f64().iter().map(|&v| shrunk(v)).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (x, dy) = (backward.input(0), backward.gradient());
        let dtype = backward.dtype(x);
        let lambd = backward.constant(Tensor::scalar(self.lambd).cast(dtype));
        let size = backward.apply(Unary { function: Function::Abs }, &[x])?;
        let stays = backward.apply(Compare { comparison: Comparison::Greater }, &[size, lambd])?;
        let zero = backward.constant(Tensor::zeros(dtype, []));
        Ok(Gradient::Inputs(vec![Some(backward.apply(Where, &[stays, dy, zero])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(3 * shapes.output_len(0))
    }
}

impl Described for Shrink {
    const ONNX: &'static [&'static str] = &["Shrink"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (bias, lambd) = (node.float("bias", 0.0)?, node.float("lambd", 0.5)?);
        node.finish(Shrink { bias, lambd })
    }

    fn examples() -> Vec<Example> {
        let x = Tensor::f32([2, 3], vec![-2.0, -0.4, 0.0, 0.3, 0.6, 5.0]);
        vec![
            Example::new(Shrink { bias: 0.0, lambd: 0.5 }, vec![x.clone()]),
            Example::new(Shrink { bias: 0.25, lambd: 0.35 }, vec![x]),
        ]
    }
}
