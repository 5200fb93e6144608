//! Softmax, LogSoftmax and Hardmax along one axis, and the gradient of the first two.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Dim;

/// `exp(x_i) / sum_j exp(x_j)` along one axis, or its logarithm; the maximum is subtracted first, so that no
/// finite operand overflows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis summed over; negative counts from the end.
    pub axis: i64,
    /// Gives the logarithm.
    pub log: bool,
}

/// `dx` from `(y, dy)`, where y is the result of the Softmax with the same attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftmaxGradient {
    /// The axis summed over; negative counts from the end.
    pub axis: i64,
    /// The forward operator gave the logarithm.
    pub log: bool,
}

/// 1 at the first maximum along one axis, 0 elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardmax {
    /// The axis searched; negative counts from the end.
    pub axis: i64,
}

/// Replaces each line of `values` along `axis` by what `line` makes of it.
///
/// `line` gets the flat indices of the line's elements, in order.
pub(super) fn each_line(shape: &[usize], axis: usize, mut line: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let extent = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut indices = vec![0; extent];
    for first in (0..outer).flat_map(|o| (0..inner).map(move |i| o * extent * inner + i)) {
        indices.iter_mut().enumerate().for_each(|(k, at)| *at = first + k * inner);
        line(&indices);
    }
}

/// The maximum m of the elements at `line`, and `ln sum_i exp(x_i - m)`: two numbers, because their sum would
/// lose the second where the first is large.
pub(super) fn log_sum_exp(x: &[f64], line: &[usize]) -> (f64, f64) {
    let max = line.iter().fold(f64::NEG_INFINITY, |m, &i| m.max(x[i]));
    (max, line.iter().map(|&i| (x[i] - max).exp()).sum::<f64>().ln())
}

