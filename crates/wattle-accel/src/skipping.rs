//! How long PEs take for a tile when zeros take no cycle, and how long they wait for each other.

use crate::csc::expected_pairs;
use crate::evaluation::Context;
use crate::layer::{Dim, Operand};
use crate::pe::fullest_tile_words;

/// Work of one PE tile (`M0` filters, a window of `C0 R0 S0` activations), averaged over the tiles of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct PeWork {
    /// Mean cycles of one PE for a tile.
    pub mean: f64,
    /// Expected cycles of the slowest PE of a chain that adds up one partial sum: they wait for each other at
    /// every position.
    pub synchronised: f64,
    /// Cycles a position that the slowest filters cost beyond that: all chains wait for each other between sets
    /// of weights.
    pub barrier: f64,
    /// Standard deviation of a chain's cycles for one position.
    pub deviation: f64,
    /// Weights stored in the fullest PE, in raw values or pairs (expected, two deviations up).
    pub weight_words: f64,
    /// Products of two values that meet, as a share of all products.
    pub products_share: f64,
    /// Lane slots spent on them, idle lanes included, as a share of all products.
    pub slots_share: f64,
    /// Filters for which an activation is read once.
    pub filters: f64,
}

/// Expected largest of `n` draws from the standard normal distribution, by Blom's rule (1958), which is within
/// 2 % for n up to 400.
pub fn expected_largest(n: f64) -> f64 {
    if n <= 1.0 { 0.0 } else { quantile((n - 0.375) / (n + 0.25)) }
}

/// Inverse of the normal distribution function (Abramowitz and Stegun 26.2.23; error below 4.5e-4), p >= 1/2.
fn quantile(p: f64) -> f64 {
    let t = (-2.0 * (1.0 - p).ln()).sqrt();
    let top = 2.515517 + t * (0.802853 + t * 0.010328);
    t - top / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
}

/// Mean and variance of the larger of two independent normal variables (Clark 1961).
fn larger(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let spread = (a.1 + b.1).sqrt();
    if spread < 1e-9 {
        return if a.0 >= b.0 { a } else { b };
    }
    let x = (a.0 - b.0) / spread;
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let below = distribution(x);
    let mean = a.0 * below + b.0 * (1.0 - below) + spread * density;
    let square =
        (a.0 * a.0 + a.1) * below + (b.0 * b.0 + b.1) * (1.0 - below) + (a.0 + b.0) * spread * density;
    (mean, (square - mean * mean).max(0.0))
}

/// The normal distribution function (Abramowitz and Stegun 26.2.17; error below 7.5e-8).
fn distribution(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - distribution(-x);
    }
    let t = 1.0 / (1.0 + 0.2316419 * x);
    let poly =
        t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    1.0 - (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly
}

/// Mean and variance of `ceil(n/2)` for n filters out of `m0` alive with probability `density`.
fn column(m0: usize, density: f64, lanes: usize) -> (f64, f64) {
    if lanes == 1 {
        return (m0 as f64 * density, m0 as f64 * density * (1.0 - density));
    }
    if density >= 1.0 {
        return (m0.div_ceil(lanes) as f64, 0.0);
    }
    // Beyond two lanes the rounding costs (lanes - 1) / 2 slots on average; no shipped PE has more than two.
    let odd = (1.0 - (1.0 - 2.0 * density).powi(m0 as i32)) / 2.0;
    let mean = if lanes == 2 {
        expected_pairs(m0, density)
    } else {
        (m0 as f64 * density + (lanes - 1) as f64 / 2.0) / lanes as f64
    };
    (mean, (m0 as f64 * density * (1.0 - density) + odd * (1.0 - odd)) / (lanes * lanes) as f64)
}

/// Words of the fullest PE where every weight is known; `None` without a mask, or where the tile fits with all its
/// zeros or is beyond the pad even with whole words only.
pub(crate) fn fullest_words(context: &Context<'_>, pe: &[usize; 8]) -> Option<f64> {
    let (layer, spec) = (context.layer, &context.arch.pe);
    let mask = layer.weight.mask.as_ref().filter(|m| m.len() as f64 == layer.elements(Operand::Weight))?;
    let [_, g, m0, c0, _, _, r0, s0] = *pe;
    let dense = c0 * r0 * s0 * m0.next_multiple_of(spec.lanes);
    let least = dense as f64 * layer.weight.density;
    if !context.skips() || !context.format.weight || g > 1 {
        return None;
    }
    // The average PE holds at least this much, so the fullest does not fit either.
    if least > spec.weight_words as f64 || dense <= spec.weight_words {
        return None;
    }
    Some(fullest_tile_words(layer, mask, [m0, c0, r0, s0], spec.lanes) as f64)
}

