//! The micro-kernel: a tile of C in registers while k runs, and what happens to it on its way to memory.

use super::{CACHE_LINE, Igemm, OUTSIDE, RowsOfA, ZEROS};
use crate::activation::Activation;
use crate::simd::{Isa, Kernel, Simd, prefetch, prefetch_write, unrolled};
use std::ops::Range;

/// All row tiles of one panel, over `k` of the k range from `k0`.
pub(super) struct PanelTask<'a> {
    pub op: &'a Igemm<'a>,
    pub rows: Range<usize>,
    pub panel: usize,
    pub k0: usize,
    pub k: usize,
    /// Elements of the next panel, to be asked for while this one is worked through: B is often read from beyond the
    /// second-level cache, at a fraction of the speed at which it is used.
    pub ahead: usize,
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
    pub fn run(&self, isa: Isa) {
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
