//! Random numbers as pure functions: one user seed, separate streams by purpose, addressed by counters.
//!
//! A [`Stream`] is named by (seed, purpose, counters), for example (7, Augmentation, [epoch, sample]). Its numbers
//! depend on nothing else, so neither the order of work nor the number of threads can change them, and drawing more
//! from one stream leaves every other stream alone.
//!
//! The generator is ChaCha with 8 rounds (Bernstein 2008, "ChaCha, a variant of Salsa20"); its 256-bit key is the
//! BLAKE3 hash of the stream's name, which makes streams independent for all practical purposes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for. The discriminants enter the key: they are part of every published result and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; counters: parameter index.
    Init = 1,
    /// Order of the samples; counters: epoch.
    Order = 2,
    /// Crops and flips; counters: epoch, sample index.
    Augmentation = 3,
    /// Which sample belongs to which split; counters: split, class.
    Split = 4,
    /// Dropout masks; counters: step, layer.
    Dropout = 5,
    /// Breaking ties between equal scores.
    Ties = 6,
    /// Which of several networks learns; counters: step.
    Network = 7,
}

/// A reproducible sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of this name, at its beginning.
    pub fn new(seed: u64, purpose: Purpose, counters: &[u64]) -> Self {
        let mut name = blake3::Hasher::new_derive_key("wattle random stream 1");
        name.update(&(purpose as u64).to_le_bytes());
        name.update(&seed.to_le_bytes());
        for counter in counters {
            name.update(&counter.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(*name.finalize().as_bytes()))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`, without bias (Lemire 2019, "Fast random integer generation in an interval").
    /// A bound of 0 gives 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut product = u128::from(self.bits()) * u128::from(bound);
        if (product as u64) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u64) < threshold {
                product = u128::from(self.bits()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }

    /// Uniform in the open interval (0, 1): the midpoints of 2^53 equal cells, so never 0 and never 1.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `low..high`.
    pub fn uniform_between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal, by inversion: one uniform number gives one normal number, so the n-th normal of a stream does
    /// not depend on how many were rejected before it.
    pub fn normal(&mut self) -> f64 {
        normal_quantile(self.uniform())
    }

    /// Puts `items` in uniformly random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// The standard normal quantile for `p` in (0, 1): Wichura (1988), "Algorithm AS 241: The percentage points of the
/// normal distribution", Applied Statistics 37(3), routine PPND16, relative accuracy about 1e-16.
fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * polynomial(&CENTRE_TOP, r) / polynomial(&CENTRE_BOTTOM, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-tail.ln()).sqrt();
    let magnitude = if r <= 5.0 {
        polynomial(&NEAR_TOP, r - 1.6) / polynomial(&NEAR_BOTTOM, r - 1.6)
    } else {
        polynomial(&FAR_TOP, r - 5.0) / polynomial(&FAR_BOTTOM, r - 5.0)
    };
    magnitude.copysign(q)
}

/// Horner's rule, highest power first. Plain multiply and add: a fused one would round differently on other machines.
fn polynomial(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

const CENTRE_TOP: [f64; 8] = [
    2.509_080_928_730_122_7e3,
    3.343_057_558_358_813e4,
    6.726_577_092_700_87e4,
    4.592_195_393_154_987e4,
    1.373_169_376_550_946e4,
    1.971_590_950_306_551_3e3,
    1.331_416_678_917_843_8e2,
    3.387_132_872_796_366_5,
];
const CENTRE_BOTTOM: [f64; 8] = [
    5.226_495_278_852_854e3,
    2.872_908_573_572_194_3e4,
    3.930_789_580_009_271e4,
    2.121_379_430_158_659_7e4,
    5.394_196_021_424_751e3,
    6.871_870_074_920_579e2,
    4.231_333_070_160_091e1,
    1.0,
];
const NEAR_TOP: [f64; 8] = [
    7.745_450_142_783_414e-4,
    2.272_384_498_926_918_4e-2,
    2.417_807_251_774_506e-1,
    1.270_458_252_452_368_4,
    3.647_848_324_763_204_5,
    5.769_497_221_460_691,
    4.630_337_846_156_546,
    1.423_437_110_749_683_5,
];
const NEAR_BOTTOM: [f64; 8] = [
    1.050_750_071_644_416_9e-9,
    5.475_938_084_995_345e-4,
    1.519_866_656_361_645_7e-2,
    1.481_039_764_274_800_8e-1,
    6.897_673_349_851e-1,
    1.676_384_830_183_803_8,
    2.053_191_626_637_759,
    1.0,
];
const FAR_TOP: [f64; 8] = [
    2.010_334_399_292_288_1e-7,
    2.711_555_568_743_487_6e-5,
    1.242_660_947_388_078_4e-3,
    2.653_218_952_657_612_4e-2,
    2.965_605_718_285_048_7e-1,
    1.784_826_539_917_291_3,
    5.463_784_911_164_114,
    6.657_904_643_501_103,
];
const FAR_BOTTOM: [f64; 8] = [
    2.044_263_103_389_939_8e-15,
    1.421_511_758_316_446e-7,
    1.846_318_317_510_054_8e-5,
    7.868_691_311_456_133e-4,
    1.487_536_129_085_061_5e-2,
    1.369_298_809_227_358e-1,
    5.998_322_065_558_879e-1,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_keep_their_published_values() {
        let mut order = Stream::new(7, Purpose::Order, &[3]);
        assert_eq!([order.bits(), order.bits()], [4745212344232522227, 2049280818871276480]);
        let mut init = Stream::new(7, Purpose::Init, &[0]);
        // As 32-bit floats: the last bit of the logarithm may differ between systems.
        assert_eq!([init.normal() as f32, init.normal() as f32], [-1.4881747, 0.7831926]);
        let mut permutation = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        Stream::new(0, Purpose::Order, &[0]).shuffle(&mut permutation);
        assert_eq!(permutation, [7, 5, 4, 1, 0, 8, 9, 6, 3, 2]);
    }

    #[test]
    fn every_part_of_the_name_selects_another_stream() {
        let first = |seed, purpose, counters: &[u64]| Stream::new(seed, purpose, counters).bits();
        let names = [
            first(1, Purpose::Order, &[0]),
            first(2, Purpose::Order, &[0]),
            first(1, Purpose::Split, &[0]),
            first(1, Purpose::Order, &[1]),
            first(1, Purpose::Order, &[0, 0]),
        ];
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn quantiles_agree_with_tabulated_values() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.6, 0.2533471031357998),
            (0.9, 1.2815515655446008),
            (0.975, 1.9599639845400536),
            (0.001, -3.090232306167813),
            (1e-6, -4.753424308822899),
            (1e-20, -9.262340089798405),
        ] {
            assert!((normal_quantile(p) - expected).abs() < 1e-14, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn normals_and_uniforms_have_the_right_moments() {
        let mut stream = Stream::new(11, Purpose::Init, &[]);
        let normals: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 1e5;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&stream.uniform())));
    }

    #[test]
    fn below_is_within_its_bound_and_even() {
        let mut stream = Stream::new(5, Purpose::Ties, &[]);
        let mut counts = [0u32; 3];
        for _ in 0..30_000 {
            counts[stream.below(3) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| n.abs_diff(10_000) < 400), "{counts:?}");
        assert_eq!((stream.below(0), stream.below(1)), (0, 0));
    }
}
