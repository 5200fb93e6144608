//! Clip: every element limited to an interval.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Dim;
use crate::tensor::DType;

/// `min(max(x, low), high)`; operands x, low?, high?, the bounds single numbers of the type of x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip;

/// `dx` from `(x, low?, high?, dy)`: dy where x is between the bounds, else 0; at a bound too, the flat side, as for
/// ReLU and PyTorch's ReLU6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipGradient;

fn expect_bounds(inputs: Operands<'_>) -> Result<TensorType, OpError> {
    let x = inputs.ty(0, "x")?;
    if x.dtype == DType::Bool {
        return Err(OpError::mismatch("x", x.dtype, "a number"));
    }
    for (index, name) in [(1, "min"), (2, "max")] {
        let Some(bound) = inputs.optional(index) else { continue };
        inputs.expect_dtype(index, name, &[x.dtype])?;
        if bound.ty.shape.dims().is_some_and(|d| d.iter().any(|d| *d != Dim::Known(1))) {
            return Err(OpError::mismatch(name, bound, "a single number"));
        }
    }
    Ok(x.clone())
}

/// The exact value of an integer of any type.
fn integers(t: &Tensor) -> Vec<i128> {
    let unsigned = t.dtype() == DType::U64;
    t.to_i64().iter().map(|&v| if unsigned { i128::from(v as u64) } else { i128::from(v) }).collect()
}

/// The bounds as floats, infinite where left out.
fn bounds(inputs: Tensors<'_>) -> (f64, f64) {
    let bound = |index, default| {
        let values = inputs.optional(index).map(Tensor::to_f64);
        values.and_then(|v| v.first().copied()).unwrap_or(default)
    };
    (bound(1, f64::NEG_INFINITY), bound(2, f64::INFINITY))
}

impl Operator for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![expect_bounds(inputs)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        if x.dtype().is_float() {
            let (low, high) = bounds(inputs);
            // Comparisons, so that NaN passes; a high below the low wins, as in ONNX.
            let raised = |v: f64| if v < low { low } else { v };
            let limited = |v: f64| if v > high { high } else { v };
            let y = x.to_f64().iter().map(|&v| limited(raised(v))).collect();
            return Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)]);
        }
        let bound = |index: usize, default| {
            inputs.optional(index).and_then(|t| integers(t).first().copied()).unwrap_or(default)
        };
        let (low, high) = (bound(1, i128::MIN), bound(2, i128::MAX));
        let y = integers(x).into_iter().map(|v| v.max(low).min(high) as i64).collect();
        Ok(vec![Tensor::from_i64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(1) || g.wants(2) {
            return Ok(Gradient::NotDifferentiable("the bounds of Clip are not trained"));
        }
        let operands = [g.optional_input(0), g.optional_input(1), g.optional_input(2), g.output_gradient(0)];
        Ok(Gradient::Inputs(vec![Some(g.apply_all(ClipGradient, &operands)?[0]), None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(2 * shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Clip {
    const ONNX: &'static [&'static str] = &["Clip"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        if node.opset() >= 11 {
            return node.finish(Clip);
        }
        let x = node.input(0)?;
        let dtype = node.graph().value(x).ty.dtype;
        let mut operands = vec![Some(x), None, None];
        for (index, name) in [(1, "min"), (2, "max")] {
            if let Some(Attribute::Float(bound)) = node.attribute(name) {
                operands[index] = Some(node.constant(Tensor::scalar(bound).cast(dtype)));
            }
        }
        node.apply_all(Clip, &operands)
    }

    fn examples() -> Vec<Example> {
        let x = || Some(Example::noise(&[3, 4], 1));
        let of = |x: Option<Tensor>, low: Option<Tensor>, high: Option<Tensor>| {
            Example::optional(Clip, vec![x, low, high]).constants(&[1, 2])
        };
        let whole = |v: &[i64]| Some(Tensor::ints(v).cast(DType::I8));
        vec![
            of(x(), Some(Tensor::scalar(-0.31)), Some(Tensor::scalar(0.42))),
            of(x(), None, Some(Tensor::scalar(0.1))),
            of(x(), Some(Tensor::f32([1], vec![0.0])), None),
            Example::optional(Clip, vec![x()]),
            of(whole(&[-100, 3, 100]), whole(&[-5]), whole(&[50])),
        ]
    }
}

impl Operator for ClipGradient {
    fn name(&self) -> &'static str {
        "ClipGradient"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        let (x, dy) = (expect_bounds(inputs)?, inputs.ty(3, "dy")?);
        if *dy != x {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        Ok(vec![x])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, dy) = (inputs.get(0)?, inputs.get(3)?);
        let (low, high) = bounds(inputs);
        let passes = |v: f64| v > low && v < high;
        let pairs = x.to_f64().into_owned().into_iter().zip(dy.to_f64().into_owned());
        let dx = pairs.map(|(v, d)| if passes(v) { d } else { 0.0 }).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of Clip are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(2 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for ClipGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let (x, dy) = (Some(Example::noise(&[5], 1)), Some(Example::noise(&[5], 2)));
        vec![Example::optional(ClipGradient, vec![x, Some(Tensor::scalar(-0.3)), None, dy])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(x: &Tensor, low: &Tensor, high: &Tensor) -> Tensor {
        Clip.evaluate(Tensors::new(&[Some(x), Some(low), Some(high)])).unwrap().remove(0)
    }

    #[test]
    fn nan_passes_and_crossed_bounds_give_the_upper() {
        let x = Tensor::f32([2], vec![f32::NAN, 0.0]);
        let y = clip(&x, &Tensor::scalar(2.0), &Tensor::scalar(1.0));
        assert!(y.to_f64()[0].is_nan() && y.to_f64()[1] == 1.0);
    }

    #[test]
    fn large_unsigned_integers_are_compared_exactly() {
        let of = |v: u64| Tensor::new(vec![], crate::tensor::Data::U64(vec![v])).unwrap();
        assert_eq!(clip(&of(u64::MAX), &of(1), &of(u64::MAX - 1)), of(u64::MAX - 1));
    }
}
