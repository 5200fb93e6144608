//! The main job: model.onnx in, leaner model.onnx out, with a receipt.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_accel::{Architecture, Objective, Workload};
use wattle_engine::{Plan, Session, Store};
use wattle_graph::onnx::{SparseFormat, encode_model, encode_model_as};
use wattle_graph::{Example, Model, Totals, costs, totals};
use wattle_meter::{Meter, Quantity, Receipt, Unit, Work};
use wattle_tickets::{FindOptions, Fractions, Layer, Level, Scope, check, find, prunable};
use wattle_train::evaluation::evaluate;
use wattle_train::experiment::Experiment;
use wattle_train::moment::Moment;
use wattle_train::network::Init;
use wattle_train::options::TrainOptions;
use wattle_train::training_data::TrainingData;
use wattle_train::training_graph::bound_to_samples;
use wattle_train::weights::write_weights;

use crate::accel::calibration::over_training;
use crate::accel::{self, Modelled};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::kept::{self, Kept, RECEIPT};
use crate::observer::Observer;
use crate::shrink_report;
use crate::train::doubts;
use crate::training::data::{DataOptions, Prepared, prepare};
use crate::training::follow::PAGE;
use crate::training::learning::{Defaults, LearningOptions, OptimizerName};
use crate::training::{self, experiment};

