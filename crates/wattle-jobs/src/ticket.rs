//! Lottery tickets: iterative magnitude pruning with rewinding, level by level.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use wattle_data::{NormalisationChoice, Source};
use wattle_graph::ops::{Flatten, LpNormalization};
use wattle_graph::{GraphError, Model};
use wattle_meter::Receipt;
use wattle_tickets::{
    Criterion, FindOptions, Fractions, Level, Preset, Scope, check, find, preset, prunable,
};
use wattle_train::evaluation::evaluate;
use wattle_train::experiment::Experiment;
use wattle_train::moment::Moment;
use wattle_train::network::Init;
use wattle_train::options::TrainOptions;
use wattle_train::parameter_tensors::to_tensors;
use wattle_train::run_directory::RunDirectory;
use wattle_train::tensor_file::write_tensors;

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::kept::{self, Kept};
use crate::observer::Observer;
use crate::train::{doubts, prefixed};
use crate::training;
use crate::training::data::DataOptions;
use crate::training::facts::out_of_reach;
use crate::training::follow::{Follower, PAGE, SearchFollower};
use crate::training::learning::{Defaults, LearningOptions, OptimizerName};
use crate::training::material;
use crate::training::normalised::Normalised;
use crate::training::preparation::{Asked, Prepared};

/// What is chosen where nothing is asked for.
pub const DEFAULTS: Defaults =
    Defaults { epochs: 10, batch: 64, optimizer: OptimizerName::Sgd, lr: 0.05, schedule: "cosine" };

/// Share of the remaining weights that a round prunes where nobody says.
const FRACTION: f64 = 0.2;

/// Where to look for tickets.
#[derive(Clone, Debug, PartialEq)]
pub struct FindJob {
    /// An `.onnx` file, or a network by name; a preset's if left out.
    pub model: Option<String>,
    /// Settings by name; options given beside it win.
    pub preset: Option<String>,
    /// Which data.
    pub data: DataOptions,
    /// How each level learns.
    pub learning: LearningOptions,
    /// Weights to start from, by name.
    pub init_from: Option<PathBuf>,
    /// Rounds of pruning.
    pub levels: u32,
    /// Share of the remaining weights pruned in a round, above 0 and below 1.
    pub fraction: Option<f64>,
    /// Whether weights compete across the network or within layers.
    pub scope: Option<Scope>,
    /// Point of the dense training that tickets start from.
    pub rewind: Moment,
    /// Folder of the run; by default one named by what decides its result.
    pub out: Option<PathBuf>,
}

/// All that decides the levels. How many are wanted is no part of it: further levels extend a run.
#[derive(Serialize)]
struct Key<'a> {
    model: &'a str,
    data: &'a DataOptions,
    init_from: Option<&'a PathBuf>,
    experiment: serde_json::Value,
    validation: Option<String>,
    unit_length: bool,
    fractions: Fractions,
    find: FindOptions,
}

/// The tickets.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Level by level; the first is the dense network.
    pub levels: Vec<Row>,
    /// What tells how good a network is: the first metric that was asked for, the usual one, or the loss.
    pub metric: Criterion,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// How they were looked for.
    pub settings: FindOptions,
    /// How each level was trained.
    pub train: TrainOptions,
    /// What each float input was normalised with, and who says so.
    pub normalisation: BTreeMap<String, Normalised>,
    /// Where the preset's settings are from.
    pub preset_source: Option<&'static str>,
    /// What makes these numbers doubtful.
    pub notes: Vec<String>,
    /// The folder.
    pub run: PathBuf,
    /// The page: the learning curves of the level that was trained last.
    pub report: PathBuf,
    /// What the run took, all its processes together.
    pub receipt: Receipt,
}

/// A level and its ticket.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Rounds of pruning before it.
    pub level: u32,
    /// Share of the prunable weights that are left.
    pub density: f64,
    /// Steps of training that its weights have seen.
    pub steps: u64,
    /// Share of right classes on the validation part.
    pub validation_accuracy: Option<f64>,
    /// Share of right classes on the test part.
    pub test_accuracy: Option<f64>,
    /// The metric on the validation part.
    pub validation_value: f64,
    /// The metric on the test part.
    pub test_value: f64,
    /// Mean loss on the test part.
    pub test_loss: f64,
    /// The other metrics that were asked for, or the usual ones, on the test part: `test_mean_iou`.
    #[serde(flatten)]
    pub test_metrics: BTreeMap<String, f64>,
    /// The mask and the weights to start from.
    pub ticket: PathBuf,
}

