//! Training to the end, in a run directory: interrupted at any moment, it goes on from its last checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wattle_data::error::{Error, ErrorKind, Result};
use wattle_graph::{Model, Parameters};

use crate::checkpoint::{Checkpoint, Position};
use crate::early_stop::{Best, EarlyStop};
use crate::evaluation::{Evaluation, evaluate};
use crate::experiment::Experiment;
use crate::networks::Told;
use crate::run_directory::RunDirectory;
use crate::step_graph::averaged;
use crate::trainer::{Notes, Trainer};

/// Longest time between two checkpoints; they do not change the result.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// The file that holds a finished training.
pub const FINAL: &str = "final.safetensors";

/// The file that holds the network that was best on the validation part.
const BEST: &str = "best.safetensors";

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Loss of the last step.
    pub loss: f32,
}

/// A line of `metrics.jsonl`, one an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u64,
    /// Mean loss of the steps since the line before.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean norm of the gradients of these steps, where it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Means of the objective's numbers over these steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, f64>,
    /// Mean loss on the validation part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Metrics on the validation part, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation: BTreeMap<String, f64>,
    /// Joules since training began, where somebody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
}

/// Who follows a training. A closure that takes [`Progress`] is one.
pub trait Watcher {
    /// A step is done.
    fn progress(&mut self, progress: Progress);

    /// What is to be known before the first step.
    fn notes(&mut self, _notes: &Notes) {}

    /// An epoch is done.
    fn epoch(&mut self, _epoch: &Epoch) {}

    /// Joules spent since the training began, if they are counted.
    fn joules(&mut self) -> Option<f64> {
        None
    }

    /// Whether to stop: the training can go on later from where it is.
    fn is_cancelled(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(Progress)> Watcher for F {
    fn progress(&mut self, progress: Progress) {
        self(progress);
    }
}

/// Sums since the last line of metrics; kept in checkpoints so that an interruption changes no line.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    loss: f64,
    norm: f64,
    parts: BTreeMap<String, f64>,
    count: u64,
}

/// A number as a text that loses no bit.
fn bits(x: f64) -> String {
    format!("{:016x}", x.to_bits())
}

fn of_bits(text: &str) -> Option<f64> {
    u64::from_str_radix(text, 16).ok().map(f64::from_bits)
}

impl Sums {
    fn add(&mut self, told: &Told) {
        self.loss += f64::from(told.loss);
        self.norm += told.norm.map_or(0.0, f64::from);
        for (name, value) in &told.metrics {
            *self.parts.entry(name.clone()).or_default() += f64::from(*value);
        }
        self.count += 1;
    }

    fn to_notes(&self) -> BTreeMap<String, String> {
        let mut notes = BTreeMap::from([
            ("loss_sum".into(), bits(self.loss)),
            ("norm_sum".into(), bits(self.norm)),
            ("loss_count".into(), self.count.to_string()),
        ]);
        notes.extend(self.parts.iter().map(|(name, sum)| (format!("{PART}{name}"), bits(*sum))));
        notes
    }

    fn from_notes(notes: &BTreeMap<String, String>) -> Sums {
        let number = |key: &str| notes.get(key).and_then(|text| of_bits(text)).unwrap_or_default();
        let part =
            |(key, text): (&String, &String)| Some((key.strip_prefix(PART)?.to_string(), of_bits(text)?));
        Sums {
            loss: number("loss_sum"),
            norm: number("norm_sum"),
            parts: notes.iter().filter_map(part).collect(),
            count: notes.get("loss_count").and_then(|text| text.parse().ok()).unwrap_or_default(),
        }
    }
}

/// Starts the note of a part's sum.
const PART: &str = "part_sum ";

/// The best so far as notes of a checkpoint, and back.
fn best_to_notes(best: &Best) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([("best_waited".into(), best.waited.to_string())]);
    if let Some((value, step)) = best.found {
        notes.insert("best_value".into(), bits(value));
        notes.insert("best_step".into(), step.to_string());
    }
    notes
}

