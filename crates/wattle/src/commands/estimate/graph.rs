//! The graph of `wattle estimate`, and where its time goes.

use std::path::PathBuf;

use wattle_jobs::estimate::{Estimated, GraphOptions, TrainingRuns};
use wattle_jobs::models::{InputText, parse_input};
use wattle_jobs::training::learning::OptimizerName;
use wattle_report::{Align, Table, number};

use crate::names::named;

/// A graph, and how often it runs.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("which_model").args(["model", "model_flag"]))]
pub struct GraphArgs {
    /// The ONNX model; with --train also a network by name, such as resnet-20.
    #[arg(id = "model", value_name = "MODEL", conflicts_with_all = ["flops", "params", "device_hours"])]
    first: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(id = "model_flag", long = "model", value_name = "MODEL", conflicts_with_all = ["flops", "params", "device_hours"])]
    flag: Option<PathBuf>,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = parse_input, requires = "which_model")]
    inputs: Vec<(String, InputText)>,
    /// Train the model as a classifier instead of answering 1000 requests.
    #[arg(long, requires_all = ["which_model", "samples"])]
    train: bool,
    /// Samples of the training data.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// Passes over them.
    #[arg(long, default_value_t = 1, value_name = "E", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Samples in a batch.
    #[arg(long, default_value_t = 32, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Optimiser of the training step.
    #[arg(long, default_value = "sgd", value_parser = named(&OptimizerName::ALL))]
    optimizer: OptimizerName,
    /// Run it a few times too and say how far off the estimate is.
    #[arg(long, requires = "which_model", conflicts_with = "device")]
    check: bool,
}

impl GraphArgs {
    fn model(&self) -> Option<&PathBuf> {
        self.first.as_ref().or(self.flag.as_ref())
    }

    /// Whether there is a graph, so that networks are timed.
    pub fn is_given(&self) -> bool {
        self.model().is_some()
    }

    /// The graph, if there is one.
    pub fn options(&self) -> Option<GraphOptions> {
        let training = self.samples.filter(|_| self.train).map(|samples| TrainingRuns {
            samples,
            epochs: self.epochs,
            batch: self.batch as usize,
            optimizer: self.optimizer,
        });
        let (inputs, check) = (self.inputs.clone(), self.check);
        self.model().cloned().map(|model| GraphOptions { model, inputs, training, check })
    }
}

/// Where the time goes, most of it first.
pub fn table(found: &Estimated) -> String {
    if found.kernels.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("kernel", Align::Left),
        ("steps", Align::Right),
        ("predicted", Align::Right),
        ("measured", Align::Right),
    ]);
    for k in &found.kernels {
        let measured = k.measured.map_or(String::new(), number::seconds);
        table.row([k.kernel.clone(), k.steps.to_string(), number::seconds(k.predicted), measured]);
    }
    format!("\n{table}")
}