/// Finds tickets. The same job asked for again reads its levels back; an interrupted one goes on.
pub fn find_tickets(job: &FindJob, env: &Env, observer: &mut dyn Observer) -> Result<Found> {
    let meter = env.meter();
    let seed = job.learning.seed;
    let chosen: Option<Preset> = match &job.preset {
        Some(name) => Some(
            preset(name, seed).ok_or_else(|| JobError::option("preset", format_args!("`{name}` is none")))?,
        ),
        None => None,
    };
    let init = chosen.as_ref().map_or(Init::KaimingNormal, |p| p.init);
    let unit_length = chosen.as_ref().is_some_and(|p| p.unit_length);
    let network = job.model.clone().or_else(|| chosen.as_ref().map(|p| p.network.to_string()));
    let network =
        network.ok_or_else(|| JobError::option("model", "neither a model nor a preset is named"))?;
    let mut data = job.data.clone();
    if unit_length && data.normalise.is_none() {
        data.normalise = Some(NormalisationChoice::None);
    }
    let asked = Asked {
        model: &network,
        data: &data,
        learning: &job.learning,
        init_from: job.init_from.as_ref(),
        init,
    };
    let mut prepared = Prepared::new(asked, |lesson| {
        let options = job.learning.resolved(DEFAULTS, lesson)?;
        Ok(chosen.as_ref().map_or(options.clone(), |p| overridden(&p.train, &job.learning, options)))
    })?;
    let mut notes = std::mem::take(&mut prepared.notes);
    if unit_length {
        prepared.material.model = with_unit_length(&prepared.material.model)?;
    }
    let fractions = fractions(job.fraction, chosen.as_ref())?;
    let scope = job.scope.unwrap_or(chosen.as_ref().map_or(Scope::Global, |p| p.scope));
    let settings = FindOptions { scope, rewind: job.rewind, levels: job.levels };
    let layers = prunable(&prepared.material.model.graph, fractions);
    notes.extend(out_of_reach(&prepared.material.model));
    let mut experiment = prepared.material.experiment(&prepared.options, env)?;
    // A refused search leaves no folder behind.
    let (_, seen) = check(&experiment, &layers, &settings)?;
    notes.extend(seen.sentences());
    notes.extend(prepared.told(&experiment)?);
    let Prepared { material, options, .. } = prepared;
    let key = Key {
        model: &network,
        data: &data,
        init_from: job.init_from.as_ref(),
        experiment: experiment.description()?,
        validation: training::fingerprint_of(&experiment.validation),
        unit_length,
        fractions,
        find: FindOptions { levels: 0, ..settings },
    };
    let mut kept = Kept::open(&kept::config("ticket find", &key)?, job.out.as_deref(), env)?;
    let run = kept.directory.clone();
    experiment.directory = Some(run.clone());
    let work = meter.scope("find");
    let stage = |level: u32| format!("level {level} of {}", job.levels);
    let mut judge = |level: &Level, observer: &mut dyn Observer| {
        let criterion = Criterion::of(&level.validation);
        let value = criterion.value(&level.validation);
        observer.metric(level.steps_spent, &format!("validation_{criterion}"), value);
        true
    };
    let training =
        Follower::new(observer, &meter, &mut kept, format!("{network} on {}", job.data.data), &options);
    let mut follower = SearchFollower { training, stage: &stage, judge: &mut judge };
    let levels = find(&experiment, &layers, &settings, &mut follower);
    let Follower { title, curves, .. } = follower.training;
    drop(work);
    let levels = levels.map_err(|error| kept.stopped(error, observer, &meter, env))?;
    if observer.cancelled() {
        return Err(kept.stopped(JobError::cancelled(), observer, &meter, env));
    }
    // The test part is handed out only now, when nothing is left to choose; each level sees it once.
    let criterion = Criterion::of(&levels[0].validation);
    let metadata = material.noted(&experiment.model, false)?.metadata;
    let test = material::test(material.data)?;
    let mut rows = vec![];
    for level in &levels {
        let (row, seen) = judged(level, criterion, &experiment, &test, &settings, &run, &metadata)?;
        if level.level == 0 {
            notes.extend(seen);
        }
        rows.push(row);
    }
    let mut receipt = meter.stop();
    receipt.seeds.insert("seed".into(), seed);
    let receipt = kept.finish(receipt, levels.iter().all(|level| level.notes.is_none()), env)?;
    let state = format!("finished: {} levels; the curves are those of the last", levels.len());
    run.write(PAGE, curves.page(&title, &state, &notes, Some(&receipt)).as_bytes())?;
    Ok(Found {
        levels: rows,
        metric: criterion,
        higher_is_better: criterion.is_higher_better(),
        settings,
        train: options,
        normalisation: material.normalised,
        preset_source: chosen.map(|p| p.source),
        notes,
        run: run.path().to_path_buf(),
        report: run.file(PAGE),
        receipt,
    })
}

