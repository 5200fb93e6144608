//! Trains a network, from data, with a receipt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use wattle_data::Source;
use wattle_graph::{Model, Role, onnx};
use wattle_meter::Receipt;
use wattle_train::evaluation::{Evaluation, evaluate};
use wattle_train::experiment::Experiment;
use wattle_train::fit::{Fitted, fit};
use wattle_train::moment::Moment;
use wattle_train::network::Init;
use wattle_train::options::TrainOptions;
use wattle_train::trainer::Trainer;

use crate::env::Env;
use crate::error::Result;
use crate::kept::{self, Kept, RECEIPT};
use crate::observer::Observer;
use crate::training;
use crate::training::curves::Curves;
use crate::training::data::DataOptions;
use crate::training::follow::{Follower, PAGE};
use crate::training::learning::{Defaults, LearningOptions, OptimizerName};
use crate::training::material::{self, Material};
use crate::training::normalised::Normalised;
use crate::training::preparation::{Asked, Prepared};

/// What is chosen where nothing is asked for.
pub const DEFAULTS: Defaults =
    Defaults { epochs: 10, batch: 64, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Which network, on which data, how.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainJob {
    /// An `.onnx` file, or a network by name.
    pub model: String,
    /// Which data.
    pub data: DataOptions,
    /// How it learns.
    pub learning: LearningOptions,
    /// Weights to start from, by name.
    pub init_from: Option<PathBuf>,
    /// Whether the written model normalises its inputs itself, and so takes numbers as the data store them.
    pub with_normalisation: bool,
    /// Folder of the run; by default one named by what decides its result.
    pub out: Option<PathBuf>,
}

/// All that decides the result: the experiment holds the model with its weights, the data, every option of learning, and
/// what the bits of the arithmetic depend on.
#[derive(Serialize)]
struct Key<'a> {
    model: &'a str,
    data: &'a DataOptions,
    init_from: Option<&'a PathBuf>,
    with_normalisation: bool,
    experiment: serde_json::Value,
    validation: Option<String>,
}

/// What was learnt.
#[derive(Clone, Debug, Serialize)]
pub struct Trained {
    /// Share of right classes on the test part, 0 to 1; `None` where there are no classes.
    pub test_accuracy: Option<f64>,
    /// Mean loss on the test part.
    pub test_loss: f64,
    /// The metrics that were asked for, or the usual ones, on the test part: `test_mean_iou`.
    #[serde(flatten)]
    pub test_metrics: BTreeMap<String, f64>,
    /// Samples of the test part.
    pub test_samples: usize,
    /// Share of right classes on the validation part.
    pub validation_accuracy: Option<f64>,
    /// Updates of the parameters.
    pub steps: u64,
    /// Whether the run had been finished before and was only read back.
    pub reused: bool,
    /// Whether it stopped because the validation part got no better.
    pub stopped_early: bool,
    /// How it was trained, in full.
    pub train: TrainOptions,
    /// What each float input was normalised with, and who says so.
    pub normalisation: BTreeMap<String, Normalised>,
    /// What makes these numbers doubtful.
    pub notes: Vec<String>,
    /// Where everything is.
    pub files: Files,
    /// What the run took, all its processes together.
    pub receipt: Receipt,
}

/// The files of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Files {
    /// The folder.
    pub run: PathBuf,
    /// The trained network.
    pub model: PathBuf,
    /// The receipt.
    pub receipt: PathBuf,
    /// The curves.
    pub report: PathBuf,
}

