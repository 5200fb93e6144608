//! What a cost is made of: accesses of each level, cycles with the bound that sets them, energy by component.

use crate::arch::MAX_BUFFERS;

/// Which tensors travel and rest compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Format {
    /// Activations as run-data pairs.
    pub iact: bool,
    /// Weights as run-data pairs.
    pub weight: bool,
}

/// Reads and writes, in values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accesses {
    /// Values read.
    pub reads: f64,
    /// Values written.
    pub writes: f64,
}

impl Accesses {
    /// Both directions.
    pub fn total(&self) -> f64 {
        self.reads + self.writes
    }
}

/// Accesses of every level, by tensor (in the order of [`Operand::ALL`](crate::Operand::ALL)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// External memory.
    pub dram: [Accesses; 3],
    /// Buffers, from the outermost in; those that there are not stay at zero.
    pub buffers: [[Accesses; 3]; MAX_BUFFERS],
    /// Scratch pads of the PEs.
    pub pe: [Accesses; 3],
    /// Values delivered to or taken from PEs over the network, each receiver counted.
    pub delivered: [f64; 3],
}

/// What sets the number of cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The slowest PE.
    Compute,
    /// Delivery of activations.
    IactNetwork,
    /// Delivery of weights.
    WeightNetwork,
    /// Collection of partial sums.
    PsumNetwork,
    /// Reading or writing a buffer, counted from the outermost.
    Buffer(usize),
    /// External memory.
    Dram,
}

impl Bound {
    /// Lower-case name; `buffers` are the names of the buffers, from the outermost in.
    pub fn name(self, buffers: &[String]) -> &str {
        match self {
            Bound::Compute => "compute",
            Bound::IactNetwork => "iact network",
            Bound::WeightNetwork => "weight network",
            Bound::PsumNetwork => "psum network",
            Bound::Buffer(at) => label(buffers, at),
            Bound::Dram => "dram",
        }
    }
}

/// What a buffer is called in tables: one alone needs no name.
fn label(buffers: &[String], at: usize) -> &str {
    if buffers.len() > 1 { &buffers[at] } else { "buffer" }
}

/// Cycles by cause. All but the last two overlap, and these add to the largest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cycles {
    /// Multiplying, in the slowest PE, with the drain of partial sums where it does not overlap.
    pub compute: f64,
    /// Activations through their ports.
    pub iact: f64,
    /// Weights through theirs.
    pub weight: f64,
    /// Partial sums through theirs.
    pub psum: f64,
    /// Reading or writing each buffer, whichever takes longer, from the outermost in.
    pub buffers: [f64; MAX_BUFFERS],
    /// External memory, without what it moves during `start`.
    pub dram: f64,
    /// Fetching weights while the PEs wait.
    pub exposed_weights: f64,
    /// The first tile of activations, and filling pipelines.
    pub start: f64,
}

impl Cycles {
    /// All cycles.
    pub fn total(&self) -> f64 {
        let busy = self.compute + self.exposed_weights;
        let network = self.iact.max(self.weight).max(self.psum);
        let buffers = self.buffers.iter().fold(0.0, |a: f64, &b| a.max(b));
        busy.max(network).max(buffers).max(self.dram) + self.start
    }

    /// Which of the overlapping causes is the largest.
    pub fn bound(&self) -> Bound {
        let array = [
            (self.compute + self.exposed_weights, Bound::Compute),
            (self.iact, Bound::IactNetwork),
            (self.weight, Bound::WeightNetwork),
            (self.psum, Bound::PsumNetwork),
        ];
        let buffers = self.buffers.iter().enumerate().map(|(at, &cycles)| (cycles, Bound::Buffer(at)));
        let all = array.into_iter().chain(buffers.rev()).chain([(self.dram, Bound::Dram)]);
        all.fold(array[0], |a, b| if b.0 > a.0 { b } else { a }).1
    }
}

/// Energy by component, pJ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Energy {
    /// Multiply-accumulates.
    pub mac: f64,
    /// Scratch pads.
    pub pe: f64,
    /// Network of the array.
    pub network: f64,
    /// Buffers, from the outermost in.
    pub buffers: [f64; MAX_BUFFERS],
    /// Power that flows anyway.
    pub fixed: f64,
    /// External memory, which published energies of chips leave out.
    pub dram: f64,
}

impl Energy {
    /// Without external memory, pJ.
    pub fn chip(&self) -> f64 {
        self.buffers.iter().fold(self.mac + self.pe + self.network, |sum, buffer| sum + buffer) + self.fixed
    }

    /// All, pJ.
    pub fn total(&self) -> f64 {
        self.chip() + self.dram
    }

    /// Names and values, for tables and stacks; `buffers` are the names of the buffers, from the outermost in.
    pub fn parts<'a>(&self, buffers: &'a [String]) -> Vec<(&'a str, f64)> {
        let mut parts = vec![("MAC", self.mac), ("scratch pads", self.pe), ("network", self.network)];
        // From the PEs outwards.
        parts.extend((0..buffers.len()).rev().map(|at| (label(buffers, at), self.buffers[at])));
        parts.extend([("static", self.fixed), ("DRAM", self.dram)]);
        parts
    }
}

/// Cost of one layer under one mapping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Cycles by cause.
    pub cycles: Cycles,
    /// Energy by component.
    pub energy: Energy,
    /// Accesses.
    pub counts: Counts,
    /// Bits moved from and to external memory.
    pub dram_bits: f64,
}
