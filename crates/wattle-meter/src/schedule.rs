//! When to run, given how the carbon intensity of the electricity changes: the best start, and the best hours for
//! a run that may pause (Dodge et al. 2022 call them flexible start and pause-and-resume).
//!
//! The series comes from a file, forecast or history; its numbers are taken as they are, so marginal intensities
//! give marginal savings and averages give average ones. The run draws the same power in every hour.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::{Quantity, QuantityError, Source, Unit};

/// Intensity over time in equal steps, gCO2e/kWh.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The moments as the file writes them, each the beginning of a step.
    pub moments: Vec<String>,
    /// Intensity of each step.
    pub g_per_kwh: Vec<f64>,
    /// Length of a step in hours.
    pub step_hours: f64,
    /// When the first step begins, in minutes since 1970.
    pub first_minute: i64,
}

impl Series {
    /// Any of its intensities, until it is known which ones a run meets: the mean, from the lowest to the highest. `name`
    /// says where the series comes from.
    ///
    /// # Errors
    /// [`QuantityError`] if it holds a number that is none.
    pub fn any(&self, name: &str) -> Result<Quantity, QuantityError> {
        let g = &self.g_per_kwh;
        let low = g.iter().copied().fold(f64::INFINITY, f64::min);
        let high = g.iter().copied().fold(0.0, f64::max);
        let mean = g.iter().sum::<f64>() / g.len() as f64;
        let source = Source::assumed(format!("stated by {name}, any of its steps"));
        Quantity::new(mean.clamp(low, high), low, high, Unit::GramCo2ePerKilowattHour, source)
    }
}

/// The mean intensity of a run of so many hours that starts with the series, from the best start to the worst; `name` says
/// where the series comes from.
///
/// # Errors
/// [`ScheduleError::DoesNotFit`] for a run longer than the series.
pub fn met(series: &Series, name: &str, hours: f64) -> Result<Quantity, ScheduleError> {
    let plan = plan(series, hours, None)?;
    let source = format!("stated by {name}, from its first row on; from the best start in it to the worst");
    let [value, low, high] = [plan.at_once, plan.best_start, plan.worst_start].map(|choice| choice.g_per_kwh);
    // Each is a mean of the same steps; rounding may order them differently by a bit.
    let (low, high) = (low.min(value), high.max(value));
    let quantity = Quantity::new(value, low, high, Unit::GramCo2ePerKilowattHour, Source::assumed(source));
    Ok(quantity.expect("ordered just now, and means of finite numbers"))
}

/// A series or a question that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Not such a file.
    #[error("{0}; expected a CSV file with the columns timestamp, g_per_kwh")]
    Csv(#[from] csv::Error),
    /// A moment or intensity that is none.
    #[error("row {row}: {column} = {found:?}; expected {expected}")]
    Cell {
        /// Row of the file, the heading being the first.
        row: usize,
        /// Column.
        column: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A hole, a repetition or a step back in time.
    #[error(
        "row {row}: {found:?} comes {minutes} minutes after the row before, the rows above are {expected} minutes apart; \
         a gap is not filled in: complete or cut the series"
    )]
    Gap {
        /// Row of the file.
        row: usize,
        /// The moment.
        found: String,
        /// Since the row before.
        minutes: i64,
        /// Between the first two rows.
        expected: i64,
    },
    /// Fewer than two rows.
    #[error("{rows} rows; expected at least two")]
    TooShort {
        /// Rows read.
        rows: usize,
    },
    /// The run does not fit.
    #[error(
        "a run of {hours} h does not fit into the {available} h until the end of the series or the deadline"
    )]
    DoesNotFit {
        /// Asked for.
        hours: f64,
        /// There.
        available: f64,
    },
}

#[derive(Deserialize)]
struct Row {
    #[serde(alias = "datetime", alias = "time", alias = "from", alias = "Datetime (UTC)")]
    timestamp: String,
    #[serde(alias = "intensity", alias = "carbon_intensity", alias = "gco2_per_kwh", alias = "gCO2e/kWh")]
    g_per_kwh: String,
}