/// Checks that the first operand is float and has `axis`, and gives its type.
fn along(inputs: Operands<'_>, axis: i64, name: &'static str) -> Result<TensorType, OpError> {
    inputs.expect_float(0, name)?;
    if let Some(dims) = inputs.dims(0, name)? {
        axis_of(axis, dims.len())?;
    }
    Ok(inputs.ty(0, name)?.clone())
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        if self.axis == -1 { vec![] } else { vec![("axis", Attribute::Int(self.axis))] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![along(inputs, self.axis, "x")?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let values = x.to_f64();
        let mut y = vec![0.0; x.len()];
        each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let (max, log_sum) = log_sum_exp(&values, line);
            for &i in line {
                let log = values[i] - max - log_sum;
                y[i] = if self.log { log } else { log.exp() };
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.output(0), g.gradient()];
        let dx = g.apply(SoftmaxGradient { axis: self.axis, log: self.log }, &operands)?;
        Ok(Gradient::Inputs(vec![Some(dx)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Maximum, difference, exponential, sum, and scaling or difference.
        Work::elementwise(5 * shapes.output_len(0))
    }
}

/// The form before opset 13: all axes from `axis` on are one, and the default is 1. Returns the operand made so,
/// the axis to work along, and the shape to go back to.
fn flattened(node: &mut ForeignNode<'_>) -> Result<(ValueId, i64, Option<Vec<i64>>), ImportError> {
    let x = node.input(0)?;
    let axis = node.int("axis", 1)?;
    let dims = node.graph().value(x).ty.shape.dims().map(<[Dim]>::to_vec);
    let Some(dims) = dims else {
        let hint = format!("axis = {axis} before opset 13 needs an operand of known rank");
        return if axis == -1 { Ok((x, axis, None)) } else { Err(node.refuse(hint)) };
    };
    let Some(at) = crate::shape::normalize_axis(axis, dims.len()) else {
        return Err(node.refuse(format!("axis = {axis} of an operand of {} axes", dims.len())));
    };
    // One axis is left, or all others have extent 1: nothing to flatten.
    if dims[at + 1..].iter().all(|d| *d == Dim::Known(1)) {
        return Ok((x, at as i64, None));
    }
    let mut back = vec![0; at];
    back.extend(dims[at..].iter().map(|d| d.known().map_or(-1, |n| n as i64)));
    if back.iter().filter(|&&n| n == -1).count() > 1 {
        return Err(node.refuse(format!("axis = {axis} before opset 13 joins several unknown extents")));
    }
    let mut joined = vec![0; at];
    joined.push(-1);
    let joined = node.constant(Tensor::ints(&joined));
    Ok((node.apply(Reshape { allow_zero: false }, &[x, joined])?, -1, Some(back)))
}

/// Imports an operator along one axis in either form.
fn import_along(node: &mut ForeignNode<'_>, op: impl Fn(i64) -> Op) -> Result<Vec<ValueId>, ImportError> {
    if node.opset() >= 13 {
        let axis = node.int("axis", -1)?;
        return node.finish(op(axis));
    }
    let (x, axis, back) = flattened(node)?;
    let y = node.apply(op(axis), &[x])?;
    Ok(vec![match back {
        None => y,
        Some(shape) => {
            let shape = node.constant(Tensor::ints(&shape));
            node.apply(Reshape { allow_zero: false }, &[y, shape])?
        }
    }])
}

impl Described for Softmax {
    const ONNX: &'static [&'static str] = &["Softmax", "LogSoftmax"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let log = node.op_type() == "LogSoftmax";
        import_along(node, |axis| Softmax { axis, log }.into())
    }

    fn examples() -> Vec<Example> {
        let of = |axis, log| Example::new(Softmax { axis, log }, vec![Example::noise(&[2, 3, 4], 1)]);
        vec![of(-1, false), of(0, false), of(1, false), of(-1, true), of(-2, true)]
    }
}

impl Operator for SoftmaxGradient {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmaxGradient" } else { "SoftmaxGradient" }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let ty = along(inputs, self.axis, "y")?;
        let dy = inputs.ty(1, "dy")?;
        if *dy != ty {
            return Err(OpError::mismatch("dy", dy, format!("the type of y, {ty}")));
        }
        Ok(vec![ty])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (y, dy) = (inputs.get(0)?, inputs.get(1)?);
        let (ys, dys) = (y.to_f64(), dy.to_f64());
        let mut dx = vec![0.0; y.len()];
        each_line(y.shape(), axis_of(self.axis, y.shape().len())?, |line| {
            if self.log {
                let sum: f64 = line.iter().map(|&i| dys[i]).sum();
                line.iter().for_each(|&i| dx[i] = dys[i] - ys[i].exp() * sum);
            } else {
                let sum: f64 = line.iter().map(|&i| ys[i] * dys[i]).sum();
                line.iter().for_each(|&i| dx[i] = ys[i] * (dys[i] - sum));
            }
        });
        Ok(vec![Tensor::from_f64(y.dtype(), y.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of Softmax are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(4 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for SoftmaxGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let operands = || vec![Example::noise(&[2, 3], 1), Example::noise(&[2, 3], 2)];
        let of = |axis, log| Example::new(SoftmaxGradient { axis, log }, operands());
        vec![of(-1, false), of(0, true)]
    }
}

impl Operator for Hardmax {
    fn name(&self) -> &'static str {
        "Hardmax"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        if self.axis == -1 { vec![] } else { vec![("axis", Attribute::Int(self.axis))] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![along(inputs, self.axis, "x")?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let values = x.to_f64();
        let mut y = vec![0.0; x.len()];
        each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let best = line.iter().copied().reduce(|a, b| if values[b] > values[a] { b } else { a });
            best.into_iter().for_each(|i| y[i] = 1.0);
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("piecewise constant"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Hardmax {
    const ONNX: &'static [&'static str] = &["Hardmax"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        import_along(node, |axis| Hardmax { axis }.into())
    }

    fn examples() -> Vec<Example> {
        let of = |axis| Example::new(Hardmax { axis }, vec![Example::noise(&[2, 3, 4], 1)]);
        vec![of(-1), of(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: impl Into<Op>, x: Tensor) -> Vec<f64> {
        op.into().evaluate(Tensors::new(&[Some(&x)])).unwrap()[0].to_f64().into_owned()
    }

    #[test]
    fn large_operands_do_not_overflow() {
        let y = run(Softmax { axis: -1, log: false }, Tensor::f32([3], vec![1e30, 1e30, -1e30]));
        assert!((y[0] - 0.5).abs() < 1e-7 && y[0] == y[1] && y[2] == 0.0);
    }

    #[test]
    fn hardmax_takes_the_first_of_equal_maxima() {
        assert_eq!(
            run(Hardmax { axis: 0 }, Tensor::f32([4], vec![1.0, 3.0, 3.0, 2.0])),
            [0.0, 1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn before_opset_13_all_axes_from_the_first_on_are_one() {
        let mut graph = crate::graph::Graph::new("old");
        let shape = vec![Dim::symbol("N"), 3.into(), 4.into()];
        let x = graph.input("x", crate::tensor::DType::F32, shape.clone());
        let attributes = Default::default();
        let mut node = ForeignNode::new(
            &mut graph,
            "Softmax",
            "s",
            9,
            vec![Some(x)],
            vec!["y".into()],
            attributes,
            Default::default(),
        );
        let y = Softmax::import(&mut node).unwrap()[0];
        assert_eq!(graph.nodes().len(), 3);
        assert_eq!(graph.value(graph.nodes()[0].outputs[0]).ty.shape.to_string(), "[N, 12]");
        assert_eq!(graph.value(y).ty.shape.to_string(), "[N, 3, 4]");
    }
}
