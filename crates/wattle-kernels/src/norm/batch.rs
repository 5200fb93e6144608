//! Batch norm over the rows of `[rows, channels]`.
//!
//! Batch statistics are two-pass within blocks that stay in cache, merged in f64 (Chan, Golub, LeVeque 1979), and the
//! rows are split into chunks that depend on the shape alone.

use super::{CHUNKS, PIECE};
use crate::simd::vectorised;
use crate::threads::Shared;
use crate::{Activation, Cpu, Isa};

/// Rows of a block are worked on twice, so a block stays in the first-level cache.
const BLOCK: usize = 4096;
/// Per-channel coefficients are repeated up to about this length, so that inner loops are long.
const WIDE: usize = 256;

/// How often `channels` coefficients are repeated.
fn repeats(channels: usize) -> usize {
    (WIDE / channels.max(1)).max(1)
}

/// Scratch elements of every function on batch norm here.
pub fn batch_norm_scratch_len(channels: usize) -> usize {
    let wide = channels * repeats(channels);
    // Per chunk two sums in f64 and one block's accumulators; then three coefficients a channel, repeated.
    CHUNKS * (4 * channels + 2 * wide) + 3 * wide
}

/// Constants of a batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Channels, the last axis.
    pub channels: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether max(., 0) follows (after the residual).
    pub relu: bool,
}

/// What the forward pass in training leaves behind, one value a channel.
pub struct Statistics<'a> {
    /// Mean of the batch.
    pub mean: &'a mut [f32],
    /// Variance of the batch, divided by the number of rows.
    pub variance: &'a mut [f32],
}

/// Training forward: `y = [relu](scale (x - mean) / sqrt(variance + epsilon) + bias [+ residual])` with the batch's own
/// statistics, which are written to `statistics`.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_train(
    cpu: &Cpu,
    norm: BatchNorm,
    x: &[f32],
    scale: &[f32],
    bias: &[f32],
    residual: Option<&[f32]>,
    statistics: Statistics,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let c = norm.channels;
    check(c, x.len(), scratch.len());
    assert!([scale.len(), bias.len(), statistics.mean.len(), statistics.variance.len()] == [c; 4]);
    assert_eq!(x.len(), y.len());
    if x.is_empty() {
        return;
    }
    let rows = x.len() / c;
    let wide = c * repeats(c);
    let chunk_len = 4 * c + 2 * wide;
    let (partials, coefficients) = scratch.split_at_mut(CHUNKS * chunk_len);
    cpu.threads.for_each_piece(partials, chunk_len, |chunk, partial| {
        let range = rows * chunk / CHUNKS..rows * (chunk + 1) / CHUNKS;
        moments(cpu.isa, c, &x[range.start * c..range.end * c], partial);
    });
    let (a, rest) = coefficients.split_at_mut(wide);
    let b = &mut rest[..wide];
    for i in 0..c {
        let (mut n, mut mean, mut m2) = (0.0f64, 0.0f64, 0.0f64);
        for (chunk, partial) in partials.chunks_exact(chunk_len).enumerate() {
            let count = (rows * (chunk + 1) / CHUNKS - rows * chunk / CHUNKS) as f64;
            merge(
                &mut n,
                &mut mean,
                &mut m2,
                count,
                pair(partial[i], partial[c + i]),
                pair(partial[2 * c + i], partial[3 * c + i]),
            );
        }
        let variance = m2 / n;
        statistics.mean[i] = mean as f32;
        statistics.variance[i] = variance as f32;
        let slope = scale[i] as f64 / (variance + norm.epsilon as f64).sqrt();
        a[i] = slope as f32;
        b[i] = (bias[i] as f64 - mean * slope) as f32;
    }
    repeat(a, c);
    repeat(b, c);
    let low = if norm.relu { 0.0 } else { f32::NEG_INFINITY };
    affine_pieces(cpu, x, a, b, residual, low, f32::INFINITY, y);
}

/// f64 kept as two f32, so that scratch memory has one element type.
fn split(x: f64) -> (f32, f32) {
    let high = x as f32;
    (high, (x - high as f64) as f32)
}

fn pair(high: f32, low: f32) -> f64 {
    high as f64 + low as f64
}

fn merge(n: &mut f64, mean: &mut f64, m2: &mut f64, count: f64, other_mean: f64, other_m2: f64) {
    if count == 0.0 {
        return;
    }
    let total = *n + count;
    let delta = other_mean - *mean;
    *mean += delta * count / total;
    *m2 += other_m2 + delta * delta * *n * count / total;
    *n = total;
}

