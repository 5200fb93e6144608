//! The commands, one file each.

mod accel;
mod bench;
mod estimate;
mod eval;
mod ledger;
mod measure;
mod meter;
mod profile;
mod reproduce;
mod run;
mod scaling;
mod schedule;
mod shrink;
mod ticket;
mod train;
mod training;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// What wattle can be asked.
#[derive(Subcommand)]
pub enum Command {
    /// Train, find the sparsest network that is as good, and write it with a receipt. The main job.
    Shrink(shrink::Args),
    /// Train a network.
    Train(train::Args),
    /// How good a model is on data.
    Eval(eval::Args),
    /// Lottery tickets: small networks inside large ones.
    #[command(subcommand)]
    Ticket(ticket::Command),
    /// Run any command and see what it costs: joules, grams, money.
    Measure(measure::Args),
    /// The receipts kept so far: list, sum, export, explain.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// The meter as a service.
    #[command(subcommand)]
    Meter(meter::Command),
    /// Where parameters, MACs, bytes and milliseconds go, layer by layer.
    Profile(profile::Args),
    /// Run a model on inputs from .npy files.
    Run(run::Args),
    /// What a model would cost on a flexible sparse accelerator (modelled).
    #[command(subcommand)]
    Accel(accel::Command),
    /// Time a model, or a training step of it.
    Bench(bench::Args),
    /// What a run will cost or did cost: time, energy, carbon, money, with intervals.
    Estimate(Box<estimate::Args>),
    /// Published footprints, computed again beside what was printed.
    Reproduce(reproduce::Args),
    /// How error falls with computation, and what a lower error would take.
    #[command(subcommand)]
    Scaling(scaling::Command),
    /// When to run, given the carbon intensity of every hour.
    Schedule(schedule::Args),
}

impl Command {
    /// Whether it runs networks itself and so needs threads; a meter must be light.
    pub fn computes(&self) -> bool {
        !matches!(self, Command::Measure(_) | Command::Ledger(_) | Command::Meter(_))
    }

    /// Runs the command.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Command::Shrink(args) => shrink::run(args, context),
            Command::Train(args) => train::run(args, context),
            Command::Eval(args) => eval::run(args, context),
            Command::Ticket(command) => ticket::run(command, context),
            Command::Measure(args) => measure::run(args, context),
            Command::Ledger(command) => ledger::run(command, context),
            Command::Meter(command) => meter::run(command, context),
            Command::Profile(args) => profile::run(args, context),
            Command::Run(args) => run::run(args, context),
            Command::Accel(command) => accel::run(command, context),
            Command::Bench(args) => bench::run(args, context),
            Command::Estimate(args) => estimate::run(*args, context),
            Command::Reproduce(args) => reproduce::run(args, context),
            Command::Scaling(command) => scaling::run(command, context),
            Command::Schedule(args) => schedule::run(args, context),
        }
    }
}
