//! The inner loops: the rows of one tile times a panel of activations, results held in registers.

use super::weights::{FIRST, Group, LAST};
use crate::simd::{Kernel, Simd, unrolled};

/// One tile's rows, and where activations are read and results are kept. Elements of activations that a result needs
/// are `lane` and up of each panel row.
#[derive(Clone, Copy)]
pub(super) struct TileRun<'a> {
    pub height: usize,
    pub groups: &'a [Group],
    pub rows: &'a [u32],
    pub indices: &'a [u16],
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
        let mut tile = self;
        let mut left = self.vectors;
        // The number of accumulators must be known to the compiler: a wide panel is cut into strips.
        while left > 0 {
            let now = if self.height == 1 { single(s, &tile, left) } else { banded(s, &tile, left) };
            left -= now;
            tile.panel = tile.panel.wrapping_add(now * S::LANES);
            tile.y = tile.y.wrapping_add(now * S::LANES);
            tile.residual = if tile.residual.is_null() {
                tile.residual
            } else {
                tile.residual.wrapping_add(now * S::LANES)
            };
        }
    }
}

/// As many vectors of the strip as there are accumulators for; returns how many.
#[inline(always)]
fn single<S: Simd>(s: S, t: &TileRun, left: usize) -> usize {
    if S::REGISTERS >= 32 {
        match left {
            8.. => strip::<S, 1, 8>(s, t),
            4.. => strip::<S, 1, 4>(s, t),
            3 => strip::<S, 1, 3>(s, t),
            2 => strip::<S, 1, 2>(s, t),
            _ => strip::<S, 1, 1>(s, t),
        }
    } else {
        match left {
            8.. => strip::<S, 1, 8>(s, t),
            4.. => strip::<S, 1, 4>(s, t),
            2.. => strip::<S, 1, 2>(s, t),
            _ => strip::<S, 1, 1>(s, t),
        }
    }
}

#[inline(always)]
fn banded<S: Simd>(s: S, t: &TileRun, left: usize) -> usize {
    if S::REGISTERS >= 32 {
        match left {
            4.. => strip::<S, 4, 4>(s, t),
            3 => strip::<S, 4, 3>(s, t),
            2 => strip::<S, 4, 2>(s, t),
            _ => strip::<S, 4, 1>(s, t),
        }
    } else {
        match left {
            2.. => strip::<S, 4, 2>(s, t),
            _ => strip::<S, 4, 1>(s, t),
        }
    }
}

/// R rows at a time, V vectors of each.
#[inline(always)]
fn strip<S: Simd, const R: usize, const V: usize>(s: S, t: &TileRun) -> usize {
    let (mut rows, mut indices, mut values) = (t.rows.as_ptr(), t.indices.as_ptr(), t.values.as_ptr());
    let (low, high) = (s.splat(t.clamp.0), s.splat(t.clamp.1));
    for group in t.groups {
        let (first, last) = (group.stage & FIRST != 0, group.stage & LAST != 0);
        for _ in 0..group.rows {
            // SAFETY: groups count the rows, indices and values that follow each other in the tile's lists; panel, y
            // and residual are the caller's promise.
            unsafe {
                let row = *rows as usize * R;
                rows = rows.add(1);
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
                for i in 0..group.elements as usize {
                    let x = t.panel.add(*indices.add(i) as usize * t.panel_stride);
                    if R == 1 {
                        let w = s.splat(*values.add(i));
                        unrolled!(v < V => { acc[0][v] = s.fma(s.load(x.add(v * S::LANES)), w, acc[0][v]); });
                    } else {
                        let mut w = [s.zero(); R];
                        unrolled!(r < R => { w[r] = s.splat(*values.add(i * R + r)); });
                        unrolled!(v < V => {
                            let x = s.load(x.add(v * S::LANES));
                            unrolled!(r < R => { acc[r][v] = s.fma(x, w[r], acc[r][v]); });
                        });
                    }
                }
                indices = indices.add(group.elements as usize);
                values = values.add(group.elements as usize * R);
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
                    // The bound is the first operand: a NaN passes through.
                    unrolled!(r < R => {
                        unrolled!(v < V => { acc[r][v] = s.min(high, s.max(low, acc[r][v])); });
                    });
                }
                unrolled!(r < R => {
                    unrolled!(v < V => { s.store(y.add(r * t.y_stride + v * S::LANES), acc[r][v]); });
                });
            }
        }
    }
    V
}
