//! The pointwise parts of LSTM and GRU cells, forward and backward; their products go through [`crate::gemm`].
//!
//! Gates follow ONNX: LSTM i, o, f, c; GRU z, r, h, each `hidden` wide in a row of a sample.

use crate::Cpu;
use crate::math;
use crate::simd::vectorised;
use crate::threads::Shared;

/// Samples of one task, at least.
fn samples(hidden: usize) -> usize {
    (4096 / hidden.max(1)).max(1)
}

/// One LSTM step. `gates` `[batch, 4 hidden]` holds pre-activations (biases included) and gets the activations, which
/// the gradient needs. `c = f c_before + i c~`, `h = o tanh(c)` (Hochreiter and Schmidhuber 1997, with forget gate).
pub fn lstm_step(
    cpu: &Cpu,
    hidden: usize,
    gates: &mut [f32],
    c_before: &[f32],
    c: &mut [f32],
    h: &mut [f32],
) {
    assert!(gates.len() == 4 * c.len() && c.len() == h.len() && c.len() == c_before.len());
    if c.is_empty() {
        return;
    }
    let count = samples(hidden);
    let (gates, h) = (Shared::new(gates), Shared::new(h));
    cpu.threads.for_each_piece(c, count * hidden, |task, c| {
        for (j, c) in c.chunks_exact_mut(hidden).enumerate() {
            let at = (task * count + j) * hidden;
            // SAFETY: each sample has its own gates and h.
            let (gates, h) = unsafe { (gates.slice(4 * at, 4 * hidden), h.slice(at, hidden)) };
            lstm_forward(cpu.isa, hidden, gates, &c_before[at..at + hidden], c, h);
        }
    });
}

vectorised! {
    fn lstm_forward<'a>(s; hidden: usize, gates: &'a mut [f32], c_before: &'a [f32], c: &'a mut [f32], h: &'a mut [f32]) {
        let mut at = 0;
        while at < hidden {
            let end = hidden.min(at + S::LANES);
            let i = math::sigmoid(s, s.read(&gates[at..end]));
            let o = math::sigmoid(s, s.read(&gates[hidden + at..hidden + end]));
            let f = math::sigmoid(s, s.read(&gates[2 * hidden + at..2 * hidden + end]));
            let g = math::tanh(s, s.read(&gates[3 * hidden + at..3 * hidden + end]));
            let new = s.fma(f, s.read(&c_before[at..end]), s.mul(i, g));
            for (k, gate) in [i, o, f, g].into_iter().enumerate() {
                s.write(&mut gates[k * hidden + at..k * hidden + end], gate);
            }
            s.write(&mut c[at..end], new);
            s.write(&mut h[at..end], s.mul(o, math::tanh(s, new)));
            at = end;
        }
    }
}

/// Gradient of [`lstm_step`]: `gates` holds the activations and gets the gradients of the pre-activations; `dc` holds
/// the gradient of `c` from the next step and gets that of `c_before`.
pub fn lstm_step_gradient(
    cpu: &Cpu,
    hidden: usize,
    gates: &mut [f32],
    c_before: &[f32],
    c: &[f32],
    dh: &[f32],
    dc: &mut [f32],
) {
    assert!(gates.len() == 4 * c.len() && [c_before.len(), dh.len(), dc.len()] == [c.len(); 3]);
    if c.is_empty() {
        return;
    }
    let count = samples(hidden);
    let gates = Shared::new(gates);
    cpu.threads.for_each_piece(dc, count * hidden, |task, dc| {
        for (j, dc) in dc.chunks_exact_mut(hidden).enumerate() {
            let at = (task * count + j) * hidden;
            let row = at..at + hidden;
            // SAFETY: each sample has its own gates.
            let gates = unsafe { gates.slice(4 * at, 4 * hidden) };
            lstm_backward(cpu.isa, hidden, gates, &c_before[row.clone()], &c[row.clone()], &dh[row], dc);
        }
    });
}

vectorised! {
    fn lstm_backward<'a>(s; hidden: usize, gates: &'a mut [f32], c_before: &'a [f32], c: &'a [f32], dh: &'a [f32], dc: &'a mut [f32]) {
        let one = s.splat(1.0);
        let mut at = 0;
        while at < hidden {
            let end = hidden.min(at + S::LANES);
            let i = s.read(&gates[at..end]);
            let o = s.read(&gates[hidden + at..hidden + end]);
            let f = s.read(&gates[2 * hidden + at..2 * hidden + end]);
            let g = s.read(&gates[3 * hidden + at..3 * hidden + end]);
            let (dh, t) = (s.read(&dh[at..end]), math::tanh(s, s.read(&c[at..end])));
            let dc_all = s.fma(s.mul(dh, o), s.sub(one, s.mul(t, t)), s.read(&dc[at..end]));
            let sigmoid_slope = [
                s.mul(i, s.sub(one, i)),
                s.mul(o, s.sub(one, o)),
                s.mul(f, s.sub(one, f)),
                s.sub(one, s.mul(g, g)),
            ];
            let outer = [s.mul(dc_all, g), s.mul(dh, t), s.mul(dc_all, s.read(&c_before[at..end])), s.mul(dc_all, i)];
            for (k, (slope, outer)) in sigmoid_slope.into_iter().zip(outer).enumerate() {
                s.write(&mut gates[k * hidden + at..k * hidden + end], s.mul(slope, outer));
            }
            s.write(&mut dc[at..end], s.mul(dc_all, f));
            at = end;
        }
    }
}

