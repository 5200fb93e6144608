//! `wattle schedule`: the best start, and the best hours with pauses, by the carbon intensity of every hour.

use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::schedule::{self, Choice, Schedule, Stretch};
use wattle_report::{Align, Table, number};

use crate::accounting;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle schedule`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle schedule --series hourly.csv --hours 6 --watts 300")]
pub struct Args {
    /// CSV with the columns timestamp, g_per_kwh in equal steps: a forecast or a history.
    #[arg(long, value_name = "FILE")]
    series: PathBuf,
    /// Length of the run in hours.
    #[arg(long, value_name = "H")]
    hours: f64,
    /// The run must be done this many hours after the first row.
    #[arg(long, value_name = "H")]
    deadline: Option<f64>,
    /// Average power of the run in W; gives grams. PUE is applied to it.
    #[arg(long, value_name = "W", value_parser = positive)]
    watts: Option<f64>,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    schedule: Schedule,
    hours: f64,
    /// Grams of each way to run; absent without a power.
    #[serde(skip_serializing_if = "Option::is_none")]
    co2e_g: Option<Grams>,
    source: String,
}

#[derive(Serialize)]
struct Grams {
    at_once: f64,
    best_start: f64,
    worst_start: f64,
    pause_and_resume: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a positive number".into()),
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let series = accounting::read(&args.series)?;
    let schedule =
        schedule::plan(&series, args.hours, args.deadline).map_err(|e| Failure::Input(e.to_string()))?;
    let kwh = args.watts.map(|watts| watts * args.hours / 1000.0 * context.factors().pue.value());
    let co2e_g = kwh.map(|kwh| Grams {
        at_once: kwh * schedule.at_once.g_per_kwh,
        best_start: kwh * schedule.best_start.g_per_kwh,
        worst_start: kwh * schedule.worst_start.g_per_kwh,
        pause_and_resume: kwh * schedule.pause_and_resume.g_per_kwh,
    });
    let source = format!("modelled:constant power over {}", args.series.display());
    let document = Document { schedule, hours: args.hours, co2e_g, source };
    context.print(&document, &text(&document))
}

fn text(document: &Document) -> String {
    let s = &document.schedule;
    let grams = document.co2e_g.as_ref();
    let rows: [(&str, &Choice, Option<f64>); 4] = [
        ("start at once", &s.at_once, grams.map(|g| g.at_once)),
        ("best start", &s.best_start, grams.map(|g| g.best_start)),
        ("worst start", &s.worst_start, grams.map(|g| g.worst_start)),
        ("pause and resume", &s.pause_and_resume, grams.map(|g| g.pause_and_resume)),
    ];
    let mut table = Table::new([
        ("", Align::Left),
        ("start", Align::Left),
        ("gCO2e/kWh", Align::Right),
        ("saved", Align::Right),
        ("done after", Align::Right),
        ("emitted", Align::Right),
    ]);
    for (name, choice, grams) in rows {
        table.row([
            name.to_owned(),
            choice.start.clone(),
            number::plain(choice.g_per_kwh),
            number::percent(choice.saving),
            format!("{} h", number::plain(choice.done_after_hours)),
            grams.map_or(String::new(), |g| number::si(g, "g CO2e")),
        ]);
    }
    let stretch = |s: &Stretch| format!("{} for {} h", s.start, number::plain(s.hours));
    let stretches: Vec<String> = s.stretches.iter().map(stretch).collect();
    format!("{table}\npause and resume runs: {}\n", stretches.join("; "))
}
