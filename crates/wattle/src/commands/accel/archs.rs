//! `wattle accel archs`: the architectures and energy tables that come with wattle.

use serde::Serialize;
use wattle_accel::{Buffer, Operand, PRESS, PeKind, architecture_text, architectures, tables};
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

#[derive(Serialize)]
struct Document {
    schema: u32,
    architectures: Vec<Arch>,
    energy_tables: Vec<String>,
}

#[derive(Serialize)]
struct Arch {
    name: String,
    description: String,
    pes: usize,
    multipliers: usize,
    /// `dense`, `gated` or `sparse`.
    pe: &'static str,
    /// Of all buffers together.
    buffer_bytes: f64,
    /// From the outermost in.
    buffers: Vec<Memory>,
    clock_hz: f64,
    energy_table: String,
    technology: String,
    source: String,
}

#[derive(Serialize)]
struct Memory {
    name: String,
    bytes: f64,
    /// Tensors that rest in it.
    keeps: Vec<&'static str>,
    /// Absent where only the ports limit it.
    read_bits_per_cycle: Option<f64>,
    write_bits_per_cycle: Option<f64>,
}

impl Memory {
    fn of(buffer: &Buffer) -> Memory {
        Memory {
            name: buffer.name.clone(),
            bytes: buffer.bytes(),
            keeps: Operand::ALL.into_iter().filter(|&o| buffer.keeps(o)).map(Operand::name).collect(),
            read_bits_per_cycle: buffer.read_bits_per_cycle,
            write_bits_per_cycle: buffer.write_bits_per_cycle,
        }
    }
}

#[derive(Serialize)]
struct File {
    name: String,
    toml: &'static str,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if let Some(name) = args.name {
        let toml = architecture_text(&name)?;
        return context.print(&File { name, toml }, toml);
    }
    let mut table = Table::new([
        ("name", Align::Left),
        ("MACs/cycle", Align::Right),
        ("PE", Align::Left),
        ("buffer", Align::Right),
        ("energy table", Align::Left),
        ("what", Align::Left),
    ]);
    let mut list = vec![];
    for arch in architectures() {
        let pe = match arch.pe.kind {
            PeKind::Dense => "dense",
            PeKind::Gated => "gated",
            PeKind::Sparse => "sparse",
        };
        let buffer_bytes = arch.buffers.iter().map(Buffer::bytes).sum();
        table.row([
            arch.name.clone(),
            arch.multipliers().to_string(),
            pe.to_string(),
            number::si(buffer_bytes, "B"),
            arch.energy.clone(),
            arch.description.clone(),
        ]);
        list.push(Arch {
            pes: arch.pes(),
            multipliers: arch.multipliers(),
            pe,
            buffer_bytes,
            buffers: arch.buffers.iter().map(Memory::of).collect(),
            clock_hz: arch.clock_hz,
            energy_table: arch.energy.clone(),
            technology: arch.table()?.technology,
            name: arch.name,
            description: arch.description,
            source: arch.source,
        });
    }
    let energy_tables: Vec<String> = tables().iter().map(|t| t.citation()).collect();
    let text = format!("{table}\n{}\n{PRESS}\n", energy_tables.join("\n"));
    context.print(&Document { schema: 1, architectures: list, energy_tables }, &text)
}
