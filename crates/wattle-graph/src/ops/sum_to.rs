//! SumTo: undoes broadcasting by summing over the axes that were repeated.

use super::*;
use super::binary::broadcast_indices;
use super::concrete::result_shapes;
use crate::shape::{Shape, broadcast};

/// Sums the operand down to `shape`, which must broadcast to the operand's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTo {
    /// Extents of the result.
    pub shape: Vec<usize>,
}

impl Operator for SumTo {
    fn name(&self) -> &'static str {
        "SumTo"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("shape", Attribute::Ints(self.shape.iter().map(|&n| n as i64).collect()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        let x = inputs.ty(0, "x")?;
        let to = Shape::known(&self.shape);
        if broadcast(&x.shape, &to).as_ref() != Some(&x.shape) {
            return Err(OpError::mismatch("shape", to, format!("a shape that broadcasts to {}", x.shape)));
        }
        Ok(vec![TensorType::new(x.dtype, to)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let mut sums = vec![0.0; self.shape.iter().product()];
        for (value, to) in x.to_f64().iter().zip(broadcast_indices(&self.shape, x.shape())) {
            sums[to] += value;
        }
        Ok(vec![Tensor::from_f64(x.dtype(), self.shape.clone(), sums)])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (dy, x) = (backward.gradient(), backward.input(0));
        let dtype = backward.dtype(x);
        let shape = backward.extents(x)?;
        let zeros = backward.constant(Tensor::zeros(dtype, shape));
        Ok(Gradient::Inputs(vec![Some(backward.apply(Binary { function: BinaryFunction::Add }, &[dy, zeros])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("SumTo belongs to training graphs, which ONNX cannot hold".into()))
    }
}

impl Described for SumTo {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no SumTo"))
    }

    fn examples() -> Vec<Example> {
        let to = |shape: &[usize]| {
            Example::new(SumTo { shape: shape.to_vec() }, vec![Example::noise(&[2, 3, 4], 1)])
        };
        vec![to(&[3, 1]), to(&[4]), to(&[]), to(&[2, 1, 4])]
    }
}
