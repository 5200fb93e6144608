//! Element-wise functions of one operand.

use super::*;
use crate::tensor::DType;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are ONNX operators; parameters carry their ONNX names")]
pub enum Function {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Celu { alpha: f32 },
    Cos,
    Cosh,
    Elu { alpha: f32 },
    Erf,
    Exp,
    Floor,
    /// `x Phi(x)` with the exact normal distribution function.
    Gelu,
    /// Gelu by its tanh approximation (Hendrycks & Gimpel 2016, section 2).
    GeluTanh,
    HardSigmoid { alpha: f32, beta: f32 },
    HardSwish,
    LeakyRelu { alpha: f32 },
    Log,
    Mish,
    Neg,
    Reciprocal,
    Relu,
    /// To nearest, halves to even.
    Round,
    Selu { alpha: f32, gamma: f32 },
    Sigmoid,
    Sign,
    /// `x sigmoid(x)`, also called Swish.
    Silu,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    Tanh,
    ThresholdedRelu { alpha: f32 },
}

use Function::*;

impl Function {
    /// The function itself, for every float type.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Abs => x.abs(),
            Acos => x.acos(),
            Acosh => x.acosh(),
            Asin => x.asin(),
            Asinh => x.asinh(),
            Atan => x.atan(),
            Atanh => x.atanh(),
            Ceil => x.ceil(),
            // Comparisons, so that NaN stays NaN.
            Celu { alpha } => if x > 0.0 { x } else { f64::from(alpha) * (x / f64::from(alpha)).exp_m1() },
            Cos => x.cos(),
            Cosh => x.cosh(),
            Elu { alpha } => if x < 0.0 { f64::from(alpha) * x.exp_m1() } else { x },
            Erf => erf(x),
            Exp => x.exp(),
            Floor => x.floor(),
            Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            GeluTanh => 0.5 * x * (1.0 + gelu_inner(x).tanh()),
            HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
            HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            LeakyRelu { alpha } => if x < 0.0 { f64::from(alpha) * x } else { x },
            Log => x.ln(),
            Mish => x * softplus(x).tanh(),
            Neg => -x,
            Reciprocal => 1.0 / x,
            // NaN passes through, as in ONNX.
            Relu => if x < 0.0 { 0.0 } else { x },
            Round => x.round_ties_even(),
            Selu { alpha, gamma } => {
                f64::from(gamma) * if x > 0.0 { x } else { f64::from(alpha) * x.exp_m1() }
            }
            Sigmoid => sigmoid(x),
            Sign => if x == 0.0 { 0.0 } else { x.signum() },
            Silu => x * sigmoid(x),
            Sin => x.sin(),
            Sinh => x.sinh(),
            Softplus => softplus(x),
            Softsign => x / (1.0 + x.abs()),
            Sqrt => x.sqrt(),
            Tan => x.tan(),
            Tanh => x.tanh(),
            ThresholdedRelu { alpha } => if x > f64::from(alpha) { x } else { 0.0 },
        }
    }

    /// Whether [`Function::derivative`] gives the same for `(y, y)` as for `(x, y)`.
    pub fn slope_follows_from_result(self) -> bool {
        match self {
            Exp | HardSigmoid { .. } | Reciprocal | Relu | Sigmoid | Sqrt | Tan | Tanh => true,
            LeakyRelu { alpha } => alpha > 0.0,
            _ => false,
        }
    }

    /// The derivative at `x`, where `y` is the value there: at kinks the derivative from the flat side, at infinity
    /// the limit.
    pub fn derivative(self, x: f64, y: f64) -> f64 {
        let step = |on: bool| if on { 1.0 } else { 0.0 };
        // Far out these have the slope of infinity to the last digit, and infinity times 0 does not arise.
        let x = if matches!(self, Gelu | GeluTanh | Mish | Silu) { x.clamp(-1e3, 1e3) } else { x };
        match self {
            Abs => step(x > 0.0) - step(x < 0.0),
            Acos => -1.0 / (1.0 - x * x).sqrt(),
            Acosh => 1.0 / (x * x - 1.0).sqrt(),
            Asin => 1.0 / (1.0 - x * x).sqrt(),
            Asinh => 1.0 / (x * x + 1.0).sqrt(),
            Atan => 1.0 / (1.0 + x * x),
            Atanh => 1.0 / (1.0 - x * x),
            Ceil | Floor | Round | Sign => 0.0,
            Celu { alpha } => if x > 0.0 { 1.0 } else { (x / f64::from(alpha)).exp() },
            Cos => -x.sin(),
            Cosh => x.sinh(),
            Elu { alpha } => if x < 0.0 { f64::from(alpha) * x.exp() } else { 1.0 },
            Erf => std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Exp => y,
            Gelu => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * density
            }
            GeluTanh => {
                let t = gelu_inner(x).tanh();
                let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            }
            HardSigmoid { alpha, .. } => f64::from(alpha) * step(y > 0.0 && y < 1.0),
            HardSwish => {
                if x <= -3.0 { 0.0 } else if x >= 3.0 { 1.0 } else { x / 3.0 + 0.5 }
            }
            LeakyRelu { alpha } => if x < 0.0 { f64::from(alpha) } else { 1.0 },
            Log => 1.0 / x,
            Mish => {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }
            Neg => -1.0,
            Reciprocal => -y * y,
            Relu => step(x > 0.0),
            Selu { alpha, gamma } => {
                f64::from(gamma) * if x > 0.0 { 1.0 } else { f64::from(alpha) * x.exp() }
            }
            Sigmoid => y * (1.0 - y),
            Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Sin => x.cos(),
            Sinh => x.cosh(),
            Softplus => sigmoid(x),
            Softsign => 1.0 / ((1.0 + x.abs()) * (1.0 + x.abs())),
            Sqrt => 0.5 / y,
            Tan => 1.0 + y * y,
            Tanh => 1.0 - y * y,
            ThresholdedRelu { alpha } => step(x > f64::from(alpha)),
        }
    }
}

