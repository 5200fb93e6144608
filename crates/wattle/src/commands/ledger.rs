//! `wattle ledger`: the receipts kept so far.

use std::path::PathBuf;

use serde::Serialize;
use wattle_meter::ledger::{self, Group, Sum};
use wattle_meter::{EXPLAINED, Quantity, Receipt, Timestamp, explain};
use wattle_report::{Align, Table, number, receipt as receipts};

use super::measure::{Format, export};
use crate::context::Context;
use crate::failure::Failure;

/// What the ledger can be asked.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// One line a receipt, oldest first.
    #[command(after_help = "Example: wattle ledger list --last 10")]
    List {
        /// Only the last so many.
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Sums of time, energy, carbon and money.
    #[command(after_help = "Example: wattle ledger sum --by project")]
    Sum {
        /// `month`, `all`, or the name of a label.
        #[arg(long, value_name = "WHAT", default_value = "all")]
        by: String,
    },
    /// Writes receipts in another form.
    #[command(after_help = "Example: wattle ledger export csv --out ledger.csv")]
    Export {
        /// The form.
        format: Format,
        /// The file; stdout by default. MLflow wants a folder.
        #[arg(long, value_name = "FILE", default_value = "-")]
        out: PathBuf,
    },
    /// One receipt in full; the last by default.
    #[command(after_help = "Example: wattle ledger show --explain carbon")]
    Show {
        /// Its number in the list.
        number: Option<usize>,
        /// Print how a number came about instead.
        #[arg(long, value_name = "NAME", value_parser = EXPLAINED)]
        explain: Option<String>,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    number: usize,
    started: Timestamp,
    command: String,
    labels: &'a std::collections::BTreeMap<String, String>,
    duration: &'a Quantity,
    energy: &'a Option<Quantity>,
    carbon: &'a Option<Quantity>,
}

/// Runs the command.
pub fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    let path = context.ledger().ok_or_else(|| {
        Failure::Input("there is no ledger: WATTLE_LEDGER is empty, or no home is known to put one in; name a file with --ledger".to_owned())
    })?;
    let (all, unreadable) = ledger::read(path).map_err(|e| Failure::at(path.display(), e))?;
    let note = match unreadable {
        0 => String::new(),
        n => format!("{n} line(s) of {} could not be read and are left out\n", path.display()),
    };
    match command {
        Command::List { last } => list(&all, last.unwrap_or(usize::MAX), &note, context),
        Command::Sum { by } => {
            let by = match by.as_str() {
                "all" => Group::All,
                "month" => Group::Month,
                label => Group::Label(label.trim_start_matches("label:").to_owned()),
            };
            let sums = ledger::sums(&all, &by);
            context.print(&sums, &format!("{}{note}", sum_table(&sums)))
        }
        Command::Export { format, out } => export(format, &all, &out),
        Command::Show { number, explain: name } => {
            let number = number.unwrap_or(all.len());
            let receipt = number.checked_sub(1).and_then(|index| all.get(index)).ok_or_else(|| {
                Failure::Input(format!("receipt {number}: the ledger has {} (1 is the oldest)", all.len()))
            })?;
            match name {
                Some(name) => {
                    let text = explain(receipt, &name).ok_or_else(|| {
                        Failure::Input(format!("receipt {number} does not know its {name}"))
                    })?;
                    context.print(&text, &text)
                }
                None => context.print(receipt, &receipts::table(receipt).to_string()),
            }
        }
    }
}

fn list(all: &[Receipt], last: usize, note: &str, context: &Context) -> Result<(), Failure> {
    let first = all.len().saturating_sub(last);
    let lines: Vec<Line<'_>> = all
        .iter()
        .enumerate()
        .skip(first)
        .map(|(index, r)| Line {
            number: index + 1,
            started: r.started,
            command: r.command.join(" "),
            labels: &r.labels,
            duration: &r.duration,
            energy: &r.energy.total,
            carbon: &r.carbon,
        })
        .collect();
    let mut table = Table::new([
        ("", Align::Right),
        ("started", Align::Left),
        ("duration", Align::Right),
        ("energy", Align::Right),
        ("carbon", Align::Right),
        ("known", Align::Left),
        ("command", Align::Left),
    ]);
    for (line, receipt) in lines.iter().zip(&all[first..]) {
        table.row([
            line.number.to_string(),
            line.started.to_string().chars().take(19).collect(),
            number::value_of(line.duration),
            known(line.energy.as_ref()),
            known(line.carbon.as_ref()),
            line.energy.as_ref().map_or("", |e| e.source().kind()).to_owned(),
            shown(&receipt.command),
        ]);
    }
    context.print(&lines, &format!("{table}{note}"))
}

/// What was run, in a line's space: the command that was measured, or wattle's own without its path.
fn shown(command: &[String]) -> String {
    let mut words = command.iter().skip(1);
    let measured = words.next().is_some_and(|word| word == "measure");
    let inner = command.iter().position(|word| word == "--").filter(|_| measured);
    let words = &command[inner.map_or(1, |at| at + 1).min(command.len())..];
    words.join(" ").chars().take(60).collect()
}

fn known(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(|| "unknown".to_owned(), number::value_of)
}

fn sum_table(sums: &[Sum]) -> Table {
    let mut table = Table::new([
        ("", Align::Left),
        ("receipts", Align::Right),
        ("duration", Align::Right),
        ("energy", Align::Left),
        ("carbon", Align::Left),
        ("electricity", Align::Left),
    ]);
    let range = |q: &Option<Quantity>| q.as_ref().map_or_else(|| "unknown".to_owned(), number::quantity);
    for sum in sums {
        table.row([
            sum.group.clone(),
            sum.receipts.to_string(),
            known(sum.duration.as_ref()),
            range(&sum.energy),
            range(&sum.carbon),
            range(&sum.cost),
        ]);
    }
    table
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
