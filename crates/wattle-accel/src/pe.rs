//! Work of the compressed processing element: how many multiply cycles a layer takes, by counts and by masks.
//!
//! The sparse PE of Eyeriss v2 skips zero activations and zero weights, so one lane takes one cycle for each
//! pair of non-zero values that meet: `sum over c of nnz_iact[c] nnz_weight[c]` for a 1x1 layer. This is the
//! ground truth of Sparseloop's Fig. 12 (Wu et al., MICRO 2022). It says nothing of SIMD, balance or the network.

use serde::Deserialize;
use wattle_graph::Mask;

use crate::error::AccelError;
use crate::layer::{Dim, Layer};

/// Non-zero counts of a 1x1 layer by input channel; the counts alone decide its cycles, the shape bounds them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(non_snake_case, reason = "the names that papers on Eyeriss use")]
pub struct LaneCounts {
    /// Input channels.
    pub C: u64,
    /// Filters.
    pub M: u64,
    /// Rows of the output.
    pub E: u64,
    /// Columns of the output.
    pub F: u64,
    /// Activations that are not zero, by channel.
    pub nnz_iact: Vec<u64>,
    /// Weights that are not zero, by channel.
    pub nnz_weight: Vec<u64>,
    /// Published cycles, not read here.
    #[serde(rename = "cycles")]
    _cycles: Option<u64>,
}

impl LaneCounts {
    /// Cycles of one lane.
    ///
    /// # Errors
    /// If a list has not one count a channel, a count exceeds what the shape has room for, or the cycles exceed 2^64.
    pub fn cycles(&self, name: &str) -> Result<u64, AccelError> {
        let place = || format!("layer `{name}`");
        let room = self.E.saturating_mul(self.F);
        for (list, counts, most) in
            [("nnz_iact", &self.nnz_iact, room), ("nnz_weight", &self.nnz_weight, self.M)]
        {
            if counts.len() as u64 != self.C {
                let (found, wanted) = (counts.len(), self.C);
                return Err(AccelError::invalid(
                    place(),
                    format!("{list} has {found} entries, expected C = {wanted}"),
                ));
            }
            if let Some(count) = counts.iter().find(|&&n| n > most) {
                return Err(AccelError::invalid(
                    place(),
                    format!("{list} has a count of {count}, expected at most {most}"),
                ));
            }
        }
        cycles_from_counts(name, &self.nnz_iact, &self.nnz_weight)
    }
}

/// Cycles of one lane for a 1x1 layer, from non-zero counts of each input channel.
pub fn cycles_from_counts(layer: &str, nnz_iact: &[u64], nnz_weight: &[u64]) -> Result<u64, AccelError> {
    if nnz_iact.len() != nnz_weight.len() {
        let (found, expected) = (nnz_weight.len(), nnz_iact.len());
        return Err(AccelError::Size { layer: layer.to_string(), what: "nnz_weight", found, expected });
    }
    let products = nnz_iact.iter().zip(nnz_weight).map(|(i, w)| i.checked_mul(*w));
    products.sum::<Option<u64>>().ok_or_else(|| {
        AccelError::invalid(format!("layer `{layer}`"), "the counts multiply to more than 2^64")
    })
}

/// Cycles of one lane for any convolution, from masks of activations `[N, G C, H, W]` and weights
/// `[G M, C, R, S]`: for each tap, positions where its activation is not zero times filters where it is not.
/// Taps that fall into the padding meet zeros and take no cycle.
pub fn cycles_from_masks(layer: &Layer, iact: &Mask, weight: &Mask) -> Result<u64, AccelError> {
    cycles(layer, iact, weight, |filters| filters)
}

