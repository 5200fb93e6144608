//! Gather: rows picked by index; the embedding of a token is one.

use super::*;
use super::movement_gradient::gradient_of;
use crate::shape::Shape;
use crate::tensor::{DType, each_index, strides};

/// `y[.., i.., ..] = x[.., indices[i..], ..]` along `axis`; negative indices count from the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis that is indexed.
    pub axis: i64,
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "indices", &[DType::I64, DType::I32])?;
        let shape = match (x.shape.dims(), inputs.dims(1, "indices")?) {
            (Some(dims), Some(indices)) => {
                let axis = axis_of(self.axis, dims.len())?;
                Shape::Ranked([&dims[..axis], indices, &dims[axis + 1..]].concat())
            }
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (inputs.get(0)?, inputs.get(1)?);
        let axis = axis_of(self.axis, x.shape().len())?;
        let extent = x.shape()[axis];
        let mut picked = vec![];
        for &index in indices.to_i64().iter() {
            picked.push(crate::shape::normalize_axis(index, extent).ok_or_else(|| {
                OpError::mismatch("index", index, format!("-{extent}..{extent}"))
            })?);
        }
        let from = strides(x.shape());
        let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
        let (before, middle) = (axis, indices.shape().len());
        let index_strides = strides(indices.shape());
        let mut source = vec![];
        each_index(&shape, |at| {
            let which: usize = at[before..before + middle].iter().zip(&index_strides).map(|(i, s)| i * s).sum();
            let lead: usize = at[..before].iter().zip(&from).map(|(i, s)| i * s).sum();
            let tail: usize = at[before + middle..].iter().zip(&from[axis + 1..]).map(|(i, s)| i * s).sum();
            source.push(Some(lead + picked[which] * from[axis] + tail));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(self.clone()), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Gather {
    const ONNX: &'static [&'static str] = &["Gather"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 0)?;
        node.finish(Gather { axis })
    }

    fn examples() -> Vec<Example> {
        let x = || Example::noise(&[4, 3, 2], 1);
        vec![
            Example::new(Gather { axis: 0 }, vec![x(), Tensor::i64([2, 2], vec![3, 0, 1, 3])]),
            Example::new(Gather { axis: 1 }, vec![x(), Tensor::ints(&[-1])]),
            Example::new(Gather { axis: -1 }, vec![x(), Tensor::i64([], vec![1])]),
        ]
    }
}
