//! The main job: model.onnx in, leaner model.onnx out, with a receipt.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_graph::Model;
use wattle_graph::onnx::{SparseFormat, encode_model, encode_model_as};
use wattle_meter::{Meter, Quantity, Receipt, Unit, WorkDone};
use wattle_tickets::{Criterion, FindOptions, Fractions, Level, Prunable, Scope, check, find, prunable};
use wattle_train::evaluation::{Evaluation, evaluate};
use wattle_train::experiment::Experiment;
use wattle_train::moment::Moment;
use wattle_train::network::Init;
use wattle_train::options::TrainOptions;
use wattle_train::weights::write_weights;

use crate::accel::{self, Modelled};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::kept::{self, Kept, RECEIPT};
use crate::observer::Observer;
use crate::shrink_costs::{CALIBRATION, Timed, on_accelerator, sums, time};
use crate::shrink_report;
use crate::train::{doubts, prefixed};
use crate::training;
use crate::training::data::DataOptions;
use crate::training::facts::out_of_reach;
use crate::training::follow::{Follower, PAGE, SearchFollower};
use crate::training::learning::{Defaults, LearningOptions, OptimizerName};
use crate::training::material;
use crate::training::normalised::Normalised;
use crate::training::preparation::{Asked, Prepared};
use crate::training::sample::Sample;

/// What is chosen where nothing is asked for.
pub const DEFAULTS: Defaults =
    Defaults { epochs: 20, batch: 32, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Share of the remaining weights pruned in a round (Frankle & Carbin 2019, section 2: 20 %).
const FRACTION: f64 = 0.2;

/// Which network, on which data, how lean.
#[derive(Clone, Debug, PartialEq)]
pub struct ShrinkJob {
    /// An `.onnx` file, or a network by name.
    pub model: String,
    /// Which data.
    pub data: DataOptions,
    /// How each level learns.
    pub learning: LearningOptions,
    /// Weights to start from, by name.
    pub init_from: Option<PathBuf>,
    /// How much may be lost on the validation part: points of 100 where the metric that counts is a share (accuracy, F1,
    /// mean IoU), else percent of the dense network's value (loss, perplexity, R2, errors).
    pub tolerance: f64,
    /// Rounds of pruning, at most.
    pub max_rounds: u32,
    /// Point of the dense training that tickets start from.
    pub rewind: Moment,
    /// How lean.onnx keeps its zeros.
    pub sparse_format: SparseForm,
    /// Whether lean.onnx normalises its inputs itself, and so takes numbers as the data store them.
    pub with_normalisation: bool,
    /// Also what this architecture, by its name or its file, would make of both networks.
    pub accel: Option<String>,
    /// Folder for the results; by default one named by what decides them.
    pub out: Option<PathBuf>,
}

/// Forms of sparse weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseForm {
    /// Left out; standard nodes rebuild the weights while the file is loaded.
    Compact,
    /// Left out; the standard's sparse initialisers, eight bytes for the place of each weight.
    SparseTensor,
    /// Written as numbers, as every runtime reads them.
    Dense,
}

impl SparseForm {
    /// Every form with its name and a sentence about it.
    pub const ALL: [(&str, SparseForm, &str); 3] = [
        (
            "compact",
            SparseForm::Compact,
            "left out; standard nodes rebuild the weights while the file is loaded",
        ),
        (
            "sparse-tensor",
            SparseForm::SparseTensor,
            "left out; the standard's sparse initialisers, eight bytes for the place of each weight",
        ),
        ("dense", SparseForm::Dense, "written as numbers, as every runtime reads them"),
    ];
}

impl From<SparseForm> for SparseFormat {
    fn from(form: SparseForm) -> SparseFormat {
        match form {
            SparseForm::Compact => SparseFormat::Compact,
            SparseForm::SparseTensor => SparseFormat::SparseTensor,
            SparseForm::Dense => SparseFormat::Dense,
        }
    }
}

/// All that decides the levels, which are what is kept. Tolerance and rounds choose among them, the form writes the one
/// chosen and the architecture looks at it: all are done anew by every process.
#[derive(Serialize)]
struct Key<'a> {
    model: &'a str,
    data: &'a DataOptions,
    init_from: Option<&'a PathBuf>,
    experiment: serde_json::Value,
    validation: Option<String>,
    find: FindOptions,
}

