//! Indirect matrix product, the one micro-kernel behind GEMM, convolution and its input gradient:
//! `C[m, n] (+)= sum over taps t and k of A[row(m, t), k] * B[t, k, n]`, then bias, residual and clamp.
//!
//! A tile of C (a few rows by one to four vectors) stays in registers while k runs; rows of A are reached through
//! pointers, so that convolution needs no im2col. B is read with any row stride: packed panels or in place.

use crate::activation::Activation;
use crate::simd::{Isa, Kernel, Simd};
use crate::threads::Threads;

/// The longest run of k in one pass; also the length of the row of zeros that padding reads.
pub(crate) const MAX_K: usize = 2048;
pub(crate) static ZEROS: [f32; MAX_K] = [0.0; MAX_K];

/// In an offset table, a row outside the image: it reads as zeros.
pub(crate) const OUTSIDE: i32 = -1;

/// Where the rows of A are.
#[derive(Clone, Copy)]
pub(crate) enum RowsOfA<'a> {
    /// Row m starts at `m * stride`; there is one tap.
    Affine { stride: usize },
    /// Row m of image m / pixels starts at `image * image_stride + offsets[t * pixels + m % pixels]`.
    Table { offsets: &'a [i32], pixels: usize, image_stride: usize },
}

/// Where the rows of C (and of the residual) are.
#[derive(Clone, Copy)]
pub(crate) enum RowsOfC<'a> {
    Affine {
        stride: usize,
    },
    /// Row m starts at `(m / offsets.len()) * image_stride + offsets[m % offsets.len()]`.
    Table {
        offsets: &'a [i32],
        image_stride: usize,
    },
}

/// How B is laid out: element (t, k, n) is at `n / width * panel + t * tap + k * row + n % width`.
/// The last panel of a packed B may be narrower and then has a row stride of its own.
#[derive(Clone, Copy)]
pub(crate) struct LayoutOfB {
    pub width: usize,
    pub panel: usize,
    pub tap: usize,
    pub row: usize,
    /// Row and tap stride of the last panel when it is narrower than `width`.
    pub tail_row: usize,
    pub tail_tap: usize,
    /// Whether reading whole vectors past column n of a row stays inside B (padded with zeros).
    pub padded: bool,
}

/// One product. The pointers must be valid for all rows, taps and columns that the layouts describe.
#[derive(Clone, Copy)]
pub(crate) struct Igemm<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub taps: usize,
    pub a: *const f32,
    pub a_rows: RowsOfA<'a>,
    pub b: *const f32,
    pub b_layout: LayoutOfB,
    pub c: *mut f32,
    pub c_rows: RowsOfC<'a>,
    pub bias: Option<&'a [f32]>,
    pub residual: *const f32,
    pub accumulate: bool,
    pub activation: Activation,
}

// SAFETY: tasks write disjoint parts of C and only read the rest.
unsafe impl Sync for Igemm<'_> {}

/// Vectors of a panel for n columns: few columns get narrow panels with many rows of C in registers.
pub(crate) fn panel_vectors(isa: Isa, n: usize) -> usize {
    let vectors = n.div_ceil(isa.lanes());
    match isa.lanes() {
        16 => match vectors {
            1 => 1,
            3 | 5 | 6 | 9 => 3,
            4 => 4,
            _ => 2,
        },
        _ => match vectors {
            1 => 1,
            _ => 2,
        },
    }
}

/// Rows of C in registers for a panel of `vectors` vectors.
const fn tile_rows(registers: usize, vectors: usize) -> usize {
    match (registers, vectors) {
        (32, 1) => 24,
        (32, 2) => 12,
        (32, 3) => 8,
        (32, _) => 6,
        (_, 1) => 12,
        (_, 2) => 6,
        (_, _) => 4,
    }
}

/// Runs the product on all threads. Every element of C is summed in the same order however the work is split.
///
/// # Safety
/// The pointers and layouts of `op` must be in bounds, and C must not overlap A, B, bias or residual (the residual may
/// be C itself).
pub(crate) unsafe fn run(isa: Isa, threads: &Threads, op: &Igemm) {
    if op.m == 0 || op.n == 0 {
        return;
    }
    let width = op.b_layout.width;
    let rows = tile_rows(if isa.lanes() == 16 { 32 } else { 16 }, width / isa.lanes());
    let panels = op.n.div_ceil(width);
    // A block of rows is read once per panel: keep it within half of a small L2 cache.
    let row_bytes = 4 * op.k * op.taps.min(4);
    let block_tiles = (128 * 1024 / (row_bytes * rows).max(1)).clamp(1, 64);
    let tiles = op.m.div_ceil(rows);
    let wanted = 4 * threads.count();
    let block_tiles = if threads.count() == 1 {
        block_tiles
    } else {
        block_tiles.min(tiles.div_ceil(wanted.div_ceil(panels.min(wanted)))).max(1)
    };
    let blocks = tiles.div_ceil(block_tiles);
    let strips =
        if threads.count() == 1 || blocks >= wanted { 1 } else { panels.min(wanted.div_ceil(blocks)) };
    let strip_panels = panels.div_ceil(strips);
    let block_rows = block_tiles * rows;
    threads.for_each(blocks * strips, |task| {
        let (block, strip) = (task / strips, task % strips);
        let first_panel = strip * strip_panels;
        let last_panel = panels.min(first_panel + strip_panels);
        let first_row = block * block_rows;
        let last_row = op.m.min(first_row + block_rows);
        if first_panel < last_panel {
            // SAFETY: the caller's promise; tasks cover disjoint blocks of C.
            unsafe { run_block(isa, op, first_row..last_row, first_panel..last_panel) };
        }
    });
}

