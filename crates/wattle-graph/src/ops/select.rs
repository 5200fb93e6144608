//! Where: one of two tensors, element by element.

use super::*;
use super::binary::{broadcast_extents, broadcast_indices};
use crate::shape::broadcast;
use crate::tensor::DType;

/// `Where(condition, a, b)`: `a` where the condition holds, else `b`, all broadcast together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where;

/// Elements of `a` where `condition` holds, of `b` elsewhere; all of one size, exact for every type.
pub(super) fn select(condition: &[bool], a: &Tensor, b: &Tensor) -> Tensor {
    if a.dtype().is_float() {
        let (x, y) = (a.to_f64(), b.to_f64());
        let values = condition.iter().enumerate().map(|(i, &c)| if c { x[i] } else { y[i] }).collect();
        return Tensor::from_f64(a.dtype(), a.shape(), values);
    }
    let (x, y) = (a.to_i64(), b.to_i64());
    let values = condition.iter().enumerate().map(|(i, &c)| if c { x[i] } else { y[i] }).collect();
    Tensor::from_i64(a.dtype(), a.shape(), values)
}

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(0, "condition", &[DType::Bool])?;
        let (c, a, b) = (inputs.ty(0, "condition")?, inputs.ty(1, "a")?, inputs.ty(2, "b")?);
        if a.dtype != b.dtype {
            return Err(OpError::mismatch("b", b.dtype, a.dtype));
        }
        let shape = broadcast(&a.shape, &b.shape).and_then(|s| broadcast(&c.shape, &s));
        let found = || format!("{}, {} and {}", c.shape, a.shape, b.shape);
        let shape = shape.ok_or_else(|| OpError::mismatch("shapes", found(), "broadcastable"))?;
        Ok(vec![TensorType::new(a.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (c, a, b) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let shape = broadcast_extents(c.shape(), &broadcast_extents(a.shape(), b.shape())?)?;
        let spread = |t: &Tensor| {
            let source: Vec<_> = broadcast_indices(t.shape(), &shape).into_iter().map(Some).collect();
            t.take(shape.clone(), &source)
        };
        let condition: Vec<bool> = spread(c).to_i64().iter().map(|&x| x != 0).collect();
        Ok(vec![select(&condition, &spread(a), &spread(b))])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (condition, a, b, dy) = (g.input(0), g.input(1), g.input(2), g.gradient());
        let zero = Tensor::zeros(g.dtype(dy), []);
        let zero = g.constant(zero);
        let (mut da, mut db) = (None, None);
        if g.wants(1) {
            let kept = g.apply(Where, &[condition, dy, zero])?;
            da = Some(g.sum_to(kept, a)?);
        }
        if g.wants(2) {
            let kept = g.apply(Where, &[condition, zero, dy])?;
            db = Some(g.sum_to(kept, b)?);
        }
        Ok(Gradient::Inputs(vec![None, da, db]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Where {
    const ONNX: &'static [&'static str] = &["Where"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Where)
    }

    fn examples() -> Vec<Example> {
        let condition = || Tensor::ints(&[1, 0, 1]).cast(DType::Bool);
        vec![
            Example::new(Where, vec![condition(), Example::noise(&[2, 3], 1), Example::noise(&[2, 3], 2)]),
            Example::new(Where, vec![condition(), Example::noise(&[2, 1], 1), Tensor::scalar(0.5)]),
            Example::new(Where, vec![condition(), Tensor::ints(&[1, 2, 3]), Tensor::ints(&[4])]),
        ]
    }
}