/// What is chosen where nothing is asked for.
pub const DEFAULTS: Defaults =
    Defaults { epochs: 20, batch: 32, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Share of the remaining weights pruned in a round (Frankle & Carbin 2019, section 2: 20 %).
const FRACTION: f64 = 0.2;

/// How long inferences are repeated to know their energy.
const ENERGY_TIME: Duration = Duration::from_millis(1000);

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
    /// Points of validation accuracy, of 100, that may be lost.
    pub tolerance: f64,
    /// Rounds of pruning, at most.
    pub max_rounds: u32,
    /// Point of the dense training that tickets start from.
    pub rewind: Moment,
    /// How lean.onnx keeps its zeros.
    pub sparse_format: SparseForm,
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
    /// Points of validation accuracy, of 100, that might be lost.
    pub tolerance: f64,
    /// How lean.onnx keeps its zeros.
    pub sparse_format: SparseForm,
    /// How each level was trained, in full.
    pub train: TrainOptions,
    /// What the inputs were normalised with: the model expects it of the samples it is given.
    pub normalisation: wattle_data::Normalisation,
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
    /// On the test part, 0 to 1.
    pub accuracy: Option<f64>,
    /// On the validation part, 0 to 1.
    pub validation_accuracy: Option<f64>,
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
        let found = format!("found {}, expected 0 to 100 points", job.tolerance);
        return Err(JobError::option("tolerance", found));
    }
    // A misspelt name is refused before hours of training.
    let arch = job.accel.as_deref().map(accel::architecture).transpose().map_err(|e| e.of("accel"))?;
    let meter = env.meter();
    let prepared = prepare(&job.data, job.learning.loss.as_ref())?;
    let data = &prepared.training;
    let options = job.learning.resolved(DEFAULTS, data.dataset.targets.class_count().is_some())?;
    let mut model = training::model(&job.model, data, Init::KaimingNormal, job.learning.seed)?;
    training::check_fit(&model, &*data.dataset)?;
    let mut notes = match &job.init_from {
        Some(path) => training::start_from(&mut model, path).map_err(|e| e.of("init_from"))?,
        None => vec![],
    };
    if data.dataset.targets.class_count().is_none() {
        let found = format!("{} has no classes; shrinking compares accuracies", data.dataset.name);
        return Err(JobError::option("data", found));
    }
    let settings = FindOptions { scope: Scope::Global, rewind: job.rewind, levels: job.max_rounds };
    let layers = prunable(&model.graph, Fractions { conv: FRACTION, dense: FRACTION, output: FRACTION });
    notes.extend(training::masks_that_learn(&model, &options));
    notes.extend(training::out_of_reach(&model));
    let mut experiment = experiment(&model, &prepared, &options, env)?;
    // A refused search leaves no folder behind.
    check(&experiment, &layers, &settings)?;
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
    let levels = search(job.tolerance, &experiment, &layers, &settings, &mut kept, &meter, observer)?;
    let chosen = choose(&levels, job.tolerance);

    // Nothing is left to choose: the test part is handed out and judges both networks once.
    let Prepared { training: data, splits } = prepared;
    let test = data.part(&splits.take_test().into_indices())?;
    let dense = network(&model, &levels[0]);
    let lean = network(&model, &levels[chosen]);
    let judge = |m: &Model| evaluate(m, &test, &options.loss, &options.metrics, &experiment.plan);
    let (dense_test, lean_test) = (judge(&dense)?, judge(&lean)?);
    let encoded = [encode_model(&dense)?, encode_model_as(&lean, job.sparse_format.into())?];
    let sample = data.dataset.shape.dims();
    let timed = time(&dense, &lean, &sample, env, &meter)?;
    let side = |m: &Model, level: &Level, accuracy, bytes: usize, timed: &Timed| -> Result<Side> {
        let sums = sums(m, &sample)?;
        Ok(Side {
            accuracy,
            validation_accuracy: level.validation.accuracy,
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
    let mut dense_side = side(&dense, &levels[0], dense_test.accuracy, encoded[0].len(), &timed[0])?;
    let mut lean_side = side(&lean, &levels[chosen], lean_test.accuracy, encoded[1].len(), &timed[1])?;
    if let Some(arch) = &arch {
        dense_side.accel = Some(on_accelerator(arch, &dense, &data, env, observer)?);
        lean_side.accel = Some(on_accelerator(arch, &lean, &data, env, observer)?);
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
    receipt.work.macs_nominal = Some(Work::counted(dense_sums.macs, Unit::Mac));
    receipt.work.macs_effective = Some(Work::counted(lean_side.macs, Unit::Mac));
    receipt.work.files = [
        ("dense.onnx (not kept)".to_string(), Work::counted(dense_side.bytes, Unit::Byte)),
        ("lean.onnx".to_string(), size(&files.model)?),
        ("lean.safetensors".to_string(), size(&files.weights)?),
    ]
    .into();
    for (name, side) in [("dense", &dense_side), ("lean", &lean_side)] {
        if let Some(accel) = &side.accel {
            receipt.labels.insert(format!("accel, {name}"), accel.sentence());
        }
    }
    env.record(&mut receipt);
    let receipt = kept.finish(&receipt, only_looked)?;
    notes.extend(remarks(&levels, chosen, job.sparse_format, timed[1].sparse_steps));
    notes.extend(levels.iter().find_map(|l| l.notes.as_ref()).into_iter().flat_map(|n| n.sentences()));
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
        chosen: index == chosen,
    };
    let shrunk = Shrunk {
        dense: dense_side,
        lean: lean_side,
        levels: levels.iter().enumerate().map(row).collect(),
        tolerance: job.tolerance,
        sparse_format: job.sparse_format,
        train: options,
        normalisation: data.normalisation.clone(),
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
    Ok(Work::counted(found.len(), Unit::Byte))
}

/// The levels, until two in a row are worse than allowed.
fn search(
    tolerance: f64,
    experiment: &Experiment,
    layers: &[Layer],
    settings: &FindOptions,
    kept: &mut Kept,
    meter: &Meter,
    observer: &mut dyn Observer,
) -> Result<Vec<Level>> {
    let scope = meter.scope("find");
    let (mut dense, mut worse) = (None, 0);
    let watched = RefCell::new((observer, kept));
    let levels = find(
        experiment,
        layers,
        settings,
        &mut |level, p| {
            let (observer, kept) = &mut *watched.borrow_mut();
            let what = if level == 0 { "dense".to_string() } else { format!("round {level}") };
            observer.progress(&what, p.step, p.total);
            // What cannot be written now is written at the end, or said there.
            let _ = kept.note(meter);
        },
        &mut |level| {
            let (observer, _) = &mut *watched.borrow_mut();
            let accuracy = level.validation.accuracy.unwrap_or(0.0);
            observer.metric(level.steps_spent, "validation_accuracy", accuracy);
            let dense = *dense.get_or_insert(accuracy);
            worse = if is_within(accuracy, dense, tolerance) { 0 } else { worse + 1 };
            worse < 2 && !observer.cancelled()
        },
    )?;
    drop(scope);
    let (observer, kept) = watched.into_inner();
    if observer.cancelled() {
        kept.finish(&meter.so_far(), false)?;
        return Err(JobError::cancelled());
    }
    Ok(levels)
}

/// Whether an accuracy is at most `tolerance` points below the dense one.
fn is_within(accuracy: f64, dense: f64, tolerance: f64) -> bool {
    // A slack far below one sample absorbs rounding.
    accuracy >= dense - tolerance / 100.0 - 1e-9
}

/// The sparsest level that is good enough; the dense one if none is.
fn choose(levels: &[Level], tolerance: f64) -> usize {
    let accuracy = |l: &Level| l.validation.accuracy.unwrap_or(0.0);
    (0..levels.len())
        .rev()
        .find(|&i| is_within(accuracy(&levels[i]), accuracy(&levels[0]), tolerance))
        .unwrap_or(0)
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

/// Costs of one sample.
fn sums(model: &Model, sample: &[usize]) -> Result<Totals> {
    let bound = bound_to_samples(model, 1, sample)?;
    Ok(totals(&costs(&bound.graph, &bound.parameters)?))
}

/// Samples on which activations are counted.
const CALIBRATION: usize = 64;

/// A network on an architecture, with the zeros that training samples leave in its activations.
fn on_accelerator(
    arch: &Architecture,
    model: &Model,
    data: &TrainingData,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Modelled> {
    let bound = bound_to_samples(model, 1, &data.dataset.shape.dims())?;
    let (mut workload, tally) = Workload::with_tally(&bound)?;
    over_training(&bound, tally, data, CALIBRATION, env, observer)?.apply(&mut workload);
    let estimate = accel::estimated(arch, &workload, Objective::default(), env, observer)?;
    let samples = CALIBRATION.min(data.indices.len());
    let densities = format!(
        "densities of weights: counted in the model; of activations: counted over {samples} training samples"
    );
    Ok(Modelled::of(&estimate, &densities))
}

/// Time and energy of inferences of one sample.
struct Timed {
    latency_ms: f64,
    energy_per_1000: Option<Quantity>,
    /// How many of its steps run on sparse kernels.
    sparse_steps: usize,
}

/// Times both networks in turn, then repeats each long enough to know its energy.
fn time(dense: &Model, lean: &Model, sample: &[usize], env: &Env, meter: &Meter) -> Result<[Timed; 2]> {
    let mut sessions = vec![];
    for model in [dense, lean] {
        let bound = bound_to_samples(model, 1, sample)?;
        let store = Store::new(&bound.parameters);
        let plan = Plan::compile(&bound.graph, &store, &env.plan_options())?;
        let mut session = Session::new(plan, &store)?;
        let noise = Example::noise(&[&[1], sample].concat(), 1);
        session.input_mut::<f32>(0)?.copy_from_slice(noise.as_f32().unwrap_or(&[]));
        session.run()?;
        sessions.push(session);
    }
    let mut samples = [vec![], vec![]];
    for _ in 0..201 {
        for (session, samples) in sessions.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            session.run()?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut timed = vec![];
    for ((session, mut samples), name) in
        sessions.iter_mut().zip(samples).zip(["dense inference", "lean inference"])
    {
        samples.sort_by(f64::total_cmp);
        let scope = meter.scope(name);
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < ENERGY_TIME {
            session.run()?;
            count += 1;
        }
        let energy = scope.finish().energy;
        let energy_per_1000 = energy.and_then(|e| e.scaled(1000.0 / f64::from(count)).ok());
        let sparse_steps = session.plan().steps().filter(|s| s.kernel.contains("-sparse-")).count();
        timed.push(Timed { latency_ms: samples[samples.len() / 2], energy_per_1000, sparse_steps });
    }
    let lean = timed.pop();
    let dense = timed.pop();
    dense.zip(lean).map(|(d, l)| [d, l]).ok_or_else(|| JobError::run("two networks were not timed"))
}