/// What a round prunes of each kind of layer.
fn fractions(asked: Option<f64>, preset: Option<&Preset>) -> Result<Fractions> {
    let usual = Fractions { conv: FRACTION, dense: FRACTION, output: FRACTION };
    let fractions = preset.map_or(usual, |p| p.fractions);
    let Some(fraction) = asked else { return Ok(fractions) };
    if !(fraction > 0.0 && fraction < 1.0) {
        let found = format!("found {fraction}, expected above 0 and below 1");
        return Err(JobError::option("fraction", found));
    }
    let output = if fractions.output == 0.0 { 0.0 } else { fraction };
    Ok(Fractions { conv: fraction, dense: fraction, output })
}

/// A preset's training with what was asked for in place of its own.
fn overridden(preset: &TrainOptions, asked: &LearningOptions, resolved: TrainOptions) -> TrainOptions {
    // What no preset sets is as asked for; what they set is theirs unless something was asked for.
    let mut options = resolved.clone();
    if asked.epochs.is_none() {
        options.length = preset.length;
    }
    if asked.batch.is_none() {
        options.batch = preset.batch;
    }
    if asked.lr.is_none() {
        options.learning_rate = preset.learning_rate;
    }
    if asked.schedule.is_none() {
        options.schedule = preset.schedule.clone();
    }
    if asked.optimizer.is_none() && asked.weight_decay.is_none() {
        options.optimizer = preset.optimizer;
    }
    if asked.augment.is_none() {
        options.augmentation = preset.augmentation;
    }
    options
}

/// The network with its samples, as flat rows, scaled to unit length first.
fn with_unit_length(model: &Model) -> std::result::Result<Model, GraphError> {
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

/// Evaluates a level on the test part and writes its ticket: mask and the weights to start from, with what the model's
/// metadata say of its inputs.
fn judged(
    level: &Level,
    criterion: Criterion,
    experiment: &Experiment,
    test: &Arc<dyn Source>,
    settings: &FindOptions,
    run: &RunDirectory,
    metadata: &BTreeMap<String, String>,
) -> Result<(Row, Vec<String>)> {
    let Experiment { model, options, plan, .. } = experiment;
    let parameters = training::own_parameters(model, &level.trained);
    let trained = Model { parameters, ..model.clone() };
    let found = evaluate(&trained, test, &options.loss, &options.metrics, plan)?;
    let ticket = run.file(&format!("ticket_{:02}.safetensors", level.level));
    let notes = [
        ("format", "wattle.ticket/1".to_string()),
        ("level", level.level.to_string()),
        ("density", level.density.to_string()),
        ("rewind", settings.rewind.to_string()),
    ];
    let mut all = metadata.clone();
    all.extend(notes.into_iter().map(|(k, v)| (k.to_string(), v)));
    write_tensors(&ticket, &to_tensors(&level.start), &all)?;
    let row = Row {
        level: level.level,
        density: level.density,
        steps: level.steps,
        validation_accuracy: level.validation.accuracy,
        test_accuracy: found.accuracy,
        validation_value: criterion.value(&level.validation),
        test_value: criterion.value(&found),
        test_loss: found.loss,
        test_metrics: prefixed("test_", &found),
        ticket,
    };
    Ok((row, doubts(&found)))
}