fn best_from_notes(notes: &BTreeMap<String, String>) -> Best {
    let value = notes.get("best_value").and_then(|text| of_bits(text));
    let step = notes.get("best_step").and_then(|text| text.parse().ok());
    let waited = notes.get("best_waited").and_then(|text| text.parse().ok()).unwrap_or_default();
    Best { found: value.zip(step), waited }
}

/// A finished training.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// What was learnt, optimiser state included: the moving averages, where they were kept; the best on the validation
    /// part, where training could stop early.
    pub parameters: Parameters,
    /// Steps in all.
    pub steps: u64,
    /// Whether it had been finished before, so that nothing was computed now.
    pub reused: bool,
    /// Whether it stopped before its end: the validation part had not become better for so long.
    pub stopped_early: bool,
    /// Where training could stop early: the number that was watched, at its best, and the step of the network that reached
    /// it, which is the one given.
    pub best: Option<(f64, u64)>,
    /// Checkpoints that could not be read: their steps were done again.
    pub damaged: Vec<PathBuf>,
    /// Weights trained on their kept elements alone, and weights with a mask; `None` if nothing was computed.
    pub sparse_weights: Option<(usize, usize)>,
    /// What whoever trains should know; `None` if nothing was computed.
    pub notes: Option<Notes>,
}

/// Trains from the experiment's start until its length, or until `stop_at` steps if that is sooner.
///
/// With a directory, a finished training is read back instead of repeated, and an interrupted one goes on where
/// its last checkpoint left it: the result is the same to the last bit. Checkpoints carry the experiment's key and
/// those of another are refused. A length of no steps gives the network as it is.
///
/// # Errors
/// What [`Trainer::new`] and [`Trainer::advance`] refuse; early stopping without a validation part; a watcher that cancels.
pub fn fit(experiment: &Experiment, watcher: &mut dyn Watcher) -> Result<Fitted> {
    let key = experiment.key()?;
    let stop = experiment.options.stop;
    if stop.is_some() && experiment.validation.is_none() {
        return Err(Error::input("early stopping", "no validation part to watch")
            .remedy("keep some aside: option `validation=10%`"));
    }
    let (sums, best, damaged) = (Sums::default(), Best::default(), vec![]);
    let mut run = Run { experiment, key, sums, best, kept: None, damaged };
    let mut at = experiment.clone();
    if let Some(directory) = &experiment.directory {
        if let Some(fitted) = run.finished(directory)? {
            return Ok(fitted);
        }
        run.resume(directory, &mut at)?;
    }
    let timeline = experiment.timeline()?;
    let total = timeline.total.min(experiment.stop_at.unwrap_or(u64::MAX));
    if at.start.step >= total {
        let (parameters, steps) = (at.model.parameters, at.start.step);
        run.finish(&parameters, steps, false)?;
        return Ok(Fitted {
            parameters,
            steps,
            reused: false,
            stopped_early: false,
            best: None,
            damaged: run.damaged,
            sparse_weights: None,
            notes: None,
        });
    }
    let mut trainer = Trainer::new(&at)?;
    watcher.notes(trainer.notes());
    let stopped_early = run.train(&mut trainer, total, at.start.step, watcher)?;
    let steps = trainer.step();
    let parameters = match run.kept.take() {
        Some(best) => best,
        None => averaged(&trainer.parameters()),
    };
    run.finish(&parameters, steps, stopped_early)?;
    let sparse_weights = Some(trainer.sparse_weights());
    let notes = Some(trainer.notes().clone());
    let (best, damaged) = (run.best.found, run.damaged);
    Ok(Fitted { parameters, steps, reused: false, stopped_early, best, damaged, sparse_weights, notes })
}

/// What a training keeps beside its parameters.
struct Run<'a> {
    experiment: &'a Experiment,
    key: String,
    sums: Sums,
    best: Best,
    /// The parameters that were best.
    kept: Option<Parameters>,
    /// Checkpoints that could not be read.
    damaged: Vec<PathBuf>,
}

