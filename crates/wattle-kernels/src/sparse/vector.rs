//! Sparse weights times one vector: each row gathers the activations that its non-zeros name.

use crate::gemm::Epilogue;
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;
use crate::{Cpu, Isa};

/// Elements of a row are padded to this many: a whole vector of any instruction set.
const UNIT: usize = 16;
/// Rows of one task.
const ROWS: usize = 64;
/// Elements below which threads cost more than they save.
const SMALL: usize = 64 * 1024;

/// A sparse matrix by rows, for single vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows {
    columns: usize,
    /// First unit of each row, and the end of the last.
    starts: Vec<u32>,
    /// Columns; padding names the row's last.
    indices: Vec<u16>,
    /// Values; padding is zero.
    values: Vec<f32>,
}

impl SparseRows {
    /// The non-zeros of a row-major matrix `[rows, columns]`, or `[columns, rows]` if `transposed`. `None` above 65 536
    /// columns.
    pub fn new(rows: usize, columns: usize, transposed: bool, weights: &[f32]) -> Option<SparseRows> {
        assert_eq!(weights.len(), rows * columns, "a {rows} x {columns} matrix");
        if columns == 0 || columns > 1 << 16 {
            return None;
        }
        let mut out = SparseRows { columns, starts: vec![0], indices: vec![], values: vec![] };
        for row in 0..rows {
            for column in 0..columns {
                let w =
                    if transposed { weights[column * rows + row] } else { weights[row * columns + column] };
                if w != 0.0 {
                    out.indices.push(column as u16);
                    out.values.push(w);
                }
            }
            let padded = out.values.len().next_multiple_of(UNIT);
            let last = out.indices.last().copied().unwrap_or(0);
            out.indices.resize(padded, last);
            out.values.resize(padded, 0.0);
            out.starts.push((padded / UNIT) as u32);
        }
        Some(out)
    }

    /// Elements stored, padding included.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// `y = activation(W x + bias + residual)` for each row of x `[batch, columns]`; y is `[batch, rows]`.
    ///
    /// Padding multiplies an activation of the row by zero: where that is infinite, the result is NaN.
    ///
    /// # Panics
    /// If lengths contradict the shape, or the epilogue accumulates.
    pub fn product(&self, cpu: &Cpu, x: &[f32], e: Epilogue, y: &mut [f32]) {
        let rows = self.starts.len() - 1;
        assert!(
            !e.accumulate,
            "a sparse product does not accumulate; pass what is to be added as the residual"
        );
        assert!(x.len().is_multiple_of(self.columns), "whole rows of {} activations", self.columns);
        assert_eq!(y.len(), x.len() / self.columns * rows, "one result for each row");
        assert!(e.bias.is_none_or(|b| b.len() == rows), "one bias for each of {rows} rows");
        assert!(e.residual.is_none_or(|r| r.len() == y.len()), "a residual has the shape of the result");
        if y.is_empty() {
            return;
        }
        for (i, (x, y)) in x.chunks_exact(self.columns).zip(y.chunks_exact_mut(rows)).enumerate() {
            let residual = e.residual.map(|r| &r[i * rows..][..rows]);
            let piece = if self.values.len() < SMALL { rows } else { ROWS };
            let shared = Shared::new(y);
            let part = |task: usize| {
                let first = task * piece;
                // SAFETY: pieces are disjoint.
                let y = unsafe { shared.slice(first, piece.min(rows - first)) };
                self.rows_of(cpu.isa, first, x, e.bias, residual, y);
                let (low, high) = e.activation.clamp();
                for y in y.iter_mut() {
                    let x = if *y < low { low } else { *y };
                    *y = if x > high { high } else { x };
                }
                e.activation.apply(cpu.isa, y);
            };
            match rows.div_ceil(piece) {
                1 => part(0),
                tasks => cpu.threads.for_each(tasks, part),
            }
        }
    }

    fn rows_of(
        &self,
        isa: Isa,
        first: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) {
        isa.run(Rows { weights: self, first, x, bias, residual, y });
    }
}

struct Rows<'a> {
    weights: &'a SparseRows,
    first: usize,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = self.weights;
        assert_eq!(self.x.len(), w.columns);
        for (i, y) in self.y.iter_mut().enumerate() {
            let row = self.first + i;
            let (start, end) = (w.starts[row] as usize * UNIT, w.starts[row + 1] as usize * UNIT);
            let (mut a, mut b) = (s.zero(), s.zero());
            let mut at = start;
            // SAFETY: rows are whole units of indices below `columns`, the length of x, with as many values.
            unsafe {
                let (indices, values) = (w.indices.as_ptr(), w.values.as_ptr());
                while at + 2 * S::LANES <= end {
                    a = s.fma(s.gather(self.x.as_ptr(), indices.add(at)), s.load(values.add(at)), a);
                    let next = at + S::LANES;
                    b = s.fma(s.gather(self.x.as_ptr(), indices.add(next)), s.load(values.add(next)), b);
                    at += 2 * S::LANES;
                }
                while at < end {
                    a = s.fma(s.gather(self.x.as_ptr(), indices.add(at)), s.load(values.add(at)), a);
                    at += S::LANES;
                }
            }
            let sum = s.sum(s.add(a, b));
            *y = sum + self.bias.map_or(0.0, |b| b[row]) + self.residual.map_or(0.0, |r| r[row]);
        }
    }
}