/// # Safety
/// As [`run`].
unsafe fn run_block(isa: Isa, op: &Igemm, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
    let width = op.b_layout.width;
    let columns = panels.start * width..op.n.min(panels.end * width);
    let mut k0 = 0;
    loop {
        let k = (op.k - k0).min(MAX_K);
        for panel in panels.clone() {
            isa.run(PanelTask { op, rows: rows.clone(), panel, k0, k });
        }
        k0 += k;
        if k0 >= op.k {
            break;
        }
    }
    if !op.activation.is_clamp() {
        for m in rows {
            // SAFETY: the row lies in C, and this task owns these columns of it.
            let row = unsafe {
                std::slice::from_raw_parts_mut(op.c.add(op.c_rows.offset(m) + columns.start), columns.len())
            };
            op.activation.apply(isa, row);
        }
    }
}

impl RowsOfC<'_> {
    /// Where row m starts.
    #[inline(always)]
    pub(crate) fn offset(&self, m: usize) -> usize {
        match *self {
            RowsOfC::Affine { stride } => m * stride,
            RowsOfC::Table { offsets, image_stride } => {
                m / offsets.len() * image_stride + offsets[m % offsets.len()] as usize
            }
        }
    }
}

/// All row tiles of one panel, over `k` of the k range from `k0`.
struct PanelTask<'a> {
    op: &'a Igemm<'a>,
    rows: std::ops::Range<usize>,
    panel: usize,
    k0: usize,
    k: usize,
}

impl Kernel for PanelTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let op = self.op;
        let column = self.panel * op.b_layout.width;
        let columns = (op.n - column).min(op.b_layout.width);
        let vectors = columns.div_ceil(S::LANES);
        if columns.is_multiple_of(S::LANES) || op.b_layout.padded {
            match vectors {
                1 => self.tiles::<S, 1, false>(s, columns),
                2 => self.tiles::<S, 2, false>(s, columns),
                3 => self.tiles::<S, 3, false>(s, columns),
                _ => self.tiles::<S, 4, false>(s, columns),
            }
        } else {
            match vectors {
                1 => self.tiles::<S, 1, true>(s, columns),
                _ => self.tiles::<S, 2, true>(s, columns),
            }
        }
    }
}

impl PanelTask<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const NV: usize, const PARTIAL: bool>(&self, s: S, columns: usize) {
        let mut m = self.rows.start;
        while m < self.rows.end {
            let left = self.rows.end - m;
            macro_rules! choose {
                ($($mr:literal)*) => {{
                    // The smallest tile that covers what is left, else the largest.
                    $(if left <= $mr || const { $mr == tile_rows(S::REGISTERS, NV) } {
                        s.run(Tile::<$mr, NV, PARTIAL> { task: self, m, columns });
                        m += left.min($mr);
                        continue;
                    })*
                    unreachable!("the list ends with the full tile");
                }};
            }
            if const { S::REGISTERS == 32 } {
                match NV {
                    1 => choose!(1 4 8 16 24),
                    2 => choose!(1 2 4 8 12),
                    3 => choose!(1 4 8),
                    _ => choose!(1 3 6),
                }
            } else {
                match NV {
                    1 => choose!(1 4 12),
                    2 => choose!(1 3 6),
                    _ => choose!(1 2 4),
                }
            }
        }
    }
}

/// One tile of C: `MR` rows from row `m` (rows past the end are computed but not stored), `NV` vectors of columns.
struct Tile<'a, const MR: usize, const NV: usize, const PARTIAL: bool> {
    task: &'a PanelTask<'a>,
    m: usize,
    columns: usize,
}

