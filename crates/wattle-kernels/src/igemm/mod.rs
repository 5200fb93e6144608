//! Indirect matrix product, the one micro-kernel behind GEMM, convolution and its input gradient:
//! `C[m, n] (+)= sum over taps t and k of A[row(m, t), k] * B[t, k, n]`, then bias, residual and clamp.
//!
//! A tile of C (a few rows by one to four vectors) stays in registers while k runs; rows of A are reached through
//! pointers, so that convolution needs no im2col. B is read with any row stride: packed panels or in place.

mod tile;

use crate::activation::Activation;
use crate::simd::Isa;
use crate::threads::Threads;
use std::mem::MaybeUninit;
use std::ops::Range;
use tile::PanelTask;

/// The longest run of k in one pass; also the length of the row of zeros that padding reads.
pub(crate) const MAX_K: usize = 2048;
/// Bytes of A that are worked through with one panel of B after the other: half of an L2 cache of 512 KiB. The larger
/// they are, the less often B, which may be larger than any cache, is read.
const BLOCK: usize = 256 * 1024;
/// The run of k in one pass where not all of A fits a block: long enough that keeping sums in C costs little.
const PASS: usize = 512;
pub(crate) static ZEROS: [f32; MAX_K] = [0.0; MAX_K];

/// Rows of A this many elements apart, or a multiple, fall on the same sets of a first-level cache, which has fewer ways
/// than a tile has rows: blocks of A are copied.
pub(crate) const CONFLICT: usize = 1024;
/// Panels of B from which copying a block of A is cheap.
const COPY_PANELS: usize = 4;
/// Tiles of rows for each thread from which on threads take rows, which the next layer's threads then find in their own
/// caches; with fewer they take columns.
const SHARE_TILES: usize = 4;
/// Rows of a copied block of A at most, of at most [`PASS`] elements each and a cache line to keep them apart.
const COPY_ROWS: usize = 128;

