//! Quantiles of Student's t distribution.

/// The `t` that a variable of Student's distribution with `freedom` degrees of freedom exceeds in absolute value
/// with probability `1 - confidence`; `freedom` at least 1, `confidence` between 0 and 1.
pub(crate) fn two_sided(confidence: f64, freedom: usize) -> f64 {
    let nu = freedom as f64;
    // P(|T| > t) = I_{nu / (nu + t^2)}(nu / 2, 1 / 2); Abramowitz & Stegun 26.7.1.
    let tail = |t: f64| incomplete_beta(nu / (nu + t * t), nu / 2.0, 0.5);
    let (mut low, mut high) = (0.0, 1.0);
    while tail(high) > 1.0 - confidence {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if tail(middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The regularised incomplete beta function `I_x(a, b)`, by its continued fraction (Abramowitz & Stegun 26.5.8).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let coefficient = |step: u32| {
        let m = f64::from(step / 2);
        if step % 2 == 1 {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        } else {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        }
    };
    // 1 + d1 / (1 + d2 / (1 + ...)) from the inside out; 200 terms are far past double precision for this x.
    let fraction = (1..=200).rev().fold(1.0, |inner, step| 1.0 + coefficient(step) / inner);
    front / fraction
}

/// `ln Gamma(x)` for `x > 0`: Stirling's series after shifting the argument above 10.
fn log_gamma(x: f64) -> f64 {
    if x < 10.0 {
        return log_gamma(x + 1.0) - x.ln();
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (confidence, freedom, t) in [
            (0.95, 1, 12.7062),
            (0.95, 2, 4.302_65),
            (0.95, 11, 2.200_99),
            (0.95, 31, 2.039_51),
            (0.90, 5, 2.015_05),
            (0.99, 10, 3.169_27),
            (0.95, 1000, 1.962_34),
        ] {
            let found = two_sided(confidence, freedom);
            assert!((found / t - 1.0).abs() < 1e-5, "{confidence} {freedom}: {found}, expected {t}");
        }
    }

    #[test]
    fn the_gamma_function_of_whole_and_half_numbers() {
        assert!((log_gamma(5.0) - 24f64.ln()).abs() < 1e-10);
        assert!((log_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-10);
    }
}
