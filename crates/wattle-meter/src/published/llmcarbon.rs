//! LLMCarbon: operations `6 N D`, achieved rate, efficiency, and embodied carbon by area or capacity.

use serde::Deserialize;

use super::{Figure, TONNES, Verdict, exact, product, rounded};
use crate::table::rows;
use crate::{Quantity, Unit};

const TABLE: &str = include_str!("../../data/published/llmcarbon.csv");
const EMBODIED: &str = include_str!("../../data/published/llmcarbon_embodied.csv");

#[derive(Deserialize)]
struct Row {
    model: String,
    active_params_b: String,
    tokens_b: String,
    peak_tflops: String,
    achieved_tflops: String,
    efficiency: String,
    devices: String,
    zettaflops: String,
    days: String,
    watts: String,
    pue: String,
    t_per_mwh: String,
    tonnes: String,
}

#[derive(Deserialize)]
struct Part {
    part: String,
    amount: String,
    per: String,
    kg_each: String,
    kg: String,
}

pub(super) fn figures() -> Vec<Figure> {
    let mut figures = vec![];
    for row in rows::<Row>("llmcarbon.csv", TABLE) {
        let named = |what: &str| format!("{}: {what}", row.model);
        let flops = six_n_d(&row);
        let figure = Figure::new(named("operations"), ("ZFLOP", 1e-21), &row.zettaflops, &flops);
        figures.push(explained(
            figure.by("6 x active parameters x tokens"),
            "their sum counts attention or experts apart",
        ));

        let time = rounded(&row.days, Unit::Day).to(Unit::Second).expect("a time");
        let device_time = product(&[&time, &exact(&row.devices, Unit::One)]);
        let stated = of_unit(&rounded(&row.zettaflops, Unit::One), 1e21, Unit::Flop);
        let rate = stated.ratio(&device_time).expect("not zero");
        let figure = Figure::new(named("achieved rate"), ("TFLOP/s", 1e-12), &row.achieved_tflops, &rate);
        let note = "1,000 chips are 1,024 in Patterson's table, with which it agrees";
        figures.push(explained(figure.by("operations / (devices x days)"), note));

        let achieved = rounded(&row.achieved_tflops, Unit::One);
        let share = achieved.ratio(&exact(&row.peak_tflops, Unit::One)).expect("not zero");
        let figure = Figure::new(named("efficiency"), ("of peak", 1.0), &row.efficiency, &share);
        figures.push(figure.by("achieved / peak"));
        figures.push(forward(&row, &flops));
    }
    for part in rows::<Part>("llmcarbon_embodied.csv", EMBODIED) {
        let kilograms = product(&[&exact(&part.amount, Unit::One), &exact(&part.kg_each, Unit::One)]);
        let what = format!("{}: embodied, {} {}", part.part, part.amount, part.per);
        figures.push(Figure::new(what, ("kg CO2e", 1.0), &part.kg, &kilograms).by("amount x kg each"));
    }
    figures
}

fn six_n_d(row: &Row) -> Quantity {
    let pairs = product(&[&rounded(&row.active_params_b, Unit::One), &exact(&row.tokens_b, Unit::One)]);
    of_unit(&pairs, 6e18, Unit::Flop)
}

/// The same number, scaled and under the unit that it stands for.
fn of_unit(number: &Quantity, factor: f64, unit: Unit) -> Quantity {
    let [low, value, high] = [number.low(), number.value(), number.high()].map(|x| x * factor);
    Quantity::new(value, low, high, unit, number.source().clone()).expect("ordered and finite")
}

/// The estimate before the run: time from operations, peak and efficiency, then energy and carbon, beside what the
/// run is reported to have emitted.
fn forward(row: &Row, flops: &Quantity) -> Figure {
    let peak = of_unit(&exact(&row.peak_tflops, Unit::One), 1e12, Unit::FlopPerSecond);
    let rate = product(&[&peak, &rounded(&row.efficiency, Unit::One)]);
    let time = flops.ratio(&rate).expect("not zero");
    let joules = product(&[&rounded(&row.watts, Unit::Watt), &time, &rounded(&row.pue, Unit::One)]);
    let intensity = rounded(&row.t_per_mwh, Unit::GramCo2ePerKilowattHour).scaled(1000.0).expect("finite");
    let grams = product(&[&joules, &intensity]);
    let figure = Figure::new(format!("{}: carbon, forward", row.model), TONNES, &row.tonnes, &grams);
    let figure = figure.by("6 N D / (peak x efficiency) x W x PUE x t/MWh");
    let note = format!("an estimate, {:+.1} % from what is reported", 100.0 * figure.deviation());
    figure.note(&note)
}

/// A remark that only matters where the figure differs.
fn explained(figure: Figure, note: &str) -> Figure {
    if figure.verdict() == Verdict::Differs { figure.note(note) } else { figure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_estimates_miss_the_reports_by_what_the_reference_found() {
        let found = figures();
        let deviation = |model: &str| {
            let name = format!("{model}: carbon, forward");
            100.0 * found.iter().find(|f| f.what == name).unwrap().deviation()
        };
        for (model, percent) in [("T5", -2.1), ("GPT-3", 0.2), ("GShard", 3.3), ("Switch", 7.9)] {
            assert!((deviation(model) - percent).abs() < 0.06, "{model}: {}", deviation(model));
        }
    }
}
