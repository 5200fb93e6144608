//! Iterative magnitude pruning with rewinding: train, prune, rewind, again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wattle_data::error::{Error, Result};
use wattle_graph::{Mask, Model, Parameters};
use wattle_train::evaluation::{Evaluation, evaluate};
use wattle_train::experiment::{Experiment, Start};
use wattle_train::fit::{Progress, Watcher, fit};
use wattle_train::moment::Moment;
use wattle_train::options::TrainOptions;
use wattle_train::run_directory::{Config, RunDirectory};
use wattle_train::trainer::{Notes, Trainer};

use crate::prune::{Prunable, Scope, prune};

/// How a ticket is looked for; how each level is trained is the experiment's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindOptions {
    /// Whether weights compete within layers.
    pub scope: Scope,
    /// Point of the dense training whose weights the tickets start from; `0it` for the initial weights.
    pub rewind: Moment,
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
    /// Steps of training its weights have seen, those before the rewind point included. Levels are fair to compare where
    /// this is the same; early stopping makes it differ.
    pub steps: u64,
    /// Steps spent on the whole search up to and with this level.
    pub steps_spent: u64,
    /// How good it is on the validation part.
    pub validation: Evaluation,
    /// Weights trained on their kept elements alone, and weights with a mask; `None` if it had been trained before.
    pub sparse_weights: Option<(usize, usize)>,
    /// What whoever trains should know; `None` if it had been trained before.
    #[serde(skip)]
    pub notes: Option<Notes>,
    /// The weights it was trained from: masked, as of the rewind step.
    #[serde(skip)]
    pub start: Parameters,
    /// The trained weights, masked.
    #[serde(skip)]
    pub trained: Parameters,
}

/// Who follows a search: its trainings, one after the other, and its levels. A closure that takes [`Progress`] is one, which
/// lets the search go on to its end.
pub trait Follower: Watcher {
    /// The training of a level begins; that of level 0 before the rewind point too.
    fn begins(&mut self, _level: u32) {}

    /// A level is done: whether to go on.
    fn ends(&mut self, _level: &Level) -> bool {
        true
    }
}

impl<F: FnMut(Progress)> Follower for F {}

/// Where a level keeps its files.
pub fn level_directory(run: &Path, level: u32) -> PathBuf {
    run.join(format!("level_{level:02}"))
}

/// What decides the result of one level, for its directory: everything, so that a directory of another search is refused
/// rather than read.
#[derive(Serialize)]
struct LevelConfig<'a> {
    experiment: serde_json::Value,
    layers: &'a [Prunable],
    scope: Scope,
    rewind: Moment,
    level: u32,
}

/// What [`find`] refuses before it computes or writes anything: nothing to prune, nothing to choose by, a model that does
/// not fit the data, a rewind point outside the training. Returns the rewind point, in steps, and what whoever trains should
/// know.
pub fn check(experiment: &Experiment, layers: &[Prunable], options: &FindOptions) -> Result<(u64, Notes)> {
    if layers.is_empty() {
        let found = "no prunable tensor: the model has no trained convolution or matrix product before its last layer";
        return Err(Error::input("the model", found));
    }
    if experiment.validation.is_none() {
        return Err(Error::input("the data", "no validation part, which chooses the ticket")
            .remedy("keep some: option `validation=10%`"));
    }
    let timeline = experiment.timeline()?;
    let step = options.rewind.resolve(&timeline);
    // A training of no steps has one point, its start.
    if step >= timeline.total.max(1) {
        let found = format!("{} is step {step} of {}", options.rewind, timeline.total);
        return Err(Error::input("option `rewind`", found).expected("a point before the end of training"));
    }
    Ok((step, Trainer::new(experiment)?.notes().clone()))
}

/// Finds tickets of the experiment's model, level by level; the follower sees each level and says whether to go on.
///
/// With a directory each level is kept in it and reused when the same search runs again. The optimiser's state is
/// fresh at the rewind step on every level, the dense one included; the schedule and the order of samples go on
/// from there. Batch statistics are rewound with the weights. So every level's weights have seen the same number of steps,
/// unless training may stop early.
pub fn find(
    experiment: &Experiment,
    layers: &[Prunable],
    options: &FindOptions,
    follower: &mut dyn Follower,
) -> Result<Vec<Level>> {
    let (step, _) = check(experiment, layers, options)?;
    let search = Search { experiment, layers, options };
    follower.begins(0);
    let rewound = search.rewind(step, follower)?;
    let mut masks: Vec<(String, Mask)> = vec![];
    let mut levels: Vec<Level> = vec![];
    let mut spent = step;
    for level in 0..=options.levels {
        let mut weights = rewound.clone();
        for (name, mask) in &masks {
            weights.set_mask(name, mask.clone());
        }
        follower.begins(level);
        let found = search.level(level, weights, step, &mut spent, follower)?;
        levels.push(found);
        let last = &levels[levels.len() - 1];
        if !follower.ends(last) {
            break;
        }
        masks = prune(&last.trained, layers, options.scope);
    }
    Ok(levels)
}

