//! Scaled dot-product attention, one head to a task: `softmax(scale Q K^T + mask) V` and its gradient.

use crate::Cpu;
use crate::gemm::{Epilogue, Gemm, gemm};
use crate::simd::vectorised;
use crate::softmax;
use crate::threads::{Shared, Threads};

/// The shape of an attention: `heads` independent products (batch times heads), each `[rows, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Batch times heads.
    pub heads: usize,
    /// Rows of Q.
    pub queries: usize,
    /// Rows of K and V.
    pub keys: usize,
    /// Columns of Q and K.
    pub width: usize,
    /// Columns of V.
    pub value_width: usize,
    /// Factor of the scores, usually `1 / sqrt(width)`.
    pub scale: f32,
}

impl Attention {
    fn scores(&self) -> Gemm {
        Gemm { m: self.queries, n: self.keys, k: self.width, transpose_a: false, transpose_b: true }
    }

    fn mix(&self) -> Gemm {
        Gemm { m: self.queries, n: self.value_width, k: self.keys, transpose_a: false, transpose_b: false }
    }

    /// dP = dO V^T.
    fn weights_back(&self) -> Gemm {
        Gemm { m: self.queries, n: self.keys, k: self.value_width, transpose_a: false, transpose_b: true }
    }

    /// dQ = dS K.
    fn queries_back(&self) -> Gemm {
        Gemm { m: self.queries, n: self.width, k: self.keys, transpose_a: false, transpose_b: false }
    }

    /// Elements of the probabilities that [`attention`] leaves for its gradient.
    pub fn probabilities_len(&self) -> usize {
        self.heads * self.queries * self.keys
    }

    fn products_scratch(&self, cpu: &Cpu) -> usize {
        [self.scores(), self.mix(), self.weights_back(), self.queries_back()]
            .iter()
            .map(|g| g.scratch_len(cpu))
            .max()
            .unwrap_or(0)
    }

    /// Scratch elements of [`attention`] and [`attention_gradient`].
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        cpu.threads.count() * (self.products_scratch(cpu) + self.queries * self.keys)
    }
}

/// An additive mask `[queries, keys]`, -infinity where a query must not look.
#[derive(Clone, Copy)]
pub struct AttentionMask<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Elements from one head's mask to the next; 0 if they share one.
    pub step: usize,
}

/// `out = softmax(scale Q K^T + mask) V`; the softmax is left in `probabilities`. A query that the mask lets see no key
/// gets NaN.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    cpu: &Cpu,
    shape: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<AttentionMask>,
    out: &mut [f32],
    probabilities: &mut [f32],
    scratch: &mut [f32],
) {
    let Attention { heads, queries, keys, width, value_width, .. } = *shape;
    assert!(q.len() == heads * queries * width && k.len() == heads * keys * width, "{shape:?}");
    assert!(v.len() == heads * keys * value_width && out.len() == heads * queries * value_width, "{shape:?}");
    assert!(probabilities.len() == shape.probabilities_len() && scratch.len() >= shape.scratch_len(cpu));
    let one = Cpu { isa: cpu.isa, threads: Threads::single() };
    let per_slot = shape.scratch_len(&one);
    let (out, probabilities, scratch) = (Shared::new(out), Shared::new(probabilities), Shared::new(scratch));
    cpu.threads.for_each_slot(heads, |slot, head| {
        let scores = queries * keys;
        // SAFETY: each head has its own output and probabilities, each slot its own scratch.
        let (out, p, scratch) = unsafe {
            (
                out.slice(head * queries * value_width, queries * value_width),
                probabilities.slice(head * scores, scores),
                scratch.slice(slot * per_slot, per_slot),
            )
        };
        let (q, k) =
            (&q[head * queries * width..][..queries * width], &k[head * keys * width..][..keys * width]);
        gemm(&one, &shape.scores(), q, k, Epilogue::default(), p, scratch);
        match mask {
            Some(mask) => scale_and_add(cpu.isa, shape.scale, &mask.data[head * mask.step..][..scores], p),
            None => scale(cpu.isa, shape.scale, p),
        }
        softmax::softmax_in_place(&one, keys, false, p);
        if let Some(mask) = mask {
            let mask = &mask.data[head * mask.step..][..scores];
            for (p, mask) in p.chunks_exact_mut(keys).zip(mask.chunks_exact(keys)) {
                if mask.iter().all(|m| *m == f32::NEG_INFINITY) {
                    p.fill(f32::NAN);
                }
            }
        }
        let v = &v[head * keys * value_width..][..keys * value_width];
        gemm(&one, &shape.mix(), p, v, Epilogue::default(), out, scratch);
    });
}