/// Both networks, and how the lean one was found.
#[derive(Clone, Debug, Serialize)]
pub struct Shrunk {
    /// The network with all its weights.
    pub dense: Side,
    /// The sparsest that is good enough.
    pub lean: Side,
    /// Every level that was tried.
    pub levels: Vec<LevelRow>,
    /// What networks were compared by: the first metric that was asked for, the usual one, or the loss.
    pub metric: Criterion,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// How much of it might be lost on the validation part.
    pub tolerance: f64,
    /// What a tolerance of 1 is.
    pub tolerance_unit: &'static str,
    /// How lean.onnx keeps its zeros.
    pub sparse_format: SparseForm,
    /// How each level was trained, in full.
    pub train: TrainOptions,
    /// What each float input was normalised with, and who says so: the model expects it of the samples it is given.
    pub normalisation: BTreeMap<String, Normalised>,
    /// What should be known of the lean network, and what makes its numbers doubtful.
    pub notes: Vec<String>,
    /// What the run took, all its processes together.
    pub receipt: Receipt,
    /// Where everything is.
    pub files: Files,
}

/// One of the two networks.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// On the test part, 0 to 1; `None` where there are no classes.
    pub accuracy: Option<f64>,
    /// On the validation part, 0 to 1.
    pub validation_accuracy: Option<f64>,
    /// What networks are compared by, on the test part.
    pub value: f64,
    /// What networks are compared by, on the validation part.
    pub validation_value: f64,
    /// Mean loss on the test part.
    pub loss: f64,
    /// The other metrics that were asked for, or the usual ones, on the test part.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Steps of training that its weights have seen.
    pub steps: u64,
    /// Parameters that are not zero.
    pub params: u64,
    /// Multiply-accumulates of one sample with weights that are not zero.
    pub macs: u64,
    /// Size of the .onnx file.
    pub bytes: u64,
    /// Median of one inference of one sample.
    pub latency_ms: f64,
    /// Energy of 1000 inferences of one sample.
    pub energy_per_1000: Option<Quantity>,
    /// On an accelerator; absent if none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accel: Option<Modelled>,
    /// Share of all parameters that are not zero.
    pub density: f64,
}

/// A level that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct LevelRow {
    /// Rounds of pruning before it.
    pub level: u32,
    /// Share of the prunable weights that are left.
    pub density: f64,
    /// On the validation part, 0 to 1.
    pub validation_accuracy: Option<f64>,
    /// What networks are compared by, on the validation part.
    pub validation_value: f64,
    /// Whether it is the lean network.
    pub chosen: bool,
}

/// The files of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Files {
    /// The lean network.
    pub model: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// The page.
    pub report: PathBuf,
    /// The receipt.
    pub receipt: PathBuf,
}

