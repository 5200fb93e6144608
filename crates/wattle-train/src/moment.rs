//! Points in a training run, written with their unit: `160ep`, `500it`, `3ep20it`, `2%`.

use std::fmt;
use std::str::FromStr;

use wattle_data::error::{Error, Result};

/// A point in a run, not yet tied to the size of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// Whole epochs plus iterations (an iteration is one batch).
    At {
        /// Whole passes over the training part.
        epochs: u64,
        /// Batches after them.
        iterations: u64,
    },
    /// Per cent of the whole run, 0 to 100.
    Percent(f64),
}

/// The length of a run, against which a [`Moment`] becomes a number of iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Batches in one epoch.
    pub iterations_per_epoch: u64,
    /// Batches in the whole run.
    pub total: u64,
}

impl Timeline {
    /// A run of whole epochs.
    pub fn of_epochs(epochs: u64, iterations_per_epoch: u64) -> Self {
        Self { iterations_per_epoch, total: epochs.saturating_mul(iterations_per_epoch) }
    }
}

impl Moment {
    /// The very beginning.
    pub const ZERO: Moment = Moment::At { epochs: 0, iterations: 0 };

    /// The iteration this point stands for (saturating); a percentage is rounded to the nearest iteration.
    pub fn resolve(&self, timeline: &Timeline) -> u64 {
        match *self {
            Moment::At { epochs, iterations } => {
                epochs.saturating_mul(timeline.iterations_per_epoch).saturating_add(iterations)
            }
            Moment::Percent(percent) => (timeline.total as f64 * percent / 100.0).round() as u64,
        }
    }
}

crate::text::as_text!(Moment);

impl FromStr for Moment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::input(format_args!("moment `{text}`"), "not a point in a run")
                .expected("a number with its unit: 160ep, 500it, 3ep20it or 2%")
                .remedy("write `ep` for epochs, `it` for iterations or `%` for a share of the run (0 to 100)")
        })
    }
}

fn parse(text: &str) -> Option<Moment> {
    let text = text.trim();
    if text == "0" {
        return Some(Moment::ZERO);
    }
    if let Some(number) = text.strip_suffix('%') {
        let percent = number.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p))?;
        return Some(Moment::Percent(percent));
    }
    let (epochs, rest) = match text.split_once("ep") {
        Some((epochs, rest)) => (natural(epochs)?, rest),
        None => (0, text),
    };
    let iterations = match rest.strip_suffix("it") {
        Some(iterations) => natural(iterations)?,
        None if rest.is_empty() && !text.is_empty() => 0,
        None => return None,
    };
    Some(Moment::At { epochs, iterations })
}

/// Digits only: `u64::from_str` would also take a sign.
fn natural(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Moment::Percent(percent) => write!(f, "{percent}%"),
            Moment::At { epochs, iterations: 0 } if epochs > 0 => write!(f, "{epochs}ep"),
            Moment::At { epochs: 0, iterations } => write!(f, "{iterations}it"),
            Moment::At { epochs, iterations } => write!(f, "{epochs}ep{iterations}it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_resolve_against_the_timeline() {
        let timeline = Timeline::of_epochs(10, 50);
        for (text, iteration) in
            [("3ep", 150), ("20it", 20), ("3ep20it", 170), ("2%", 10), ("0", 0), ("0it", 0), ("12.5%", 63)]
        {
            assert_eq!(text.parse::<Moment>().unwrap().resolve(&timeline), iteration, "{text}");
        }
    }

    #[test]
    fn steps_print_canonically() {
        for (text, canonical) in
            [("3ep0it", "3ep"), ("0ep7it", "7it"), ("0ep", "0it"), ("2.50%", "2.5%"), ("3ep20it", "3ep20it")]
        {
            assert_eq!(text.parse::<Moment>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn a_number_without_unit_is_refused() {
        for text in [
            "500",
            "",
            "ep",
            "it",
            "-3ep",
            "+3it",
            "3it20ep",
            "101%",
            "nan%",
            "3 ep",
            "1ep2",
            "9999999999999999999999it",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
