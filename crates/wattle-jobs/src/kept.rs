//! Runs on disk: named by everything that decides them, with one receipt for all the processes that worked on them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use wattle_meter::{Meter, Receipt, StopReason, Unit, WorkDone};
use wattle_train::run_directory::{Config, RunDirectory};

use crate::env::Env;
use crate::error::{ErrorKind, JobError, Result};
use crate::observer::Observer;

/// The file of the receipt.
pub const RECEIPT: &str = "receipt.json";

/// Longest time between two notes of a run that is going on; what a killed process spent since the last is lost.
const INTERVAL: Duration = Duration::from_secs(5);

/// When a process first notes what it has spent. Later notes come at twice the time of the one before, until they are an
/// [`INTERVAL`] apart: a process loses at most half of what it spent, and a short one is not slowed by many.
const FIRST: Duration = Duration::from_millis(50);

/// The configuration of a run: `key` is all that decides its result. Nothing is left out of its name, whatever a program
/// would choose by itself: a default that changes is another run.
///
/// # Errors
/// If the key has numbers that TOML cannot write.
pub fn config(command: &str, key: &impl Serialize) -> Result<Config> {
    let value =
        serde_json::to_value(key).map_err(|e| JobError::run(format_args!("the configuration: {e}")))?;
    Ok(Config::new(command, &without_nulls(value), &Value::Object(Default::default()))?)
}

/// What is absent has no line in the configuration.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect(),
        other => other,
    }
}

/// A run's directory and what earlier processes spent on it.
pub struct Kept {
    /// The directory, held against other processes.
    pub directory: Arc<RunDirectory>,
    /// Samples that this process has learnt from, each as often as it was.
    pub learnt: u64,
    before: Option<Receipt>,
    opened: Instant,
    written: Instant,
}

impl Kept {
    /// Opens the directory `out`, or the one under the environment's runs that the configuration names.
    ///
    /// # Errors
    /// If it holds another run, or another process works in it.
    pub fn open(config: &Config, out: Option<&Path>, env: &Env) -> Result<Kept> {
        let directory = match out {
            Some(path) => RunDirectory::open_at(path, config)?,
            None => RunDirectory::open(&env.runs, config)?,
        };
        // A receipt that cannot be read is no reason to lose a run.
        let text = directory.read(RECEIPT)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let before = text.and_then(|text| Receipt::from_json(&text).ok());
        let now = Instant::now();
        Ok(Kept { directory: Arc::new(directory), learnt: 0, before, opened: now, written: now })
    }

    /// Writes down what the run has cost so far, now and then, in case this process is killed. Says whether it did.
    pub fn note(&mut self, meter: &Meter) -> Result<bool> {
        let wait = self.written.duration_since(self.opened).clamp(FIRST, INTERVAL);
        if self.written.elapsed() < wait {
            return Ok(false);
        }
        self.written = Instant::now();
        self.write(&self.with(&self.counted(meter.so_far()))?)?;
        Ok(true)
    }

    /// The receipt of the whole run: of the processes before and of this one, whose own is `receipt` and goes to the ledger.
    /// A process that only looked at a finished run adds a line.
    pub fn finish(&self, receipt: Receipt, only_looked: bool, env: &Env) -> Result<Receipt> {
        let mut receipt = self.counted(receipt);
        env.record(&mut receipt);
        let whole = match (&self.before, only_looked) {
            (Some(before), true) => {
                let mut seen = before.clone();
                seen.add_look(&receipt);
                seen
            }
            _ => self.with(&receipt)?,
        };
        self.write(&whole)?;
        Ok(whole)
    }

    /// The error to tell of a run that ended before its end. What it has cost is kept for when it goes on, and goes to the
    /// ledger; a process that was refused before it had learnt anything has nothing to keep.
    pub fn stopped(
        &self,
        error: impl Into<JobError>,
        observer: &mut dyn Observer,
        meter: &Meter,
        env: &Env,
    ) -> JobError {
        let (error, cancelled) = (error.into(), observer.cancelled());
        if cancelled || error.kind() != ErrorKind::Input || self.learnt > 0 {
            let mut receipt = meter.so_far();
            receipt.stop_reason = if cancelled { StopReason::Interrupted } else { StopReason::Failed };
            // The error that ended the run is the one to tell.
            let _ = self.finish(receipt, false, env);
        }
        if cancelled { JobError::cancelled() } else { error }
    }

    /// A receipt of this process with the samples it has learnt from.
    fn counted(&self, mut receipt: Receipt) -> Receipt {
        receipt.work.samples = Some(WorkDone::counted(self.learnt, Unit::Sample));
        receipt
    }

    fn with(&self, receipt: &Receipt) -> Result<Receipt> {
        match &self.before {
            Some(before) => before.plus(receipt).map_err(|e| JobError::run(format_args!("the receipt: {e}"))),
            None => Ok(receipt.clone()),
        }
    }

    fn write(&self, receipt: &Receipt) -> Result<()> {
        Ok(self.directory.write(RECEIPT, receipt.to_json().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::EnvOptions;

    #[test]
    fn processes_of_a_run_add_up_and_a_look_adds_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::new(EnvOptions::default(), |_| None).unwrap();
        let config = config("train", &serde_json::json!({"a": 1})).unwrap();
        let out = folder.path().join("run");
        let process = |only_looked: bool| {
            let mut kept = Kept::open(&config, Some(&out), &env).unwrap();
            kept.learnt = if only_looked { 0 } else { 5 };
            let meter = env.meter();
            std::thread::sleep(Duration::from_millis(30));
            kept.finish(meter.stop(), only_looked, &env).unwrap()
        };
        let first = process(false);
        let second = process(false);
        assert!(second.duration.value() >= first.duration.value() + 0.03);
        assert_eq!(second.stints().len(), 2);
        assert_eq!(second.work.samples.as_ref().map(|samples| samples.value()), Some(10.0));
        let looked = process(true);
        assert_eq!(looked.duration.value(), second.duration.value(), "a look is no work");
        assert_eq!(looked.looks.len(), 1);
        assert_eq!(process(true).looks.len(), 2);
    }

    #[test]
    fn a_process_that_is_killed_loses_at_most_half_of_what_it_spent() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::new(EnvOptions::default(), |_| None).unwrap();
        let out = folder.path().join("run");
        let config = config("train", &serde_json::json!({"a": 1})).unwrap();
        let meter = env.meter();
        let mut kept = Kept::open(&config, Some(&out), &env).unwrap();
        let mut notes = 0;
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(10));
            notes += u32::from(kept.note(&meter).unwrap());
        }
        let spent = meter.so_far().duration.value();
        drop(kept);
        let before = Kept::open(&config, Some(&out), &env).unwrap().before.expect("it was noted");
        assert!(before.duration.value() > 0.4 * spent, "{} of {spent} s", before.duration.value());
        assert!((2..=8).contains(&notes), "{notes}");
    }

    #[test]
    fn every_leaf_of_a_key_decides_the_name() {
        let base = serde_json::json!({"lr": 0.05, "batch": 64, "name": "a", "on": true, "none": null, "list": [1, 2]});
        let hash = |key: &Value| config("train", key).unwrap().hash();
        for (field, other) in [
            ("lr", serde_json::json!(0.5)),
            ("batch", serde_json::json!(65)),
            ("name", serde_json::json!("b")),
            ("on", serde_json::json!(false)),
            ("none", serde_json::json!(1)),
            ("list", serde_json::json!([1, 3])),
        ] {
            let mut changed = base.clone();
            changed[field] = other;
            assert_ne!(hash(&base), hash(&changed), "{field}");
        }
    }
}
