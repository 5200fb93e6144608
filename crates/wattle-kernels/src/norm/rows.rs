//! Layer norm and RMS norm: each row is normalised by itself.

use super::{CHUNKS, PIECE};
use crate::Cpu;
use crate::simd::vectorised;
use crate::threads::Shared;

/// Which normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNorm {
    /// Length of the last axis.
    pub width: usize,
    /// Added to the variance (or the mean square).
    pub epsilon: f32,
    /// Layer norm subtracts the mean; RMS norm does not.
    pub centred: bool,
}

/// Rows of one task.
fn rows_per_task(width: usize) -> usize {
    (PIECE / width).max(1)
}

/// `y = scale (x - mean) / sqrt(variance + epsilon) + bias` for each row; mean and the inverse root are written to
/// `saved`, two values a row. RMS norm takes the mean as 0.
pub fn row_norm(
    cpu: &Cpu,
    norm: RowNorm,
    x: &[f32],
    scale: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    saved: &mut [f32],
) {
    let n = norm.width;
    assert!(n > 0 && scale.len() == n && bias.is_none_or(|b| b.len() == n));
    assert!(x.len() == y.len() && x.len() == n * (saved.len() / 2) && saved.len().is_multiple_of(2));
    let rows = rows_per_task(n);
    let saved = Shared::new(saved);
    cpu.threads.for_each_piece(y, rows * n, |i, y| {
        for (j, (x, y)) in x[i * rows * n..].chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
            // SAFETY: each row has its own two values.
            let saved = unsafe { saved.slice(2 * (i * rows + j), 2) };
            row_forward(cpu.isa, norm, x, scale, bias, y, saved);
        }
    });
}

vectorised! {
    fn row_forward<'a>(s; norm: RowNorm, x: &'a [f32], scale: &'a [f32], bias: Option<&'a [f32]>, y: &'a mut [f32], saved: &'a mut [f32]) {
        let n = norm.width as f32;
        let mut sum = s.zero();
        if norm.centred {
            for x in x.chunks(S::LANES) {
                sum = s.add(sum, s.read(x));
            }
        }
        let mean = s.sum(sum) / n;
        let mut squares = s.zero();
        let m = s.splat(mean);
        for x in x.chunks_exact(S::LANES) {
            let d = s.sub(s.read(x), m);
            squares = s.fma(d, d, squares);
        }
        let mut square_sum = s.sum(squares);
        for x in x.chunks_exact(S::LANES).remainder() {
            square_sum += (*x - mean) * (*x - mean);
        }
        let inverse = 1.0 / (square_sum / n + norm.epsilon).sqrt();
        saved[0] = mean;
        saved[1] = inverse;
        match bias {
            Some(bias) => {
                for (((y, x), scale), bias) in y.iter_mut().zip(x).zip(scale).zip(bias) {
                    *y = (*x - mean) * inverse * *scale + *bias;
                }
            }
            None => {
                for ((y, x), scale) in y.iter_mut().zip(x).zip(scale) {
                    *y = (*x - mean) * inverse * *scale;
                }
            }
        }
    }
}

/// Scratch elements of [`row_norm_gradient`].
pub fn row_norm_gradient_scratch_len(width: usize) -> usize {
    CHUNKS * 2 * width
}

/// Gradients of [`row_norm`] given what it saved.
#[allow(clippy::too_many_arguments)]
pub fn row_norm_gradient(
    cpu: &Cpu,
    norm: RowNorm,
    x: &[f32],
    scale: &[f32],
    saved: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    scale_gradient: &mut [f32],
    bias_gradient: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    let n = norm.width;
    assert!(n > 0 && scale.len() == n && scale_gradient.len() == n);
    assert!(x.len() == dy.len() && x.len() == dx.len() && x.len() == n * (saved.len() / 2));
    let rows = x.len() / n;
    let scratch = &mut scratch[..row_norm_gradient_scratch_len(n)];
    let dx = Shared::new(dx);
    cpu.threads.for_each_piece(scratch, 2 * n, |chunk, sums| {
        let range = rows * chunk / CHUNKS..rows * (chunk + 1) / CHUNKS;
        sums.fill(0.0);
        for row in range {
            let at = row * n..(row + 1) * n;
            // SAFETY: rows are disjoint and each belongs to one chunk.
            let dx = unsafe { dx.slice(at.start, n) };
            row_backward(
                cpu.isa,
                norm,
                &x[at.clone()],
                scale,
                &saved[2 * row..2 * row + 2],
                &dy[at],
                dx,
                sums,
            );
        }
    });
    let (first, rest) = scratch.split_at_mut(2 * n);
    for other in rest.chunks_exact(2 * n) {
        first.iter_mut().zip(other).for_each(|(a, b)| *a += b);
    }
    scale_gradient.copy_from_slice(&first[..n]);
    if let Some(out) = bias_gradient {
        out.copy_from_slice(&first[n..]);
    }
}

