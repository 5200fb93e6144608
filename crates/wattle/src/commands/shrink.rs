//! `wattle shrink`: model.onnx in, leaner model.onnx out, with a receipt.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_accel::{Architecture, Objective, Workload};
use wattle_engine::{Plan, Session, Store};
use wattle_graph::onnx::{SparseFormat, encode_model, encode_model_as};
use wattle_graph::{Example, Model, Totals, costs, totals};
use wattle_jobs::accel::calibration::over_training;
use wattle_jobs::accel::{self, Modelled};
use wattle_jobs::learning::OptimizerName;
use wattle_meter::{Meter, Quantity, Receipt, Unit, Work};
use wattle_report::{Align, Axis, Plot, Report, Table, number, receipt as receipts};
use wattle_tickets::{FindOptions, Fractions, Layer, Level, Scope, check, find, prunable};
use wattle_train::network::Init;
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::trainer::{TrainOptions, TrainingData, evaluate};
use wattle_train::training_graph::bound_to_samples;
use wattle_train::weights::write_weights;

use super::training::{self, DataArgs, Defaults, Prepared, TrainArgs};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models;

const DEFAULTS: Defaults =
    Defaults { epochs: 20, batch: 32, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Share of the remaining weights pruned in a round (Frankle & Carbin 2019, section 2: 20 %).
const FRACTION: f64 = 0.2;

/// How long inferences are repeated to know their energy.
const ENERGY_TIME: Duration = Duration::from_millis(1000);

/// Arguments of `wattle shrink`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: wattle shrink --model m.onnx --data idx:fashion-mnist --tolerance 0.5 --out lean"
)]
pub struct Args {
    /// An .onnx classifier, or lenet-300-100, lenet-5, resnet-20, small-conv.
    #[arg(long, default_value = "small-conv")]
    model: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Points of validation accuracy (of 100) that may be lost.
    #[arg(long, default_value_t = 1.0)]
    tolerance: f64,
    /// Rounds of pruning, at most.
    #[arg(long, default_value_t = 14, value_name = "N")]
    max_rounds: u32,
    /// Point of the dense training that tickets start from.
    #[arg(long, default_value = "2%", value_name = "STEP")]
    rewind: String,
    /// How lean.onnx keeps its zeros.
    #[arg(long, value_enum, default_value_t = SparseName::Compact, value_name = "FORM")]
    sparse_format: SparseName,
    /// Every zero as a number, for runtimes that do not fold constants: --sparse-format dense.
    #[arg(long, conflicts_with = "sparse_format")]
    dense: bool,
    /// Also what this architecture would make of both networks (see `wattle accel archs`), or one in a .toml or
    /// .yaml file: modelled, with the zeros of weights and of activations on training samples as counted.
    #[arg(long, value_name = "ARCH")]
    accel: Option<String>,
    /// Folder for the results; by default one named by what decides them, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Forms of sparse weights by name.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseName {
    /// Left out; standard nodes rebuild the weights while the file is loaded.
    Compact,
    /// Left out; the standard's sparse initialisers, eight bytes for the place of each weight.
    SparseTensor,
    /// Written as numbers, as every runtime reads them.
    Dense,
}

impl From<SparseName> for SparseFormat {
    fn from(name: SparseName) -> SparseFormat {
        match name {
            SparseName::Compact => SparseFormat::Compact,
            SparseName::SparseTensor => SparseFormat::SparseTensor,
            SparseName::Dense => SparseFormat::Dense,
        }
    }
}

#[derive(Serialize)]
struct RunConfig<'a> {
    model: &'a str,
    model_fingerprint: String,
    data: &'a str,
    data_fingerprint: String,
    validation: usize,
    find: &'a FindOptions,
}

#[derive(Serialize)]
struct Document {
    dense: Side,
    lean: Side,
    levels: Vec<LevelRow>,
    tolerance: f64,
    /// How lean.onnx keeps its zeros.
    sparse_format: SparseName,
    train: TrainOptions,
    /// What the inputs were normalised with: the model expects it of the samples it is given.
    normalisation: wattle_data::Normalisation,
    notes: Vec<String>,
    receipt: Receipt,
    files: Files,
}

/// One of the two networks.
#[derive(Serialize)]
struct Side {
    /// On the test part, 0 to 1.
    accuracy: Option<f64>,
    validation_accuracy: Option<f64>,
    /// Parameters that are not zero.
    params: u64,
    /// Multiply-accumulates of one sample with weights that are not zero.
    macs: u64,
    /// Size of the .onnx file.
    bytes: u64,
    /// Median of one inference of one sample.
    latency_ms: f64,
    /// Energy of 1000 inferences of one sample.
    energy_per_1000: Option<Quantity>,
    /// On an accelerator; absent without `--accel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    accel: Option<Modelled>,
    /// Share of all parameters that are not zero.
    density: f64,
}

