//! The training loop: batches in, updated parameters out, from any step on, the same to the last bit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wattle_engine::{EngineError, Plan, PlanOptions, Session, Store};
use wattle_graph::{Model, Parameters, Role};

use crate::loss::Loss;
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::step::{Step, Timeline};
use crate::training_graph::{bound_to_samples, logits, training_graph};
use wattle_data::error::{Error, Result};
use wattle_data::{Augmentation, Batch, BatchOptions, Batches, Dataset, INPUT, Loader, Normalisation};

/// Everything that decides how a network is trained, but for the network and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Samples in a batch; the rest of an epoch that does not fill one is left out of it.
    pub batch: usize,
    /// How long to train, as a [`Step`]: `40ep`, `50000it`.
    pub length: String,
    /// Learning rate that the schedule scales.
    pub learning_rate: f64,
    /// How it changes over time, as [`Schedule`] prints it.
    pub schedule: String,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// What is made small.
    pub loss: Loss,
    /// What is done to images.
    pub augmentation: String,
    /// Decides the order of samples and their augmentation.
    pub seed: u64,
}

/// What is trained on: a data set, the samples to see, and the constants that normalise them.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// All samples.
    pub dataset: Arc<Dataset>,
    /// The training part.
    pub indices: Vec<u32>,
    /// Measured on the training part.
    pub normalisation: Normalisation,
}

/// Where a training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Steps done already: the schedule and the order of samples go on from here.
    pub step: u64,
    /// The step at which the optimiser's state was zero: its own count of updates starts there. After a rewind
    /// that is the step rewound to; after an interruption, wherever the interrupted training had started.
    pub fresh_at: u64,
}

/// A training under way.
pub struct Trainer {
    session: Session,
    loader: Loader,
    /// As they were last asked for.
    parameters: Parameters,
    schedule: Schedule,
    timeline: Timeline,
    learning_rate: f64,
    classes: bool,
    start: Start,
    step: u64,
}

/// An error of the graph or the engine, told as one of training.
pub(crate) fn refused(place: &str) -> impl Fn(EngineError) -> Error + '_ {
    move |error| match error {
        EngineError::Node { .. } | EngineError::Defect(_) => Error::machine(place, error),
        _ => Error::input(place, error),
    }
}

impl Trainer {
    /// Prepares to train `model` from `start` on, with its parameters (optimiser state included, where there is
    /// any; missing state starts as zeros). Masked parameters stay exactly zero under their masks.
    pub fn new(
        model: &Model,
        data: &TrainingData,
        options: &TrainOptions,
        plan: &PlanOptions,
        start: Start,
    ) -> Result<Trainer> {
        let sample = data.dataset.shape.dims();
        let place = "the model";
        let bound = bound_to_samples(model, options.batch, &sample).map_err(|e| Error::input(place, e))?;
        let (graph, parameters) =
            training_graph(&bound, options.loss, options.optimizer).map_err(|e| Error::input(place, e))?;
        check_targets(&graph, &data.dataset, options.loss)?;
        let store = Store::new(&parameters);
        let compiled = Plan::compile(&graph, &store, plan).map_err(refused(place))?;
        let session = Session::new(compiled, &store).map_err(refused(place))?;
        let augmentation: Augmentation = options.augmentation.parse()?;
        let batches = BatchOptions::training(options.batch, options.seed, augmentation)
            .normalised(INPUT, data.normalisation.clone());
        let source = Batches::new(data.dataset.clone(), &data.indices, batches)?;
        let mut loader = Loader::new(Arc::new(source), PREFETCH);
        if loader.epoch_len() == 0 {
            let found = format!("a batch of {} from {} training samples", options.batch, data.indices.len());
            return Err(
                Error::input("option `batch`", found).expected("at most as many as there are samples")
            );
        }
        loader.start_at(start.step);
        let schedule: Schedule = options.schedule.parse()?;
        let length: Step = options.length.parse()?;
        let per_epoch = Timeline::of_epochs(1, loader.epoch_len());
        let timeline = Timeline { total: length.resolve(&per_epoch), ..per_epoch };
        schedule.check(&timeline)?;
        let classes = matches!(options.loss, Loss::CrossEntropy { .. });
        let learning_rate = options.learning_rate;
        Ok(Trainer {
            session,
            loader,
            parameters,
            schedule,
            timeline,
            learning_rate,
            classes,
            start,
            step: start.step,
        })
    }