fn check(c: usize, len: usize, scratch: usize) {
    assert!(c > 0 && len.is_multiple_of(c), "{len} elements are not rows of {c} channels");
    assert!(scratch >= batch_norm_scratch_len(c), "scratch of {scratch} elements for {c} channels");
}

fn repeat(x: &mut [f32], c: usize) {
    for i in c..x.len() {
        x[i] = x[i - c];
    }
}

/// Mean and sum of squared deviations of each column: `out` gets mean (high, low), then squares (high, low).
fn moments(isa: Isa, c: usize, x: &[f32], out: &mut [f32]) {
    let (result, wide) = out.split_at_mut(4 * c);
    let (sums, means) = wide.split_at_mut(wide.len() / 2);
    result.fill(0.0);
    let mut n = 0.0f64;
    let wide_rows = sums.len() / c;
    // Whole wide rows, then what is left row by row.
    let block_rows = (BLOCK / c).max(wide_rows).next_multiple_of(wide_rows);
    for block in x.chunks(block_rows * c) {
        let count = (block.len() / c) as f64;
        sums.fill(0.0);
        add_rows(isa, block, sums);
        for i in 0..c {
            let sum: f64 = sums.iter().skip(i).step_by(c).map(|&x| x as f64).sum();
            means[i] = (sum / count) as f32;
        }
        repeat(means, c);
        sums.fill(0.0);
        add_squares(isa, block, means, sums);
        for i in 0..c {
            let m2: f64 = sums.iter().skip(i).step_by(c).map(|&x| x as f64).sum();
            let (mut total, mut mean, mut sum) =
                (n, pair(result[i], result[c + i]), pair(result[2 * c + i], result[3 * c + i]));
            merge(&mut total, &mut mean, &mut sum, count, means[i] as f64, m2);
            (result[i], result[c + i]) = split(mean);
            (result[2 * c + i], result[3 * c + i]) = split(sum);
        }
        n += count;
    }
}

vectorised! {
    fn add_rows<'a>(s; x: &'a [f32], sums: &'a mut [f32]) {
        for row in x.chunks(sums.len()) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += *x;
            }
        }
    }
}

vectorised! {
    fn add_squares<'a>(s; x: &'a [f32], means: &'a [f32], sums: &'a mut [f32]) {
        for row in x.chunks(sums.len()) {
            for ((sum, x), mean) in sums.iter_mut().zip(row).zip(means) {
                let d = *x - *mean;
                *sum += d * d;
            }
        }
    }
}

vectorised! {
    fn affine<'a>(s; x: &'a [f32], a: &'a [f32], b: &'a [f32], low: f32, high: f32, y: &'a mut [f32]) {
        for (x, y) in x.chunks(a.len()).zip(y.chunks_mut(a.len())) {
            for (((y, x), a), b) in y.iter_mut().zip(x).zip(a).zip(b) {
                let v = *x * *a + *b;
                let v = if v < low { low } else { v };
                *y = if v > high { high } else { v };
            }
        }
    }
}

vectorised! {
    fn affine_add<'a>(s; x: &'a [f32], a: &'a [f32], b: &'a [f32], r: &'a [f32], low: f32, high: f32, y: &'a mut [f32]) {
        for ((x, y), r) in x.chunks(a.len()).zip(y.chunks_mut(a.len())).zip(r.chunks(a.len())) {
            for ((((y, x), a), b), r) in y.iter_mut().zip(x).zip(a).zip(b).zip(r) {
                let v = *x * *a + *b + *r;
                let v = if v < low { low } else { v };
                *y = if v > high { high } else { v };
            }
        }
    }
}

/// `y = clamp(a x + b [+ r])` with repeated coefficients.
#[allow(clippy::too_many_arguments)]
fn affine_pieces(
    cpu: &Cpu,
    x: &[f32],
    a: &[f32],
    b: &[f32],
    r: Option<&[f32]>,
    low: f32,
    high: f32,
    y: &mut [f32],
) {
    if let Some(r) = r {
        assert_eq!(r.len(), x.len(), "a residual has the shape of the input");
    }
    let piece = (PIECE / a.len()).max(1) * a.len();
    cpu.threads.for_each_piece_backwards(y, piece, |i, y| {
        let x = &x[i * piece..][..y.len()];
        match r {
            Some(r) => affine_add(cpu.isa, x, a, b, &r[i * piece..][..y.len()], low, high, y),
            None => affine(cpu.isa, x, a, b, low, high, y),
        }
    });
}

