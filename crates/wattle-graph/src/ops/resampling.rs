//! What Resize makes of one axis: the elements that each new one is made of, and their weights.

/// How a value between elements is made up.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the nearest modes are named as in ONNX")]
pub enum Interpolation {
    NearestRoundPreferFloor,
    NearestRoundPreferCeil,
    NearestFloor,
    NearestCeil,
    /// Between the two neighbours.
    Linear,
    /// By Keys' kernel of the four neighbours (Keys 1981, equation 4 with a for its -1/2).
    Cubic {
        /// Slope of the kernel at distance 1.
        a: f32,
        /// Neighbours outside the operand get no weight instead of the value at the border.
        exclude_outside: bool,
    },
}

/// Which position of the operand an element of the result stands for; named as in ONNX.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are ONNX coordinate transformation modes")]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    /// Positions are relative to the region of interest; those outside the operand get this value.
    TfCropAndResize {
        extrapolation: f32,
    },
}

/// One axis that changes: its extents, scale, and region of interest.
pub(super) struct Change {
    pub axis: usize,
    pub from: usize,
    pub to: usize,
    pub scale: f64,
    pub region: (f64, f64),
}

/// For each element of the result, the elements of the operand it is made of and their weights; `None` where it
/// lies outside.
pub(super) type Taps = Vec<Option<Vec<(usize, f64)>>>;

impl Change {
    fn position(&self, coordinates: Coordinates, at: usize) -> f64 {
        let (x, from, to, scale) = (at as f64, self.from as f64, self.to as f64, self.scale);
        let half_pixel = (x + 0.5) / scale - 0.5;
        match coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::PytorchHalfPixel => {
                if self.to > 1 {
                    half_pixel
                } else {
                    0.0
                }
            }
            Coordinates::HalfPixelSymmetric => from / 2.0 * (1.0 - to / (scale * from)) + half_pixel,
            Coordinates::AlignCorners => {
                if self.to > 1 {
                    x * (from - 1.0) / (to - 1.0)
                } else {
                    0.0
                }
            }
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / scale,
            Coordinates::TfCropAndResize { .. } => {
                let (start, end) = self.region;
                if self.to > 1 {
                    start * (from - 1.0) + x * (end - start) * (from - 1.0) / (to - 1.0)
                } else {
                    0.5 * (start + end) * (from - 1.0)
                }
            }
        }
    }

    pub fn taps(&self, interpolation: Interpolation, coordinates: Coordinates) -> Taps {
        let last = (self.from - 1) as f64;
        let inside = |x: f64| x.clamp(0.0, last) as usize;
        let cropped = matches!(coordinates, Coordinates::TfCropAndResize { .. });
        let taps = |at| {
            let x = self.position(coordinates, at);
            // Rounded as a position computed in f32 is, so that 3 / 0.6 counts as 5.
            let single = f64::from(x as f32);
            if cropped && !(0.0..=last).contains(&x) {
                return None;
            }
            Some(match interpolation {
                Interpolation::NearestRoundPreferFloor => vec![(inside((single - 0.5).ceil()), 1.0)],
                Interpolation::NearestRoundPreferCeil => vec![(inside((single + 0.5).floor()), 1.0)],
                Interpolation::NearestFloor => vec![(inside(single.floor()), 1.0)],
                Interpolation::NearestCeil => vec![(inside(single.ceil()), 1.0)],
                Interpolation::Linear => {
                    let x = x.clamp(0.0, last);
                    let part = x - x.floor();
                    vec![(inside(x.floor()), 1.0 - part), (inside(x.floor() + 1.0), part)]
                }
                Interpolation::Cubic { a, exclude_outside } => {
                    let weights = cubic_weights(f64::from(a), x - x.floor());
                    let mut taps = vec![];
                    for (weight, step) in weights.into_iter().zip([-1.0, 0.0, 1.0, 2.0]) {
                        let at = x.floor() + step;
                        let dropped = exclude_outside && !(0.0..=last).contains(&at);
                        taps.push((inside(at), if dropped { 0.0 } else { weight }));
                    }
                    let sum: f64 = taps.iter().map(|t| t.1).sum();
                    if exclude_outside && sum != 0.0 {
                        taps.iter_mut().for_each(|t| t.1 /= sum);
                    }
                    taps
                }
            })
        };
        (0..self.to).map(taps).collect()
    }
}

/// Keys' kernel at the distances of the four neighbours of a point `part` after the second.
fn cubic_weights(a: f64, part: f64) -> [f64; 4] {
    let near = |t: f64| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
    [far(1.0 + part), near(part), near(1.0 - part), far(2.0 - part)]
}

/// Replaces axis `change.axis` of `values` by what `taps` makes of it; or, with `transpose`, back.
pub(super) fn along(
    values: &[f64],
    shape: &mut [usize],
    change: &Change,
    taps: &Taps,
    transpose: bool,
) -> Vec<f64> {
    let (from, to) = if transpose { (change.to, change.from) } else { (change.from, change.to) };
    let inner: usize = shape[change.axis + 1..].iter().product();
    let outer: usize = shape[..change.axis].iter().product();
    let mut result = vec![0.0; outer * to * inner];
    for o in 0..outer {
        for (at, list) in taps.iter().enumerate() {
            for &(source, weight) in list.iter().flatten() {
                let (read, write) = if transpose { (at, source) } else { (source, at) };
                let (read, write) = ((o * from + read) * inner, (o * to + write) * inner);
                for i in 0..inner {
                    result[write + i] += weight * values[read + i];
                }
            }
        }
    }
    shape[change.axis] = to;
    result
}

/// What a Resize makes of one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    /// The axis.
    pub axis: usize,
    /// Its extent before.
    pub from: usize,
    /// For each index after, the indices before that it is made of, and their weights.
    pub taps: Vec<Vec<(usize, f64)>>,
}

impl Resampled {
    /// The same from gradients of the result to gradients of the operand.
    pub fn transposed(&self) -> Resampled {
        let mut taps = vec![vec![]; self.from];
        for (at, list) in self.taps.iter().enumerate() {
            list.iter().for_each(|&(source, weight)| taps[source].push((at, weight)));
        }
        Resampled { axis: self.axis, from: self.taps.len(), taps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_kernel_reproduces_points_and_sums_to_one() {
        assert_eq!(cubic_weights(-0.75, 0.0), [0.0, 1.0, 0.0, 0.0]);
        assert!((cubic_weights(-0.5, 0.3).iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }
}
