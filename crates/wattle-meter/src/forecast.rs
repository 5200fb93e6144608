//! What a run of known length will have cost in all, after some of its epochs.
//!
//! The remaining epochs are taken to cost what recent ones did: the mean of the last sixteen, the first epoch left out
//! once there are three, for it warms caches up. What disturbs a machine (other programs, clocks, heat) lasts for
//! seconds, so epochs shorter than that are not independent draws. With `r` epochs to a disturbance the mean of `n`
//! epochs has the variance `s^2 min(1, r / n)`; the interval is `t(n-1)` times the root of that of the `n` seen and of
//! the `m` to come, at 90 %. It is never less than 5 % of the remainder, nor than one part in `n`, since a few epochs
//! say little about the next disturbance. `tests/forecasts.rs` judges all this by real trainings.

use std::time::Duration;

use crate::{Quantity, Source, Unit};

/// Epochs that the mean looks back on.
const WINDOW: usize = 16;
/// Drift that no sample of past epochs shows, as a share of the remainder.
const DRIFT: f64 = 0.05;
/// After a single epoch the rest may cost half or twice as much.
const AFTER_ONE: f64 = 0.5;
/// How long what disturbs a machine lasts, s.
const DISTURBANCE: f64 = 3.0;

/// Where the run stood when an epoch ended, since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Time.
    pub elapsed: Duration,
    /// Energy, J.
    pub joules: f64,
}

/// The totals expected at the end of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Epochs seen.
    pub after: usize,
    /// Duration in all, s.
    pub duration: Quantity,
    /// Energy in all, J.
    pub energy: Quantity,
}

impl Forecast {
    /// From the ends of the epochs so far; `None` before the first.
    pub fn of(ends: &[Progress], epochs: usize) -> Option<Forecast> {
        let last = ends.last()?;
        let seconds: Vec<f64> = ends.iter().map(|p| p.elapsed.as_secs_f64()).collect();
        let joules: Vec<f64> = ends.iter().map(|p| p.joules).collect();
        let more = epochs.saturating_sub(ends.len());
        let duration = last.elapsed.as_secs_f64() / ends.len() as f64;
        let disturbed = 1.0 + 2.0 * DISTURBANCE / duration.max(1e-6);
        let total = |ends: &[f64], so_far: f64, unit| {
            let (value, half) = remainder(ends, more, disturbed);
            let low = so_far + (value - half).max(0.0);
            let source = Source::modelled(format!("recent-epochs/2 after {}", ends.len()));
            Quantity::new(so_far + value, low, so_far + value + half, unit, source).ok()
        };
        Some(Forecast {
            after: ends.len(),
            duration: total(&seconds, last.elapsed.as_secs_f64(), Unit::Second)?,
            energy: total(&joules, last.joules, Unit::Joule)?,
        })
    }
}

/// Expected cost of `more` epochs and half the width of its interval, from cumulative costs at the ends of epochs, of
/// which `disturbed` share a disturbance.
fn remainder(ends: &[f64], more: usize, disturbed: f64) -> (f64, f64) {
    let costs: Vec<f64> = std::iter::once(0.0).chain(ends.iter().copied()).collect();
    let costs: Vec<f64> = costs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let warm = if costs.len() >= 3 { &costs[1..] } else { &costs[..] };
    let recent = &warm[warm.len().saturating_sub(WINDOW)..];
    let (n, m) = (recent.len() as f64, more as f64);
    let mean = recent.iter().sum::<f64>() / n;
    let floor = (1.0 / n).clamp(DRIFT, AFTER_ONE) * m * mean;
    if recent.len() == 1 || more == 0 {
        return (m * mean, floor);
    }
    let variance = recent.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let of_means = variance * ((disturbed / n).min(1.0) + (disturbed / m).min(1.0));
    (m * mean, (student(recent.len() - 1) * m * of_means.sqrt()).max(floor))
}

/// The 95 % quantile of Student's t, so that 90 % lie between its two signs.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; WINDOW - 1] = [
        6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761,
        1.753,
    ];
    QUANTILES[freedom.clamp(1, QUANTILES.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(costs: &[f64]) -> Vec<Progress> {
        let mut joules = 0.0;
        let mut end = |cost: &f64| {
            joules += cost;
            Progress { elapsed: Duration::from_secs_f64(joules / 10.0), joules }
        };
        costs.iter().map(&mut end).collect()
    }

    #[test]
    fn a_steady_run_is_forecast_exactly_and_a_finished_one_is_known() {
        let forecast = Forecast::of(&run(&[5.0; 20]), 40).unwrap();
        assert!((forecast.energy.value() - 200.0).abs() < 1e-9);
        assert!(forecast.energy.contains(195.0) && !forecast.energy.contains(193.0), "1/16 of the remainder");
        assert!((forecast.duration.value() - 20.0).abs() < 1e-9);
        let done = Forecast::of(&run(&[5.0; 10]), 10).unwrap();
        assert_eq!((done.energy.low(), done.energy.high()), (50.0, 50.0));
    }

    #[test]
    fn a_slow_first_epoch_is_not_taken_for_the_rule() {
        let forecast = Forecast::of(&run(&[20.0, 5.0, 5.0, 5.0]), 10).unwrap();
        assert!((forecast.energy.value() - 65.0).abs() < 1e-9, "{forecast:?}");
    }

    #[test]
    fn nothing_is_forecast_from_nothing_and_little_from_one_epoch() {
        assert_eq!(Forecast::of(&[], 10), None);
        let forecast = Forecast::of(&run(&[5.0]), 10).unwrap();
        assert!(forecast.energy.contains(30.0) && forecast.energy.contains(70.0));
    }

    #[test]
    fn on_independent_epochs_the_interval_holds_at_least_what_it_promises() {
        // xorshift64 (Marsaglia 2003); epochs of 10 J with uniform noise of +-20 %.
        let mut state = 88_172_645_463_325_252u64;
        let mut epoch = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            10.0 * (0.8 + 0.4 * (state as f64 / u64::MAX as f64))
        };
        let covered = (0..2000)
            .filter(|_| {
                let costs: Vec<f64> = (0..30).map(|_| epoch()).collect();
                let forecast = Forecast::of(&run(&costs[..6]), 30).unwrap();
                forecast.energy.contains(costs.iter().sum())
            })
            .count();
        assert!(covered >= 1800, "{covered} of 2000");
    }
}
