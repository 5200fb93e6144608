//! Training to the end, in a run directory: interrupted at any moment, it goes on from its last checkpoint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_engine::PlanOptions;
use wattle_graph::{Model, Parameters};

use crate::checkpoint::{Checkpoint, Position};
use crate::run_directory::RunDirectory;
use crate::trainer::{Start, TrainOptions, Trainer, TrainingData};
use wattle_data::error::Result;

/// Longest time between two checkpoints; they do not change the result.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// The file that holds a finished training.
pub const FINAL: &str = "final.safetensors";

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
#[derive(Serialize)]
struct Metrics {
    epoch: u64,
    /// Mean loss of the steps since the line before.
    loss: f64,
}

/// Losses summed since the last line of metrics; kept in checkpoints so that an interruption changes no line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct RunningLoss {
    sum: f64,
    count: u64,
}

impl RunningLoss {
    fn to_notes(self) -> BTreeMap<String, String> {
        let bits = format!("{:016x}", self.sum.to_bits());
        BTreeMap::from([("loss_sum".into(), bits), ("loss_count".into(), self.count.to_string())])
    }

    fn from_notes(notes: &BTreeMap<String, String>) -> RunningLoss {
        let bits = notes.get("loss_sum").and_then(|text| u64::from_str_radix(text, 16).ok());
        let count = notes.get("loss_count").and_then(|text| text.parse().ok());
        match (bits, count) {
            (Some(bits), Some(count)) => RunningLoss { sum: f64::from_bits(bits), count },
            _ => RunningLoss::default(),
        }
    }
}

/// A finished training.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// What was learnt, optimiser state included.
    pub parameters: Parameters,
    /// Steps in all.
    pub steps: u64,
    /// Whether it had been finished before, so that nothing was computed now.
    pub reused: bool,
    /// Weights trained on their kept elements alone, and weights with a mask; `None` if it had been finished before.
    pub sparse_weights: Option<(usize, usize)>,
}

/// Trains `model` from `start` until its length, or until `stop_at` steps if that is sooner.
///
/// With a directory, a finished training is read back instead of repeated, and an interrupted one goes on where
/// its last checkpoint left it: the result is the same to the last bit. `config` names what decides the result.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a struct would only rename them"
)]
pub fn fit(
    model: &Model,
    data: &TrainingData,
    options: &TrainOptions,
    plan: &PlanOptions,
    start: Start,
    stop_at: Option<u64>,
    directory: Option<(&RunDirectory, &str)>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fitted> {
    let mut model = model.clone();
    let mut from = start;
    let mut running = RunningLoss::default();
    if let Some((directory, config)) = directory {
        let done = directory.file(FINAL);
        if done.exists() {
            let found = Checkpoint::resume(&done, config)?;
            let parameters = found.parameters(&done)?;
            return Ok(Fitted { parameters, steps: found.position.step, reused: true, sparse_weights: None });
        }
        if let Some((_, path)) = directory.checkpoints()?.pop() {
            let found = Checkpoint::resume(&path, config)?;
            model.parameters = found.parameters(&path)?;
            from.step = found.position.step;
            running = RunningLoss::from_notes(&found.notes);
        }
    }
    let mut trainer = Trainer::new(&model, data, options, plan, from)?;
    let total = trainer.timeline().total.min(stop_at.unwrap_or(u64::MAX));
    let per_epoch = trainer.timeline().iterations_per_epoch;
    let mut log = match directory {
        Some((directory, _)) => Some(directory.metrics((from.step > start.step).then_some(from.step))?),
        None => None,
    };
    let mut last_save = Instant::now();
    while trainer.step() < total {
        if let Some((directory, _)) = directory.filter(|(directory, _)| directory.is_lost()) {
            directory.check_held()?;
        }
        let loss = trainer.advance()?;
        running.sum += f64::from(loss);
        running.count += 1;
        let step = trainer.step();
        progress(Progress { step, total, loss });
        let epoch_ends = step % per_epoch == 0;
        if let (Some(log), true) = (&mut log, epoch_ends || step == total) {
            let mean = running.sum / running.count as f64;
            log.append(step, &Metrics { epoch: step.div_ceil(per_epoch), loss: mean })?;
            running = RunningLoss::default();
        }
        if let Some((directory, config)) = directory
            && (epoch_ends || last_save.elapsed() > CHECKPOINT_INTERVAL)
            && step < total
        {
            directory.check_held()?;
            if let Some(log) = &mut log {
                log.sync()?;
            }
            let older = directory.checkpoints()?;
            let position = Position { step, epoch: step / per_epoch, config: config.to_string() };
            let mut saved = Checkpoint::of(trainer.parameters()?, position);
            saved.notes = running.to_notes();
            saved.write(&directory.checkpoint(step))?;
            for (_, path) in older {
                // A leftover is harmless: the newest checkpoint counts.
                let _ = std::fs::remove_file(path);
            }
            last_save = Instant::now();
        }
    }
    let steps = trainer.step();
    let parameters = trainer.parameters()?.clone();
    if let Some((directory, config)) = directory {
        directory.check_held()?;
        if let Some(log) = &mut log {
            log.sync()?;
        }
        let position = Position { step: steps, epoch: steps / per_epoch, config: config.to_string() };
        Checkpoint::of(&parameters, position).write(&directory.file(FINAL))?;
        for (_, path) in directory.checkpoints()? {
            let _ = std::fs::remove_file(path);
        }
    }
    let sparse_weights = Some(trainer.sparse_weights());
    Ok(Fitted { parameters, steps, reused: false, sparse_weights })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_loss_survives_its_notes_to_the_bit() {
        let running = RunningLoss { sum: 0.1 + 0.2, count: 7 };
        assert_eq!(RunningLoss::from_notes(&running.to_notes()), running);
        assert_eq!(RunningLoss::from_notes(&BTreeMap::new()), RunningLoss::default());
    }
}
