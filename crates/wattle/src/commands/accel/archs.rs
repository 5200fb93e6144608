//! `wattle accel archs`: the architectures and energy tables that come with wattle.

use wattle_accel::PRESS;
use wattle_jobs::Silent;
use wattle_jobs::accel::{ArchsOptions, Shipped, archs};
use wattle_report::{Align, Table, number};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel archs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  wattle accel archs\n  wattle accel archs eyeriss-v2 > mine.toml")]
pub struct Args {
    /// Print this architecture's file instead, to start one's own from.
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let found = archs(&ArchsOptions { name: args.name }, context, &mut Silent)?;
    let list = match &found {
        Shipped::File(file) => return context.print(&found, file.toml),
        Shipped::List(list) => list,
    };
    let mut table = Table::new([
        ("name", Align::Left),
        ("MACs/cycle", Align::Right),
        ("PE", Align::Left),
        ("buffer", Align::Right),
        ("energy table", Align::Left),
        ("what", Align::Left),
    ]);
    for arch in &list.architectures {
        table.row([
            arch.name.clone(),
            arch.multipliers.to_string(),
            arch.pe.to_string(),
            number::si(arch.buffer_bytes, "B"),
            arch.energy_table.clone(),
            arch.description.clone(),
        ]);
    }
    let text = format!("{table}\n{}\n{PRESS}\n", list.energy_tables.join("\n"));
    context.print(&found, &text)
}
