//! Optimiser updates, fused and in place. Where a mask says 0, parameter and state become and stay exactly +0.0.

use crate::Cpu;
use crate::simd::vectorised;
use crate::threads::Shared;

/// Elements of one task; a multiple of 64, the elements of a mask word.
const PIECE: usize = 16 * 1024;

/// Which parameters are kept.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// All.
    Full,
    /// One byte each: 0 is pruned.
    Bytes(&'a [u8]),
    /// One bit each, the lowest bit of each word first: 0 is pruned.
    Bits(&'a [u64]),
}

impl Mask<'_> {
    fn check(&self, len: usize) {
        match self {
            Mask::Full => {}
            Mask::Bytes(bytes) => assert_eq!(bytes.len(), len, "a mask has one byte a parameter"),
            Mask::Bits(words) => assert!(words.len() * 64 >= len, "a mask has one bit a parameter"),
        }
    }

    /// Whether element `i` is kept.
    fn keeps(&self, i: usize) -> bool {
        match self {
            Mask::Full => true,
            Mask::Bytes(bytes) => bytes[i] != 0,
            Mask::Bits(words) => words[i / 64] >> (i % 64) & 1 != 0,
        }
    }

    /// Puts +0.0 where the mask says 0. `first` is the index of `x[0]`.
    fn apply(&self, first: usize, x: &mut [f32]) {
        if matches!(self, Mask::Full) {
            return;
        }
        for (i, x) in x.iter_mut().enumerate() {
            if !self.keeps(first + i) {
                *x = 0.0;
            }
        }
    }
}

/// Puts +0.0 wherever the mask says 0.
pub fn apply_mask(cpu: &Cpu, mask: Mask, x: &mut [f32]) {
    mask.check(x.len());
    cpu.threads.for_each_piece(x, PIECE, |i, x| mask.apply(i * PIECE, x));
}

/// Stochastic gradient descent, as PyTorch defines it: `g += decay p; v = momentum v + (1 - dampening) g;
/// p -= rate (nesterov ? g + momentum v : v)`. With no momentum, v is not touched.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f32,
    /// Momentum; 0 for none.
    pub momentum: f32,
    /// Dampening of the gradient in the velocity.
    pub dampening: f32,
    /// L2 penalty added to the gradient.
    pub decay: f32,
    /// Nesterov's form.
    pub nesterov: bool,
}

/// One step of SGD. `velocity` has the parameter's length, or 0 without momentum; it starts as zeros, so the first
/// step with dampening differs from PyTorch, which starts with the undampened gradient.
pub fn sgd(
    cpu: &Cpu,
    options: &Sgd,
    mask: Mask,
    parameter: &mut [f32],
    gradient: &[f32],
    velocity: &mut [f32],
) {
    assert_eq!(parameter.len(), gradient.len());
    mask.check(parameter.len());
    let has_velocity = options.momentum != 0.0;
    assert!(!has_velocity || velocity.len() == parameter.len(), "velocity has the parameter's length");
    let velocity = Shared::new(velocity);
    cpu.threads.for_each_piece(parameter, PIECE, |i, p| {
        let first = i * PIECE;
        let g = &gradient[first..first + p.len()];
        if has_velocity {
            // SAFETY: pieces are disjoint.
            let v = unsafe { velocity.slice(first, p.len()) };
            sgd_momentum(cpu.isa, *options, p, g, v);
            mask.apply(first, v);
        } else {
            sgd_plain(cpu.isa, *options, p, g);
        }
        mask.apply(first, p);
    });
}

/// Moments below this become 0. They decay geometrically once gradients stop, and arithmetic on the subnormal numbers
/// they would end in is some hundred times slower; a step this small is lost in any parameter's rounding.
const NEGLIGIBLE: f32 = 1e-30;

/// x, or 0 where negligible.
#[inline(always)]
fn settled(x: f32) -> f32 {
    if x.abs() < NEGLIGIBLE { 0.0 } else { x }
}

vectorised! {
    fn sgd_plain<'a>(s; o: Sgd, p: &'a mut [f32], g: &'a [f32]) {
        for (p, g) in p.iter_mut().zip(g) {
            *p -= o.rate * (*g + o.decay * *p);
        }
    }
}

vectorised! {
    fn sgd_momentum<'a>(s; o: Sgd, p: &'a mut [f32], g: &'a [f32], v: &'a mut [f32]) {
        let fresh = 1.0 - o.dampening;
        if o.nesterov {
            for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
                let g = *g + o.decay * *p;
                *v = settled(o.momentum * *v + fresh * g);
                *p -= o.rate * (g + o.momentum * *v);
            }
        } else {
            for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
                let g = *g + o.decay * *p;
                *v = settled(o.momentum * *v + fresh * g);
                *p -= o.rate * *v;
            }
        }
    }
}

/// Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay.
    pub decay: f32,
    /// AdamW: decay shrinks the parameter directly instead of entering the gradient.
    pub decoupled: bool,
}

/// Constants of one step, derived from the step's number.
#[derive(Clone, Copy)]
struct AdamStep {
    options: Adam,
    rate: f32,
    root: f32,
    shrink: f32,
    penalty: f32,
}

