//! CenterCropPad: an image cut or filled up around its centre.

use super::concrete::result_shapes;
use super::constant_of_shape::requested_extents;
use super::movement_gradient::gradient_of;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// `CenterCropPad(x, shape)`: axes longer than asked for lose elements at both ends, shorter ones gain zeros; of
/// an odd number one more at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CenterCropPad {
    /// The axes that `shape` is about; all when `None`.
    pub axes: Option<Vec<i64>>,
}

impl CenterCropPad {
    /// The axes concerned, of `rank`.
    fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match &self.axes {
            None => Ok((0..rank).collect()),
            Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect(),
        }
    }
}

impl Operator for CenterCropPad {
    fn name(&self) -> &'static str {
        "CenterCropPad"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.axes.iter().map(|axes| ("axes", Attribute::Ints(axes.clone()))).collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "shape", &[DType::I64, DType::I32])?;
        inputs.expect_rank(1, "shape", 1)?;
        let Some(dims) = x.shape.dims() else { return Ok(vec![TensorType::new(x.dtype, Shape::Unknown)]) };
        let axes = self.axes(dims.len())?;
        let mut result = dims.to_vec();
        match inputs.ints(1) {
            Some(shape) if shape.len() == axes.len() => {
                let extents = requested_extents(&shape)?;
                axes.iter().zip(extents).for_each(|(&axis, n)| result[axis] = n.into());
            }
            Some(shape) => {
                let wanted = format!("one extent for each of {} axes", axes.len());
                return Err(OpError::mismatch("shape", format!("{shape:?}"), wanted));
            }
            None => axes.iter().for_each(|&axis| result[axis] = Dim::symbol(format!("requested{axis}"))),
        }
        Ok(vec![TensorType::new(x.dtype, result)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let from = strides(x.shape());
        let mut source = Vec::with_capacity(shape.iter().product());
        each_index(&shape, |index| {
            let mut at = Some(0);
            for axis in 0..index.len() {
                let (old, new) = (x.shape()[axis], shape[axis]);
                let along = if old >= new {
                    Some(index[axis] + (old - new) / 2)
                } else {
                    index[axis].checked_sub((new - old) / 2).filter(|&i| i < old)
                };
                at = at.zip(along).map(|(at, i)| at + i * from[axis]);
            }
            source.push(at);
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

impl Described for CenterCropPad {
    const ONNX: &'static [&'static str] = &["CenterCropPad"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axes = node.optional_ints("axes")?;
        node.finish(CenterCropPad { axes })
    }

    fn examples() -> Vec<Example> {
        let of = |axes: Option<&[i64]>, shape: &[i64]| {
            let op = CenterCropPad { axes: axes.map(<[i64]>::to_vec) };
            Example::new(op, vec![Example::noise(&[5, 4, 2], 1), Tensor::ints(shape)]).constants(&[1])
        };
        vec![of(None, &[2, 7, 2]), of(Some(&[-3, 1]), &[8, 1]), of(Some(&[1]), &[4])]
    }
}
