//! Random numbers as pure functions of key, step and position: any number of threads, any order, any instruction set,
//! the same bits.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
//! Element i of a tensor has word i mod 4 of the block with counter (i div 4, step), both 64 bits, low words first.
//! What follows from the words is computed with single products and sums, never fused ones, and with the logarithm, sine and
//! cosine of this file: each rounds the same way wherever it runs.

use crate::Cpu;
use crate::simd::vectorised;

/// Elements of one task; a multiple of [`GROUP`].
const PIECE: usize = 8192;
/// Blocks that are made at once.
const LANES: usize = 16;
/// Elements that are made at once.
const GROUP: usize = 4 * LANES;

/// 2^-24 and 2^-23.
const ULP24: f32 = 1.0 / 16_777_216.0;
const ULP23: f32 = 1.0 / 8_388_608.0;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// `low + u (high - low)`, where u is one of 2^24 equally spaced numbers in [0, 1).
    Uniform {
        /// Smallest value.
        low: f32,
        /// Upper end, reached only by rounding.
        high: f32,
    },
    /// Normal, by the transform of Box & Muller (1958) of elements 2k and 2k + 1 together; at most 5.8 deviations out.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        deviation: f32,
    },
    /// `-ln(-ln u)`, the standard Gumbel distribution; between -2.9 and 16.7.
    Gumbel,
    /// 1 where the top 24 bits of the word are below the threshold, else 0: 1 with probability threshold / 2^24.
    Bernoulli {
        /// At most 2^24.
        threshold: u32,
    },
}

/// One block of Philox4x32-10.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut lanes = counter.map(|word| [word; 1]);
    rounds(&mut lanes, key);
    lanes.map(|lane| lane[0])
}

