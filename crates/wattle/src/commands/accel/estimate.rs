//! `wattle accel estimate`: latency and energy of a model on an architecture, layer by layer.

use std::path::PathBuf;

use wattle_accel::{listing, report};
use wattle_jobs::accel::{EstimateOptions, estimate};
use wattle_jobs::export::write_new;

use super::request::{Given, ModelArgs};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel estimate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel estimate model.onnx --arch eyeriss-v2 --input x=1x3x224x224")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// Also write an HTML report.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let options = EstimateOptions { model: args.model.options(), hardware: args.given.options(args.arch) };
    let found = estimate(&options, context, &mut Bars::default())?;
    if let Some(path) = &args.report {
        let html = report(&found.arch, &found.workload, &found.estimate)?;
        write_new(path, &html)?;
    }
    context.print(&found, &listing(&found.estimate, &found.workload))
}
