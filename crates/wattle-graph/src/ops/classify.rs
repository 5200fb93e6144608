//! IsNaN and IsInf: which floats are not ordinary numbers.

use super::*;
use crate::tensor::DType;

/// A question about one float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatClass {
    /// Not a number.
    Nan,
    /// Infinity of the signs asked for.
    Infinite {
        /// Count -inf.
        negative: bool,
        /// Count +inf.
        positive: bool,
    },
}

/// For each float, whether it belongs to a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classify {
    /// The class.
    pub class: FloatClass,
}

impl FloatClass {
    fn holds(self, x: f64) -> bool {
        match self {
            FloatClass::Nan => x.is_nan(),
            FloatClass::Infinite { negative, positive } => {
                x == f64::INFINITY && positive || x == f64::NEG_INFINITY && negative
            }
        }
    }
}

impl Operator for Classify {
    fn name(&self) -> &'static str {
        match self.class {
            FloatClass::Nan => "IsNaN",
            FloatClass::Infinite { .. } => "IsInf",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let FloatClass::Infinite { negative, positive } = self.class else { return vec![] };
        let ignored = [("detect_negative", !negative), ("detect_positive", !positive)];
        ignored
            .into_iter()
            .filter(|(_, ignored)| *ignored)
            .map(|(name, _)| (name, Attribute::Int(0)))
            .collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        Ok(vec![TensorType::new(DType::Bool, inputs.ty(0, "x")?.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let answers = x.to_f64().iter().map(|&x| i64::from(self.class.holds(x))).collect();
        Ok(vec![Tensor::from_i64(DType::Bool, x.shape(), answers)])
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

impl Described for Classify {
    const ONNX: &'static [&'static str] = &["IsInf", "IsNaN"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let class = if node.op_type() == "IsNaN" {
            FloatClass::Nan
        } else {
            let negative = node.int("detect_negative", 1)? != 0;
            FloatClass::Infinite { negative, positive: node.int("detect_positive", 1)? != 0 }
        };
        node.finish(Classify { class })
    }

    fn examples() -> Vec<Example> {
        let x = || Tensor::f32([4], vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0]);
        let of = |class| Example::new(Classify { class }, vec![x()]);
        vec![
            of(FloatClass::Nan),
            of(FloatClass::Infinite { negative: true, positive: true }),
            of(FloatClass::Infinite { negative: false, positive: true }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_of_infinity_is_counted_only_when_asked_for() {
        let found = |negative, positive| {
            let class = FloatClass::Infinite { negative, positive };
            [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, 1.0].map(|x| class.holds(x))
        };
        assert_eq!(found(true, false), [true, false, false, false]);
        assert_eq!(found(false, true), [false, true, false, false]);
    }
}