/// Trains, prunes as far as the tolerance allows, and writes the lean network. An interrupted search goes on.
pub fn shrink(job: &ShrinkJob, env: &Env, observer: &mut dyn Observer) -> Result<Shrunk> {
    if !(job.tolerance >= 0.0 && job.tolerance <= 100.0) {
        let found = format!("found {}, expected 0 to 100", job.tolerance);
        return Err(JobError::option("tolerance", found));
    }
    // A misspelt name is refused before hours of training.
    let arch = job.accel.as_deref().map(accel::architecture).transpose().map_err(|e| e.of("accel"))?;
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
    let model = prepared.material.model.clone();
    let settings = FindOptions { scope: Scope::Global, rewind: job.rewind, levels: job.max_rounds };
    let layers = prunable(&model.graph, Fractions { conv: FRACTION, dense: FRACTION, output: FRACTION });
    notes.extend(out_of_reach(&model));
    let mut experiment = prepared.material.experiment(&prepared.options, env)?;
    // A refused search leaves no folder behind.
    prepared.material.noted(&model, job.with_normalisation)?;
    let (_, seen) = check(&experiment, &layers, &settings)?;
    notes.extend(seen.sentences());
    notes.extend(prepared.told(&experiment)?);
    let Prepared { material, options, .. } = prepared;
    let key = Key {
        model: &job.model,
        data: &job.data,
        init_from: job.init_from.as_ref(),
        experiment: experiment.description()?,
        validation: training::fingerprint_of(&experiment.validation),
        find: FindOptions { levels: 0, ..settings },
    };
    let mut kept = Kept::open(&kept::config("shrink", &key)?, job.out.as_deref(), env)?;
    let run = kept.directory.clone();
    experiment.directory = Some(run.clone());
    let levels = search(job, &experiment, &layers, &settings, &mut kept, &meter, observer);
    let levels = levels.map_err(|error| kept.stopped(error, observer, &meter, env))?;
    let criterion = Criterion::of(&levels[0].validation);
    let chosen = choose(&levels, criterion, job.tolerance);

    // What is looked at of the training part, before it is given up for the test part.
    let train = material.data.splits.train();
    let looked_at = material.data.part(&train[..CALIBRATION.min(train.len())], 1)?;
    let sample = Sample::first(&looked_at)?;
    let dense = network(&model, &levels[0]);
    let lean = network(&model, &levels[chosen]);
    let written =
        [material.noted(&dense, job.with_normalisation)?, material.noted(&lean, job.with_normalisation)?];
    let encoded = [encode_model(&written[0])?, encode_model_as(&written[1], job.sparse_format.into())?];
    // Nothing is left to choose: the test part is handed out and judges both networks once.
    let test = material::test(material.data)?;
    let judge = |m: &Model| evaluate(m, &test, &options.loss, &options.metrics, &experiment.plan);
    let (dense_test, lean_test) = (judge(&dense)?, judge(&lean)?);
    let (timed, busy) = time(&dense, &lean, &sample, env, &meter)?;
    notes.extend(busy.map(|busy| format!("latency and energy of the two networks: {busy}")));
    let side = |m: &Model, level: &Level, test: &Evaluation, bytes: usize, timed: &Timed| -> Result<Side> {
        let sums = sums(m, &sample)?;
        Ok(Side {
            accuracy: test.accuracy,
            validation_accuracy: level.validation.accuracy,
            value: criterion.value(test),
            validation_value: criterion.value(&level.validation),
            loss: test.loss,
            metrics: prefixed("", test),
            steps: level.steps,
            params: sums.nonzero_parameters,
            macs: sums.effective_macs,
            bytes: bytes as u64,
            latency_ms: timed.latency_ms,
            energy_per_1000: timed.energy_per_1000.clone(),
            density: sums.nonzero_parameters as f64 / sums.parameters.max(1) as f64,
            accel: None,
        })
    };
    let mut dense_side = side(&dense, &levels[0], &dense_test, encoded[0].len(), &timed[0])?;
    let mut lean_side = side(&lean, &levels[chosen], &lean_test, encoded[1].len(), &timed[1])?;
    if let Some(arch) = &arch {
        for (model, side) in [(&dense, &mut dense_side), (&lean, &mut lean_side)] {
            let modelled = on_accelerator(arch, model, &sample, &looked_at, env, observer);
            side.accel = Some(modelled.map_err(|error| kept.stopped(error, observer, &meter, env))?);
        }
    }

    let files = Files {
        model: run.file("lean.onnx"),
        weights: run.file("lean.safetensors"),
        report: run.file(PAGE),
        receipt: run.file(RECEIPT),
    };
    let only_looked = files.model.exists() && levels.iter().all(|level| level.notes.is_none());
    run.write("lean.onnx", &encoded[1])?;
    write_weights(&files.weights, &lean.parameters)?;
    let mut receipt = meter.stop();
    receipt.seeds.insert("seed".into(), options.seed);
    let dense_sums = sums(&dense, &sample)?;
    receipt.work.macs_nominal = Some(WorkDone::counted(dense_sums.macs, Unit::Mac));
    receipt.work.macs_effective = Some(WorkDone::counted(lean_side.macs, Unit::Mac));
    receipt.work.files = [
        ("dense.onnx (not kept)".to_string(), WorkDone::counted(dense_side.bytes, Unit::Byte)),
        ("lean.onnx".to_string(), size(&files.model)?),
        ("lean.safetensors".to_string(), size(&files.weights)?),
    ]
    .into();
    for (name, side) in [("dense", &dense_side), ("lean", &lean_side)] {
        if let Some(accel) = &side.accel {
            receipt.labels.insert(format!("accel, {name}"), accel.sentence());
        }
    }
    let receipt = kept.finish(receipt, only_looked, env)?;
    notes.extend(remarks(&levels, chosen, job.sparse_format, timed[1].sparse_steps));
    notes.extend(doubts(&dense_test).into_iter().map(|doubt| format!("the dense network: {doubt}")));
    if let Some(accel) = &lean_side.accel {
        notes.push(format!(
            "figures on {} are modelled, with the zeros of weights and of activations counted; none is measured",
            accel.arch
        ));
    }
    let row = |(index, level): (usize, &Level)| LevelRow {
        level: level.level,
        density: level.density,
        validation_accuracy: level.validation.accuracy,
        validation_value: criterion.value(&level.validation),
        chosen: index == chosen,
    };
    let shrunk = Shrunk {
        dense: dense_side,
        lean: lean_side,
        levels: levels.iter().enumerate().map(row).collect(),
        metric: criterion,
        higher_is_better: criterion.is_higher_better(),
        tolerance: job.tolerance,
        tolerance_unit: criterion.unit(),
        sparse_format: job.sparse_format,
        train: options,
        normalisation: material.normalised,
        notes,
        receipt,
        files,
    };
    run.write(PAGE, shrink_report::page(&shrunk).as_bytes())?;
    Ok(shrunk)
}

