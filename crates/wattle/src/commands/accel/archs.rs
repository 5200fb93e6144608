//! `wattle accel archs`: the architectures and energy tables that come with wattle.

use serde::Serialize;
use wattle_accel::{architectures, tables};
use wattle_report::{Align, Table};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel archs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel archs")]
pub struct Args {}

#[derive(Serialize)]
struct Document {
    architectures: Vec<Arch>,
    energy_tables: Vec<String>,
}

#[derive(Serialize)]
struct Arch {
    name: String,
    description: String,
    pes: usize,
    multipliers: usize,
    clock_hz: f64,
    energy_table: String,
    source: String,
}

/// Runs the command.
pub fn run(_: Args, context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new([("name", Align::Left), ("MACs/cycle", Align::Right), ("what", Align::Left)]);
    let mut list = vec![];
    for arch in architectures() {
        table.row([arch.name.clone(), arch.multipliers().to_string(), arch.description.clone()]);
        list.push(Arch {
            pes: arch.pes(),
            multipliers: arch.multipliers(),
            clock_hz: arch.clock_hz,
            energy_table: arch.energy.clone(),
            name: arch.name,
            description: arch.description,
            source: arch.source,
        });
    }
    let energy_tables: Vec<String> = tables().iter().map(|t| t.citation()).collect();
    let text = format!(
        "{table}\n{}\n\"10x less energy than a mobile GPU\" was said of Eyeriss v1 (2016), not of v2.\n",
        energy_tables.join("\n")
    );
    context.print(&Document { architectures: list, energy_tables }, &text)
}
