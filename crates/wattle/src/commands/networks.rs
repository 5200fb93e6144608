//! The commands that read, train or run networks.

use super::{accel, bench, data, eval, predict, profile, run, shrink, ticket, train};
use crate::context::Context;
use crate::failure::Failure;

/// What wattle can do with networks.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Train, find the sparsest network that is as good, and write it with a receipt. The main job.
    Shrink(Box<shrink::Args>),
    /// Train a network.
    Train(Box<train::Args>),
    /// How good a model is on data.
    Eval(Box<eval::Args>),
    /// What a model says of images, tables, arrays and texts: classes and probabilities.
    Predict(Box<predict::Args>),
    /// What data are understood as: columns, classes, parts, samples to look at.
    Data(Box<data::Args>),
    /// Lottery tickets: small networks inside large ones.
    #[command(subcommand)]
    Ticket(ticket::Command),
    /// Where parameters, MACs, bytes and milliseconds go, layer by layer.
    Profile(profile::Args),
    /// Run a model on inputs from .npy files.
    Run(run::Args),
    /// What a model would cost on a flexible sparse accelerator (modelled).
    #[command(subcommand)]
    Accel(accel::Command),
    /// Time a model, or a training step of it.
    Bench(Box<bench::Args>),
}

impl Command {
    /// See [`super::Command`]: the others meter their phases and say what the work was.
    pub fn is_metered_whole(&self) -> bool {
        match self {
            Command::Profile(args) => args.measure,
            Command::Accel(command) => command.searches(),
            Command::Bench(_) => true,
            _ => false,
        }
    }

    /// Runs the command.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Command::Shrink(args) => shrink::run(*args, context),
            Command::Train(args) => train::run(*args, context),
            Command::Eval(args) => eval::run(*args, context),
            Command::Predict(args) => predict::run(*args, context),
            Command::Data(args) => data::run(*args, context),
            Command::Ticket(command) => ticket::run(command, context),
            Command::Profile(args) => profile::run(args, context),
            Command::Run(args) => run::run(args, context),
            Command::Accel(command) => accel::run(command, context),
            Command::Bench(args) => bench::run(*args, context),
        }
    }
}