/// The size of a file.
fn size(path: &Path) -> Result<Quantity> {
    let found =
        std::fs::metadata(path).map_err(|e| JobError::run(format_args!("{}: {e}", path.display())))?;
    Ok(WorkDone::counted(found.len(), Unit::Byte))
}

/// The levels, until two in a row are worse than allowed.
fn search(
    job: &ShrinkJob,
    experiment: &Experiment,
    layers: &[Prunable],
    settings: &FindOptions,
    kept: &mut Kept,
    meter: &Meter,
    observer: &mut dyn Observer,
) -> Result<Vec<Level>> {
    let scope = meter.scope("find");
    let (mut dense, mut worse) = (None, 0);
    let mut judge = |level: &Level, observer: &mut dyn Observer| {
        let criterion = Criterion::of(&level.validation);
        let value = criterion.value(&level.validation);
        observer.metric(level.steps_spent, &format!("validation_{criterion}"), value);
        let dense = *dense.get_or_insert(value);
        worse = if criterion.is_within(value, dense, job.tolerance) { 0 } else { worse + 1 };
        worse < 2
    };
    let stage = |level: u32| if level == 0 { "dense".to_string() } else { format!("round {level}") };
    let title = format!("{} on {}", job.model, job.data.data);
    let training = Follower::new(observer, meter, kept, title, &experiment.options);
    let mut follower = SearchFollower { training, stage: &stage, judge: &mut judge };
    let levels = find(experiment, layers, settings, &mut follower);
    drop(scope);
    let levels = levels?;
    if observer.cancelled() { Err(JobError::cancelled()) } else { Ok(levels) }
}

/// The sparsest level that is good enough; the dense one if none is.
fn choose(levels: &[Level], criterion: Criterion, tolerance: f64) -> usize {
    let value = |level: &Level| criterion.value(&level.validation);
    let dense = value(&levels[0]);
    (0..levels.len()).rev().find(|&i| criterion.is_within(value(&levels[i]), dense, tolerance)).unwrap_or(0)
}

/// What whoever takes the lean network should know.
fn remarks(levels: &[Level], chosen: usize, form: SparseForm, sparse_steps: usize) -> Vec<String> {
    let zeros = match form {
        SparseForm::Compact => {
            "lean.onnx leaves its zeros out; runtimes that fold constants rebuild the weights as they load it \
             (write it dense if yours does not)"
        }
        SparseForm::SparseTensor => {
            "lean.onnx has sparse initialisers, which not every runtime reads (write it dense if yours does not)"
        }
        SparseForm::Dense => {
            "lean.onnx keeps its zeros as numbers so that every runtime reads it; its size is that of the dense file"
        }
    };
    let mut notes = vec![zeros.to_string()];
    notes.push(format!(
        "layers of lean.onnx that run on sparse kernels: {sparse_steps}; the others are faster on dense ones"
    ));
    if chosen == 0 {
        notes.push("no pruned level was within the tolerance; the dense network is returned".into());
    } else if chosen + 1 == levels.len() {
        notes.push("the sparsest level tried was good enough; more rounds may go further".into());
    }
    let (dense, lean) = (levels[0].steps, levels[chosen].steps);
    if dense != lean {
        notes.push(format!(
            "the dense network was trained for {dense} steps, the lean one for {lean}: the comparison is not even"
        ));
    }
    notes
}

/// A level's trained weights in the model.
fn network(model: &Model, level: &Level) -> Model {
    Model { parameters: training::own_parameters(model, &level.trained), ..model.clone() }
}
