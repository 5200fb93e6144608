//! Learning-rate schedules: what fraction of the base rate each iteration uses.
//!
//! | text | meaning |
//! |---|---|
//! | `constant` | 1 |
//! | `step:80ep,120ep:0.1` | times gamma at each milestone |
//! | `cosine`, `cosine:0.01` | half a cosine from 1 down to a floor (default 0) at the end of the run |
//! | `linear`, `linear:0.01` | a straight line from 1 down to a floor at the end of the run |
//! | `inverse-sqrt:4000it` | linear up to 1 at 4000 iterations, then falling with 1/sqrt(iteration) |
//! | `...+warmup:5ep` | any of the first four, after a linear warm-up |

use std::fmt;
use std::str::FromStr;

use crate::moment::{Moment, Timeline};
use wattle_data::error::{Error, Result};

/// A learning-rate schedule, independent of the base rate and of the length of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Length of the linear warm-up; `Moment::ZERO` for none.
    pub warmup: Moment,
    /// What happens to the rate otherwise.
    pub shape: Course,
}

/// The course of the rate.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// Always the base rate.
    Constant,
    /// Multiplied by `gamma` at each milestone (counted from the start of the run, warm-up included).
    Milestones {
        /// When; ascending once resolved.
        at: Vec<Moment>,
        /// By what.
        gamma: f64,
    },
    /// Half a cosine without restarts (Loshchilov and Hutter 2017, "SGDR", equation 5) over what follows the warm-up.
    Cosine {
        /// The fraction reached at the end of the run.
        floor: f64,
    },
    /// A straight line over what follows the warm-up.
    Linear {
        /// The fraction reached at the end of the run.
        floor: f64,
    },
    /// Vaswani et al. 2017, "Attention is all you need", equation 3, scaled to peak at 1:
    /// min(t / peak, sqrt(peak / t)) for the t-th iteration, counted from 1.
    InverseSqrt {
        /// Where the peak lies.
        peak: Moment,
    },
}

impl Schedule {
    /// The base rate throughout.
    pub const CONSTANT: Schedule = Schedule { warmup: Moment::ZERO, shape: Course::Constant };

    /// The fraction of the base rate for an iteration counted from 0. During a warm-up of w iterations it is
    /// (iteration + 1) / w of the schedule's own value (Goyal et al. 2017, section 2.2).
    pub fn factor(&self, iteration: u64, timeline: &Timeline) -> f64 {
        let warmup = self.warmup.resolve(timeline);
        let ramp = if iteration < warmup { (iteration + 1) as f64 / warmup as f64 } else { 1.0 };
        ramp * self.shape.factor(iteration, warmup, timeline)
    }

    /// Refuses a schedule that does not fit the run: milestones out of order, or a warm-up longer than the run.
    pub fn check(&self, timeline: &Timeline) -> Result<()> {
        let misfit = |what: String| {
            let total = timeline.total;
            Err(Error::input(format_args!("schedule `{self}`"), what)
                .expected(format_args!("a schedule that fits a run of {total} iterations"))
                .remedy("train longer or move the points of the schedule"))
        };
        let warmup = self.warmup.resolve(timeline);
        if warmup > timeline.total {
            return misfit(format!("the warm-up takes {warmup} iterations"));
        }
        if let Course::Milestones { at, .. } = &self.shape {
            let points: Vec<u64> = at.iter().map(|step| step.resolve(timeline)).collect();
            if !points.is_sorted_by(|a, b| a < b) {
                return misfit(format!("the milestones fall on iterations {points:?}, which do not ascend"));
            }
        }
        Ok(())
    }
}

impl Course {
    fn factor(&self, iteration: u64, warmup: u64, timeline: &Timeline) -> f64 {
        let progress = || {
            let length = timeline.total.saturating_sub(warmup);
            let done = iteration.saturating_sub(warmup).min(length);
            if length == 0 { 0.0 } else { done as f64 / length as f64 }
        };
        match self {
            Course::Constant => 1.0,
            Course::Milestones { at, gamma } => at
                .iter()
                .filter(|milestone| iteration >= milestone.resolve(timeline))
                .fold(1.0, |product, _| product * gamma),
            Course::Cosine { floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress()).cos())
            }
            Course::Linear { floor } => floor + (1.0 - floor) * (1.0 - progress()),
            Course::InverseSqrt { peak } => {
                let peak = peak.resolve(timeline).max(1) as f64;
                let now = (iteration + 1) as f64;
                (now / peak).min((peak / now).sqrt())
            }
        }
    }
}

