//! Indirect matrix product, the one micro-kernel behind GEMM, convolution and its input gradient:
//! `C[m, n] (+)= sum over taps t and k of A[row(m, t), k] * B[t, k, n]`, then bias, residual and clamp.
//!
//! A tile of C (a few rows by one to four vectors) stays in registers while k runs; rows of A are reached through
//! pointers, so that convolution needs no im2col. B is read with any row stride: packed panels or in place.

use crate::activation::Activation;
use crate::simd::{Isa, Kernel, Simd, prefetch, prefetch_write, unrolled};
use crate::threads::Threads;
use std::mem::MaybeUninit;
use std::ops::Range;

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

/// All row tiles of one panel, over `k` of the k range from `k0`.
struct PanelTask<'a> {
    op: &'a Igemm<'a>,
    rows: Range<usize>,
    panel: usize,
    k0: usize,
    k: usize,
    /// Elements of the next panel, to be asked for while this one is worked through: B is often read from beyond the
    /// second-level cache, at a fraction of the speed at which it is used.
    ahead: usize,
}

/// Covers the task's rows with tiles: the largest while they last, then the smallest that covers the rest. One row more
/// than the largest, which alone would wait for its own sums, may be a size of its own.
macro_rules! tiles {
    ($task:expr, $s:expr, $columns:expr, $nv:literal, $partial:literal, $($mr:literal)* $(, or $exact:literal)?) => {{
        let mut m = $task.rows.start;
        while m < $task.rows.end {
            let left = $task.rows.end - m;
            let largest = [$($mr),*].into_iter().fold(0, usize::max);
            $(if left == $exact {
                $s.run(Tile::<$exact, $nv, $partial> { task: $task, m, columns: $columns });
                break;
            })?
            $(if left <= $mr || $mr == largest {
                $s.run(Tile::<$mr, $nv, $partial> { task: $task, m, columns: $columns });
                m += left.min($mr);
                continue;
            })*
        }
    }};
}
impl PanelTask<'_> {
    fn run(&self, isa: Isa) {
        let layout = &self.op.b_layout;
        let columns = (self.op.n - self.panel * layout.width).min(layout.width);
        let vectors = columns.div_ceil(isa.lanes());
        let partial = !columns.is_multiple_of(isa.lanes()) && !layout.padded;
        match isa {
            Isa::Scalar(s) => self.tiles_of_16_registers(s, columns, vectors, partial),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => self.tiles_of_16_registers(s, columns, vectors, partial),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => self.tiles_of_32_registers(s, columns, vectors, partial),
        }
    }

    /// Tiles for sixteen vector registers.
    fn tiles_of_16_registers<S: Simd>(&self, s: S, columns: usize, vectors: usize, partial: bool) {
        match (vectors, partial) {
            (1, false) => tiles!(self, s, columns, 1, false, 1 4 12),
            (1, true) => tiles!(self, s, columns, 1, true, 1 4 12),
            (_, false) => tiles!(self, s, columns, 2, false, 1 3 6),
            (_, true) => tiles!(self, s, columns, 2, true, 1 3 6),
        }
    }

    /// Tiles for thirty-two vector registers.
    #[cfg(target_arch = "x86_64")]
    fn tiles_of_32_registers<S: Simd>(&self, s: S, columns: usize, vectors: usize, partial: bool) {
        match (vectors, partial) {
            (1, false) => tiles!(self, s, columns, 1, false, 1 4 8 16 24),
            (2, false) => tiles!(self, s, columns, 2, false, 1 2 4 8 12, or 13),
            (3, false) => tiles!(self, s, columns, 3, false, 1 4 8),
            (_, false) => tiles!(self, s, columns, 4, false, 1 3 6),
            (1, true) => tiles!(self, s, columns, 1, true, 1 4 8 16 24),
            (_, true) => tiles!(self, s, columns, 2, true, 1 2 4 8 12),
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
        let (b_row, b_tap) = if self.columns < layout.width {
            (layout.tail_row, layout.tail_tap)
        } else {
            (layout.row, layout.tap)
        };
        let last_lanes = self.columns - (NV - 1) * S::LANES;
        let mut acc = [[s.zero(); NV]; MR];

        // Each tile asks for its share of the next panel, a line at a time.
        let tiles = (task.rows.len() / MR).max(1);
        let share = task.ahead / tiles;
        let next = op.b.wrapping_add((task.panel + 1) * layout.panel + task.k0 * layout.row);
        let mut ahead = next.wrapping_add((self.m - task.rows.start) / MR * share);
        let step = if share == 0 { 0 } else { CACHE_LINE };
        // A tile's rows of C come from as far as C is large: they are asked for now, and there when sums are done.
        let mut places = op.c_rows.from(self.m);
        for _ in 0..rows {
            let row = op.c.wrapping_add(places.next() + task.panel * layout.width);
            for v in 0..NV {
                prefetch_write(row.wrapping_add(v * S::LANES));
            }
        }
        let place = Place::<MR>::new(op, self.m, last);
        for t in 0..op.taps {
            let mut a = [op.a; MR];
            // SAFETY: rows up to `last` are in A by the contract of `run`, and t < taps.
            unsafe { place.rows(op, self.m, last, t, task.k0, &mut a) };
            // SAFETY: panel, tap and k0 are within B by the contract of `run`.
            let mut b = unsafe { op.b.add(task.panel * layout.panel + t * b_tap + task.k0 * b_row) };
            let mut k = 0;
            let unroll = const { unroll(S::REGISTERS, MR, NV) };
            while k + unroll <= task.k {
                prefetch(ahead);
                ahead = ahead.wrapping_add(step);
                // SAFETY: k + unroll <= op.k, so the rows of B and the elements of A are in bounds.
                unsafe {
                    match unroll {
                        4 => steps::<S, MR, NV, PARTIAL, 4>(s, &mut acc, &a, k, b, b_row, last_lanes),
                        2 => steps::<S, MR, NV, PARTIAL, 2>(s, &mut acc, &a, k, b, b_row, last_lanes),
                        _ => steps::<S, MR, NV, PARTIAL, 1>(s, &mut acc, &a, k, b, b_row, last_lanes),
                    }
                }
                k += unroll;
                b = b.wrapping_add(unroll * b_row);
            }
            while k < task.k {
                // SAFETY: k < op.k.
                unsafe { steps::<S, MR, NV, PARTIAL, 1>(s, &mut acc, &a, k, b, b_row, last_lanes) };
                k += 1;
                b = b.wrapping_add(b_row);
            }
        }

        if !PARTIAL && self.is_simple(S::LANES * NV) {
            // SAFETY: as for this function.
            return unsafe { self.store(s, rows, &acc) };
        }
        // Through memory, so that finishing is a plain loop over rows.
        let mut sums = [[s.zero(); NV]; MR];
        unrolled!(i < MR => {
            sums[i] = acc[i];
        });
        // SAFETY: as for this function.
        unsafe { self.finish(s, rows, last_lanes, std::hint::black_box(&sums)) };
    }
}

