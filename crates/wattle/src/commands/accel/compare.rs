//! `wattle accel compare`: one model on several architectures.

use std::path::PathBuf;

use serde::Serialize;
use wattle_report::{Align, Table, number};

use super::request::ModelArgs;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::accel::{self, Totals, totals};

/// Arguments of `wattle accel compare`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel compare model.onnx --arch eyeriss-v1,eyeriss-v1.5,eyeriss-v2")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Architectures, separated by commas; ratios are against the first.
    #[arg(long, value_delimiter = ',', default_value = "eyeriss-v1,eyeriss-v1.5,eyeriss-v2")]
    arch: Vec<String>,
    /// Energy table, or binding of an Accelergy table, in place of those of all the architectures.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    /// Always `modelled`.
    kind: &'static str,
    architectures: Vec<Row>,
    sources: Vec<String>,
    /// Why energies may not be compared; empty when all tables are of one technology.
    caveat: String,
}

#[derive(Serialize)]
struct Row {
    arch: String,
    energy_table: String,
    technology: String,
    totals: Totals,
    /// Against the first architecture.
    speed_up: f64,
    /// Against the first; `null` where the technologies differ.
    energy_gain: Option<f64>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let (workload, densities) = args.model.workload(context)?;
    let mut rows: Vec<Row> = vec![];
    let mut sources = vec![densities];
    let mut first: Option<(f64, f64, String)> = None;
    for name in &args.arch {
        let arch = accel::priced(accel::architecture(name)?, args.energy.as_deref())?;
        let table = arch.table()?;
        let estimate =
            accel::estimated(&arch, &workload, args.model.objective(), context, &mut Bars::default())?;
        let (latency, energy) = (estimate.latency_s(), estimate.energy_j());
        let (l, e, technology) = first.get_or_insert((latency, energy, table.technology.clone()));
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 1.0 };
        rows.push(Row {
            arch: arch.name.clone(),
            energy_table: table.id.clone(),
            energy_gain: (*technology == table.technology).then_some(ratio(*e, energy)),
            technology: table.technology,
            speed_up: ratio(*l, latency),
            totals: totals(&estimate),
        });
        sources.extend(estimate.sources.into_iter().filter(|s| !sources.contains(s)).collect::<Vec<_>>());
    }
    let mixed = rows.iter().any(|r| r.energy_gain.is_none());
    let caveat = if mixed { "energies of different technologies are not set against each other" } else { "" };
    let mut table = Table::new([
        ("architecture", Align::Left),
        ("inf/s", Align::Right),
        ("inf/J", Align::Right),
        ("latency", Align::Right),
        ("energy", Align::Right),
        ("DRAM", Align::Right),
        ("useful", Align::Right),
        ("speed", Align::Right),
        ("energy gain", Align::Right),
        ("technology", Align::Left),
    ]);
    let caveat = caveat.to_string();
    let document = Document { schema: 1, kind: "modelled", architectures: rows, sources, caveat };
    for row in &document.architectures {
        let t = &row.totals;
        table.row([
            row.arch.clone(),
            number::plain(t.inferences_per_s),
            number::plain(t.inferences_per_j),
            number::seconds(t.latency_s),
            number::si(t.energy_j, "J"),
            number::si(t.dram_bytes, "B"),
            number::percent(t.utilisation),
            format!("{}x", number::plain(row.speed_up)),
            row.energy_gain.map_or("not comparable".into(), |g| format!("{}x", number::plain(g))),
            row.technology.clone(),
        ]);
    }
    let mut text = format!("{table}\nall modelled; ratios against the first\n");
    if mixed {
        text += &format!("{}\n", document.caveat);
    }
    for source in &document.sources {
        text += &format!("source: {source}\n");
    }
    context.print(&document, &text)
}