impl Run<'_> {
    /// A training that had been finished.
    fn finished(&self, directory: &RunDirectory) -> Result<Option<Fitted>> {
        let done = directory.file(FINAL);
        if !done.exists() {
            return Ok(None);
        }
        let found = Checkpoint::resume(&done, &self.key)?;
        Ok(Some(Fitted {
            parameters: found.parameters(&done)?,
            steps: found.position.step,
            reused: true,
            stopped_early: found.notes.contains_key(STOPPED_EARLY),
            best: best_from_notes(&found.notes).found,
            damaged: vec![],
            sparse_weights: None,
            notes: None,
        }))
    }

    /// The newest checkpoint that is whole. A disk may damage one; without it the same steps are done again.
    fn newest(&mut self, directory: &RunDirectory) -> Result<Option<(PathBuf, Checkpoint)>> {
        for (_, path) in directory.checkpoints()?.into_iter().rev() {
            match Checkpoint::resume(&path, &self.key) {
                Ok(found) => return Ok(Some((path, found))),
                // One that can be read is another run's.
                Err(error) if error.kind() != ErrorKind::Input || Checkpoint::read(&path).is_ok() => {
                    return Err(error);
                }
                Err(_) => {
                    // Left there, it would be in the way of the one that takes its name.
                    let _ = std::fs::remove_file(&path);
                    self.damaged.push(path);
                }
            }
        }
        Ok(None)
    }

    /// Goes on from the newest checkpoint, if there is one.
    fn resume(&mut self, directory: &RunDirectory, at: &mut Experiment) -> Result<()> {
        let Some((path, found)) = self.newest(directory)? else { return Ok(()) };
        at.model.parameters = found.parameters(&path)?;
        at.start.step = found.position.step;
        self.sums = Sums::from_notes(&found.notes);
        self.best = best_from_notes(&found.notes);
        let best = directory.file(BEST);
        if self.best.found.is_some() && best.exists() {
            self.kept = Some(Checkpoint::resume(&best, &self.key)?.parameters(&best)?);
        }
        Ok(())
    }

    /// Steps until `total`; returns whether it stopped before. `resumed_at` is the step it began at.
    fn train(
        &mut self,
        trainer: &mut Trainer,
        total: u64,
        resumed_at: u64,
        watcher: &mut dyn Watcher,
    ) -> Result<bool> {
        let directory = self.experiment.directory.as_deref();
        let per_epoch = trainer.timeline().iterations_per_epoch;
        let mut log = match directory {
            Some(directory) => {
                let is_resumed = resumed_at > self.experiment.start.step;
                Some(directory.metrics(is_resumed.then_some(resumed_at))?)
            }
            None => None,
        };
        let mut last_save = Instant::now();
        while trainer.step() < total {
            if let Some(directory) = directory.filter(|directory| directory.is_lost()) {
                directory.check_held()?;
            }
            let learning_rate = trainer.learning_rate();
            let told = trainer.advance()?;
            self.sums.add(&told);
            let step = trainer.step();
            watcher.progress(Progress { step, total, loss: told.loss });
            let epoch_ends = step.is_multiple_of(per_epoch);
            let mut is_over = false;
            if epoch_ends || step == total {
                let judged = self.judge(trainer)?;
                let line = self.line(
                    step.div_ceil(per_epoch),
                    learning_rate,
                    &told,
                    judged.as_ref(),
                    watcher.joules(),
                );
                watcher.epoch(&line);
                if let Some(log) = &mut log {
                    log.append(step, &line)?;
                }
                self.sums = Sums::default();
                if let (Some(stop), Some(judged)) = (&self.experiment.options.stop, &judged) {
                    is_over = self.watch(stop, judged, trainer, step)? && step < total;
                }
            }
            let is_cancelled = watcher.is_cancelled() && step < total && !is_over;
            let is_due = epoch_ends || last_save.elapsed() > CHECKPOINT_INTERVAL || is_cancelled;
            if let (Some(directory), true) = (directory, is_due && step < total && !is_over) {
                if let Some(log) = &mut log {
                    log.sync()?;
                }
                self.save(directory, trainer, step, step / per_epoch)?;
                last_save = Instant::now();
            }
            if is_cancelled {
                return Err(Error::machine(
                    "training",
                    format_args!("cancelled after step {step} of {total}"),
                ));
            }
            if is_over {
                return Ok(true);
            }
        }
        if let Some(log) = &mut log {
            log.sync()?;
        }
        Ok(false)
    }

    /// How good the network is on the validation part, if there is one.
    fn judge(&self, trainer: &Trainer) -> Result<Option<Evaluation>> {
        let Experiment { model, validation, options, plan, .. } = self.experiment;
        let Some(source) = validation else { return Ok(None) };
        let model = Model { parameters: averaged(&trainer.parameters()), ..model.clone() };
        let mut metrics = options.metrics.clone();
        let watched = options.stop.and_then(|stop| stop.metric);
        metrics.extend(watched.filter(|metric| !options.metrics.contains(metric)));
        evaluate(&model, source, &options.loss, &metrics, plan).map(Some)
    }

    fn line(
        &self,
        epoch: u64,
        learning_rate: f64,
        told: &Told,
        judged: Option<&Evaluation>,
        joules: Option<f64>,
    ) -> Epoch {
        let count = self.sums.count.max(1) as f64;
        Epoch {
            epoch,
            loss: self.sums.loss / count,
            learning_rate,
            gradient_norm: told.norm.map(|_| self.sums.norm / count),
            parts: self.sums.parts.iter().map(|(name, sum)| (name.clone(), sum / count)).collect(),
            validation_loss: judged.map(|found| found.loss),
            validation: judged.map_or(BTreeMap::new(), |found| found.metrics.clone()),
            joules,
        }
    }

    /// Remembers the best network; returns whether to stop.
    fn watch(&mut self, stop: &EarlyStop, judged: &Evaluation, trainer: &Trainer, step: u64) -> Result<bool> {
        let value = match stop.metric {
            None => judged.loss,
            Some(metric) => *judged.metrics.get(&metric.to_string()).ok_or_else(|| {
                let told: Vec<&str> = judged.metrics.keys().map(String::as_str).collect();
                Error::input("early stopping", format_args!("the metric `{metric}` is not told"))
                    .expected(format_args!("one of: {}", told.join(", ")))
            })?,
        };
        if stop.improves(&mut self.best, value, step) {
            let best = averaged(&trainer.parameters());
            if let Some(directory) = &self.experiment.directory {
                let position = Position { step, epoch: 0, config: self.key.clone() };
                Checkpoint::of(&best, position).write(&directory.file(BEST))?;
            }
            self.kept = Some(best);
        }
        Ok(stop.is_over(&self.best))
    }

    /// Writes a checkpoint, and removes those before it.
    fn save(&self, directory: &RunDirectory, trainer: &Trainer, step: u64, epoch: u64) -> Result<()> {
        directory.check_held()?;
        let older = directory.checkpoints()?;
        let position = Position { step, epoch, config: self.key.clone() };
        let mut saved = Checkpoint::of(&trainer.parameters(), position);
        saved.notes = self.sums.to_notes();
        if self.experiment.options.stop.is_some() {
            saved.notes.extend(best_to_notes(&self.best));
        }
        saved.write(&directory.checkpoint(step))?;
        for (_, path) in older {
            // A leftover is harmless: the newest checkpoint counts.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Writes what was learnt, and removes what led to it.
    fn finish(&self, parameters: &Parameters, steps: u64, stopped_early: bool) -> Result<()> {
        let Some(directory) = &self.experiment.directory else { return Ok(()) };
        directory.check_held()?;
        let per_epoch = self.experiment.timeline()?.iterations_per_epoch;
        let position = Position { step: steps, epoch: steps / per_epoch, config: self.key.clone() };
        let mut done = Checkpoint::of(parameters, position);
        if self.best.found.is_some() {
            done.notes.extend(best_to_notes(&self.best));
        }
        if stopped_early {
            done.notes.insert(STOPPED_EARLY.into(), "yes".into());
        }
        done.write(&directory.file(FINAL))?;
        for (_, path) in directory.checkpoints()? {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_file(directory.file(BEST));
        Ok(())
    }
}

/// The note of a training that stopped before its end.
const STOPPED_EARLY: &str = "stopped_early";

#[cfg(test)]
mod tests;
