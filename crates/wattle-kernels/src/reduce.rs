//! Reduction of one axis: `[outer, axis, inner]` to `[outer, inner]`. Adjacent axes merge into one, so this covers row
//! sums, column sums (bias gradients) and what lies between.

use crate::Cpu;
use crate::simd::vectorised;

/// Chunks of a long axis that is reduced with little else to share among threads.
const CHUNKS: usize = 16;
/// Elements below which an axis is not chunked.
const LONG: usize = 1 << 15;
/// Rows that are added in f32 before the sum joins the total, which keeps rounding errors small.
const BLOCK: usize = 256;

/// The reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    /// Sum of squares.
    SumSquare,
    Product,
}

impl Reduce {
    fn start(self) -> f32 {
        match self {
            Reduce::Sum | Reduce::Mean | Reduce::SumSquare => 0.0,
            Reduce::Max => f32::NEG_INFINITY,
            Reduce::Min => f32::INFINITY,
            Reduce::Product => 1.0,
        }
    }

    /// Merges partial results.
    fn join(self) -> Reduce {
        match self {
            Reduce::Mean | Reduce::SumSquare => Reduce::Sum,
            other => other,
        }
    }
}

fn is_chunked(outer: usize, axis: usize, inner: usize) -> bool {
    outer < 4 && inner > 1 && axis * inner >= LONG && axis >= 4 * CHUNKS
}

/// Scratch elements that [`reduce`] needs.
pub fn reduce_scratch_len(outer: usize, axis: usize, inner: usize) -> usize {
    // A block's sums for each chunk, then each chunk's total.
    if is_chunked(outer, axis, inner) { 2 * CHUNKS * inner } else { 0 }
}

/// `y[o, i] = f over a of x[o, a, i]`. NaN wins maximum and minimum.
pub fn reduce(
    cpu: &Cpu,
    f: Reduce,
    [outer, axis, inner]: [usize; 3],
    x: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    assert_eq!(x.len(), outer * axis * inner, "input of a reduction of {outer} x {axis} x {inner}");
    assert_eq!(y.len(), outer * inner, "output of a reduction of {outer} x {axis} x {inner}");
    if y.is_empty() {
        return;
    }
    if inner == 1 {
        let rows = (8192 / axis.max(1)).max(1);
        cpu.threads.for_each_piece(y, rows, |i, y| {
            for (j, y) in y.iter_mut().enumerate() {
                *y = reduce_row(cpu.isa, f, &x[(i * rows + j) * axis..][..axis]);
            }
        });
    } else if is_chunked(outer, axis, inner) {
        for (o, y) in y.chunks_exact_mut(inner).enumerate() {
            let x = &x[o * axis * inner..][..axis * inner];
            let scratch = &mut scratch[..2 * CHUNKS * inner];
            cpu.threads.for_each_piece(scratch, 2 * inner, |chunk, sums| {
                let rows = axis * chunk / CHUNKS * inner..axis * (chunk + 1) / CHUNKS * inner;
                let (total, block) = sums.split_at_mut(inner);
                columns(cpu, f, &x[rows], total, block);
            });
            y.fill(f.start());
            for sums in scratch.chunks_exact(2 * inner) {
                add_rows(cpu.isa, f.join(), &sums[..inner], y);
            }
        }
    } else {
        cpu.threads.for_each_piece(y, inner, |o, y| {
            y.fill(f.start());
            add_rows(cpu.isa, f, &x[o * axis * inner..][..axis * inner], y);
        });
    }
    if f == Reduce::Mean {
        let inverse = 1.0 / axis as f32;
        y.iter_mut().for_each(|y| *y *= inverse);
    }
}

fn columns(cpu: &Cpu, f: Reduce, x: &[f32], total: &mut [f32], block: &mut [f32]) {
    let inner = total.len();
    total.fill(f.start());
    for x in x.chunks(BLOCK * inner) {
        block.fill(f.start());
        add_rows(cpu.isa, f, x, block);
        add_rows(cpu.isa, f.join(), block, total);
    }
}

