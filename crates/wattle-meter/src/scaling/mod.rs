//! How error falls with computation, and what a lower error would take: regressions in both directions, with
//! intervals, and a refusal where the data show no trend.
//!
//! The two forms of Thompson et al. 2020 regress performance on computation and read the line backwards; that and
//! the other direction (computation on performance) can differ by ten decades, so both are reported. The third
//! form has a floor that computation does not get below.

mod cost;
mod floor;
mod line;
mod points;
mod student;

use serde::Serialize;

pub use cost::{Cost, Hardware, Projected};
use floor::Curve;
pub use line::{Interval, Line};
pub use points::{Point, PointsError, read};

/// The shape of the relation between error and computation C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `log10(1/error) = a + b log10 C`.
    Power,
    /// `1/error = a + b log10 C`.
    Exponential,
    /// `error = floor + scale C^-exponent`.
    PowerLawWithFloor,
}

/// A fit that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} usable points with {distinct} different amounts of computation; expected at least {needed} points that \
     differ in computation and, for a floor, errors that fall with it"
)]
pub struct FitError {
    found: usize,
    distinct: usize,
    needed: usize,
}

/// Why a fit is not extended to a target.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The data do not show that computation helps.
    #[error(
        "no projection: the 95 % interval of the slope, {low:.4} to {high:.4}, contains zero, so these points do not \
         show that computation lowers the error"
    )]
    NoTrend {
        /// Lower end of the slope's interval.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// More computation goes with more error.
    #[error("no projection: the slope is {slope:.4}, more computation goes with more error in these points")]
    WrongWay {
        /// The slope.
        slope: f64,
    },
    /// The target is at or below the floor.
    #[error(
        "no projection: the error {target} is not above the fitted floor {floor:.5}, which no computation passes"
    )]
    BelowFloor {
        /// The error asked for.
        target: f64,
        /// The floor.
        floor: f64,
    },
}

/// A fitted relation.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    form: Form,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Lines { forward: Line, reverse: Option<Line> },
    Floor(Curve),
}

/// Computation that a target error takes, as log10 GFLOP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Projection {
    /// The error asked for.
    pub target_error: f64,
    /// Performance regressed on computation, read backwards.
    pub log10_gflop: Interval,
    /// Computation regressed on performance; absent for the form with a floor.
    pub reverse_log10_gflop: Option<Interval>,
}

/// A fit in numbers, for reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The form.
    pub form: Form,
    /// Performance on computation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Line>,
    /// Computation on performance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse: Option<Line>,
    /// How fast the error falls: with `C^-exponent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponent: Option<Interval>,
    /// `1/exponent`: `C` grows with this power of `1/error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_of_inverse_error: Option<Interval>,
    /// The floor, for the form that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Interval>,
    /// Share of the variance explained.
    pub r2: f64,
}

impl Fit {
    /// Fits points.
    ///
    /// # Errors
    /// [`FitError`] for too few points or none that differ in computation.
    pub fn new(points: &[Point], form: Form) -> Result<Fit, FitError> {
        let error = |needed| {
            let mut amounts: Vec<f64> = points.iter().map(|p| p.compute_gflop).collect();
            amounts.sort_by(f64::total_cmp);
            amounts.dedup();
            FitError { found: points.len(), distinct: amounts.len(), needed }
        };
        let log = |p: &Point| p.compute_gflop.log10();
        let shape = match form {
            Form::PowerLawWithFloor => {
                let pairs: Vec<_> = points.iter().map(|p| (log(p), p.performance_error)).collect();
                Shape::Floor(Curve::fit(&pairs).ok_or_else(|| error(4))?)
            }
            _ => {
                let pairs: Vec<_> =
                    points.iter().map(|p| (log(p), performance(form, p.performance_error))).collect();
                let swapped: Vec<_> = pairs.iter().map(|p| (p.1, p.0)).collect();
                let forward = Line::fit(&pairs).ok_or_else(|| error(3))?;
                Shape::Lines { forward, reverse: Line::fit(&swapped) }
            }
        };
        Ok(Fit { form, shape })
    }

