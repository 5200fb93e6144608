//! Transpose: the axes in another order.

use super::*;
use crate::shape::Shape;
use crate::tensor::{each_index, strides};

/// Axis `i` of the result is axis `permutation[i]` of the operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// A permutation of the operand's axes; empty reverses them all.
    pub permutation: Vec<usize>,
}

impl Transpose {
    /// The permutation for an operand of `rank` axes.
    pub fn order(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        if self.permutation.is_empty() {
            return Ok((0..rank).rev().collect());
        }
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            let found = format!("{:?}", self.permutation);
            return Err(OpError::mismatch("perm", found, format!("a permutation of {rank} axes")));
        }
        Ok(self.permutation.clone())
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axes: Vec<i64> = self.permutation.iter().map(|&a| a as i64).collect();
        if axes.is_empty() { vec![] } else { vec![("perm", Attribute::Ints(axes))] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        let shape = match x.shape.dims() {
            None => Shape::Unknown,
            Some(dims) => {
                Shape::Ranked(self.order(dims.len())?.into_iter().map(|a| dims[a].clone()).collect())
            }
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let order = self.order(x.shape().len())?;
        let from = strides(x.shape());
        let shape: Vec<usize> = order.iter().map(|&a| x.shape()[a]).collect();
        let mut source = Vec::with_capacity(x.len());
        each_index(&shape, |index| {
            source.push(Some(index.iter().zip(&order).map(|(i, &a)| i * from[a]).sum()));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let rank = backward.extents(backward.input(0))?.len();
        let order = match self.order(rank) {
            Ok(order) => order,
            Err(_) => return Ok(Gradient::NotDifferentiable("the permutation does not fit the operand")),
        };
        let mut inverse = vec![0; rank];
        for (to, from) in order.into_iter().enumerate() {
            inverse[from] = to;
        }
        let dy = backward.gradient();
        Ok(Gradient::Inputs(vec![Some(backward.apply(Transpose { permutation: inverse }, &[dy])?)]))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Transpose {
    const ONNX: &'static [&'static str] = &["Transpose"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axes = node.ints("perm", &[])?;
        if axes.iter().any(|&a| a < 0) {
            return Err(node.refuse(format!("perm = {axes:?} has a negative axis")));
        }
        node.finish(Transpose { permutation: axes.into_iter().map(|a| a as usize).collect() })
    }

    fn examples() -> Vec<Example> {
        let by = |permutation: &[usize]| {
            Example::new(Transpose { permutation: permutation.to_vec() }, vec![Example::noise(&[2, 3, 4], 1)])
        };
        vec![by(&[]), by(&[0, 2, 1]), by(&[2, 0, 1])]
    }
}
