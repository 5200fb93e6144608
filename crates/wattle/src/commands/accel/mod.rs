//! `wattle accel`: what a network would cost on a flexible sparse accelerator. Everything here is modelled.

mod pe_cycles;

use crate::context::Context;
use crate::failure::Failure;

/// What can be asked of the accelerator lens.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Multiply cycles of one lane of a compressed processing element, from non-zero counts.
    PeCycles(pe_cycles::Args),
}

/// Runs a subcommand.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::PeCycles(args) => pe_cycles::run(args, context),
    }
}
