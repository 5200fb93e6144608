//! Products of bytes widened to 16 bits, two products to a sum at a time: any zero points, any instruction set.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Bytes;
use crate::quantize::value;
#[cfg(target_arch = "x86_64")]
use crate::simd::unrolled;
use crate::{Cpu, Isa};

/// Columns of one panel of packed B.
const PANEL: usize = 32;
/// Rows of C in one tile: with 16 columns, 12 of AVX2's 16 registers hold sums.
const ROWS: usize = 6;

/// An 8-bit element, signed or not.
pub trait Byte: Copy + Send + Sync {
    /// The value around which a symmetric quantisation puts its steps.
    const CENTRE: i16;
    /// Its value.
    fn widen(self) -> i16;
}

impl Byte for u8 {
    const CENTRE: i16 = 128;

    fn widen(self) -> i16 {
        self.into()
    }
}

impl Byte for i8 {
    const CENTRE: i16 = 0;

    fn widen(self) -> i16 {
        self.into()
    }
}

/// Weights less their zero points, as 16-bit pairs along k: `[panel][k / 2][column][2]`.
pub(super) struct PairedWeights {
    pub k: usize,
    pub n: usize,
    data: Vec<i16>,
}

impl PairedWeights {
    /// As [`super::QuantizedWeights::new`].
    pub fn new<T: Byte>(
        k: usize,
        n: usize,
        weights: &[T],
        zero: &[T],
        at: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let pairs = k.div_ceil(2);
        let mut data = vec![0; n.div_ceil(PANEL) * pairs * PANEL * 2];
        for column in 0..n {
            let zero = zero[if zero.len() == 1 { 0 } else { column }].widen();
            for row in 0..k {
                let place = (column / PANEL * pairs + row / 2) * PANEL * 2 + column % PANEL * 2 + row % 2;
                data[place] = weights[at(row, column)].widen() - zero;
            }
        }
        PairedWeights { k, n, data }
    }

    /// As [`super::QuantizedWeights::refill`].
    pub fn refill(&mut self, weights: Bytes<'_>) {
        let (n, pairs) = (self.n, self.k.div_ceil(2));
        for (i, byte) in weights.data.iter().enumerate() {
            let (row, column) = (i / n, i % n);
            let place = (column / PANEL * pairs + row / 2) * PANEL * 2 + column % PANEL * 2 + row % 2;
            self.data[place] = (value(*byte, weights.signed) - weights.zero) as i16;
        }
    }

    /// `c[m, n] = (a - zero) (b - zero of b)` for A `[m, k]`.
    pub fn product(&self, cpu: &Cpu, m: usize, a: Bytes<'_>, c: &mut [i32], scratch: &mut [i16]) {
        let PairedWeights { k, n, ref data } = *self;
        if c.is_empty() {
            return;
        }
        let width = k.next_multiple_of(2);
        let scratch = &mut scratch[..m.next_multiple_of(ROWS) * width];
        if k > 0 {
            cpu.threads.for_each_piece(scratch, width * ROWS, |tile, rows| {
                rows.fill(0);
                for (i, to) in rows.chunks_exact_mut(width).enumerate().take(m - tile * ROWS) {
                    let row = &a.data[(tile * ROWS + i) * k..][..k];
                    to.iter_mut().zip(row).for_each(|(t, x)| *t = (value(*x, a.signed) - a.zero) as i16);
                }
            });
        }
        let a = &*scratch;
        cpu.threads.for_each_piece(c, n * ROWS, |i, c| {
            let a = &a[i * ROWS * width..][..ROWS * width];
            for panel in 0..n.div_ceil(PANEL) {
                let b = &data[panel * width * PANEL..][..width * PANEL];
                let column = panel * PANEL;
                match cpu.isa {
                    Isa::Scalar(_) => tile_plainly(n, column, a, b, c),
                    // SAFETY: either token proves AVX2.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2(_) | Isa::Avx512(_) => unsafe {
                        match c.len() / n {
                            1 => tile::<1>(n, column, a, b, c),
                            2 | 3 => tile::<3>(n, column, a, b, c),
                            _ => tile::<ROWS>(n, column, a, b, c),
                        }
                    },
                }
            }
        });
    }
}

/// Scratch elements (`i16`) that a product needs.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    (m.next_multiple_of(ROWS) * k.next_multiple_of(2)).next_multiple_of(2)
}

/// The columns of a panel from `column` of the rows of C, which are MR or fewer, of the rows of A.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn tile<const MR: usize>(n: usize, column: usize, a: &[i16], b: &[i16], c: &mut [i32]) {
    /// Columns of two vectors of sums.
    const HALF: usize = PANEL / 2;
    let width = a.len() / ROWS;
    assert!(MR <= ROWS && b.len() == width * PANEL && width.is_multiple_of(2));
    for first in (column..n.min(column + PANEL)).step_by(HALF) {
        let mut b = b[(first - column) * 2..].as_ptr();
        let mut sums = [[_mm256_setzero_si256(); 2]; MR];
        for pair in 0..width / 2 {
            // SAFETY: A has ROWS rows of `width` numbers, B as many pairs of a panel.
            unsafe {
                let (left, right) = (_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(16).cast()));
                unrolled!(i < MR => {
                    let x = a.as_ptr().add(i * width + 2 * pair).cast::<i32>().read_unaligned();
                    let x = _mm256_set1_epi32(x);
                    sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(x, left));
                    sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(x, right));
                });
                b = b.wrapping_add(2 * PANEL);
            }
        }
        let columns = HALF.min(n - first);
        let mut list = [[0; HALF]; MR];
        unrolled!(i < MR => {
            // SAFETY: a row of the list is two vectors.
            unsafe {
                _mm256_storeu_si256(list[i].as_mut_ptr().cast(), sums[i][0]);
                _mm256_storeu_si256(list[i].as_mut_ptr().add(8).cast(), sums[i][1]);
            }
        });
        for (c, list) in c.chunks_exact_mut(n).zip(&list) {
            c[first..first + columns].copy_from_slice(&list[..columns]);
        }
    }
}

/// The same without vectors, for any number of rows.
fn tile_plainly(n: usize, column: usize, a: &[i16], b: &[i16], c: &mut [i32]) {
    let width = a.len() / ROWS;
    let columns = PANEL.min(n - column);
    for (i, c) in c.chunks_exact_mut(n).enumerate() {
        let a = &a[i * width..][..width];
        let mut sums = [0i32; PANEL];
        for (x, b) in a.chunks_exact(2).zip(b.chunks_exact(2 * PANEL)) {
            let (x, y) = (i32::from(x[0]), i32::from(x[1]));
            for (sum, b) in sums.iter_mut().zip(b.chunks_exact(2)) {
                *sum = sum.wrapping_add(x * i32::from(b[0]) + y * i32::from(b[1]));
            }
        }
        c[column..column + columns].copy_from_slice(&sums[..columns]);
    }
}