/// A search under way.
struct Search<'a> {
    experiment: &'a Experiment,
    layers: &'a [Prunable],
    options: &'a FindOptions,
}

impl Search<'_> {
    /// Trains and judges one level from `weights`, as of the rewind step.
    fn level(
        &self,
        level: u32,
        weights: Parameters,
        step: u64,
        spent: &mut u64,
        watcher: &mut dyn Watcher,
    ) -> Result<Level> {
        let Experiment { model, validation, options, plan, .. } = self.experiment;
        let name = level_directory(Path::new(""), level);
        let watched = validation.clone().filter(|_| options.stop.is_some());
        let fitted = fit(
            &Experiment {
                model: Model { parameters: weights.clone(), ..model.clone() },
                validation: watched,
                start: Start { step, fresh_at: step },
                directory: self.open(&name, level)?,
                ..self.experiment.clone()
            },
            watcher,
        )?;
        *spent += fitted.steps - step;
        let trained = Model { parameters: fitted.parameters, ..model.clone() };
        let validation =
            validation.as_ref().ok_or_else(|| Error::machine("the data", "no validation part"))?;
        let found = evaluate(&trained, validation, &options.loss, &options.metrics, plan)?;
        Ok(Level {
            level,
            density: density(&trained.parameters, self.layers),
            steps: fitted.steps,
            steps_spent: *spent,
            validation: found,
            sparse_weights: fitted.sparse_weights,
            notes: fitted.notes,
            start: weights,
            trained: trained.parameters,
        })
    }

    /// The weights after `step` steps; optimiser state is left out.
    fn rewind(&self, step: u64, watcher: &mut dyn Watcher) -> Result<Parameters> {
        let Experiment { model, options, .. } = self.experiment;
        if step == 0 {
            return Ok(model.parameters.clone());
        }
        // Weights are rewound to, not averages of them, and nothing stops before that point.
        let options = TrainOptions { average: None, stop: None, ..options.clone() };
        let fitted = fit(
            &Experiment {
                options,
                validation: None,
                stop_at: Some(step),
                directory: self.open(Path::new("rewind"), 0)?,
                ..self.experiment.clone()
            },
            watcher,
        )?;
        let mut weights = model.parameters.clone();
        let names: Vec<String> = weights.iter().map(|(name, _)| name.to_string()).collect();
        for name in names {
            if let Some(tensor) = fitted.parameters.get(&name) {
                weights.insert(name, tensor.clone());
            }
        }
        Ok(weights)
    }

    /// The directory of one training of the search, inside that of the experiment.
    fn open(&self, name: &Path, level: u32) -> Result<Option<Arc<RunDirectory>>> {
        let Some(directory) = &self.experiment.directory else { return Ok(None) };
        // How many more levels are wanted does not change this one.
        let FindOptions { scope, rewind, .. } = *self.options;
        let experiment = self.experiment.description()?;
        let config = LevelConfig { experiment, layers: self.layers, scope, rewind, level };
        let value = serde_json::to_value(&config).map_err(|e| Error::machine("the configuration", e))?;
        // No field is at a default: a level is named by its number, the configuration only guards against mixing.
        let config = Config::new("level", &value, &serde_json::json!({}))?;
        Ok(Some(Arc::new(RunDirectory::open_at(&directory.path().join(name), &config)?)))
    }
}

/// Share of the weights of `layers` that are alive.
fn density(parameters: &Parameters, layers: &[Prunable]) -> f64 {
    let (mut alive, mut total) = (0, 0);
    for layer in layers {
        let len = parameters.get(&layer.tensor).map_or(0, |t| t.len());
        total += len;
        alive += parameters.mask(&layer.tensor).map_or(len, |m| m.count());
    }
    alive as f64 / total.max(1) as f64
}
