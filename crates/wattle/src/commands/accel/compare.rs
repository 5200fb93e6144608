//! `wattle accel compare`: one model on several architectures.

use std::path::PathBuf;

use wattle_jobs::accel::{CompareOptions, Compared, compare};
use wattle_report::{Align, Table, number};

use super::request::ModelArgs;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

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

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, arch, energy } = args;
    let options = CompareOptions { model: model.options(), archs: arch, energy };
    let found = compare(&options, context, &mut Bars::default())?;
    context.print(&found, &text(&found))
}

fn text(found: &Compared) -> String {
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
    let ratio = |gain: Option<f64>| {
        gain.map_or("not comparable".to_string(), |gain| format!("{}x", number::plain(gain)))
    };
    for row in &found.architectures {
        let t = &row.totals;
        table.row([
            row.arch.clone(),
            number::plain(t.inferences_per_s),
            number::plain(t.inferences_per_j),
            number::seconds(t.latency_s),
            number::si(t.energy_j, "J"),
            number::si(t.dram_bytes, "B"),
            number::percent(t.utilisation),
            ratio(row.speed_up),
            ratio(row.energy_gain),
            row.technology.clone(),
        ]);
    }
    let mut text = format!("{table}\nall modelled; ratios against the first\n");
    if !found.caveat.is_empty() {
        text += &format!("{}\n", found.caveat);
    }
    for source in &found.sources {
        text += &format!("source: {source}\n");
    }
    text
}
