//! Range: numbers from a start, by a step, up to a limit.

use super::*;
use crate::shape::Dim;

/// `Range(start, limit, delta)`, three scalars of one type; the limit is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range;

/// Number of elements (ONNX: `max(ceil((limit - start) / delta), 0)`).
fn count(start: f64, limit: f64, delta: f64) -> Result<usize, OpError> {
    let n = ((limit - start) / delta).ceil().max(0.0);
    if n.is_finite() && n <= (1u64 << 31) as f64 {
        return Ok(n as usize);
    }
    Err(OpError::mismatch("range", format!("{start} to {limit} by {delta}"), "at most 2^31 elements"))
}

impl Operator for Range {
    fn name(&self) -> &'static str {
        "Range"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.ty(0, "start")?.dtype;
        let mut ends = vec![];
        for (index, name) in [(0, "start"), (1, "limit"), (2, "delta")] {
            inputs.expect_dtype(index, name, &[dtype])?;
            let constant = inputs.get(index, name)?.constant;
            if let Some(x) = constant.and_then(|t| t.to_f64().first().copied()) {
                ends.push(x);
            }
        }
        let extent = match ends[..] {
            [start, limit, delta] => Dim::Known(count(start, limit, delta)?),
            _ => Dim::symbol("range"),
        };
        Ok(vec![TensorType::new(dtype, vec![extent])])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let first = |index: usize| -> Result<f64, OpError> {
            let found = inputs.get(index)?.to_f64().first().copied();
            found.ok_or(OpError::MissingOperand { index, name: "scalar" })
        };
        let (start, limit, delta) = (first(0)?, first(1)?, first(2)?);
        let n = count(start, limit, delta)?;
        let values = (0..n).map(|i| start + i as f64 * delta).collect();
        Ok(vec![Tensor::from_f64(inputs.get(0)?.dtype(), [n], values)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("the number of elements depends on the operands"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Range {
    const ONNX: &'static [&'static str] = &["Range"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Range)
    }

    fn examples() -> Vec<Example> {
        let of = |numbers: [i64; 3]| {
            Example::new(Range, numbers.map(|n| Tensor::i64([], vec![n])).into()).constants(&[0, 1, 2])
        };
        let floats = [1.0, 2.0, 0.25].map(Tensor::scalar).into();
        vec![of([1, 7, 2]), of([10, 4, -2]), of([3, 3, 1]), Example::new(Range, floats).constants(&[0, 1, 2])]
    }
}