vectorised! {
    /// Reduces rows of `y.len()` elements into `y`.
    fn add_rows<'a>(s; f: Reduce, x: &'a [f32], y: &'a mut [f32]) {
        macro_rules! each {
            (|$y:ident, $x:ident| $e:expr) => {
                for row in x.chunks_exact(y.len()) {
                    for (o, x) in y.iter_mut().zip(row) {
                        let ($y, $x) = (*o, *x);
                        *o = $e;
                    }
                }
            };
        }
        match f {
            Reduce::Sum | Reduce::Mean => each!(|y, x| y + x),
            Reduce::Max => each!(|y, x| if y > x || y.is_nan() { y } else { x }),
            Reduce::Min => each!(|y, x| if y < x || y.is_nan() { y } else { x }),
            Reduce::SumSquare => each!(|y, x| y + x * x),
            Reduce::Product => each!(|y, x| y * x),
        }
    }
}

vectorised! {
    fn reduce_row<'a>(s; f: Reduce, x: &'a [f32]) -> f32 {
        let whole = x.len() / S::LANES * S::LANES;
        let (x, tail) = x.split_at(whole);
        match f {
            Reduce::Sum | Reduce::Mean | Reduce::SumSquare => {
                let mut total = 0.0;
                for x in x.chunks(BLOCK * S::LANES) {
                    let mut sum = [s.zero(); 4];
                    for x in x.chunks(4 * S::LANES) {
                        for (sum, x) in sum.iter_mut().zip(x.chunks_exact(S::LANES)) {
                            let v = s.read(x);
                            *sum = if f == Reduce::SumSquare { s.fma(v, v, *sum) } else { s.add(*sum, v) };
                        }
                    }
                    total += s.sum(s.add(s.add(sum[0], sum[1]), s.add(sum[2], sum[3])));
                }
                tail.iter().fold(total, |t, x| t + if f == Reduce::SumSquare { *x * *x } else { *x })
            }
            Reduce::Product => x.iter().chain(tail).product(),
            Reduce::Max | Reduce::Min => {
                let mut best = s.splat(f.start());
                let mut nan = false;
                for x in x.chunks_exact(S::LANES) {
                    let v = s.read(x);
                    best = if f == Reduce::Max { s.max(v, best) } else { s.min(v, best) };
                }
                for x in x {
                    nan |= x.is_nan();
                }
                let best = if f == Reduce::Max { s.maximum(best) } else { s.minimum(best) };
                if nan {
                    return f32::NAN;
                }
                tail.iter().fold(best, |b, x| {
                    let better = if f == Reduce::Max { *x > b } else { *x < b };
                    if better || x.is_nan() { *x } else { b }
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    #[test]
    fn reductions_match_the_oracle() {
        for dims in [[3, 7, 5], [1, 1000, 64], [4, 33, 1], [1, 5000, 1], [2, 1, 3], [1, 40_000, 2], [2, 0, 2]]
        {
            let numbers = &mut Numbers::new(dims[1] as u64);
            let [outer, axis, inner] = dims;
            let x = numbers.take(outer * axis * inner);
            for f in [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::SumSquare, Reduce::Product]
            {
                if axis == 0 && f == Reduce::Mean {
                    continue;
                }
                let mut want = vec![];
                for o in 0..outer {
                    for i in 0..inner {
                        let column = (0..axis).map(|a| x[(o * axis + a) * inner + i] as f64);
                        want.push(match f {
                            Reduce::Sum => column.sum(),
                            Reduce::Mean => column.sum::<f64>() / axis as f64,
                            Reduce::SumSquare => column.map(|x| x * x).sum(),
                            Reduce::Product => column.product(),
                            Reduce::Max => column.fold(f64::NEG_INFINITY, f64::max),
                            Reduce::Min => column.fold(f64::INFINITY, f64::min),
                        });
                    }
                }
                if axis == 0 && matches!(f, Reduce::Max | Reduce::Min) {
                    continue;
                }
                for group in cpus() {
                    let mut first: Option<Vec<f32>> = None;
                    for cpu in &group {
                        let mut y = vec![0.0; want.len()];
                        let mut scratch = vec![f32::NAN; reduce_scratch_len(outer, axis, inner)];
                        reduce(cpu, f, dims, &x, &mut y, &mut scratch);
                        assert_close(&y, &want, 1e-5, &format!("{f:?} {dims:?}"));
                        assert_eq!(*first.get_or_insert_with(|| y.clone()), y);
                    }
                }
            }
        }
    }
}