#[derive(Serialize)]
struct LevelRow {
    level: u32,
    density: f64,
    validation_accuracy: Option<f64>,
    chosen: bool,
}

#[derive(Serialize)]
struct Files {
    model: PathBuf,
    weights: PathBuf,
    report: PathBuf,
    receipt: PathBuf,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if !(args.tolerance >= 0.0 && args.tolerance <= 100.0) {
        return Err(Failure::Input(format!(
            "--tolerance: found {}, expected 0 to 100 points",
            args.tolerance
        )));
    }
    // A misspelt name is refused before hours of training.
    let arch = args.accel.as_deref().map(accel::architecture).transpose().map_err(|e| e.of("accel"))?;
    let meter = context.meter();
    let prepared = training::prepare(&args.data, args.train.loss)?;
    let data = &prepared.training;
    let options = args.train.options(DEFAULTS, &data.dataset)?;
    let model = training::model(&args.model, data, Init::KaimingNormal, args.train.seed)?;
    if data.dataset.targets.class_count().is_none() {
        return Err(Failure::Input(format!(
            "--data: {} has no classes; shrink compares accuracies",
            data.dataset.name
        )));
    }
    let settings = FindOptions {
        train: options.clone(),
        scope: Scope::Global,
        rewind: args.rewind.clone(),
        levels: args.max_rounds,
    };
    let layers = prunable(&model.graph, Fractions { conv: FRACTION, dense: FRACTION, output: FRACTION });
    // A refused search leaves no folder behind.
    check(&model, &layers, data, prepared.splits.validation(), &settings, &context.plan_options())?;
    let run = open(&args, &prepared, &model, &settings)?;
    let levels = search(&args, &model, &layers, &prepared, &settings, &run, context, &meter)?;
    let chosen = choose(&levels, args.tolerance);

    // Nothing is left to choose: the test part is handed out and judges both networks once.
    let Prepared { training: data, splits } = prepared;
    let test = splits.take_test().into_indices();
    let dense = network(&model, &levels[0]);
    let lean = network(&model, &levels[chosen]);
    let plan = context.plan_options();
    let accuracies = [&dense, &lean].map(|m| evaluate(m, &data, &test, options.loss, &plan));
    let [dense_test, lean_test] = accuracies;
    let format = if args.dense { SparseName::Dense } else { args.sparse_format };
    let encoded = [encode_model(&dense)?, encode_model_as(&lean, format.into())?];
    let sample = data.dataset.shape.dims();
    let timed = time(&dense, &lean, &sample, context, &meter)?;
    let modelled = match &arch {
        Some(arch) => [&dense, &lean].map(|m| on_accelerator(arch, m, &data, context).map(Some)),
        None => [Ok(None), Ok(None)],
    };
    let side = |m: &Model,
                level: &Level,
                accuracy: Option<f64>,
                bytes: usize,
                timed: &Timed|
     -> Result<Side, Failure> {
        let sums = sums(m, &sample)?;
        Ok(Side {
            accuracy,
            validation_accuracy: level.validation.accuracy,
            params: sums.nonzero_parameters,
            macs: sums.effective_macs,
            bytes: bytes as u64,
            latency_ms: timed.latency_ms,
            energy_per_1000: timed.energy_per_1000.clone(),
            density: sums.nonzero_parameters as f64 / sums.parameters.max(1) as f64,
            accel: None,
        })
    };
    let mut dense_side = side(&dense, &levels[0], dense_test?.accuracy, encoded[0].len(), &timed[0])?;
    let mut lean_side = side(&lean, &levels[chosen], lean_test?.accuracy, encoded[1].len(), &timed[1])?;

    let [dense_modelled, lean_modelled] = modelled;
    (dense_side.accel, lean_side.accel) = (dense_modelled?, lean_modelled?);

