//! An experiment: a network, what it learns from, and how; everything that decides a training, in one value.

use std::sync::Arc;

use serde::Serialize;
use wattle_data::error::{Error, Result};
use wattle_data::{Batch, Source};
use wattle_engine::PlanOptions;
use wattle_graph::Model;

use crate::fingerprint;
use crate::moment::Timeline;
use crate::options::TrainOptions;
use crate::policy::StepPolicy;
use crate::run_directory::{Config, RunDirectory};

/// Where a training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Start {
    /// Steps done already: the schedule and the order of samples go on from here.
    pub step: u64,
    /// The step at which the optimiser's state was zero: its own count of updates starts there. After a rewind
    /// that is the step rewound to; after an interruption, wherever the interrupted training had started.
    pub fresh_at: u64,
}

/// What is trained, on what, and how.
///
/// ```
/// use std::sync::Arc;
/// use wattle_data::{DataSpec, LoadOptions, Normalisation, SplitOptions, Splits};
/// use wattle_engine::{Cpu, PlanOptions};
/// use wattle_train::experiment::Experiment;
/// use wattle_train::fit::fit;
/// use wattle_train::network::{Init, build};
/// use wattle_train::objective::Loss;
/// use wattle_train::options::TrainOptions;
/// use wattle_train::training_data::TrainingData;
///
/// let dataset = Arc::new(DataSpec::parse("digits")?.load(&LoadOptions::default())?);
/// let splits = Splits::new(&dataset, &SplitOptions::default())?;
/// let normalisation = Normalisation::measure(&dataset, splits.train())?;
/// let data = TrainingData { indices: splits.train().to_vec(), dataset, normalisation };
/// let model = build("lenet-300-100", &data.dataset.shape, 10, Init::KaimingNormal, 0)?;
/// let options = TrainOptions { length: "20it".parse()?, ..TrainOptions::new(Loss::cross_entropy()) };
/// let source = data.source(&options)?;
/// let plan = PlanOptions::new(Arc::new(Cpu::new(1)?));
/// let fitted = fit(&Experiment::new(model, source, options, plan), &mut |_| {})?;
/// assert_eq!(fitted.steps, 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Experiment {
    /// The network and the weights it starts from, optimiser state included where there is any.
    pub model: Model,
    /// What it learns from.
    pub data: Arc<dyn Source>,
    /// What it is judged by after every epoch; `None` for not at all.
    pub validation: Option<Arc<dyn Source>>,
    /// How it learns.
    pub options: TrainOptions,
    /// What the graphs are planned for.
    pub plan: PlanOptions,
    /// Which network learns at which step; `None` for the model, always.
    pub policy: Option<Arc<dyn StepPolicy>>,
    /// Where the training starts.
    pub start: Start,
    /// The step to stop at, if that is before the end.
    pub stop_at: Option<u64>,
    /// Where it is kept: a finished training is read back, an interrupted one goes on.
    pub directory: Option<Arc<RunDirectory>>,
}

/// All that decides the result, for a key.
#[derive(Serialize)]
struct Description<'a> {
    model: String,
    data: String,
    /// Only where it decides something.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<String>,
    options: &'a TrainOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    start: Start,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_at: Option<u64>,
    arithmetic: String,
    /// Kernels of other crates, by what names their code; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<String>,
}

impl Experiment {
    /// From the beginning to the end, kept nowhere and judged by nothing.
    pub fn new(model: Model, data: Arc<dyn Source>, options: TrainOptions, plan: PlanOptions) -> Experiment {
        let (validation, policy, start, stop_at, directory) = (None, None, Start::default(), None, None);
        Experiment { model, data, validation, options, plan, policy, start, stop_at, directory }
    }

    /// All that decides the result, as a JSON object: the network by its fingerprint, the data by those of the sources,
    /// every option, and what the bits of the arithmetic depend on. The number of threads is no part of it.
    pub fn description(&self) -> Result<serde_json::Value> {
        // Every option is named, so that a new one cannot be forgotten. A limit of memory refuses; it changes no bit.
        let PlanOptions { cpu, rewrite, freeze, memory_limit: _, sparse, timings, batch, kernels } =
            &self.plan;
        let isa = cpu.isa.name();
        let timed = if timings.is_some() { ", timed" } else { "" };
        let build = wattle_engine::BUILD;
        let description = Description {
            model: fingerprint::of_model(&self.model),
            data: self.data.fingerprint(),
            validation: match (&self.validation, &self.options.stop) {
                (Some(source), Some(_)) => Some(source.fingerprint()),
                _ => None,
            },
            options: &self.options,
            policy: self.policy.as_ref().map(|policy| policy.fingerprint()),
            start: self.start,
            stop_at: self.stop_at,
            arithmetic: format!(
                "{build}, {isa}, rewrite {rewrite}, freeze {freeze:?}, sparse {sparse:?}, batch {batch:?}{timed}"
            ),
            kernels: kernels.identities().into_iter().map(str::to_owned).collect(),
        };
        serde_json::to_value(description).map_err(|e| Error::machine("the configuration", e))
    }

    /// The description as the configuration of a directory.
    pub fn config(&self) -> Result<Config> {
        // A directory of its own has no defaults: it is named by its place.
        Config::new("fit", &self.description()?, &serde_json::json!({}))
    }

    /// The hash of the description, which checkpoints carry.
    pub fn key(&self) -> Result<String> {
        Ok(self.config()?.hash())
    }

    /// Epochs and steps of the whole training.
    ///
    /// # Errors
    /// When an epoch has fewer batches than are added up for one step, or the schedule does not fit.
    pub fn timeline(&self) -> Result<Timeline> {
        let (batches, accumulate) = (self.data.epoch_len(), self.options.accumulate);
        if accumulate == 0 || batches / accumulate == 0 {
            let found = format!("{accumulate} batches for each step; an epoch has {batches}");
            return Err(Error::input("option `accumulate`", found)
                .expected("at least one, and no more than an epoch has"));
        }
        let per_epoch = Timeline::of_epochs(1, batches / accumulate);
        let timeline = Timeline { total: self.options.length.resolve(&per_epoch), ..per_epoch };
        if timeline.total > 0 {
            self.options.schedule.check(&timeline)?;
        }
        Ok(timeline)
    }

    /// Samples in a batch.
    pub(crate) fn batch(&self) -> Result<usize> {
        let mut batch = Batch::default();
        self.data.fill(0, &mut batch)?;
        let count = batch.columns.first().and_then(|column| column.extents.first()).copied().unwrap_or(0);
        if count != self.options.batch {
            return Err(Error::input("the source", format_args!("batches of {count} samples"))
                .expected(format_args!("batches of {}, as the options say", self.options.batch)));
        }
        if batch.real != count {
            let found = format!("a batch of {} samples, of which {} are real", count, batch.real);
            return Err(Error::input("the source", found)
                .expected("full batches to train on")
                .remedy("drop the rest of an epoch, or choose smaller batches"));
        }
        Ok(count)
    }
}