impl<const MR: usize, const NV: usize, const PARTIAL: bool> Tile<'_, MR, NV, PARTIAL> {
    /// Whether sums of `width` columns want nothing from memory but a bias.
    #[inline(always)]
    fn is_simple(&self, width: usize) -> bool {
        let op = self.task.op;
        let is_final = self.task.k == op.k;
        self.columns == width && self.task.k0 == 0 && !op.accumulate && (!is_final || op.residual.is_null())
    }

    /// Adds the bias, clamps and stores the first `rows` rows of a tile that [`Self::is_simple`], from registers.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, s: S, rows: usize, sums: &[[S::F; NV]; MR]) {
        let op = self.task.op;
        let column = self.task.panel * op.b_layout.width;
        let is_final = self.task.k == op.k;
        let plain = !is_final || (op.bias.is_none() && op.activation.clamp() == Activation::None.clamp());
        let (low, high) = op.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let mut bias = [s.zero(); NV];
        if let (Some(values), true) = (op.bias, is_final) {
            for (v, bias) in bias.iter_mut().enumerate() {
                // SAFETY: the bias has op.n elements, and the panel all its columns.
                *bias = unsafe { s.load(values.as_ptr().add(column + v * S::LANES)) };
            }
        }
        let mut places = op.c_rows.from(self.m);
        unrolled!(i < MR => {
            if i < rows {
                let row = places.next() + column;
                for v in 0..NV {
                    let mut x = sums[i][v];
                    if !plain {
                        x = s.min(high, s.max(low, s.add(x, bias[v])));
                    }
                    // SAFETY: the row and the tile's columns are in C by the contract of `run`.
                    unsafe { s.store(op.c.add(row + v * S::LANES), x) };
                }
            }
        });
    }

    /// Adds what C holds, bias and residual, clamps and stores the first `rows` rows.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, rows: usize, last_lanes: usize, sums: &[[S::F; NV]; MR]) {
        let task = self.task;
        let op = task.op;
        let column = task.panel * op.b_layout.width;
        let final_pass = task.k0 + task.k == op.k;
        let add_old = op.accumulate || task.k0 > 0;
        let full = self.columns == NV * S::LANES;
        let (low, high) = op.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let mut bias = [s.zero(); NV];
        if let (Some(values), true) = (op.bias, final_pass) {
            for (v, bias) in bias.iter_mut().enumerate() {
                let lanes = if v == NV - 1 { last_lanes } else { S::LANES };
                // SAFETY: the bias has op.n elements, column + v * LANES + lanes <= op.n.
                *bias = unsafe { s.load_partial(values.as_ptr().add(column + v * S::LANES), lanes) };
            }
        }
        let mut places = op.c_rows.from(self.m);
        for sums in &sums[..rows] {
            let offset = places.next() + column;
            for v in 0..NV {
                let lanes = if v == NV - 1 { last_lanes } else { S::LANES };
                let mut x = sums[v];
                // SAFETY: the row and columns up to op.n are in C and in the residual by the contract of `run`.
                unsafe {
                    let c = op.c.add(offset + v * S::LANES);
                    if add_old {
                        x = s.add(x, if full { s.load(c) } else { s.load_partial(c, lanes) });
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

/// How many k to take at once, so that a row's pointer, which may live on the stack, is fetched once for all of them.
const fn unroll(registers: usize, rows: usize, vectors: usize) -> usize {
    let left = registers - 1 - rows * vectors;
    if rows <= 8 && vectors > 1 {
        1
    } else if left >= 4 * vectors {
        4
    } else if left >= 2 * vectors {
        2
    } else {
        1
    }
}

/// `U` steps of k: rows of B times columns of A, added to the tile.
///
/// # Safety
/// Rows of `b` must be readable for the tile's columns, `a[i] + k` for `U` elements.
#[inline(always)]
unsafe fn steps<S: Simd, const MR: usize, const NV: usize, const PARTIAL: bool, const U: usize>(
    s: S,
    acc: &mut [[S::F; NV]; MR],
    a: &[*const f32; MR],
    k: usize,
    b: *const f32,
    b_row: usize,
    last_lanes: usize,
) {
    let mut rows = [[s.zero(); NV]; U];
    for (u, row) in rows.iter_mut().enumerate() {
        for (v, x) in row.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *x = unsafe {
                let from = b.add(u * b_row + v * S::LANES);
                if PARTIAL && v == NV - 1 { s.load_partial(from, last_lanes) } else { s.load(from) }
            };
        }
    }
    unrolled!(i < MR => {
        // SAFETY: the caller's promise.
        let from = unsafe { a[i].add(k) };
        for u in 0..U {
            // SAFETY: the caller's promise.
            let x = s.splat(unsafe { *from.add(u) });
            for v in 0..NV {
                acc[i][v] = s.fma(x, rows[u][v], acc[i][v]);
            }
        }
    });
}

/// Which pixels of which images the rows of a tile are.
struct Place<const MR: usize> {
    /// All rows are consecutive pixels of one image: the first image's start and pixel suffice.
    together: bool,
    image_base: [usize; MR],
    pixel: [usize; MR],
}

impl<const MR: usize> Place<MR> {
    #[inline(always)]
    fn new(op: &Igemm, m: usize, last: usize) -> Self {
        let mut place = Place { together: true, image_base: [0; MR], pixel: [0; MR] };
        if let RowsOfA::Table { pixels, image_stride, .. } = op.a_rows {
            let (mut image, mut p) = (m / pixels, m % pixels);
            place.image_base[0] = image * image_stride;
            place.pixel[0] = p;
            place.together = p + MR <= pixels && m + MR - 1 <= last;
            if !place.together {
                for i in 0..MR {
                    place.image_base[i] = image * image_stride;
                    place.pixel[i] = p;
                    if m + i < last {
                        p += 1;
                        if p == pixels {
                            p = 0;
                            image += 1;
                        }
                    }
                }
            }
        }
        place
    }

    /// Pointers to the rows of A for tap t, from element k0.
    ///
    /// # Safety
    /// Rows m up to `last` must be in A, and t below the number of taps.
    #[inline(always)]
    unsafe fn rows(&self, op: &Igemm, m: usize, last: usize, t: usize, k0: usize, a: &mut [*const f32; MR]) {
        match op.a_rows {
            RowsOfA::Affine { stride } => {
                for (i, a) in a.iter_mut().enumerate() {
                    *a = op.a.wrapping_add((m + i).min(last) * stride + k0);
                }
            }
            RowsOfA::Table { offsets, pixels, .. } if self.together => {
                let base = op.a.wrapping_add(self.image_base[0] + k0);
                // SAFETY: pixel[0] + MR <= pixels, and the table has taps * pixels entries.
                let offsets = unsafe { offsets.as_ptr().add(t * pixels + self.pixel[0]) };
                // A count that the compiler cannot see keeps this a loop, which it vectorises.
                for (i, a) in a.iter_mut().enumerate().take(std::hint::black_box(MR)) {
                    // SAFETY: i < MR.
                    *a = row(base, unsafe { *offsets.add(i) });
                }
            }
            RowsOfA::Table { offsets, pixels, .. } => {
                for i in 0..MR {
                    let base = op.a.wrapping_add(self.image_base[i] + k0);
                    // SAFETY: pixel[i] < pixels, and the table has taps * pixels entries.
                    a[i] = row(base, unsafe { *offsets.get_unchecked(t * pixels + self.pixel[i]) });
                }
            }
        }
    }
}

#[inline(always)]
fn row(base: *const f32, offset: i32) -> *const f32 {
    let inside = base.wrapping_offset(offset as isize);
    if offset == OUTSIDE { ZEROS.as_ptr() } else { inside }
}
