//! `wattle accel pe-cycles`: cycles of one lane of the compressed processing element, from non-zero counts.

use std::path::PathBuf;

use wattle_jobs::Silent;
use wattle_jobs::accel::{PeCyclesOptions, pe_cycles};
use wattle_report::{Align, Table};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel pe-cycles`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel pe-cycles counts.json --json")]
pub struct Args {
    /// JSON: for each 1x1 layer C, M, E, F and the lists nnz_iact and nnz_weight, one count an input channel.
    file: PathBuf,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let found = pe_cycles(&PeCyclesOptions { file: args.file }, context, &mut Silent)?;
    let mut table = Table::new([("layer", Align::Left), ("cycles", Align::Right)]);
    for layer in &found.layers {
        table.row([layer.name.clone(), layer.cycles.to_string()]);
    }
    context.print(&found, &format!("{table}\n{}\n", found.source))
}