/// Reads `timestamp, g_per_kwh` rows; timestamps like `2026-01-31T13:00Z`, `2026-01-31 13:00:00+01:00` (without an
/// offset: UTC).
///
/// # Errors
/// [`ScheduleError`] with the row: a malformed cell, or steps that are not equal (nothing is interpolated).
pub fn read(input: impl Read) -> Result<Series, ScheduleError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
    let mut series = Series { moments: vec![], g_per_kwh: vec![], step_hours: 0.0, first_minute: 0 };
    let (mut last, mut step) = (None, None);
    for (index, row) in reader.deserialize().enumerate() {
        let (row, Row { timestamp, g_per_kwh }) = (index + 2, row?);
        let cell = |column, found: &str, expected| ScheduleError::Cell {
            row,
            column,
            found: found.to_owned(),
            expected,
        };
        let minute = minutes(&timestamp).ok_or_else(|| cell("timestamp", &timestamp, "2026-01-31T13:00Z"))?;
        let number: Option<f64> = g_per_kwh.parse().ok().filter(|g: &f64| (0.0..=5000.0).contains(g));
        let number = number.ok_or_else(|| cell("g_per_kwh", &g_per_kwh, "gCO2e/kWh from 0 to 5000"))?;
        if let Some(last) = last {
            let found = minute - last;
            let expected = *step.get_or_insert(found);
            if found != expected || found <= 0 {
                return Err(ScheduleError::Gap { row, found: timestamp, minutes: found, expected });
            }
        }
        if last.is_none() {
            series.first_minute = minute;
        }
        last = Some(minute);
        series.moments.push(timestamp);
        series.g_per_kwh.push(number);
    }
    let rows = series.moments.len();
    series.step_hours = step.ok_or(ScheduleError::TooShort { rows })? as f64 / 60.0;
    Ok(series)
}

/// Minutes since 1970 of `YYYY-MM-DD[T ]HH:MM[:SS][.fff][Z|+HH:MM]`.
fn minutes(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|b| any.contains(b));
    let shaped = mark(4, b"-") && mark(7, b"-") && mark(10, b"T ") && mark(13, b":");
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    // The calendar is the one of receipts: it knows the lengths of months and leap years.
    let day = format!("{}T00:00:00.000Z", text.get(..10)?).parse::<crate::Timestamp>().ok()?;
    let rest = text.get(16..)?;
    let offset_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (seconds, offset) = rest.split_at(offset_at);
    let seconds_fit = seconds.is_empty()
        || (seconds.starts_with(":00") && seconds[3..].chars().all(|c| c == '.' || c == '0'));
    let offset = match offset {
        "" | "Z" => 0,
        _ => {
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let digits: String = offset[1..].chars().filter(|c| *c != ':').collect();
            let digits: i64 = (digits.len() == 4).then(|| digits.parse().ok())??;
            sign * (digits / 100 * 60 + digits % 100)
        }
    };
    let valid = shaped && seconds_fit && hour < 24 && minute < 60;
    valid.then(|| (day.unix_millis() / 60_000) as i64 + hour * 60 + minute - offset)
}

/// One way to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Where it begins, as the file writes it.
    pub start: String,
    /// Mean intensity over the run, gCO2e/kWh.
    pub g_per_kwh: f64,
    /// Share saved against starting at once.
    pub saving: f64,
    /// Hours from the first row to the end of the run.
    pub done_after_hours: f64,
}

/// A stretch of running between pauses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stretch {
    /// Where it begins.
    pub start: String,
    /// Its length.
    pub hours: f64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    /// Starting with the first row.
    pub at_once: Choice,
    /// The best start without a pause, on a border of steps; of equal ones the earliest.
    pub best_start: Choice,
    /// The worst start, for scale.
    pub worst_start: Choice,
    /// Running only in the best steps.
    pub pause_and_resume: Choice,
    /// The stretches of that run.
    pub stretches: Vec<Stretch>,
}

