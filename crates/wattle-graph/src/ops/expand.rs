//! Expand and Tile: a tensor repeated along its axes.

use super::*;
use super::binary::{broadcast_extents, broadcast_indices};
use super::constant_of_shape::{requested_extents, requested_shape};
use super::movement_gradient::gradient_of;
use crate::shape::{Dim, Shape, broadcast};
use crate::tensor::{DType, each_index, strides};

/// `Expand(x, shape)`: broadcasts `x` against a shape; extents of 1 on either side give way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expand;

/// `Tile(x, repeats)`: the whole of `x`, again and again along each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile;

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        let to = requested_shape(inputs, 1)?;
        let shape = broadcast(&x.shape, &to)
            .ok_or_else(|| OpError::mismatch("shape", &to, format!("broadcastable with {}", x.shape)))?;
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let shape = broadcast_extents(x.shape(), &requested_extents(&inputs.get(1)?.to_i64())?)?;
        let source: Vec<_> = broadcast_indices(x.shape(), &shape).into_iter().map(Some).collect();
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (dy, x) = (g.gradient(), g.input(0));
        Ok(Gradient::Inputs(vec![Some(g.sum_to(dy, x)?), None]))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Expand {
    const ONNX: &'static [&'static str] = &["Expand"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Expand)
    }

    fn examples() -> Vec<Example> {
        let to = |shape: &[i64]| {
            Example::new(Expand, vec![Example::noise(&[3, 1], 1), Tensor::ints(shape)]).constants(&[1])
        };
        vec![to(&[2, 3, 4]), to(&[3, 1]), to(&[1])]
    }
}

/// Extents of a tiled tensor.
fn tiled(extents: &[usize], repeats: &[i64]) -> Result<Vec<usize>, OpError> {
    if repeats.len() != extents.len() {
        return Err(OpError::mismatch("repeats", repeats.len(), format!("one per axis, {}", extents.len())));
    }
    let product: Vec<i64> =
        extents.iter().zip(repeats).map(|(&n, &r)| (n as i64).saturating_mul(r)).collect();
    requested_extents(&product)
}

impl Operator for Tile {
    fn name(&self) -> &'static str {
        "Tile"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "repeats", &[DType::I64])?;
        let shape = match (x.shape.extents(), inputs.ints(1), x.shape.dims()) {
            (Some(extents), Some(repeats), _) => Shape::known(&tiled(&extents, &repeats)?),
            (None, Some(repeats), Some(dims)) if repeats.len() == dims.len() => {
                let times = |(d, &r): (&Dim, &i64)| d.times(&(r.max(0) as usize).into());
                Shape::Ranked(dims.iter().zip(&repeats).map(times).collect())
            }
            (_, _, Some(dims)) => Shape::Ranked(dims.iter().map(|d| Dim::symbol(format!("tiled({d})"))).collect()),
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let shape = tiled(x.shape(), &inputs.get(1)?.to_i64())?;
        let from = strides(x.shape());
        let mut source = vec![];
        each_index(&shape, |index| {
            source.push(Some((0..index.len()).map(|a| index[a] % x.shape()[a] * from[a]).sum()));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(Tile), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Tile {
    const ONNX: &'static [&'static str] = &["Tile"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Tile)
    }

    fn examples() -> Vec<Example> {
        let by = |repeats: &[i64]| {
            Example::new(Tile, vec![Example::noise(&[2, 3], 1), Tensor::ints(repeats)]).constants(&[1])
        };
        vec![by(&[2, 1]), by(&[1, 3]), by(&[2, 2])]
    }
}
