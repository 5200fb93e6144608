//! Packing a matrix into the panels that the product's micro-kernel reads: `[panel][tap][k][columns of the panel]`.
//!
//! Constant weights are packed once into [`PackedWeights`]; weights that training changes are packed into scratch
//! memory at every step.

use crate::Cpu;
use crate::igemm::{LayoutOfB, panel_vectors};
use crate::pages::HugeVec;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Threads;

/// The shape of a packed matrix: `taps` matrices of k rows and n columns, packed for one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedShape {
    /// Number of matrices that one product sums over (kernel positions of a convolution).
    pub taps: usize,
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    width: usize,
    lanes: usize,
}

impl PackedShape {
    /// The packed shape of `taps` matrices of k rows and n columns for `isa`.
    pub fn new(isa: Isa, taps: usize, k: usize, n: usize) -> Self {
        PackedShape { taps, k, n, width: panel_vectors(isa, n) * isa.lanes(), lanes: isa.lanes() }
    }

    /// Number of `f32` that the packed matrix takes.
    pub fn len(&self) -> usize {
        let full = self.n / self.width * self.width;
        let tail = (self.n - full).next_multiple_of(self.lanes);
        (full + tail) * self.k * self.taps
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }

    /// Number of `f32` that a panel takes; the last may be shorter.
    pub(crate) fn panel_len(&self) -> usize {
        self.taps * self.k * self.width
    }

    /// Whether there is nothing to pack.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn layout(&self) -> LayoutOfB {
        let tail = (self.n % self.width).next_multiple_of(self.lanes);
        LayoutOfB {
            width: self.width,
            panel: self.panel_len(),
            tap: self.k * self.width,
            row: self.width,
            tail_row: tail,
            tail_tap: self.k * tail,
            padded: true,
        }
    }
}

/// A matrix packed ahead of time.
pub struct PackedWeights {
    shape: PackedShape,
    data: HugeVec<f32>,
}

impl PackedWeights {
    /// Packs a row-major matrix: `[k, n]`, or `[n, k]` if `transposed`.
    pub fn matrix(isa: Isa, k: usize, n: usize, transposed: bool, weights: &[f32]) -> Self {
        let source = Source::matrix(k, n, transposed, weights);
        let shape = PackedShape::new(isa, 1, k, n);
        let mut data = HugeVec::zeroed(shape.len());
        pack(isa, &Threads::single(), &shape, &source, &mut data);
        PackedWeights { shape, data }
    }

    /// Borrows it as the kernels take it.
    pub fn view(&self) -> Packed<'_> {
        Packed { shape: self.shape, data: &self.data }
    }
}

/// A packed matrix in memory owned elsewhere.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    pub(crate) shape: PackedShape,
    pub(crate) data: &'a [f32],
}

impl<'a> Packed<'a> {
    /// Interprets memory that was packed with this shape.
    pub fn new(shape: PackedShape, data: &'a [f32]) -> Self {
        assert!(data.len() >= shape.len(), "packed weights have {} of {} elements", data.len(), shape.len());
        Packed { shape, data }
    }
}

/// Packs a row-major matrix, `[k, n]` or `[n, k]` if `transposed`, into memory owned elsewhere, for weights that change
/// between runs. `out` has at least `PackedShape::new(cpu.isa, 1, k, n).len()` elements.
pub fn pack_matrix<'a>(
    cpu: &Cpu,
    k: usize,
    n: usize,
    transposed: bool,
    weights: &[f32],
    out: &'a mut [f32],
) -> Packed<'a> {
    let shape = PackedShape::new(cpu.isa, 1, k, n);
    pack(cpu.isa, &cpu.threads, &shape, &Source::matrix(k, n, transposed, weights), out);
    Packed::new(shape, out)
}

/// Unpacked weights: element (t, k, n) is at `tap_offset(t) + k * k_stride + n * n_stride`.
pub(crate) struct Source<'a> {
    pub data: &'a [f32],
    pub taps: Taps<'a>,
    pub k_stride: usize,
    pub n_stride: usize,
}

/// Where each tap's matrix starts.
#[derive(Clone, Copy)]
pub(crate) enum Taps<'a> {
    Strided(usize),
    Listed(&'a [u32]),
}