impl PeWork {
    /// The work of tiles `pe` when `chain` PEs, each with other input channels or taps, add up one partial sum
    /// and `filter_groups` of such chains work on other filters.
    pub(crate) fn of(
        context: &Context<'_>,
        pe: &[usize; 8],
        chain: (usize, usize),
        filter_groups: usize,
    ) -> PeWork {
        let (layer, spec) = (context.layer, &context.arch.pe);
        let [n, g, m0, c0, p, q, r0, s0] = *pe;
        let rest = (n * g * p * q) as f64;
        let taps = (r0 * s0) as f64;
        if !context.skips() {
            let mean = rest * taps * (c0 * m0.div_ceil(spec.lanes)) as f64;
            let lanes = if layer.bound(Dim::M) == 1 { 1 } else { spec.lanes };
            let words = if context.format.weight {
                taps * (g * c0) as f64 * 2.0 * expected_pairs(m0, layer.weight.density)
            } else {
                (g * m0 * c0) as f64 * taps
            };
            return PeWork {
                mean,
                synchronised: mean,
                barrier: 0.0,
                deviation: 0.0,
                weight_words: words,
                products_share: 1.0,
                slots_share: (m0.div_ceil(lanes) * lanes) as f64 / m0 as f64,
                filters: m0 as f64,
            };
        }
        let channels = layer.bound(Dim::C);
        let blocks = channels.div_ceil(c0);
        let format = context.format;
        let of_channel = |c: usize| {
            let iact = if format.iact { layer.iact.of_channel(c) } else { 1.0 };
            (iact, if format.weight { layer.weight.of_channel(c) } else { 1.0 })
        };
        let uniform = layer.iact.per_channel.is_none() && layer.weight.per_channel.is_none();
        let block = |b: usize| {
            let (mut mean, mut variance, mut fixed) = (0.0, 0.0, 0.0);
            let (mut words, mut words_variance) = (0.0, 0.0);
            for c in b * c0..((b + 1) * c0).min(channels) {
                let (iact, weight) = of_channel(c);
                let (k, spread) = column(m0, weight, spec.lanes);
                mean += iact * k;
                variance += iact * (spread + k * k) - iact * iact * k * k;
                fixed += iact * iact * spread;
                words += k;
                words_variance += spread;
            }
            let stored = taps * words + 2.0 * (taps * words_variance).sqrt();
            (rest * taps * mean, rest * taps * variance.max(0.0), rest * taps * fixed, stored)
        };
        let (in_channels, in_taps) = chain;
        let mut work = PeWork { filters: m0 as f64, ..PeWork::default() };
        let mut sets = 0.0;
        let mut first = 0;
        while first < blocks {
            let (mut slowest, mut fixed) = ((0.0, 0.0), 0.0);
            for b in first..(first + in_channels).min(blocks) {
                let (mean, variance, static_variance, words) = block(b);
                for _ in 0..in_taps {
                    slowest = larger(slowest, (mean, variance));
                }
                work.mean += mean / blocks as f64;
                work.weight_words = work.weight_words.max(words * spec.lanes as f64);
                fixed = static_variance.max(fixed);
            }
            work.synchronised += slowest.0;
            work.deviation += slowest.1.sqrt();
            work.barrier += fixed.sqrt() * expected_largest(filter_groups as f64);
            sets += 1.0;
            if uniform && blocks % in_channels == 0 {
                // All sets are alike.
                work.mean = block(0).0;
                break;
            }
            first += in_channels;
        }
        work.synchronised /= sets;
        work.barrier /= sets;
        work.deviation /= sets;
        if !format.weight {
            work.weight_words = (g * m0 * c0) as f64 * taps;
        }
        let all = rest * taps * (c0 * m0) as f64;
        work.slots_share = work.mean * spec.lanes as f64 * blocks as f64 * c0 as f64 / channels as f64 / all;
        work.products_share = layer.effective_macs() / layer.macs();
        if !format.iact || !format.weight {
            work.products_share = context.densities().0 * context.densities().1;
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_largest_agrees_with_known_order_statistics() {
        // Harter 1961: 0.5642, 0.8463, 1.5388 for n = 2, 3, 10.
        for (n, known) in [(2.0, 0.5642), (3.0, 0.8463), (10.0, 1.5388)] {
            assert!((expected_largest(n) - known).abs() < 0.03, "{n}: {}", expected_largest(n));
        }
        assert_eq!(expected_largest(1.0), 0.0);
    }

    #[test]
    fn the_larger_of_two_equal_normals_is_above_both_by_sigma_over_root_pi() {
        let (mean, variance) = larger((5.0, 4.0), (5.0, 4.0));
        assert!((mean - (5.0 + 2.0 / std::f64::consts::PI.sqrt())).abs() < 1e-6);
        assert!((variance - 4.0 * (1.0 - 1.0 / std::f64::consts::PI)).abs() < 1e-6);
        assert_eq!(larger((3.0, 0.0), (2.0, 0.0)), (3.0, 0.0));
    }
}
