//! The gradient of every element-wise function, as one operator so that it is one pass over memory.

use super::*;

/// `dx = f'(x) dy`; operands x, y = f(x), dy, all of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct UnaryGradient {
    /// f.
    pub function: Function,
}

impl Operator for UnaryGradient {
    fn name(&self) -> &'static str {
        "UnaryGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("function", Attribute::Text(format!("{:?}", self.function)))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        let (x, dy) = (inputs.ty(0, "x")?, inputs.ty(2, "dy")?);
        if x != dy || inputs.ty(1, "y")? != x {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, y, dy) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let (xs, ys, dys) = (x.to_f64(), y.to_f64(), dy.to_f64());
        let values = (0..xs.len()).map(|i| self.function.derivative(xs[i], ys[i]) * dys[i]).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), values)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of element-wise functions are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(2 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for UnaryGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let x = Example::noise(&[2, 7], 4);
        let forward = |function: Function| {
            let y = x.to_f64().iter().map(|&v| function.value(v)).collect();
            let y = Tensor::from_f64(x.dtype(), x.shape(), y);
            Example::new(UnaryGradient { function }, vec![x.clone(), y, Example::noise(&[2, 7], 5)])
        };
        vec![forward(Function::Relu), forward(Function::Gelu), forward(Function::Tanh)]
    }
}