vectorised! {
    fn row_backward<'a>(s; norm: RowNorm, x: &'a [f32], scale: &'a [f32], saved: &'a [f32], dy: &'a [f32], dx: &'a mut [f32], sums: &'a mut [f32]) {
        let (mean, inverse) = (saved[0], saved[1]);
        let n = norm.width as f32;
        let (scale_sums, bias_sums) = sums.split_at_mut(norm.width);
        let (mut g_sum, mut gx_sum) = (s.zero(), s.zero());
        let m = s.splat(mean);
        for ((x, dy), scale) in x.chunks(S::LANES).zip(dy.chunks(S::LANES)).zip(scale.chunks(S::LANES)) {
            // Lanes past the end have dy = 0.
            let g = s.mul(s.read(dy), s.read(scale));
            g_sum = s.add(g_sum, g);
            gx_sum = s.fma(g, s.sub(s.read(x), m), gx_sum);
        }
        let g_mean = if norm.centred { s.sum(g_sum) / n } else { 0.0 };
        let gx_mean = s.sum(gx_sum) * inverse / n;
        for (((((dx, x), dy), scale), scale_sum), bias_sum) in dx.iter_mut().zip(x).zip(dy).zip(scale).zip(scale_sums).zip(bias_sums) {
            let normal = (*x - mean) * inverse;
            *dx = inverse * (*dy * *scale - g_mean - normal * gx_mean);
            *scale_sum += *dy * normal;
            *bias_sum += *dy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    #[test]
    fn row_norms_and_their_gradients_match_the_oracle() {
        for (rows, n, centred) in [(5, 1, false), (9, 17, true), (40, 64, true), (3, 100, false)] {
            let numbers = &mut Numbers::new(n as u64);
            let (x, scale, bias, dy) =
                (numbers.take(rows * n), numbers.take(n), numbers.take(n), numbers.take(rows * n));
            let norm = RowNorm { width: n, epsilon: 1e-5, centred };
            let (mut y_want, mut dx_want, mut ds_want, mut db_want) =
                (vec![], vec![], vec![0.0; n], vec![0.0; n]);
            for (x, dy) in x.chunks(n).zip(dy.chunks(n)) {
                let k = n as f64;
                let mean = if centred { x.iter().map(|&x| x as f64).sum::<f64>() / k } else { 0.0 };
                let var = x.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / k;
                let inv = 1.0 / (var + 1e-5f32 as f64).sqrt();
                let hat: Vec<f64> = x.iter().map(|&x| (x as f64 - mean) * inv).collect();
                let g: Vec<f64> = dy.iter().zip(&scale).map(|(d, s)| *d as f64 * *s as f64).collect();
                let gm = if centred { g.iter().sum::<f64>() / k } else { 0.0 };
                let gx = g.iter().zip(&hat).map(|(a, b)| a * b).sum::<f64>() / k;
                for i in 0..n {
                    y_want.push(hat[i] * scale[i] as f64 + bias[i] as f64);
                    dx_want.push(inv * (g[i] - gm - hat[i] * gx));
                    ds_want[i] += dy[i] as f64 * hat[i];
                    db_want[i] += dy[i] as f64;
                }
            }
            for cpu in cpus().iter().flatten() {
                let (mut y, mut saved) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
                row_norm(cpu, norm, &x, &scale, Some(&bias), &mut y, &mut saved);
                assert_close(&y, &y_want, 2e-5, "y");
                let (mut dx, mut ds, mut db) = (vec![0.0; x.len()], vec![0.0; n], vec![0.0; n]);
                let mut scratch = vec![f32::NAN; row_norm_gradient_scratch_len(n)];
                row_norm_gradient(
                    cpu,
                    norm,
                    &x,
                    &scale,
                    &saved,
                    &dy,
                    &mut dx,
                    &mut ds,
                    Some(&mut db),
                    &mut scratch,
                );
                assert_close(&dx, &dx_want, 1e-4, "dx");
                assert_close(&ds, &ds_want, 2e-5, "ds");
                assert_close(&db, &db_want, 2e-5, "db");
            }
        }
    }
}
