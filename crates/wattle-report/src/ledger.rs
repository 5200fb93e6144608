//! The ledger as tables.

use wattle_meter::compare::Comparison;
use wattle_meter::ledger::Sum;
use wattle_meter::{Quantity, Timestamp};

use crate::number;
use crate::table::{Align, Table};

/// One receipt in a list.
pub struct Entry<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// When it started.
    pub started: Timestamp,
    /// Elapsed time.
    pub duration: &'a Quantity,
    /// Its energy.
    pub energy: Option<&'a Quantity>,
    /// Its carbon.
    pub carbon: Option<&'a Quantity>,
    /// What was run, short.
    pub command: &'a str,
}

/// One line a receipt.
pub fn list<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Table {
    let mut table = Table::new([
        ("", Align::Right),
        ("started", Align::Left),
        ("duration", Align::Right),
        ("energy", Align::Right),
        ("carbon", Align::Right),
        ("known", Align::Left),
        ("command", Align::Left),
    ]);
    for entry in entries {
        table.row([
            entry.number.to_string(),
            entry.started.to_string().chars().take(19).collect(),
            number::value_of(entry.duration),
            known(entry.energy),
            known(entry.carbon),
            entry.energy.map_or("", |e| e.source().kind()).to_owned(),
            entry.command.to_owned(),
        ]);
    }
    table
}

fn known(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(|| "unknown".to_owned(), number::value_of)
}

/// Sums by group.
pub fn sums(sums: &[Sum]) -> Table {
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

/// How many times the first of two receipts the second is, and what cancelled.
pub fn comparison(found: &Comparison, first: usize, second: usize) -> String {
    let mut table = Table::new([
        (format!("receipt {first} over {second}"), Align::Left),
        ("ratio".to_owned(), Align::Left),
        ("known".to_owned(), Align::Left),
    ]);
    let rows = [
        ("duration", Some(&found.duration)),
        ("energy", found.energy.as_ref()),
        ("energy of what was run", found.own_energy.as_ref()),
        ("carbon", found.carbon.as_ref()),
        ("electricity", found.cost.as_ref()),
    ];
    for (name, ratio) in rows {
        let kind = ratio.map_or("", |ratio| ratio.source().kind());
        table.row([name, &ratio.map_or_else(|| "unknown".to_owned(), number::quantity), kind]);
    }
    let mut text = table.to_string();
    if !found.cancelled.is_empty() {
        text += &format!("cancelled, for both have them in common: {}\n", found.cancelled.join(", "));
    }
    for note in &found.notes {
        text += &format!("note: {note}\n");
    }
    text
}
