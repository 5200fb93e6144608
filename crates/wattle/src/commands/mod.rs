//! The commands, one file each. Those that read networks are there with the feature `networks`.

#[cfg(feature = "networks")]
mod accel;
#[cfg(feature = "networks")]
mod bench;
#[cfg(feature = "networks")]
mod data;
mod estimate;
#[cfg(feature = "networks")]
mod eval;
mod ledger;
mod measure;
mod meter;
#[cfg(feature = "networks")]
mod model;
#[cfg(feature = "networks")]
pub mod networks;
#[cfg(feature = "networks")]
mod predict;
#[cfg(feature = "networks")]
mod profile;
mod reproduce;
#[cfg(feature = "networks")]
mod run;
mod scaling;
mod schedule;
#[cfg(feature = "networks")]
mod shrink;
#[cfg(feature = "networks")]
pub mod ticket;
#[cfg(feature = "networks")]
mod train;
#[cfg(feature = "networks")]
mod training;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// What wattle can be asked.
#[derive(Subcommand)]
pub enum Command {
    #[cfg(feature = "networks")]
    #[command(flatten)]
    Networks(networks::Command),
    /// Run any command and see what it costs: joules, grams, money.
    Measure(Box<measure::Args>),
    /// The receipts kept so far: list, sum, export, show and explain.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// The meter as a service.
    #[command(subcommand)]
    Meter(meter::Command),
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

    /// Whether it works for seconds without metering its own phases, so that it is metered as a whole. The rest reads
    /// tables for milliseconds, less than any meter resolves.
    fn is_metered_whole(&self) -> bool {
        match self {
            #[cfg(feature = "networks")]
            Command::Networks(command) => command.is_metered_whole(),
            Command::Estimate(args) => args.runs_networks(),
            _ => false,
        }
    }

    /// Runs the command.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.is_metered_whole() {
            context.meter_whole();
        }
        match self {
            #[cfg(feature = "networks")]
            Command::Networks(command) => command.run(context),
            Command::Measure(args) => measure::run(*args, context),
            Command::Ledger(command) => ledger::run(command, context),
            Command::Meter(command) => meter::run(command, context),
            Command::Estimate(args) => estimate::run(*args, context),
            Command::Reproduce(args) => reproduce::run(args, context),
            Command::Scaling(command) => scaling::run(command, context),
            Command::Schedule(args) => schedule::run(args, context),
        }
    }
}
