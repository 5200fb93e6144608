//! Softmax and log-softmax over the last axis, their gradients, and cross entropy fused with softmax.

use crate::Cpu;
use crate::math;
use crate::simd::{Simd, vectorised};
use crate::threads::Shared;

/// Elements of one task.
const PIECE: usize = 8192;

/// `y = softmax(x)` of each row of `width` elements; `log` gives the logarithm instead.
pub fn softmax(cpu: &Cpu, width: usize, log: bool, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    rows(cpu, width, y, |row, y| {
        let x = &x[row * width..][..width];
        forward(cpu.isa, log, x, y);
    });
}

/// `x = softmax(x)` in place.
pub fn softmax_in_place(cpu: &Cpu, width: usize, log: bool, x: &mut [f32]) {
    rows(cpu, width, x, |_, x| forward_in_place(cpu.isa, log, x));
}

/// Calls `f(row, elements)` on each row, rows of several kilobytes to a task.
fn rows(cpu: &Cpu, width: usize, y: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    if y.is_empty() {
        return;
    }
    assert!(width > 0 && y.len().is_multiple_of(width), "{} elements are not rows of {width}", y.len());
    let count = (PIECE / width).max(1);
    cpu.threads.for_each_piece(y, count * width, |i, y| {
        for (j, y) in y.chunks_exact_mut(width).enumerate() {
            f(i * count + j, y);
        }
    });
}

/// The largest element of a row, NaN not counted.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let chunks = x.chunks_exact(S::LANES);
    let rest = chunks.remainder();
    let mut top = s.splat(f32::NEG_INFINITY);
    for x in chunks {
        top = s.max(s.read(x), top);
    }
    rest.iter().fold(s.maximum(top), |m, x| if *x > m { *x } else { m })
}

/// What to subtract: the maximum, or 0 if all are -infinity.
#[inline(always)]
fn reference(top: f32) -> f32 {
    if top == f32::NEG_INFINITY { 0.0 } else { top }
}

vectorised! {
    fn forward<'a>(s; log: bool, x: &'a [f32], y: &'a mut [f32]) {
        y.copy_from_slice(x);
        finish(s, log, y);
    }
}

vectorised! {
    fn forward_in_place<'a>(s; log: bool, x: &'a mut [f32]) {
        finish(s, log, x);
    }
}

#[inline(always)]
fn finish<S: Simd>(s: S, log: bool, x: &mut [f32]) {
    let top = reference(largest(s, x));
    let t = s.splat(top);
    let mut sum = s.zero();
    if log {
        for x in x.chunks_exact(S::LANES) {
            sum = s.add(sum, math::exp(s, s.sub(s.read(x), t)));
        }
        let mut total = s.sum(sum);
        let mut rest = [f32::NEG_INFINITY; 16];
        let tail = x.chunks_exact(S::LANES).remainder();
        rest[..tail.len()].copy_from_slice(tail);
        total += s.sum(math::exp(s, s.sub(s.read(&rest), t)));
        let shift = top + total.ln();
        for x in x.iter_mut() {
            *x -= shift;
        }
        return;
    }
    let count = x.len() / S::LANES * S::LANES;
    let (whole, tail) = x.split_at_mut(count);
    for x in whole.chunks_exact_mut(S::LANES) {
        let e = math::exp(s, s.sub(s.read(x), t));
        s.write(x, e);
        sum = s.add(sum, e);
    }
    let mut total = s.sum(sum);
    if !tail.is_empty() {
        let e = math::exp(s, s.sub(s.read(tail), t));
        s.write(tail, e);
        for x in tail.iter() {
            total += *x;
        }
    }
    let inverse = 1.0 / total;
    for x in x.iter_mut() {
        *x *= inverse;
    }
}

/// `dx` from the output `y` of [`softmax`] (or of its logarithm) and `dy`.
pub fn softmax_gradient(cpu: &Cpu, width: usize, log: bool, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(y.len() == dy.len() && y.len() == dx.len());
    rows(cpu, width, dx, |row, dx| {
        let (y, dy) = (&y[row * width..][..width], &dy[row * width..][..width]);
        backward(cpu.isa, log, y, dy, dx);
    });
}

