//! `wattle`: model.onnx in, leaner model.onnx out, with a receipt. One file a command, nothing clever.

mod accounting;
#[cfg(feature = "networks")]
mod bars;
mod commands;
mod context;
mod failure;
mod flags;
#[cfg(all(test, feature = "networks"))]
mod keys;
#[cfg(feature = "networks")]
mod names;
#[cfg(all(test, feature = "networks"))]
mod pages;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::context::{Context, Globals};

/// Train and deploy deep networks for a fraction of the energy, and know what they cost.
#[derive(Parser)]
#[command(name = "wattle", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut context = match Context::new(cli.globals, cli.command.computes()) {
        Ok(context) => context,
        Err(failure) => return failure.report(),
    };
    match cli.command.run(&mut context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
