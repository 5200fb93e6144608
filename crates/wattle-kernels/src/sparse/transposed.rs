//! The transpose of a sparse matrix whose values change: what the gradient of the input needs at every step.

use super::weights::{Cut, SparseWeights};
use crate::Cpu;

/// A transposed copy that is brought up to date from the original's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Transposed {
    weights: SparseWeights,
    /// For each stored value, the original's; `u32::MAX` where a block is padded.
    sources: Vec<u32>,
}

impl Transposed {
    /// The transpose of `original`, values included.
    pub fn new(original: &SparseWeights, cut: Cut) -> Transposed {
        let (rows, columns) = (original.rows(), original.columns());
        let mut places = vec![u32::MAX; rows * columns];
        for (i, &position) in original.positions().iter().enumerate() {
            if position != u32::MAX {
                places[position as usize] = i as u32;
            }
        }
        let place = |row: usize, column: usize| places[column * columns + row];
        let weights = SparseWeights::pattern(columns, rows, |r, c| place(r, c) != u32::MAX, cut);
        let sources = weights
            .positions()
            .iter()
            .map(|&p| if p == u32::MAX { p } else { place(p as usize / rows, p as usize % rows) })
            .collect();
        let mut out = Transposed { weights, sources };
        out.update(&Cpu { isa: crate::Isa::scalar(), threads: crate::Threads::single() }, original.values());
        out
    }

    /// The transpose, as of the last update.
    pub fn weights(&self) -> &SparseWeights {
        &self.weights
    }

    /// Takes over the values of the original.
    pub fn update(&mut self, cpu: &Cpu, original: &[f32]) {
        const PIECE: usize = 16 * 1024;
        let sources = &self.sources;
        cpu.threads.for_each_piece(self.weights.values_mut(), PIECE, |i, values| {
            for (value, &source) in values.iter_mut().zip(&sources[i * PIECE..]) {
                if source != u32::MAX {
                    *value = original[source as usize];
                }
            }
        });
    }
}