/// `y = activation(x scale + shift [+ residual])`, one scale and shift a channel: batch norm at inference, once the
/// caller has folded its statistics.
#[allow(clippy::too_many_arguments)]
pub fn scale_shift(
    cpu: &Cpu,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let c = scale.len();
    check(c, x.len(), scratch.len());
    assert!(shift.len() == c && x.len() == y.len());
    let wide = c * repeats(c);
    let (a, rest) = scratch.split_at_mut(wide);
    let b = &mut rest[..wide];
    a[..c].copy_from_slice(scale);
    b[..c].copy_from_slice(shift);
    repeat(a, c);
    repeat(b, c);
    let (low, high) = activation.clamp();
    affine_pieces(cpu, x, a, b, residual, low, high, y);
    if !activation.is_clamp() {
        cpu.threads.for_each_piece(y, PIECE, |_, y| activation.apply(cpu.isa, y));
    }
}

/// The inputs of [`batch_norm_gradient`].
#[derive(Clone, Copy)]
pub struct BatchNormSaved<'a> {
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// Its output; needed with ReLU only.
    pub y: Option<&'a [f32]>,
    /// Scale of each channel.
    pub scale: &'a [f32],
    /// The batch's mean.
    pub mean: &'a [f32],
    /// The batch's variance.
    pub variance: &'a [f32],
}

/// Gradients of [`batch_norm_train`]. With ReLU, `dy` is first masked where the output was 0; `residual_gradient`, if
/// asked for, gets that masked gradient.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_gradient(
    cpu: &Cpu,
    norm: BatchNorm,
    saved: BatchNormSaved,
    dy: &[f32],
    dx: &mut [f32],
    scale_gradient: &mut [f32],
    bias_gradient: &mut [f32],
    residual_gradient: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    let c = norm.channels;
    let BatchNormSaved { x, scale, mean, variance, .. } = saved;
    check(c, x.len(), scratch.len());
    assert!(x.len() == dy.len() && x.len() == dx.len());
    assert!([scale.len(), mean.len(), variance.len(), scale_gradient.len(), bias_gradient.len()] == [c; 5]);
    let y = if norm.relu { Some(saved.y.expect("ReLU's gradient needs the output")) } else { None };
    assert!(y.is_none_or(|y| y.len() == x.len()));
    let rows = x.len() / c;
    let wide = c * repeats(c);
    let chunk_len = 4 * c + 2 * wide;
    let (partials, coefficients) = scratch.split_at_mut(CHUNKS * chunk_len);
    let (p, rest) = coefficients.split_at_mut(wide);
    let (q, rest) = rest.split_at_mut(wide);
    let r = &mut rest[..wide];
    // r holds the means while sums are gathered.
    r[..c].copy_from_slice(mean);
    repeat(r, c);
    let means = &*r;
    cpu.threads.for_each_piece(partials, chunk_len, |chunk, partial| {
        let range = rows * chunk / CHUNKS * c..rows * (chunk + 1) / CHUNKS * c;
        let (result, sums) = partial.split_at_mut(4 * c);
        result.fill(0.0);
        let (g, gx) = sums.split_at_mut(wide);
        let block = (BLOCK / wide).max(1) * wide;
        for start in range.clone().step_by(block) {
            let end = range.end.min(start + block);
            g.fill(0.0);
            gx.fill(0.0);
            match y {
                Some(y) => {
                    gradient_sums_relu(cpu.isa, &x[start..end], &dy[start..end], &y[start..end], means, g, gx)
                }
                None => gradient_sums(cpu.isa, &x[start..end], &dy[start..end], means, g, gx),
            }
            for i in 0..c {
                let sum = |v: &[f32]| v.iter().skip(i).step_by(c).map(|&x| x as f64).sum::<f64>();
                (result[i], result[c + i]) = split(pair(result[i], result[c + i]) + sum(g));
                (result[2 * c + i], result[3 * c + i]) =
                    split(pair(result[2 * c + i], result[3 * c + i]) + sum(gx));
            }
        }
    });
    let n = rows as f64;
    for i in 0..c {
        let total = |at: usize| -> f64 {
            partials.chunks_exact(chunk_len).map(|p| pair(p[at * c + i], p[(at + 1) * c + i])).sum()
        };
        let (sum_g, sum_gx) = (total(0), total(2));
        let inverse = 1.0 / (variance[i] as f64 + norm.epsilon as f64).sqrt();
        scale_gradient[i] = (sum_gx * inverse) as f32;
        bias_gradient[i] = sum_g as f32;
        // dx = scale inv (g - mean(g) - xhat mean(g xhat)), xhat = (x - mean) inv.
        let a = scale[i] as f64 * inverse;
        let b = -a * inverse * inverse * sum_gx / n;
        p[i] = a as f32;
        q[i] = b as f32;
        r[i] = (-a * sum_g / n - b * mean[i] as f64) as f32;
    }
    repeat(p, c);
    repeat(q, c);
    repeat(r, c);
    let (p, q, r) = (&*p, &*q, &*r);
    let piece = (PIECE / wide).max(1) * wide;
    let residual = residual_gradient.map(Shared::new);
    cpu.threads.for_each_piece_backwards(dx, piece, |i, dx| {
        let at = i * piece..i * piece + dx.len();
        let (x, dy) = (&x[at.clone()], &dy[at.clone()]);
        // SAFETY: pieces are disjoint.
        let residual = residual.map(|r| unsafe { r.slice(at.start, at.len()) });
        match (y, residual) {
            (Some(y), Some(out)) => {
                masked(cpu.isa, dy, &y[at], out);
                input_gradient(cpu.isa, x, out, p, q, r, dx);
            }
            (Some(y), None) => input_gradient_relu(cpu.isa, x, dy, &y[at], p, q, r, dx),
            (None, residual) => {
                if let Some(out) = residual {
                    out.copy_from_slice(dy);
                }
                input_gradient(cpu.isa, x, dy, p, q, r, dx);
            }
        }
    });
}

