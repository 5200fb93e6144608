//! The receipts kept so far: listed, summed, compared, exported, shown and explained.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::compare::{Comparison, compare};
use wattle_meter::ledger::{self, Group, Sum};
use wattle_meter::{Quantity, Receipt, Timestamp, explain};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::export::{Format, export};
use crate::ledger_filter::Filter;
use crate::observer::Observer;

/// What the ledger is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum LedgerOptions {
    /// One line a receipt, oldest first; only the last so many, if a number is given.
    List {
        /// Which receipts.
        filter: Filter,
        /// How many.
        last: Option<usize>,
    },
    /// Sums of time, energy, carbon and money.
    Sum {
        /// Which receipts.
        filter: Filter,
        /// What they are summed by.
        by: Group,
    },
    /// Receipts as a file of another tool.
    Export {
        /// Which receipts.
        filter: Filter,
        /// The form.
        format: Format,
        /// The file, or a folder for MLflow; `-` is standard output.
        out: PathBuf,
    },
    /// One receipt in full, or how one of its numbers came about.
    Show {
        /// Its number in the list, from 1; the last if not given.
        number: Option<usize>,
        /// The number to explain, one of [`wattle_meter::EXPLAINED`].
        explain: Option<String>,
    },
    /// The ratio of two receipts; of one machine, with the error that they share cancelled.
    Compare {
        /// Number of the first in the list, from 1.
        first: usize,
        /// Number of the one that it is divided by.
        second: usize,
    },
}

/// What the ledger answers.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Ledgered {
    /// The receipts asked for.
    List(Vec<Line>),
    /// The sums.
    Sums(Vec<Sum>),
    /// One receipt.
    Receipt(Box<Receipt>),
    /// How a number came about.
    Explanation(String),
    /// Ratios of two receipts.
    Comparison(Box<Compared>),
    /// The file was written.
    Exported,
}

/// Two receipts by their numbers in the list, and their ratios.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// What is divided.
    pub first: usize,
    /// What it is divided by.
    pub second: usize,
    /// The first over the second.
    #[serde(flatten)]
    pub ratios: Comparison,
}

/// One receipt in the list.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// From 1, the oldest.
    pub number: usize,
    /// When its meter started.
    pub started: Timestamp,
    /// What was run.
    pub command: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Elapsed time.
    pub duration: Quantity,
    /// Energy, J.
    pub energy: Option<Quantity>,
    /// Carbon, g.
    pub carbon: Option<Quantity>,
    /// What was run, without the way to wattle: what fits a line.
    #[serde(skip)]
    pub shown: String,
}

/// Asks the ledger of the environment. Also tells how many of its lines could not be read.
///
/// # Errors
/// If there is no ledger, it cannot be read, or it does not have what is asked for.
pub fn ledger(options: &LedgerOptions, env: &Env, observer: &mut dyn Observer) -> Result<Ledgered> {
    let path = env.ledger().ok_or_else(|| {
        JobError::input(
            "there is no ledger: WATTLE_LEDGER is empty, or no home is known to put one in; name a file",
        )
        .of("ledger")
    })?;
    let (all, unreadable) = ledger::read(path).map_err(|e| JobError::at(path.display(), e))?;
    if unreadable > 0 {
        observer
            .note(&format!("{unreadable} line(s) of {} could not be read and are left out", path.display()));
    }
    match options {
        LedgerOptions::List { filter, last } => {
            // Numbers are those of the whole ledger, for `show`.
            let kept: Vec<_> = all.iter().enumerate().filter(|(_, receipt)| filter.keeps(receipt)).collect();
            let first = kept.len().saturating_sub(last.unwrap_or(usize::MAX));
            Ok(Ledgered::List(kept.into_iter().skip(first).map(line).collect()))
        }
        LedgerOptions::Sum { filter, by } => Ok(Ledgered::Sums(ledger::sums(&kept(all, filter), by))),
        LedgerOptions::Export { filter, format, out } => {
            export(*format, &kept(all, filter), out)?;
            Ok(Ledgered::Exported)
        }
        LedgerOptions::Show { number, explain: name } => {
            let number = number.unwrap_or(all.len());
            let receipt = numbered(&all, number)?;
            match name {
                None => Ok(Ledgered::Receipt(Box::new(receipt.clone()))),
                Some(name) => explain(receipt, name).map(Ledgered::Explanation).ok_or_else(|| {
                    JobError::input(format_args!("receipt {number} does not know its {name}"))
                }),
            }
        }
        LedgerOptions::Compare { first, second } => {
            let found = compare(numbered(&all, *first)?, numbered(&all, *second)?);
            let named = |e| JobError::input(format_args!("receipts {first} and {second}: {e}"));
            let ratios = found.map_err(named)?;
            Ok(Ledgered::Comparison(Box::new(Compared { first: *first, second: *second, ratios })))
        }
    }
}

/// The receipts that are asked for.
fn kept(all: Vec<Receipt>, filter: &Filter) -> Vec<Receipt> {
    all.into_iter().filter(|receipt| filter.keeps(receipt)).collect()
}

fn numbered(all: &[Receipt], number: usize) -> Result<&Receipt> {
    let found = number.checked_sub(1).and_then(|index| all.get(index));
    found.ok_or_else(|| {
        JobError::input(format_args!("receipt {number}: the ledger has {} (1 is the oldest)", all.len()))
    })
}

fn line((index, receipt): (usize, &Receipt)) -> Line {
    Line {
        number: index + 1,
        started: receipt.started,
        command: receipt.command.join(" "),
        labels: receipt.labels.clone(),
        duration: receipt.duration.clone(),
        energy: receipt.energy.total.clone(),
        carbon: receipt.carbon.clone(),
        shown: shown(&receipt.command),
    }
}

/// What was run, in a line's space: the command that was measured, or wattle's own without its path.
fn shown(command: &[String]) -> String {
    let mut words = command.iter().skip(1);
    let measured = words.next().is_some_and(|word| word == "measure");
    let inner = command.iter().position(|word| word == "--").filter(|_| measured);
    let words = &command[inner.map_or(1, |at| at + 1).min(command.len())..];
    words.join(" ").chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_what_was_run_and_not_the_way_to_wattle() {
        let shown = |line: &str| shown(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(shown("/opt/wattle measure --label a=b -- python train.py -- x"), "python train.py -- x");
        assert_eq!(shown("/opt/wattle measure --attach 7"), "measure --attach 7");
        assert_eq!(shown("wattle shrink m.onnx"), "shrink m.onnx");
        assert_eq!(shown("my-training"), "");
        assert_eq!(super::shown(&[]), "");
    }
}
