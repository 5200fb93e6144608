//! The training loop: batches in, updated parameters out, from any step on, the same to the last bit.

use std::sync::Arc;

use wattle_data::Loader;
use wattle_data::error::{Error, Result};
use wattle_graph::{Parameters, Role};

use crate::binding;
use crate::evaluation::PREFETCH;
use crate::experiment::Experiment;
use crate::moment::Timeline;
use crate::networks::{GradientSum, Networks, Told};
use crate::options::TrainOptions;
use crate::policy::{Always, StepPolicy};
use crate::refusal::of_graph;
use crate::step_graph::{StepGraph, StepOptions};

/// A training under way.
pub struct Trainer {
    networks: Networks,
    policy: Arc<dyn StepPolicy>,
    loader: Loader,
    sum: GradientSum,
    options: TrainOptions,
    timeline: Timeline,
    fresh_at: u64,
    step: u64,
    notes: Notes,
}

/// What whoever trains should know before it begins; of the network that learns first, where there are several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Names of the parameters that learn.
    pub trained: usize,
    /// Parameters that are left alone because a group says so.
    pub frozen: Vec<String>,
    /// Trainable parameters that the loss does not depend on: they stay what they are.
    pub without_gradient: Vec<String>,
    /// Nodes of a step that only the reference interpreter can run, slowly.
    pub interpreted: Vec<String>,
}

impl Notes {
    /// Each as a sentence; nothing where all is as usual.
    pub fn sentences(&self) -> Vec<String> {
        let list = |names: &[String]| {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = names.len().saturating_sub(shown.len());
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{rest}", shown.join(", "))
        };
        let counted = |names: &[String], what: &str, verb: [&str; 2]| match names.len() {
            1 => format!("1 {what} {}", verb[0]),
            count => format!("{count} {what}s {}", verb[1]),
        };
        let mut sentences = vec![];
        if !self.frozen.is_empty() {
            let frozen = counted(&self.frozen, "parameter", ["is frozen", "are frozen"]);
            sentences.push(format!("{frozen}: {}", list(&self.frozen)));
        }
        if !self.without_gradient.is_empty() {
            let stay = ["gets no gradient and stays as it is", "get no gradient and stay as they are"];
            let stuck = counted(&self.without_gradient, "parameter", stay);
            sentences.push(format!("{stuck}: {}", list(&self.without_gradient)));
        }
        if !self.interpreted.is_empty() {
            let run = ["runs on the interpreter, slowly", "run on the interpreter, slowly"];
            let slow = counted(&self.interpreted, "step", run);
            sentences.push(format!("{slow}: {}", list(&self.interpreted)));
        }
        sentences
    }
}

impl Trainer {
    /// Prepares to train. Missing state of the optimiser starts as zeros; masked parameters stay exactly zero under their
    /// masks.
    ///
    /// # Errors
    /// When the network does not fit the data or the objective, or the options do not fit each other.
    pub fn new(experiment: &Experiment) -> Result<Trainer> {
        let Experiment { model, data, options, plan, start, .. } = experiment;
        let refuse = of_graph("the model");
        let timeline = experiment.timeline()?;
        let batch = experiment.batch()?;
        let bound = binding::bind(model, data.columns(), batch).map_err(&refuse)?;
        let policy = match &experiment.policy {
            Some(policy) => policy.clone(),
            None => {
                // The norm is worth knowing where it costs little: not where masked weights are trained by kept elements.
                let norm = model.parameters.masks().next().is_none();
                let step_options = StepOptions { norm, ..StepOptions::from(options) };
                let network = StepGraph::new(&bound.model, &options.loss, &step_options).map_err(&refuse)?;
                Arc::new(Always(Arc::new(network)))
            }
        };
        let (columns, many) =
            (data.columns().to_vec(), experiment.policy.is_some() || options.accumulate > 1);
        let mut networks = Networks::new(&model.parameters, bound.feeds, columns, batch, plan.clone(), many);
        let first = policy.step(start.step);
        networks.prepare(&first, options.accumulate > 1)?;
        let facts = first.facts();
        let interpreted: Vec<String> =
            networks.plans().flat_map(|plan| plan.interpreted()).map(String::from).collect();
        let notes = Notes {
            trained: facts.trained.len(),
            frozen: facts.frozen.clone(),
            without_gradient: facts.without_gradient.clone(),
            interpreted,
        };
        let mut trainer = Trainer {
            networks,
            policy,
            loader: Loader::new(data.clone(), PREFETCH),
            sum: GradientSum::default(),
            options: options.clone(),
            timeline,
            fresh_at: start.fresh_at,
            step: start.step,
            notes,
        };
        trainer.loader.start_at(trainer.batch_of(start.step));
        Ok(trainer)
    }

    /// The first batch of a step: those that do not fill the last step of an epoch are left out.
    fn batch_of(&self, step: u64) -> u64 {
        let per_epoch = self.timeline.iterations_per_epoch;
        step / per_epoch * self.loader.epoch_len() + step % per_epoch * self.options.accumulate
    }

    /// Epochs and steps of the whole training.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// What whoever trains should know.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.options.learning_rate * self.options.schedule.factor(self.step, &self.timeline)
    }

    /// How many weights are trained on their kept elements alone, of those that are masked. The others were modelled
    /// faster on dense kernels.
    pub fn sparse_weights(&self) -> (usize, usize) {
        let parameters = self.networks.parameters();
        let Some(plan) = self.networks.plans().last() else { return (0, 0) };
        let masked = plan
            .parameter_bytes()
            .filter(|(p, _)| p.role == Role::Trainable && parameters.mask(&p.tensor).is_some());
        (plan.kept().count(), masked.count())
    }

    /// One step; returns what it told of the loss before the update.
    ///
    /// # Errors
    /// When a batch cannot be made, or the loss is no longer a number: training has diverged.
    pub fn advance(&mut self) -> Result<Told> {
        let accumulate = self.options.accumulate;
        let network = self.policy.step(self.step);
        self.networks.prepare(&network, accumulate > 1)?;
        let rate = self.learning_rate() as f32;
        let count = (self.step - self.fresh_at + 1) as f32;
        let told = if accumulate == 1 {
            self.networks.step(self.loader.next_batch()?, self.options.seed, rate, count)?
        } else {
            if self.step.is_multiple_of(self.timeline.iterations_per_epoch) {
                let first = self.batch_of(self.step);
                self.loader.start_at(first);
            }
            self.sum.clear();
            for _ in 0..accumulate {
                self.networks.add_gradients(self.loader.next_batch()?, self.options.seed, &mut self.sum)?;
            }
            self.networks.update(&self.sum, rate, count)?
        };
        self.step += 1;
        if !told.loss.is_finite() {
            return Err(Error::machine(
                format_args!("step {}", self.step),
                format_args!("the loss is {}", told.loss),
            )
            .remedy("lower the learning rate, add a warm-up to the schedule, or look for numbers in the data that are none"));
        }
        Ok(told)
    }

    /// The parameters as they are now, optimiser state included.
    pub fn parameters(&self) -> Parameters {
        self.networks.parameters()
    }
}

#[cfg(test)]
mod tests;
