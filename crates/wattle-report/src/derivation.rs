//! An estimate step by step.

use wattle_meter::Derivation;
use wattle_meter::estimate::RESULTS;

use crate::number;
use crate::table::{Align, Table};

/// The results, with how each came about.
pub fn results(derivation: &Derivation) -> Table {
    let mut table = Table::new([("", Align::Left), ("value", Align::Left), ("how", Align::Left)]);
    for (step, _, name) in RESULTS {
        let Some(found) = derivation.steps().iter().rev().find(|s| s.name == step) else { continue };
        let how = if found.formula.is_empty() { "given" } else { &found.formula };
        table.row([name, &number::quantity(&found.result), how]);
    }
    table
}

/// Every step: name, formula, value with interval, source.
pub fn steps(derivation: &Derivation) -> Table {
    let mut table = Table::new([
        ("step", Align::Left),
        ("formula", Align::Left),
        ("value", Align::Left),
        ("source", Align::Left),
    ]);
    for step in derivation.steps() {
        let (formula, source) = match step.formula.as_str() {
            "" => ("given", step.result.source().to_string()),
            formula => (formula, String::new()),
        };
        table.row([step.name, formula, &number::quantity(&step.result), &source]);
    }
    table
}
