//! Products of few rows with a transposed matrix: sums along the rows of B as they lie. Packing B, as taller products do,
//! would take longer than the product itself.

use crate::Cpu;
use crate::gemm::{Epilogue, Gemm};
use crate::simd::{Simd, unrolled, vectorised};

/// Rows of A up to which B is read once for each of them.
pub(crate) const FEW: usize = 4;
/// Columns of C that a thread takes at a time.
const PIECE: usize = 64;

/// `C = activation([C +] A B^T + bias + residual)` for A `[m, k]` and B `[n, k]`.
pub(crate) fn product(cpu: &Cpu, shape: &Gemm, a: &[f32], b: &[f32], e: Epilogue, c: &mut [f32]) {
    let Gemm { m, n, k, .. } = *shape;
    assert_eq!((a.len(), b.len(), c.len()), (m * k, n * k, m * n), "operands of {shape:?}");
    e.check(m, n);
    for (row, c) in c.chunks_exact_mut(n.max(1)).enumerate() {
        let a = &a[row * k..(row + 1) * k];
        let residual = e.residual.map(|r| &r[row * n..(row + 1) * n]);
        cpu.threads.for_each_piece(c, PIECE, |piece, c| {
            let columns = piece * PIECE..piece * PIECE + c.len();
            let bias = e.bias.map(|bias| &bias[columns.clone()]);
            let residual = residual.map(|r| &r[columns.clone()]);
            dots(cpu.isa, a, &b[columns.start * k..columns.end * k], Epilogue { bias, residual, ..e }, c);
            e.activation.apply(cpu.isa, c);
        });
    }
}

vectorised! {
    /// The sum of products of `x` with each row of `b`, at most [`PIECE`] of them, and what happens to it on its way to `c`.
    fn dots<'a>(s; x: &'a [f32], b: &'a [f32], e: Epilogue<'a>, c: &'a mut [f32]) {
        let (k, n) = (x.len(), c.len());
        let mut sums = [0.0; PIECE];
        let mut first = 0;
        while first + 8 <= n {
            let [t0, t1, t2, t3, t4, t5, t6, t7] = rows::<S, 8>(s, x, &b[first * k..], 7);
            sums[first..first + 4].copy_from_slice(&s.sums([t0, t1, t2, t3]));
            sums[first + 4..first + 8].copy_from_slice(&s.sums([t4, t5, t6, t7]));
            first += 8;
        }
        while first < n {
            let count = (n - first).min(4);
            let four = s.sums(rows::<S, 4>(s, x, &b[first * k..], count - 1));
            sums[first..first + count].copy_from_slice(&four[..count]);
            first += 4;
        }
        let (low, high) = e.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        for (at, c) in c.chunks_mut(S::LANES).enumerate() {
            let at = at * S::LANES;
            let before = if e.accumulate { s.read(c) } else { s.zero() };
            let mut sum = s.add(before, s.read(&sums[at..at + c.len()]));
            if let Some(bias) = e.bias {
                sum = s.add(sum, s.read(&bias[at..]));
            }
            if let Some(residual) = e.residual {
                sum = s.add(sum, s.read(&residual[at..]));
            }
            // A number that is none stays none.
            s.write(c, s.min(high, s.max(low, sum)));
        }
    }
}

/// The products of `x` with each of the first R rows of `b`, and with row `last` instead of those after it, each lane's added
/// up. R is 8, as many multiply-adds as are under way at a time, so that none waits for the one before it in its row.
#[inline(always)]
fn rows<S: Simd, const R: usize>(s: S, x: &[f32], b: &[f32], last: usize) -> [S::F; R] {
    let k = x.len();
    assert!(b.len() >= (last + 1) * k, "{last} rows of {k} elements and one more");
    let mut starts = [0; R];
    unrolled!(i < R => {
        starts[i] = i.min(last) * k;
    });
    let whole = k / S::LANES * S::LANES;
    let mut total = [s.zero(); R];
    let mut at = 0;
    while at < whole {
        // SAFETY: at + LANES <= k, the length of x and of a row; row `last` and those before it lie in b by the assertion.
        unsafe {
            let x = s.load(x.as_ptr().add(at));
            unrolled!(i < R => {
                total[i] = s.fma(x, s.load(b.as_ptr().add(starts[i] + at)), total[i]);
            });
        }
        at += S::LANES;
    }
    if whole < k {
        let x = s.read(&x[whole..]);
        unrolled!(i < R => {
            total[i] = s.fma(x, s.read(&b[starts[i] + whole..starts[i] + k]), total[i]);
        });
    }
    total
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
        for (m, n, k) in
            [(1, 1, 1), (1, 130, 128), (3, 67, 19), (2, 4, 33), (1, 31, 40), (2, 72, 5), (4, 5, 0), (1, 0, 7)]
        {
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
