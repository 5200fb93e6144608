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

/// The same with one operand of each read from the first-level cache, as a product of sparse weights reads it.
struct Loads<'a> {
    x: &'a [f32],
    rounds: usize,
}

/// Elements that are read over and over: 12 KiB.
const READ: usize = 3072;

impl Kernel for Loads<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.zero(); CHAINS];
        let b = s.splat(std::hint::black_box(0.5));
        for _ in 0..self.rounds {
            for x in std::hint::black_box(self.x).chunks_exact(CHAINS * S::LANES) {
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = s.fma(s.read(&x[i * S::LANES..]), b, *acc);
                }
            }
        }
        let mut sum = s.zero();
        for x in acc {
            sum = s.add(sum, x);
        }
        s.sum(sum)
    }
}

/// Vectors a second that one thread reads from its first-level cache, each into a multiply-add: the best of several short
/// runs. Unlike arithmetic in registers, this is what bounds kernels that use a loaded value once.
pub fn loads_per_second(isa: Isa) -> f64 {
    let rounds = 2_000;
    // On a cache line: a load that crosses two lines counts twice.
    let memory = vec![0.5; READ + 16];
    let start = memory.as_ptr().align_offset(64).min(16);
    let x = &memory[start..start + READ];
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        std::hint::black_box(isa.run(Loads { x, rounds }));
        best = best.min(start.elapsed());
    }
    (rounds * READ / isa.lanes()) as f64 / best.as_secs_f64()
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