/// sqrt(2 / pi), the scale of the tanh approximation of Gelu.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of the same formula.
const GELU_CUBIC: f64 = 0.044_715;

fn gelu_inner(x: f64) -> f64 {
    GELU_SCALE * (x + GELU_CUBIC * x * x * x)
}

/// The logistic function, without overflow at either end.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function to about 1e-15: its Taylor series near zero, the continued fraction of erfc beyond
/// (Abramowitz & Stegun 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-17 * sum.abs() {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    if a.is_nan() {
        return x;
    }
    if a > 6.0 {
        return x.signum();
    }
    let mut tail = 0.0;
    for k in (1..=60).rev() {
        tail = f64::from(k) / 2.0 / (a + tail);
    }
    let erfc = (-a * a).exp() / (a + tail) / std::f64::consts::PI.sqrt();
    x.signum() * (1.0 - erfc)
}

/// `y = f(x)`, element by element.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// f.
    pub function: Function,
}

/// Integer operands are accepted by these functions only.
fn takes_integers(function: Function) -> bool {
    matches!(function, Abs | Neg | Sign | Relu)
}

impl Operator for Unary {
    fn name(&self) -> &'static str {
        match self.function {
            Abs => "Abs",
            Acos => "Acos",
            Acosh => "Acosh",
            Asin => "Asin",
            Asinh => "Asinh",
            Atan => "Atan",
            Atanh => "Atanh",
            Ceil => "Ceil",
            Celu { .. } => "Celu",
            Cos => "Cos",
            Cosh => "Cosh",
            Elu { .. } => "Elu",
            Erf => "Erf",
            Exp => "Exp",
            Floor => "Floor",
            Gelu | GeluTanh => "Gelu",
            HardSigmoid { .. } => "HardSigmoid",
            HardSwish => "HardSwish",
            LeakyRelu { .. } => "LeakyRelu",
            Log => "Log",
            Mish => "Mish",
            Neg => "Neg",
            Reciprocal => "Reciprocal",
            Relu => "Relu",
            Round => "Round",
            Selu { .. } => "Selu",
            Sigmoid => "Sigmoid",
            Sign => "Sign",
            Silu => "Silu",
            Sin => "Sin",
            Sinh => "Sinh",
            Softplus => "Softplus",
            Softsign => "Softsign",
            Sqrt => "Sqrt",
            Tan => "Tan",
            Tanh => "Tanh",
            ThresholdedRelu { .. } => "ThresholdedRelu",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.function {
            Celu { alpha } | Elu { alpha } | LeakyRelu { alpha } | ThresholdedRelu { alpha } => {
                vec![("alpha", Attribute::Float(alpha))]
            }
            HardSigmoid { alpha, beta } => {
                vec![("alpha", Attribute::Float(alpha)), ("beta", Attribute::Float(beta))]
            }
            Selu { alpha, gamma } => {
                vec![("alpha", Attribute::Float(alpha)), ("gamma", Attribute::Float(gamma))]
            }
            GeluTanh => vec![("approximate", Attribute::Text("tanh".into()))],
            _ => vec![],
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        if !takes_integers(self.function) {
            inputs.expect_float(0, "x")?;
        } else if x.dtype == DType::Bool {
            return Err(OpError::mismatch("x", x.dtype, "a number"));
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let y = if x.dtype().is_float() {
            let values = x.to_f64().iter().map(|&v| self.function.value(v)).collect();
            Tensor::from_f64(x.dtype(), x.shape(), values)
        } else {
            let integer = |v: i64| match self.function {
                Abs => v.wrapping_abs(),
                Neg => v.wrapping_neg(),
                Sign => v.signum(),
                _ => v.max(0),
            };
            Tensor::from_i64(x.dtype(), x.shape(), x.to_i64().iter().map(|&v| integer(v)).collect())
        };
        Ok(vec![y])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if matches!(self.function, Ceil | Floor | Round | Sign) {
            return Ok(Gradient::Zero("piecewise constant"));
        }
        // Where the result tells the slope, the operand need not be kept alive (and may be fused away).
        let x = if self.function.slope_follows_from_result() { backward.output(0) } else { backward.input(0) };
        let operands = [x, backward.output(0), backward.gradient()];
        let dx = backward.apply(UnaryGradient { function: self.function }, &operands)?;
        Ok(Gradient::Inputs(vec![Some(dx)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        if self.function == Silu {
            // ONNX has no Silu before opset 24: x * Sigmoid(x).
            let gate = node.emit("Sigmoid", &[node.input(0)], vec![]);
            node.emit_final("Mul", &[node.input(0), gate], vec![]);
        } else {
            node.same(self.name(), self.attributes());
        }
        Ok(())
    }
}

impl Described for Unary {
    const ONNX: &'static [&'static str] = &[
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf",
        "Exp", "Floor", "Gelu", "com.microsoft:Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish",
        "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
        "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu",
    ];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let function = match node.op_type() {
            "Abs" => Abs,
            "Acos" => Acos,
            "Acosh" => Acosh,
            "Asin" => Asin,
            "Asinh" => Asinh,
            "Atan" => Atan,
            "Atanh" => Atanh,
            "Ceil" => Ceil,
            "Celu" => Celu { alpha: node.float("alpha", 1.0)? },
            "Cos" => Cos,
            "Cosh" => Cosh,
            "Elu" => Elu { alpha: node.float("alpha", 1.0)? },
            "Erf" => Erf,
            "Exp" => Exp,
            "Floor" => Floor,
            "Gelu" => match node.text("approximate", "none")?.as_str() {
                "tanh" => GeluTanh,
                "none" => Gelu,
                other => return Err(node.refuse(format!("approximate = `{other}`; known: none, tanh"))),
            },
            "HardSigmoid" => {
                HardSigmoid { alpha: node.float("alpha", 0.2)?, beta: node.float("beta", 0.5)? }
            }
            "HardSwish" => HardSwish,
            "LeakyRelu" => LeakyRelu { alpha: node.float("alpha", 0.01)? },
            "Log" => Log,
            "Mish" => Mish,
            "Neg" => Neg,
            "Reciprocal" => Reciprocal,
            "Relu" => Relu,
            "Round" => Round,
            "Selu" => Selu {
                alpha: node.float("alpha", 1.673_263_2)?,
                gamma: node.float("gamma", 1.050_701)?,
            },
            "Sigmoid" => Sigmoid,
            "Sign" => Sign,
            "Sin" => Sin,
            "Sinh" => Sinh,
            "Softplus" => Softplus,
            "Softsign" => Softsign,
            "Sqrt" => Sqrt,
            "Tan" => Tan,
            "Tanh" => Tanh,
            "ThresholdedRelu" => ThresholdedRelu { alpha: node.float("alpha", 1.0)? },
            other => return Err(node.refuse(format!("{other} is not an element-wise function"))),
        };
        node.finish(Unary { function })
    }

    fn examples() -> Vec<Example> {
        let noise = || Example::noise(&[3, 5], 3);
        let above_one = || {
            let values = noise().to_f64().iter().map(|x| x.abs() + 1.2).collect();
            Tensor::from_f64(DType::F32, [3, 5], values)
        };
        EXAMPLES.iter().map(|&function| {
            let x = if matches!(function, Acosh | Log | Sqrt) { above_one() } else { noise() };
            Example::new(Unary { function }, vec![x])
        }).collect()
    }
}

/// Each function once, with parameters away from their defaults.
const EXAMPLES: &[Function] = &[
    Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceil, Celu { alpha: 0.7 }, Cos, Cosh, Elu { alpha: 0.7 }, Erf,
    Exp, Floor, Gelu, GeluTanh, HardSigmoid { alpha: 0.3, beta: 0.4 }, HardSwish, LeakyRelu { alpha: 0.1 },
    Log, Mish, Neg, Reciprocal, Relu, Round, Selu { alpha: 1.5, gamma: 1.1 }, Sigmoid, Sign, Silu, Sin, Sinh,
    Softplus, Softsign, Sqrt, Tan, Tanh, ThresholdedRelu { alpha: 0.3 },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_published_digits() {
        // Abramowitz & Stegun, table 7.1, and erfc(3) = 2.209049699858544e-5.
        assert!((erf(0.5) - 0.520_499_877_813_046_5).abs() < 1e-15);
        assert!((erf(1.0) - 0.842_700_792_949_714_9).abs() < 1e-15);
        assert!((1.0 - erf(3.0) - 2.209_049_699_858_544e-5).abs() < 1e-15);
        assert_eq!(erf(-7.0), -1.0);
    }

    /// Places where functions saturate or bend, and ordinary ones.
    const PLACES: &[f64] = &[
        0.0, 1e-30, 1e-4, 0.3, 0.7, 1.0, 1.2, 2.0, 2.5, 3.0, 3.5, 5.0, 6.0, 9.0, 20.0, 50.0, 90.0, 1e4, 1e30,
    ];

    #[test]
    fn derivatives_lie_between_the_slopes_on_both_sides_everywhere() {
        let mut checked = 0;
        for &f in EXAMPLES.iter().filter(|f| is_activation(**f)) {
            for x in PLACES.iter().flat_map(|&x| [x, -x]) {
                let step = 1e-6 * x.abs().max(1.0);
                let y = f.value(x);
                let sides = [(f.value(x + step) - y) / step, (y - f.value(x - step)) / step];
                if !sides.iter().all(|s| s.is_finite()) {
                    continue;
                }
                let found = f.derivative(x, y);
                // The differences lose digits to the size of y, and the curve bends within a step.
                let rounding = 4.0 * f64::EPSILON * y.abs() / step;
                let tolerance = rounding + 1e-5 * sides[0].abs().max(sides[1].abs()).max(1.0);
                let (low, high) = (sides[0].min(sides[1]) - tolerance, sides[0].max(sides[1]) + tolerance);
                assert!(found >= low && found <= high, "{f:?} at {x}: {found}, the sides have {sides:?}");
                checked += 1;
            }
        }
        assert!(checked > 600, "{checked}");
    }

    fn is_activation(f: Function) -> bool {
        matches!(
            f,
            Abs | Celu { .. } | Elu { .. } | Erf | Gelu | GeluTanh | HardSigmoid { .. } | HardSwish
                | LeakyRelu { .. } | Mish | Neg | Relu | Selu { .. } | Sigmoid | Silu | Softplus | Softsign
                | Tanh | ThresholdedRelu { .. }
        )
    }

    #[test]
    fn saturated_functions_have_no_slope_and_infinity_has_that_of_far_out() {
        let flat: &[(Function, f64)] = &[
            (HardSigmoid { alpha: 0.2, beta: 0.5 }, 2.5),
            (HardSigmoid { alpha: 0.2, beta: 0.5 }, -2.5),
            (HardSwish, -3.0),
            (Relu, 0.0),
            (ThresholdedRelu { alpha: 1.0 }, 1.0),
            (Tanh, f64::INFINITY),
            (Sigmoid, f64::NEG_INFINITY),
            (Erf, f64::INFINITY),
            (Elu { alpha: 0.5 }, f64::NEG_INFINITY),
            (Celu { alpha: 0.5 }, f64::NEG_INFINITY),
            (Gelu, f64::NEG_INFINITY),
            (GeluTanh, f64::NEG_INFINITY),
            (Silu, f64::NEG_INFINITY),
            (Mish, f64::NEG_INFINITY),
            (Softplus, f64::NEG_INFINITY),
        ];
        for &(f, x) in flat {
            assert_eq!(f.derivative(x, f.value(x)).abs(), 0.0, "{f:?} at {x}");
        }
        for f in [Gelu, GeluTanh, Silu, Mish, HardSwish, Softplus, Elu { alpha: 1.0 }, Relu] {
            assert_eq!(f.derivative(f64::INFINITY, f.value(f64::INFINITY)), 1.0, "{f:?}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for &f in EXAMPLES.iter().filter(|f| !matches!(f, ThresholdedRelu { .. })) {
            assert!(f.value(f64::NAN).is_nan(), "{f:?}");
        }
    }

    #[test]
    fn saturating_functions_survive_large_operands() {
        for f in [Sigmoid, Softplus, Mish, Silu, Gelu, GeluTanh, Tanh] {
            assert!(f.value(1000.0).is_finite() && f.value(-1000.0).is_finite(), "{f:?}");
        }
    }
}
