//! Products of few rows with a transposed matrix: sums along the rows of B as they lie. Packing B, as taller products do,
//! would take longer than the product itself.

use crate::Cpu;
use crate::gemm::{Epilogue, Gemm};
use crate::simd::{unrolled, vectorised};

/// Rows of A up to which B is read once for each of them.
pub(crate) const FEW: usize = 4;
/// Columns of C that a thread takes at a time.
const PIECE: usize = 64;

/// `C = activation([C +] A B^T + bias + residual)` for A `[m, k]` and B `[n, k]`.
pub(crate) fn product(cpu: &Cpu, shape: &Gemm, a: &[f32], b: &[f32], e: Epilogue, c: &mut [f32]) {
    let Gemm { m, n, k, .. } = *shape;
    assert_eq!((a.len(), b.len(), c.len()), (m * k, n * k, m * n), "operands of {shape:?}");
    e.check(m, n);
    let (low, high) = e.activation.clamp();
    for (row, c) in c.chunks_exact_mut(n.max(1)).enumerate() {
        let a = &a[row * k..(row + 1) * k];
        let residual = e.residual.map(|r| &r[row * n..(row + 1) * n]);
        cpu.threads.for_each_piece(c, PIECE, |piece, c| {
            let first = piece * PIECE;
            let mut sums = [0.0; PIECE];
            let sums = &mut sums[..c.len()];
            dots(cpu.isa, a, &b[first * k..(first + sums.len()) * k], sums);
            for (i, (c, sum)) in c.iter_mut().zip(sums).enumerate() {
                let before = if e.accumulate { *c } else { 0.0 };
                let bias = e.bias.map_or(0.0, |bias| bias[first + i]);
                let sum = before + *sum + bias + residual.map_or(0.0, |r| r[first + i]);
                // A number that is none stays none.
                *c = if sum < low {
                    low
                } else if sum > high {
                    high
                } else {
                    sum
                };
            }
            e.activation.apply(cpu.isa, c);
        });
    }
}

vectorised! {
    /// The sum of products of `x` with each row of `b`.
    fn dots<'a>(s; x: &'a [f32], b: &'a [f32], sums: &'a mut [f32]) {
        let k = x.len();
        for (four, sums) in sums.chunks_mut(4).enumerate() {
            let last = sums.len() - 1;
            let mut total = [s.zero(); 4];
            let mut at = 0;
            while at < k {
                let x = s.read(&x[at..]);
                unrolled!(i < 4, of 0 1 2 3 => {
                    let row = 4 * four + i.min(last);
                    total[i] = s.fma(x, s.read(&b[row * k + at..(row + 1) * k]), total[i]);
                });
                at += S::LANES;
            }
            sums.copy_from_slice(&s.sums(total)[..=last]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Isa};

    #[test]
    fn few_rows_agree_with_the_definition_on_every_instruction_set_and_number_of_threads() {
        let noise = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
        };
        for (m, n, k) in [(1, 1, 1), (1, 130, 128), (3, 67, 19), (2, 4, 33), (4, 5, 0), (1, 0, 7)] {
            let shape = Gemm { m, n, k, transpose_a: false, transpose_b: true };
            let (a, b, bias, residual) = (noise(m * k, 1), noise(n * k, 2), noise(n, 3), noise(m * n, 4));
            for isa in Isa::available() {
                for accumulate in [false, true] {
                    let mut first: Option<Vec<f32>> = None;
                    for threads in [1, 3] {
                        let cpu = Cpu::with_isa(isa, threads).expect("threads start");
                        let mut c = noise(m * n, 5);
                        let e = Epilogue {
                            bias: Some(&bias),
                            residual: Some(&residual),
                            accumulate,
                            activation: Activation::Relu,
                        };
                        product(&cpu, &shape, &a, &b, e, &mut c);
                        for (at, (got, before)) in c.iter().zip(noise(m * n, 5)).enumerate() {
                            let (i, j) = (at / n, at % n);
                            let dot: f64 =
                                (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[j * k + l])).sum();
                            let before = if accumulate { f64::from(before) } else { 0.0 };
                            let sum = before + dot + f64::from(bias[j]) + f64::from(residual[at]);
                            assert!((f64::from(*got) - sum.max(0.0)).abs() < 1e-4, "{shape:?}[{at}]");
                        }
                        let same = first.get_or_insert_with(|| c.clone()).iter().zip(&c);
                        assert!(
                            same.into_iter().all(|(x, y)| x.to_bits() == y.to_bits()),
                            "threads change bits"
                        );
                    }
                }
            }
        }
    }
}
