//! BLOOM (Luccioni et al. 2023): GPU-hours at 400 W on a grid of 57 g/kWh.

use super::{Figure, TONNES, exact, product};
use crate::{Quantity, Unit};

/// kWh of 176B, 104B, 13B, 6B, 1B, evaluation, miscellaneous and other.
const ROWS: [&str; 8] = ["433196", "266522", "87210", "51686", "158972", "43172", "57961", "64257"];

pub(super) fn figures() -> Vec<Figure> {
    let grid = exact("57", Unit::GramCo2ePerKilowattHour);
    let energy = |kwh: &str| exact(kwh, Unit::KilowattHour);
    let final_run = product(&[&exact("400", Unit::Watt), &exact("1082990", Unit::Hour)]);
    let dynamic = product(&[&energy("433196"), &grid]);
    let idle = product(&[&energy("256646"), &grid]);
    let embodied = exact("11.2e6", Unit::GramCo2e);
    let life = dynamic.plus(&idle).and_then(|sum| sum.plus(&embodied)).expect("all grams");
    let rows: Vec<Quantity> = ROWS.into_iter().map(energy).collect();
    let sum = Quantity::sum(&rows).ok().flatten().expect("one unit, not empty");
    let kwh = final_run.to(Unit::KilowattHour).expect("an energy");
    vec![
        Figure::new("176B: energy", ("kWh", 1.0), "433,196", &kwh).by("1,082,990 GPU-h x 400 W / 1000"),
        Figure::new("176B: carbon, dynamic", TONNES, "24.69", &dynamic).by("433,196 kWh x 57 g"),
        Figure::new("176B: carbon, idle", TONNES, "14.6", &idle).by("256,646 kWh x 57 g"),
        Figure::new("176B: carbon with idle and manufacture", TONNES, "50.5", &life)
            .by("dynamic + idle + 11.2 t embodied"),
        Figure::new("project: carbon", TONNES, "66.29", &product(&[&energy("1163032"), &grid]))
            .by("1,163,032 kWh x 57 g"),
        Figure::new("project: energy", ("kWh", 1.0), "1,163,088", &sum)
            .by("sum of the table's rows")
            .note("the rows sum to 112 kWh less; the text prints 1,163,032"),
    ]
}
