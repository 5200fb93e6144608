//! The flags and preparations that `train`, `eval`, `shrink` and `ticket find` share.

use std::path::Path;
use std::sync::Arc;

use wattle_data::{DataSpec, Dataset, LoadOptions, Normalisation, SplitOptions, Splits, Task};
use wattle_graph::{Model, Parameters, Source};
use wattle_jobs::learning::OptimizerName;
use wattle_train::loss::Loss;
use wattle_train::network::{self, Init};
use wattle_train::trainer::{TrainOptions, TrainingData};

use crate::failure::Failure;
use crate::names::named;
use wattle_jobs::models;

/// Which data, and how it is divided.
#[derive(clap::Args, Clone, Debug)]
pub struct DataArgs {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    #[arg(long, default_value = "digits", value_name = "SPEC")]
    pub data: String,
    /// Share of the training samples kept aside for choosing: `10%` or `0.1`; 0.2 by default.
    #[arg(long, value_name = "SHARE", value_parser = wattle_data::parse_share)]
    pub validation: Option<f64>,
}

/// How a network is trained; what is left out is chosen by the command and printed.
#[derive(clap::Args, Clone, Debug)]
pub struct TrainArgs {
    /// Passes over the training samples.
    #[arg(long, value_name = "E")]
    pub epochs: Option<u64>,
    /// Samples in a batch.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: Option<u32>,
    /// sgd (momentum 0.9), sgd-plain, nesterov, adam or adamw.
    #[arg(long, value_parser = named(&OptimizerName::ALL))]
    pub optimizer: Option<OptimizerName>,
    /// Learning rate that the schedule scales.
    #[arg(long)]
    pub lr: Option<f64>,
    /// Weight decay.
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// `constant`, `step:80ep,120ep:0.1`, `cosine`, `linear`, `inverse-sqrt:4000it`; `+warmup:5ep` may follow.
    #[arg(long)]
    pub schedule: Option<String>,
    /// cross-entropy, mse or bce.
    #[arg(long, value_enum)]
    pub loss: Option<LossName>,
    /// Share of the target spread over all classes.
    #[arg(long, default_value_t = 0.0, value_name = "E")]
    pub label_smoothing: f32,
    /// `none`, `crop:4`, `flip`, `crop:4+flip`.
    #[arg(long)]
    pub augment: Option<String>,
    /// Decides initial weights, order of samples, augmentation and ties.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Losses by name.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossName {
    /// Cross entropy of classes.
    CrossEntropy,
    /// Mean squared error.
    Mse,
    /// Binary cross entropy.
    Bce,
}

/// What a command trains with when nothing is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Passes over the data.
    pub epochs: u64,
    /// Samples in a batch.
    pub batch: u32,
    /// The optimiser.
    pub optimizer: OptimizerName,
    /// Learning rate.
    pub lr: f64,
    /// Schedule.
    pub schedule: &'static str,
}

impl TrainArgs {
    /// The full options: what was asked for, and the defaults for the rest.
    pub fn options(&self, defaults: Defaults, dataset: &Dataset) -> Result<TrainOptions, Failure> {
        let lr = self.lr.unwrap_or(defaults.lr);
        if !(lr > 0.0 && lr.is_finite()) {
            return Err(Failure::Input(format!("--lr: found {lr}, expected a positive number")));
        }
        let decay = self.weight_decay.unwrap_or(0.0);
        if !(decay >= 0.0 && decay.is_finite()) {
            return Err(Failure::Input(format!("--weight-decay: found {decay}, expected 0 or more")));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing;
            return Err(Failure::Input(format!("--label-smoothing: found {found}, expected 0 to below 1")));
        }
        let classes = dataset.targets.class_count().is_some();
        let loss = match self.loss.unwrap_or(if classes { LossName::CrossEntropy } else { LossName::Mse }) {
            LossName::CrossEntropy => Loss::CrossEntropy { label_smoothing: self.label_smoothing },
            LossName::Mse => Loss::MeanSquaredError,
            LossName::Bce => Loss::BinaryCrossEntropy,
        };
        Ok(TrainOptions {
            batch: self.batch.unwrap_or(defaults.batch) as usize,
            length: format!("{}ep", self.epochs.unwrap_or(defaults.epochs)),
            learning_rate: lr,
            schedule: self.schedule.clone().unwrap_or_else(|| defaults.schedule.to_string()),
            optimizer: self.optimizer.unwrap_or(defaults.optimizer).with_decay(decay),
            loss,
            augmentation: self.augment.clone().unwrap_or_else(|| "none".into()),
            seed: self.seed,
        })
    }
}

/// Loaded data, divided and measured.
pub struct Prepared {
    /// What training sees.
    pub training: TrainingData,
    /// All parts; the test part is handed out once.
    pub splits: Splits,
}

/// Loads the data, divides it, and measures it on the training part.
pub fn prepare(args: &DataArgs, loss: Option<LossName>) -> Result<Prepared, Failure> {
    let task = match loss {
        Some(LossName::Mse | LossName::Bce) => Some(Task::Values),
        _ => None,
    };
    let dataset = Arc::new(DataSpec::parse(&args.data)?.load(&LoadOptions { image_shape: None, task })?);
    let validation = args.validation.unwrap_or(wattle_data::split::VALIDATION);
    let splits = Splits::new(&dataset, &SplitOptions { validation, ..SplitOptions::default() })?;
    let normalisation = Normalisation::measure(&dataset, splits.train())?;
    let indices = splits.train().to_vec();
    Ok(Prepared { training: TrainingData { dataset, indices, normalisation }, splits })
}

/// The model to train: a file with its weights, or a network by name, freshly initialised.
pub fn model(name: &str, data: &TrainingData, init: Init, seed: u64) -> Result<Model, Failure> {
    let is_name = network::NETWORKS.iter().any(|(n, _)| *n == name);
    if !is_name && (name.ends_with(".onnx") || Path::new(name).exists()) {
        return Ok(models::load(Path::new(name))?);
    }
    let outputs = data.dataset.targets.class_count().unwrap_or(1);
    Ok(network::build(name, &data.dataset.shape, outputs, init, seed)?)
}

/// The parameters that the model itself has, without optimiser state.
pub fn own_parameters(model: &Model, trained: &Parameters) -> Parameters {
    let mut own = Parameters::new();
    for id in model.graph.value_ids() {
        let Source::Parameter(parameter) = &model.graph.value(id).source else { continue };
        if let Some(tensor) = trained.get(&parameter.tensor) {
            own.insert(parameter.tensor.clone(), tensor.clone());
            if let Some(mask) = trained.mask(&parameter.tensor) {
                own.set_mask(&parameter.tensor, mask.clone());
            }
        }
    }
    own
}
