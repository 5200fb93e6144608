use std::time::Instant;
use wattle_kernels::quantized::*;
use wattle_kernels::{Cpu, Isa};
fn main() {
    let isa = Isa::named(&std::env::args().nth(1).unwrap()).unwrap();
    let cpu = Cpu::with_isa(isa, 1).unwrap();
    let mut s = 1u64;
    let mut r = move || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 33) as u32
    };
    for (m, k, n) in [
        (196, 512, 512),
        (784, 256, 256),
        (3136, 128, 128),
        (128, 512, 2048),
        (196, 2304, 256),
        (49, 4608, 512),
        (1, 784, 300),
    ] {
        let a: Vec<u8> = (0..m * k).map(|_| r() as u8).collect();
        for d in [0.3, 0.1, 0.05] {
            let b: Vec<i8> = (0..k * n)
                .map(|_| if (r() % 1000) < (d * 1000.0) as u32 { (r() % 255) as u8 as i8 } else { 0 })
                .collect();
            let pairs: usize = (0..n).map(|j| (0..k).filter(|i| b[i * n + j] != 0).count().div_ceil(2)).sum();
            let mut line = format!("{m:5} {k:5} {n:5} {d:5}");
            for sparse in [false, true] {
                let at = |i: usize, j: usize| i * n + j;
                let w = if sparse {
                    QuantizedWeights::sparse(&cpu, k, n, &b, &[0], at).unwrap()
                } else {
                    QuantizedWeights::new(&cpu, k, n, &b, &[0], at)
                };
                let mut scratch = vec![0u32; w.scratch_len(m, m * k) / 4];
                let scratch: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
                let mut y = vec![0u8; m * n];
                let mut best = f64::MAX;
                let start = Instant::now();
                let mut runs = 0;
                while runs < 5 || start.elapsed().as_secs_f64() < 0.05 {
                    let t = Instant::now();
                    quantized_product(
                        &cpu,
                        m,
                        Bytes { data: &a, signed: false, zero: 12 },
                        Rows::Following,
                        &w,
                        Target::Bytes { y: &mut y, bias: None, factors: &[0.001], zero: 3, signed: false },
                        scratch,
                    );
                    best = best.min(t.elapsed().as_secs_f64());
                    runs += 1;
                }
                line += &format!(
                    "  {} {:9.1} us {:6.1} GMAC/s",
                    w.kind(),
                    best * 1e6,
                    (m * n * k) as f64 / best / 1e9
                );
                if sparse {
                    line += &format!(" {:.2} ns/pair-strip32", best * 1e9 / (pairs * m.div_ceil(32)) as f64);
                }
            }
            println!("{line}");
        }
    }
}
