//! When to run: the best start, and the best hours with pauses, by the carbon intensity of every hour.

use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::schedule::{self, Schedule};

use crate::accounting;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// A run to be placed in time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScheduleOptions {
    /// CSV with the columns timestamp, g_per_kwh in equal steps: a forecast or a history.
    pub series: PathBuf,
    /// Length of the run in hours.
    pub hours: f64,
    /// The run must be done this many hours after the first row.
    pub deadline: Option<f64>,
    /// Average power of the run in W; gives grams. The site's PUE is applied to it.
    pub watts: Option<f64>,
}

/// When to run.
#[derive(Clone, Debug, Serialize)]
pub struct Scheduled {
    /// The ways to run.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Length of the run in hours.
    pub hours: f64,
    /// Grams of each way; absent without a power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub co2e_g: Option<Grams>,
    /// Where the grams come from.
    pub source: String,
}

/// Grams of CO2e of each way to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Grams {
    /// Starting with the series.
    pub at_once: f64,
    /// At the best start.
    pub best_start: f64,
    /// At the worst start.
    pub worst_start: f64,
    /// In the best hours, with pauses.
    pub pause_and_resume: f64,
}

/// Places a run in time.
///
/// # Errors
/// If the series cannot be read, or the run does not fit into it.
pub fn schedule(options: &ScheduleOptions, env: &Env, _observer: &mut dyn Observer) -> Result<Scheduled> {
    let &ScheduleOptions { hours, deadline, watts, .. } = options;
    let series = accounting::series(&options.series)?;
    let schedule = schedule::plan(&series, hours, deadline).map_err(JobError::input)?;
    let kwh = watts.map(|watts| watts * hours / 1000.0 * env.factors().pue.value());
    let co2e_g = kwh.map(|kwh| Grams {
        at_once: kwh * schedule.at_once.g_per_kwh,
        best_start: kwh * schedule.best_start.g_per_kwh,
        worst_start: kwh * schedule.worst_start.g_per_kwh,
        pause_and_resume: kwh * schedule.pause_and_resume.g_per_kwh,
    });
    let source = format!("modelled:constant power over {}", options.series.display());
    Ok(Scheduled { schedule, hours, co2e_g, source })
}