    /// Epochs and steps of the whole training.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// How many weights are trained on their kept elements alone, of those that are masked. The others were modelled
    /// faster on dense kernels.
    pub fn sparse_weights(&self) -> (usize, usize) {
        let plan = self.session.plan();
        let masked = plan
            .parameter_bytes()
            .filter(|(p, _)| p.role == Role::Trainable && self.parameters.mask(&p.tensor).is_some());
        (plan.kept().count(), masked.count())
    }

    /// One step; returns the loss before the update.
    ///
    /// # Errors
    /// When a batch cannot be made, or the loss is no longer a number: training has diverged.
    pub fn advance(&mut self) -> Result<f32> {
        let place = "training";
        let batch = self.loader.next_batch()?;
        feed(&mut self.session, batch, self.classes).map_err(refused(place))?;
        let rate = self.learning_rate * self.schedule.factor(self.step, &self.timeline);
        self.session.input_mut::<f32>(2).map_err(refused(place))?[0] = rate as f32;
        self.session.input_mut::<f32>(3).map_err(refused(place))?[0] =
            (self.step - self.start.fresh_at + 1) as f32;
        self.session.run().map_err(refused(place))?;
        self.step += 1;
        let loss = self.session.output::<f32>(0).map_err(refused(place))?[0];
        if !loss.is_finite() {
            return Err(Error::machine(
                format_args!("step {}", self.step),
                format_args!("the loss is {loss}"),
            )
            .remedy("lower the learning rate, or add a warm-up to the schedule"));
        }
        Ok(loss)
    }

    /// The parameters as they are now, optimiser state included.
    pub fn parameters(&mut self) -> Result<&Parameters> {
        self.parameters = self.session.store().parameters();
        Ok(&self.parameters)
    }
}

/// Batches prepared ahead of the session.
const PREFETCH: usize = 2;

/// Writes a batch into a session's first two inputs.
fn feed(session: &mut Session, batch: &Batch, classes: bool) -> std::result::Result<(), EngineError> {
    let [inputs, targets] = [0, 1].map(|column| batch.columns[column].bytes.as_slice());
    bytemuck::cast_slice_mut(session.input_mut::<f32>(0)?).copy_from_slice(inputs);
    if classes {
        bytemuck::cast_slice_mut(session.input_mut::<i64>(1)?).copy_from_slice(targets);
    } else {
        bytemuck::cast_slice_mut(session.input_mut::<f32>(1)?).copy_from_slice(targets);
    }
    Ok(())
}

/// Whether the data has the targets that the loss needs, as many as the network has outputs.
fn check_targets(graph: &wattle_graph::Graph, dataset: &Dataset, loss: Loss) -> Result<()> {
    let width = graph.outputs().get(1).and_then(|&o| graph.extents(o).ok()).and_then(|e| e.get(1).copied());
    match (loss, dataset.targets.class_count(), width) {
        (Loss::CrossEntropy { .. }, Some(classes), Some(width)) if classes > width => Err(Error::input(
            "the model",
            format_args!("it has {width} outputs; {} has {classes} classes", dataset.name),
        )
        .expected("one output for each class")),
        (Loss::CrossEntropy { .. }, None, _) => Err(Error::input(
            "option `loss`",
            format_args!("cross entropy needs classes; {} has numbers", dataset.name),
        )
        .remedy("choose another: option `loss=mse`")),
        (Loss::MeanSquaredError | Loss::BinaryCrossEntropy, Some(_), _) => {
            Err(Error::input("option `loss`", format_args!("{} has classes, not numbers", dataset.name))
                .remedy("choose another: option `loss=cross-entropy`"))
        }
        _ => Ok(()),
    }
}

/// How good a network is on some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Fraction of samples whose largest output is their class; `None` for regressions.
    pub accuracy: Option<f64>,
    /// Mean loss.
    pub loss: f64,
    /// Number of samples.
    pub samples: usize,
}

