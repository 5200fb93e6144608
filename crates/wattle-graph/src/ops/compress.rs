//! Compress: the slices along an axis for which a condition holds.

use super::movement_gradient::gradient_of;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// `Compress(x, condition)`: keeps slice `i` along the axis where `condition[i]` holds; those past the end of the
/// condition are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The axis, or all elements in one row when `None`.
    pub axis: Option<i64>,
}

/// Positions below `extent` at which the condition holds.
fn kept(condition: &[i64], extent: usize) -> Vec<usize> {
    condition.iter().take(extent).enumerate().filter(|(_, c)| **c != 0).map(|(i, _)| i).collect()
}

impl Operator for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.axis.map(|axis| ("axis", Attribute::Int(axis))).into_iter().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "condition", &[DType::Bool])?;
        inputs.expect_rank(1, "condition", 1)?;
        let condition = inputs.ints(1);
        let extent = |of: Option<usize>| match (&condition, of) {
            (Some(condition), Some(n)) => Dim::Known(kept(condition, n).len()),
            _ => Dim::symbol("compressed"),
        };
        let shape = match (self.axis, x.shape.dims()) {
            (None, _) => {
                let elements = x.shape.extents().and_then(|e| crate::tensor::element_count(&e));
                Shape::Ranked(vec![extent(elements)])
            }
            (Some(_), None) => Shape::Unknown,
            (Some(axis), Some(dims)) => {
                let axis = axis_of(axis, dims.len())?;
                let mut result = dims.to_vec();
                result[axis] = extent(dims[axis].known());
                Shape::Ranked(result)
            }
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, condition) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let Some(axis) = self.axis else {
            let kept = kept(&condition, x.len());
            return Ok(vec![x.take([kept.len()], &kept.into_iter().map(Some).collect::<Vec<_>>())]);
        };
        let axis = axis_of(axis, x.shape().len())?;
        let kept = kept(&condition, x.shape()[axis]);
        let from = strides(x.shape());
        let mut shape = x.shape().to_vec();
        shape[axis] = kept.len();
        let mut source = Vec::with_capacity(shape.iter().product());
        each_index(&shape, |index| {
            let at = |a: usize| if a == axis { kept[index[a]] } else { index[a] };
            source.push(Some((0..index.len()).map(|a| at(a) * from[a]).sum()));
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

impl Described for Compress {
    const ONNX: &'static [&'static str] = &["Compress"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = match node.attribute("axis") {
            None => None,
            Some(Attribute::Int(axis)) => Some(axis),
            Some(other) => return Err(node.refuse(format!("axis = {other}; expected an integer"))),
        };
        node.finish(Compress { axis })
    }

    fn examples() -> Vec<Example> {
        let of = |axis, condition: &[i64]| {
            let condition = Tensor::ints(condition).cast(DType::Bool);
            Example::new(Compress { axis }, vec![Example::noise(&[3, 2], 1), condition]).constants(&[1])
        };
        vec![
            of(Some(0), &[0, 1, 1]),
            of(Some(-1), &[0, 1]),
            of(None, &[0, 1, 0, 0, 1]),
            of(Some(0), &[0, 0, 0]),
        ]
    }
}