/// Ten rounds on several counters of one key at once.
#[inline(always)]
fn rounds<const N: usize>(c: &mut [[u32; N]; 4], mut key: [u32; 2]) {
    for _ in 0..10 {
        for lane in 0..N {
            let p = 0xD251_1F53u64 * u64::from(c[0][lane]);
            let q = 0xCD9E_8D57u64 * u64::from(c[2][lane]);
            c[0][lane] = (q >> 32) as u32 ^ c[1][lane] ^ key[0];
            c[1][lane] = q as u32;
            c[2][lane] = (p >> 32) as u32 ^ c[3][lane] ^ key[1];
            c[3][lane] = p as u32;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
}

/// The words of `LANES` blocks from `block` on.
#[inline(always)]
fn words(key: u64, step: u64, block: u64) -> [[u32; LANES]; 4] {
    let mut c = [[0; LANES]; 4];
    for lane in 0..LANES {
        let block = block.wrapping_add(lane as u64);
        c[0][lane] = block as u32;
        c[1][lane] = (block >> 32) as u32;
        c[2][lane] = step as u32;
        c[3][lane] = (step >> 32) as u32;
    }
    rounds(&mut c, [key as u32, (key >> 32) as u32]);
    c
}

/// One of 2^24 equally spaced numbers in [0, 1).
#[inline(always)]
fn half_open(word: u32) -> f32 {
    (word >> 8) as i32 as f32 * ULP24
}

/// One of 2^23 equally spaced numbers inside (0, 1), symmetric about a half, each an f32.
#[inline(always)]
fn open(word: u32) -> f32 {
    ((word >> 9) as i32 as f32 + 0.5) * ULP23
}

/// ln x for positive normal x.
#[inline(always)]
fn ln(x: f32) -> f32 {
    /// The bits of sqrt(1/2).
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(ROOT_HALF);
    let e = ((bits as i32) >> 23) as f32;
    // x = 2^e m with m in [sqrt 1/2, sqrt 2).
    let m = f32::from_bits((bits & 0x007f_ffff) + ROOT_HALF);
    let f = m - 1.0;
    let t = f / (m + 1.0);
    let z = t * t;
    // (2 atanh t - 2 t) / t^3 in t^2, the coefficients of `math::log`.
    let r = ((0.233_304_68 * z + 0.285_508_2) * z + 0.400_001_22) * z + 0.666_666_7;
    // 2 t = f - t f. ln 2 in two parts: multiples of the first by whole numbers are exact.
    e * 0.693_359_4 + (f + (t * (z * r - f) + e * -2.121_944_4e-4))
}

/// (cos 2 pi v, sin 2 pi v) for v in [0, 1].
#[inline(always)]
fn circle(v: f32) -> (f32, f32) {
    let quarter = (4.0 * v + 0.5) as i32;
    // Exact: a difference of two multiples of 2^-24.
    let t = (v - quarter as f32 * 0.25) * std::f32::consts::TAU;
    let z = t * t;
    // On [-pi/4, pi/4], the coefficients of Cephes' sinf and cosf (Moshier 1992).
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * t + t;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (c, s) = if quarter & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let c = if (quarter + 1) & 2 == 0 { c } else { -c };
    let s = if quarter & 2 == 0 { s } else { -s };
    (c, s)
}

#[inline(always)]
fn drawn(distribution: Distribution, c: &[[u32; LANES]; 4], y: &mut [f32; GROUP]) {
    match distribution {
        Distribution::Uniform { low, high } => {
            for lane in 0..LANES {
                for word in 0..4 {
                    y[4 * lane + word] = low + half_open(c[word][lane]) * (high - low);
                }
            }
        }
        Distribution::Normal { mean, deviation } => {
            for pair in [0, 2] {
                for lane in 0..LANES {
                    let radius = (-2.0 * ln(open(c[pair][lane]))).sqrt() * deviation;
                    let (cos, sin) = circle(half_open(c[pair + 1][lane]));
                    y[4 * lane + pair] = mean + radius * cos;
                    y[4 * lane + pair + 1] = mean + radius * sin;
                }
            }
        }
        Distribution::Gumbel => {
            for lane in 0..LANES {
                for word in 0..4 {
                    y[4 * lane + word] = -ln(-ln(open(c[word][lane])));
                }
            }
        }
        Distribution::Bernoulli { threshold } => {
            for lane in 0..LANES {
                for word in 0..4 {
                    y[4 * lane + word] = if c[word][lane] >> 8 < threshold { 1.0 } else { 0.0 };
                }
            }
        }
    }
}

vectorised! {
    /// Fills `y`, whose first element is number `4 block`.
    fn fill<'a>(s; distribution: Distribution, key: u64, step: u64, block: u64, y: &'a mut [f32]) {
        let mut group = [0.0; GROUP];
        let mut block = block;
        for part in y.chunks_mut(GROUP) {
            drawn(distribution, &words(key, step, block), &mut group);
            part.copy_from_slice(&group[..part.len()]);
            block = block.wrapping_add(LANES as u64);
        }
    }
}

vectorised! {
    /// Scales or drops `x`, whose first element is number `4 block`.
    fn keep<'a>(s; threshold: u32, scale: f32, key: u64, step: u64, block: u64, x: &'a [f32], y: &'a mut [f32]) {
        let mut group = [0.0; GROUP];
        let mut block = block;
        for (x, y) in x.chunks(GROUP).zip(y.chunks_mut(GROUP)) {
            drawn(Distribution::Bernoulli { threshold }, &words(key, step, block), &mut group);
            for ((y, &x), &dropped) in y.iter_mut().zip(x).zip(&group) {
                *y = if dropped == 0.0 { x * scale } else { 0.0 };
            }
            block = block.wrapping_add(LANES as u64);
        }
    }
}

/// Fills `y` with what stream `key` draws at `step`.
pub fn random(cpu: &Cpu, distribution: Distribution, key: u64, step: u64, y: &mut [f32]) {
    cpu.threads.for_each_piece(y, PIECE, |index, y| {
        fill(cpu.isa, distribution, key, step, (index * (PIECE / 4)) as u64, y);
    });
}