    let files = Files {
        model: run.file("lean.onnx"),
        weights: run.file("lean.safetensors"),
        report: run.file("report.html"),
        receipt: run.file("receipt.json"),
    };
    run.write("lean.onnx", &encoded[1])?;
    write_weights(&files.weights, &lean.parameters)?;
    let mut receipt = meter.stop();
    receipt.seeds.insert("seed".into(), args.train.seed);
    let sums = sums(&dense, &sample)?;
    receipt.work.macs_nominal = Some(Work::counted(sums.macs, Unit::Mac));
    receipt.work.macs_effective = Some(Work::counted(lean_side.macs, Unit::Mac));
    let size = |path: &Path| {
        let found = std::fs::metadata(path).map_err(|e| Failure::Run(format!("{}: {e}", path.display())));
        found.map(|file| Work::counted(file.len(), Unit::Byte))
    };
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
    context.record(&mut receipt);
    let rows = levels
        .iter()
        .enumerate()
        .map(|(index, level)| LevelRow {
            level: level.level,
            density: level.density,
            validation_accuracy: level.validation.accuracy,
            chosen: index == chosen,
        })
        .collect();
    let mut notes = remarks(&levels, chosen, format, timed[1].sparse_steps);
    if let Some(accel) = &lean_side.accel {
        notes.push(format!(
            "figures on {} are modelled, with the zeros of weights and of activations counted; none is measured",
            accel.arch
        ));
    }
    let document = Document {
        dense: dense_side,
        lean: lean_side,
        levels: rows,
        tolerance: args.tolerance,
        train: options,
        normalisation: data.normalisation.clone(),
        sparse_format: format,
        notes,
        receipt,
        files,
    };
    run.write("report.html", report(&document).as_bytes())?;
    run.write("receipt.json", document.receipt.to_json().as_bytes())?;
    let text = format!(
        "{}\n{}\nlean model {}\nreport     {}\n\n{}",
        table(&document),
        document.notes.iter().map(|n| format!("note: {n}\n")).collect::<String>(),
        document.files.model.display(),
        document.files.report.display(),
        receipts::summary(&document.receipt)
    );
    context.print(&document, &text)
}

/// The folder of this search; an interrupted one goes on where it was.
fn open(
    args: &Args,
    prepared: &Prepared,
    model: &Model,
    settings: &FindOptions,
) -> Result<RunDirectory, Failure> {
    let dataset = &prepared.training.dataset;
    let config = RunConfig {
        model: &args.model,
        model_fingerprint: models::fingerprint(model)?,
        data: &args.data.data,
        data_fingerprint: dataset.fingerprint(),
        validation: prepared.splits.validation().len(),
        // Other rounds and tolerances choose among the same levels.
        find: &FindOptions { levels: 0, ..settings.clone() },
    };
    let config = Config::new("shrink", &serde_json::json!(config), &serde_json::json!({}))?;
    Ok(match &args.out {
        Some(path) => RunDirectory::open_at(path, &config)?,
        None => RunDirectory::open("runs".as_ref(), &config)?,
    })
}

