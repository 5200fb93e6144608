//! `wattle accel explain`: Eyexam's seven bounds, layer by layer and summed, and the layers that lose most.

use serde::Serialize;
use wattle_accel::{STEPS, eyexam};
use wattle_report::{Align, Table, number};

use super::request::{self, ModelArgs};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel explain model.onnx --arch eyeriss-v2 --worst 5")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// How many layers to show, those that lose most cycles first.
    #[arg(long, default_value_t = 8)]
    worst: usize,
}

#[derive(Serialize)]
struct Document {
    arch: String,
    multipliers: usize,
    steps: [&'static str; 7],
    layers: Vec<Layer>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// Multiplications a cycle after each step; the last from the model.
    bounds: [f64; 7],
    cycles: f64,
    /// Cycles beyond those that fully busy multipliers would take.
    lost_cycles: f64,
    /// The step after the number of PEs at which most is lost.
    held_back_by: &'static str,
    advice: &'static str,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = request::architecture(&args.arch)?;
    let (workload, densities) = args.model.workload(context)?;
    let estimate = request::estimated(&arch, &workload, args.model.objective(), context)?;
    let mut layers = vec![];
    for found in &estimate.layers {
        let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) else { continue };
        let bounds = eyexam(&arch, layer, found, None)?;
        let cycles = found.mapped.cost.cycles.total();
        let step = (1..7).max_by(|&a, &b| {
            let loss = |s: usize| bounds[s - 1].min(arch.multipliers() as f64) / bounds[s];
            loss(a).total_cmp(&loss(b))
        });
        let step = step.unwrap_or(6);
        layers.push(Layer {
            name: found.name.clone(),
            bounds,
            cycles,
            lost_cycles: cycles * (1.0 - bounds[6] / arch.multipliers() as f64),
            held_back_by: STEPS[step],
            advice: advice(step),
        });
    }
    layers.sort_by(|a, b| b.lost_cycles.total_cmp(&a.lost_cycles));
    let mut table = Table::new(
        [("layer", Align::Left)]
            .into_iter()
            .chain(["shape", "flow", "PEs", "array", "store", "bandw.", "model"].map(|s| (s, Align::Right)))
            .chain([("lost", Align::Right), ("held back by", Align::Left)]),
    );
    for layer in layers.iter().take(args.worst) {
        let bounds = layer.bounds.map(number::count);
        let tail = [number::count(layer.lost_cycles), layer.held_back_by.to_string()];
        table.row([layer.name.clone()].into_iter().chain(bounds).chain(tail));
    }
    let mut text = format!(
        "{table}\nmultiplications a cycle after each of Eyexam's steps, of {} at most on {}; modelled\n",
        arch.multipliers(),
        arch.name
    );
    if let Some(worst) = layers.first() {
        text += &format!("{} loses most, to {}: {}\n", worst.name, worst.held_back_by, worst.advice);
    }
    let mut sources = estimate.sources;
    sources.push(densities);
    let document =
        Document { multipliers: arch.multipliers(), arch: arch.name, steps: STEPS, layers, sources };
    context.print(&document, &text)
}

/// What would lift a bound.
fn advice(step: usize) -> &'static str {
    match step {
        1 => "spread other loops over the array: a more flexible dataflow, or a larger batch",
        2 => "extents that are multiples of the array's size leave fewer PEs idle in the last round",
        3 => "channel counts that are multiples of the axes' sizes fill the array",
        4 => "larger scratch pads, or fewer taps and channels a PE",
        5 => "more ports, more reuse, or a sparser operand that travels compressed",
        _ => {
            "balance non-zeros over channels and filters (structured pruning), or larger maps to amortise loads"
        }
    }
}
