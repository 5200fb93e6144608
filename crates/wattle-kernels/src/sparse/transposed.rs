//! Sparse matrices whose values are another's in another order: the transpose that the gradient of the input needs at
//! every step.

use super::weights::{Cut, SparseWeights};
use crate::Cpu;

/// A rearranged copy that is brought up to date from the original's values.
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
        Transposed::rearranged(&Places::new(original), [columns, rows], |r, c| c * columns + r, cut)
    }

    /// The matrix `[rows, columns]` whose element `(row, column)` is the one at `position(row, column)` of the original,
    /// counted row by row; its values included.
    pub(super) fn rearranged(
        places: &Places,
        [rows, columns]: [usize; 2],
        position: impl Fn(usize, usize) -> usize,
        cut: Cut,
    ) -> Transposed {
        let place = |row, column| places.of[position(row, column)];
        let weights = SparseWeights::pattern(rows, columns, |r, c| place(r, c) != u32::MAX, cut);
        let source = |p: u32| place(p as usize / columns, p as usize % columns);
        let sources =
            weights.positions().iter().map(|&p| if p == u32::MAX { p } else { source(p) }).collect();
        let mut out = Transposed { weights, sources };
        let alone = Cpu { isa: crate::Isa::scalar(), threads: crate::Threads::single() };
        out.update(&alone, places.original.values());
        out
    }

    /// The matrix, as of the last update.
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

/// Where each element of a matrix stands among its stored values.
pub(super) struct Places<'a> {
    original: &'a SparseWeights,
    /// By position; `u32::MAX` where nothing is kept.
    of: Vec<u32>,
}

impl<'a> Places<'a> {
    pub(super) fn new(original: &'a SparseWeights) -> Places<'a> {
        let mut of = vec![u32::MAX; original.rows() * original.columns()];
        for (i, &position) in original.positions().iter().enumerate() {
            if position != u32::MAX {
                of[position as usize] = i as u32;
            }
        }
        Places { original, of }
    }
}