/// Elements of a cache line.
const CACHE_LINE: usize = 16;

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
    /// Row m, at least `first`, starts at `(m - first) * stride`: C holds a part of the rows.
    Part {
        first: usize,
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

impl Igemm<'_> {
    /// The same product with B elsewhere.
    pub(crate) fn with_b(&self, b: *const f32) -> Self {
        Igemm { b, ..*self }
    }

    /// Elements that the panel after this one is read from, where they follow each other; 0 otherwise.
    fn ahead(&self, panel: usize, end: usize, k: usize) -> usize {
        let follow = self.b_layout.row == self.b_layout.width && (self.taps == 1 || k == self.k);
        if follow && panel + 1 < end { self.taps * k * self.b_layout.width } else { 0 }
    }

    /// Whether rows of A in a block evict each other and are worth copying.
    fn conflicts(&self, rows: &Range<usize>, panels: usize, k: usize) -> bool {
        matches!(self.a_rows, RowsOfA::Affine { stride } if stride > 0 && stride.is_multiple_of(CONFLICT))
            && panels >= COPY_PANELS
            && (8..=COPY_ROWS).contains(&rows.len())
            && k <= PASS
    }

    /// The run of k in one pass, whatever the threads, so that sums are the same bits.
    fn pass(&self) -> usize {
        let conflict = matches!(self.a_rows, RowsOfA::Affine { stride } if stride.is_multiple_of(CONFLICT));
        let longest = if self.taps > 1 || (4 * self.m * self.k <= BLOCK && !conflict) { MAX_K } else { PASS };
        self.k.div_ceil(self.k.div_ceil(longest).max(1)).max(1)
    }
}

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
fn tile_rows(registers: usize, vectors: usize) -> usize {
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
    // Neighbouring taps read the same rows of A: they count once.
    let row_bytes = 4 * op.pass();
    let block_tiles = (BLOCK / (row_bytes * rows).max(1)).clamp(1, 64);
    let count = threads.count();
    let share = op.m.div_ceil(count);
    if count > 1 && share >= SHARE_TILES * rows {
        // As many rows for each thread, in blocks that others can take over.
        let tiles = share.div_ceil(rows);
        let blocks = tiles.div_ceil(block_tiles).max(if tiles >= 4 * SHARE_TILES { 4 } else { 2 });
        let block_rows = tiles.div_ceil(blocks) * rows;
        return threads.for_each(count * blocks, |task| {
            let (first, end) = (task / blocks * share, op.m.min((task / blocks + 1) * share));
            let first = first + task % blocks * block_rows;
            if first < end {
                // SAFETY: the caller's promise; tasks cover disjoint rows of C.
                unsafe { run_block(isa, op, first..end.min(first + block_rows), 0..panels) };
            }
        });
    }
    let tiles = op.m.div_ceil(rows);
    let wanted = 4 * count;
    let block_tiles = if count == 1 {
        block_tiles
    } else {
        block_tiles.min(tiles.div_ceil(wanted.div_ceil(panels.min(wanted)))).max(1)
    };
    let blocks = tiles.div_ceil(block_tiles);
    let strips = if count == 1 || blocks >= wanted { 1 } else { panels.min(wanted.div_ceil(blocks)) };
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

/// Computes the given rows on the calling thread.
///
/// # Safety
/// As [`run`], for these rows.
pub(crate) unsafe fn run_rows(isa: Isa, op: &Igemm, rows: Range<usize>) {
    if !rows.is_empty() && op.n > 0 {
        // SAFETY: the caller's promise.
        unsafe { run_block(isa, op, rows, 0..op.n.div_ceil(op.b_layout.width)) };
    }
}

/// Computes one panel of columns on the calling thread.
///
/// # Safety
/// As [`run`], for these columns; of B only this panel is read.
pub(crate) unsafe fn run_panel(isa: Isa, op: &Igemm, panel: usize) {
    if op.m > 0 {
        // SAFETY: the caller's promise.
        unsafe { run_block(isa, op, 0..op.m, panel..panel + 1) };
    }
}

/// # Safety
/// As [`run`].
unsafe fn run_block(isa: Isa, op: &Igemm, rows: Range<usize>, panels: Range<usize>) {
    let width = op.b_layout.width;
    let columns = panels.start * width..op.n.min(panels.end * width);
    let pass = op.pass();
    let mut k0 = 0;
    loop {
        let k = (op.k - k0).min(pass);
        if op.conflicts(&rows, panels.len(), k) {
            // SAFETY: as for this function.
            unsafe { run_copied(isa, op, rows.clone(), panels.clone(), k0, k) };
        } else {
            run_pass(isa, op, rows.clone(), panels.clone(), k0, k);
        }
        k0 += k;
        if k0 >= op.k {
            break;
        }
    }
    if !op.activation.is_clamp() && !rows.is_empty() {
        let (first, last) = (op.c_rows.offset(rows.start), op.c_rows.offset(rows.end - 1));
        let len = rows.len() * columns.len();
        if last == first + len - columns.len() && columns.len() == op.n {
            // SAFETY: the rows are whole and follow each other without gaps: one run of C that this task owns.
            let run = unsafe { std::slice::from_raw_parts_mut(op.c.add(first + columns.start), len) };
            return op.activation.apply(isa, run);
        }
        for m in rows {
            // SAFETY: the row lies in C, and this task owns these columns of it.
            let row = unsafe {
                std::slice::from_raw_parts_mut(op.c.add(op.c_rows.offset(m) + columns.start), columns.len())
            };
            op.activation.apply(isa, row);
        }
    }
}

/// All panels over `k` of the k range from `k0`.
fn run_pass(isa: Isa, op: &Igemm, rows: Range<usize>, panels: Range<usize>, k0: usize, k: usize) {
    for panel in panels.clone() {
        let ahead = op.ahead(panel, panels.end, k);
        PanelTask { op, rows: rows.clone(), panel, k0, k, ahead }.run(isa);
    }
}

/// As [`run_pass`], with the rows of A, which are `stride` elements apart, copied to where they do not compete.
///
/// # Safety
/// As [`run`], for a block that [`Igemm::conflicts`].
#[inline(never)]
unsafe fn run_copied(isa: Isa, op: &Igemm, rows: Range<usize>, panels: Range<usize>, k0: usize, k: usize) {
    let RowsOfA::Affine { stride } = op.a_rows else { unreachable!("only affine rows conflict") };
    let mut copy = [const { MaybeUninit::<f32>::uninit() }; COPY_ROWS * (PASS + CACHE_LINE)];
    let apart = k + CACHE_LINE;
    for (row, to) in rows.clone().zip(copy.chunks_exact_mut(apart)) {
        // SAFETY: row `row` of A has op.k elements, k0 + k <= op.k, and the copy's row has room for k.
        unsafe { op.a.add(row * stride + k0).copy_to_nonoverlapping(to.as_mut_ptr().cast(), k) };
    }
    let a = copy.as_ptr().cast::<f32>().wrapping_sub(rows.start * apart + k0);
    let op = Igemm { a, a_rows: RowsOfA::Affine { stride: apart }, ..*op };
    run_pass(isa, &op, rows, panels, k0, k);
}

impl<'a> RowsOfC<'a> {
    /// Where row m starts.
    #[inline(always)]
    pub(crate) fn offset(&self, m: usize) -> usize {
        self.from(m).next()
    }

    /// Where row m and those after it start.
    #[inline(always)]
    fn from(&self, m: usize) -> Places<'a> {
        match *self {
            RowsOfC::Affine { stride } => Places { offsets: &[], image: m * stride, step: stride, pixel: 0 },
            RowsOfC::Part { first, stride } => {
                Places { offsets: &[], image: (m - first) * stride, step: stride, pixel: 0 }
            }
            RowsOfC::Table { offsets, image_stride } => Places {
                offsets,
                image: m / offsets.len() * image_stride,
                step: image_stride,
                pixel: m % offsets.len(),
            },
        }
    }
}

/// Walks the rows of C in order.
struct Places<'a> {
    offsets: &'a [i32],
    image: usize,
    step: usize,
    pixel: usize,
}

impl Places<'_> {
    #[inline(always)]
    fn next(&mut self) -> usize {
        if self.offsets.is_empty() {
            self.image += self.step;
            return self.image - self.step;
        }
        let place = self.image + self.offsets[self.pixel] as usize;
        self.pixel += 1;
        if self.pixel == self.offsets.len() {
            self.pixel = 0;
            self.image += self.step;
        }
        place
    }
}
