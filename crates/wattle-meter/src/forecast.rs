//! What a run of known length will have cost in all, after some of its epochs.
//!
//! The remaining epochs are taken to cost what recent ones did: the mean of the last eight, the first epoch left out
//! once there are three, for it warms caches up. The interval is the usual prediction interval of a sum of `m` more draws
//! from a sample of `n`, `t(n-1) * s * sqrt(m + m^2 / n)` at 90 %, and never less than 2 % of the remainder, since
//! machines drift. After a single epoch the rest may cost half or twice as much.

use std::time::Duration;

use crate::{Quantity, Source, Unit};

/// Epochs that the mean looks back on.
const WINDOW: usize = 8;
/// Drift that no sample of past epochs shows, as a share of the remainder.
const DRIFT: f64 = 0.02;

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
        let total = |ends: &[f64], so_far: f64, unit| {
            let (value, half) = remainder(ends, more);
            let low = so_far + (value - half).max(0.0);
            let source = Source::modelled(format!("recent-epochs/1 after {}", ends.len()));
            Quantity::new(so_far + value, low, so_far + value + half, unit, source).ok()
        };
        Some(Forecast {
            after: ends.len(),
            duration: total(&seconds, last.elapsed.as_secs_f64(), Unit::Second)?,
            energy: total(&joules, last.joules, Unit::Joule)?,
        })
    }
}

/// Expected cost of `more` epochs and half the width of its interval, from cumulative costs at the ends of epochs.
fn remainder(ends: &[f64], more: usize) -> (f64, f64) {
    let costs: Vec<f64> = std::iter::once(0.0).chain(ends.iter().copied()).collect();
    let costs: Vec<f64> = costs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let warm = if costs.len() >= 3 { &costs[1..] } else { &costs[..] };
    let recent = &warm[warm.len().saturating_sub(WINDOW)..];
    let (n, m) = (recent.len() as f64, more as f64);
    let mean = recent.iter().sum::<f64>() / n;
    if recent.len() == 1 {
        return (m * mean, m * mean * 0.5);
    }
    let variance = recent.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let spread = student(recent.len() - 1) * (variance * (m + m * m / n)).sqrt();
    (m * mean, spread.max(DRIFT * m * mean))
}

/// The 95 % quantile of Student's t, so that 90 % lie between its two signs.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; WINDOW - 1] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895];
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
        let forecast = Forecast::of(&run(&[5.0; 4]), 10).unwrap();
        assert!((forecast.energy.value() - 50.0).abs() < 1e-9);
        assert!(forecast.energy.contains(49.5) && !forecast.energy.contains(48.0));
        assert!((forecast.duration.value() - 5.0).abs() < 1e-9);
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
    fn intervals_cover_what_they_promise_on_noisy_epochs() {
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
        assert!((1700..=1950).contains(&covered), "{covered} of 2000");
    }
}