/// The same with `lanes` filters at a time, filters in tiles of `tile`: an odd rest of a column of a tile leaves
/// lanes idle.
pub fn simd_cycles_from_masks(
    layer: &Layer,
    iact: &Mask,
    weight: &Mask,
    tile: usize,
    lanes: u64,
) -> Result<u64, AccelError> {
    let (filters, tile) = (layer.bound(Dim::M), tile.max(1));
    let mut sum = 0;
    for first in (0..filters).step_by(tile) {
        let range = first..(first + tile).min(filters);
        sum += cycles_of_filters(layer, iact, weight, range, |n| n.div_ceil(lanes.max(1)))?;
    }
    Ok(sum)
}

/// Words that the fullest PE stores of a tile of `M0` filters, `C0` channels, `R0` x `S0` taps (`tile`), from a weight
/// mask `[G M, C, R, S]`: for each column its non-zero weights, rounded up to whole words of `lanes` pairs. Whether a
/// mapping fits is decided by this PE, not by the average one.
pub fn fullest_tile_words(layer: &Layer, weight: &Mask, tile: [usize; 4], lanes: usize) -> usize {
    let [_, groups, filters, channels, _, _, taps_r, taps_s] = layer.bounds;
    let [m0, c0, r0, s0] = tile.map(|n| n.max(1));
    let columns = channels * taps_r * taps_s;
    let blocks = [channels.div_ceil(c0), taps_r.div_ceil(r0), taps_s.div_ceil(s0)];
    let mut fullest = 0;
    let (mut alive, mut words) = (vec![0usize; columns], vec![0usize; blocks.iter().product()]);
    for group in 0..groups {
        for first in (0..filters).step_by(m0) {
            alive.fill(0);
            words.fill(0);
            for filter in first..(first + m0).min(filters) {
                let row = (group * filters + filter) * columns;
                for (column, alive) in alive.iter_mut().enumerate() {
                    *alive += usize::from(weight.get(row + column));
                }
            }
            for (column, alive) in alive.iter().enumerate() {
                let (s, r, c) = (column % taps_s, column / taps_s % taps_r, column / (taps_r * taps_s));
                let block = (c / c0 * blocks[1] + r / r0) * blocks[2] + s / s0;
                words[block] += alive.next_multiple_of(lanes.max(1));
            }
            fullest = words.iter().copied().fold(fullest, usize::max);
        }
    }
    fullest
}

fn cycles(layer: &Layer, iact: &Mask, weight: &Mask, cost: impl Fn(u64) -> u64) -> Result<u64, AccelError> {
    cycles_of_filters(layer, iact, weight, 0..layer.bound(Dim::M), cost)
}

fn cycles_of_filters(
    layer: &Layer,
    iact: &Mask,
    weight: &Mask,
    filters: std::ops::Range<usize>,
    cost: impl Fn(u64) -> u64,
) -> Result<u64, AccelError> {
    let [n, g, m, c, _, _, r, s] = layer.bounds;
    let [height, width] = layer.input;
    for (what, mask, expected) in [
        ("the activation mask", iact, n * g * c * height * width),
        ("the weight mask", weight, g * m * c * r * s),
    ] {
        if mask.len() != expected {
            return Err(AccelError::Size { layer: layer.name.clone(), what, found: mask.len(), expected });
        }
    }
    let mut sum = 0;
    for channel in 0..g * c {
        let (group, inner) = (channel / c, channel % c);
        for row in 0..r {
            for column in 0..s {
                let position = |filter: usize| (((group * m + filter) * c + inner) * r + row) * s + column;
                let alive = filters.clone().filter(|&f| weight.get(position(f))).count() as u64;
                if alive > 0 {
                    sum += cost(alive) * windows_that_see(layer, iact, channel, row, column);
                }
            }
        }
    }
    Ok(sum)
}

