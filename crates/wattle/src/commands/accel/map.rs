//! `wattle accel map`: the best mapping of each layer, with the bound that proves it.

use serde::Serialize;
use wattle_report::{Align, Table, number};

use super::request::{self, ModelArgs};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel map`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel map model.onnx --arch eyeriss-v2 --objective delay")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
}

#[derive(Serialize)]
struct Document {
    arch: String,
    objective: &'static str,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// pJ, cycles, or their product.
    value: f64,
    lower_bound: f64,
    proven: bool,
    branches: u64,
    opened: u64,
    evaluated: u64,
    /// Loops from the outermost in; `x` marks the axes of the array.
    mapping: String,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = request::architecture(&args.arch)?;
    let (workload, _) = args.model.workload(context)?;
    let objective = args.model.objective();
    let estimate = request::estimated(&arch, &workload, objective, context)?;
    let mut table = Table::new([
        ("layer", Align::Left),
        ("gap", Align::Right),
        ("branches", Align::Right),
        ("opened", Align::Right),
        ("mapping", Align::Left),
    ]);
    let mut layers = vec![];
    for l in estimate.layers {
        let m = &l.mapped;
        table.row([
            l.name.clone(),
            if m.proven() { "proven".into() } else { number::percent(m.value / m.lower_bound - 1.0) },
            number::count(m.branches as f64),
            number::count(m.opened as f64),
            m.mapping.to_string(),
        ]);
        layers.push(Layer {
            name: l.name.clone(),
            value: m.value,
            lower_bound: m.lower_bound,
            proven: m.proven(),
            branches: m.branches,
            opened: m.opened,
            evaluated: m.evaluated,
            mapping: m.mapping.to_string(),
        });
    }
    let objective = objective.name();
    let text = format!("{table}\nbest {objective} on {}, within the mapper's space\n", arch.name);
    context.print(&Document { arch: arch.name, objective, layers }, &text)
}
