//! How a network learns, by names that people type.

use serde::Serialize;
use wattle_train::optimizer::Optimizer;

/// Optimisers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// With momentum 0.9.
    Sgd,
    /// Without momentum.
    SgdPlain,
    /// With Nesterov's momentum 0.9.
    Nesterov,
    /// Adam.
    Adam,
    /// Adam with decoupled weight decay.
    Adamw,
}

impl OptimizerName {
    /// Every optimiser with its name and a sentence about it.
    pub const ALL: [(&str, OptimizerName, &str); 5] = [
        ("sgd", OptimizerName::Sgd, "with momentum 0.9"),
        ("sgd-plain", OptimizerName::SgdPlain, "without momentum"),
        ("nesterov", OptimizerName::Nesterov, "with Nesterov's momentum 0.9"),
        ("adam", OptimizerName::Adam, "Adam"),
        ("adamw", OptimizerName::Adamw, "Adam with decoupled weight decay"),
    ];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        OptimizerName::ALL.into_iter().find(|(_, one, _)| *one == self).map_or("", |(name, ..)| name)
    }

    /// The optimiser with this weight decay.
    pub fn with_decay(self, weight_decay: f64) -> Optimizer {
        match self {
            OptimizerName::Sgd => Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay },
            OptimizerName::SgdPlain => Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay },
            OptimizerName::Nesterov => Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay },
            OptimizerName::Adam => Optimizer::Adam { weight_decay },
            OptimizerName::Adamw => Optimizer::AdamW { weight_decay },
        }
    }
}
