//! `wattle train`: a network, from data, with a receipt.

use std::path::PathBuf;

use wattle_jobs::{TrainJob, train};
use wattle_report::receipt as receipts;

use super::model::{NETWORK, Network};
use super::training::{ColumnArgs, DataArgs, TrainArgs, inputs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle train`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle train lenet-300-100 --data digits --epochs 20 --out run")]
#[command(group = clap::ArgGroup::new("needed").args(NETWORK).required(true))]
pub struct Args {
    #[command(flatten)]
    model: Network,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Write a model that normalises its inputs itself, by nodes: it takes numbers as the data store them.
    #[arg(long)]
    with_normalisation: bool,
    /// Folder of the run; by default one named by what decides its result, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    /// What is asked for.
    pub fn job(self) -> TrainJob {
        TrainJob {
            model: self.model.name().unwrap_or_default(),
            data: self.data.with_columns(self.columns),
            init_from: self.train.init_from.clone(),
            learning: self.train.options(),
            with_normalisation: self.with_normalisation,
            out: self.out,
        }
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let trained = train(&args.job(), context, &mut Bars::listening()?)?;
    let quality = match trained.test_accuracy {
        Some(accuracy) => format!("test accuracy {:.2} %", 100.0 * accuracy),
        None => format!("test loss {:.4}", trained.test_loss),
    };
    let metrics: String =
        trained.test_metrics.iter().map(|(name, value)| format!(", {name} {value:.4}")).collect();
    let how = match (trained.reused, trained.stopped_early) {
        (true, _) => " (finished before; nothing was computed)",
        (false, true) => " (stopped early)",
        (false, false) => "",
    };
    let text = format!(
        "{quality}{metrics} on {} samples after {} steps{how}\n{}{}model {}\n\n{}",
        trained.test_samples,
        trained.steps,
        inputs(&trained.normalisation),
        told(&trained.notes),
        trained.files.model.display(),
        receipts::summary(&trained.receipt)
    );
    context.print(&trained, &text)
}