impl<const MR: usize, const NV: usize, const PARTIAL: bool> Kernel for Tile<'_, MR, NV, PARTIAL> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let task = self.task;
        let op = task.op;
        let rows = (task.rows.end - self.m).min(MR);
        let last = task.rows.end - 1;
        let layout = &op.b_layout;
        let column = task.panel * layout.width;
        let (b_row, b_tap) = if self.columns < layout.width {
            (layout.tail_row, layout.tail_tap)
        } else {
            (layout.row, layout.tap)
        };
        let last_lanes = self.columns - (NV - 1) * S::LANES;
        let mut acc = [[s.zero(); NV]; MR];

        let mut image_base = [0usize; MR];
        let mut pixel = [0usize; MR];
        if let RowsOfA::Table { pixels, image_stride, .. } = op.a_rows {
            let (mut image, mut p) = (self.m / pixels, self.m % pixels);
            for i in 0..MR {
                image_base[i] = image * image_stride;
                pixel[i] = p;
                if self.m + i < last {
                    p += 1;
                    if p == pixels {
                        p = 0;
                        image += 1;
                    }
                }
            }
        }
        for t in 0..op.taps {
            let mut a = [op.a; MR];
            match op.a_rows {
                RowsOfA::Affine { stride } => {
                    for (i, a) in a.iter_mut().enumerate() {
                        // SAFETY: row min(m + i, last) is in A by the contract of `run`.
                        *a = unsafe { op.a.add((self.m + i).min(last) * stride + task.k0) };
                    }
                }
                RowsOfA::Table { offsets, pixels, .. } => {
                    for i in 0..MR {
                        // SAFETY: t < taps and pixel[i] < pixels; the table has taps * pixels entries, each in A.
                        unsafe {
                            let offset = *offsets.get_unchecked(t * pixels + pixel[i]);
                            let start = image_base[i].wrapping_add(offset as usize).wrapping_add(task.k0);
                            let inside = op.a.wrapping_add(start);
                            a[i] = if offset == OUTSIDE { ZEROS.as_ptr() } else { inside };
                        }
                    }
                }
            }
            // SAFETY: panel, tap and k0 are within B by the contract of `run`.
            let mut b = unsafe { op.b.add(task.panel * layout.panel + t * b_tap + task.k0 * b_row) };
            let mut k = 0;
            while k + 4 <= task.k {
                for u in 0..4 {
                    // SAFETY: k + u < op.k, so the row of B and the elements of A are in bounds.
                    unsafe {
                        step::<S, MR, NV, PARTIAL>(s, &mut acc, &a, k + u, b.add(u * b_row), last_lanes);
                    }
                }
                k += 4;
                b = b.wrapping_add(4 * b_row);
            }
            while k < task.k {
                // SAFETY: k < op.k.
                unsafe { step::<S, MR, NV, PARTIAL>(s, &mut acc, &a, k, b, last_lanes) };
                k += 1;
                b = b.wrapping_add(b_row);
            }
        }

        let first = task.k0 == 0;
        let final_pass = task.k0 + task.k == op.k;
        let full = self.columns == NV * S::LANES;
        let (low, high) = op.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let mut bias = [s.zero(); NV];
        if let (Some(values), true) = (op.bias, final_pass) {
            for v in 0..NV {
                let lanes = if v == NV - 1 { last_lanes } else { S::LANES };
                // SAFETY: the bias has op.n elements, column + v * LANES + lanes <= op.n.
                bias[v] = unsafe { s.load_partial(values.as_ptr().add(column + v * S::LANES), lanes) };
            }
        }
        for i in 0..MR {
            if i >= rows {
                break;
            }
            let offset = op.c_rows.offset(self.m + i) + column;
            for v in 0..NV {
                let lanes = if v == NV - 1 { last_lanes } else { S::LANES };
                let mut x = acc[i][v];
                // SAFETY: row m + i and columns up to op.n are in C and in the residual by the contract of `run`.
                unsafe {
                    let c = op.c.add(offset + v * S::LANES);
                    if op.accumulate || !first {
                        let old = if full { s.load(c) } else { s.load_partial(c, lanes) };
                        x = s.add(x, old);
                    }
                    if final_pass {
                        x = s.add(x, bias[v]);
                        if !op.residual.is_null() {
                            let r = op.residual.add(offset + v * S::LANES);
                            x = s.add(x, if full { s.load(r) } else { s.load_partial(r, lanes) });
                        }
                        x = s.min(high, s.max(low, x));
                    }
                    if full {
                        s.store(c, x);
                    } else {
                        s.store_partial(c, lanes, x);
                    }
                }
            }
        }
    }
}

/// One k: a row of B times a column of A, added to the tile.
///
/// # Safety
/// `b` must be readable for the tile's columns, `a[i] + k` for one element.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NV: usize, const PARTIAL: bool>(
    s: S,
    acc: &mut [[S::F; NV]; MR],
    a: &[*const f32; MR],
    k: usize,
    b: *const f32,
    last_lanes: usize,
) {
    let mut row = [s.zero(); NV];
    for (v, x) in row.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *x = unsafe {
            if PARTIAL && v == NV - 1 {
                s.load_partial(b.add(v * S::LANES), last_lanes)
            } else {
                s.load(b.add(v * S::LANES))
            }
        };
    }
    for i in 0..MR {
        // SAFETY: the caller's promise.
        let x = s.splat(unsafe { *a[i].add(k) });
        for v in 0..NV {
            acc[i][v] = s.fma(x, row[v], acc[i][v]);
        }
    }
}
