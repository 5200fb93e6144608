//! `wattle shrink`: model.onnx in, leaner model.onnx out, with a receipt.

use std::path::PathBuf;

use wattle_jobs::shrink::SparseForm;
use wattle_jobs::shrink_report::table;
use wattle_jobs::{ShrinkJob, shrink};
use wattle_report::receipt as receipts;
use wattle_train::moment::Moment;

use super::training::{DataArgs, TrainArgs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// Arguments of `wattle shrink`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: wattle shrink --model m.onnx --data idx:fashion-mnist --tolerance 0.5 --out lean"
)]
pub struct Args {
    /// An .onnx classifier, or lenet-300-100, lenet-5, resnet-20, small-conv.
    #[arg(long, default_value = "small-conv")]
    model: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    train: TrainArgs,
    /// Points of validation accuracy (of 100) that may be lost.
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
            model: self.model,
            data: self.data.options(),
            init_from: self.train.init_from.clone(),
            learning: self.train.options(),
            tolerance: self.tolerance,
            max_rounds: self.max_rounds,
            rewind: self.rewind,
            sparse_format: if self.dense { SparseForm::Dense } else { self.sparse_format },
            accel: self.accel,
            out: self.out,
        }
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let shrunk = shrink(&args.job(), context, &mut Bars::default())?;
    let text = format!(
        "{}\n{}\nlean model {}\nreport     {}\n\n{}",
        table(&shrunk),
        told(&shrunk.notes),
        shrunk.files.model.display(),
        shrunk.files.report.display(),
        receipts::summary(&shrunk.receipt)
    );
    context.print(&shrunk, &text)
}
