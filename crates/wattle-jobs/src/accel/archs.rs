//! The architectures and energy tables that come with wattle.

use serde::Serialize;
use wattle_accel::{Buffer, Operand, PeKind, architecture_text, architectures, tables};

use crate::env::Env;
use crate::error::Result;
use crate::observer::Observer;

/// What to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchsOptions {
    /// The file of this architecture instead of the list, to start one's own from.
    pub name: Option<String>,
}

/// What comes with wattle.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Shipped {
    /// All of it.
    List(List),
    /// One architecture as a file.
    File(File),
}

/// Architectures and energy tables.
#[derive(Clone, Debug, Serialize)]
pub struct List {
    schema: u32,
    /// The architectures.
    pub architectures: Vec<Arch>,
    /// The tables, each with its citation.
    pub energy_tables: Vec<String>,
}

/// An architecture.
#[derive(Clone, Debug, Serialize)]
pub struct Arch {
    /// Its name.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Processing elements.
    pub pes: usize,
    /// Multipliers.
    pub multipliers: usize,
    /// `dense`, `gated` or `sparse`.
    pub pe: &'static str,
    /// Of all buffers together.
    pub buffer_bytes: f64,
    /// From the outermost in.
    pub buffers: Vec<Memory>,
    /// Clock, Hz.
    pub clock_hz: f64,
    /// Name of its energy table.
    pub energy_table: String,
    /// What that was measured or modelled in.
    pub technology: String,
    /// Where the architecture is described.
    pub source: String,
}

/// A buffer.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: f64,
    /// Tensors that rest in it.
    pub keeps: Vec<&'static str>,
    /// Absent where only the ports limit it.
    pub read_bits_per_cycle: Option<f64>,
    /// Absent where only the ports limit it.
    pub write_bits_per_cycle: Option<f64>,
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

/// An architecture as a file.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// Its name.
    pub name: String,
    /// The file.
    pub toml: &'static str,
}

/// Tells what comes with wattle.
///
/// # Errors
/// If there is no architecture of this name.
pub fn archs(options: &ArchsOptions, _env: &Env, _observer: &mut dyn Observer) -> Result<Shipped> {
    if let Some(name) = &options.name {
        return Ok(Shipped::File(File { name: name.clone(), toml: architecture_text(name)? }));
    }
    let mut list = vec![];
    for arch in architectures() {
        list.push(Arch {
            pes: arch.pes(),
            multipliers: arch.multipliers(),
            pe: match arch.pe.kind {
                PeKind::Dense => "dense",
                PeKind::Gated => "gated",
                PeKind::Sparse => "sparse",
            },
            buffer_bytes: arch.buffers.iter().map(Buffer::bytes).sum(),
            buffers: arch.buffers.iter().map(Memory::of).collect(),
            clock_hz: arch.clock_hz,
            technology: arch.table()?.technology,
            energy_table: arch.energy,
            name: arch.name,
            description: arch.description,
            source: arch.source,
        });
    }
    let energy_tables = tables().iter().map(|t| t.citation()).collect();
    Ok(Shipped::List(List { schema: 1, architectures: list, energy_tables }))
}
