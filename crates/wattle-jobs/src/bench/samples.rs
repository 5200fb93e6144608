//! Timed runs and what is said of them.

use std::time::Instant;

use serde::Serialize;

use crate::env::Env;
use crate::error::Result;

/// Times of runs, in milliseconds, in the order they were taken.
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The quantile `q` (0 to 1) by nearest rank; NaN of nothing.
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.0, q)
    }
}

/// The quantile `q` (0 to 1) by nearest rank; NaN of nothing.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Times `runs` calls after a warm-up of a tenth of them, at least two.
pub fn time(runs: usize, mut call: impl FnMut() -> Result<()>) -> Result<Samples> {
    for _ in 0..(runs / 10).max(2) {
        call()?;
    }
    timed(runs, call)
}

/// Times `runs` calls without a warm-up.
pub fn timed(runs: usize, mut call: impl FnMut() -> Result<()>) -> Result<Samples> {
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        call()?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Samples(samples))
}

/// The result of timing one thing, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Half of the runs are shorter.
    pub median_ms: f64,
    /// A tenth is shorter.
    pub p10_ms: f64,
    /// Nine tenths are shorter.
    pub p90_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// Runs.
    pub runs: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// How times are known.
    pub source: &'static str,
    /// Each run, in the order they were taken.
    pub samples_ms: Vec<f64>,
}

impl Summary {
    /// What is said of these samples.
    pub fn new(samples: Samples, env: &Env) -> Summary {
        Summary {
            median_ms: samples.quantile(0.5),
            p10_ms: samples.quantile(0.1),
            p90_ms: samples.quantile(0.9),
            min_ms: samples.quantile(0.0),
            runs: samples.0.len(),
            threads: env.cpu.threads.count(),
            isa: env.cpu.isa.name(),
            source: "measured:monotonic clock around each run",
            samples_ms: samples.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let samples = Samples(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!([0.0, 0.25, 0.5, 0.9, 1.0].map(|q| samples.quantile(q)), [1.0, 1.0, 2.0, 4.0, 4.0]);
        assert!(Samples(vec![]).quantile(0.5).is_nan());
    }
}