    /// The computation that `target_error` takes.
    ///
    /// # Errors
    /// [`Refusal`] where the slope's 95 % interval contains zero, or the target is not above the floor.
    pub fn project(&self, target_error: f64) -> Result<Projection, Refusal> {
        match &self.shape {
            Shape::Lines { forward, reverse } => {
                falling(&forward.slope)?;
                let y = performance(self.form, target_error);
                let Interval { low, high, .. } = forward.slope;
                Ok(Projection {
                    target_error,
                    log10_gflop: forward.reaches(y).ok_or(Refusal::NoTrend { low, high })?,
                    reverse_log10_gflop: reverse.map(|line| line.at(y)),
                })
            }
            Shape::Floor(curve) => {
                falling(&curve.exponent())?;
                let floor = curve.floor().value;
                let found = curve.reaches(target_error);
                Ok(Projection {
                    target_error,
                    log10_gflop: found.ok_or(Refusal::BelowFloor { target: target_error, floor })?,
                    reverse_log10_gflop: None,
                })
            }
        }
    }

    /// The fitted error at `log10 GFLOP`; `None` where the form gives none.
    pub fn error_at(&self, log10_gflop: f64) -> Option<f64> {
        match (&self.shape, self.form) {
            (Shape::Floor(curve), _) => Some(curve.at(log10_gflop)),
            (Shape::Lines { forward, .. }, Form::Power) => Some(10f64.powf(-forward.at(log10_gflop).value)),
            (Shape::Lines { forward, .. }, _) => {
                let inverse = forward.at(log10_gflop).value;
                (inverse > 0.0).then(|| 1.0 / inverse)
            }
        }
    }

    /// The fit in numbers.
    pub fn summary(&self) -> Summary {
        match &self.shape {
            Shape::Lines { forward, reverse } => {
                let power =
                    (self.form == Form::Power && !forward.slope.contains(0.0)).then_some(forward.slope);
                Summary {
                    form: self.form,
                    forward: Some(*forward),
                    reverse: *reverse,
                    exponent: (self.form == Form::Power).then_some(forward.slope),
                    power_of_inverse_error: power.map(inverted),
                    floor: None,
                    r2: forward.r2,
                }
            }
            Shape::Floor(curve) => Summary {
                form: self.form,
                forward: None,
                reverse: None,
                exponent: Some(curve.exponent()),
                power_of_inverse_error: (!curve.exponent().contains(0.0)).then(|| inverted(curve.exponent())),
                floor: Some(curve.floor()),
                r2: curve.r2,
            },
        }
    }

    /// The two lines as (intercept, slope), for comparison with published coefficients; `None` with a floor.
    pub fn line(&self) -> Option<(f64, f64)> {
        match &self.shape {
            Shape::Lines { forward, .. } => Some((forward.intercept, forward.slope.value)),
            Shape::Floor(_) => None,
        }
    }
}

fn performance(form: Form, error: f64) -> f64 {
    if form == Form::Exponential { 1.0 / error } else { (1.0 / error).log10() }
}

fn falling(slope: &Interval) -> Result<(), Refusal> {
    if slope.contains(0.0) {
        Err(Refusal::NoTrend { low: slope.low, high: slope.high })
    } else if slope.value < 0.0 {
        Err(Refusal::WrongWay { slope: slope.value })
    } else {
        Ok(())
    }
}

