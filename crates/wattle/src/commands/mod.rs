//! The commands, one file each.

mod bench;
mod profile;
mod run;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// What wattle can be asked.
#[derive(Subcommand)]
pub enum Command {
    /// Where parameters, MACs, bytes and milliseconds go, layer by layer.
    Profile(profile::Args),
    /// Run a model on inputs from .npy files.
    Run(run::Args),
    /// Time a model, or a training step of it.
    Bench(bench::Args),
}

impl Command {
    /// Runs the command.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Command::Profile(args) => profile::run(args, context),
            Command::Run(args) => run::run(args, context),
            Command::Bench(args) => bench::run(args, context),
        }
    }
}