/// One step of Adam. `step` counts from 1.
#[allow(clippy::too_many_arguments)]
pub fn adam(
    cpu: &Cpu,
    options: &Adam,
    step: u64,
    mask: Mask,
    parameter: &mut [f32],
    gradient: &[f32],
    first_moment: &mut [f32],
    second_moment: &mut [f32],
) {
    let len = parameter.len();
    assert!(gradient.len() == len && first_moment.len() == len && second_moment.len() == len);
    assert!(step > 0, "steps count from 1");
    mask.check(len);
    let power = |beta: f32| 1.0 - (beta as f64).powf(step as f64);
    let constants = AdamStep {
        options: *options,
        rate: (options.rate as f64 / power(options.beta1)) as f32,
        root: (1.0 / power(options.beta2).sqrt()) as f32,
        shrink: if options.decoupled { 1.0 - options.rate * options.decay } else { 1.0 },
        penalty: if options.decoupled { 0.0 } else { options.decay },
    };
    let (first_moment, second_moment) = (Shared::new(first_moment), Shared::new(second_moment));
    cpu.threads.for_each_piece(parameter, PIECE, |i, p| {
        let first = i * PIECE;
        // SAFETY: pieces are disjoint.
        let (m, v) = unsafe { (first_moment.slice(first, p.len()), second_moment.slice(first, p.len())) };
        adam_step(cpu.isa, constants, p, &gradient[first..first + p.len()], m, v);
        mask.apply(first, p);
        mask.apply(first, m);
        mask.apply(first, v);
    });
}

vectorised! {
    fn adam_step<'a>(s; c: AdamStep, p: &'a mut [f32], g: &'a [f32], m: &'a mut [f32], v: &'a mut [f32]) {
        let (b1, b2) = (c.options.beta1, c.options.beta2);
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = *g + c.penalty * *p;
            *m = settled(b1 * *m + (1.0 - b1) * g);
            // Its root is what counts, so what is negligible is squared; a gradient that would square to a subnormal is 0.
            let g = if g.abs() < 1e-17 { 0.0 } else { g };
            *v = b2 * *v + (1.0 - b2) * (g * g);
            *v = if *v < 1e-36 { 0.0 } else { *v };
            *p = c.shrink * *p - c.rate * *m / (v.sqrt() * c.root + c.options.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    #[test]
    fn sgd_follows_its_formula_and_masked_elements_stay_positive_zero() {
        let numbers = &mut Numbers::new(5);
        let len = 1003;
        let (start, bytes) = (numbers.take(len), (0..len).map(|i| (i % 3 != 0) as u8).collect::<Vec<_>>());
        let mut words = vec![0u64; len.div_ceil(64)];
        bytes.iter().enumerate().for_each(|(i, &b)| words[i / 64] |= (b as u64) << (i % 64));
        for nesterov in [false, true] {
            let o = Sgd { rate: 0.1, momentum: 0.9, dampening: 0.0, decay: 0.01, nesterov };
            for cpu in cpus().iter().flatten() {
                for mask in [Mask::Full, Mask::Bytes(&bytes), Mask::Bits(&words)] {
                    let mut numbers = Numbers::new(6);
                    let (mut p, mut v) = (start.clone(), vec![0.0; len]);
                    apply_mask(cpu, mask, &mut p);
                    let (mut p64, mut v64): (Vec<f64>, Vec<f64>) =
                        (p.iter().map(|&x| x as f64).collect(), vec![0.0; len]);
                    for _ in 0..4 {
                        let g = numbers.take(len);
                        sgd(cpu, &o, mask, &mut p, &g, &mut v);
                        for i in 0..len {
                            if mask.keeps(i) {
                                let g = g[i] as f64 + 0.01f32 as f64 * p64[i];
                                v64[i] = 0.9f32 as f64 * v64[i] + g;
                                let step = if nesterov { g + 0.9f32 as f64 * v64[i] } else { v64[i] };
                                p64[i] -= 0.1f32 as f64 * step;
                            }
                        }
                    }
                    assert_close(&p, &p64, 1e-6, "parameter");
                    assert_close(&v, &v64, 1e-6, "velocity");
                    let pruned = (0..len).filter(|&i| !mask.keeps(i));
                    assert!(pruned.into_iter().all(|i| p[i].to_bits() == 0 && v[i].to_bits() == 0));
                }
            }
        }
    }

    #[test]
    fn adam_follows_its_formula() {
        let numbers = &mut Numbers::new(7);
        let len = 130;
        let start = numbers.take(len);
        for decoupled in [false, true] {
            let o = Adam { rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1, decoupled };
            for cpu in cpus().iter().flatten() {
                let mut numbers = Numbers::new(8);
                let (mut p, mut m, mut v) = (start.clone(), vec![0.0; len], vec![0.0; len]);
                let mut want: Vec<[f64; 3]> = start.iter().map(|&p| [p as f64, 0.0, 0.0]).collect();
                for step in 1..=5u64 {
                    let g = numbers.take(len);
                    adam(cpu, &o, step, Mask::Full, &mut p, &g, &mut m, &mut v);
                    for (w, g) in want.iter_mut().zip(&g) {
                        let mut g = *g as f64;
                        if decoupled {
                            w[0] *= 1.0 - 0.001;
                        } else {
                            g += 0.1 * w[0];
                        }
                        w[1] = 0.9 * w[1] + 0.1 * g;
                        w[2] = 0.999 * w[2] + 0.001 * g * g;
                        let (m, v) = (
                            w[1] / (1.0 - 0.9f64.powi(step as i32)),
                            w[2] / (1.0 - 0.999f64.powi(step as i32)),
                        );
                        w[0] -= 0.01 * m / (v.sqrt() + 1e-8);
                    }
                }
                assert_close(&p, &want.iter().map(|w| w[0]).collect::<Vec<_>>(), 1e-5, "parameter");
            }
        }
    }
}
