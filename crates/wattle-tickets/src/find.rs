//! Iterative magnitude pruning with rewinding: train, prune, rewind, again.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_data::error::{Error, Result};
use wattle_engine::PlanOptions;
use wattle_graph::{Model, Parameters};
use wattle_train::fit::{Progress, fit};
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::step::{Step, Timeline};
use wattle_train::trainer::{Evaluation, Start, TrainOptions, Trainer, TrainingData, evaluate};

use crate::prune::{Layer, Scope, prune};

/// How a ticket is looked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FindOptions {
    /// How each level is trained.
    pub train: TrainOptions,
    /// Whether weights compete within layers.
    pub scope: Scope,
    /// Point of the dense training whose weights the tickets start from; `0it` for the initial weights.
    pub rewind: String,
    /// Rounds of pruning, at most.
    pub levels: u32,
}

/// One level of the search: level 0 is the dense network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Rounds of pruning before it.
    pub level: u32,
    /// Share of the prunable weights that are left.
    pub density: f64,
    /// How good it is on the validation part.
    pub validation: Evaluation,
    /// Weights trained on their kept elements alone, and weights with a mask; `None` if it had been trained before.
    pub sparse_weights: Option<(usize, usize)>,
    /// The weights it was trained from: masked, as of the rewind step.
    #[serde(skip)]
    pub start: Parameters,
    /// The trained weights, masked.
    #[serde(skip)]
    pub trained: Parameters,
}

/// Where a level keeps its files.
pub fn level_directory(run: &Path, level: u32) -> PathBuf {
    run.join(format!("level_{level:02}"))
}

/// What decides the result of one level, for its directory.
#[derive(Serialize)]
struct LevelConfig<'a> {
    find: &'a FindOptions,
    level: u32,
}

/// What [`find`] refuses before it computes or writes anything: nothing to prune, nothing to choose by, a model that does
/// not fit the data, a rewind point outside the training. Returns the rewind point, in steps.
pub fn check(
    model: &Model,
    layers: &[Layer],
    data: &TrainingData,
    validation: &[u32],
    options: &FindOptions,
    plan: &PlanOptions,
) -> Result<u64> {
    if layers.is_empty() {
        let found = "no prunable tensor: the model has no trained convolution or matrix product before its last layer";
        return Err(Error::input("the model", found));
    }
    if validation.is_empty() {
        return Err(Error::input("the data", "no validation part, which chooses the ticket")
            .remedy("keep some: option `validation=10%`"));
    }
    let point: Step = options.rewind.parse()?;
    let timeline: Timeline = *Trainer::new(model, data, &options.train, plan, Start::default())?.timeline();
    let step = point.resolve(&timeline);
    if step >= timeline.total {
        return Err(Error::input("option `rewind`", format!("{point} is step {step} of {}", timeline.total))
            .expected("a point before the end of training"));
    }
    Ok(step)
}

/// Finds tickets of `model`, level by level; `next` sees each level as it is done and says whether to go on.
///
/// With a directory each level is kept in it and reused when the same search runs again. The optimiser's state is
/// fresh at the rewind step on every level, the dense one included; the schedule and the order of samples go on
/// from there. Batch statistics are rewound with the weights.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a struct would only rename them"
)]
pub fn find(
    model: &Model,
    layers: &[Layer],
    data: &TrainingData,
    validation: &[u32],
    options: &FindOptions,
    plan: &PlanOptions,
    directory: Option<&Path>,
    progress: &mut dyn FnMut(u32, Progress),
    next: &mut dyn FnMut(&Level) -> bool,
) -> Result<Vec<Level>> {
    let step = check(model, layers, data, validation, options, plan)?;
    let rewound = rewind(model, data, options, plan, step, directory, &mut |p| progress(0, p))?;
    let begin = Start { step, fresh_at: step };
    let mut masks = vec![];
    let mut levels: Vec<Level> = vec![];
    for level in 0..=options.levels {
        let mut weights = rewound.clone();
        for (name, mask) in &masks {
            let mask: &wattle_graph::Mask = mask;
            let name: &String = name;
            weights.set_mask(name, mask.clone());
        }
        let network = Model { parameters: weights.clone(), ..model.clone() };
        let kept = directory.map(|d| open(&level_directory(d, level), options, level)).transpose()?;
        let kept = kept.as_ref().map(|(d, hash)| (d, hash.as_str()));
        let fitted =
            fit(&network, data, &options.train, plan, begin, None, kept, &mut |p| progress(level, p))?;
        let sparse_weights = fitted.sparse_weights;
        let trained = Model { parameters: fitted.parameters, ..model.clone() };
        let found = evaluate(&trained, data, validation, options.train.loss, plan)?;
        let density = density(&trained.parameters, layers);
        let (start, trained) = (weights, trained.parameters);
        levels.push(Level { level, density, validation: found, sparse_weights, start, trained });
        let last = &levels[levels.len() - 1];
        if !next(last) {
            break;
        }
        masks = prune(&last.trained, layers, options.scope);
    }
    Ok(levels)
}

fn open(path: &Path, options: &FindOptions, level: u32) -> Result<(RunDirectory, String)> {
    // How many more levels are wanted does not change this one.
    let config = LevelConfig { find: &FindOptions { levels: 0, ..options.clone() }, level };
    // No field is at a default: a level is named by its number, the configuration only guards against mixing.
    let config = Config::new("level", &serde_json_value(&config)?, &serde_json::json!({}))?;
    Ok((RunDirectory::open_at(path, &config)?, config.hash()))
}

/// The weights after `step` steps; optimiser state is left out.
fn rewind(
    model: &Model,
    data: &TrainingData,
    options: &FindOptions,
    plan: &PlanOptions,
    step: u64,
    directory: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Parameters> {
    if step == 0 {
        return Ok(model.parameters.clone());
    }
    let kept = directory.map(|d| open(&d.join("rewind"), options, 0)).transpose()?;
    let kept = kept.as_ref().map(|(d, hash)| (d, hash.as_str()));
    let fitted = fit(model, data, &options.train, plan, Start::default(), Some(step), kept, progress)?;
    let mut weights = model.parameters.clone();
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_string()).collect();
    for name in names {
        if let Some(tensor) = fitted.parameters.get(&name) {
            weights.insert(name, tensor.clone());
        }
    }
    Ok(weights)
}

/// Share of the weights of `layers` that are alive.
fn density(parameters: &Parameters, layers: &[Layer]) -> f64 {
    let (mut alive, mut total) = (0, 0);
    for layer in layers {
        let len = parameters.get(&layer.tensor).map_or(0, |t| t.len());
        total += len;
        alive += parameters.mask(&layer.tensor).map_or(len, |m| m.count());
    }
    alive as f64 / total.max(1) as f64
}

fn serde_json_value(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::machine("the configuration", e))
}