/// Finds the best times for a run of `hours`, done at most `deadline` hours after the first row.
///
/// # Errors
/// [`ScheduleError::DoesNotFit`].
pub fn plan(series: &Series, hours: f64, deadline: Option<f64>) -> Result<Schedule, ScheduleError> {
    let step = series.step_hours;
    let end = series.g_per_kwh.len() as f64 * step;
    let available = deadline.unwrap_or(end).min(end);
    // A hair, so that 3 h fit into three rows whatever the rounding of steps.
    let slack = 1e-9 * end.max(1.0);
    if !(hours > 0.0 && hours <= available + slack) {
        return Err(ScheduleError::DoesNotFit { hours, available });
    }
    let mean_from = |first: usize| {
        let (mut left, mut sum) = (hours, 0.0);
        for g in &series.g_per_kwh[first..] {
            let taken = left.min(step);
            sum += taken * g;
            left -= taken;
            if left <= slack {
                break;
            }
        }
        sum / hours
    };
    let at_once = mean_from(0);
    let option = |start: usize, mean: f64, done_after_hours: f64| Choice {
        start: series.moments[start].clone(),
        g_per_kwh: mean,
        saving: if at_once > 0.0 { 1.0 - mean / at_once } else { 0.0 },
        done_after_hours,
    };
    let starts: Vec<(usize, f64)> = (0..series.g_per_kwh.len())
        .take_while(|&i| i as f64 * step + hours <= available + slack)
        .map(|i| (i, mean_from(i)))
        .collect();
    let started = |&(i, mean): &(usize, f64)| option(i, mean, i as f64 * step + hours);
    let first = (0, at_once);
    let best = starts.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(&first);
    let worst = starts.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(&first);

    let mut chosen = cheapest(series, hours, available, slack);
    chosen.sort_by_key(|c| c.0);
    let mean = chosen.iter().map(|&(i, taken)| taken * series.g_per_kwh[i]).sum::<f64>() / hours;
    let done = chosen.last().map_or(0.0, |&(i, taken)| i as f64 * step + taken);
    let pause_and_resume = option(chosen[0].0, mean, done);
    let mut stretches: Vec<Stretch> = vec![];
    let mut next = usize::MAX;
    for (i, taken) in chosen {
        match stretches.last_mut() {
            Some(last) if i == next => last.hours += taken,
            _ => stretches.push(Stretch { start: series.moments[i].clone(), hours: taken }),
        }
        next = i + 1;
    }
    Ok(Schedule {
        at_once: started(&first),
        best_start: started(best),
        worst_start: started(worst),
        pause_and_resume,
        stretches,
    })
}

