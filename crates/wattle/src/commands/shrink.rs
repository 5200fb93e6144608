//! `wattle shrink`: model.onnx in, leaner model.onnx out, with a receipt.

use std::path::PathBuf;

use wattle_jobs::shrink::SparseForm;
use wattle_jobs::shrink_report::table;
use wattle_jobs::{ShrinkJob, shrink};
use wattle_report::receipt as receipts;
use wattle_train::moment::Moment;

use super::model::Network;
use super::training::{ColumnArgs, DataArgs, TrainArgs, inputs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// The network that is shrunk where none is named.
const DEFAULT: &str = "small-conv";

/// Arguments of `wattle shrink`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle shrink m.onnx --data idx:fashion-mnist --tolerance 0.5 --out lean")]
pub struct Args {
    #[command(flatten)]
    model: Network,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// How much may be lost on the validation part: points of 100 of a share (accuracy, F1, mean IoU), percent of the dense
    /// network's value of anything else (loss, perplexity, R2, errors). The first --metric counts, or the usual one.
    #[arg(long, default_value_t = 1.0)]
    tolerance: f64,
    /// Rounds of pruning, at most.
    #[arg(long, default_value_t = 14, value_name = "N")]
    max_rounds: u32,
    /// Point of the dense training that tickets start from.
    #[arg(long, default_value = "2%", value_name = "STEP")]
    rewind: Moment,
    /// How lean.onnx keeps its zeros.
    #[arg(long, default_value = "compact", value_name = "FORM", value_parser = named(&SparseForm::ALL))]
    sparse_format: SparseForm,
    /// Every zero as a number, for runtimes that do not fold constants: --sparse-format dense.
    #[arg(long, conflicts_with = "sparse_format")]
    dense: bool,
    /// Write a lean.onnx that normalises its inputs itself, by nodes: it takes numbers as the data store them.
    #[arg(long)]
    with_normalisation: bool,
    /// Also what this architecture would make of both networks (see `wattle accel archs`), or one in a .toml or
    /// .yaml file: modelled, with the zeros of weights and of activations on training samples as counted.
    #[arg(long, value_name = "ARCH")]
    accel: Option<String>,
    /// Folder for the results; by default one named by what decides them, under `runs`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    /// What is asked for.
    pub fn job(self) -> ShrinkJob {
        ShrinkJob {
            model: self.model.name().unwrap_or_else(|| DEFAULT.into()),
            data: self.data.with_columns(self.columns),
            init_from: self.train.init_from.clone(),
            learning: self.train.options(),
            tolerance: self.tolerance,
            max_rounds: self.max_rounds,
            rewind: self.rewind,
            sparse_format: if self.dense { SparseForm::Dense } else { self.sparse_format },
            with_normalisation: self.with_normalisation,
            accel: self.accel,
            out: self.out,
        }
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let shrunk = shrink(&args.job(), context, &mut Bars::listening()?)?;
    let text = format!(
        "{}\n{}{}\nlean model {}\nreport     {}\n\n{}",
        table(&shrunk),
        inputs(&shrunk.normalisation),
        told(&shrunk.notes),
        shrunk.files.model.display(),
        shrunk.files.report.display(),
        receipts::summary(&shrunk.receipt)
    );
    context.print(&shrunk, &text)
}
