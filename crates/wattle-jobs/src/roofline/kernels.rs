//! Times of kernels by their size, learnt from observations.

use std::collections::BTreeMap;

/// What a step works on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Multiply-accumulates; for what has none, operations on elements.
    pub macs: f64,
    /// Bytes of all operands and results.
    pub bytes: f64,
    /// Elements of the first result.
    pub outputs: f64,
}

/// A predicted time in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// The best single number.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Whether kernels of this kind were observed.
    pub known: bool,
}

/// Every kind of kernel that was observed.
pub struct Kernels {
    exact: BTreeMap<String, Kind>,
    family: BTreeMap<String, Kind>,
    all: Kind,
}

/// One kind: its observations, a fit through them, and how well each is predicted from the others.
#[derive(Clone)]
struct Kind {
    observed: Vec<(Size, f64)>,
    coefficients: [f64; 4],
    /// Observed over predicted: a low and a high quantile.
    spread: (f64, f64),
}

/// Nearest observations whose residuals correct a prediction.
const NEAREST: usize = 3;
/// The narrowest spread claimed, whatever the probes say: timing itself varies as much.
const LEAST_SPREAD: f64 = 1.15;
/// The spread of a kind that was not observed.
const UNKNOWN: (f64, f64) = (0.2, 5.0);
/// Observations of a kind from which on it needs no help of its family; and the spread where it does.
const FEW: usize = 3;
const SEEN_ONLY: (f64, f64) = (0.6, 1.7);

impl Kernels {
    /// Fits observations of (kernel, size, seconds).
    pub fn fit(observed: Vec<(String, Size, f64)>) -> Kernels {
        let mut exact: BTreeMap<String, Vec<(Size, f64)>> = BTreeMap::new();
        let mut family: BTreeMap<String, Vec<(Size, f64)>> = BTreeMap::new();
        let mut all = vec![];
        for (kernel, size, time) in observed {
            let time = time.max(1e-8);
            family.entry(family_of(&kernel).to_owned()).or_default().push((size, time));
            exact.entry(kernel).or_default().push((size, time));
            all.push((size, time));
        }
        let fitted = |kinds: BTreeMap<String, Vec<(Size, f64)>>| -> BTreeMap<String, Kind> {
            kinds.into_iter().map(|(name, observed)| (name, Kind::fit(observed))).collect()
        };
        Kernels { exact: fitted(exact), family: fitted(family), all: Kind::fit(all) }
    }

    /// The time of one kernel: by its own kind; where that was seen once or twice, by its family (the first word of its
    /// name), as much slower or faster as it then was; else by its family or by all.
    pub fn predict(&self, kernel: &str, size: Size) -> Time {
        let own = self.exact.get(kernel);
        // What the interpreter runs has nothing in common but the interpreter.
        let family = self.family.get(family_of(kernel)).filter(|_| family_of(kernel) != "reference");
        let (value, spread, known) = match (own, family) {
            (Some(own), _) if own.observed.len() >= FEW => (own.predict(size, None), own.spread, true),
            (Some(own), None) => (own.predict(size, None), SEEN_ONLY, true),
            (Some(own), Some(family)) => (family.fitted(size) * own.pace(family), SEEN_ONLY, true),
            (None, Some(family)) => (family.predict(size, None), family.spread, true),
            (None, None) => (self.all.predict(size, None), UNKNOWN, false),
        };
        Time { value, low: value * spread.0, high: value * spread.1, known }
    }
}

/// What ratios of observations to predictions span: all of them if they are few; of twenty, one is left out on each side. Never less than timing itself varies, never more than a factor of five.
pub fn spread(mut ratios: Vec<f64>) -> (f64, f64) {
    ratios.sort_by(f64::total_cmp);
    let cut = ratios.len() / 20;
    let (low, high) = match (ratios.get(cut), ratios.get(ratios.len().wrapping_sub(1 + cut))) {
        (Some(&low), Some(&high)) => (low, high),
        _ => (1.0, 1.0),
    };
    (low.clamp(0.2, 1.0 / LEAST_SPREAD), high.clamp(LEAST_SPREAD, 5.0))
}

fn family_of(kernel: &str) -> &str {
    kernel.split('-').next().unwrap_or(kernel)
}

impl Kind {
    fn fit(observed: Vec<(Size, f64)>) -> Kind {
        let coefficients = non_negative_fit(&observed);
        let mut kind = Kind { observed, coefficients, spread: (1.0, 1.0) };
        let ratios = (0..kind.observed.len())
            .map(|i| kind.observed[i].1 / kind.predict(kind.observed[i].0, Some(i)))
            .collect();
        kind.spread = spread(ratios);
        kind
    }

    /// How much slower than its family these observations are, as a factor.
    fn pace(&self, family: &Kind) -> f64 {
        let ratios = self.observed.iter().map(|(size, time)| (time / family.fitted(*size)).ln());
        (ratios.sum::<f64>() / self.observed.len().max(1) as f64).exp()
    }

