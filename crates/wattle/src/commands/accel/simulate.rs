//! `wattle accel simulate`: the PE array run tile by tile, beside the model.

use std::time::Instant;

use serde::Serialize;
use wattle_accel::{made_up, simulate};
use wattle_report::{Align, Table, number};

use super::request::{Given, ModelArgs};
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

#[derive(Serialize)]
struct Document {
    schema: u32,
    arch: String,
    layers: Vec<Layer>,
    left_out: Vec<String>,
    /// All layers that were simulated, by the simulator and by the model.
    total_cycles: f64,
    total_model_cycles: f64,
    seconds: f64,
    values: &'static str,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    cycles: f64,
    model_cycles: f64,
    products: u64,
    /// Share of the cycles in which the PEs multiply, least and most busy one.
    busy: [f64; 2],
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = args.given.architecture(&args.arch)?;
    let table = arch.table()?;
    let (workload, densities) = args.model.workload(context)?;
    let estimate = args.given.estimate(&arch, &workload, args.model.objective(), context)?;
    let (mut layers, mut left_out, mut seconds) = (vec![], vec![], 0.0);
    let bar = crate::bars::bar("simulating", estimate.layers.len() as u64);
    for found in &estimate.layers {
        bar.inc(1);
        let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) else { continue };
        if layer.macs() > args.max_macs {
            left_out.push(layer.name.clone());
            continue;
        }
        let (iacts, weights) = made_up(layer, 1);
        let start = Instant::now();
        let mapped = &found.mapped;
        let run = simulate(&arch, layer, &table, mapped.format, &mapped.mapping, &iacts, &weights)?;
        seconds += start.elapsed().as_secs_f64();
        let share = |x: f64| x / run.cycles.max(1.0);
        let least = run.busy.iter().copied().fold(f64::INFINITY, f64::min);
        let most = run.busy.iter().copied().fold(0.0, f64::max);
        layers.push(Layer {
            name: layer.name.clone(),
            cycles: run.cycles,
            model_cycles: mapped.cost.cycles.total(),
            products: run.products,
            busy: [share(least), share(most)],
        });
    }
    bar.finish_and_clear();
    let mut rows = Table::new([
        ("layer", Align::Left),
        ("simulated", Align::Right),
        ("model", Align::Right),
        ("model/sim", Align::Right),
        ("PEs busy", Align::Right),
    ]);
    for l in &layers {
        rows.row([
            l.name.clone(),
            number::count(l.cycles.round()),
            number::count(l.model_cycles.round()),
            format!("{:.2}", l.model_cycles / l.cycles.max(1.0)),
            format!("{} to {}", number::percent(l.busy[0]), number::percent(l.busy[1])),
        ]);
    }
    let values = "zeros of known masks, all else drawn to the densities";
    let [total_cycles, total_model_cycles] =
        [|l: &Layer| l.cycles, |l: &Layer| l.model_cycles].map(|of| layers.iter().map(of).sum::<f64>());
    let mut text = String::new();
    if layers.is_empty() {
        text += "nothing was simulated\n";
    } else {
        text += &format!(
            "{rows}\n{} cycles simulated on {}, {} modelled ({:.2}); {values}; took {}\n",
            number::count(total_cycles.round()),
            arch.name,
            number::count(total_model_cycles.round()),
            total_model_cycles / total_cycles.max(1.0),
            number::seconds(seconds)
        );
    }
    if !left_out.is_empty() {
        text +=
            &format!("left out, more than {} MACs: {}\n", number::count(args.max_macs), left_out.join(", "));
    }
    let mut sources = estimate.sources;
    sources.push(densities);
    sources.iter().for_each(|source| text += &format!("source: {source}\n"));
    let document = Document {
        schema: 1,
        arch: arch.name,
        layers,
        left_out,
        total_cycles,
        total_model_cycles,
        seconds,
        values,
        sources,
    };
    context.print(&document, &text)
}
