//! The inner loops: the rows of one tile times a panel of activations, results held in registers.

use super::panel::{STRIP, Source};
use super::weights::{FIRST, Group, LAST};
use crate::Activation;
use crate::simd::{Kernel, Simd, prefetch, unrolled};

/// One tile's rows, and where activations are read and results are kept. Elements of activations that a result needs
/// are `lane` and up of each panel row.
#[derive(Clone, Copy)]
pub(super) struct TileRun<'a> {
    pub height: usize,
    pub groups: &'a [Group],
    pub rows: &'a [u32],
    pub columns: Columns<'a>,
    pub values: &'a [f32],
    /// `[column of the block][stride]`.
    pub panel: *const f32,
    pub panel_stride: usize,
    /// `[row][stride]`; partial sums between tiles, results after a row's last.
    pub y: *mut f32,
    pub y_stride: usize,
    /// One value a row, or none.
    pub bias: &'a [f32],
    /// `[row][stride]`, or null.
    pub residual: *const f32,
    pub residual_stride: usize,
    /// Bounds of the result.
    pub clamp: (f32, f32),
    /// Vectors across the panel.
    pub vectors: usize,
    /// The panel is one vector wide, and would be with any number of threads.
    pub narrow: bool,
    /// Memory that the next strip reads and writes, asked for row by row while this one is computed.
    pub ahead: [Ahead; 2],
}

/// The columns of the block that the elements stand in.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    Listed(&'a [u16]),
    /// Places within groups, and the powers of two of which a group has elements and columns.
    Grouped(&'a [u8], [u32; 2]),
}

/// Where the columns of a row's elements are read from.
trait Places: Copy {
    /// The column of element `i` of the row.
    ///
    /// # Safety
    /// The list must have the element.
    unsafe fn column(self, i: usize) -> usize;
    /// Past so many elements, which make whole groups.
    ///
    /// # Safety
    /// The list must have them.
    unsafe fn after(self, elements: usize) -> Self;
}

#[derive(Clone, Copy)]
struct Listed(*const u16);

impl Places for Listed {
    #[inline(always)]
    unsafe fn column(self, i: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(i) as usize }
    }

    #[inline(always)]
    unsafe fn after(self, elements: usize) -> Self {
        // SAFETY: the caller's promise.
        Listed(unsafe { self.0.add(elements) })
    }
}

#[derive(Clone, Copy)]
struct Grouped(*const u8, [u32; 2]);

impl Places for Grouped {
    #[inline(always)]
    unsafe fn column(self, i: usize) -> usize {
        // SAFETY: the caller's promise.
        (i >> self.1[0] << self.1[1]) + unsafe { *self.0.add(i) as usize }
    }

    #[inline(always)]
    unsafe fn after(self, elements: usize) -> Self {
        // SAFETY: the caller's promise.
        Grouped(unsafe { self.0.add(elements) }, self.1)
    }
}

/// Rows of memory to ask the caches for.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub start: *const f32,
    pub step: usize,
    pub rows: usize,
}

impl Ahead {
    pub const NOTHING: Ahead = Ahead { start: std::ptr::null(), step: 0, rows: 0 };

    /// The strip after the one from `first`, of an operand whose positions exceed the second-level cache.
    pub fn of(source: Source<'_>, first: usize, positions: usize, rows: usize) -> Ahead {
        match source {
            Source::Columns { x, step }
                if first + 2 * STRIP <= positions && 4 * rows * positions > 1 << 19 =>
            {
                Ahead { start: x[first + STRIP..].as_ptr(), step, rows }
            }
            _ => Ahead::NOTHING,
        }
    }

    /// Asks for a strip of a row, if it is one of them.
    #[inline(always)]
    pub fn ask(&self, row: usize) {
        if row < self.rows {
            let next = self.start.wrapping_add(row * self.step);
            unrolled!(line < 4 => { prefetch(next.wrapping_add(16 * line)); });
        }
    }
}

/// # Safety
/// The panel must be readable, and y writable, for `vectors` whole vectors in every row that the tile names; a
/// residual readable in the same places. Bands reach up to `height` rows further than named.
pub(super) unsafe fn run(isa: crate::Isa, tile: TileRun) {
    isa.run(tile);
}

impl Kernel for TileRun<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.columns {
            Columns::Listed(list) => across(s, self, Listed(list.as_ptr())),
            Columns::Grouped(list, shifts) => across(s, self, Grouped(list.as_ptr(), shifts)),
        }
    }
}

/// A panel from left to right.
#[inline(always)]
fn across<S: Simd, P: Places>(s: S, tile: TileRun, places: P) {
    let (mut tile, mut left) = (tile, tile.vectors);
    // The number of accumulators must be known to the compiler: a wide panel is cut into strips.
    while left > 0 {
        let now =
            if tile.height == 1 { single(s, &tile, places, left) } else { banded(s, &tile, places, left) };
        left -= now;
        tile.panel = tile.panel.wrapping_add(now * S::LANES);
        tile.y = tile.y.wrapping_add(now * S::LANES);
        tile.residual =
            if tile.residual.is_null() { tile.residual } else { tile.residual.wrapping_add(now * S::LANES) };
        // What comes next has been asked for.
        tile.ahead = [Ahead::NOTHING; 2];
    }
}

