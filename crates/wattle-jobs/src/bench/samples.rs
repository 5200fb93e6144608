//! What is said of timed runs.

use serde::Serialize;
use wattle_meter::timing::Times;

use crate::env::Env;

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
    /// What is said of these times.
    pub fn new(times: &Times, env: &Env) -> Summary {
        let quantile = |q| 1e3 * times.quantile(q);
        Summary {
            median_ms: quantile(0.5),
            p10_ms: quantile(0.1),
            p90_ms: quantile(0.9),
            min_ms: 1e3 * times.least(),
            runs: times.turns(),
            threads: env.cpu.threads.count(),
            isa: env.cpu.isa.name(),
            source: "measured:monotonic clock around each run",
            samples_ms: times.seconds().iter().map(|s| 1e3 * s).collect(),
        }
    }
}
