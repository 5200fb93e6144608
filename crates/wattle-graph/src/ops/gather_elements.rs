//! GatherElements: elements picked one by one along an axis.

use super::concrete::result_shapes;
use super::movement_gradient::gradient_of;
use super::*;
use crate::shape::{Dim, normalize_axis};
use crate::tensor::{DType, each_index, strides};

/// `y[i, j, k] = x[i, indices[i, j, k], k]` (for axis 1); negative indices count from the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis that is indexed.
    pub axis: i64,
}

/// For each element of `indices`, the position it names in a tensor of `shape`.
pub(super) fn element_positions(shape: &[usize], axis: usize, indices: &Tensor) -> Result<Vec<usize>, OpError> {
    let (steps, chosen) = (strides(shape), indices.to_i64());
    let mut positions = Vec::with_capacity(chosen.len());
    let mut bad = None;
    each_index(indices.shape(), |index| {
        let along = chosen[positions.len()];
        let Some(along) = normalize_axis(along, shape[axis]) else {
            bad.get_or_insert(along);
            return positions.push(0);
        };
        let rest: usize = (0..index.len()).filter(|&a| a != axis).map(|a| index[a] * steps[a]).sum();
        positions.push(rest + along * steps[axis]);
    });
    match bad {
        Some(index) => Err(OpError::mismatch("index", index, format!("-{0}..{0}", shape[axis]))),
        None => Ok(positions),
    }
}

/// Checks that `indices` has as many axes as `x` and reaches no further along any but `axis`.
pub(super) fn check_elements(x: &[Dim], indices: &[Dim], axis: i64) -> Result<(), OpError> {
    if x.len() != indices.len() {
        return Err(OpError::mismatch("rank of indices", indices.len(), format!("that of x, {}", x.len())));
    }
    let axis = axis_of(axis, x.len())?;
    for at in (0..x.len()).filter(|&a| a != axis) {
        if let (Some(n), Some(limit)) = (indices[at].known(), x[at].known())
            && n > limit
        {
            return Err(OpError::mismatch("extent of indices off the axis", n, format!("at most {limit}")));
        }
    }
    Ok(())
}

impl Operator for GatherElements {
    fn name(&self) -> &'static str {
        "GatherElements"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(1, "indices", &[DType::I64, DType::I32])?;
        let (x, indices) = (inputs.ty(0, "x")?, inputs.ty(1, "indices")?);
        if let (Some(x), Some(indices)) = (x.shape.dims(), indices.shape.dims()) {
            check_elements(x, indices, self.axis)?;
        }
        Ok(vec![TensorType::new(x.dtype, indices.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let (x, indices) = (inputs.get(0)?, inputs.get(1)?);
        let positions = element_positions(x.shape(), axis_of(self.axis, x.shape().len())?, indices)?;
        Ok(vec![x.take(shape, &positions.into_iter().map(Some).collect::<Vec<_>>())])
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

impl Described for GatherElements {
    const ONNX: &'static [&'static str] = &["GatherElements"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 0)?;
        node.finish(GatherElements { axis })
    }

    fn examples() -> Vec<Example> {
        let of = |axis, indices| Example::new(GatherElements { axis }, vec![Example::noise(&[3, 3], 1), indices]);
        vec![
            of(1, Tensor::i64([2, 2], vec![0, 2, -1, 0])),
            of(0, Tensor::i64([2, 3], vec![1, 2, 0, 1, 0, 0])),
            of(-1, Tensor::i64([3, 4], vec![1, 2, 0, 1, 0, 0, -3, 1, 2, 2, 2, 2])),
        ]
    }
}