vectorised! {
    fn masked<'a>(s; dy: &'a [f32], y: &'a [f32], out: &'a mut [f32]) {
        for ((o, dy), y) in out.iter_mut().zip(dy).zip(y) {
            *o = if *y > 0.0 { *dy } else { 0.0 };
        }
    }
}

vectorised! {
    fn gradient_sums<'a>(s; x: &'a [f32], dy: &'a [f32], mean: &'a [f32], g: &'a mut [f32], gx: &'a mut [f32]) {
        for (x, dy) in x.chunks(g.len()).zip(dy.chunks(g.len())) {
            for ((((g, gx), x), dy), mean) in g.iter_mut().zip(gx.iter_mut()).zip(x).zip(dy).zip(mean) {
                *g += *dy;
                *gx += *dy * (*x - *mean);
            }
        }
    }
}

vectorised! {
    fn gradient_sums_relu<'a>(s; x: &'a [f32], dy: &'a [f32], y: &'a [f32], mean: &'a [f32], g: &'a mut [f32], gx: &'a mut [f32]) {
        for ((x, dy), y) in x.chunks(g.len()).zip(dy.chunks(g.len())).zip(y.chunks(g.len())) {
            for (((((g, gx), x), dy), y), mean) in g.iter_mut().zip(gx.iter_mut()).zip(x).zip(dy).zip(y).zip(mean) {
                let d = if *y > 0.0 { *dy } else { 0.0 };
                *g += d;
                *gx += d * (*x - *mean);
            }
        }
    }
}

vectorised! {
    fn input_gradient<'a>(s; x: &'a [f32], dy: &'a [f32], p: &'a [f32], q: &'a [f32], r: &'a [f32], dx: &'a mut [f32]) {
        for ((dx, x), dy) in dx.chunks_mut(p.len()).zip(x.chunks(p.len())).zip(dy.chunks(p.len())) {
            for (((((dx, x), dy), p), q), r) in dx.iter_mut().zip(x).zip(dy).zip(p).zip(q).zip(r) {
                *dx = *p * *dy + (*q * *x + *r);
            }
        }
    }
}