    /// The fit at this size.
    fn fitted(&self, size: Size) -> f64 {
        dot(&self.coefficients, &features(size)).max(1e-8)
    }

    /// The fit at this size, times the mean residual of the nearest observations, `without` excepted.
    fn predict(&self, size: Size, without: Option<usize>) -> f64 {
        let mut near: Vec<(f64, f64)> = self
            .observed
            .iter()
            .enumerate()
            .filter(|(i, _)| Some(*i) != without)
            .map(|(_, (at, time))| (distance(*at, size), (time / self.fitted(*at)).ln()))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        near.truncate(NEAREST);
        let weights: Vec<f64> = near.iter().map(|(distance, _)| 1.0 / (0.05 + distance)).collect();
        let total: f64 = weights.iter().sum();
        // Far from every observation the correction fades: one unit of distance is a factor of e in one feature.
        let closeness = near.first().map_or(0.0, |(distance, _)| (-distance / 2.0).exp());
        let residual: f64 = near.iter().zip(&weights).map(|((_, r), w)| r * w).sum();
        let correction = if total > 0.0 { closeness * residual / total } else { 0.0 };
        self.fitted(size) * correction.clamp(-1.5, 1.5).exp()
    }
}

fn features(size: Size) -> [f64; 4] {
    [1.0, size.macs, size.bytes, size.outputs]
}

fn dot(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Squared distance of the logarithms.
fn distance(a: Size, b: Size) -> f64 {
    let of = |x: f64, y: f64| ((x + 1.0) / (y + 1.0)).ln().powi(2);
    of(a.macs, b.macs) + of(a.bytes, b.bytes) + of(a.outputs, b.outputs)
}

/// Non-negative coefficients that minimise the squares of relative errors, by coordinate descent: with both sides
/// divided by the time, every observation counts the same, microseconds or seconds.
fn non_negative_fit(observed: &[(Size, f64)]) -> [f64; 4] {
    // Scaled so that each feature's largest relative value is 1.
    let rows: Vec<[f64; 4]> = observed.iter().map(|(size, t)| features(*size).map(|x| x / t)).collect();
    let mut scale = [0.0f64; 4];
    for row in &rows {
        for (s, x) in scale.iter_mut().zip(row) {
            *s = s.max(*x);
        }
    }
    let rows: Vec<[f64; 4]> = rows
        .iter()
        .map(|row| std::array::from_fn(|j| if scale[j] > 0.0 { row[j] / scale[j] } else { 0.0 }))
        .collect();
    let mut solution = [0.0; 4];
    for _ in 0..3000 {
        for j in 0..4 {
            let square: f64 = rows.iter().map(|row| row[j] * row[j]).sum();
            if square <= 0.0 {
                continue;
            }
            let gradient: f64 = rows.iter().map(|row| row[j] * (1.0 - dot(&solution, row))).sum();
            solution[j] = (solution[j] + gradient / square).max(0.0);
        }
    }
    std::array::from_fn(|j| if scale[j] > 0.0 { solution[j] / scale[j] } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(i: u32) -> Size {
        let n = 4f64.powi(i as i32);
        Size { macs: 1000.0 * n, bytes: 4096.0 + 300.0 * n, outputs: 64.0 + 10.0 * f64::from(i) }
    }

    fn truth(s: Size) -> f64 {
        2e-6 + s.macs / 40e9 + s.bytes / 10e9
    }

    fn observed() -> Vec<(String, Size, f64)> {
        (0..10).map(|i| ("conv-nhwc".to_owned(), size(i), truth(size(i)))).collect()
    }

    #[test]
    fn a_roofline_is_learnt_and_holds_between_and_a_little_beyond_the_observations() {
        let kernels = Kernels::fit(observed());
        for scale in [0.5, 3.0, 7.0] {
            let s = Size { macs: scale * 2e5, bytes: scale * 6e4, outputs: 100.0 };
            let time = kernels.predict("conv-nhwc", s);
            assert!((time.value / truth(s) - 1.0).abs() < 0.2, "{time:?}, expected {}", truth(s));
            assert!(time.known && time.low < time.value && time.value < time.high);
        }
    }

    #[test]
    fn an_unknown_kind_is_said_to_be_unknown_and_gets_a_wide_interval() {
        let kernels = Kernels::fit(observed());
        let time = kernels.predict("resize-nhwc", size(3));
        assert!(!time.known && time.high / time.low > 8.0);
        assert!(kernels.predict("conv-other", size(3)).known, "by its family");
    }

    #[test]
    fn coefficients_are_never_negative() {
        let noisy: Vec<(Size, f64)> =
            (0..12).map(|i| (size(i), truth(size(i)) * (1.0 + 0.3 * f64::from(i % 3)))).collect();
        assert!(non_negative_fit(&noisy).iter().all(|c| *c >= 0.0 && c.is_finite()));
    }
}
