//! Strubell et al. 2019: `kWh = 1.58 t (p_c + p_r + g p_g) / 1000`, `lb = 0.954 kWh`, dollars by GPU-hour.

use serde::Deserialize;

use super::{Figure, exact, product, rounded};
use crate::Unit;
use crate::table::rows;

const TABLE: &str = include_str!("../../data/published/strubell2019.csv");

/// Grams in a pound.
const POUND: f64 = 453.592_37;

#[derive(Deserialize)]
struct Row {
    model: String,
    hardware: String,
    gpus: String,
    watts: String,
    hours: String,
    kwh: String,
    lb: String,
    usd_low: String,
    usd_high: String,
    note: String,
}

pub(super) fn figures() -> Vec<Figure> {
    let pue = exact("1.58", Unit::One);
    let mut figures = vec![];
    for row in rows::<Row>("strubell2019.csv", TABLE) {
        let hours = rounded(&row.hours, Unit::Hour);
        // The paper's W are the sum over processor, memory and all GPUs.
        let joules = product(&[&rounded(&row.watts, Unit::Watt), &hours, &pue]);
        let kwh = joules.to(Unit::KilowattHour).expect("an energy");
        let grid = exact("0.954", Unit::GramCo2ePerKilowattHour).scaled(POUND).expect("finite");
        let grams = product(&[&kwh, &grid]);
        let named = |what: &str| format!("{}: {what}", row.model);
        let figure = Figure::new(named("energy"), ("kWh", 1.0), &row.kwh, &kwh).by("1.58 x h x W / 1000");
        figures.push(figure.recalled(true).note(&row.note));
        let figure =
            Figure::new(named("carbon"), ("lb CO2e", 1.0 / POUND), &row.lb, &grams).by("0.954 lb x kWh");
        figures.push(figure.note(&row.note));
        let (low, high) = if row.hardware == "P100" { ("0.43", "1.46") } else { ("0.74", "2.48") };
        let gpus = exact(&row.gpus, Unit::One);
        for (price, printed, what) in
            [(low, &row.usd_low, "rent, lowest"), (high, &row.usd_high, "rent, highest")]
        {
            let rent = product(&[&hours, &exact(price, Unit::UsdPerHour), &gpus]);
            let formula = match price {
                "0.43" => "h x GPUs x 0.43 (P100, preemptible)",
                "1.46" => "h x GPUs x 1.46 (P100, on demand)",
                "0.74" => "h x GPUs x 0.74 (V100, preemptible)",
                _ => "h x GPUs x 2.48 (V100, on demand)",
            };
            figures.push(Figure::new(named(what), ("USD", 1.0), printed, &rent).by(formula).note(&row.note));
        }
    }
    figures.extend(beside_the_table());
    figures
}

/// What the text derives from the table.
fn beside_the_table() -> [Figure; 5] {
    let search = exact("626155", Unit::One).scaled(POUND).expect("finite");
    let cars = exact("626155", Unit::One).ratio(&exact("126000", Unit::One)).expect("not zero");
    let steps = exact("979", Unit::One).ratio(&exact("0.3", Unit::One)).expect("not zero");
    let hours = exact("239942", Unit::Hour);
    let rent = |price| product(&[&hours, &exact(price, Unit::UsdPerHour)]);
    [
        Figure::new(
            "Architecture search: hours",
            ("h", 1.0),
            "274,120",
            &product(&[&steps, &exact("84", Unit::Hour)]),
        )
        .by("979 M steps / 0.3 M x 84 h")
        .recalled(true),
        Figure::new("Architecture search: in cars", ("cars", 1.0), "5", &cars)
            .by("626,155 lb / 126,000 lb of a car's life with fuel")
            .note(&format!("{:.0} t; the actual search emitted 3.2 t", search.value() * 1e-6)),
        Figure::new(
            "Research and development: GPU-days",
            ("d", 1.0),
            "9,998",
            &hours.to(Unit::Day).expect("a time"),
        )
        .by("239,942 h / 24"),
        Figure::new("Research and development: rent, lowest", ("kUSD", 1e-3), "103", &rent("0.43"))
            .by("239,942 h x 0.43")
            .recalled(true),
        Figure::new("Research and development: rent, highest", ("kUSD", 1e-3), "350", &rent("1.46"))
            .by("239,942 h x 1.46")
            .recalled(true),
    ]
}
