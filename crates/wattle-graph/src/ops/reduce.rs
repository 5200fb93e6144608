//! Reductions over axes: sums, means, extremes, norms.

use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index};

/// What a reduction computes of the elements it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are ONNX operators without their `Reduce`")]
pub enum Reduction {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

/// Reduces some axes to one element each, or away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What is computed.
    pub kind: Reduction,
    /// The axes; all of them when empty.
    pub axes: Vec<i64>,
    /// Keep reduced axes with extent 1.
    pub keep_dims: bool,
}

use Reduction::*;

impl Reduction {
    fn of(self, values: &[f64]) -> f64 {
        let sum = |f: fn(f64) -> f64| values.iter().map(|&x| f(x)).sum::<f64>();
        match self {
            L1 => sum(f64::abs),
            L2 => sum(|x| x * x).sqrt(),
            LogSum => sum(|x| x).ln(),
            LogSumExp => {
                let max = Max.of(values);
                if max.is_finite() { max + values.iter().map(|x| (x - max).exp()).sum::<f64>().ln() } else { max }
            }
            Max => values.iter().fold(f64::NEG_INFINITY, |m, &x| if x > m || x.is_nan() { x } else { m }),
            Mean => sum(|x| x) / values.len() as f64,
            Min => values.iter().fold(f64::INFINITY, |m, &x| if x < m || x.is_nan() { x } else { m }),
            Prod => values.iter().product(),
            Sum => sum(|x| x),
            SumSquare => sum(|x| x * x),
        }
    }

    /// The same on integers, exactly, where the result is one.
    fn of_integers(self, values: &[i64]) -> Option<i64> {
        Some(match self {
            Max => values.iter().copied().max()?,
            Min => values.iter().copied().min()?,
            Prod => values.iter().fold(1i64, |p, &x| p.wrapping_mul(x)),
            Sum => values.iter().fold(0i64, |s, &x| s.wrapping_add(x)),
            SumSquare => values.iter().fold(0i64, |s, &x| s.wrapping_add(x.wrapping_mul(x))),
            L1 => values.iter().fold(0i64, |s, &x| s.wrapping_add(x.wrapping_abs())),
            // A sum of fewer than 2^63 numbers of 64 bits fits into 128.
            Mean if !values.is_empty() => {
                let sum: i128 = values.iter().map(|&x| i128::from(x)).sum();
                (sum / values.len() as i128) as i64
            }
            _ => return None,
        })
    }
}

impl Reduce {
    /// For each axis, whether it is reduced.
    pub fn reduced(&self, rank: usize) -> Result<Vec<bool>, OpError> {
        let mut reduced = vec![self.axes.is_empty(); rank];
        for &axis in &self.axes {
            reduced[axis_of(axis, rank)?] = true;
        }
        Ok(reduced)
    }

    fn result(&self, dims: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let reduced = self.reduced(dims.len())?;
        let kept = |(dim, reduced): (&Dim, bool)| match (reduced, self.keep_dims) {
            (false, _) => Some(dim.clone()),
            (true, true) => Some(Dim::Known(1)),
            (true, false) => None,
        };
        Ok(dims.iter().zip(reduced).filter_map(kept).collect())
    }

    /// The result of a reduction broadcast back: the value `of` the reduced axes, restored to extent 1.
    fn restored(&self, g: &mut Backward<'_>, value: ValueId) -> Result<ValueId, GraphError> {
        let extents = g.extents(g.input(0))?;
        let reduced = self.reduced(extents.len()).map_err(|e| GraphError::Invalid(e.to_string()))?;
        let shape: Vec<i64> = extents.iter().zip(reduced).map(|(&n, r)| if r { 1 } else { n as i64 }).collect();
        let shape = g.constant(Tensor::ints(&shape));
        g.apply(Reshape { allow_zero: true }, &[value, shape])
    }
}

