//! GatherND: slices picked by index vectors.

use super::concrete::result_shapes;
use super::movement_gradient::gradient_of;
use super::*;
use crate::shape::{Dim, Shape, normalize_axis};
use crate::tensor::{DType, strides};

/// `y[b.., i.., ..] = x[b.., indices[b.., i.., :], ..]`: each vector of indices names a slice of `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading axes that `x` and `indices` share and that are not indexed.
    pub batch_axes: usize,
}

/// For each vector in `indices`, the position in a tensor of `shape` where the slice it names begins.
pub(super) fn slice_positions(
    shape: &[usize],
    batch_axes: usize,
    indices: &Tensor,
) -> Result<Vec<usize>, OpError> {
    let steps = strides(shape);
    let (lead, depth) = indices.shape().split_at(indices.shape().len() - 1);
    let vectors: usize = lead.iter().product();
    let per_batch: usize = lead[batch_axes..].iter().product();
    let batch_step: usize = shape[batch_axes..].iter().product();
    let chosen = indices.to_i64();
    let mut positions = Vec::with_capacity(vectors);
    for vector in 0..vectors {
        let mut at = vector / per_batch * batch_step;
        for (i, &index) in chosen[vector * depth[0]..(vector + 1) * depth[0]].iter().enumerate() {
            let (extent, step) = (shape[batch_axes + i], steps[batch_axes + i]);
            let bad = || OpError::mismatch("index", index, format!("-{extent}..{extent}"));
            at += normalize_axis(index, extent).ok_or_else(bad)? * step;
        }
        positions.push(at);
    }
    Ok(positions)
}

/// Shape of the slices that `indices` names in `x`, one after another; also checks that they fit.
pub(super) fn slices_shape(x: &Shape, indices: &Shape, batch_axes: usize) -> Result<Shape, OpError> {
    let (Some(x), Some(indices)) = (x.dims(), indices.dims()) else { return Ok(Shape::Unknown) };
    let Some((depth, lead)) = indices.split_last() else {
        return Err(OpError::mismatch("indices", "a scalar", "at least one axis"));
    };
    if batch_axes > lead.len() || batch_axes > x.len() {
        return Err(OpError::mismatch("batch_dims", batch_axes, "fewer than the axes of x and of indices"));
    }
    for (a, b) in x.iter().zip(lead).take(batch_axes) {
        if a.known().zip(b.known()).is_some_and(|(a, b)| a != b) {
            return Err(OpError::mismatch("batch extent of indices", b, a));
        }
    }
    let Dim::Known(depth) = depth else { return Ok(Shape::Unknown) };
    match x[batch_axes..].get(*depth..) {
        Some(slice) => Ok(Shape::Ranked([lead, slice].concat())),
        None => {
            let wanted = format!("at most {}, the axes of x to index", x.len() - batch_axes);
            Err(OpError::mismatch("last extent of indices", depth, wanted))
        }
    }
}

impl Operator for GatherNd {
    fn name(&self) -> &'static str {
        "GatherND"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.batch_axes {
            0 => vec![],
            n => vec![("batch_dims", Attribute::Int(n as i64))],
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(1, "indices", &[DType::I64])?;
        let (x, indices) = (inputs.ty(0, "x")?, inputs.ty(1, "indices")?);
        Ok(vec![TensorType::new(x.dtype, slices_shape(&x.shape, &indices.shape, self.batch_axes)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let (x, indices) = (inputs.get(0)?, inputs.get(1)?);
        let starts = slice_positions(x.shape(), self.batch_axes, indices)?;
        let slice: usize = shape[indices.shape().len() - 1..].iter().product();
        let source: Vec<_> = starts.into_iter().flat_map(|s| (s..s + slice).map(Some)).collect();
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

impl Described for GatherNd {
    const ONNX: &'static [&'static str] = &["GatherND"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let batch_axes = node.int("batch_dims", 0)?;
        let batch_axes =
            usize::try_from(batch_axes).map_err(|_| node.refuse(format!("batch_dims = {batch_axes}")))?;
        node.finish(GatherNd { batch_axes })
    }

    fn examples() -> Vec<Example> {
        let of = |batch_axes, x: &[usize], shape: &[usize], indices: &[i64]| {
            let indices = Tensor::i64(shape, indices.to_vec());
            Example::new(GatherNd { batch_axes }, vec![Example::noise(x, 1), indices])
        };
        vec![
            of(0, &[2, 3], &[2, 2], &[0, 0, 1, -1]),
            of(0, &[3, 2], &[3, 1], &[1, 0, 1]),
            of(0, &[2, 2, 3], &[2, 1, 2], &[0, 1, 1, 0]),
            of(1, &[2, 3, 2], &[2, 1], &[2, 0]),
            of(1, &[2, 3, 2], &[2, 2, 2], &[0, 1, 2, 0, 1, 1, 1, 1]),
        ]
    }
}
