//! Sparse weights times one vector where a vector register can be looked up in: sixteen rows side by side, each taking
//! its next non-zero from a window of activations that all of them share.
//!
//! A gather loads its activations one by one; a lookup picks all of them out of two registers at once. What that costs
//! is steps in which a row has no non-zero within the window.

use crate::Cpu;
use crate::gemm::Epilogue;
use crate::simd::{Kernel, Simd, WINDOW, unrolled};
use crate::threads::Shared;

/// Rows side by side: a whole number of vectors of any instruction set.
const ROWS: usize = 16;
/// Windows start at multiples of this: a cache line, a whole part of a window.
const ALIGN: usize = 16;
/// Steps below which threads cost more than they save.
const SMALL: usize = 4096;
/// Bands of one task.
const BANDS: usize = 4;

/// A sparse matrix by bands of sixteen rows, for single vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseLookup {
    rows: usize,
    columns: usize,
    /// The rows of each band, longest first; a last band may lack some.
    order: Vec<u32>,
    /// First step of each band, and the end of the last.
    starts: Vec<u32>,
    /// First column of each step's window.
    windows: Vec<u32>,
    /// `[step][row of the band]`: column within the window.
    indices: Vec<u8>,
    /// `[step][row of the band]`; zero where the row has nothing in the window.
    values: Vec<f32>,
    kept: usize,
}

impl SparseLookup {
    /// The non-zeros of a row-major matrix `[rows, columns]`, or `[columns, rows]` if `transposed`; `None` for fewer
    /// columns than a window has.
    pub fn new(rows: usize, columns: usize, transposed: bool, weights: &[f32]) -> Option<SparseLookup> {
        assert_eq!(weights.len(), rows * columns, "a {rows} x {columns} matrix");
        if columns < WINDOW {
            return None;
        }
        let at = |row: usize, column: usize| {
            if transposed { weights[column * rows + row] } else { weights[row * columns + column] }
        };
        let lists: Vec<Vec<usize>> =
            (0..rows).map(|row| (0..columns).filter(|&column| at(row, column) != 0.0).collect()).collect();
        let mut order: Vec<u32> = (0..rows as u32).collect();
        // Rows of like length side by side: fewer steps end with rows that have run out.
        order.sort_by_key(|&row| (std::cmp::Reverse(lists[row as usize].len()), row));
        let mut out = SparseLookup {
            rows,
            columns,
            order,
            starts: vec![0],
            windows: vec![],
            indices: vec![],
            values: vec![],
            kept: lists.iter().map(Vec::len).sum(),
        };
        for first in (0..rows).step_by(ROWS) {
            let band: Vec<usize> =
                out.order[first..rows.min(first + ROWS)].iter().map(|&row| row as usize).collect();
            let mut next = vec![0; band.len()];
            loop {
                let columns_next = band.iter().zip(&next).filter_map(|(&row, &n)| lists[row].get(n));
                let Some(&nearest) = columns_next.min() else { break };
                let window = (nearest / ALIGN * ALIGN).min(columns - WINDOW);
                out.windows.push(window as u32);
                for lane in 0..ROWS {
                    let column = band.get(lane).and_then(|&row| lists[row].get(next[lane]).copied());
                    match column.filter(|&c| c < window + WINDOW) {
                        Some(column) => {
                            next[lane] += 1;
                            out.indices.push((column - window) as u8);
                            out.values.push(at(band[lane], column));
                        }
                        // The window's first needed activation, so that zeros meet nothing that no row uses.
                        None => {
                            out.indices.push((nearest - window) as u8);
                            out.values.push(0.0);
                        }
                    }
                }
            }
            out.starts.push(out.windows.len() as u32);
        }
        Some(out)
    }

