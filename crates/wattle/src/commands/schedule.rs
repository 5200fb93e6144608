//! `wattle schedule`: the best start, and the best hours with pauses, by the carbon intensity of every hour.

use std::path::PathBuf;

use wattle_jobs::Silent;
use wattle_jobs::schedule::{ScheduleOptions, schedule};
use wattle_report::schedule::text;

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

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a positive number".into()),
    }
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { series, hours, deadline, watts } = args;
    let found = schedule(&ScheduleOptions { series, hours, deadline, watts }, context, &mut Silent)?;
    let grams = found.co2e_g.map(|g| [g.at_once, g.best_start, g.worst_start, g.pause_and_resume]);
    context.print(&found, &text(&found.schedule, grams))
}
