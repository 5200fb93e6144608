//! When to run, as a table.

use wattle_meter::schedule::{Choice, Schedule, Stretch};

use crate::number;
use crate::table::{Align, Table};

/// The ways to run, with the grams of each where they are known: at once, best start, worst start, with pauses.
pub fn text(schedule: &Schedule, grams: Option<[f64; 4]>) -> String {
    let s = schedule;
    let ways: [(&str, &Choice); 4] = [
        ("start at once", &s.at_once),
        ("best start", &s.best_start),
        ("worst start", &s.worst_start),
        ("pause and resume", &s.pause_and_resume),
    ];
    let mut table = Table::new([
        ("", Align::Left),
        ("start", Align::Left),
        ("gCO2e/kWh", Align::Right),
        ("saved", Align::Right),
        ("done after", Align::Right),
        ("emitted", Align::Right),
    ]);
    for (way, (name, choice)) in ways.into_iter().enumerate() {
        table.row([
            name.to_owned(),
            choice.start.clone(),
            number::plain(choice.g_per_kwh),
            number::percent(choice.saving),
            format!("{} h", number::plain(choice.done_after_hours)),
            grams.map_or(String::new(), |grams| number::si(grams[way], "g CO2e")),
        ]);
    }
    let stretch = |s: &Stretch| format!("{} for {} h", s.start, number::plain(s.hours));
    let stretches: Vec<String> = s.stretches.iter().map(stretch).collect();
    format!("{table}\npause and resume runs: {}\n", stretches.join("; "))
}
