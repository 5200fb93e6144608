//! `wattle accel simulate`: the PE array run tile by tile, beside the model.

use wattle_jobs::accel::{SimulateOptions, Simulated, simulate};
use wattle_report::{Align, Table, number};

use super::request::{Given, ModelArgs};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel simulate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel simulate model.onnx --arch eyeriss-v2")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    given: Given,
    /// A shipped architecture (see `wattle accel archs`) or a .toml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// Largest layer to simulate, in multiply-accumulates; larger ones are left out and named.
    #[arg(long, default_value_t = 300e6)]
    max_macs: f64,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, given, arch, max_macs } = args;
    let options = SimulateOptions { model: model.options(), hardware: given.options(arch), max_macs };
    let found = simulate(&options, context, &mut Bars::default())?;
    context.print(&found, &text(&found, max_macs))
}

fn text(found: &Simulated, max_macs: f64) -> String {
    let mut rows = Table::new([
        ("layer", Align::Left),
        ("simulated", Align::Right),
        ("model", Align::Right),
        ("model/sim", Align::Right),
        ("PEs busy", Align::Right),
    ]);
    for l in &found.layers {
        rows.row([
            l.name.clone(),
            number::count(l.cycles.round()),
            number::count(l.model_cycles.round()),
            format!("{:.2}", l.model_cycles / l.cycles.max(1.0)),
            format!("{} to {}", number::percent(l.busy[0]), number::percent(l.busy[1])),
        ]);
    }
    let mut text = String::new();
    if found.layers.is_empty() {
        text += "nothing was simulated\n";
    } else {
        text += &format!(
            "{rows}\n{} cycles simulated on {}, {} modelled ({:.2}); {}; took {}\n",
            number::count(found.total_cycles.round()),
            found.arch,
            number::count(found.total_model_cycles.round()),
            found.total_model_cycles / found.total_cycles.max(1.0),
            found.values,
            number::seconds(found.seconds)
        );
    }
    if !found.left_out.is_empty() {
        let names = found.left_out.join(", ");
        text += &format!("left out, more than {} MACs: {names}\n", number::count(max_macs));
    }
    found.sources.iter().for_each(|source| text += &format!("source: {source}\n"));
    text
}
