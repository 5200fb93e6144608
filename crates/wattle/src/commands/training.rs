//! The flags that `train`, `eval`, `shrink` and `ticket find` share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wattle_data::{Augmentation, ColumnMap, Missing, NormalisationChoice};
use wattle_jobs::training::data::DataOptions;
use wattle_jobs::training::learning::{LearningOptions, OptimizerName};
use wattle_jobs::training::normalised::Normalised;
use wattle_train::early_stop::EarlyStop;
use wattle_train::groups::{Names, Rates};
use wattle_train::metric::Metric;
use wattle_train::objective::Loss;
use wattle_train::schedule::Schedule;

use crate::flags;
use crate::names::named;

/// Which data, and how it is divided.
#[derive(clap::Args, Clone, Debug)]
pub struct DataArgs {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    #[arg(long, default_value = "digits", value_name = "SPEC")]
    data: String,
    /// Share of the training samples kept aside for choosing: `10%` or `0.1`; 0.2 by default.
    #[arg(long, value_name = "SHARE", value_parser = wattle_data::parse_share)]
    validation: Option<f64>,
    /// What float inputs are normalised with: none, unit (x / 255), imagenet, measured (on the training part), or
    /// mean=M,std=S with one number or one a channel (M;M;M). If left out as the model's file says, else measured.
    #[arg(long, value_name = "HOW")]
    normalise: Option<NormalisationChoice>,
}

/// Which columns of the data are read.
#[derive(clap::Args, Clone, Debug)]
pub struct ColumnArgs {
    /// Which arrays or columns feed which input of the model, where names differ: `input=array,left=a`.
    #[arg(long, value_name = "INPUT=COLUMN")]
    columns: Option<ColumnMap>,
    /// The array or column that is to be learnt; may be repeated.
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// What to do about cells without a value: refuse, drop or mean.
    #[arg(long, default_value = "refuse")]
    missing: Missing,
    /// A tokenizer.json for text.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl DataArgs {
    /// What the flags say.
    pub fn options(self) -> DataOptions {
        let DataArgs { data, validation, normalise } = self;
        DataOptions { validation, normalise, ..DataOptions::of(data) }
    }

    /// What the flags say, with columns chosen by name.
    pub fn with_columns(self, columns: ColumnArgs) -> DataOptions {
        columns.of(self.options())
    }
}

impl ColumnArgs {
    /// Data whose columns are chosen by what the flags say.
    pub fn of(self, data: DataOptions) -> DataOptions {
        DataOptions {
            columns: self.columns.unwrap_or_default(),
            targets: self.targets,
            missing: self.missing,
            tokenizer: self.tokenizer,
            ..data
        }
    }
}

/// How a network is trained; what is left out is chosen by the command and printed.
#[derive(clap::Args, Clone, Debug)]
pub struct TrainArgs {
    /// Passes over the training samples.
    #[arg(long, value_name = "E")]
    epochs: Option<u64>,
    /// Samples in a batch.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Option<u32>,
    /// Optimiser: sgd has momentum 0.9.
    #[arg(long, value_parser = named(&OptimizerName::ALL))]
    optimizer: Option<OptimizerName>,
    /// Learning rate that the schedule scales.
    #[arg(long)]
    lr: Option<f64>,
    /// Weight decay.
    #[arg(long)]
    weight_decay: Option<f64>,
    /// `constant`, `step:80ep,120ep:0.1`, `cosine`, `linear`, `inverse-sqrt:4000it`; `+warmup:5ep` may follow.
    #[arg(long)]
    schedule: Option<Schedule>,
    /// cross-entropy, bce, mse, mae, huber, `output:NAME` for a loss that the model computes, or a sum such as `mse + 0.5*mae`.
    #[arg(long)]
    loss: Option<Loss>,
    /// Share of the target spread over all classes.
    #[arg(long, default_value_t = 0.0, value_name = "E")]
    label_smoothing: f32,
    /// The label of positions that do not count.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ignore_index: Option<i64>,
    /// `none`, `crop:4`, `flip`, `crop:4+flip`.
    #[arg(long)]
    augment: Option<Augmentation>,
    /// Decides initial weights, order of samples, augmentation and ties.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Batches whose gradients are averaged before each update.
    #[arg(long, value_name = "N")]
    accumulate: Option<u64>,
    /// Largest norm of all gradients together; longer ones are shortened to it.
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// Parameters that are not trained, as names or patterns: `encoder.*,head.bias`.
    #[arg(long, value_name = "NAMES")]
    freeze: Option<Names>,
    /// Parameters whose weight does not decay: names, patterns, `bias`, `norm`.
    #[arg(long, value_name = "NAMES")]
    no_decay: Option<Names>,
    /// Factors of the learning rate: `encoder.*=0.1,head.*=2`.
    #[arg(long, value_name = "RATES")]
    lr_scale: Option<Rates>,
    /// Give moving averages of the weights, which keep this share at each step: 0.999.
    #[arg(long, value_name = "SHARE")]
    average: Option<f64>,
    /// Stop after so many epochs in which the validation part got no better: `5`, `5:metric=accuracy,delta=0.001`.
    #[arg(long, value_name = "EPOCHS")]
    stop: Option<EarlyStop>,
    /// What is told beside the loss, such as accuracy, top-5, mean-iou, perplexity, f1, r2; may be repeated.
    #[arg(long = "metric", value_name = "METRIC")]
    metrics: Vec<Metric>,
    /// Weights to start from, by name: a .safetensors file.
    #[arg(long, value_name = "FILE")]
    pub init_from: Option<PathBuf>,
    /// Learn the answers of this .onnx model instead of labels.
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// What both answers are divided by.
    #[arg(long, value_name = "T", requires = "teacher")]
    temperature: Option<f64>,
}

impl TrainArgs {
    /// What the flags say.
    pub fn options(self) -> LearningOptions {
        LearningOptions {
            epochs: self.epochs,
            batch: self.batch.map(|n| n as usize),
            optimizer: self.optimizer,
            lr: self.lr,
            weight_decay: self.weight_decay,
            schedule: self.schedule,
            loss: self.loss,
            label_smoothing: self.label_smoothing,
            ignore_index: self.ignore_index,
            augment: self.augment,
            seed: self.seed,
            accumulate: self.accumulate,
            clip: self.clip,
            freeze: self.freeze.unwrap_or_default(),
            no_decay: self.no_decay.unwrap_or_default(),
            lr_scale: self.lr_scale.unwrap_or_default(),
            average: self.average,
            stop: self.stop,
            metrics: self.metrics,
            teacher: self.teacher,
            temperature: self.temperature,
        }
    }
}

/// Notes as lines for people.
pub fn told(notes: &[String]) -> String {
    notes.iter().map(|note| format!("note: {}\n", flags::typed(note))).collect()
}

/// What inputs were normalised with, as lines for people.
pub fn inputs(normalised: &BTreeMap<String, Normalised>) -> String {
    normalised.iter().map(|(input, by)| format!("input {input}: {by}\n")).collect()
}
