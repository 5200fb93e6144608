//! `wattle ticket find`: iterative magnitude pruning with rewinding, level by level.

use std::path::PathBuf;

use serde::Serialize;
use wattle_data::Normalisation;
use wattle_graph::ops::{Flatten, LpNormalization};
use wattle_graph::{GraphError, Model};
use wattle_jobs::learning::OptimizerName;
use wattle_meter::{Receipt, Unit, Work};
use wattle_report::{Align, Table, number, receipt as receipts};
use wattle_tickets::{FindOptions, Fractions, Level, PRESETS, Preset, Scope, check, find, preset, prunable};
use wattle_train::network::Init;
use wattle_train::parameter_tensors::to_tensors;
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::tensor_file::write_tensors;
use wattle_train::trainer::evaluate;

use super::training::{self, DataArgs, Defaults, TrainArgs};
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models;

const DEFAULTS: Defaults =
    Defaults { epochs: 10, batch: 64, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// What can be done with tickets.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Find tickets: train, prune, rewind, again.
    Find(Args),
}

/// Arguments of `wattle ticket find`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle ticket find --model small-conv --data digits --levels 5 --rewind 2%")]
pub struct Args {
    /// An .onnx classifier, or lenet-300-100, lenet-5, resnet-20, small-conv.
    #[arg(long, required_unless_present = "preset")]
    model: Option<String>,
    /// Settings by name: paper-2019, google-tf1, open-lth. Flags given beside it win.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Rounds of pruning.
    #[arg(long, default_value_t = 10)]
    levels: u32,
    /// Share of the remaining weights pruned in a round.
    #[arg(long)]
    fraction: Option<f64>,
    /// Whether weights compete across the network or within layers.
    #[arg(long, value_enum)]
    scope: Option<ScopeName>,
    /// Point of the dense training that tickets start from: `0it`, `2%`, `1ep`.
    #[arg(long, default_value = "0it", value_name = "STEP")]
    rewind: String,
    /// Folder of the run; by default one named by what decides its result, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Scopes by name.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeName {
    /// One ranking of all weights.
    Global,
    /// A ranking for each layer.
    LayerWise,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Scope {
        match name {
            ScopeName::Global => Scope::Global,
            ScopeName::LayerWise => Scope::LayerWise,
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
    init: Init,
    unit_length: bool,
    fractions: Fractions,
    find: &'a FindOptions,
}

#[derive(Serialize)]
struct Document {
    levels: Vec<Row>,
    settings: FindOptions,
    preset_source: Option<&'static str>,
    run: PathBuf,
    receipt: Receipt,
}

#[derive(Serialize)]
struct Row {
    level: u32,
    density: f64,
    validation_accuracy: Option<f64>,
    test_accuracy: Option<f64>,
    test_loss: f64,
    ticket: PathBuf,
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let Command::Find(args) = command;
    let meter = context.meter();
    let chosen: Option<Preset> = args.preset.as_deref().and_then(|name| preset(name, args.train.seed));
    let mut prepared = training::prepare(&args.data, args.train.loss)?;
    let mut options = args.train.options(DEFAULTS, &prepared.training.dataset)?;
    if let Some(preset) = &chosen {
        options = overridden(&preset.train, &args.train, options);
    }
    let init = chosen.as_ref().map_or(Init::KaimingNormal, |p| p.init);
    let unit_length = chosen.as_ref().is_some_and(|p| p.unit_length);
    if unit_length {
        let channels = prepared.training.dataset.shape.channels();
        prepared.training.normalisation = Normalisation::identity(channels);
    }
    let data = &prepared.training;
    let network =
        args.model.clone().or_else(|| chosen.as_ref().map(|p| p.network.to_string())).unwrap_or_default();
    let mut model = training::model(&network, data, init, args.train.seed)?;
    if unit_length {
        model = with_unit_length(&model)?;
    }
    let mut fractions =
        chosen.as_ref().map_or(Fractions { conv: 0.2, dense: 0.2, output: 0.2 }, |p| p.fractions);
    if let Some(fraction) = args.fraction {
        if !(0.0..1.0).contains(&fraction) || fraction == 0.0 {
            return Err(Failure::Input(format!(
                "--fraction: found {fraction}, expected above 0 and below 1"
            )));
        }
        let output = if fractions.output == 0.0 { 0.0 } else { fraction };
        fractions = Fractions { conv: fraction, dense: fraction, output };
    }
    let scope = args.scope.map_or(chosen.as_ref().map_or(Scope::Global, |p| p.scope), Scope::from);
    let settings =
        FindOptions { train: options.clone(), scope, rewind: args.rewind.clone(), levels: args.levels };
    let layers = prunable(&model.graph, fractions);
    let plan = context.plan_options();
    // A refused search leaves no folder behind.
    check(&model, &layers, data, prepared.splits.validation(), &settings, &plan)?;
    let config = RunConfig {
        model: &network,
        model_fingerprint: models::fingerprint(&model)?,
        data: &args.data.data,
        data_fingerprint: data.dataset.fingerprint(),
        validation: prepared.splits.validation().len(),
        init,
        unit_length,
        fractions,
        // Further levels extend a run rather than start another.
        find: &FindOptions { levels: 0, ..settings.clone() },
    };
    let config = Config::new("ticket find", &serde_json::json!(config), &serde_json::json!({}))?;
    let run = match &args.out {
        Some(path) => RunDirectory::open_at(path, &config)?,
        None => RunDirectory::open("runs".as_ref(), &config)?,
    };
    let bar = crate::bars::bar("level 0", 0);
    let work = meter.scope("find");
    let levels = find(
        &model,
        &layers,
        data,
        prepared.splits.validation(),
        &settings,
        &plan,
        Some(run.path()),
        &mut |level, p| {
            bar.set_message(format!("level {level} of {}", args.levels));
            bar.set_length(p.total);
            bar.set_position(p.step);
        },
        &mut |_| true,
    )?;
    drop(work);
    bar.finish_and_clear();
    // The test part is handed out only now, when nothing is left to choose; each level sees it once.
    let test = prepared.splits.take_test().into_indices();
    let mut rows = vec![];
    for level in &levels {
        rows.push(judge(level, &model, data, &test, &settings, &run, context)?);
    }
    let mut receipt = meter.stop();
    receipt.seeds.insert("seed".into(), args.train.seed);
    receipt.work.samples = Some(Work::counted(test.len() as u64 * rows.len() as u64, Unit::Sample));
    context.record(&mut receipt);
    run.write("receipt.json", receipt.to_json().as_bytes())?;
    let mut table = Table::new([
        ("level", Align::Right),
        ("density", Align::Right),
        ("validation", Align::Right),
        ("test", Align::Right),
    ]);
    let percent = |a: Option<f64>| a.map_or("-".into(), |a| format!("{:.2} %", 100.0 * a));
    for row in &rows {
        let cells = [
            row.level.to_string(),
            number::percent(row.density),
            percent(row.validation_accuracy),
            percent(row.test_accuracy),
        ];
        table.row(cells);
    }
    let text = format!("{table}\nrun {}\n\n{}", run.path().display(), receipts::summary(&receipt));
    let document = Document {
        levels: rows,
        settings,
        preset_source: chosen.map(|p| p.source),
        run: run.path().to_path_buf(),
        receipt,
    };
    context.print(&document, &text)
}

/// A preset's training with the flags that were given in place of its own.
fn overridden(
    preset: &wattle_train::trainer::TrainOptions,
    flags: &TrainArgs,
    given: wattle_train::trainer::TrainOptions,
) -> wattle_train::trainer::TrainOptions {
    let mut options = preset.clone();
    if flags.epochs.is_some() {
        options.length = given.length;
    }
    if flags.batch.is_some() {
        options.batch = given.batch;
    }
    if flags.lr.is_some() {
        options.learning_rate = given.learning_rate;
    }
    if flags.schedule.is_some() {
        options.schedule = given.schedule;
    }
    if flags.optimizer.is_some() || flags.weight_decay.is_some() {
        options.optimizer = given.optimizer;
    }
    if flags.augment.is_some() {
        options.augmentation = given.augmentation;
    }
    options
}

/// The network with its samples, as flat rows, scaled to unit length first.
fn with_unit_length(model: &Model) -> Result<Model, GraphError> {
    let mut rebuild = wattle_graph::rewrite::Rebuild::new(&model.graph);
    if let [input] = model.graph.inputs() {
        let x = rebuild.mapped(*input);
        let flat = rebuild.to.apply(Flatten { axis: 1 }, &[x])?;
        let scaled = rebuild.to.apply(LpNormalization { axis: 1, euclidean: true }, &[flat])?;
        rebuild.replace(*input, scaled);
    }
    for node in model.graph.nodes() {
        rebuild.copy(node)?;
    }
    Ok(Model { graph: rebuild.finish()?, ..model.clone() })
}

/// Evaluates a level on the test part and writes its ticket: mask and the weights to start from.
fn judge(
    level: &Level,
    model: &Model,
    data: &wattle_train::trainer::TrainingData,
    test: &[u32],
    settings: &FindOptions,
    run: &RunDirectory,
    context: &Context,
) -> Result<Row, Failure> {
    let parameters = training::own_parameters(model, &level.trained);
    let trained = Model { parameters, ..model.clone() };
    let found = evaluate(&trained, data, test, settings.train.loss, &context.plan_options())?;
    let ticket = run.file(&format!("ticket_{:02}.safetensors", level.level));
    let notes = [
        ("format", "wattle.ticket/1".to_string()),
        ("level", level.level.to_string()),
        ("density", level.density.to_string()),
        ("rewind", settings.rewind.clone()),
    ];
    let notes = notes.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    write_tensors(&ticket, &to_tensors(&level.start), &notes)?;
    Ok(Row {
        level: level.level,
        density: level.density,
        validation_accuracy: level.validation.accuracy,
        test_accuracy: found.accuracy,
        test_loss: found.loss,
        ticket,
    })
}