crate::text::as_text!(Schedule);

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (shape, warmup) = match text.split_once("+warmup:") {
            Some((shape, warmup)) => (shape, warmup.parse::<Moment>()?),
            None => (text, Moment::ZERO),
        };
        let (name, argument) = match shape.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (shape, None),
        };
        let shape = match (name, argument) {
            ("constant", None) => Course::Constant,
            ("step", Some(argument)) => milestones(text, argument)?,
            ("cosine", floor) => Course::Cosine { floor: floor.map_or(Ok(0.0), |f| fraction(text, f))? },
            ("linear", floor) => Course::Linear { floor: floor.map_or(Ok(0.0), |f| fraction(text, f))? },
            ("inverse-sqrt", Some(_)) if warmup != Moment::ZERO => {
                return Err(Error::input(
                    format_args!("schedule `{text}`"),
                    "inverse-sqrt brings its own warm-up",
                )
                .remedy(
                    "leave `+warmup:...` out; the number after `inverse-sqrt:` is the length of the warm-up",
                ));
            }
            ("inverse-sqrt", Some(peak)) => Course::InverseSqrt { peak: peak.parse()? },
            _ => return Err(unknown(text)),
        };
        Ok(Schedule { warmup, shape })
    }
}

fn milestones(text: &str, argument: &str) -> Result<Course> {
    let (at, gamma) = argument.rsplit_once(':').ok_or_else(|| unknown(text))?;
    let at = at.split(',').map(str::parse).collect::<Result<Vec<Moment>>>()?;
    Ok(Course::Milestones { at, gamma: fraction(text, gamma)? })
}

fn fraction(text: &str, number: &str) -> Result<f64> {
    number.parse::<f64>().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or_else(|| {
        Error::input(format_args!("schedule `{text}`"), format_args!("`{number}` is not a factor"))
            .expected("a number from 0 to 1")
    })
}

fn unknown(text: &str) -> Error {
    Error::input(format_args!("schedule `{text}`"), "not a schedule").expected(
        "constant, step:80ep,120ep:0.1, cosine, linear or inverse-sqrt:4000it, the first four optionally with +warmup:5ep",
    )
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Course::Constant => write!(f, "constant")?,
            Course::Milestones { at, gamma } => {
                let at: Vec<String> = at.iter().map(Moment::to_string).collect();
                write!(f, "step:{}:{gamma}", at.join(","))?;
            }
            Course::Cosine { floor: 0.0 } => write!(f, "cosine")?,
            Course::Cosine { floor } => write!(f, "cosine:{floor}")?,
            Course::Linear { floor: 0.0 } => write!(f, "linear")?,
            Course::Linear { floor } => write!(f, "linear:{floor}")?,
            Course::InverseSqrt { peak } => write!(f, "inverse-sqrt:{peak}")?,
        }
        if self.warmup == Moment::ZERO { Ok(()) } else { write!(f, "+warmup:{}", self.warmup) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_EPOCHS: Timeline = Timeline { iterations_per_epoch: 10, total: 100 };

    fn factors(text: &str, at: &[u64]) -> Vec<f64> {
        let schedule: Schedule = text.parse().unwrap();
        at.iter().map(|&t| (schedule.factor(t, &TEN_EPOCHS) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn each_shape_takes_its_textbook_values() {
        assert_eq!(factors("constant", &[0, 99]), [1.0, 1.0]);
        assert_eq!(factors("step:8ep,90it:0.1", &[79, 80, 89, 90]), [1.0, 0.1, 0.1, 0.01]);
        assert_eq!(factors("cosine", &[0, 50, 100]), [1.0, 0.5, 0.0]);
        assert_eq!(factors("linear:0.2", &[0, 50, 100]), [1.0, 0.6, 0.2]);
        assert_eq!(factors("inverse-sqrt:25it", &[0, 24, 99]), [0.04, 1.0, 0.5]);
    }

    #[test]
    fn warm_up_rises_linearly_and_then_the_rest_of_the_run_decays() {
        assert_eq!(factors("constant+warmup:4it", &[0, 1, 3, 4]), [0.25, 0.5, 1.0, 1.0]);
        assert_eq!(factors("cosine+warmup:2ep", &[9, 20, 60, 100]), [0.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn text_survives_a_round_trip() {
        for text in [
            "constant",
            "step:80ep,120ep:0.1",
            "cosine",
            "cosine:0.05+warmup:5ep",
            "linear+warmup:2%",
            "inverse-sqrt:4000it",
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert_eq!("cosine:0+warmup:0ep".parse::<Schedule>().unwrap().to_string(), "cosine");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "cos",
            "step",
            "step:80ep",
            "step::0.1",
            "step:80ep:2",
            "cosine:-1",
            "inverse-sqrt",
            "inverse-sqrt:10it+warmup:5it",
            "constant:1",
            "cosine+warmup:5",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_that_does_not_fit_the_run_is_refused() {
        assert!("step:8ep,5ep:0.1".parse::<Schedule>().unwrap().check(&TEN_EPOCHS).is_err());
        assert!("cosine+warmup:11ep".parse::<Schedule>().unwrap().check(&TEN_EPOCHS).is_err());
        assert!("cosine+warmup:5ep".parse::<Schedule>().unwrap().check(&TEN_EPOCHS).is_ok());
    }
}
