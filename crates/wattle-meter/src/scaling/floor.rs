//! The power law with a floor, `error = floor + scale C^-exponent`, by least squares on the logarithm of the error.

use super::line::{CONFIDENCE, Interval, Line};
use super::student;

/// A fitted curve. Its parameters are `[floor, ln scale, exponent]`, with C in decades: `scale 10^(-exponent log10 C)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    parameters: [f64; 3],
    /// Covariance of the parameters, linearised at the optimum.
    covariance: [[f64; 3]; 3],
    t: f64,
    pub r2: f64,
    pub residual_sd: f64,
}

/// Natural logarithms in a decade.
const DECADE: f64 = std::f64::consts::LN_10;

impl Curve {
    /// Fits `(log10 C, error)`; `None` for fewer than four points, no spread, or no decreasing curve.
    pub fn fit(points: &[(f64, f64)]) -> Option<Curve> {
        let n = points.len();
        let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        if n < 4 {
            return None;
        }
        // A floor given, the rest is a line; so the floor is scanned and the best start is refined.
        let start = (0..40).filter_map(|i| {
            let floor = least * f64::from(i) / 40.0;
            let shifted: Vec<_> = points.iter().map(|p| (p.0, (p.1 - floor).ln())).collect();
            let line = Line::fit(&shifted)?;
            let parameters = [floor, line.intercept, -line.slope.value / DECADE];
            Some((squares(points, &parameters), parameters))
        });
        let (_, start) = start.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let parameters = refine(points, start, least);
        if parameters[2] <= 0.0 {
            return None;
        }
        let freedom = n - 3;
        let sum = squares(points, &parameters);
        let variance = sum / freedom as f64;
        let covariance = inverse(&normal(points, &parameters, 0.0).0)?.map(|row| row.map(|x| x * variance));
        let mean = points.iter().map(|p| p.1.ln()).sum::<f64>() / n as f64;
        let total: f64 = points.iter().map(|p| (p.1.ln() - mean).powi(2)).sum();
        Some(Curve {
            parameters,
            covariance,
            t: student::two_sided(CONFIDENCE, freedom),
            r2: 1.0 - sum / total.max(f64::MIN_POSITIVE),
            residual_sd: variance.sqrt(),
        })
    }

    /// Error that no computation gets below.
    pub fn floor(&self) -> Interval {
        self.around(self.parameters[0], self.covariance[0][0])
    }

    /// How fast the error above the floor falls: `C^-exponent`.
    pub fn exponent(&self) -> Interval {
        self.around(self.parameters[2], self.covariance[2][2])
    }

    /// The error at `log10 C`.
    pub fn at(&self, x: f64) -> f64 {
        model(x, &self.parameters)
    }

    /// `log10 C` at which the error is `error`, with the interval that follows from the covariance to first order;
    /// `None` at or below the floor.
    pub fn reaches(&self, error: f64) -> Option<Interval> {
        let [floor, ln_scale, exponent] = self.parameters;
        let above = error - floor;
        if above <= 0.0 {
            return None;
        }
        let value = (ln_scale - above.ln()) / (exponent * DECADE);
        let gradient = [1.0 / (above * exponent * DECADE), 1.0 / (exponent * DECADE), -value / exponent];
        let variance: f64 = (0..3)
            .flat_map(|i| (0..3).map(move |j| (i, j)))
            .map(|(i, j)| gradient[i] * self.covariance[i][j] * gradient[j])
            .sum();
        Some(self.around(value, variance))
    }

    fn around(&self, value: f64, variance: f64) -> Interval {
        let half = self.t * variance.max(0.0).sqrt();
        Interval { value, low: value - half, high: value + half }
    }
}

fn model(x: f64, [floor, ln_scale, exponent]: &[f64; 3]) -> f64 {
    floor + (ln_scale - exponent * DECADE * x).exp()
}

/// Sum of squared residuals of the logarithm.
fn squares(points: &[(f64, f64)], parameters: &[f64; 3]) -> f64 {
    points.iter().map(|(x, error)| (error.ln() - model(*x, parameters).ln()).powi(2)).sum()
}

