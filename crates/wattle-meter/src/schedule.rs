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
    /// The best start without a pause, to the second; of equal ones the earliest.
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
    let timeline = Timeline { series, slack };
    let at_once = timeline.mean(0.0, hours);
    let choice = |start: f64, mean: f64, done_after_hours: f64| Choice {
        start: timeline.moment(start),
        g_per_kwh: mean,
        saving: if at_once > 0.0 { 1.0 - mean / at_once } else { 0.0 },
        done_after_hours,
    };
    // The mean is a straight line between starts at which the run begins or ends with a step, or ends at the deadline.
    let borders = (0..series.g_per_kwh.len()).map(|i| i as f64 * step);
    let mut starts: Vec<f64> = borders.flat_map(|border| [border, border - hours]).collect();
    starts.extend([end - hours, available - hours]);
    starts.retain(|&start| start >= 0.0 && start + hours <= available + slack);
    starts.sort_by(f64::total_cmp);
    let (mut best, mut worst) = ((0.0, at_once), (0.0, at_once));
    for start in starts {
        let mean = timeline.mean(start, hours);
        // Of equal ones the earliest, whatever the order in which they were added up.
        if mean < best.1 * (1.0 - 1e-12) {
            best = (start, mean);
        }
        if mean > worst.1 * (1.0 + 1e-12) {
            worst = (start, mean);
        }
    }
    let started = |(start, mean): (f64, f64)| choice(start, mean, start + hours);

    let runs = timeline.runs(cheapest(series, hours, available, slack));
    let energy = |&(start, taken): &(f64, f64)| taken * timeline.mean(start, taken);
    let mean = runs.iter().map(energy).sum::<f64>() / hours;
    let done = runs.last().map_or(0.0, |(start, taken)| start + taken);
    let begun = runs.first().map_or(0.0, |run| run.0);
    let stretch = |&(start, hours): &(f64, f64)| Stretch { start: timeline.moment(start), hours };
    Ok(Schedule {
        at_once: started((0.0, at_once)),
        best_start: started(best),
        worst_start: started(worst),
        pause_and_resume: choice(begun, mean, done),
        stretches: runs.iter().map(stretch).collect(),
    })
}

/// A series with its hours counted from its beginning.
struct Timeline<'a> {
    series: &'a Series,
    /// Hours that rounding may be off.
    slack: f64,
}

impl Timeline<'_> {
    /// Mean intensity of `hours` from `start` on.
    fn mean(&self, start: f64, hours: f64) -> f64 {
        let (step, end) = (self.series.step_hours, start + hours);
        let first = ((start + self.slack) / step) as usize;
        let steps = self.series.g_per_kwh.iter().enumerate().skip(first);
        let inside = steps.map_while(|(i, g)| {
            let (from, to) = (start.max(i as f64 * step), end.min((i + 1) as f64 * step));
            (from < end).then(|| g * (to - from).max(0.0))
        });
        inside.sum::<f64>() / hours
    }

    /// The moment at an hour, as the file writes moments.
    fn moment(&self, hour: f64) -> String {
        let step = self.series.step_hours;
        let index = (((hour + self.slack) / step) as usize).min(self.series.moments.len() - 1);
        let text = &self.series.moments[index];
        let seconds = ((hour - index as f64 * step) * 3600.0).round() as i64;
        if seconds > 0 { later(text, seconds).unwrap_or_else(|| text.clone()) } else { text.clone() }
    }

    /// The runs between pauses, as starts and lengths in hours, of steps of which so much is used. A step that is used in
    /// part is used next to the other ones: its end before them, else its beginning.
    fn runs(&self, mut chosen: Vec<(usize, f64)>) -> Vec<(f64, f64)> {
        chosen.sort_by_key(|c| c.0);
        let step = self.series.step_hours;
        let is_chosen = |i: usize| chosen.iter().any(|c| c.0 == i);
        let mut runs: Vec<(f64, f64)> = vec![];
        for &(i, taken) in &chosen {
            let late = is_chosen(i + 1) && !(i > 0 && is_chosen(i - 1));
            let start = i as f64 * step + if late { step - taken } else { 0.0 };
            match runs.last_mut() {
                Some((begun, hours)) if (*begun + *hours - start).abs() <= self.slack => *hours += taken,
                _ => runs.push((start, taken)),
            }
        }
        runs
    }
}

/// A moment so many seconds later, written alike: date, time and whatever follows them.
fn later(moment: &str, seconds: i64) -> Option<String> {
    let day = format!("{}T00:00:00.000Z", moment.get(..10)?).parse::<crate::Timestamp>().ok()?;
    let number = |range| moment.get(range).and_then(|digits: &str| digits.parse::<i64>().ok());
    let of_day = number(11..13)? * 3600 + number(14..16)? * 60 + seconds;
    let day = day.unix_millis() + u64::try_from(of_day / 86_400).ok()? * 86_400_000;
    let date = crate::Timestamp::from_unix_millis(day).to_string();
    let (hour, minute, second) = (of_day / 3600 % 24, of_day / 60 % 60, of_day % 60);
    let rest = moment.get(16..)?;
    let rest = if second > 0 {
        // In place of seconds that are zero, for a series begins its steps on minutes.
        format!(":{second:02}{}", rest.trim_start_matches([':', '0', '.']))
    } else {
        rest.to_owned()
    };
    Some(format!("{}{}{hour:02}:{minute:02}{rest}", &date[..10], moment.get(10..11)?))
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
    fn a_run_of_half_steps_starts_where_it_is_cheapest_and_the_plan_emits_what_it_says() {
        let text = "timestamp,g_per_kwh\n2026-03-29T00:00Z,400\n2026-03-29T01:00Z,380\n2026-03-29T02:00Z,300\n\
                    2026-03-29T03:00Z,200\n2026-03-29T04:00Z,100\n2026-03-29T05:00Z,90\n";
        let s = read(text.as_bytes()).unwrap();
        let plan = plan(&s, 2.5, Some(5.0)).unwrap();
        let grams = 0.5 * 300.0 + 200.0 + 100.0;
        for choice in [&plan.best_start, &plan.pause_and_resume] {
            assert_eq!(choice.start, "2026-03-29T02:30Z");
            assert!((choice.g_per_kwh * 2.5 - grams).abs() < 1e-9 && choice.done_after_hours == 5.0);
        }
        assert_eq!(plan.stretches, [Stretch { start: "2026-03-29T02:30Z".into(), hours: 2.5 }]);
    }

    #[test]
    fn a_moment_within_a_step_is_written_as_the_file_writes_moments() {
        let later = |text, seconds| later(text, seconds).unwrap();
        assert_eq!(later("2026-12-31 23:00:00+01:00", 5400), "2027-01-01 00:30:00+01:00");
        assert_eq!(later("2026-01-31T13:00Z", 90), "2026-01-31T13:01:30Z");
        assert_eq!(later("2026-01-31T13:00:00.000Z", 1), "2026-01-31T13:00:01Z");
        assert_eq!(later("2024-02-28T23:59", 60), "2024-02-29T00:00");
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