impl Reduce {
    /// The slope of a product by each of its factors: the product of the others, also where some factors are 0.
    ///
    /// With the zeros replaced by ones, `p` is the product of the non-zero factors. A factor's others multiply to
    /// `y / x` without any zero, to `p` at the only zero, and to 0 everywhere else.
    fn product_of_the_others(&self, g: &mut Backward<'_>, y: ValueId) -> Result<ValueId, GraphError> {
        use BinaryFunction::{Add, Div, Mul};
        let binary = |function| Binary { function };
        let (x, dtype) = (g.input(0), g.dtype(g.input(0)));
        let all = |kind| Reduce { kind, axes: self.axes.clone(), keep_dims: true };
        let zero = g.constant(Tensor::from_f64(dtype, [], vec![0.0]));
        let one = g.constant(Tensor::from_f64(dtype, [], vec![1.0]));
        let is_zero = g.apply(Compare { comparison: Comparison::Equal }, &[x, zero])?;
        let hit = g.apply(Cast { to: dtype }, &[is_zero])?;
        let filled = g.apply(binary(Add), &[x, hit])?;
        let without_zeros = g.apply(binary(Div), &[y, filled])?;
        let zeros = g.apply(all(Sum), &[hit])?;
        let single = g.apply(Compare { comparison: Comparison::Equal }, &[zeros, one])?;
        let single = g.apply(Cast { to: dtype }, &[single])?;
        let others = g.apply(all(Prod), &[filled])?;
        let at_zero = g.apply(binary(Mul), &[others, single])?;
        g.apply(Where, &[is_zero, at_zero, without_zeros])
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            L1 => "ReduceL1",
            L2 => "ReduceL2",
            LogSum => "ReduceLogSum",
            LogSumExp => "ReduceLogSumExp",
            Max => "ReduceMax",
            Mean => "ReduceMean",
            Min => "ReduceMin",
            Prod => "ReduceProd",
            Sum => "ReduceSum",
            SumSquare => "ReduceSumSquare",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("axes", Attribute::Ints(self.axes.clone()))];
        if !self.keep_dims {
            attributes.push(("keepdims", Attribute::Int(0)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        if x.dtype == DType::Bool && !matches!(self.kind, Max | Min) {
            return Err(OpError::mismatch("x", x.dtype, "numbers"));
        }
        let shape = x.shape.dims().map_or(Ok(Shape::Unknown), |d| self.result(d).map(Shape::Ranked))?;
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let reduced = self.reduced(x.shape().len())?;
        let full: Vec<usize> = x.shape().iter().zip(&reduced).map(|(&n, &r)| if r { 1 } else { n }).collect();
        let steps = crate::tensor::strides(&full);
        let mut groups: Vec<Vec<usize>> = vec![vec![]; full.iter().product()];
        let mut at = 0;
        each_index(x.shape(), |index| {
            let to: usize = (0..index.len()).map(|a| if reduced[a] { 0 } else { index[a] * steps[a] }).sum();
            groups[to].push(at);
            at += 1;
        });
        let dims: Vec<Dim> = x.shape().iter().map(|&n| n.into()).collect();
        let shape: Vec<usize> = self.result(&dims)?.iter().filter_map(Dim::known).collect();
        if !x.dtype().is_float() {
            let values = x.to_i64();
            let exact: Option<Vec<i64>> = groups
                .iter()
                .map(|g| self.kind.of_integers(&g.iter().map(|&i| values[i]).collect::<Vec<_>>()))
                .collect();
            if let Some(exact) = exact {
                return Ok(vec![Tensor::from_i64(x.dtype(), shape, exact)]);
            }
        }
        let values = x.to_f64();
        // The extremes of no truth values at all are false and true, not infinite.
        let bound = if x.dtype() == DType::Bool { (0.0, 1.0) } else { (f64::NEG_INFINITY, f64::INFINITY) };
        let results = groups.iter().map(|g| {
            self.kind.of(&g.iter().map(|&i| values[i]).collect::<Vec<_>>()).clamp(bound.0, bound.1)
        });
        Ok(vec![Tensor::from_f64(x.dtype(), shape, results.collect())])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (x, dy) = (g.input(0), g.gradient());
        let dy = self.restored(g, dy)?;
        let y = g.output(0);
        let y = self.restored(g, y)?;
        let binary = |function| Binary { function };
        let unary = |function| Unary { function };
        use BinaryFunction::*;
        let number = |g: &mut Backward<'_>, value: f64| {
            let tensor = Tensor::from_f64(g.dtype(x), [], vec![value]);
            g.constant(tensor)
        };
        // dx = dy times a slope of the operand's shape.
        let slope = match self.kind {
            Reduction::Sum | Reduction::Mean => {
                let extents = g.extents(x)?;
                let fewer: usize = g.extents(y)?.iter().product();
                let count = extents.iter().product::<usize>() / fewer.max(1);
                let slope = if self.kind == Reduction::Mean { 1.0 / count as f64 } else { 1.0 };
                let scaled = if self.kind == Reduction::Mean {
                    let slope = number(g, slope);
                    g.apply(binary(Mul), &[dy, slope])?
                } else {
                    dy
                };
                let shape: Vec<i64> = extents.iter().map(|&n| n as i64).collect();
                let shape = g.constant(Tensor::ints(&shape));
                return Ok(Gradient::Inputs(vec![Some(g.apply(Expand, &[scaled, shape])?)]));
            }
            Reduction::L1 => g.apply(unary(Function::Sign), &[x])?,
            Reduction::L2 => g.apply(binary(Div), &[x, y])?,
            Reduction::SumSquare => {
                let two = number(g, 2.0);
                g.apply(binary(Mul), &[x, two])?
            }
            Reduction::LogSum => {
                // d ln(s)/dx = 1/s = e^-y, spread over the operand.
                let negative = g.apply(unary(Function::Neg), &[y])?;
                let inverse = g.apply(unary(Function::Exp), &[negative])?;
                let product = g.apply(binary(Mul), &[dy, inverse])?;
                let shape: Vec<i64> = g.extents(x)?.iter().map(|&n| n as i64).collect();
                let shape = g.constant(Tensor::ints(&shape));
                return Ok(Gradient::Inputs(vec![Some(g.apply(Expand, &[product, shape])?)]));
            }
            Reduction::LogSumExp => {
                let shifted = g.apply(binary(Sub), &[x, y])?;
                g.apply(unary(Function::Exp), &[shifted])?
            }
            Reduction::Prod => self.product_of_the_others(g, y)?,
            Reduction::Max | Reduction::Min => {
                // Ties share the gradient equally.
                let equal = g.apply(Compare { comparison: Comparison::Equal }, &[x, y])?;
                let dtype = g.dtype(x);
                let hit = g.apply(Cast { to: dtype }, &[equal])?;
                let count = g.apply(
                    Reduce { kind: Reduction::Sum, axes: self.axes.clone(), keep_dims: true },
                    &[hit],
                )?;
                let share = g.apply(binary(Div), &[dy, count])?;
                return Ok(Gradient::Inputs(vec![Some(g.apply(binary(Mul), &[hit, share])?)]));
            }
        };
        Ok(Gradient::Inputs(vec![Some(g.apply(binary(Mul), &[slope, dy])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let mut inputs = vec![node.input(0)];
        if !self.axes.is_empty() {
            inputs.push(node.constant(Tensor::ints(&self.axes)));
        }
        let attributes = vec![("keepdims", Attribute::Int(self.keep_dims.into()))];
        node.emit_final(self.name(), &inputs, attributes);
        Ok(())
    }
}

impl Described for Reduce {
    const ONNX: &'static [&'static str] = &[
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceProd", "ReduceSum", "ReduceSumSquare",
    ];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let kind = match node.op_type() {
            "ReduceL1" => L1,
            "ReduceL2" => L2,
            "ReduceLogSum" => LogSum,
            "ReduceLogSumExp" => LogSumExp,
            "ReduceMax" => Max,
            "ReduceMean" => Mean,
            "ReduceMin" => Min,
            "ReduceProd" => Prod,
            "ReduceSum" => Sum,
            "ReduceSumSquare" => SumSquare,
            other => return Err(node.refuse(format!("{other} is not a reduction"))),
        };
        let since = if kind == Sum { 13 } else { 18 };
        let keep_dims = node.int("keepdims", 1)? != 0;
        let noop = node.int("noop_with_empty_axes", 0)? != 0;
        let axes = if node.opset() < since {
            node.ints("axes", &[])?
        } else {
            node.constant_input(1)?.map_or(vec![], |axes| axes.to_i64().into_owned())
        };
        let x = node.input(0)?;
        if axes.is_empty() && noop {
            // Every element is a set of its own.
            let one = |function| Op::from(Unary { function });
            return Ok(vec![match kind {
                L1 | L2 => node.apply(one(Function::Abs), &[x])?,
                LogSum => node.apply(one(Function::Log), &[x])?,
                SumSquare => node.apply(Binary { function: BinaryFunction::Mul }, &[x, x])?,
                LogSumExp | Max | Mean | Min | Prod | Sum => node.apply(Identity, &[x])?,
            }]);
        }
        Ok(vec![node.apply(Reduce { kind, axes, keep_dims }, &[x])?])
    }

    fn examples() -> Vec<Example> {
        let positive = || {
            let values = Example::noise(&[2, 3, 4], 5).to_f64().iter().map(|x| x.abs() + 0.2).collect();
            Tensor::from_f64(DType::F32, [2, 3, 4], values)
        };
        let mut examples = vec![];
        for kind in [L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare] {
            for (axes, keep_dims) in [(vec![], false), (vec![1], true), (vec![-1, 0], false), (vec![-1], false)] {
                examples.push(Example::new(Reduce { kind, axes, keep_dims }, vec![positive()]));
            }
        }
        // No zero, one and two of them.
        let zeros = Tensor::f32([3, 3], vec![0.5, -2.0, 3.0, 1.5, 0.0, -4.0, 0.0, 2.0, 0.0]);
        let op = Reduce { kind: Prod, axes: vec![1], keep_dims: false };
        examples.push(Example::new(op, vec![zeros]));
        let ints = Tensor::i64([2, 2], vec![3, -1, 4, 1]);
        for kind in [Sum, Max, Prod] {
            let op = Reduce { kind, axes: vec![0], keep_dims: false };
            examples.push(Example::new(op, vec![ints.clone()]));
        }
        let none = Reduce { kind: Max, axes: vec![0], keep_dims: false };
        examples.push(Example::new(none, vec![Tensor::zeros(DType::Bool, [0, 2])]));
        for kind in [Mean, Min, SumSquare] {
            let op = Reduce { kind, axes: vec![1, 2], keep_dims: false };
            examples.push(Example::new(op, vec![Example::noise(&[3, 1, 1, 2], 8)]));
        }
        let image = Reduce { kind: Mean, axes: vec![2, 3], keep_dims: true };
        examples.push(Example::new(image, vec![Example::noise(&[2, 3, 2, 2], 7)]));
        examples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: Reduction, x: Tensor) -> Tensor {
        let op = Reduce { kind, axes: vec![], keep_dims: false };
        op.evaluate(Tensors::new(&[Some(&x)])).unwrap().swap_remove(0)
    }

    #[test]
    fn nothing_reduces_to_the_identity_of_its_type() {
        let none = |dtype| Tensor::zeros(dtype, [0]);
        assert_eq!(run(Max, none(DType::Bool)).to_i64()[0], 0);
        assert_eq!(run(Min, none(DType::Bool)).to_i64()[0], 1);
        assert_eq!(run(Max, none(DType::I8)).to_i64()[0], -128);
        assert_eq!(run(Max, none(DType::F32)).to_f64()[0], f64::NEG_INFINITY);
        assert_eq!(run(Prod, none(DType::I64)).to_i64()[0], 1);
    }

    #[test]
    fn the_mean_of_large_integers_does_not_overflow() {
        assert_eq!(run(Mean, Tensor::ints(&[i64::MAX, i64::MAX])).to_i64()[0], i64::MAX);
    }
}
