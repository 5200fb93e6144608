//! A straight line through points by least squares, with what can be said about its slope and about reading it
//! backwards.

use serde::Serialize;

use super::student;

/// Of every interval here.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The best single number.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `x` lies in it.
    pub fn contains(&self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }
}

/// `y = intercept + slope x`, by ordinary least squares: errors are in y alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    /// Points.
    pub n: usize,
    /// Value at 0.
    pub intercept: f64,
    /// Standard error of the intercept.
    pub intercept_se: f64,
    /// Rise per unit of x, with its interval by Student's t.
    pub slope: Interval,
    /// Standard error of the slope.
    pub slope_se: f64,
    /// Share of the variance explained.
    pub r2: f64,
    /// Standard deviation of the residuals (n - 2 degrees of freedom).
    pub residual_sd: f64,
    #[serde(skip)]
    mean: (f64, f64),
    #[serde(skip)]
    spread: f64,
    #[serde(skip)]
    t: f64,
}

impl Line {
    /// Fits a line; `None` for fewer than three points, or when all have the same x or any is not finite.
    pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
        let n = points.len();
        if n < 3 || points.iter().any(|p| !p.0.is_finite() || !p.1.is_finite()) {
            return None;
        }
        let count = n as f64;
        let mean = (
            points.iter().map(|p| p.0).sum::<f64>() / count,
            points.iter().map(|p| p.1).sum::<f64>() / count,
        );
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in points {
            let (dx, dy) = (x - mean.0, y - mean.1);
            (xx, xy, yy) = (xx + dx * dx, xy + dx * dy, yy + dy * dy);
        }
        if xx <= 1e-18 * (1.0 + mean.0 * mean.0) {
            return None;
        }
        let slope = xy / xx;
        let residual_sd = ((yy - slope * xy).max(0.0) / (count - 2.0)).sqrt();
        let slope_se = residual_sd / xx.sqrt();
        let t = student::two_sided(CONFIDENCE, n - 2);
        Some(Line {
            n,
            intercept: mean.1 - slope * mean.0,
            intercept_se: residual_sd * (1.0 / count + mean.0 * mean.0 / xx).sqrt(),
            slope: Interval { value: slope, low: slope - t * slope_se, high: slope + t * slope_se },
            slope_se,
            r2: if yy > 0.0 { slope * xy / yy } else { 0.0 },
            residual_sd,
            mean,
            spread: xx,
            t,
        })
    }

    /// The line at `x`, with the interval of the line (not of a single further point).
    pub fn at(&self, x: f64) -> Interval {
        let value = self.intercept + self.slope.value * x;
        let off = x - self.mean.0;
        let half = self.t * self.residual_sd * (1.0 / self.n as f64 + off * off / self.spread).sqrt();
        Interval { value, low: value - half, high: value + half }
    }

    /// Where the line reaches `y`, with Fieller's interval: all x at which the line's own interval contains `y`.
    /// `None` when the slope's interval contains zero, for then that set is unbounded.
    pub fn reaches(&self, y: f64) -> Option<Interval> {
        if self.slope.contains(0.0) {
            return None;
        }
        // (D + b u)^2 <= t^2 s^2 (1/n + u^2/Sxx) with u = x - mean, D = mean - y.
        let (b, d) = (self.slope.value, self.mean.1 - y);
        let g = (self.t * self.slope_se).powi(2);
        let least = (self.t * self.residual_sd).powi(2) / self.n as f64;
        let width = b * b - g;
        let root = (g * d * d + width * least).max(0.0).sqrt();
        let at = |sign: f64| self.mean.0 + (-b * d + sign * root) / width;
        Some(Interval { value: self.mean.0 - d / b, low: at(-1.0), high: at(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_exact_points_is_found_exactly() {
        let points: Vec<(f64, f64)> = (0..6).map(|i| (f64::from(i), 2.0 - 0.5 * f64::from(i))).collect();
        let line = Line::fit(&points).unwrap();
        assert!((line.intercept - 2.0).abs() < 1e-12 && (line.slope.value + 0.5).abs() < 1e-12);
        assert!((line.r2 - 1.0).abs() < 1e-12 && line.slope_se < 1e-7);
        assert!((line.reaches(-8.0).unwrap().value - 20.0).abs() < 1e-6);
    }

    #[test]
    fn standard_errors_are_those_of_a_worked_example() {
        // Anscombe's first data set: y = 3.0001 + 0.5001 x, se 1.1247 and 0.1179, R2 0.6665, s 1.2366.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let line = Line::fit(&x.into_iter().zip(y).collect::<Vec<_>>()).unwrap();
        for (found, expected) in [
            (line.intercept, 3.0001),
            (line.slope.value, 0.5001),
            (line.intercept_se, 1.1247),
            (line.slope_se, 0.1179),
            (line.r2, 0.6665),
            (line.residual_sd, 1.2366),
        ] {
            assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        }
    }

    #[test]
    fn the_backward_interval_is_where_the_lines_interval_holds_the_value() {
        let points = [(0.0, 0.1), (1.0, 0.9), (2.0, 2.2), (3.0, 2.8), (4.0, 4.1)];
        let line = Line::fit(&points).unwrap();
        let reach = line.reaches(6.0).unwrap();
        assert!((line.at(reach.low).high - 6.0).abs() < 1e-9, "{reach:?}");
        assert!((line.at(reach.high).low - 6.0).abs() < 1e-9);
        assert!(reach.low < reach.value && reach.value < reach.high);
    }

    #[test]
    fn no_trend_no_backward_reading() {
        let line = Line::fit(&[(0.0, 1.0), (1.0, -1.0), (2.0, 1.1), (3.0, -0.9)]).unwrap();
        assert_eq!(line.reaches(3.0), None);
    }

    #[test]
    fn too_few_points_or_no_spread_is_no_line() {
        assert_eq!(Line::fit(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Line::fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(Line::fit(&[(1.0, 1.0), (f64::NAN, 2.0), (2.0, 3.0)]), None);
    }
}
