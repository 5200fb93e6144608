//! Sum of outer products, the micro-kernel behind weight gradients: `C[i, j] (+)= sum over p of A[p, i] * B[p, j]`.
//!
//! Both operands are read along their rows, so nothing is packed. p runs over segments, which lets a convolution skip
//! padding and walk two images with different strides.

use crate::simd::{Isa, Kernel, Simd, unrolled};

/// A run of p: row p of A starts at `a + p * a_step`, of B at `b + p * b_step`, for p in 0..len.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub a: usize,
    pub b: usize,
    pub len: usize,
}

/// One sum over all segments. C's row i starts at `i * c_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Outer<'a> {
    pub rows: usize,
    pub columns: usize,
    pub a: *const f32,
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
    pub segments: &'a [Segment],
    pub c: *mut f32,
    pub c_stride: usize,
    pub accumulate: bool,
}

/// Runs on the calling thread.
///
/// # Safety
/// All rows of all segments must be in A and B, and rows and columns in C, which overlaps neither.
pub(crate) unsafe fn run(isa: Isa, op: &Outer) {
    match isa {
        Isa::Scalar(s) => tiles_of_16_registers(s, op),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(s) => tiles_of_16_registers(s, op),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(s) => tiles_of_32_registers(s, op),
    }
}

/// Covers the rows with tiles, the largest that fits first, so that no row outside C is touched.
macro_rules! tiles {
    ($op:expr, $s:expr, $column:expr, $columns:expr, $nv:literal, $partial:literal, $($mr:literal)*) => {{
        let mut row = 0;
        while row < $op.rows {
            let left = $op.rows - row;
            $(if left >= $mr {
                $s.run(Tile::<$mr, $nv, $partial> { op: $op, row, column: $column, columns: $columns });
                row += $mr;
                continue;
            })*
        }
    }};
}

/// Tiles for sixteen vector registers.
fn tiles_of_16_registers<S: Simd>(s: S, op: &Outer) {
    let mut column = 0;
    while column < op.columns {
        let columns = (op.columns - column).min(2 * S::LANES);
        match (columns > S::LANES, columns.is_multiple_of(S::LANES)) {
            (false, true) => tiles!(op, s, column, columns, 1, false, 8 4 2 1),
            (false, false) => tiles!(op, s, column, columns, 1, true, 8 4 2 1),
            (true, true) => tiles!(op, s, column, columns, 2, false, 6 4 2 1),
            (true, false) => tiles!(op, s, column, columns, 2, true, 6 4 2 1),
        }
        column += columns;
    }
}

/// Tiles for thirty-two vector registers.
#[cfg(target_arch = "x86_64")]
fn tiles_of_32_registers<S: Simd>(s: S, op: &Outer) {
    let mut column = 0;
    while column < op.columns {
        let columns = (op.columns - column).min(2 * S::LANES);
        match (columns > S::LANES, columns.is_multiple_of(S::LANES)) {
            (false, true) => tiles!(op, s, column, columns, 1, false, 16 8 4 2 1),
            (false, false) => tiles!(op, s, column, columns, 1, true, 16 8 4 2 1),
            (true, true) => tiles!(op, s, column, columns, 2, false, 12 8 4 2 1),
            (true, false) => tiles!(op, s, column, columns, 2, true, 12 8 4 2 1),
        }
        column += columns;
    }
}

struct Tile<'a, const MR: usize, const NV: usize, const PARTIAL: bool> {
    op: &'a Outer<'a>,
    row: usize,
    column: usize,
    columns: usize,
}

impl<const MR: usize, const NV: usize, const PARTIAL: bool> Kernel for Tile<'_, MR, NV, PARTIAL> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let op = self.op;
        let last_lanes = self.columns - (NV - 1) * S::LANES;
        let mut acc = [[s.zero(); NV]; MR];
        for segment in op.segments {
            // SAFETY: the segment's rows are in A and B by the contract of `run`.
            let (mut a, mut b) =
                unsafe { (op.a.add(segment.a + self.row), op.b.add(segment.b + self.column)) };
            for _ in 0..segment.len {
                let mut row = [s.zero(); NV];
                for (v, x) in row.iter_mut().enumerate() {
                    // SAFETY: the tile's columns are in this row of B.
                    *x = unsafe {
                        if PARTIAL && v == NV - 1 {
                            s.load_partial(b.add(v * S::LANES), last_lanes)
                        } else {
                            s.load(b.add(v * S::LANES))
                        }
                    };
                }
                unrolled!(i < MR => {
                    // SAFETY: the tile's rows i are in this row of A.
                    let x = s.splat(unsafe { *a.add(i) });
                    for v in 0..NV {
                        acc[i][v] = s.fma(x, row[v], acc[i][v]);
                    }
                });
                a = a.wrapping_add(op.a_step);
                b = b.wrapping_add(op.b_step);
            }
        }
        for i in 0..MR {
            for v in 0..NV {
                let lanes = if v == NV - 1 { last_lanes } else { S::LANES };
                // SAFETY: row + i and these columns are in C by the contract of `run`.
                unsafe {
                    let c = op.c.add((self.row + i) * op.c_stride + self.column + v * S::LANES);
                    let mut x = acc[i][v];
                    if PARTIAL && v == NV - 1 {
                        if op.accumulate {
                            x = s.add(x, s.load_partial(c, lanes));
                        }
                        s.store_partial(c, lanes, x);
                    } else {
                        if op.accumulate {
                            x = s.add(x, s.load(c));
                        }
                        s.store(c, x);
                    }
                }
            }
        }
    }
}