/// One over an interval that does not contain zero.
fn inverted(x: Interval) -> Interval {
    Interval { value: 1.0 / x.value, low: 1.0 / x.high, high: 1.0 / x.low }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(pairs: &[(f64, f64)]) -> Vec<Point> {
        let point = |&(performance_error, compute_gflop)| Point {
            performance_error,
            compute_gflop,
            year: None,
            model: None,
        };
        pairs.iter().map(point).collect()
    }

    /// error = 2 C^-0.1 with a wobble.
    fn trend() -> Vec<Point> {
        let pairs: Vec<(f64, f64)> = (0..12)
            .map(|i| {
                let c = 10f64.powf(8.0 + 0.5 * f64::from(i));
                (2.0 * c.powf(-0.1) * (1.0 + 0.05 * f64::from(i * 5 % 7 - 3)), c)
            })
            .collect();
        points(&pairs)
    }

    #[test]
    fn a_power_law_is_found_and_projected_in_both_directions() {
        let fit = Fit::new(&trend(), Form::Power).unwrap();
        let summary = fit.summary();
        assert!(summary.exponent.unwrap().contains(0.1), "{summary:?}");
        assert!(summary.power_of_inverse_error.unwrap().contains(10.0));
        let projection = fit.project(0.02).unwrap();
        // 0.02 = 2 C^-0.1 at C = 1e20.
        assert!(projection.log10_gflop.contains(20.0), "{projection:?}");
        let reverse = projection.reverse_log10_gflop.unwrap();
        assert!(reverse.value < projection.log10_gflop.value, "regression to the mean pulls it inwards");
    }

    #[test]
    fn no_projection_without_a_trend() {
        let flat = points(&[(0.70, 1e9), (0.72, 1e10), (0.69, 3e10), (0.73, 2e11), (0.70, 1e12)]);
        for form in [Form::Power, Form::Exponential] {
            let refusal = Fit::new(&flat, form).unwrap().project(0.3).unwrap_err();
            assert!(
                matches!(refusal, Refusal::NoTrend { low, high } if low < 0.0 && high > 0.0),
                "{refusal}"
            );
        }
        let rising = points(&[(0.1, 1e9), (0.2, 1e10), (0.41, 1e11), (0.79, 1e12)]);
        let refusal = Fit::new(&rising, Form::Power).unwrap().project(0.05).unwrap_err();
        assert!(matches!(refusal, Refusal::WrongWay { .. }), "{refusal}");
    }

    #[test]
    fn a_floor_refuses_targets_below_it() {
        let pairs: Vec<(f64, f64)> = (0..14)
            .map(|i| {
                let c = 10f64.powf(f64::from(i));
                (0.1 + 0.5 * c.powf(-0.2) * (1.0 + 0.01 * f64::from(i * 3 % 5 - 2)), c)
            })
            .collect();
        let fit = Fit::new(&points(&pairs), Form::PowerLawWithFloor).unwrap();
        assert!(fit.summary().floor.unwrap().contains(0.1));
        assert!(matches!(fit.project(0.09), Err(Refusal::BelowFloor { .. })));
        assert!(fit.project(0.12).unwrap().log10_gflop.value > 5.0);
    }

    #[test]
    fn too_few_points_are_refused_with_what_is_needed() {
        let error = Fit::new(&points(&[(0.5, 1e9), (0.4, 1e9), (0.3, 1e9)]), Form::Power).unwrap_err();
        assert!(error.to_string().contains("1 different"), "{error}");
        assert!(Fit::new(&points(&[(0.5, 1e9), (0.4, 1e10), (0.3, 1e11)]), Form::PowerLawWithFloor).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_intervals_are_ordered(
            pairs in prop::collection::vec((1e-6..1.0f64, 1.0..1e30f64), 0..20),
            target in 1e-9..1.0f64,
        ) {
            for form in [Form::Power, Form::Exponential, Form::PowerLawWithFloor] {
                let Ok(fit) = Fit::new(&points(&pairs), form) else { continue };
                if let Ok(Projection { log10_gflop: x, .. }) = fit.project(target) {
                    prop_assert!(x.low <= x.value + 1e-6 * x.value.abs() && x.value <= x.high + 1e-6 * x.value.abs());
                }
            }
        }
    }
}
