//! Early stopping: training ends when the validation part has not become better for some epochs.

use std::fmt;
use std::str::FromStr;

use wattle_data::error::{Error, Result};

use crate::metric::Metric;
use crate::text::Fields;

/// When to stop, and by what: `5` or `5:metric=accuracy,delta=0.001`.
///
/// The network that was best on the validation part is what the training gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStop {
    /// Epochs without improvement after which training ends; at least 1.
    pub patience: u64,
    /// What is watched on the validation part; `None` for the loss.
    pub metric: Option<Metric>,
    /// An improvement is more than this.
    pub delta: f64,
}

/// The best so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Best {
    /// The watched number and the step after which it was reached.
    pub found: Option<(f64, u64)>,
    /// Epochs since.
    pub waited: u64,
}

impl EarlyStop {
    /// Takes an epoch's number in; returns whether it is the best so far.
    pub fn improves(&self, best: &mut Best, value: f64, step: u64) -> bool {
        let higher = self.metric.is_some_and(Metric::is_higher_better);
        let is_better = match best.found {
            None => !value.is_nan(),
            Some((so_far, _)) if higher => value > so_far + self.delta,
            Some((so_far, _)) => value < so_far - self.delta,
        };
        if is_better {
            *best = Best { found: Some((value, step)), waited: 0 };
        } else {
            best.waited += 1;
        }
        is_better
    }

    /// Whether it is time to stop.
    pub fn is_over(&self, best: &Best) -> bool {
        best.waited >= self.patience
    }
}

impl fmt::Display for EarlyStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.patience)?;
        let metric = self.metric.map(|metric| format!("metric={metric}"));
        let delta = (self.delta != 0.0).then(|| format!("delta={}", self.delta));
        let fields: Vec<String> = [metric, delta].into_iter().flatten().collect();
        if fields.is_empty() { Ok(()) } else { write!(f, ":{}", fields.join(",")) }
    }
}

crate::text::as_text!(EarlyStop);

impl FromStr for EarlyStop {
    type Err = Error;

    fn from_str(text: &str) -> Result<EarlyStop> {
        let mut fields = Fields::of("early stopping", text)?;
        let patience = fields.name.parse().ok().filter(|&n: &u64| n > 0);
        let patience = patience.ok_or_else(|| {
            fields.refuse("no number of epochs").expected("epochs to wait, such as 5 or 5:metric=accuracy")
        })?;
        let metric = fields.text("metric").map(|name| name.parse()).transpose()?;
        let delta = fields.number("delta", "a number from 0 up", |d: &f64| d.is_finite() && *d >= 0.0)?;
        fields.finish("metric or delta")?;
        Ok(EarlyStop { patience, metric, delta: delta.unwrap_or(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_after_so_many_epochs_without_improvement() {
        let run = |text: &str, values: &[f64]| {
            let stop: EarlyStop = text.parse().unwrap();
            let mut best = Best::default();
            for (epoch, &value) in values.iter().enumerate() {
                stop.improves(&mut best, value, epoch as u64);
                if stop.is_over(&best) {
                    return (epoch, best.found.map_or(0, |b| b.1));
                }
            }
            (values.len(), best.found.map_or(0, |b| b.1))
        };
        assert_eq!(run("2", &[3.0, 2.0, 2.5, 2.0, 1.0]), (3, 1));
        assert_eq!(run("2", &[3.0, 2.0, 2.5, 1.9, 2.0]), (5, 3));
        assert_eq!(run("1:metric=accuracy", &[0.5, 0.6, 0.6]), (2, 1));
        assert_eq!(run("1:metric=accuracy,delta=0.2", &[0.5, 0.6, 0.9]), (1, 0));
        assert_eq!(run("1", &[f64::NAN, 1.0]).0, 0);
    }

    #[test]
    fn texts_survive_a_round_trip() {
        for text in ["5", "5:metric=mean-iou", "3:metric=rmse,delta=0.01"] {
            assert_eq!(text.parse::<EarlyStop>().unwrap().to_string(), text);
        }
        for text in ["0", "", "x", "5:metric=x", "5:delta=-1", "5:y=1"] {
            assert!(text.parse::<EarlyStop>().is_err(), "{text}");
        }
    }
}
