//! Metrics: how good answers are, in terms that people use; which fit an objective, and their names.

use std::fmt;
use std::str::FromStr;

use wattle_data::error::{Error, Result};

use crate::objective::Kind;

/// How good answers are. Classes are those with the highest score (the first of equals); a yes is a score above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Share of right answers, 0 to 1: of labelled positions, or of all yes-or-no answers.
    Accuracy,
    /// Share of labelled positions whose class is among the k with the highest scores, 0 to 1.
    Top(usize),
    /// Mean over the classes that occur, as label or as answer, of intersection over union, 0 to 1 (Jaccard 1912).
    MeanIou,
    /// The exponential of the mean negative log-likelihood of the labels in nats; from 1 up, lower is better.
    Perplexity,
    /// `2 TP / (2 TP + FP + FN)`, 0 to 1: of class 1 where there are two, over all answers of yes or no together.
    F1,
    /// The mean of F1 over the classes that occur, as label or as answer, or over the outputs of yes or no.
    MacroF1,
    /// Share of samples without any wrong answer, 0 to 1.
    ExactMatch,
    /// The coefficient of determination: 1 minus the squared errors over the squared deviations from the mean of the
    /// targets, a mean over outputs; 1 at best. Of an output whose targets are all equal it is 1 without errors, else 0.
    R2,
    /// Mean absolute error, in the targets' unit.
    MeanAbsoluteError,
    /// Root of the mean squared error over all numbers, in the targets' unit.
    RootMeanSquaredError,
}

impl Metric {
    /// Whether more is better.
    pub fn is_higher_better(self) -> bool {
        !matches!(self, Metric::Perplexity | Metric::MeanAbsoluteError | Metric::RootMeanSquaredError)
    }

    /// Whether it is a share, from 0 to 1, of which people speak in percent.
    pub fn is_share(self) -> bool {
        use Metric::*;
        matches!(self, Accuracy | Top(_) | MeanIou | F1 | MacroF1 | ExactMatch)
    }

    /// Whether it can be told of such answers.
    pub fn fits(self, kind: Kind) -> bool {
        use Metric::*;
        match kind {
            Kind::Classes { .. } => {
                matches!(self, Accuracy | Top(_) | MeanIou | Perplexity | F1 | MacroF1 | ExactMatch)
            }
            Kind::Binary => matches!(self, Accuracy | F1 | MacroF1 | ExactMatch),
            Kind::Values => matches!(self, R2 | MeanAbsoluteError | RootMeanSquaredError),
        }
    }

    /// What is told of such answers where nothing is chosen; the first is the one that counts. `rank` is that of the
    /// output: four axes are pixels, three are tokens.
    pub fn of(kind: Kind, rank: usize) -> Vec<Metric> {
        match kind {
            Kind::Classes { .. } if rank >= 4 => vec![Metric::MeanIou, Metric::Accuracy],
            Kind::Classes { .. } if rank == 3 => vec![Metric::Accuracy, Metric::Perplexity],
            Kind::Classes { .. } => vec![Metric::Accuracy],
            Kind::Binary => vec![Metric::F1, Metric::Accuracy],
            Kind::Values => vec![Metric::R2, Metric::MeanAbsoluteError, Metric::RootMeanSquaredError],
        }
    }

    /// An error where it cannot be told of such answers.
    pub fn check(self, kind: Option<Kind>) -> Result<()> {
        let what = match kind {
            Some(kind) if self.fits(kind) => return Ok(()),
            Some(Kind::Classes { .. }) => "classes",
            Some(Kind::Binary) => "answers of yes or no",
            Some(Kind::Values) => "numbers",
            None => "nothing that can be compared with targets",
        };
        Err(Error::input(format_args!("metric `{self}`"), format_args!("the objective judges {what}"))
            .expected("a metric of the same, or none for the usual one"))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Accuracy => f.write_str("accuracy"),
            Metric::Top(k) => write!(f, "top-{k}"),
            Metric::MeanIou => f.write_str("mean-iou"),
            Metric::Perplexity => f.write_str("perplexity"),
            Metric::F1 => f.write_str("f1"),
            Metric::MacroF1 => f.write_str("macro-f1"),
            Metric::ExactMatch => f.write_str("exact-match"),
            Metric::R2 => f.write_str("r2"),
            Metric::MeanAbsoluteError => f.write_str("mae"),
            Metric::RootMeanSquaredError => f.write_str("rmse"),
        }
    }
}

crate::text::as_text!(Metric);

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Metric> {
        let top = text.strip_prefix("top-").and_then(|k| k.parse().ok()).filter(|&k: &usize| k > 0);
        Ok(match text {
            "accuracy" => Metric::Accuracy,
            "mean-iou" => Metric::MeanIou,
            "perplexity" => Metric::Perplexity,
            "f1" => Metric::F1,
            "macro-f1" => Metric::MacroF1,
            "exact-match" => Metric::ExactMatch,
            "r2" => Metric::R2,
            "mae" => Metric::MeanAbsoluteError,
            "rmse" => Metric::RootMeanSquaredError,
            _ => Metric::Top(top.ok_or_else(|| {
                Error::input(format_args!("metric `{text}`"), "not a metric").expected(
                    "accuracy, top-5, mean-iou, perplexity, f1, macro-f1, exact-match, r2, mae or rmse",
                )
            })?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip_and_others_are_refused() {
        let names = "accuracy top-5 mean-iou perplexity f1 macro-f1 exact-match r2 mae rmse";
        for name in names.split(' ') {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for name in ["top-0", "top-", "top-x", "F1", ""] {
            assert!(name.parse::<Metric>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_metric_of_other_answers_is_refused() {
        let classes = Kind::Classes { axis: 1, ignored: None };
        assert!(Metric::Accuracy.check(Some(classes)).is_ok());
        let error = Metric::R2.check(Some(classes)).unwrap_err().to_string();
        assert!(error.contains("`r2`") && error.contains("classes"), "{error}");
        assert!(Metric::Accuracy.check(None).is_err());
        for kind in [classes, Kind::Binary, Kind::Values] {
            assert!(Metric::of(kind, 4).into_iter().all(|metric| metric.fits(kind)));
        }
    }
}
