//! How error falls with computation: the fit in words, what targets would take, and the picture.

use wattle_meter::Quantity;
use wattle_meter::scaling::{Cost, Fit, Interval, Line, Point, Projected, Summary};

use crate::number;
use crate::plot::Plot;
use crate::report::Report;
use crate::scale::Axis;
use crate::table::{Align, Table};

/// The fit of so many points in words, and a table of what targets would take.
pub fn text(points: usize, fit: &Summary, projections: &[Projected]) -> String {
    let mut text = format!("{points} points, R2 {:.3}\n", fit.r2);
    let line = |name: &str, line: &Line| {
        format!(
            "{name}: intercept {:.4} ± {:.4}, slope {:.4} ± {:.4}, 95 % interval of the slope {:.4} to {:.4}\n",
            line.intercept,
            line.intercept_se,
            line.slope.value,
            line.slope_se,
            line.slope.low,
            line.slope.high
        )
    };
    if let Some(forward) = &fit.forward {
        text += &line("performance on log10 computation", forward);
    }
    if let Some(reverse) = &fit.reverse {
        text += &line("log10 computation on performance", reverse);
    }
    if let Some(floor) = &fit.floor {
        text += &format!("floor {} of the error\n", interval(floor));
    }
    if let Some(exponent) = &fit.exponent {
        text += &format!("error falls with computation to the power of -{}\n", interval(exponent));
    }
    if let Some(power) = &fit.power_of_inverse_error {
        text += &format!("computation grows with 1/error to the power of {}\n", interval(power));
    }
    if projections.is_empty() {
        return text;
    }
    let mut table = Table::new([
        ("target error", Align::Right),
        ("GFLOP", Align::Left),
        ("other direction", Align::Left),
        ("energy", Align::Left),
        ("carbon", Align::Left),
        ("money", Align::Left),
    ]);
    let mut refusals = String::new();
    for p in projections {
        if let Some(refusal) = &p.refused {
            refusals += &format!("error {}: {refusal}\n", p.target_error);
            continue;
        }
        let exponent = |x: Option<Interval>| x.map_or(String::new(), |x| format!("10^{}", tenths(&x)));
        let cost = |pick: fn(&Cost) -> Option<&Quantity>| {
            p.cost.as_ref().and_then(pick).map_or(String::new(), number::quantity)
        };
        table.row([
            p.target_error.to_string(),
            exponent(p.log10_gflop),
            exponent(p.reverse_log10_gflop),
            cost(|c| c.energy_kwh.as_ref()),
            cost(|c| c.co2e_kg.as_ref()),
            cost(|c| c.cost_usd.as_ref()),
        ]);
    }
    if !table.is_empty() {
        text += &format!("\n{table}");
        text += "Extrapolated: read the intervals, and the other direction beside them.\n";
    }
    text + &refusals
}

fn interval(x: &Interval) -> String {
    format!("{} [{}, {}]", number::plain(x.value), number::plain(x.low), number::plain(x.high))
}

fn tenths(x: &Interval) -> String {
    format!("{:.1} [{:.1}, {:.1}]", x.value, x.low, x.high)
}

/// A page with the points, the fitted curve and its continuation; `name` says where the points come from.
pub fn page(name: &str, points: &[Point], fit: &Fit, projections: &[Projected]) -> String {
    let observed = points.iter().map(|p| (p.compute_gflop, p.performance_error));
    let logs = || points.iter().map(|p| p.compute_gflop.log10());
    let (low, high) = logs().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let far = projections.iter().filter_map(|p| p.log10_gflop.map(|x| x.value)).fold(high, f64::max);
    let curve = (0..=60).filter_map(|i| {
        let x = low + (far.min(high + 12.0) - low) * f64::from(i) / 60.0;
        Some((10f64.powf(x), fit.error_at(x)?))
    });
    let plot = Plot::new("Error against computation", Axis::log("computation (GFLOP)"), Axis::log("error"))
        .scatter("points", observed)
        .line("fit", curve);
    let caption = "Regression of performance on computation; beyond the points it is an extrapolation.";
    let mut report = Report::new("wattle scaling fit", name)
        .section("Fit")
        .figure(&plot.to_svg(), caption)
        .details("In numbers", &text(points.len(), &fit.summary(), projections));
    for refusal in projections.iter().filter_map(|p| p.refused.as_ref()) {
        report = report.note(refusal);
    }
    let mut table = Table::new([
        ("model", Align::Left),
        ("year", Align::Right),
        ("error", Align::Right),
        ("GFLOP", Align::Right),
    ]);
    for p in points {
        table.row([
            p.model.clone().unwrap_or_default(),
            p.year.map_or(String::new(), |y| y.to_string()),
            p.performance_error.to_string(),
            number::plain(p.compute_gflop),
        ]);
    }
    report.section("Points").table(&table).to_html()
}
