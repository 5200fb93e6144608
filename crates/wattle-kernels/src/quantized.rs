//! Integer products: 8-bit by 8-bit with zero points, summed exactly in 32 bits.

use crate::Cpu;
use crate::simd::vectorised;

/// Columns of one panel of packed B.
const PANEL: usize = 32;
/// Rows of C in one tile.
const ROWS: usize = 4;

/// An 8-bit element, signed or not.
pub trait Byte: Copy + Send + Sync {
    /// Its value.
    fn widen(self) -> i16;
}

impl Byte for u8 {
    fn widen(self) -> i16 {
        self.into()
    }
}

impl Byte for i8 {
    fn widen(self) -> i16 {
        self.into()
    }
}

/// Weights less their zero points, as 16-bit pairs along k: `[panel][k / 2][column][2]`.
pub struct QuantizedWeights {
    k: usize,
    n: usize,
    data: Vec<i16>,
}

impl QuantizedWeights {
    /// Packs a matrix `[k, n]`; one zero point for all columns or one for each. `at(k, n)` is the element's index in
    /// `weights`, so that any layout can be packed.
    pub fn new<T: Byte>(
        k: usize,
        n: usize,
        weights: &[T],
        zero: &[T],
        at: impl Fn(usize, usize) -> usize,
    ) -> Self {
        assert!(zero.len() == 1 || zero.len() == n, "one zero point, or one for each of {n} columns");
        let pairs = k.div_ceil(2);
        let mut data = vec![0; n.div_ceil(PANEL) * pairs * PANEL * 2];
        for column in 0..n {
            let zero = zero[if zero.len() == 1 { 0 } else { column }].widen();
            for row in 0..k {
                let place = (column / PANEL * pairs + row / 2) * PANEL * 2 + column % PANEL * 2 + row % 2;
                data[place] = weights[at(row, column)].widen() - zero;
            }
        }
        QuantizedWeights { k, n, data }
    }
}

/// Scratch elements (`i16`) that [`quantized_gemm`] needs.
pub fn quantized_gemm_scratch_len(m: usize, k: usize) -> usize {
    m.next_multiple_of(ROWS) * k.next_multiple_of(2)
}

/// `c[m, n] = (a - zero) (b - zero of b)` for A `[m, k]`; one zero point for all rows of A, or one for each.
pub fn quantized_gemm<T: Byte>(
    cpu: &Cpu,
    m: usize,
    a: &[T],
    zero: &[T],
    weights: &QuantizedWeights,
    c: &mut [i32],
    scratch: &mut [i16],
) {
    let QuantizedWeights { k, n, ref data } = *weights;
    assert!(a.len() == m * k && c.len() == m * n, "a product {m} x {n} x {k}");
    assert!(zero.len() == 1 || zero.len() == m, "one zero point, or one for each of {m} rows");
    if c.is_empty() {
        return;
    }
    let width = k.next_multiple_of(2);
    let scratch = &mut scratch[..quantized_gemm_scratch_len(m, k)];
    if k > 0 {
        cpu.threads.for_each_piece(scratch, width * ROWS, |tile, rows| {
            rows.fill(0);
            for (i, to) in rows.chunks_exact_mut(width).enumerate().take(m - tile * ROWS) {
                let row = tile * ROWS + i;
                let zero = zero[if zero.len() == 1 { 0 } else { row }].widen();
                to.iter_mut().zip(&a[row * k..][..k]).for_each(|(t, a)| *t = a.widen() - zero);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, cpus};

    #[test]
    fn integer_products_are_exact() {
        let numbers = &mut Numbers::new(1);
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (9, 70, 130), (4, 32, 64), (3, 2, 0)] {
            let a: Vec<u8> = (0..m * k).map(|_| numbers.next() as u8).collect();
            let b: Vec<i8> = (0..k * n).map(|_| numbers.next() as i8).collect();
            let a_zero = [numbers.next() as u8];
            let b_zero: Vec<i8> = (0..n).map(|_| numbers.next() as i8).collect();
            let weights = QuantizedWeights::new(k, n, &b, &b_zero, |i, j| i * n + j);
            let mut want = vec![0i32; m * n];
            for i in 0..m {
                for j in 0..n {
                    for p in 0..k {
                        want[i * n + j] += (a[i * k + p] as i32 - a_zero[0] as i32)
                            * (b[p * n + j] as i32 - b_zero[j] as i32);
                    }
                }
            }
            for cpu in cpus().iter().flatten() {
                let mut c = vec![-1; m * n];
                let mut scratch = vec![-1; quantized_gemm_scratch_len(m, k)];
                quantized_gemm(cpu, m, &a, &a_zero, &weights, &mut c, &mut scratch);
                assert_eq!(c, want);
            }
        }
    }
}
