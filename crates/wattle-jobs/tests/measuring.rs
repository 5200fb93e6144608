//! A measured command as a library call. One test, since measuring waits for every child of the process.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wattle_jobs::accounting::Accounting;
use wattle_jobs::ledger::{LedgerOptions, Ledgered, ledger};
use wattle_jobs::ledger_filter::Filter;
use wattle_jobs::measure::{Ending, MeasureOptions, measure};
use wattle_jobs::observer::Standing;
use wattle_jobs::{Env, EnvOptions, Observer, Silent};
use wattle_meter::StopReason;

fn options(line: &[&str]) -> MeasureOptions {
    MeasureOptions {
        command: line.iter().map(Into::into).collect(),
        attach: None,
        interval: Duration::from_millis(50),
        labels: BTreeMap::from([("project".to_owned(), "library".to_owned())]),
        idle_power: None,
        epochs: None,
        accounting: Accounting::default(),
        sysfs: "/sys".into(),
    }
}

/// Follows the meter, and asks for an end once it has seen it.
#[derive(Default)]
struct Impatient {
    looks: usize,
}

impl Observer for Impatient {
    fn follows_meter(&self) -> bool {
        true
    }
    fn standing(&mut self, standing: &Standing<'_>) {
        assert!(standing.now.elapsed > Duration::ZERO);
        self.looks += 1;
    }
    fn cancelled(&mut self) -> bool {
        self.looks > 1
    }
}

#[test]
fn a_command_is_measured_watched_ended_and_kept_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let env = EnvOptions { ledger: Some(folder.path().join("ledger.jsonl")), ..EnvOptions::default() };
    let env = Env::new(env, |_| None).unwrap();

    let failed = measure(&options(&["sh", "-c", "exit 7"]), &env, &mut Silent).unwrap();
    assert_eq!((&failed.ending, failed.receipt.stop_reason), (&Ending::Exited(7), StopReason::Failed));

    let begun = Instant::now();
    let mut impatient = Impatient::default();
    let ended = measure(&options(&["sleep", "60"]), &env, &mut impatient).unwrap();
    assert_eq!(ended.ending, Ending::Killed(15), "asked to end as by a signal");
    assert!(begun.elapsed() < Duration::from_secs(30) && impatient.looks > 1);

    let missing = measure(&options(&["./no-such-program"]), &env, &mut Silent).unwrap();
    assert_eq!(missing.ending.code(), 127);
    assert!(measure(&options(&[]), &env, &mut Silent).is_err());

    let listed =
        ledger(&LedgerOptions::List { filter: Filter::default(), last: None }, &env, &mut Silent).unwrap();
    let Ledgered::List(lines) = listed else { panic!("a list was asked for") };
    let commands: Vec<&str> = lines.iter().map(|line| line.labels["project"].as_str()).collect();
    assert_eq!(commands, ["library", "library"], "what was not started is not kept");
}