/// The levels, until two in a row are worse than allowed.
#[allow(clippy::too_many_arguments, reason = "called once")]
fn search(
    args: &Args,
    model: &Model,
    layers: &[Layer],
    prepared: &Prepared,
    settings: &FindOptions,
    run: &RunDirectory,
    context: &Context,
    meter: &Meter,
) -> Result<Vec<Level>, Failure> {
    let bar = crate::bars::bar("dense", 0);
    let scope = meter.scope("find");
    let (mut dense, mut worse) = (None, 0);
    let levels = find(
        model,
        layers,
        &prepared.training,
        prepared.splits.validation(),
        settings,
        &context.plan_options(),
        Some(run.path()),
        &mut |level, p| {
            bar.set_message(if level == 0 { "dense".into() } else { format!("round {level}") });
            bar.set_length(p.total);
            bar.set_position(p.step);
        },
        &mut |level| {
            let accuracy = level.validation.accuracy.unwrap_or(0.0);
            let dense = *dense.get_or_insert(accuracy);
            worse = if is_within(accuracy, dense, args.tolerance) { 0 } else { worse + 1 };
            worse < 2
        },
    )?;
    drop(scope);
    bar.finish_and_clear();
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

fn remarks(levels: &[Level], chosen: usize, format: SparseName, sparse_steps: usize) -> Vec<String> {
    let zeros = match format {
        SparseName::Compact => {
            "lean.onnx leaves its zeros out; runtimes that fold constants rebuild the weights as they load it (--dense if yours does not)"
        }
        SparseName::SparseTensor => {
            "lean.onnx has sparse initialisers, which not every runtime reads (--dense if yours does not)"
        }
        SparseName::Dense => {
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
        notes.push("the sparsest level tried was good enough; more --max-rounds may go further".into());
    }
    notes
}

/// A level's trained weights in the model.
fn network(model: &Model, level: &Level) -> Model {
    Model { parameters: training::own_parameters(model, &level.trained), ..model.clone() }
}

/// Costs of one sample.
fn sums(model: &Model, sample: &[usize]) -> Result<Totals, Failure> {
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
    context: &Context,
) -> Result<Modelled, Failure> {
    let bound = bound_to_samples(model, 1, &data.dataset.shape.dims())?;
    let (mut workload, tally) = Workload::with_tally(&bound)?;
    over_training(&bound, tally, data, CALIBRATION, context, &mut Bars::default())?.apply(&mut workload);
    let estimate = accel::estimated(arch, &workload, Objective::default(), context, &mut Bars::default())?;
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
fn time(
    dense: &Model,
    lean: &Model,
    sample: &[usize],
    context: &Context,
    meter: &Meter,
) -> Result<[Timed; 2], Failure> {
    let mut sessions = vec![];
    for model in [dense, lean] {
        let bound = bound_to_samples(model, 1, sample)?;
        let store = Store::new(&bound.parameters);
        let plan = Plan::compile(&bound.graph, &store, &context.plan_options())?;
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
    dense.zip(lean).map(|(d, l)| [d, l]).ok_or_else(|| Failure::Run("two networks were not timed".into()))
}

fn table(document: &Document) -> Table {
    let mut table = Table::new([("", Align::Left), ("dense", Align::Right), ("lean", Align::Right)]);
    let (d, l) = (&document.dense, &document.lean);
    let percent = |a: Option<f64>| a.map_or("-".to_string(), |a| format!("{:.2} %", 100.0 * a));
    let energy = |q: &Option<Quantity>| q.as_ref().map_or("unknown".to_string(), number::quantity);
    table.row(["test accuracy".to_string(), percent(d.accuracy), percent(l.accuracy)]);
    table.row([
        "validation accuracy".to_string(),
        percent(d.validation_accuracy),
        percent(l.validation_accuracy),
    ]);
    table.row(["parameters".to_string(), number::count(d.params as f64), number::count(l.params as f64)]);
    table.row(["density".to_string(), number::percent(d.density), number::percent(l.density)]);
    table.row(["effective MACs".to_string(), number::count(d.macs as f64), number::count(l.macs as f64)]);
    table.row(["file size".to_string(), number::si(d.bytes as f64, "B"), number::si(l.bytes as f64, "B")]);
    table.row([
        "latency, measured".to_string(),
        format!("{:.3} ms", d.latency_ms),
        format!("{:.3} ms", l.latency_ms),
    ]);
    let known = d.energy_per_1000.as_ref().map_or(String::new(), |e| format!(", {}", e.source().kind()));
    table.row([
        format!("energy of 1000 inferences{known}"),
        energy(&d.energy_per_1000),
        energy(&l.energy_per_1000),
    ]);
    if let (Some(d), Some(l)) = (&d.accel, &l.accel) {
        let rows = [
            ("inferences/s", d.inferences_per_s, l.inferences_per_s),
            ("inferences/J", d.inferences_per_j, l.inferences_per_j),
        ];
        for (what, dense, lean) in rows {
            let name = format!("{what}, modelled on {}", l.arch);
            table.row([name, number::plain(dense), number::plain(lean)]);
        }
    }
    table
}

fn report(document: &Document) -> String {
    let points = document.levels.iter().map(|l| (l.density, 100.0 * l.validation_accuracy.unwrap_or(0.0)));
    let plot = Plot::new(
        "Accuracy over density",
        Axis::log("share of prunable weights left"),
        Axis::linear("validation accuracy (%)"),
    )
    .line("levels", points.collect::<Vec<_>>());
    let percent = |a: Option<f64>| a.map_or("-".to_string(), |a| format!("{:.2} %", 100.0 * a));
    let accuracy = percent(document.lean.accuracy);
    let density = number::percent(document.lean.density);
    let mut levels = Table::new([
        ("round", Align::Right),
        ("density", Align::Right),
        ("validation", Align::Right),
        ("", Align::Left),
    ]);
    for level in &document.levels {
        let mark = if level.chosen { "chosen" } else { "" };
        levels.row([
            level.level.to_string(),
            number::percent(level.density),
            percent(level.validation_accuracy),
            mark.to_string(),
        ]);
    }
    let mut report = Report::new("A leaner network", "wattle shrink")
        .headline(&[("density", &density), ("test accuracy", &accuracy)])
        .section("Before and after")
        .table(&table(document));
    for note in &document.notes {
        report = report.note(note);
    }
    report
        .section("The search")
        .text("Each round prunes a fifth of the weights left, rewinds the others, and trains again. The validation part chooses; the test part was looked at once, at the end.")
        .figure(&plot.to_svg(), "Validation accuracy of every round, over the share of prunable weights left.")
        .table(&levels)
        .receipt(&document.receipt)
        .to_html()
}