/// Trains a network. The same job asked for again reads its result back; an interrupted one goes on.
pub fn train(job: &TrainJob, env: &Env, observer: &mut dyn Observer) -> Result<Trained> {
    let meter = env.meter();
    let asked = Asked {
        model: &job.model,
        data: &job.data,
        learning: &job.learning,
        init_from: job.init_from.as_ref(),
        init: Init::KaimingNormal,
    };
    let mut prepared = Prepared::new(asked, |lesson| job.learning.resolved(DEFAULTS, lesson))?;
    let mut notes = std::mem::take(&mut prepared.notes);
    if !has_trainable(&prepared.material.model) {
        prepared.options.length = Moment::ZERO;
        notes.push("the model has no trainable parameter: it is judged and written as it is".into());
    }
    // What is refused is refused before hours of training, and leaves no folder behind.
    prepared.material.noted(&prepared.material.model, job.with_normalisation)?;
    let mut experiment = prepared.material.experiment(&prepared.options, env)?;
    if experiment.timeline()?.total > 0 {
        notes.extend(Trainer::new(&experiment)?.notes().sentences());
        notes.extend(prepared.told(&experiment)?);
    }
    let Prepared { material, options, .. } = prepared;
    let key = Key {
        model: &job.model,
        data: &job.data,
        init_from: job.init_from.as_ref(),
        with_normalisation: job.with_normalisation,
        experiment: experiment.description()?,
        validation: training::fingerprint_of(&experiment.validation),
    };
    let mut kept = Kept::open(&kept::config("train", &key)?, job.out.as_deref(), env)?;
    experiment.directory = Some(kept.directory.clone());
    let title = format!("{} on {}", job.model, job.data.data);
    let normalisation = material.normalised.clone();
    let followed = Follower::new(observer, &meter, &mut kept, title, &options);
    let learnt = learn(&experiment, material, job.with_normalisation, followed);
    let learnt = learnt.map_err(|error| kept.stopped(error, observer, &meter, env))?;
    let Learnt { fitted, written, validation, test, title, curves } = learnt;
    notes.extend(doubts(&test));
    notes.extend(given(&fitted, &options));
    notes.extend(fitted.damaged.iter().map(|path| {
        format!("{} was damaged: the steps since the checkpoint before it were done again", path.display())
    }));
    let directory = &kept.directory;
    directory.write("model.onnx", &onnx::encode_model(&written)?)?;
    let mut receipt = meter.stop();
    receipt.seeds.insert("seed".into(), options.seed);
    let receipt = kept.finish(receipt, fitted.reused, env)?;
    let state = format!("finished after {} steps", fitted.steps);
    directory.write(PAGE, curves.page(&title, &state, &notes, Some(&receipt)).as_bytes())?;
    Ok(Trained {
        test_accuracy: test.accuracy,
        test_loss: test.loss,
        test_metrics: prefixed("test_", &test),
        test_samples: test.samples,
        validation_accuracy: validation.and_then(|found| found.accuracy),
        steps: fitted.steps,
        reused: fitted.reused,
        stopped_early: fitted.stopped_early,
        train: options,
        normalisation,
        notes,
        files: Files {
            run: directory.path().to_path_buf(),
            model: directory.file("model.onnx"),
            receipt: directory.file(RECEIPT),
            report: directory.file(PAGE),
        },
        receipt,
    })
}

/// Whether there is something to learn with.
fn has_trainable(model: &Model) -> bool {
    let role = |id| model.graph.parameter_of(id).map(|parameter| parameter.role);
    model.graph.parameters().any(|id| role(id) == Some(Role::Trainable))
}

/// Which network is given, where training could stop early.
fn given(fitted: &Fitted, options: &TrainOptions) -> Option<String> {
    let (value, step) = fitted.best?;
    let watched = options.stop?.metric.map_or("loss".to_owned(), |metric| metric.to_string());
    let steps = fitted.steps;
    Some(format!(
        "the network of step {step} of {steps} is given, the best in validation: {watched} {value:.4}"
    ))
}

/// A training that came to its end, judged.
struct Learnt {
    fitted: Fitted,
    /// The network with what it learnt, as it is written.
    written: Model,
    validation: Option<Evaluation>,
    test: Evaluation,
    title: String,
    curves: Curves,
}

/// Trains, and judges what was learnt.
fn learn(
    experiment: &Experiment,
    material: Material,
    with_normalisation: bool,
    mut follower: Follower<'_>,
) -> Result<Learnt> {
    let Experiment { options, plan, .. } = experiment;
    let meter = follower.meter;
    let scope = meter.scope("train");
    let fitted = fit(experiment, &mut follower)?;
    let Follower { title, curves, .. } = follower;
    drop(scope);
    let parameters = training::own_parameters(&material.model, &fitted.parameters);
    let trained = Model { parameters, ..material.model.clone() };
    let written = material.noted(&trained, with_normalisation)?;
    let _scope = meter.scope("evaluate");
    let judge = |part: &Arc<dyn Source>| evaluate(&trained, part, &options.loss, &options.metrics, plan);
    let validation = experiment.validation.as_ref().map(judge).transpose()?;
    let test = judge(&material::test(material.data)?)?;
    Ok(Learnt { fitted, written, validation, test, title, curves })
}

/// The metrics of an evaluation as names of a document; the accuracy has a place of its own.
pub(crate) fn prefixed(prefix: &str, found: &Evaluation) -> BTreeMap<String, f64> {
    let named = found.metrics.iter().filter(|(name, _)| *name != "accuracy");
    named.map(|(name, value)| (format!("{prefix}{}", name.replace('-', "_")), *value)).collect()
}

/// What makes an evaluation doubtful.
pub(crate) fn doubts(found: &Evaluation) -> Vec<String> {
    match (found.accuracy, found.chance) {
        (Some(accuracy), Some(chance)) if accuracy <= chance => vec![format!(
            "the accuracy of {:.2} % is no better than always answering the most frequent class ({:.2} %): \
             the network has learnt nothing",
            100.0 * accuracy,
            100.0 * chance
        )],
        _ => vec![],
    }
}
