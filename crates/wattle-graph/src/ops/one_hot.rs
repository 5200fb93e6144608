//! OneHot: integers written as vectors with one element switched on.

use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape, normalize_axis};
use crate::tensor::each_index;

/// `OneHot(indices, depth, values [off, on])`: a new axis of extent `depth`, on where its position is the index;
/// negative indices count from the end, others out of range switch nothing on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneHot {
    /// Position of the new axis in the result.
    pub axis: i64,
}

impl Operator for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (indices, values) = (inputs.ty(0, "indices")?, inputs.ty(2, "values")?);
        inputs.get(1, "depth")?;
        if values.shape.extents().is_some_and(|e| e != [2]) {
            return Err(OpError::mismatch("values", &values.shape, "[2]: off and on"));
        }
        let depth = match inputs.ints(1).as_deref() {
            None => Dim::symbol("depth"),
            Some(&[depth]) => {
                let bad = || OpError::mismatch("depth", depth, "0 to 2^31");
                usize::try_from(depth).ok().filter(|&n| n <= 1 << 31).ok_or_else(bad)?.into()
            }
            Some(list) => return Err(OpError::mismatch("depth", format!("{} numbers", list.len()), "one")),
        };
        let shape = match indices.shape.dims() {
            None => Shape::Unknown,
            Some(dims) => {
                let mut result = dims.to_vec();
                result.insert(axis_of(self.axis, dims.len() + 1)?, depth);
                Shape::Ranked(result)
            }
        };
        Ok(vec![TensorType::new(values.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let (indices, values) = (inputs.get(0)?, inputs.get(2)?);
        let axis = axis_of(self.axis, shape.len())?;
        let inner: usize = shape[axis + 1..].iter().product();
        let chosen = indices.to_i64();
        let mut source = Vec::with_capacity(shape.iter().product());
        each_index(&shape, |index| {
            let (at, depth) = (source.len(), shape[axis]);
            let which = chosen[at / (inner * depth) * inner + at % inner];
            let on = normalize_axis(which, depth) == Some(index[axis]);
            source.push(Some(usize::from(on)));
        });
        Ok(vec![values.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(2) {
            return Ok(Gradient::NotDifferentiable("the values on and off are not meant to be trained"));
        }
        Ok(Gradient::Zero("indices are piecewise constant"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for OneHot {
    const ONNX: &'static [&'static str] = &["OneHot"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", -1)?;
        node.finish(OneHot { axis })
    }

    fn examples() -> Vec<Example> {
        let of = |axis, depth: Tensor| {
            let indices = Tensor::i64([2, 2], vec![1, 3, -1, 0]);
            let values = Tensor::f32([2], vec![0.5, 2.0]);
            Example::new(OneHot { axis }, vec![indices, depth, values]).constants(&[1, 2])
        };
        vec![of(-1, Tensor::ints(&[3])), of(1, Tensor::scalar(4.0)), of(-3, Tensor::ints(&[2]))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_either_end_and_those_outside_switch_nothing_on() {
        let inputs = [Tensor::ints(&[0, -1, 2]), Tensor::ints(&[2]), Tensor::ints(&[3, 7])];
        let operands: Vec<_> = inputs.iter().map(Some).collect();
        let hot = OneHot { axis: 0 }.evaluate(Tensors::new(&operands)).unwrap().swap_remove(0);
        assert_eq!(hot, Tensor::i64([2, 3], vec![7, 3, 3, 3, 7, 3]));
    }
}