/// As many vectors of the strip as there are accumulators for; returns how many.
#[inline(always)]
fn single<S: Simd, P: Places>(s: S, t: &TileRun, p: P, left: usize) -> usize {
    if t.narrow {
        return strip::<S, P, 1, 1, 4>(s, t, p);
    }
    if S::REGISTERS >= 32 {
        match left {
            8.. => strip::<S, P, 1, 8, 1>(s, t, p),
            4.. => strip::<S, P, 1, 4, 1>(s, t, p),
            3 => strip::<S, P, 1, 3, 1>(s, t, p),
            2 => strip::<S, P, 1, 2, 1>(s, t, p),
            _ => strip::<S, P, 1, 1, 1>(s, t, p),
        }
    } else {
        match left {
            8.. => strip::<S, P, 1, 8, 1>(s, t, p),
            4.. => strip::<S, P, 1, 4, 1>(s, t, p),
            2.. => strip::<S, P, 1, 2, 1>(s, t, p),
            _ => strip::<S, P, 1, 1, 1>(s, t, p),
        }
    }
}

#[inline(always)]
fn banded<S: Simd, P: Places>(s: S, t: &TileRun, p: P, left: usize) -> usize {
    if S::REGISTERS >= 32 {
        match left {
            4.. => strip::<S, P, 4, 4, 1>(s, t, p),
            3 => strip::<S, P, 4, 3, 1>(s, t, p),
            2 => strip::<S, P, 4, 2, 1>(s, t, p),
            _ => strip::<S, P, 4, 1, 1>(s, t, p),
        }
    } else {
        match left {
            2.. => strip::<S, P, 4, 2, 1>(s, t, p),
            _ => strip::<S, P, 4, 1, 1>(s, t, p),
        }
    }
}

/// R rows at a time, V vectors of each. A single row adds up C sums, each of every C-th element: of one vector, every
/// multiply-add would otherwise wait for the one before.
#[inline(always)]
fn strip<S: Simd, P: Places, const R: usize, const V: usize, const C: usize>(
    s: S,
    t: &TileRun,
    mut places: P,
) -> usize {
    let (mut rows, mut values) = (t.rows.as_ptr(), t.values.as_ptr());
    let (low, high) = (s.splat(t.clamp.0), s.splat(t.clamp.1));
    let bounded = t.clamp != Activation::None.clamp();
    for group in t.groups {
        let (first, last) = (group.stage & FIRST != 0, group.stage & LAST != 0);
        for _ in 0..group.rows {
            // SAFETY: groups count the rows, indices and values that follow each other in the tile's lists; panel, y
            // and residual are the caller's promise.
            unsafe {
                let row = *rows as usize * R;
                rows = rows.add(1);
                unrolled!(r < R => {
                    t.ahead[0].ask(row + r);
                    t.ahead[1].ask(row + r);
                });
                let y = t.y.add(row * t.y_stride);
                let mut acc = [[s.zero(); V]; R];
                if first {
                    unrolled!(r < R => {
                        let b = if row + r < t.bias.len() { *t.bias.get_unchecked(row + r) } else { 0.0 };
                        let b = s.splat(b);
                        unrolled!(v < V => { acc[r][v] = b; });
                    });
                } else {
                    unrolled!(r < R => {
                        unrolled!(v < V => { acc[r][v] = s.load(y.add(r * t.y_stride + v * S::LANES)); });
                    });
                }
                let elements = group.elements as usize;
                if R == 1 {
                    // Loads are what there are most of; by fours, weights take a quarter of theirs.
                    let (mut i, rest) = (0, elements % 4);
                    let mut sums = [[s.zero(); V]; C];
                    sums[0] = acc[0];
                    while i < elements - rest {
                        let four = s.load_four(values.add(i));
                        unrolled!(j < 4 => {
                            let x = t.panel.add(places.column(i + j) * t.panel_stride);
                            let w = s.one_of_four(four, j);
                            unrolled!(v < V => { sums[j % C][v] = s.fma(s.load(x.add(v * S::LANES)), w, sums[j % C][v]); });
                        });
                        i += 4;
                    }
                    unrolled!(j < 3 => {
                        if rest > j {
                            let x = t.panel.add(places.column(i + j) * t.panel_stride);
                            let w = s.splat(*values.add(i + j));
                            unrolled!(v < V => { sums[j % C][v] = s.fma(s.load(x.add(v * S::LANES)), w, sums[j % C][v]); });
                        }
                    });
                    acc[0] = sums[0];
                    unrolled!(c < C => {
                        if c > 0 {
                            unrolled!(v < V => { acc[0][v] = s.add(acc[0][v], sums[c][v]); });
                        }
                    });
                } else {
                    for i in 0..elements {
                        let x = t.panel.add(places.column(i) * t.panel_stride);
                        let mut w = [s.zero(); R];
                        unrolled!(r < R => { w[r] = s.splat(*values.add(i * R + r)); });
                        unrolled!(v < V => {
                            let x = s.load(x.add(v * S::LANES));
                            unrolled!(r < R => { acc[r][v] = s.fma(x, w[r], acc[r][v]); });
                        });
                    }
                }
                places = places.after(elements);
                values = values.add(elements * R);
                if last {
                    if !t.residual.is_null() {
                        let residual = t.residual.add(row * t.residual_stride);
                        unrolled!(r < R => {
                            unrolled!(v < V => {
                                let other = s.load(residual.add(r * t.residual_stride + v * S::LANES));
                                acc[r][v] = s.add(acc[r][v], other);
                            });
                        });
                    }
                    if bounded {
                        // The bound is the first operand: a NaN passes through.
                        unrolled!(r < R => {
                            unrolled!(v < V => { acc[r][v] = s.min(high, s.max(low, acc[r][v])); });
                        });
                    }
                }
                unrolled!(r < R => {
                    unrolled!(v < V => { s.store(y.add(r * t.y_stride + v * S::LANES), acc[r][v]); });
                });
            }
        }
    }
    V
}