/// As [`softmax_gradient`] of plain softmax, with `dy` overwritten by `dx`.
pub fn softmax_gradient_in_place(cpu: &Cpu, width: usize, y: &[f32], dy: &mut [f32]) {
    assert_eq!(y.len(), dy.len());
    rows(cpu, width, dy, |row, dy| backward_in_place(cpu.isa, &y[row * width..][..width], dy));
}

vectorised! {
    fn backward_in_place<'a>(s; y: &'a [f32], dy: &'a mut [f32]) {
        let mut sum = s.zero();
        for (y, dy) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)) {
            sum = s.fma(s.read(y), s.read(dy), sum);
        }
        let total = s.sum(sum);
        for (y, dy) in y.iter().zip(dy) {
            *dy = *y * (*dy - total);
        }
    }
}

vectorised! {
    fn backward<'a>(s; log: bool, y: &'a [f32], dy: &'a [f32], dx: &'a mut [f32]) {
        let mut sum = s.zero();
        for (y, dy) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)) {
            let dy = s.read(dy);
            sum = if log { s.add(sum, dy) } else { s.fma(s.read(y), dy, sum) };
        }
        let total = s.splat(s.sum(sum));
        for ((y, dy), dx) in y.chunks(S::LANES).zip(dy.chunks(S::LANES)).zip(dx.chunks_mut(S::LANES)) {
            let (y, dy) = (s.read(y), s.read(dy));
            let g = if log {
                s.sub(dy, s.mul(math::exp(s, y), total))
            } else {
                s.mul(y, s.sub(dy, total))
            };
            s.write(dx, g);
        }
    }
}

/// A label outside the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {label} of sample {sample} is not one of {classes} classes")]
pub struct LabelError {
    /// The row of the batch.
    pub sample: usize,
    /// The label found.
    pub label: i64,
    /// How many classes there are.
    pub classes: usize,
}

/// Cross entropy of logits `[samples, classes]` with integer labels: each sample's loss in `losses`, and in `gradient`
/// the derivative of `weight * sum(losses)` (a mean has weight 1 / samples). Smoothing e turns the target into
/// `(1 - e) onehot + e / classes` (Szegedy et al. 2016).
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy(
    cpu: &Cpu,
    classes: usize,
    logits: &[f32],
    labels: &[i64],
    smoothing: f32,
    weight: f32,
    losses: &mut [f32],
    gradient: &mut [f32],
) -> Result<(), LabelError> {
    assert!(
        logits.len() == classes * labels.len()
            && logits.len() == gradient.len()
            && losses.len() == labels.len()
    );
    let outside = |&(_, &label): &(usize, &i64)| usize::try_from(label).map_or(true, |l| l >= classes);
    if let Some((sample, &label)) = labels.iter().enumerate().find(outside) {
        return Err(LabelError { sample, label, classes });
    }
    let losses = Shared::new(losses);
    rows(cpu, classes, gradient, |row, gradient| {
        let x = &logits[row * classes..][..classes];
        gradient.copy_from_slice(x);
        forward_in_place(cpu.isa, true, gradient);
        let label = labels[row] as usize;
        let uniform = smoothing / classes as f32;
        let mean: f32 = if smoothing == 0.0 { 0.0 } else { gradient.iter().sum() };
        let loss = -(1.0 - smoothing) * gradient[label] - uniform * mean;
        entropy_gradient(cpu.isa, weight, uniform, gradient);
        gradient[label] -= weight * (1.0 - smoothing);
        // SAFETY: each row has its own loss.
        unsafe { losses.slice(row, 1)[0] = loss };
    });
    Ok(())
}