/// One GRU step whose reset gate acts after the product (`linear_before_reset`, as in PyTorch): `from_input` and
/// `from_hidden` `[batch, 3 hidden]` hold the two products with their biases. z, r and the candidate n are written
/// to `from_input`. `n = tanh(x_n + r h_n)`, `h = (1 - z) n + z h_before` (Cho et al. 2014).
pub fn gru_step(
    cpu: &Cpu,
    hidden: usize,
    from_input: &mut [f32],
    from_hidden: &[f32],
    h_before: &[f32],
    h: &mut [f32],
) {
    assert!(from_input.len() == 3 * h.len() && from_hidden.len() == 3 * h.len() && h_before.len() == h.len());
    if h.is_empty() {
        return;
    }
    let count = samples(hidden);
    let from_input = Shared::new(from_input);
    cpu.threads.for_each_piece(h, count * hidden, |task, h| {
        for (j, h) in h.chunks_exact_mut(hidden).enumerate() {
            let at = (task * count + j) * hidden;
            // SAFETY: each sample has its own gates.
            let gates = unsafe { from_input.slice(3 * at, 3 * hidden) };
            gru_forward(
                cpu.isa,
                hidden,
                gates,
                &from_hidden[3 * at..][..3 * hidden],
                &h_before[at..at + hidden],
                h,
            );
        }
    });
}

vectorised! {
    fn gru_forward<'a>(s; hidden: usize, gates: &'a mut [f32], from_hidden: &'a [f32], h_before: &'a [f32], h: &'a mut [f32]) {
        let one = s.splat(1.0);
        let mut at = 0;
        while at < hidden {
            let end = hidden.min(at + S::LANES);
            let (a, b) = (hidden + at..hidden + end, 2 * hidden + at..2 * hidden + end);
            let z = math::sigmoid(s, s.add(s.read(&gates[at..end]), s.read(&from_hidden[at..end])));
            let r = math::sigmoid(s, s.add(s.read(&gates[a.clone()]), s.read(&from_hidden[a.clone()])));
            let n = math::tanh(s, s.fma(r, s.read(&from_hidden[b.clone()]), s.read(&gates[b.clone()])));
            let new = s.fma(s.sub(one, z), n, s.mul(z, s.read(&h_before[at..end])));
            s.write(&mut gates[at..end], z);
            s.write(&mut gates[a], r);
            s.write(&mut gates[b], n);
            s.write(&mut h[at..end], new);
            at = end;
        }
    }
}

/// Gradient of [`gru_step`]: `gates` holds z, r and n and gets the gradient of `from_input`; `from_hidden` gets its own
/// gradient; `dh` holds the gradient of `h` and gets the part of `h_before`'s that does not pass through the product.
pub fn gru_step_gradient(
    cpu: &Cpu,
    hidden: usize,
    gates: &mut [f32],
    from_hidden: &mut [f32],
    h_before: &[f32],
    dh: &mut [f32],
) {
    assert!(gates.len() == 3 * dh.len() && from_hidden.len() == 3 * dh.len() && h_before.len() == dh.len());
    if dh.is_empty() {
        return;
    }
    let count = samples(hidden);
    let (gates, from_hidden) = (Shared::new(gates), Shared::new(from_hidden));
    cpu.threads.for_each_piece(dh, count * hidden, |task, dh| {
        for (j, dh) in dh.chunks_exact_mut(hidden).enumerate() {
            let at = (task * count + j) * hidden;
            // SAFETY: each sample has its own rows.
            let (gates, from_hidden) =
                unsafe { (gates.slice(3 * at, 3 * hidden), from_hidden.slice(3 * at, 3 * hidden)) };
            gru_backward(cpu.isa, hidden, gates, from_hidden, &h_before[at..at + hidden], dh);
        }
    });
}

