//! `wattle accel`: what a network would cost on a flexible sparse accelerator. Everything here is modelled.

mod archs;
mod compare;
mod estimate;
mod explain;
mod map;
mod pe_cycles;
mod request;
mod simulate;

use crate::context::Context;
use crate::failure::Failure;

/// What can be asked of the accelerator lens.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Latency and energy of a model, layer by layer.
    Estimate(estimate::Args),
    /// Several architectures side by side.
    Compare(compare::Args),
    /// Which bound holds each layer back: Eyexam's seven steps.
    Explain(explain::Args),
    /// The best mapping of each layer, with the proof that it is the best.
    Map(map::Args),
    /// Run the PE array tile by tile and compare with the model.
    Simulate(simulate::Args),
    /// The architectures and energy tables there are.
    Archs(archs::Args),
    /// Multiply cycles of one lane of a compressed processing element, from non-zero counts.
    PeCycles(pe_cycles::Args),
}

impl Command {
    /// Whether it searches mappings or simulates, and does not only print tables.
    pub fn searches(&self) -> bool {
        !matches!(self, Command::Archs(_) | Command::PeCycles(_))
    }
}

/// Runs a subcommand.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Estimate(args) => estimate::run(args, context),
        Command::Compare(args) => compare::run(args, context),
        Command::Explain(args) => explain::run(args, context),
        Command::Map(args) => map::run(args, context),
        Command::Simulate(args) => simulate::run(args, context),
        Command::Archs(args) => archs::run(args, context),
        Command::PeCycles(args) => pe_cycles::run(args, context),
    }
}
