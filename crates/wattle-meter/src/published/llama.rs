//! LLaMA and Llama 2: `MWh = GPU-h x W x 1.1 / 1e6`, `t = MWh x 0.385`.

use serde::Deserialize;

use super::{Figure, TONNES, Verdict, exact, product};
use crate::table::rows;
use crate::{Quantity, Unit};

const TABLE: &str = include_str!("../../data/published/llama.csv");

#[derive(Deserialize)]
struct Row {
    model: String,
    gpu_hours: String,
    watts: String,
    mwh: String,
    tonnes: String,
    paper: String,
}

pub(super) fn figures() -> Vec<Figure> {
    let grid = exact("385", Unit::GramCo2ePerKilowattHour);
    let mut figures = vec![];
    let mut llama_2: Vec<Quantity> = vec![];
    for row in rows::<Row>("llama.csv", TABLE) {
        let hours = exact(&row.gpu_hours, Unit::Hour);
        let joules = product(&[&exact(&row.watts, Unit::Watt), &hours, &exact("1.1", Unit::One)]);
        let energy = joules.to(Unit::KilowattHour).expect("an energy");
        let grams = product(&[&energy, &grid]);
        let recalled = row.paper.contains("recalled");
        if !row.mwh.is_empty() {
            let figure = Figure::new(format!("{}: energy", row.model), ("MWh", 1e-3), &row.mwh, &energy);
            let figure = figure.by("GPU-h x W x PUE 1.1 / 1e6").truncated();
            let note = "does not follow from its GPU hours";
            figures.push(if figure.verdict() == Verdict::Differs { figure.note(note) } else { figure });
        }
        let figure = Figure::new(format!("{}: carbon", row.model), TONNES, &row.tonnes, &grams);
        let figure = figure.by("MWh x 0.385").recalled(recalled);
        if row.mwh.is_empty() {
            // The card's two decimals are cut off: 62.4476 t stand as 62.44.
            figures.push(figure.truncated());
            llama_2.push(grams);
        } else {
            figures.push(figure);
        }
    }
    let project = product(&[&exact("2638e3", Unit::KilowattHour), &grid]);
    let total = Quantity::sum(&llama_2).ok().flatten().expect("one unit, not empty");
    figures.push(
        Figure::new("LLaMA, all models: carbon", TONNES, "1,015", &project)
            .by("2,638 MWh x 0.385")
            .truncated(),
    );
    figures.push(
        Figure::new("Llama 2, all models: carbon", TONNES, "539.00", &total)
            .by("sum of the models")
            .truncated(),
    );
    figures
}