vectorised! {
    fn input_gradient_relu<'a>(s; x: &'a [f32], dy: &'a [f32], y: &'a [f32], p: &'a [f32], q: &'a [f32], r: &'a [f32], dx: &'a mut [f32]) {
        for (((dx, x), dy), y) in dx.chunks_mut(p.len()).zip(x.chunks(p.len())).zip(dy.chunks(p.len())).zip(y.chunks(p.len())) {
            for ((((((dx, x), dy), y), p), q), r) in dx.iter_mut().zip(x).zip(dy).zip(y).zip(p).zip(q).zip(r) {
                let d = if *y > 0.0 { *dy } else { 0.0 };
                *dx = *p * d + (*q * *x + *r);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    #[test]
    fn batch_norm_and_its_gradient_match_the_oracle() {
        for (rows, c, relu, offset) in
            [(7, 3, false, 0.0), (300, 16, true, 0.0), (1000, 33, true, 100.0), (40, 300, false, 3.0)]
        {
            let numbers = &mut Numbers::new(c as u64);
            let mut x = numbers.take(rows * c);
            x.iter_mut().for_each(|x| *x += offset);
            let (scale, bias, residual, dy) =
                (numbers.take(c), numbers.take(c), numbers.take(rows * c), numbers.take(rows * c));
            let norm = BatchNorm { channels: c, epsilon: 1e-5, relu };
            let n = rows as f64;
            let at = |v: &[f32], r: usize, i: usize| v[r * c + i] as f64;
            let mean: Vec<f64> = (0..c).map(|i| (0..rows).map(|r| at(&x, r, i)).sum::<f64>() / n).collect();
            let var: Vec<f64> = (0..c)
                .map(|i| (0..rows).map(|r| (at(&x, r, i) - mean[i]).powi(2)).sum::<f64>() / n)
                .collect();
            let hat = |r: usize, i: usize| (at(&x, r, i) - mean[i]) / (var[i] + 1e-5).sqrt();
            let mut y_want = vec![0.0; rows * c];
            let mut g = vec![0.0; rows * c];
            for r in 0..rows {
                for i in 0..c {
                    let y = hat(r, i) * scale[i] as f64 + bias[i] as f64 + at(&residual, r, i);
                    y_want[r * c + i] = if relu { y.max(0.0) } else { y };
                    g[r * c + i] = if relu && y <= 0.0 { 0.0 } else { at(&dy, r, i) };
                }
            }
            let db: Vec<f64> = (0..c).map(|i| (0..rows).map(|r| g[r * c + i]).sum()).collect();
            let ds: Vec<f64> = (0..c).map(|i| (0..rows).map(|r| g[r * c + i] * hat(r, i)).sum()).collect();
            let dx_want: Vec<f64> = (0..rows * c)
                .map(|k| {
                    let (r, i) = (k / c, k % c);
                    scale[i] as f64 / (var[i] + 1e-5).sqrt() * (g[k] - db[i] / n - hat(r, i) * ds[i] / n)
                })
                .collect();
            for group in cpus() {
                let mut first = None;
                for cpu in &group {
                    let mut scratch = vec![f32::NAN; batch_norm_scratch_len(c)];
                    let (mut y, mut m, mut v) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
                    let statistics = Statistics { mean: &mut m, variance: &mut v };
                    batch_norm_train(
                        cpu,
                        norm,
                        &x,
                        &scale,
                        &bias,
                        Some(&residual),
                        statistics,
                        &mut y,
                        &mut scratch,
                    );
                    assert_close(&y, &y_want, 2e-5, "y");
                    let saved = BatchNormSaved { x: &x, y: Some(&y), scale: &scale, mean: &m, variance: &v };
                    let (mut dx, mut dscale, mut dbias, mut dr) =
                        (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c], vec![0.0; x.len()]);
                    batch_norm_gradient(
                        cpu,
                        norm,
                        saved,
                        &dy,
                        &mut dx,
                        &mut dscale,
                        &mut dbias,
                        Some(&mut dr),
                        &mut scratch,
                    );
                    assert_close(&dx, &dx_want, 1e-4, "dx");
                    assert_close(&dscale, &ds, 1e-5, "dscale");
                    assert_close(&dbias, &db, 1e-5, "dbias");
                    assert_close(&dr, &g, 0.0, "dresidual");
                    let mut dx2 = vec![0.0; x.len()];
                    batch_norm_gradient(
                        cpu,
                        norm,
                        saved,
                        &dy,
                        &mut dx2,
                        &mut dscale,
                        &mut dbias,
                        None,
                        &mut scratch,
                    );
                    assert_eq!(dx, dx2);
                    match &first {
                        None => first = Some((y, dx, dscale)),
                        Some(f) => assert!(*f == (y, dx, dscale), "bits depend on the number of threads"),
                    }
                }
            }
        }
    }
}