vectorised! {
    fn gru_backward<'a>(s; hidden: usize, gates: &'a mut [f32], from_hidden: &'a mut [f32], h_before: &'a [f32], dh: &'a mut [f32]) {
        let one = s.splat(1.0);
        let mut at = 0;
        while at < hidden {
            let end = hidden.min(at + S::LANES);
            let (a, b) = (hidden + at..hidden + end, 2 * hidden + at..2 * hidden + end);
            let (z, r, n) = (s.read(&gates[at..end]), s.read(&gates[a.clone()]), s.read(&gates[b.clone()]));
            let (g, h) = (s.read(&dh[at..end]), s.read(&h_before[at..end]));
            let dn = s.mul(s.mul(g, s.sub(one, z)), s.sub(one, s.mul(n, n)));
            let dz = s.mul(s.mul(g, s.sub(h, n)), s.mul(z, s.sub(one, z)));
            let dr = s.mul(s.mul(dn, s.read(&from_hidden[b.clone()])), s.mul(r, s.sub(one, r)));
            for (range, input, inner) in [(at..end, dz, dz), (a, dr, dr), (b, dn, s.mul(dn, r))] {
                s.write(&mut gates[range.clone()], input);
                s.write(&mut from_hidden[range], inner);
            }
            s.write(&mut dh[at..end], s.mul(g, z));
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// c and h of one LSTM unit from its pre-activations i, o, f, g and c before.
    fn lstm(x: [f64; 5]) -> [f64; 2] {
        let c = sigmoid(x[2]) * x[4] + sigmoid(x[0]) * x[3].tanh();
        [c, sigmoid(x[1]) * c.tanh()]
    }

    /// h of one GRU unit from its products xz, xr, xn, hz, hr, hn and h before.
    fn gru(x: [f64; 7]) -> [f64; 1] {
        let (z, r) = (sigmoid(x[0] + x[3]), sigmoid(x[1] + x[4]));
        [(1.0 - z) * (x[2] + r * x[5]).tanh() + z * x[6]]
    }

    fn slope<const N: usize, const M: usize>(
        f: fn([f64; N]) -> [f64; M],
        x: [f64; N],
        d: [f64; M],
        i: usize,
    ) -> f64 {
        let shifted = |e: f64| {
            let mut x = x;
            x[i] += e;
            f(x).iter().zip(d).map(|(y, d)| y * d).sum::<f64>()
        };
        (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    }

    #[test]
    fn lstm_step_and_gradient_match_the_oracle() {
        for hidden in [1, 8, 19, 35] {
            let numbers = &mut Numbers::new(hidden as u64);
            let n = 3 * hidden;
            let (pre, before, dh, dc) =
                (numbers.take(4 * n), numbers.take(n), numbers.take(n), numbers.take(n));
            let unit = |u: usize| {
                let (b, k) = (u / hidden, u % hidden);
                let gate = |g: usize| pre[b * 4 * hidden + g * hidden + k] as f64;
                [gate(0), gate(1), gate(2), gate(3), before[u] as f64]
            };
            let want: Vec<[f64; 2]> = (0..n).map(|u| lstm(unit(u))).collect();
            for cpu in cpus().iter().flatten() {
                let (mut gates, mut c, mut h) = (pre.clone(), vec![0.0; n], vec![0.0; n]);
                lstm_step(cpu, hidden, &mut gates, &before, &mut c, &mut h);
                assert_close(&c, &want.iter().map(|w| w[0]).collect::<Vec<_>>(), 1e-6, "c");
                assert_close(&h, &want.iter().map(|w| w[1]).collect::<Vec<_>>(), 1e-6, "h");
                let mut dc_before = dc.clone();
                lstm_step_gradient(cpu, hidden, &mut gates, &before, &c, &dh, &mut dc_before);
                for u in 0..n {
                    let (b, k) = (u / hidden, u % hidden);
                    for i in 0..5 {
                        let want = slope(lstm, unit(u), [dc[u] as f64, dh[u] as f64], i);
                        let got = if i < 4 { gates[b * 4 * hidden + i * hidden + k] } else { dc_before[u] };
                        assert!((got as f64 - want).abs() < 1e-5, "gradient {i}: {got} is not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn gru_step_and_gradient_match_the_oracle() {
        for hidden in [1, 8, 19, 35] {
            let numbers = &mut Numbers::new(hidden as u64);
            let n = 3 * hidden;
            let (x, r, before, dh) =
                (numbers.take(3 * n), numbers.take(3 * n), numbers.take(n), numbers.take(n));
            let unit = |u: usize| {
                let (b, k) = (u / hidden, u % hidden);
                let at = |v: &[f32], g: usize| v[b * 3 * hidden + g * hidden + k] as f64;
                [at(&x, 0), at(&x, 1), at(&x, 2), at(&r, 0), at(&r, 1), at(&r, 2), before[u] as f64]
            };
            let want: Vec<f64> = (0..n).map(|u| gru(unit(u))[0]).collect();
            for cpu in cpus().iter().flatten() {
                let (mut gates, mut products, mut h) = (x.clone(), r.clone(), vec![0.0; n]);
                gru_step(cpu, hidden, &mut gates, &products, &before, &mut h);
                assert_close(&h, &want, 1e-6, "h");
                let mut dh_before = dh.clone();
                gru_step_gradient(cpu, hidden, &mut gates, &mut products, &before, &mut dh_before);
                for u in 0..n {
                    let at = u / hidden * 3 * hidden + u % hidden;
                    for i in 0..7 {
                        let want = slope(gru, unit(u), [dh[u] as f64], i);
                        let got = match i {
                            0..3 => gates[at + i * hidden],
                            3..6 => products[at + (i - 3) * hidden],
                            _ => dh_before[u],
                        };
                        assert!((got as f64 - want).abs() < 1e-5, "gradient {i}: {got} is not {want}");
                    }
                }
            }
        }
    }
}
