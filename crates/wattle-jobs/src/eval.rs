//! How good a model is on a part of a data set.

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_meter::{Receipt, Unit, WorkDone};
use wattle_train::evaluation::evaluate;
use wattle_train::metric::Metric;
use wattle_train::network::Init;
use wattle_train::objective::Loss;

use crate::env::Env;
use crate::error::Result;
use crate::observer::Observer;
use crate::train::{doubts, prefixed};
use crate::training::data::DataOptions;
use crate::training::integers::check_integers;
use crate::training::learning::LearningOptions;
use crate::training::material::{self, Material};
use crate::training::normalised::{Normalised, NormalisedBy};

/// Which model, on which part of which data.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOptions {
    /// An `.onnx` file, or a network by name.
    pub model: String,
    /// Which data.
    pub data: DataOptions,
    /// The samples.
    pub part: Part,
    /// The loss to report; by the kind of targets if left out.
    pub loss: Option<Loss>,
    /// The label of positions that do not count.
    pub ignore_index: Option<i64>,
    /// What is told beside the loss; the usual if empty.
    pub metrics: Vec<Metric>,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What is trained on.
    Train,
    /// What chooses.
    Validation,
    /// What judges.
    Test,
}

impl Part {
    /// Every part with its name and a sentence about it.
    pub const ALL: [(&str, Part, &str); 3] = [
        ("train", Part::Train, "what is trained on"),
        ("validation", Part::Validation, "what chooses"),
        ("test", Part::Test, "what judges"),
    ];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        Part::ALL.into_iter().find(|(_, one, _)| *one == self).map_or("", |(name, ..)| name)
    }
}

/// How good it is.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// Share of right classes, 0 to 1; `None` where there are no classes.
    pub accuracy: Option<f64>,
    /// Mean loss.
    pub loss: f64,
    /// The metrics that were asked for, or the usual ones.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Samples.
    pub samples: usize,
    /// The part.
    pub part: Part,
    /// What each float input was normalised with, and who says so.
    pub normalisation: BTreeMap<String, Normalised>,
    /// What makes these numbers doubtful.
    pub notes: Vec<String>,
    /// What it took.
    pub receipt: Receipt,
}

/// Judges a model on a part of a data set.
pub fn eval(options: &EvalOptions, env: &Env, _observer: &mut dyn Observer) -> Result<Evaluated> {
    let meter = env.meter();
    let (loss, ignore_index) = (options.loss.clone(), options.ignore_index);
    let asked = LearningOptions { loss, ignore_index, ..LearningOptions::default() };
    let material = Material::new(&options.model, &options.data, &asked, Init::KaimingNormal)?;
    material.check_classes()?;
    let loss = asked.objective(&material.lesson())?;
    check_integers(&material.model, &*material.data.table, &loss)?;
    let Material { model, is_file, data, normalised, remarks, .. } = material;
    let part = match options.part {
        Part::Train => material::part(&data, data.splits.train()),
        Part::Validation => material::part(&data, data.splits.validation()),
        Part::Test => material::test(data),
    };
    let part = part.map_err(|e| e.of("part"))?;
    let found = evaluate(&model, &part, &loss, &options.metrics, &env.plan_options())?;
    let mut notes = remarks;
    notes.extend(doubts(&found));
    notes.extend(is_file.then(|| guessed(&normalised)).flatten());
    let mut receipt = meter.stop();
    receipt.work.samples = Some(WorkDone::counted(found.samples as u64, Unit::Sample));
    env.record(&mut receipt);
    Ok(Evaluated {
        accuracy: found.accuracy,
        loss: found.loss,
        metrics: prefixed("", &found),
        samples: found.samples,
        part: options.part,
        normalisation: normalised,
        notes,
        receipt,
    })
}

/// A doubt where a model's file does not say what its inputs were normalised with: what is measured here may be another.
fn guessed(normalised: &BTreeMap<String, Normalised>) -> Option<String> {
    let is_guess = |n: &&Normalised| matches!(n.source, NormalisedBy::Measured(_));
    normalised.values().find(is_guess).map(|_| {
        "the model's file does not say what its inputs were normalised with; these numbers hold if it was by mean and \
         deviation of such data; of one that was trained on x / 255: option `normalise=unit`"
            .to_owned()
    })
}