/// `J^T J + damping diag(J^T J)` and `J^T r` of the residuals' linearisation.
fn normal(points: &[(f64, f64)], parameters: &[f64; 3], damping: f64) -> ([[f64; 3]; 3], [f64; 3]) {
    let (mut matrix, mut vector) = ([[0.0; 3]; 3], [0.0; 3]);
    for (x, error) in points {
        let fitted = model(*x, parameters);
        let power = fitted - parameters[0];
        let row = [1.0 / fitted, power / fitted, -power * DECADE * x / fitted];
        let residual = error.ln() - fitted.ln();
        for i in 0..3 {
            vector[i] += row[i] * residual;
            for j in 0..3 {
                matrix[i][j] += row[i] * row[j];
            }
        }
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] *= 1.0 + damping;
    }
    (matrix, vector)
}

/// Levenberg-Marquardt, the floor kept between zero and the least error.
fn refine(points: &[(f64, f64)], start: [f64; 3], least: f64) -> [f64; 3] {
    let (mut best, mut sum, mut damping) = (start, squares(points, &start), 1e-3);
    for _ in 0..500 {
        let (matrix, vector) = normal(points, &best, damping);
        let Some(inverse) = inverse(&matrix) else { break };
        let mut next = best;
        for i in 0..3 {
            next[i] += (0..3).map(|j| inverse[i][j] * vector[j]).sum::<f64>();
        }
        next[0] = next[0].clamp(0.0, least * (1.0 - 1e-9));
        let found = squares(points, &next);
        if found < sum {
            let gain = sum - found;
            (best, sum, damping) = (next, found, (damping * 0.3).max(1e-12));
            if gain < 1e-15 * sum {
                break;
            }
        } else {
            damping *= 4.0;
            if damping > 1e12 {
                break;
            }
        }
    }
    best
}

/// The inverse of a 3 x 3 matrix by cofactors, rows and columns scaled to ones on the diagonal first.
fn inverse(m: &[[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let scale: [f64; 3] = std::array::from_fn(|i| m[i][i].sqrt());
    if scale.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return None;
    }
    let a: [[f64; 3]; 3] = std::array::from_fn(|i| std::array::from_fn(|j| m[i][j] / (scale[i] * scale[j])));
    let minor = |i: usize, j: usize| {
        let (r, c) = ([(i + 1) % 3, (i + 2) % 3], [(j + 1) % 3, (j + 2) % 3]);
        a[r[0]][c[0]] * a[r[1]][c[1]] - a[r[0]][c[1]] * a[r[1]][c[0]]
    };
    let determinant: f64 = (0..3).map(|j| a[0][j] * minor(0, j)).sum();
    (determinant.abs() > 1e-14).then(|| {
        std::array::from_fn(|i| std::array::from_fn(|j| minor(j, i) / (determinant * scale[i] * scale[j])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(floor: f64, scale: f64, exponent: f64, noise: f64) -> Vec<(f64, f64)> {
        (0..16)
            .map(|i| {
                let x = 0.5 * f64::from(i);
                let wobble = 1.0 + noise * f64::from(i * 7 % 5 - 2);
                (x, (floor + scale * 10f64.powf(-exponent * x)) * wobble)
            })
            .collect()
    }

    #[test]
    fn an_exact_curve_is_found_again() {
        let curve = Curve::fit(&points(0.05, 0.6, 0.3, 0.0)).unwrap();
        assert!((curve.floor().value - 0.05).abs() < 1e-7, "{curve:?}");
        assert!((curve.exponent().value - 0.3).abs() < 1e-6);
        assert!((curve.reaches(0.05 + 0.6e-3).unwrap().value - 10.0).abs() < 1e-4);
    }

    #[test]
    fn intervals_hold_the_truth_under_noise_and_widen_with_distance() {
        let curve = Curve::fit(&points(0.05, 0.6, 0.3, 0.01)).unwrap();
        assert!(curve.floor().contains(0.05) && curve.exponent().contains(0.3), "{curve:?}");
        let width = |error| curve.reaches(error).map(|x| x.high - x.low).unwrap();
        assert!(width(0.051) > width(0.1));
    }

    #[test]
    fn below_the_floor_no_computation_suffices() {
        assert_eq!(Curve::fit(&points(0.05, 0.6, 0.3, 0.0)).unwrap().reaches(0.049), None);
    }

    #[test]
    fn without_a_floor_in_the_data_the_floor_is_near_zero() {
        let curve = Curve::fit(&points(0.0, 0.8, 0.2, 0.01)).unwrap();
        assert!(curve.floor().low <= 0.001 && (curve.exponent().value - 0.2).abs() < 0.02, "{curve:?}");
    }
}
