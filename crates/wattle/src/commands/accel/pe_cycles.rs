//! `wattle accel pe-cycles`: cycles of one lane of the compressed processing element, from non-zero counts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wattle_accel::pe;
use wattle_report::{Align, Table};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel pe-cycles`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel pe-cycles counts.json --json")]
pub struct Args {
    /// JSON: for each 1x1 layer C, M, E, F and the lists nnz_iact and nnz_weight, one count an input channel.
    file: PathBuf,
}

const WANTED: &str = "expected {\"layer\": {\"C\": 2, \"M\": 3, \"E\": 1, \"F\": 4, \"nnz_iact\": [4, 3], \"nnz_weight\": [1, 3]}}";

/// A layer of the file; the counts alone decide, the shape bounds them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(non_snake_case, reason = "the names that papers on Eyeriss use")]
struct Counts {
    C: u64,
    M: u64,
    E: u64,
    F: u64,
    nnz_iact: Vec<u64>,
    nnz_weight: Vec<u64>,
    /// Published cycles, not read here.
    #[serde(rename = "cycles")]
    _cycles: Option<u64>,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    layers: Vec<Cycles>,
    source: &'static str,
}

#[derive(Serialize)]
struct Cycles {
    name: String,
    cycles: u64,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let place = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file).map_err(|e| Failure::at(&place, e))?;
    let file: BTreeMap<String, Counts> =
        serde_json::from_str(&text).map_err(|e| Failure::at(&place, format!("{e}; {WANTED}")))?;
    let mut layers = vec![];
    for (name, layer) in file {
        check(&name, &layer).map_err(|f| f.context(&place))?;
        let cycles = pe::cycles_from_counts(&name, &layer.nnz_iact, &layer.nnz_weight)
            .map_err(|e| Failure::at(&place, e))?;
        layers.push(Cycles { name, cycles });
    }
    let mut table = Table::new([("layer", Align::Left), ("cycles", Align::Right)]);
    for layer in &layers {
        table.row([layer.name.clone(), layer.cycles.to_string()]);
    }
    let source = "counted: sum over channels of nnz_iact x nnz_weight, one lane, no stalls";
    let text = format!("{table}\n{source}\n");
    context.print(&Document { schema: 1, layers, source }, &text)
}

/// Counts may not exceed what the shape has room for.
fn check(name: &str, layer: &Counts) -> Result<(), Failure> {
    let room = layer.E.saturating_mul(layer.F);
    for (list, counts, most) in
        [("nnz_iact", &layer.nnz_iact, room), ("nnz_weight", &layer.nnz_weight, layer.M)]
    {
        if counts.len() as u64 != layer.C {
            let found = counts.len();
            return Err(Failure::at(
                format!("layer `{name}`"),
                format!("{list} has {found} entries, expected C = {}", layer.C),
            ));
        }
        if let Some(count) = counts.iter().find(|&&n| n > most) {
            return Err(Failure::at(
                format!("layer `{name}`"),
                format!("{list} has a count of {count}, expected at most {most}"),
            ));
        }
    }
    Ok(())
}
