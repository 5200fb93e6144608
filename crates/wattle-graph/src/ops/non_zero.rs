//! NonZero: where a tensor is not zero.

use super::*;
use crate::shape::Dim;
use crate::tensor::{DType, each_index};

/// The indices of all elements that are not zero, one column each, as i64 `[rank, how many]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonZero;

/// For each element, whether it is not zero.
fn nonzero(x: &Tensor) -> Vec<bool> {
    if x.dtype().is_float() {
        return x.to_f64().iter().map(|&v| v != 0.0).collect();
    }
    x.to_i64().iter().map(|&v| v != 0).collect()
}

impl Operator for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.get(0, "x")?;
        let rank = x.ty.shape.rank().map_or_else(|| Dim::symbol("rank"), Dim::Known);
        let count = |t: &Tensor| nonzero(t).iter().filter(|&&on| on).count();
        let count = x.constant.map_or_else(|| Dim::symbol("nonzero"), |t| count(t).into());
        Ok(vec![TensorType::new(DType::I64, vec![rank, count])])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let on = nonzero(x);
        let mut rows = vec![vec![]; x.shape().len()];
        let mut at = 0;
        each_index(x.shape(), |index| {
            if on[at] {
                rows.iter_mut().zip(index).for_each(|(row, &i)| row.push(i as i64));
            }
            at += 1;
        });
        let count = on.iter().filter(|&&on| on).count();
        Ok(vec![Tensor::i64([rows.len(), count], rows.concat())])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("positions are piecewise constant"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for NonZero {
    const ONNX: &'static [&'static str] = &["NonZero"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(NonZero)
    }

    fn examples() -> Vec<Example> {
        let of = |x: Tensor| Example::new(NonZero, vec![x]).constants(&[0]);
        vec![
            of(Tensor::f32([2, 2], vec![1.0, 0.0, -0.0, f32::NAN])),
            of(Tensor::ints(&[0, 2, -1])),
            of(Tensor::zeros(DType::Bool, [2, 3])),
            of(Tensor::scalar(2.0)),
        ]
    }
}
