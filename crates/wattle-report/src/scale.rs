//! Axes: from data to drawing positions, and ticks at numbers people like.

use crate::number;

/// How an axis maps its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Equal steps add.
    #[default]
    Linear,
    /// Equal steps multiply; values must be positive.
    Log,
}

/// An axis of a plot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What it shows, with its unit: `energy (J)`.
    pub label: String,
    /// How it maps numbers.
    pub mapping: Mapping,
}

impl Axis {
    /// An axis with equal steps.
    pub fn linear(label: impl Into<String>) -> Self {
        Axis { label: label.into(), mapping: Mapping::Linear }
    }

    /// An axis with equal factors.
    pub fn log(label: impl Into<String>) -> Self {
        Axis { label: label.into(), mapping: Mapping::Log }
    }
}

/// An axis fitted to data: a range that ends on ticks or near them.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    mapping: Mapping,
    low: f64,
    high: f64,
    pub(crate) ticks: Vec<f64>,
}

impl Scale {
    /// Fits a scale to values that [`fits`] accepted; without any it shows 0 to 1, or 1 to 10.
    pub(crate) fn fit(mapping: Mapping, values: impl IntoIterator<Item = f64>) -> Scale {
        let bounds = values.into_iter().fold(None, |bounds: Option<(f64, f64)>, v| {
            Some(bounds.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        });
        match mapping {
            Mapping::Linear => linear(bounds.unwrap_or((0.0, 1.0))),
            Mapping::Log => log(bounds.unwrap_or((1.0, 10.0))),
        }
    }

    /// The position of `value`: 0 at the low end, 1 at the high end.
    pub(crate) fn position(&self, value: f64) -> f64 {
        match self.mapping {
            Mapping::Linear => (value - self.low) / (self.high - self.low),
            Mapping::Log => (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln()),
        }
    }
}

/// Whether a value can stand on an axis. Beyond 1e300 the arithmetic of scales would overflow.
pub(crate) fn fits(mapping: Mapping, value: f64) -> bool {
    match mapping {
        Mapping::Linear => value.abs() < 1e300,
        Mapping::Log => value > 1e-300 && value < 1e300,
    }
}

/// A tick's label: `0`, `0.25`, `10 k`, `2 µ`.
pub(crate) fn tick_label(value: f64) -> String {
    if (0.001..10_000.0).contains(&value.abs()) { number::plain(value) } else { number::si(value, "") }
}

fn linear((mut low, mut high): (f64, f64)) -> Scale {
    let least = 1e-9 * low.abs().max(high.abs()).max(1e-290);
    if high - low < least {
        // One value only: room on both sides.
        let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
        (low, high) = (low - room, high + room);
    } else if low > 0.0 && low < 0.4 * high {
        low = 0.0;
    } else if high < 0.0 && high > 0.4 * low {
        high = 0.0;
    }
    let (factor, exponent) = nice_step((high - low) / 5.0);
    // Index times step, not a running sum, and a division for small steps: ticks land on round numbers exactly.
    let tick = |i: i64| match exponent {
        0.. => i as f64 * factor * 10f64.powi(exponent),
        _ => i as f64 * factor / 10f64.powi(-exponent),
    };
    let step = tick(1);
    let (first, last) = ((low / step).floor() as i64, (high / step - 1e-9).ceil() as i64);
    // A range too fine for its numbers gets no ticks.
    let ticks: Vec<f64> =
        if last.saturating_sub(first) <= 20 { (first..=last).map(tick).collect() } else { Vec::new() };
    let (low, high) = match (ticks.first(), ticks.last()) {
        (Some(&first), Some(&last)) if first < last => (first, last),
        _ => (low, high),
    };
    Scale { mapping: Mapping::Linear, low, high, ticks }
}

/// The round number at or just above `raw`, as 1, 2 or 5 and an exponent of ten.
fn nice_step(raw: f64) -> (f64, i32) {
    let exponent = raw.log10().floor() as i32;
    let power = 10f64.powi(exponent);
    match [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= raw * (1.0 - 1e-9)) {
        Some(factor) => (factor, exponent),
        None => (1.0, exponent + 1),
    }
}

fn log((low, high): (f64, f64)) -> Scale {
    let (first, last) = (low.log10().floor() as i32, (high.log10() - 1e-9).ceil() as i32);
    let last = last.max(first + 1);
    let decades = last - first;
    let factors: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let every = (decades / 8 + 1).max(1);
    let mut ticks: Vec<f64> = (first..=last)
        .step_by(every as usize)
        .flat_map(|e| factors.iter().map(move |f| f * 10f64.powi(e)))
        .filter(|tick| *tick <= 10f64.powi(last) * (1.0 + 1e-9))
        .collect();
    // Within two decades the range may end on a 2 or a 5.
    let (mut from, mut to) = (10f64.powi(first), 10f64.powi(last));
    if factors.len() > 1 {
        from = ticks.iter().copied().filter(|t| *t <= low * (1.0 + 1e-9)).fold(from, f64::max);
        to = ticks.iter().copied().filter(|t| *t >= high * (1.0 - 1e-9) && *t > from).fold(to, f64::min);
        ticks.retain(|t| (from..=to).contains(t));
    }
    Scale { mapping: Mapping::Log, low: from, high: to, ticks }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_the_axis_starts_at_zero_where_that_costs_little() {
        assert_eq!(Scale::fit(Mapping::Linear, [3.0, 97.0]).ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let fine = [0.95, 0.96, 0.97, 0.98];
        assert_eq!(Scale::fit(Mapping::Linear, [0.951, 0.979]).ticks, fine, "far from zero, no zero");
        assert_eq!(Scale::fit(Mapping::Log, [0.02, 1.0]).ticks, [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        assert_eq!(Scale::fit(Mapping::Log, [1.0, 1e4]).ticks, [1.0, 10.0, 100.0, 1e3, 1e4]);
    }

    #[test]
    fn tick_labels_are_short() {
        let labels: Vec<String> = [0.0, 0.25, 10_000.0, 2e-6, 1e9].into_iter().map(tick_label).collect();
        assert_eq!(labels, ["0", "0.25", "10 k", "2 µ", "1 G"]);
    }

    proptest! {
        #[test]
        fn every_value_lies_on_its_axis(values in prop::collection::vec(-1e12..1e12f64, 0..20), log: bool) {
            let mapping = if log { Mapping::Log } else { Mapping::Linear };
            let values: Vec<f64> = values.into_iter().filter(|v| fits(mapping, *v)).collect();
            let scale = Scale::fit(mapping, values.iter().copied());
            prop_assert!(scale.ticks.len() <= 21);
            for v in values {
                let p = scale.position(v);
                prop_assert!((-1e-6..=1.0 + 1e-6).contains(&p), "{v} at {p} of {scale:?}");
            }
        }

        #[test]
        fn extreme_values_neither_hang_nor_panic(a: f64, b: f64, log: bool) {
            let mapping = if log { Mapping::Log } else { Mapping::Linear };
            let scale = Scale::fit(mapping, [a, b].into_iter().filter(|v| fits(mapping, *v)));
            prop_assert!(scale.ticks.len() <= 100);
        }
    }
}
