//! CumSum: running sums along an axis.

use super::softmax::each_line;
use super::*;
use crate::tensor::DType;

/// Element `i` of the result is the sum of elements up to `i` along `axis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CumSum {
    /// The axis summed along.
    pub axis: i64,
    /// Leave element `i` itself out of its sum.
    pub exclusive: bool,
    /// Sum from the end.
    pub reverse: bool,
}

impl CumSum {
    /// Running sums of one line after another.
    fn sums<T: Copy>(&self, x: &Tensor, values: &[T], zero: T, add: fn(T, T) -> T) -> Result<Vec<T>, OpError> {
        let mut sums = vec![zero; values.len()];
        each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let mut total = zero;
            for step in 0..line.len() {
                let at = line[if self.reverse { line.len() - 1 - step } else { step }];
                let next = add(total, values[at]);
                sums[at] = if self.exclusive { total } else { next };
                total = next;
            }
        });
        Ok(sums)
    }
}

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("axis", Attribute::Int(self.axis))];
        attributes.extend(self.flags());
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        if x.dtype == DType::Bool {
            return Err(OpError::mismatch("x", x.dtype, "numbers"));
        }
        if let Some(rank) = x.shape.rank() {
            axis_of(self.axis, rank)?;
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        Ok(vec![if x.dtype().is_float() {
            Tensor::from_f64(x.dtype(), x.shape(), self.sums(x, &x.to_f64(), 0.0, |a, b| a + b)?)
        } else {
            Tensor::from_i64(x.dtype(), x.shape(), self.sums(x, &x.to_i64(), 0, i64::wrapping_add)?)
        }])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        // Element i enters the sums from i on: their gradients are summed from the other end.
        let dy = g.gradient();
        let op = CumSum { reverse: !self.reverse, ..self.clone() };
        Ok(Gradient::Inputs(vec![Some(g.apply(op, &[dy])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let axis = node.constant(Tensor::i64([], vec![self.axis]));
        node.emit_final("CumSum", &[node.input(0), axis], self.flags());
        Ok(())
    }
}

impl CumSum {
    fn flags(&self) -> Vec<(&'static str, Attribute)> {
        let set = [("exclusive", self.exclusive), ("reverse", self.reverse)];
        set.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, Attribute::Int(1))).collect()
    }
}

impl Described for CumSum {
    const ONNX: &'static [&'static str] = &["CumSum"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (exclusive, reverse) = (node.int("exclusive", 0)? != 0, node.int("reverse", 0)? != 0);
        let axis = node.constant_input(1)?.and_then(|axis| axis.to_i64().first().copied());
        let axis = axis.ok_or_else(|| node.refuse("the axis is missing"))?;
        let x = node.input(0)?;
        Ok(vec![node.apply(CumSum { axis, exclusive, reverse }, &[x])?])
    }

    fn examples() -> Vec<Example> {
        let of = |axis, exclusive, reverse, x| Example::new(CumSum { axis, exclusive, reverse }, vec![x]);
        vec![
            of(0, false, false, Example::noise(&[3, 2], 1)),
            of(1, true, false, Example::noise(&[2, 3, 2], 2)),
            of(-1, false, true, Example::noise(&[2, 4], 3)),
            of(-2, true, true, Example::noise(&[3, 2], 4)),
            of(0, true, true, Tensor::ints(&[1, 2, 3])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_both_ways_with_and_without_the_element_itself() {
        let x = Tensor::ints(&[1, 2, 4]);
        let sums = |exclusive, reverse| {
            let op = CumSum { axis: 0, exclusive, reverse };
            op.evaluate(Tensors::new(&[Some(&x)])).unwrap()[0].to_i64().into_owned()
        };
        assert_eq!(sums(false, false), [1, 3, 7]);
        assert_eq!(sums(true, false), [0, 1, 3]);
        assert_eq!(sums(false, true), [7, 6, 4]);
        assert_eq!(sums(true, true), [6, 4, 0]);
    }
}
