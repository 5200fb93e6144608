//! What networks are compared by, and how much of it may be lost.

use std::fmt;

use serde::{Serialize, Serializer};
use wattle_train::evaluation::Evaluation;
use wattle_train::metric::Metric;

/// A number that says how good a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The metric that counts: the first that was asked for, or the usual one.
    Metric(Metric),
    /// The loss, where answers are compared with nothing: a loss that the model computes, a teacher's answers.
    Loss,
}

impl Criterion {
    /// What an evaluation is judged by.
    pub fn of(found: &Evaluation) -> Criterion {
        found.chief.map_or(Criterion::Loss, Criterion::Metric)
    }

    /// Its value in an evaluation by the same objective and metrics; NaN in another.
    pub fn value(self, found: &Evaluation) -> f64 {
        match self {
            Criterion::Metric(metric) => found.metrics.get(&metric.to_string()).copied().unwrap_or(f64::NAN),
            Criterion::Loss => found.loss,
        }
    }

    /// Whether more is better.
    pub fn is_higher_better(self) -> bool {
        matches!(self, Criterion::Metric(metric) if metric.is_higher_better())
    }

    /// Whether it is a share, from 0 to 1.
    pub fn is_share(self) -> bool {
        matches!(self, Criterion::Metric(metric) if metric.is_share())
    }

    /// What a tolerance of 1 allows to lose.
    pub fn unit(self) -> &'static str {
        match self.is_share() {
            true => "points of 100",
            false => "percent of the dense network's",
        }
    }

    /// Whether `value` is at most `tolerance` worse than `dense`: points of 100 of a share, percent of the dense value of
    /// anything else. A value that is no number is not.
    pub fn is_within(self, value: f64, dense: f64, tolerance: f64) -> bool {
        let scale = if self.is_share() { 1.0 } else { dense.abs() };
        let worse = if self.is_higher_better() { dense - value } else { value - dense };
        // A slack far below one sample absorbs rounding.
        worse <= (tolerance / 100.0 + 1e-9) * scale
    }

    /// A value as people read it.
    pub fn shown(self, value: f64) -> String {
        if self.is_share() { format!("{:.2} %", 100.0 * value) } else { format!("{value:.4}") }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Criterion::Metric(metric) => metric.fmt(f),
            Criterion::Loss => f.write_str("loss"),
        }
    }
}

impl Serialize for Criterion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_points_of_a_share_and_percent_of_anything_else() {
        let accuracy = Criterion::Metric(Metric::Accuracy);
        assert!(accuracy.is_within(0.89, 0.9, 1.0) && !accuracy.is_within(0.8899, 0.9, 1.0));
        assert!(accuracy.is_within(0.95, 0.9, 0.0), "better is never too bad");
        assert!(Criterion::Loss.is_within(2.02, 2.0, 1.0) && !Criterion::Loss.is_within(2.03, 2.0, 1.0));
        assert!(Criterion::Loss.is_within(1.0, 2.0, 0.0));
        let r2 = Criterion::Metric(Metric::R2);
        assert!(r2.is_within(0.495, 0.5, 1.0) && !r2.is_within(0.49, 0.5, 1.0));
        assert!(r2.is_within(-0.505, -0.5, 1.0) && !r2.is_within(-0.51, -0.5, 1.0), "percent of its size");
        let perplexity = Criterion::Metric(Metric::Perplexity);
        assert!(!perplexity.is_higher_better() && !perplexity.is_within(f64::NAN, 3.0, 100.0));
        assert_eq!((accuracy.shown(0.5), Criterion::Loss.shown(0.5)), ("50.00 %".into(), "0.5000".into()));
    }
}
