//! Products of bytes widened to 16 bits, two products to a sum at a time: any zero points, any instruction set.

use super::Bytes;
use crate::Cpu;
use crate::quantize::value;
use crate::simd::vectorised;

/// Columns of one panel of packed B.
const PANEL: usize = 32;
/// Rows of C in one tile.
const ROWS: usize = 4;

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
        cpu.threads.for_each_piece(c, n * ROWS, |tile, c| {
            for panel in 0..n.div_ceil(PANEL) {
                let b = &data[panel * width * PANEL..][..width * PANEL];
                tile_product(cpu.isa, n, panel * PANEL, &a[tile * ROWS * width..][..ROWS * width], b, c);
            }
        });
    }
}

/// Scratch elements (`i16`) that a product needs.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    (m.next_multiple_of(ROWS) * k.next_multiple_of(2)).next_multiple_of(2)
}

vectorised! {
    fn tile_product<'a>(s; n: usize, column: usize, a: &'a [i16], b: &'a [i16], c: &'a mut [i32]) {
        let width = a.len() / ROWS;
        let mut sums = [[0i32; PANEL]; ROWS];
        for (pair, b) in b.chunks_exact(2 * PANEL).enumerate() {
            for (i, sums) in sums.iter_mut().enumerate() {
                let (x, y) = (a[i * width + 2 * pair] as i32, a[i * width + 2 * pair + 1] as i32);
                for (sum, b) in sums.iter_mut().zip(b.chunks_exact(2)) {
                    *sum = sum.wrapping_add(x * b[0] as i32 + y * b[1] as i32);
                }
            }
        }
        let columns = PANEL.min(n - column);
        for (c, sums) in c.chunks_exact_mut(n).zip(&sums) {
            c[column..column + columns].copy_from_slice(&sums[..columns]);
        }
    }
}
