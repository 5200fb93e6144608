//! ArgMax and ArgMin: where along an axis the largest or smallest element is.

use std::cmp::Ordering;

use super::concrete::result_shapes;
use super::ordering::ordering;
use super::softmax::each_line;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// Position of the extreme element along an axis, as i64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgExtreme {
    /// Seek the largest element, else the smallest.
    pub largest: bool,
    /// The axis searched.
    pub axis: i64,
    /// Keep the axis with extent 1.
    pub keep_dims: bool,
    /// Of equal elements report the last, else the first.
    pub select_last: bool,
}

impl Operator for ArgExtreme {
    fn name(&self) -> &'static str {
        if self.largest { "ArgMax" } else { "ArgMin" }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("axis", Attribute::Int(self.axis))];
        if !self.keep_dims {
            attributes.push(("keepdims", Attribute::Int(0)));
        }
        if self.select_last {
            attributes.push(("select_last_index", Attribute::Int(1)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let Some(dims) = inputs.dims(0, "x")? else {
            return Ok(vec![TensorType::new(DType::I64, Shape::Unknown)]);
        };
        let axis = axis_of(self.axis, dims.len())?;
        let mut result = dims.to_vec();
        match (dims[axis].known(), self.keep_dims) {
            (Some(0), _) => return Err(OpError::mismatch("extent of the axis", 0, "at least one element")),
            (_, true) => result[axis] = Dim::Known(1),
            (_, false) => drop(result.remove(axis)),
        }
        Ok(vec![TensorType::new(DType::I64, result)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let compare = ordering(x);
        let mut found = Vec::with_capacity(shape.iter().product());
        each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let mut best = 0;
            for (at, &position) in line.iter().enumerate() {
                let better = match compare(position, line[best]) {
                    Ordering::Greater => self.largest,
                    Ordering::Less => !self.largest,
                    Ordering::Equal => self.select_last,
                };
                if better {
                    best = at;
                }
            }
            found.push(best as i64);
        });
        Ok(vec![Tensor::i64(shape, found)])
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

impl Described for ArgExtreme {
    const ONNX: &'static [&'static str] = &["ArgMax", "ArgMin"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let op = ArgExtreme {
            largest: node.op_type() == "ArgMax",
            axis: node.int("axis", 0)?,
            keep_dims: node.int("keepdims", 1)? != 0,
            select_last: node.int("select_last_index", 0)? != 0,
        };
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let of = |largest, axis, keep_dims, select_last, x| {
            Example::new(ArgExtreme { largest, axis, keep_dims, select_last }, vec![x])
        };
        let noise = || Example::noise(&[2, 3, 4], 1);
        vec![
            of(true, 1, true, false, noise()),
            of(false, -1, false, true, noise()),
            of(true, 0, false, true, Tensor::ints(&[2, 5, 5, 1])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_elements_the_first_or_the_last_is_reported() {
        let x = Tensor::ints(&[5, 2, 2, 5]);
        let at = |largest, select_last| {
            let op = ArgExtreme { largest, axis: 0, keep_dims: false, select_last };
            op.evaluate(Tensors::new(&[Some(&x)])).unwrap()[0].to_i64()[0]
        };
        assert_eq!((at(true, false), at(true, true)), (0, 3));
        assert_eq!((at(false, false), at(false, true)), (1, 2));
    }
}