/// Output positions whose tap (row, column) of this channel reads a non-zero activation.
fn windows_that_see(layer: &Layer, iact: &Mask, channel: usize, row: usize, column: usize) -> u64 {
    let [n, g, _, c, p, q, _, _] = layer.bounds;
    let [height, width] = layer.input;
    let place = |window: usize, tap: usize, axis: usize, extent: usize| {
        let at = (window * layer.stride[axis] + tap * layer.dilation[axis]).checked_sub(layer.pad[axis])?;
        (at < extent).then_some(at)
    };
    let mut seen = 0;
    for image in 0..n {
        for y in (0..p).filter_map(|y| place(y, row, 0, height)) {
            let line = ((image * g * c + channel) * height + y) * width;
            seen += (0..q).filter_map(|x| place(x, column, 1, width)).filter(|x| iact.get(line + x)).count();
        }
    }
    seen as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, percent: u64, seed: u64) -> Mask {
        let mut state = seed;
        Mask::from_bools((0..len).map(move |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % 100 < percent
        }))
    }

    #[test]
    fn masks_of_a_strided_padded_grouped_convolution_are_counted_as_the_definition_does() {
        let layer = Layer {
            bounds: [2, 2, 3, 4, 3, 3, 3, 3],
            stride: [2; 2],
            pad: [1; 2],
            input: [6, 5],
            ..Layer::conv("l", 2, 8, 6, 3, 3, 2)
        };
        let (iact, weight) = (noise(2 * 8 * 30, 60, 1), noise(6 * 4 * 9, 40, 2));
        let mut pairs = 0;
        for index in 0..2 * 2 * 3 * 4 * 81 {
            let (s, r, q, p) = (index % 3, index / 3 % 3, index / 9 % 3, index / 27 % 3);
            let (c, m, g, n) = (index / 81 % 4, index / 324 % 3, index / 972 % 2, index / 1944);
            let (y, x) = (2 * p + r, 2 * q + s);
            if (1..7).contains(&y) && (1..6).contains(&x) {
                let at = ((n * 8 + g * 4 + c) * 6 + y - 1) * 5 + x - 1;
                pairs += u64::from(iact.get(at) && weight.get((((g * 3 + m) * 4 + c) * 3 + r) * 3 + s));
            }
        }
        assert_eq!(cycles_from_masks(&layer, &iact, &weight), Ok(pairs));
        assert_eq!(simd_cycles_from_masks(&layer, &iact, &weight, 3, 1), Ok(pairs));
        let simd = simd_cycles_from_masks(&layer, &iact, &weight, 3, 2).unwrap();
        assert!(simd < pairs && 2 * simd >= pairs);
    }

    #[test]
    fn the_fullest_tile_is_found_wherever_it_is() {
        let layer = Layer::conv("l", 2, 8, 12, 4, 3, 1);
        let mask = noise(12 * 4 * 9, 30, 9);
        for tile in [[4, 2, 1, 3], [5, 3, 2, 3], [6, 4, 3, 3], [1, 1, 1, 1]] {
            let mut most = 0;
            let [m0, c0, r0, s0] = tile;
            for (g, m) in (0..2).flat_map(|g| (0..6).step_by(m0).map(move |m| (g, m))) {
                for (c, r) in (0..4).step_by(c0).flat_map(|c| (0..3).step_by(r0).map(move |r| (c, r))) {
                    for s in (0..3).step_by(s0) {
                        let mut words = 0;
                        for x in c..(c + c0).min(4) {
                            for y in r..(r + r0).min(3) {
                                for z in s..(s + s0).min(3) {
                                    let at = |f: usize| (((g * 6 + f) * 4 + x) * 3 + y) * 3 + z;
                                    let n = (m..(m + m0).min(6)).filter(|&f| mask.get(at(f))).count();
                                    words += 2 * n.div_ceil(2);
                                }
                            }
                        }
                        most = most.max(words);
                    }
                }
            }
            assert_eq!(fullest_tile_words(&layer, &mask, tile, 2), most, "{tile:?}");
        }
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        assert!(
            cycles_from_counts("L1", &[1, 2], &[1])
                .unwrap_err()
                .to_string()
                .contains("1 entries, expected 2")
        );
        assert!(cycles_from_counts("L1", &[u64::MAX, 1], &[2, 1]).is_err());
    }
}
