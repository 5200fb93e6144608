//! Comparisons and logic: element-wise answers of yes or no.

use super::*;
use super::binary::{broadcast_extents, broadcast_indices};
use crate::shape::broadcast;
use crate::tensor::DType;

/// A question about two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are ONNX operators")]
pub enum Comparison {
    And,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Or,
    Xor,
}

/// `z = a ? b` with broadcasting; the result is of truth values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The question.
    pub comparison: Comparison,
}

/// `z = not a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Not;

impl Comparison {
    fn is_logical(self) -> bool {
        matches!(self, Comparison::And | Comparison::Or | Comparison::Xor)
    }

    fn holds<T: PartialOrd + Default>(self, a: T, b: T) -> bool {
        let truth = |x: &T| *x != T::default();
        match self {
            Comparison::And => truth(&a) && truth(&b),
            Comparison::Equal => a == b,
            Comparison::Greater => a > b,
            Comparison::GreaterOrEqual => a >= b,
            Comparison::Less => a < b,
            Comparison::LessOrEqual => a <= b,
            Comparison::Or => truth(&a) || truth(&b),
            Comparison::Xor => truth(&a) != truth(&b),
        }
    }
}

/// A tensor of truth values.
fn truths(shape: Vec<usize>, values: impl Iterator<Item = bool>) -> Tensor {
    Tensor::from_i64(DType::Bool, shape, values.map(i64::from).collect())
}

impl Operator for Compare {
    fn name(&self) -> &'static str {
        match self.comparison {
            Comparison::And => "And",
            Comparison::Equal => "Equal",
            Comparison::Greater => "Greater",
            Comparison::GreaterOrEqual => "GreaterOrEqual",
            Comparison::Less => "Less",
            Comparison::LessOrEqual => "LessOrEqual",
            Comparison::Or => "Or",
            Comparison::Xor => "Xor",
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (a, b) = (inputs.ty(0, "a")?, inputs.ty(1, "b")?);
        if a.dtype != b.dtype || self.comparison.is_logical() && a.dtype != DType::Bool {
            let wanted = if self.comparison.is_logical() { DType::Bool } else { a.dtype };
            return Err(OpError::mismatch("operands", format!("{} and {}", a.dtype, b.dtype), wanted));
        }
        let shape = broadcast(&a.shape, &b.shape)
            .ok_or_else(|| OpError::mismatch("shapes", format!("{} and {}", a.shape, b.shape), "broadcastable"))?;
        Ok(vec![TensorType::new(DType::Bool, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let shape = broadcast_extents(a.shape(), b.shape())?;
        let pairs = broadcast_indices(a.shape(), &shape).into_iter().zip(broadcast_indices(b.shape(), &shape));
        let ask = self.comparison;
        Ok(vec![if a.dtype().is_float() {
            let (x, y) = (a.to_f64(), b.to_f64());
            truths(shape.clone(), pairs.map(|(i, j)| ask.holds(x[i], y[j])))
        } else {
            let (x, y) = (a.to_i64(), b.to_i64());
            let unsigned = a.dtype() == DType::U64;
            truths(shape.clone(), pairs.map(|(i, j)| {
                if unsigned { ask.holds(x[i] as u64, y[j] as u64) } else { ask.holds(x[i], y[j]) }
            }))
        }])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("truth values are piecewise constant"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Compare {
    const ONNX: &'static [&'static str] =
        &["And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let comparison = match node.op_type() {
            "And" => Comparison::And,
            "Equal" => Comparison::Equal,
            "Greater" => Comparison::Greater,
            "GreaterOrEqual" => Comparison::GreaterOrEqual,
            "Less" => Comparison::Less,
            "LessOrEqual" => Comparison::LessOrEqual,
            "Or" => Comparison::Or,
            "Xor" => Comparison::Xor,
            other => return Err(node.refuse(format!("{other} is not a comparison"))),
        };
        node.finish(Compare { comparison })
    }

    fn examples() -> Vec<Example> {
        use Comparison::*;
        let mut examples = vec![];
        for comparison in [Equal, Greater, GreaterOrEqual, Less, LessOrEqual] {
            let ints = vec![Tensor::ints(&[1, 2, 3]), Tensor::i64([2, 1], vec![2, 3])];
            examples.push(Example::new(Compare { comparison }, ints));
            let floats = vec![Tensor::f32([3], vec![1.0, f32::NAN, 3.0]), Tensor::f32([3], vec![1.0, 2.0, 2.0])];
            examples.push(Example::new(Compare { comparison }, floats));
        }
        let bools = |values: &[i64]| Tensor::ints(values).cast(DType::Bool);
        for comparison in [And, Or, Xor] {
            let inputs = vec![bools(&[0, 0, 1, 1]), bools(&[0, 1, 0, 1])];
            examples.push(Example::new(Compare { comparison }, inputs));
        }
        examples
    }
}

impl Operator for Not {
    fn name(&self) -> &'static str {
        "Not"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(0, "a", &[DType::Bool])?;
        Ok(vec![inputs.ty(0, "a")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = inputs.get(0)?;
        Ok(vec![truths(a.shape().to_vec(), a.to_i64().iter().map(|&x| x == 0))])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("truth values are piecewise constant"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Not {
    const ONNX: &'static [&'static str] = &["Not"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Not)
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Not, vec![Tensor::ints(&[0, 1]).cast(DType::Bool)])]
    }
}
