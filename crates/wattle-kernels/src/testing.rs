//! What the kernels' tests share: numbers, machines to run on, and closeness.

use crate::{Cpu, Isa};

/// Reproducible numbers in [-1, 1).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ (self.0 >> 20)
    }

    pub fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() % 20_011) as f32 / 10_005.5 - 1.0).collect()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() % from.len() as u64) as usize]
    }
}

/// For each instruction set of this CPU, machines of 1, 2 and 7 threads.
pub fn cpus() -> Vec<Vec<Cpu>> {
    Isa::available().map(|isa| [1, 2, 7].map(|n| Cpu::with_isa(isa, n).unwrap()).into()).collect()
}

/// Asserts that each value is within `tolerance` of the oracle, relative to the oracle's largest magnitude.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((*g as f64 - w).abs() <= tolerance * scale, "{what}: element {i} is {g}, expected {w}");
    }
}
