//! Named settings for LeNet-300-100: published descriptions and codes disagree, so each has its own name.

use serde::Serialize;
use wattle_train::moment::Moment;
use wattle_train::network::Init;
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::options::TrainOptions;

use crate::prune::{Fractions, Scope};

/// Settings of training and pruning under one name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Where the settings are from.
    pub source: &'static str,
    /// The network it is for.
    pub network: &'static str,
    /// How weights are drawn.
    pub init: Init,
    /// Scale each flattened image to unit length, instead of normalising channels.
    pub unit_length: bool,
    /// How it is trained.
    pub train: TrainOptions,
    /// Whether weights compete within layers.
    pub scope: Scope,
    /// Share pruned in a round.
    pub fractions: Fractions,
}

/// Names of all presets.
pub const PRESETS: [&str; 3] = ["paper-2019", "google-tf1", "open-lth"];

/// The preset of this name; `seed` decides the order of samples.
pub fn preset(name: &str, seed: u64) -> Option<Preset> {
    let plain_sgd = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let train = |batch, length, learning_rate, optimizer| TrainOptions {
        batch,
        length,
        learning_rate,
        optimizer,
        seed,
        ..TrainOptions::new(Loss::cross_entropy())
    };
    let (steps, epochs) =
        (|iterations| Moment::At { epochs: 0, iterations }, |epochs| Moment::At { epochs, iterations: 0 });
    let network = "lenet-300-100";
    match name {
        "paper-2019" => Some(Preset {
            name: "paper-2019",
            source: "Frankle & Carbin 2019, figure 2 and appendix G (recalled; not checked against the paper here)",
            network,
            init: Init::GlorotNormal,
            unit_length: false,
            train: train(60, steps(50_000), 1.2e-3, Optimizer::Adam { weight_decay: 0.0 }),
            scope: Scope::LayerWise,
            fractions: Fractions { conv: 0.2, dense: 0.2, output: 0.1 },
        }),
        "google-tf1" => Some(Preset {
            name: "google-tf1",
            source: "google-research/lottery-ticket-hypothesis, mnist_fc/constants.py, dataset_mnist.py, pruning.py",
            network,
            init: Init::GlorotNormal,
            unit_length: true,
            train: train(64, steps(50_000), 0.1, plain_sgd),
            scope: Scope::LayerWise,
            fractions: Fractions { conv: 0.2, dense: 0.2, output: 0.1 },
        }),
        "open-lth" => Some(Preset {
            name: "open-lth",
            source: "facebookresearch/open_lth, models/mnist_lenet.py and its default hyper-parameters",
            network,
            init: Init::KaimingNormal,
            unit_length: false,
            train: train(128, epochs(40), 0.1, plain_sgd),
            scope: Scope::Global,
            fractions: Fractions { conv: 0.2, dense: 0.2, output: 0.0 },
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_stay_apart() {
        let all: Vec<Preset> = PRESETS.iter().map(|name| preset(name, 0).unwrap()).collect();
        let [paper, google, open] = &all[..] else { panic!("three presets") };
        assert_eq!((paper.train.batch, google.train.batch, open.train.batch), (60, 64, 128));
        assert_eq!(
            (paper.scope, google.scope, open.scope),
            (Scope::LayerWise, Scope::LayerWise, Scope::Global)
        );
        assert_eq!((paper.fractions.output, google.fractions.output, open.fractions.output), (0.1, 0.1, 0.0));
        assert!(google.unit_length && !paper.unit_length && !open.unit_length);
        assert!(matches!(paper.train.optimizer, Optimizer::Adam { .. }));
        assert_eq!(open.init, Init::KaimingNormal);
        assert!(preset("open_lth", 0).is_none());
    }
}