/// `y = 0` where [`Distribution::Bernoulli`] with this threshold draws 1, else `scale x`.
///
/// # Panics
/// When `x` and `y` differ in length.
pub fn dropout(cpu: &Cpu, threshold: u32, scale: f32, key: u64, step: u64, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "dropout of {} elements into {}", x.len(), y.len());
    cpu.threads.for_each_piece(y, PIECE, |index, y| {
        let x = &x[index * PIECE..][..y.len()];
        keep(cpu.isa, threshold, scale, key, step, (index * (PIECE / 4)) as u64, x, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{Numbers, assert_close, cpus};

    /// Vectors published with the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn the_generator_gives_its_published_numbers() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    const ALL: [Distribution; 4] = [
        Distribution::Uniform { low: -1.5, high: 2.0 },
        Distribution::Normal { mean: 0.5, deviation: 2.0 },
        Distribution::Gumbel,
        Distribution::Bernoulli { threshold: 5_000_000 },
    ];

    fn drawn_on(cpu: &Cpu, d: Distribution, key: u64, step: u64, len: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; len];
        random(cpu, d, key, step, &mut y);
        y
    }

    /// Element by element, in f64 from the words on.
    fn oracle(d: Distribution, key: u64, step: u64, i: usize) -> f64 {
        let block = (i / 4) as u64;
        let counter = [block as u32, (block >> 32) as u32, step as u32, (step >> 32) as u32];
        let c = philox(counter, [key as u32, (key >> 32) as u32]);
        let open = |w: u32| (f64::from(w >> 9) + 0.5) / f64::from(1 << 23);
        let half = |w: u32| f64::from(w >> 8) / f64::from(1 << 24);
        let w = c[i % 4];
        match d {
            Distribution::Uniform { low, high } => f64::from(low) + half(w) * f64::from(high - low),
            Distribution::Normal { mean, deviation } => {
                let pair = i % 4 / 2 * 2;
                let angle = std::f64::consts::TAU * half(c[pair + 1]);
                let turn = if i.is_multiple_of(2) { angle.cos() } else { angle.sin() };
                f64::from(mean) + (-2.0 * open(c[pair]).ln()).sqrt() * turn * f64::from(deviation)
            }
            Distribution::Gumbel => -(-open(w).ln()).ln(),
            Distribution::Bernoulli { threshold } => f64::from(u8::from(w >> 8 < threshold)),
        }
    }

    #[test]
    fn every_element_is_what_the_definition_says_in_f64() {
        let mut numbers = Numbers::new(1);
        for d in ALL {
            for len in [0, 1, 3, 64, 65, 1000, 8192, 20_001] {
                let (key, step) = (numbers.next(), numbers.next() << 30);
                let got = drawn_on(&Cpu::with_isa(Isa::scalar(), 1).unwrap(), d, key, step, len);
                let want: Vec<f64> = (0..len).map(|i| oracle(d, key, step, i)).collect();
                assert_close(&got, &want, 4e-7, &format!("{d:?} of {len}"));
            }
        }
    }

    #[test]
    fn instruction_sets_and_threads_give_the_same_bits() {
        for d in ALL {
            let one = drawn_on(&Cpu::with_isa(Isa::scalar(), 1).unwrap(), d, 7, 3, 100_003);
            for cpu in cpus().iter().flatten() {
                let other = drawn_on(cpu, d, 7, 3, 100_003);
                let same = one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{d:?} on {} with {} threads", cpu.isa.name(), cpu.threads.count());
            }
        }
    }

    #[test]
    fn dropout_drops_where_bernoulli_draws_one() {
        let x = Numbers::new(2).take(30_001);
        let mask =
            drawn_on(&Cpu::new(1).unwrap(), Distribution::Bernoulli { threshold: 5_000_000 }, 9, 1, x.len());
        let want: Vec<f32> =
            x.iter().zip(&mask).map(|(x, m)| if *m == 1.0 { 0.0 } else { x * 1.5 }).collect();
        for cpu in cpus().iter().flatten() {
            let mut y = vec![f32::NAN; x.len()];
            dropout(cpu, 5_000_000, 1.5, 9, 1, &x, &mut y);
            assert_eq!(y, want, "{}", cpu.isa.name());
        }
    }

    /// The largest distance between the distribution of `sorted` and `cdf` (Kolmogorov 1933), times the root of the count.
    fn kolmogorov(mut values: Vec<f32>, cdf: impl Fn(f64) -> f64) -> f64 {
        values.sort_by(f32::total_cmp);
        let n = values.len() as f64;
        let gap = |(i, x): (usize, &f32)| {
            let p = cdf(f64::from(*x));
            (p - i as f64 / n).abs().max((p - (i + 1) as f64 / n).abs())
        };
        values.iter().enumerate().map(gap).fold(0.0, f64::max) * n.sqrt()
    }

    /// The normal distribution function, by 2000 steps of Simpson's rule from 0.
    fn normal_cdf(x: f64) -> f64 {
        let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let h = x / 2000.0;
        let inner = |i: usize| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 };
        0.5 + h / 3.0 * (density(0.0) + density(x) + (1..2000).map(inner).sum::<f64>())
    }

    #[test]
    fn draws_have_the_distribution_they_are_named_after() {
        const N: usize = 40_000;
        let euler = 0.577_215_664_901_532_9;
        let gumbel_variance = std::f64::consts::PI.powi(2) / 6.0;
        type Cdf = fn(f64) -> f64;
        let cases: [(Distribution, f64, f64, Option<Cdf>); 4] = [
            (Distribution::Uniform { low: 0.0, high: 1.0 }, 0.5, 1.0 / 12.0, Some(|x| x)),
            (Distribution::Normal { mean: 0.0, deviation: 1.0 }, 0.0, 1.0, Some(normal_cdf)),
            (Distribution::Gumbel, euler, gumbel_variance, Some(|x| (-(-x).exp()).exp())),
            (Distribution::Bernoulli { threshold: 1 << 22 }, 0.25, 0.1875, None),
        ];
        let cpu = Cpu::new(1).unwrap();
        for (d, mean, variance, cdf) in cases {
            let values = drawn_on(&cpu, d, 12_345, 6, N);
            let found = values.iter().map(|x| f64::from(*x)).sum::<f64>() / N as f64;
            let spread = values.iter().map(|x| (f64::from(*x) - found).powi(2)).sum::<f64>() / N as f64;
            // Four standard errors of the mean, and 5 % of the variance (at least four of its own).
            assert!((found - mean).abs() < 4.0 * (variance / N as f64).sqrt(), "{d:?}: mean {found}");
            assert!((spread / variance - 1.0).abs() < 0.05, "{d:?}: variance {spread}");
            // 1.95 is passed by chance once in a thousand (Kolmogorov's limit distribution).
            if let Some(cdf) = cdf {
                let distance = kolmogorov(values, cdf);
                assert!(distance < 1.95, "{d:?}: Kolmogorov-Smirnov {distance}");
            }
        }
    }

    #[test]
    fn neighbouring_elements_steps_and_keys_are_unrelated() {
        const N: usize = 40_000;
        let cpu = Cpu::new(1).unwrap();
        let normal =
            |key, step| drawn_on(&cpu, Distribution::Normal { mean: 0.0, deviation: 1.0 }, key, step, N);
        let correlation = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / (N as f64).sqrt()
        };
        let base = normal(1, 0);
        let mut others: Vec<Vec<f32>> = vec![normal(1, 1), normal(2, 0)];
        others.extend((1..5).map(|lag| [&base[lag..], &base[..lag]].concat()));
        for (i, other) in others.iter().enumerate() {
            // Standard normal where the two are independent.
            assert!(correlation(&base, other).abs() < 4.0, "{i}: {}", correlation(&base, other));
        }
    }
}
