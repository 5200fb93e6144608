//! A bounded list of readings over time: a run of any length keeps an even picture of itself.

use std::time::Duration;

use crate::{PowerSummary, Samples};

/// Readings kept at most; 512 pairs are about 12 kB of JSON.
const CAPACITY: usize = 512;

/// Cumulative energy at increasing times; every `stride`-th reading offered is kept.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    interval: Duration,
    /// Power over less time than this says more of the counter's steps than of the machine.
    least: Duration,
    points: Vec<(Duration, u64)>,
    stride: u64,
    offered: u64,
}

impl Series {
    /// An empty series that will be offered one reading each `interval`; power is told over no less than `least`.
    pub(crate) fn new(interval: Duration, least: Duration) -> Self {
        Series { interval, least, points: Vec::new(), stride: 1, offered: 0 }
    }

    /// Offers a regular reading of `microjoules` since start.
    pub(crate) fn offer(&mut self, at: Duration, microjoules: u64) {
        if self.offered.is_multiple_of(self.stride) {
            if self.points.len() == CAPACITY {
                let mut index = 0;
                self.points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
            if self.offered.is_multiple_of(self.stride) {
                self.points.push((at, microjoules));
            }
        }
        self.offered += 1;
    }

    /// The samples of a receipt, closed by the final reading.
    pub(crate) fn finish(&self, at: Duration, microjoules: u64, taken: u64) -> Samples {
        let mut points = self.points.clone();
        if points.last().is_none_or(|&(last, _)| last < at) {
            points.push((at, microjoules));
        }
        Samples {
            taken,
            interval_s: self.interval.as_secs_f64() * self.stride as f64,
            power: summarise(&gathered(&points, |point| point.0, self.least.max(LEAST_STEP))),
            readings: points.iter().map(|&(t, e)| (t.as_secs_f64(), e as f64 / 1e6)).collect(),
        }
    }
}

/// Counters move in steps of up to some milliseconds.
const LEAST_STEP: Duration = Duration::from_millis(100);

impl Samples {
    /// Power between readings that are far enough apart to tell it: seconds from the start of the run to the start and the
    /// end of each step, and its average power, W.
    pub fn powers(&self) -> Vec<(f64, f64, f64)> {
        let at = |&(seconds, _): &(f64, f64)| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let kept = gathered(&self.readings, at, LEAST_STEP);
        let steps = kept.windows(2).filter(|pair| pair[1].0 > pair[0].0);
        steps.map(|p| (p[0].0, p[1].0, (p[1].1 - p[0].1) / (p[1].0 - p[0].0))).collect()
    }
}

/// The readings that lie `least` apart or more; what is left at the end belongs to the last step.
fn gathered<P: Copy + PartialEq>(points: &[P], at: impl Fn(&P) -> Duration, least: Duration) -> Vec<P> {
    let mut kept: Vec<P> = vec![];
    for point in points {
        if kept.last().is_none_or(|last| at(point).saturating_sub(at(last)) >= least) {
            kept.push(*point);
        }
    }
    if let Some(end) = points.last().filter(|end| kept.last() != Some(end)) {
        if kept.len() > 1 {
            kept.pop();
        }
        kept.push(*end);
    }
    kept
}

/// Power between consecutive readings, weighted by time; `None` without an interval of positive length.
fn summarise(points: &[(Duration, u64)]) -> Option<PowerSummary> {
    let steps: Vec<(f64, f64)> = points
        .windows(2)
        .map(|pair| {
            let seconds = (pair[1].0 - pair[0].0).as_secs_f64();
            (seconds, (pair[1].1 - pair[0].1) as f64 / 1e6 / seconds)
        })
        .filter(|(seconds, _)| *seconds > 0.0)
        .collect();
    let time: f64 = steps.iter().map(|(seconds, _)| seconds).sum();
    if steps.is_empty() {
        return None;
    }
    let mean = steps.iter().map(|(seconds, watts)| seconds * watts).sum::<f64>() / time;
    let variance = steps.iter().map(|(seconds, watts)| seconds * (watts - mean).powi(2)).sum::<f64>() / time;
    Some(PowerSummary {
        n: steps.len() as u64,
        min_w: steps.iter().map(|s| s.1).fold(f64::INFINITY, f64::min),
        mean_w: mean,
        max_w: steps.iter().map(|s| s.1).fold(0.0, f64::max),
        sd_w: variance.sqrt(),
    })
}

/// Readings of a process and of the one after it, which starts at `offset` (s, J); thinned as one.
pub(crate) fn joined(earlier: &Samples, later: &Samples, offset: (f64, f64)) -> Samples {
    let mut readings = earlier.readings.clone();
    readings.extend(later.readings.iter().map(|(t, e)| (t + offset.0, e + offset.1)));
    let mut interval_s = earlier.interval_s.max(later.interval_s);
    while readings.len() > CAPACITY {
        let last = readings.last().copied();
        readings = readings.into_iter().step_by(2).collect();
        // The end stays, whatever is left out before it.
        readings.extend(last.filter(|last| readings.last() != Some(last)));
        interval_s *= 2.0;
    }
    let powers = [(earlier, &earlier.power), (later, &later.power)];
    let powers = powers.map(|(samples, power)| power.map(|power| (span(samples), power)));
    let power = match powers {
        [Some(a), Some(b)] => Some(pooled(a, b)),
        [one, other] => one.or(other).map(|(_, power)| power),
    };
    Samples { taken: earlier.taken.saturating_add(later.taken), interval_s, readings, power }
}

/// Seconds from the first reading kept to the last.
fn span(samples: &Samples) -> f64 {
    let at = |reading: Option<&(f64, f64)>| reading.map_or(0.0, |(t, _)| *t);
    at(samples.readings.last()) - at(samples.readings.first())
}

/// The spread of two spans of time together: variance within each and between their means.
fn pooled((a_s, a): (f64, PowerSummary), (b_s, b): (f64, PowerSummary)) -> PowerSummary {
    let share = if a_s + b_s > 0.0 { b_s / (a_s + b_s) } else { 0.5 };
    let mean = a.mean_w + share * (b.mean_w - a.mean_w);
    let spread = |p: PowerSummary| p.sd_w.powi(2) + (p.mean_w - mean).powi(2);
    PowerSummary {
        n: a.n.saturating_add(b.n),
        min_w: a.min_w.min(b.min_w),
        mean_w: mean,
        max_w: a.max_w.max(b.max_w),
        sd_w: ((1.0 - share) * spread(a) + share * spread(b)).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_seconds_stays_bounded_even_and_complete() {
        let mut series = Series::new(Duration::from_secs(1), Duration::ZERO);
        for second in 0..86_400u64 {
            series.offer(Duration::from_secs(second), second * 5_000_000);
        }
        let samples = series.finish(Duration::from_secs(86_400), 86_400 * 5_000_000, 86_401);
        assert!((CAPACITY / 2..=CAPACITY + 1).contains(&samples.readings.len()));
        assert_eq!(samples.readings[0], (0.0, 0.0));
        assert_eq!(*samples.readings.last().unwrap(), (86_400.0, 432_000.0));
        let gaps: Vec<f64> = samples.readings.windows(2).map(|p| p[1].0 - p[0].0).collect();
        assert!(gaps[..gaps.len() - 1].iter().all(|g| *g == samples.interval_s), "even spacing");
        let power = samples.power.unwrap();
        assert!((power.mean_w - 5.0).abs() < 1e-9 && power.sd_w < 1e-9);
    }

    #[test]
    fn power_is_energy_over_time_not_a_mean_of_samples() {
        let mut series = Series::new(Duration::from_secs(1), Duration::ZERO);
        series.offer(Duration::ZERO, 0);
        series.offer(Duration::from_secs(9), 9_000_000);
        let power = series.finish(Duration::from_secs(10), 20_000_000, 3).power.unwrap();
        assert_eq!((power.n, power.min_w, power.max_w), (2, 1.0, 11.0));
        assert!((power.mean_w - 2.0).abs() < 1e-12, "20 J in 10 s");
    }

    #[test]
    fn a_counter_that_moves_in_steps_has_no_peaks_of_its_own() {
        // 50 W, read every 10 ms, from a counter that is renewed every 100 ms; the end lies just after a renewal.
        let mut series = Series::new(Duration::from_millis(10), Duration::from_millis(1000));
        for reading in 0..501 {
            series.offer(Duration::from_millis(10 * reading), reading / 10 * 5_000_000);
        }
        let power = series.finish(Duration::from_millis(5011), 250_000_000, 502).power.unwrap();
        assert!(power.max_w < 1.1 * 50.0 && power.min_w > 0.9 * 50.0, "{power:?}");
        let samples = series.finish(Duration::from_millis(5011), 250_000_000, 502);
        assert!(samples.powers().iter().all(|(from, to, watts)| to - from > 0.09 && *watts < 110.0));
        // A run shorter than that has one step.
        let mut short = Series::new(Duration::from_millis(10), Duration::from_millis(1000));
        short.offer(Duration::ZERO, 0);
        short.offer(Duration::from_millis(10), 5_000_000);
        let power = short.finish(Duration::from_millis(20), 5_000_000, 3).power.unwrap();
        assert_eq!((power.n, power.max_w), (1, 250.0));
    }

    #[test]
    fn a_run_without_duration_has_no_power() {
        let mut series = Series::new(Duration::from_secs(1), Duration::ZERO);
        series.offer(Duration::ZERO, 0);
        assert_eq!(series.finish(Duration::ZERO, 0, 1).power, None);
    }

    #[test]
    fn two_series_are_one_as_if_one_meter_had_taken_both() {
        let run = |seconds: u64, watts: u64| {
            let mut series = Series::new(Duration::from_secs(1), Duration::ZERO);
            (0..seconds).for_each(|s| series.offer(Duration::from_secs(s), s * watts * 1_000_000));
            series.finish(Duration::from_secs(seconds), seconds * watts * 1_000_000, seconds + 1)
        };
        let both = joined(&run(500, 5), &run(1500, 9), (500.0, 2500.0));
        assert!((CAPACITY / 2..=CAPACITY + 1).contains(&both.readings.len()));
        assert_eq!(*both.readings.last().unwrap(), (2000.0, 16_000.0));
        assert!(both.readings.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        let power = both.power.unwrap();
        assert!((power.mean_w - 8.0).abs() < 1e-9, "16 kJ in 2000 s");
        assert!((power.sd_w - 3f64.sqrt()).abs() < 1e-9, "a quarter at 5 W, the rest at 9 W");
        assert_eq!((power.min_w, power.max_w), (5.0, 9.0));
    }
}