impl<'a> Source<'a> {
    pub(crate) fn matrix(k: usize, n: usize, transposed: bool, data: &'a [f32]) -> Self {
        assert_eq!(data.len(), k * n, "a {k} x {n} matrix");
        let (k_stride, n_stride) = if transposed { (1, k) } else { (n, 1) };
        Source { data, taps: Taps::Strided(0), k_stride, n_stride }
    }

    #[inline(always)]
    fn tap(&self, t: usize) -> usize {
        match self.taps {
            Taps::Strided(stride) => t * stride,
            Taps::Listed(offsets) => offsets[t] as usize,
        }
    }
}

/// Packs `source` into `out`, which has at least `shape.len()` elements.
pub(crate) fn pack(isa: Isa, threads: &Threads, shape: &PackedShape, source: &Source, out: &mut [f32]) {
    let out = &mut out[..shape.len()];
    if out.is_empty() {
        return;
    }
    threads.for_each_piece(out, shape.panel_len(), |panel, out| pack_panel(isa, shape, source, panel, out));
}

/// Packs one panel into `out`, which is as long as the panel.
pub(crate) fn pack_panel(isa: Isa, shape: &PackedShape, source: &Source, panel: usize, out: &mut [f32]) {
    let column = panel * shape.width;
    let columns = (shape.n - column).min(shape.width);
    let row = columns.next_multiple_of(shape.lanes);
    for t in 0..shape.taps {
        let base = source.tap(t) + column * source.n_stride;
        let out = &mut out[t * shape.k * row..][..shape.k * row];
        if source.n_stride == 1 {
            for (k, out) in out.chunks_exact_mut(row).enumerate() {
                let from = base + k * source.k_stride;
                out[..columns].copy_from_slice(&source.data[from..from + columns]);
                out[columns..].fill(0.0);
            }
        } else {
            transpose_into(isa, source, base, columns, row, out);
        }
    }
}

/// Packs one tap of one panel whose columns are far apart, in square blocks so that cache lines are used whole.
fn transpose_into(isa: Isa, source: &Source, base: usize, columns: usize, row: usize, out: &mut [f32]) {
    if source.k_stride == 1 {
        let k = out.len() / row;
        if k == 0 {
            return;
        }
        let data = &source.data[base..base + (columns - 1) * source.n_stride + k];
        isa.run(Transpose { from: data, from_step: source.n_stride, columns, row, out });
        return;
    }
    for (k, out) in out.chunks_exact_mut(row).enumerate() {
        for (n, out) in out[..columns].iter_mut().enumerate() {
            *out = source.data[base + n * source.n_stride + k * source.k_stride];
        }
        out[columns..].fill(0.0);
    }
}

/// `out[k * row + n] = from[n * from_step + k]`, zeros for n from `columns` to `row`.
pub(crate) struct Transpose<'a> {
    pub from: &'a [f32],
    pub from_step: usize,
    pub columns: usize,
    pub row: usize,
    pub out: &'a mut [f32],
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Transpose { from, from_step, columns, row, out } = self;
        let rows = out.len() / row;
        assert!(out.len() == rows * row && columns <= row && rows <= from_step.max(rows));
        assert!(columns == 0 || from.len() >= (columns - 1) * from_step + rows);
        let (square_rows, square_columns) = (rows / S::LANES * S::LANES, columns / S::LANES * S::LANES);
        // Blocks that follow each other in `from` first: its rows lie far apart, each on a page of its own.
        for n in (0..square_columns).step_by(S::LANES) {
            for k in (0..square_rows).step_by(S::LANES) {
                // SAFETY: by the assertions above, n + LANES <= columns <= row and k + LANES <= rows, so the block of
                // `from` ends within (columns - 1) * from_step + rows and that of `out` within rows * row.
                unsafe {
                    let (from, to) =
                        (from.as_ptr().add(n * from_step + k), out.as_mut_ptr().add(k * row + n));
                    s.transpose(from, from_step, to, row);
                }
            }
        }
        for (k, out) in out.chunks_exact_mut(row).enumerate() {
            let done = if k < square_rows { square_columns } else { 0 };
            for n in done..columns {
                out[n] = from[n * from_step + k];
            }
            out[columns..].fill(0.0);
        }
    }
}