/// The best steps with how much of each is used; of equal ones the earliest. Steps that the deadline cuts count
/// only up to it.
fn cheapest(series: &Series, hours: f64, available: f64, slack: f64) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..series.g_per_kwh.len()).collect();
    order.sort_by(|&a, &b| series.g_per_kwh[a].total_cmp(&series.g_per_kwh[b]));
    let (mut left, mut chosen) = (hours, vec![]);
    for i in order {
        let there = (available - i as f64 * series.step_hours).min(series.step_hours);
        if there <= slack || left <= slack {
            continue;
        }
        let taken = left.min(there);
        left -= taken;
        chosen.push((i, taken));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(values: &[f64]) -> Series {
        Series {
            moments: (0..values.len()).map(|i| format!("h{i}")).collect(),
            g_per_kwh: values.to_vec(),
            step_hours: 1.0,
            first_minute: 0,
        }
    }

    #[test]
    fn the_best_start_and_the_best_hours_are_found() {
        let s = series(&[400.0, 300.0, 100.0, 500.0, 90.0, 200.0]);
        let plan = plan(&s, 2.0, None).unwrap();
        assert_eq!((plan.at_once.g_per_kwh, &*plan.best_start.start), (350.0, "h4"));
        assert_eq!(plan.best_start.g_per_kwh, 145.0);
        assert_eq!((plan.worst_start.g_per_kwh, plan.pause_and_resume.g_per_kwh), (350.0, 95.0));
        assert!((plan.pause_and_resume.saving - (1.0 - 95.0 / 350.0)).abs() < 1e-12);
        let starts: Vec<_> = plan.stretches.iter().map(|s| &*s.start).collect();
        assert_eq!(starts, ["h2", "h4"]);
    }

    #[test]
    fn a_fraction_of_an_hour_is_taken_from_the_dearest_chosen_one() {
        let s = series(&[100.0, 200.0, 300.0]);
        let plan = plan(&s, 1.5, None).unwrap();
        assert!((plan.pause_and_resume.g_per_kwh - (100.0 + 0.5 * 200.0) / 1.5).abs() < 1e-9);
        assert_eq!(plan.stretches, [Stretch { start: "h0".into(), hours: 1.5 }]);
    }

    #[test]
    fn a_deadline_is_kept_and_what_does_not_fit_is_refused() {
        let s = series(&[400.0, 300.0, 100.0, 50.0]);
        let early = plan(&s, 2.0, Some(3.0)).unwrap();
        assert_eq!(&*early.best_start.start, "h1");
        assert!(early.pause_and_resume.done_after_hours <= 3.0);
        assert!(matches!(plan(&s, 5.0, None), Err(ScheduleError::DoesNotFit { .. })));
        assert!(plan(&s, 0.0, None).is_err() && plan(&s, f64::NAN, None).is_err());
        assert!(plan(&s, 4.0, None).is_ok());
    }

    #[test]
    fn hourly_files_are_read_across_a_change_of_clocks() {
        let text = "timestamp,g_per_kwh\n2026-03-29 01:00:00+01:00,10\n2026-03-29 03:00:00+02:00,20\n2026-03-29T02:00Z,30\n";
        let s = read(text.as_bytes()).unwrap();
        assert_eq!((s.step_hours, s.g_per_kwh.len()), (1.0, 3));
    }

    #[test]
    fn gaps_and_repetitions_are_refused_not_filled() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        let gap = "timestamp,g_per_kwh\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,1\n2026-01-01T03:00Z,1\n";
        assert!(error(gap).contains("row 4") && error(gap).contains("120 minutes"), "{}", error(gap));
        assert!(error("timestamp,g_per_kwh\n2026-01-01T00:00Z,1\n2026-01-01T00:00Z,1\n").contains("row 3"));
        assert!(error("timestamp,g_per_kwh\n2026-02-30T00:00Z,1\n").contains("timestamp"));
        assert!(error("timestamp,g_per_kwh\n2026-01-01T00:00Z,-3\n").contains("g_per_kwh"));
        assert!(error("timestamp,g_per_kwh\n2026-01-01T00:00Z,3\n").contains("at least two"));
        assert!(error("a,b\n1,2\n").contains("columns"));
    }

    proptest! {
        #[test]
        fn pausing_never_costs_more_than_the_best_start_nor_that_more_than_any_other(
            values in prop::collection::vec(0.0..1000.0f64, 1..40),
            share in 0.01..1.0f64,
        ) {
            let s = series(&values);
            let hours = share * values.len() as f64;
            let plan = plan(&s, hours, None).unwrap();
            prop_assert!(plan.pause_and_resume.g_per_kwh <= plan.best_start.g_per_kwh + 1e-9);
            prop_assert!(plan.best_start.g_per_kwh <= plan.at_once.g_per_kwh + 1e-9);
            prop_assert!(plan.at_once.g_per_kwh <= plan.worst_start.g_per_kwh + 1e-9);
            let total: f64 = plan.stretches.iter().map(|s| s.hours).sum();
            prop_assert!((total - hours).abs() < 1e-6);
        }

        #[test]
        fn any_timestamp_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = minutes(&text);
        }
    }
}
