//! ReverseSequence: the beginning of each sequence backwards, the rest as it is.

use super::concrete::result_shapes;
use super::movement_gradient::gradient_of;
use super::*;
use crate::tensor::{DType, each_index, strides};

/// `ReverseSequence(x, lengths [batch])`: in batch entry `b` the first `lengths[b]` steps are reversed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReverseSequence {
    /// Axis of the sequences, 0 or 1.
    pub batch_axis: usize,
    /// Axis of their steps, the other one.
    pub time_axis: usize,
}

impl Operator for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axis = |n: usize| Attribute::Int(n as i64);
        vec![("batch_axis", axis(self.batch_axis)), ("time_axis", axis(self.time_axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "lengths", &[DType::I64])?;
        inputs.expect_rank(1, "lengths", 1)?;
        if let Some(dims) = x.shape.dims() {
            if dims.len() < 2 || self.batch_axis.max(self.time_axis) >= dims.len() {
                return Err(OpError::mismatch("x", &x.shape, "a batch axis and a time axis"));
            }
            if let Some([lengths]) = inputs.dims(1, "lengths")?
                && lengths.known().zip(dims[self.batch_axis].known()).is_some_and(|(a, b)| a != b)
            {
                let wanted = format!("one per batch entry, {}", dims[self.batch_axis]);
                return Err(OpError::mismatch("lengths", lengths, wanted));
            }
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let (x, lengths) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let steps = shape[self.time_axis];
        if let Some(bad) = lengths.iter().find(|&&n| !(0..=steps as i64).contains(&n)) {
            return Err(OpError::mismatch("length", bad, format!("0 to {steps}")));
        }
        let from = strides(&shape);
        let mut source = Vec::with_capacity(x.len());
        each_index(&shape, |index| {
            let (step, length) = (index[self.time_axis], lengths[index[self.batch_axis]] as usize);
            let other = if step < length { length - 1 - step } else { step };
            source.push(Some(source.len() - step * from[self.time_axis] + other * from[self.time_axis]));
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

impl Described for ReverseSequence {
    const ONNX: &'static [&'static str] = &["ReverseSequence"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axes = (node.int("batch_axis", 1)?, node.int("time_axis", 0)?);
        let (batch_axis, time_axis) = match axes {
            (0, 1) => (0, 1),
            (1, 0) => (1, 0),
            other => {
                return Err(node.refuse(format!("batch and time axes {other:?}; expected 0 and 1 or 1 and 0")));
            }
        };
        node.finish(ReverseSequence { batch_axis, time_axis })
    }

    fn examples() -> Vec<Example> {
        let of = |batch_axis, shape: &[usize], lengths: &[i64]| {
            let op = ReverseSequence { batch_axis, time_axis: 1 - batch_axis };
            Example::new(op, vec![Example::noise(shape, 1), Tensor::ints(lengths)])
        };
        vec![of(1, &[4, 3], &[4, 0, 2]), of(0, &[2, 4, 2], &[1, 3])]
    }
}
