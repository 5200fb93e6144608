//! Everything that decides how a network is trained, but for the network and the data.

use serde::{Deserialize, Serialize};
use wattle_data::Augmentation;

use crate::early_stop::EarlyStop;
use crate::groups::Groups;
use crate::metric::Metric;
use crate::moment::Moment;
use crate::objective::Loss;
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::text;

/// How a network is trained. Every field that can change the result is one of these: they are what runs are named by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Samples in a batch; the rest of an epoch that does not fill one is left out of it.
    pub batch: usize,
    /// How long to train: `40ep`, `50000it`; `0ep` trains nothing.
    pub length: Moment,
    /// Learning rate that the schedule scales.
    pub learning_rate: f64,
    /// How it changes over time.
    pub schedule: Schedule,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// What is made small.
    pub loss: Loss,
    /// What is done to images.
    #[serde(with = "text")]
    pub augmentation: Augmentation,
    /// Decides the order of samples, their augmentation, and whatever is random in the network.
    pub seed: u64,
    /// Batches whose gradients are averaged before one update; at least 1. A step is one update.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// The largest norm of all gradients together; longer ones are shortened to it (Pascanu et al. 2013, algorithm 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Which parameters are left alone, do not decay, or learn at another rate.
    #[serde(default)]
    pub groups: Groups,
    /// Keep moving averages of the parameters, which forget this share less than all at each step: `0.999`. They are what
    /// the training gives (Polyak & Juditsky 1992; exponential as in Szegedy et al. 2016, section 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// When to stop before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<EarlyStop>,
    /// What is told of answers beside the loss; the usual ones where none are named.
    #[serde(default)]
    pub metrics: Vec<Metric>,
}

fn one() -> u64 {
    1
}

impl TrainOptions {
    /// Ten epochs of batches of 64 by plain gradient descent at a constant rate of 0.01.
    pub fn new(loss: Loss) -> TrainOptions {
        TrainOptions {
            batch: 64,
            length: Moment::At { epochs: 10, iterations: 0 },
            learning_rate: 0.01,
            schedule: Schedule::CONSTANT,
            optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 },
            loss,
            augmentation: Augmentation::NONE,
            seed: 0,
            accumulate: 1,
            clip: None,
            groups: Groups::default(),
            average: None,
            stop: None,
            metrics: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<TrainOptions> {
        let base = TrainOptions::new(Loss::cross_entropy());
        vec![
            base.clone(),
            TrainOptions { batch: 65, ..base.clone() },
            TrainOptions { length: Moment::ZERO, ..base.clone() },
            TrainOptions { learning_rate: 0.02, ..base.clone() },
            TrainOptions { schedule: "cosine".parse().unwrap(), ..base.clone() },
            TrainOptions { optimizer: Optimizer::Adam { weight_decay: 0.0 }, ..base.clone() },
            TrainOptions { loss: "mse".parse().unwrap(), ..base.clone() },
            TrainOptions { augmentation: "flip".parse().unwrap(), ..base.clone() },
            TrainOptions { seed: 1, ..base.clone() },
            TrainOptions { accumulate: 2, ..base.clone() },
            TrainOptions { clip: Some(1.0), ..base.clone() },
            TrainOptions {
                groups: Groups { freeze: "a".parse().unwrap(), ..Groups::default() },
                ..base.clone()
            },
            TrainOptions { average: Some(0.999), ..base.clone() },
            TrainOptions { stop: Some("3".parse().unwrap()), ..base.clone() },
            TrainOptions { metrics: vec![Metric::Top(5)], ..base },
        ]
    }

    #[test]
    fn every_field_is_written_and_read_back() {
        let texts: Vec<String> =
            examples().iter().map(|options| serde_json::to_string(options).unwrap()).collect();
        for (options, text) in examples().iter().zip(&texts) {
            assert_eq!(&serde_json::from_str::<TrainOptions>(text).unwrap(), options);
        }
        let mut distinct = texts.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), texts.len(), "two options are written alike");
        let fields: std::collections::BTreeSet<String> = texts
            .iter()
            .flat_map(|text| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap().into_iter())
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields.len() + 1, texts.len(), "a field has no example: {fields:?}");
    }
}