vectorised! {
    fn entropy_gradient<'a>(s; weight: f32, uniform: f32, x: &'a mut [f32]) {
        let (weight, uniform) = (s.splat(weight), s.splat(uniform));
        for x in x.chunks_mut(S::LANES) {
            let p = math::exp(s, s.read(x));
            s.write(x, s.mul(weight, s.sub(p, uniform)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    fn oracle(x: &[f32]) -> Vec<f64> {
        let top = x.iter().fold(f64::MIN, |m, &x| m.max(x as f64));
        let e: Vec<f64> = x.iter().map(|&x| (x as f64 - top).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|e| e / sum).collect()
    }

    #[test]
    fn softmax_and_its_gradient_match_the_oracle() {
        for width in [1, 2, 7, 10, 16, 17, 33, 100, 1000] {
            let numbers = &mut Numbers::new(width as u64);
            let x: Vec<f32> = numbers.take(3 * width).iter().map(|x| x * 20.0).collect();
            let dy = numbers.take(3 * width);
            let y_want: Vec<f64> = x.chunks(width).flat_map(oracle).collect();
            let mut dx_want = vec![];
            let mut dlog_want = vec![];
            for (y, dy) in y_want.chunks(width).zip(dy.chunks(width)) {
                let dot: f64 = y.iter().zip(dy).map(|(y, d)| y * *d as f64).sum();
                let sum: f64 = dy.iter().map(|&d| d as f64).sum();
                dx_want.extend(y.iter().zip(dy).map(|(y, d)| y * (*d as f64 - dot)));
                dlog_want.extend(y.iter().zip(dy).map(|(y, d)| *d as f64 - y * sum));
            }
            for cpu in cpus().iter().flatten() {
                let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                softmax(cpu, width, false, &x, &mut y);
                assert_close(&y, &y_want, 1e-6, "softmax");
                softmax_gradient(cpu, width, false, &y, &dy, &mut dx);
                assert_close(&dx, &dx_want, 1e-5, "gradient");
                softmax(cpu, width, true, &x, &mut y);
                assert_close(&y, &y_want.iter().map(|y| y.ln()).collect::<Vec<_>>(), 1e-5, "log softmax");
                softmax_gradient(cpu, width, true, &y, &dy, &mut dx);
                assert_close(&dx, &dlog_want, 2e-5, "log gradient");
            }
        }
    }

    #[test]
    fn a_row_of_minus_infinity_but_one_is_a_certainty() {
        for cpu in cpus().iter().flatten() {
            let mut x = vec![f32::NEG_INFINITY; 20];
            x[17] = -3.0;
            softmax_in_place(cpu, 20, false, &mut x);
            assert_eq!(x[17], 1.0);
            assert_eq!(x.iter().sum::<f32>(), 1.0);
        }
    }

    #[test]
    fn cross_entropy_matches_the_oracle_and_names_a_bad_label() {
        let numbers = &mut Numbers::new(3);
        let (n, c) = (11, 10);
        let x = numbers.take(n * c);
        let labels: Vec<i64> = (0..n as i64).map(|i| i * 3 % 10).collect();
        for smoothing in [0.0f32, 0.1] {
            let e = smoothing as f64;
            let (mut loss_want, mut g_want) = (vec![], vec![]);
            for (x, &l) in x.chunks(c).zip(&labels) {
                let p = oracle(x);
                let target: Vec<f64> =
                    (0..c).map(|i| e / c as f64 + if i == l as usize { 1.0 - e } else { 0.0 }).collect();
                loss_want.push(-p.iter().zip(&target).map(|(p, t)| t * p.ln()).sum::<f64>());
                g_want.extend(p.iter().zip(&target).map(|(p, t)| (p - t) / n as f64));
            }
            for cpu in cpus().iter().flatten() {
                let (mut losses, mut g) = (vec![0.0; n], vec![0.0; x.len()]);
                let w = 1.0 / n as f32;
                cross_entropy(cpu, c, &x, &labels, smoothing, w, &mut losses, &mut g).unwrap();
                assert_close(&losses, &loss_want, 1e-6, "loss");
                assert_close(&g, &g_want, 1e-6, "gradient");
                let bad = cross_entropy(cpu, c, &x[..c], &[10], 0.0, 1.0, &mut [0.0], &mut g[..c]);
                assert_eq!(bad, Err(LabelError { sample: 0, label: 10, classes: 10 }));
            }
        }
    }
}
