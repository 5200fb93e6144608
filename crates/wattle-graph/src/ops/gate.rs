//! The activation functions of gates and cells inside recurrences.

use super::*;

/// The activation functions that the ONNX specification allows inside cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "formulas are in `GateActivation::apply`")]
pub enum GateFunction {
    Affine,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    ScaledTanh,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
}

impl GateFunction {
    pub(super) const ALL: [(&'static str, GateFunction); 11] = [
        ("Affine", GateFunction::Affine),
        ("Elu", GateFunction::Elu),
        ("HardSigmoid", GateFunction::HardSigmoid),
        ("LeakyRelu", GateFunction::LeakyRelu),
        ("Relu", GateFunction::Relu),
        ("ScaledTanh", GateFunction::ScaledTanh),
        ("Sigmoid", GateFunction::Sigmoid),
        ("Softplus", GateFunction::Softplus),
        ("Softsign", GateFunction::Softsign),
        ("Tanh", GateFunction::Tanh),
        ("ThresholdedRelu", GateFunction::ThresholdedRelu),
    ];

    pub(super) fn name(self) -> &'static str {
        GateFunction::ALL.iter().find(|(_, f)| *f == self).map_or("", |(name, _)| name)
    }

    /// Default alpha and beta, where the function has them (those of the ONNX operator of the same name).
    pub(super) fn defaults(self) -> (Option<f32>, Option<f32>) {
        match self {
            GateFunction::Affine => (Some(1.0), Some(0.0)),
            GateFunction::Elu | GateFunction::ThresholdedRelu => (Some(1.0), None),
            GateFunction::HardSigmoid => (Some(0.2), Some(0.5)),
            GateFunction::LeakyRelu => (Some(0.01), None),
            GateFunction::ScaledTanh => (Some(1.0), Some(1.0)),
            _ => (None, None),
        }
    }
}

/// An activation function with its parameters; 0 where it has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateActivation {
    /// Which function.
    pub function: GateFunction,
    /// Its first parameter.
    pub alpha: f32,
    /// Its second parameter.
    pub beta: f32,
}

impl GateActivation {
    /// The function with its default parameters.
    pub fn of(function: GateFunction) -> GateActivation {
        let (alpha, beta) = function.defaults();
        GateActivation { function, alpha: alpha.unwrap_or(0.0), beta: beta.unwrap_or(0.0) }
    }

    /// The function itself.
    pub fn apply(self, x: f64) -> f64 {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        match self.function {
            GateFunction::Affine => alpha * x + beta,
            GateFunction::Elu if x < 0.0 => alpha * x.exp_m1(),
            GateFunction::LeakyRelu if x < 0.0 => alpha * x,
            GateFunction::Elu | GateFunction::LeakyRelu => x,
            GateFunction::HardSigmoid => (alpha * x + beta).clamp(0.0, 1.0),
            GateFunction::Relu => x.max(0.0),
            GateFunction::ScaledTanh => alpha * (beta * x).tanh(),
            GateFunction::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            GateFunction::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            GateFunction::Softsign => x / (1.0 + x.abs()),
            GateFunction::Tanh => x.tanh(),
            GateFunction::ThresholdedRelu => {
                if x >= alpha {
                    x
                } else {
                    0.0
                }
            }
        }
    }

    /// Its derivative.
    pub fn slope(self, x: f64) -> f64 {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        let y = self.apply(x);
        match self.function {
            GateFunction::Affine => alpha,
            GateFunction::Elu if x < 0.0 => y + alpha,
            GateFunction::LeakyRelu if x < 0.0 => alpha,
            GateFunction::Elu | GateFunction::LeakyRelu => 1.0,
            GateFunction::HardSigmoid => {
                if y > 0.0 && y < 1.0 {
                    alpha
                } else {
                    0.0
                }
            }
            GateFunction::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            GateFunction::ScaledTanh => alpha * beta * (1.0 - (beta * x).tanh().powi(2)),
            GateFunction::Sigmoid => y * (1.0 - y),
            GateFunction::Softplus => 1.0 / (1.0 + (-x).exp()),
            GateFunction::Softsign => 1.0 / (1.0 + x.abs()).powi(2),
            GateFunction::Tanh => 1.0 - y * y,
            GateFunction::ThresholdedRelu => {
                if x >= alpha {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }
}

/// Reads the names and parameters of activations; parameters are consumed in order by the functions that have
/// them.
pub(super) fn import_activations(
    node: &mut ForeignNode<'_>,
    default: Vec<GateActivation>,
) -> Result<Vec<GateActivation>, ImportError> {
    let mut activations = default;
    match node.attribute("activations") {
        None => {}
        Some(Attribute::Texts(names)) => {
            if names.len() != activations.len() {
                return Err(node.refuse(format!(
                    "{} activations, expected {}",
                    names.len(),
                    activations.len()
                )));
            }
            for (activation, name) in activations.iter_mut().zip(&names) {
                let found = GateFunction::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                let Some((_, function)) = found else {
                    return Err(node.refuse(format!("activation `{name}` is not supported")));
                };
                *activation = GateActivation::of(*function);
            }
        }
        Some(other) => return Err(node.refuse(format!("activations = {other}; expected a list of texts"))),
    }
    for (name, first) in [("activation_alpha", true), ("activation_beta", false)] {
        let values = match node.attribute(name) {
            None => continue,
            Some(Attribute::Floats(values)) => values,
            Some(other) => return Err(node.refuse(format!("{name} = {other}; expected a list of numbers"))),
        };
        let mut values = values.into_iter();
        for activation in &mut activations {
            let (alpha, beta) = activation.function.defaults();
            let slot = if first { &mut activation.alpha } else { &mut activation.beta };
            if (if first { alpha } else { beta }).is_some() {
                *slot = values.next().unwrap_or(*slot);
            }
        }
    }
    Ok(activations)
}
