//! Patterson et al. 2021: `MWh = chips x days x 24 x W x PUE / 1e6`, `t = MWh x t/MWh`.

use serde::Deserialize;

use super::{Figure, TONNES, exact, product, rounded};
use crate::Unit;
use crate::table::rows;

const TABLE: &str = include_str!("../../data/published/patterson2021.csv");

#[derive(Deserialize)]
struct Row {
    model: String,
    chip: String,
    chips: String,
    days: String,
    watts: String,
    pue: String,
    t_per_mwh: String,
    mwh: String,
    tonnes: String,
    seen: String,
    note: String,
}

pub(super) fn figures() -> Vec<Figure> {
    let mut figures = vec![];
    for row in rows::<Row>("patterson2021.csv", TABLE) {
        let chips = exact(&row.chips, Unit::One);
        let time = rounded(&row.days, Unit::Day).to(Unit::Second).expect("a time");
        let power = rounded(&row.watts, Unit::Watt);
        let joules = product(&[&power, &chips, &time, &rounded(&row.pue, Unit::One)]);
        // t/MWh is kg/kWh: a thousand grams.
        let intensity =
            rounded(&row.t_per_mwh, Unit::GramCo2ePerKilowattHour).scaled(1000.0).expect("finite");
        let grams = product(&[&joules, &intensity]);
        let recalled = row.seen != "read";
        let model = format!("{} on {} {}", row.model, row.chips, row.chip);
        let energy = joules.to(Unit::KilowattHour).expect("an energy");
        let figure = Figure::new(format!("{model}: energy"), ("MWh", 1e-3), &row.mwh, &energy);
        figures.push(figure.by("chips x days x 24 x W x PUE / 1e6").recalled(recalled));
        let figure = Figure::new(format!("{model}: carbon"), TONNES, &row.tonnes, &grams);
        figures.push(figure.by("MWh x t/MWh").recalled(recalled).note(&row.note));
    }
    figures
}
