//! The machine's arithmetic peak, measured: what kernels are compared with.

use crate::simd::{Isa, Kernel, Simd};
use std::time::{Duration, Instant};

/// Fused multiply-adds in registers, as many in flight as hide the latency of two units.
struct Chains {
    steps: usize,
}

const CHAINS: usize = 12;

impl Kernel for Chains {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.zero(); CHAINS];
        let (a, b) = (s.splat(std::hint::black_box(0.5)), s.splat(std::hint::black_box(1.0)));
        for _ in 0..self.steps {
            for x in &mut acc {
                *x = s.fma(*x, a, b);
            }
        }
        let mut sum = s.zero();
        for x in acc {
            sum = s.add(sum, x);
        }
        s.sum(sum)
    }
}

/// Floating-point operations a second (two for each multiply-add) of one thread: the best of several short runs.
pub fn flops_per_second(isa: Isa) -> f64 {
    let steps = 200_000;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        std::hint::black_box(isa.run(Chains { steps }));
        best = best.min(start.elapsed());
    }
    (steps * CHAINS * isa.lanes() * 2) as f64 / best.as_secs_f64()
}