    /// Elements stored, zeros of idle rows included.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// Non-zeros.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// `y = activation(W x + bias + residual)` for each row of x `[batch, columns]`; y is `[batch, rows]`.
    ///
    /// Idle rows multiply an activation that another row needs by zero: where that is infinite, the result is NaN.
    ///
    /// # Panics
    /// If lengths contradict the shape, or the epilogue accumulates.
    pub fn product(&self, cpu: &Cpu, x: &[f32], e: Epilogue, y: &mut [f32]) {
        let rows = self.rows;
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
        let bands = self.starts.len() - 1;
        let piece = if self.windows.len() < SMALL { bands } else { BANDS };
        for (i, (x, y)) in x.chunks_exact(self.columns).zip(y.chunks_exact_mut(rows)).enumerate() {
            let residual = e.residual.map(|r| &r[i * rows..][..rows]);
            let shared = Shared::new(y);
            cpu.threads.for_each(bands.div_ceil(piece), |task| {
                let bands = task * piece..bands.min((task + 1) * piece);
                cpu.isa.run(Bands { of: self, bands, x, bias: e.bias, residual, y: &shared, e: &e });
            });
            e.activation.apply(cpu.isa, y);
        }
    }
}

struct Bands<'a> {
    of: &'a SparseLookup,
    bands: std::ops::Range<usize>,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    y: &'a Shared<'a, f32>,
    e: &'a Epilogue<'a>,
}

impl Kernel for Bands<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = self.of;
        assert_eq!(self.x.len(), w.columns);
        let (low, high) = self.e.activation.clamp();
        for band in self.bands.clone() {
            let sums: [f32; ROWS] = match ROWS / S::LANES {
                1 => band_sums::<S, 1>(s, w, self.x, band),
                2 => band_sums::<S, 2>(s, w, self.x, band),
                _ => band_sums::<S, 4>(s, w, self.x, band),
            };
            let rows = &w.order[band * ROWS..w.rows.min((band + 1) * ROWS)];
            for (&row, &sum) in rows.iter().zip(&sums) {
                let row = row as usize;
                let sum = sum + self.bias.map_or(0.0, |b| b[row]) + self.residual.map_or(0.0, |r| r[row]);
                let x = if sum < low { low } else { sum };
                // SAFETY: each row is in one band, and each band in one task.
                let y = unsafe { self.y.slice(row, 1) };
                y[0] = if x > high { high } else { x };
            }
        }
    }
}

/// The sums of one band's rows, in V vectors; steps go to two sums in turn, for a multiply-add takes longer than a step.
#[inline(always)]
fn band_sums<S: Simd, const V: usize>(s: S, w: &SparseLookup, x: &[f32], band: usize) -> [f32; ROWS] {
    let steps = w.starts[band] as usize..w.starts[band + 1] as usize;
    let (windows, indices, values) = (
        &w.windows[steps.clone()],
        &w.indices[steps.start * ROWS..steps.end * ROWS],
        &w.values[steps.start * ROWS..steps.end * ROWS],
    );
    let count = steps.len();
    let (mut a, mut b) = ([s.zero(); V], [s.zero(); V]);
    let mut step = 0;
    // SAFETY: windows lie within the columns, which are as many as x has elements; each step has as many indices below
    // `WINDOW`, and values, as a band has rows: V vectors.
    unsafe {
        while step + 2 <= count {
            let tables = (
                x.as_ptr().add(*windows.get_unchecked(step) as usize),
                x.as_ptr().add(*windows.get_unchecked(step + 1) as usize),
            );
            unrolled!(v < V => {
                let at = step * ROWS + v * S::LANES;
                let picked = s.lookup(tables.0, indices.as_ptr().add(at));
                a[v] = s.fma(picked, s.load(values.as_ptr().add(at)), a[v]);
                let at = at + ROWS;
                let picked = s.lookup(tables.1, indices.as_ptr().add(at));
                b[v] = s.fma(picked, s.load(values.as_ptr().add(at)), b[v]);
            });
            step += 2;
        }
        if step < count {
            let table = x.as_ptr().add(*windows.get_unchecked(step) as usize);
            unrolled!(v < V => {
                let at = step * ROWS + v * S::LANES;
                let picked = s.lookup(table, indices.as_ptr().add(at));
                a[v] = s.fma(picked, s.load(values.as_ptr().add(at)), a[v]);
            });
        }
    }
    let mut sums = [0.0; ROWS];
    unrolled!(v < V => {
        // SAFETY: V vectors are as many as a band has rows.
        unsafe { s.store(sums.as_mut_ptr().add(v * S::LANES), s.add(a[v], b[v])) };
    });
    sums
}