/// Runs `model` on the given samples, as they are.
pub fn evaluate(
    model: &Model,
    data: &TrainingData,
    indices: &[u32],
    loss: Loss,
    plan: &PlanOptions,
) -> Result<Evaluation> {
    let place = "evaluation";
    let batch = indices.len().clamp(1, 256);
    let mut bound = bound_to_samples(model, batch, &data.dataset.shape.dims())
        .map_err(|e| Error::input("the model", e))?;
    let output = logits(&mut bound.graph).map_err(|e| Error::input("the model", e))?;
    bound.graph.set_outputs(vec![output]);
    let width = bound.graph.extents(output).map_err(|e| Error::input("the model", e))?[1];
    let store = Store::new(&bound.parameters);
    let compiled = Plan::compile(&bound.graph, &store, plan).map_err(refused(place))?;
    let mut session = Session::new(compiled, &store).map_err(refused(place))?;
    let options = BatchOptions::evaluation(batch).normalised(INPUT, data.normalisation.clone());
    let source = Batches::new(data.dataset.clone(), indices, options)?;
    let mut loader = Loader::new(Arc::new(source), PREFETCH);
    let (mut right, mut total, mut seen) = (0usize, 0.0, 0usize);
    for _ in 0..loader.epoch_len() {
        let batch = loader.next_batch()?;
        let inputs = session.input_mut::<f32>(0).map_err(refused(place))?;
        bytemuck::cast_slice_mut(inputs).copy_from_slice(&batch.columns[0].bytes);
        session.run().map_err(refused(place))?;
        let outputs = &session.output::<f32>(0).map_err(refused(place))?[..batch.real * width];
        let targets = &batch.columns[1];
        let (mut labels, values) =
            (targets.to_i64().unwrap_or_default(), targets.to_f32().unwrap_or_default());
        labels.truncate(batch.real);
        if let Some(label) = labels.iter().find(|&&l| l as usize >= width) {
            let found = format!("a sample has the class {label}; the model has {width} outputs");
            return Err(Error::input("the model", found).expected("one output for each class"));
        }
        let values = &values[..values.len().min(batch.real * width)];
        total += loss.value(outputs, &labels, values, batch.real) * batch.real as f64;
        let best = |row: &[f32]| (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        right += outputs
            .chunks_exact(width)
            .zip(&labels)
            .filter(|(row, l)| best(row) == Some(**l as usize))
            .count();
        seen += batch.real;
    }
    let accuracy = data.dataset.targets.class_count().map(|_| right as f64 / seen.max(1) as f64);
    Ok(Evaluation { accuracy, loss: total / seen.max(1) as f64, samples: seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Init, build};
    use wattle_data::{DataSpec, LoadOptions, SplitOptions, Splits};
    use wattle_engine::Cpu;

    fn digits() -> (TrainingData, Splits) {
        let dataset = Arc::new(DataSpec::parse("digits").unwrap().load(&LoadOptions::default()).unwrap());
        let splits = Splits::new(&dataset, &SplitOptions::default()).unwrap();
        let normalisation = Normalisation::measure(&dataset, splits.train()).unwrap();
        let indices = splits.train().to_vec();
        (TrainingData { dataset, indices, normalisation }, splits)
    }

    fn options(optimizer: Optimizer) -> TrainOptions {
        TrainOptions {
            batch: 32,
            length: "3ep".into(),
            learning_rate: 0.05,
            schedule: "constant".into(),
            optimizer,
            loss: Loss::CrossEntropy { label_smoothing: 0.0 },
            augmentation: "none".into(),
            seed: 5,
        }
    }

    const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };

    fn plan(threads: usize) -> PlanOptions {
        PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()))
    }

    #[test]
    fn three_epochs_on_digits_teach_most_of_them() {
        let (data, splits) = digits();
        let mut model = build("small-conv", &data.dataset.shape, 10, Init::KaimingNormal, 1).unwrap();
        let mut trainer = Trainer::new(&model, &data, &options(SGD), &plan(1), Start::default()).unwrap();
        let total = trainer.timeline().total;
        let first = trainer.advance().unwrap();
        let mut last = first;
        while trainer.step() < total {
            last = trainer.advance().unwrap();
        }
        assert!(last < 0.5 * first, "loss went from {first} to {last}");
        model.parameters = trainer.parameters().unwrap().clone();
        let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
        let found = evaluate(&model, &data, splits.validation(), loss, &plan(1)).unwrap();
        assert!(found.accuracy.unwrap() > 0.9, "{found:?}");
    }

    #[test]
    fn stopping_and_going_on_changes_no_bit_and_neither_does_the_number_of_threads() {
        let (data, _) = digits();
        let model = build("small-conv", &data.dataset.shape, 10, Init::KaimingNormal, 1).unwrap();
        let adam = Optimizer::Adam { weight_decay: 1e-4 };
        for optimizer in [SGD, adam] {
            let options = TrainOptions { learning_rate: 0.01, ..options(optimizer) };
            let run = |from: &Model, start: u64, end: u64, threads: usize| {
                let mut trainer =
                    Trainer::new(from, &data, &options, &plan(threads), Start { step: start, fresh_at: 0 })
                        .unwrap();
                while trainer.step() < end {
                    trainer.advance().unwrap();
                }
                trainer.parameters().unwrap().clone()
            };
            let whole = run(&model, 0, 12, 1);
            let half = Model { parameters: run(&model, 0, 5, 1), ..model.clone() };
            assert_eq!(run(&half, 5, 12, 2), whole);
        }
    }
}
