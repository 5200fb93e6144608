//! Thompson et al. 2020: powers of ten of computation that lower errors would take, by two regressions.
//!
//! Performance is regressed on the logarithm of computation C (GFLOP of hardware burden) and the line is then
//! read backwards: `log10(1/error) = a + b log10 C` ("polynomial") and `1/error = a + b log10 C` ("exponential").

use serde::Deserialize;

use super::Figure;
use crate::table::rows;
use crate::{Quantity, Source, Unit};

const TABLE: &str = include_str!("../../data/published/thompson2020.csv");

#[derive(Deserialize)]
struct Row {
    benchmark: String,
    file: String,
    points: usize,
    a_power: f64,
    b_power: f64,
    a_exponential: f64,
    b_exponential: f64,
    errors: String,
    power: String,
    exponential: String,
}

/// A benchmark of the paper: which file of points it needs, and which errors the paper projects to.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    /// Its name.
    pub name: String,
    /// File name of its points below the folder that a person gives.
    pub file: String,
    /// How many points the coefficients that we ship were fitted to.
    pub points: usize,
    /// Errors: today's, and two targets.
    pub errors: Vec<f64>,
    /// The printed exponents of the polynomial form.
    pub power: Vec<String>,
    /// The printed exponents of the exponential form.
    pub exponential: Vec<String>,
    /// Intercept and slope of the polynomial and of the exponential form.
    lines: [(f64, f64); 2],
}

impl Benchmark {
    /// The figures of this benchmark with these two lines (intercept, slope) instead of the shipped ones.
    pub fn figures(&self, lines: [(f64, f64); 2]) -> Vec<Figure> {
        let mut figures = vec![];
        let forms = [
            ("polynomial", &self.power, "(log10(1/error) - a) / b"),
            ("exponential", &self.exponential, "(1/error - a) / b"),
        ];
        for ((form, printed, formula), (a, b)) in forms.into_iter().zip(lines) {
            for (error, printed) in self.errors.iter().zip(printed) {
                let y = if form == "polynomial" { (1.0 / error).log10() } else { 1.0 / error };
                let source =
                    Source::published("points behind the paper, as published with computerprogress.com");
                let exponent =
                    Quantity::exact((y - a) / b, Unit::One, source).expect("the slope is not zero");
                let percent = (error * 1e5).round() / 1e3;
                let what = format!("{}: {form}, error {percent} %", self.name);
                let figure = Figure::new(what, ("log10 GFLOP", 1.0), printed, &exponent);
                figures.push(figure.by(formula).truncated().recalled(true));
            }
        }
        figures
    }
}

/// The five benchmarks that have a trend.
pub fn benchmarks() -> Vec<Benchmark> {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    rows::<Row>("thompson2020.csv", TABLE)
        .into_iter()
        .map(|row| Benchmark {
            name: row.benchmark,
            file: row.file,
            points: row.points,
            errors: words(&row.errors).iter().map(|e| e.parse().expect("a test reads it")).collect(),
            power: words(&row.power),
            exponential: words(&row.exponential),
            lines: [(row.a_power, row.b_power), (row.a_exponential, row.b_exponential)],
        })
        .collect()
}

pub(super) fn figures() -> Vec<Figure> {
    benchmarks().iter().flat_map(|b| b.figures(b.lines)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::Verdict;

    #[test]
    fn all_thirty_exponents_are_the_printed_floors() {
        let figures = figures();
        assert_eq!(figures.len(), 30);
        for figure in &figures {
            assert_eq!(figure.verdict(), Verdict::Agrees, "{figure:?}");
        }
        assert_eq!(figures[0].what, "ImageNet: polynomial, error 11.5 %");
        assert_eq!(figures[1].what, "ImageNet: polynomial, error 5 %");
        assert!(figures.iter().any(|f| f.what.ends_with("error 4.621 %")));
    }
}