vectorised! {
    fn scale<'a>(s; factor: f32, x: &'a mut [f32]) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

vectorised! {
    fn scale_and_add<'a>(s; factor: f32, mask: &'a [f32], x: &'a mut [f32]) {
        x.iter_mut().zip(mask).for_each(|(x, m)| *x = *x * factor + *m);
    }
}

/// The inputs of [`attention_gradient`].
#[derive(Clone, Copy)]
pub struct AttentionSaved<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// What [`attention`] left.
    pub probabilities: &'a [f32],
}

/// Gradients of Q, K and V.
#[allow(clippy::too_many_arguments)]
pub fn attention_gradient(
    cpu: &Cpu,
    shape: &Attention,
    saved: AttentionSaved,
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    scratch: &mut [f32],
) {
    let Attention { heads, queries, keys, width, value_width, .. } = *shape;
    let AttentionSaved { q, k, v, probabilities } = saved;
    assert!(dout.len() == heads * queries * value_width && probabilities.len() == shape.probabilities_len());
    assert!([q.len(), k.len(), v.len()] == [dq.len(), dk.len(), dv.len()]);
    assert!(q.len() == heads * queries * width && k.len() == heads * keys * width, "{shape:?}");
    assert!(v.len() == heads * keys * value_width && scratch.len() >= shape.scratch_len(cpu), "{shape:?}");
    let one = Cpu { isa: cpu.isa, threads: Threads::single() };
    let per_slot = shape.scratch_len(&one);
    let (dq, dk, dv, scratch) = (Shared::new(dq), Shared::new(dk), Shared::new(dv), Shared::new(scratch));
    cpu.threads.for_each_slot(heads, |slot, head| {
        let (rows_q, rows_k, rows_v) = (queries * width, keys * width, keys * value_width);
        let scores = queries * keys;
        // SAFETY: each head has its own gradients, each slot its own scratch.
        let (dq, dk, dv, scratch) = unsafe {
            (
                dq.slice(head * rows_q, rows_q),
                dk.slice(head * rows_k, rows_k),
                dv.slice(head * rows_v, rows_v),
                scratch.slice(slot * per_slot, per_slot),
            )
        };
        let (ds, scratch) = scratch.split_at_mut(scores);
        let p = &probabilities[head * scores..][..scores];
        let dout = &dout[head * queries * value_width..][..queries * value_width];
        let (q, k, v) =
            (&q[head * rows_q..][..rows_q], &k[head * rows_k..][..rows_k], &v[head * rows_v..][..rows_v]);
        let e = Epilogue::default();
        let outer = |n| Gemm { m: keys, n, k: queries, transpose_a: true, transpose_b: false };
        gemm(&one, &outer(value_width), p, dout, e, dv, scratch);
        gemm(&one, &shape.weights_back(), dout, v, e, ds, scratch);
        softmax::softmax_gradient_in_place(&one, keys, p, ds);
        scale(cpu.isa, shape.scale, ds);
        gemm(&one, &shape.queries_back(), ds, k, e, dq, scratch);
        gemm(&one, &outer(width), ds, q, e, dk, scratch);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    /// Attention in f64, one head.
    fn oracle(s: &Attention, q: &[f64], k: &[f64], v: &[f64], mask: &[f32]) -> Vec<f64> {
        let mut out = vec![];
        for i in 0..s.queries {
            let score = |j: usize| {
                let dot: f64 = (0..s.width).map(|c| q[i * s.width + c] * k[j * s.width + c]).sum();
                dot * s.scale as f64 + mask[i * s.keys + j] as f64
            };
            let e: Vec<f64> = (0..s.keys).map(|j| score(j).exp()).collect();
            let sum: f64 = e.iter().sum();
            out.extend(
                (0..s.value_width)
                    .map(|c| (0..s.keys).map(|j| e[j] / sum * v[j * s.value_width + c]).sum::<f64>()),
            );
        }
        out
    }

    #[test]
    fn a_query_that_sees_no_key_gets_nan_and_the_others_do_not() {
        let shape = Attention { heads: 1, queries: 2, keys: 3, width: 2, value_width: 2, scale: 1.0 };
        let mask = [[f32::NEG_INFINITY; 3], [0.0, f32::NEG_INFINITY, 0.0]].concat();
        for cpu in cpus().iter().flatten() {
            let mut scratch = vec![0.0; shape.scratch_len(cpu)];
            let (mut out, mut p) = ([0.0; 4], vec![0.0; shape.probabilities_len()]);
            let m = AttentionMask { data: &mask, step: 0 };
            let (q, v) = ([1.0; 4], [1.0; 6]);
            attention(cpu, &shape, &q, &v, &v, Some(m), &mut out, &mut p, &mut scratch);
            assert!(out[..2].iter().all(|x| x.is_nan()), "{out:?}");
            assert!(out[2..].iter().all(|x| (x - 1.0).abs() < 1e-6), "{out:?}");
        }
    }

    #[test]
    fn attention_matches_the_oracle_and_finite_differences() {
        let numbers = &mut Numbers::new(11);
        let shape = Attention { heads: 3, queries: 7, keys: 9, width: 5, value_width: 6, scale: 0.4 };
        let (q, k, v) = (numbers.take(3 * 35), numbers.take(3 * 45), numbers.take(3 * 54));
        let (mut mask, dout) = (numbers.take(63), numbers.take(3 * 42));
        mask[10] = f32::NEG_INFINITY;
        let wide = |x: &[f32]| x.iter().map(|&x| x as f64).collect::<Vec<_>>();
        let (q64, k64, v64) = (wide(&q), wide(&k), wide(&v));
        let head = |x: &[f64], h: usize| x[h * x.len() / 3..(h + 1) * x.len() / 3].to_vec();
        let run = |q: &[f64], k: &[f64], v: &[f64]| -> Vec<f64> {
            (0..3).flat_map(|h| oracle(&shape, &head(q, h), &head(k, h), &head(v, h), &mask)).collect()
        };
        let want = run(&q64, &k64, &v64);
        let loss = |y: &[f64]| y.iter().zip(&dout).map(|(y, d)| y * *d as f64).sum::<f64>();
        let slope = |which: usize| -> Vec<f64> {
            (0..[&q64, &k64, &v64][which].len())
                .map(|i| {
                    let shifted = |d: f64| {
                        let mut x = [q64.clone(), k64.clone(), v64.clone()];
                        x[which][i] += d;
                        loss(&run(&x[0], &x[1], &x[2]))
                    };
                    (shifted(1e-5) - shifted(-1e-5)) / 2e-5
                })
                .collect()
        };
        let slopes = [slope(0), slope(1), slope(2)];
        for cpu in cpus().iter().flatten() {
            let mut scratch = vec![f32::NAN; shape.scratch_len(cpu)];
            let (mut out, mut p) = (vec![0.0; 3 * 42], vec![0.0; shape.probabilities_len()]);
            let m = AttentionMask { data: &mask, step: 0 };
            attention(cpu, &shape, &q, &k, &v, Some(m), &mut out, &mut p, &mut scratch);
            assert_close(&out, &want, 1e-5, "out");
            let saved = AttentionSaved { q: &q, k: &k, v: &v, probabilities: &p };
            let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
            attention_gradient(cpu, &shape, saved, &dout, &mut dq, &mut dk, &mut dv, &mut scratch);
            for (got, want) in [dq, dk, dv].iter().zip(&slopes) {
                assert_close(got, want, 1e-5, "gradient");
            }
        }
    }
}
