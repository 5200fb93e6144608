//! `wattle profile`: what a model costs, node by node, counted and, if asked, measured.

use wattle_jobs::models::{InputText, parse_input};
use wattle_jobs::{ProfileOptions, Profiled, profile};
use wattle_report::{Align, Table, number};

use super::model::ModelFile;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle profile`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle profile model.onnx --input x=1x3x416x416 --measure")]
pub struct Args {
    #[command(flatten)]
    model: ModelFile,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Run the model and say how long each node takes.
    #[arg(long)]
    pub measure: bool,
    /// Also what this architecture would make of it (see `wattle accel archs`), or one in a .toml or .yaml file:
    /// modelled, zeros of weights as counted, activations dense.
    #[arg(long, value_name = "ARCH")]
    accel: Option<String>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, inputs, measure, accel } = args;
    let options = ProfileOptions { model: model.path(), inputs, measure, accel };
    let profiled = profile(&options, context, &mut Bars::default())?;
    context.print(&profiled, &text(&profiled))
}

fn text(profiled: &Profiled) -> String {
    let mut columns = vec![
        ("node", Align::Left),
        ("op", Align::Left),
        ("params", Align::Right),
        ("MACs", Align::Right),
        ("density", Align::Right),
        ("ms", Align::Right),
    ];
    if profiled.accel.is_some() {
        columns.extend([("cycles", Align::Right), ("energy", Align::Right)]);
    }
    let mut table = Table::new(columns);
    for node in &profiled.nodes {
        let mut row = vec![
            node.name.clone(),
            node.op.to_string(),
            if node.params > 0 { number::count(node.params as f64) } else { String::new() },
            if node.macs > 0 { number::count(node.macs as f64) } else { String::new() },
            node.density.map_or(String::new(), number::percent),
            node.ms.map_or(String::new(), |ms| format!("{ms:.3}")),
        ];
        if let Some(on) = node.accel.flatten() {
            row.extend([number::count(on.cycles.round()), number::si(on.energy_j, "J")]);
        }
        table.row(row);
    }
    let t = &profiled.totals;
    let mut text = table.to_string();
    for node in &profiled.nodes {
        if let (Some(kernel), Some(why)) = (&node.kernel, &node.why) {
            text += &format!("{}: {kernel}: {why}\n", node.name);
        }
    }
    text += &format!(
        "\nparameters {} ({} non-zero), MACs {} ({} effective), read {}, written {}\n",
        number::count(t.params as f64),
        number::count(t.params_nonzero as f64),
        number::count(t.macs as f64),
        number::count(t.macs_effective as f64),
        number::si(t.bytes_read as f64, "B"),
        number::si(t.bytes_written as f64, "B"),
    );
    if let Some(accel) = &profiled.accel {
        text += &format!("{}\n", accel.sentence());
    }
    for (kind, macs) in &t.macs_separate {
        text += &format!("counted apart: {} MACs of kind {kind}\n", number::count(*macs as f64));
    }
    if let (Some(ms), Some(m)) = (t.ms, &profiled.measured) {
        text += &format!(
            "measured on {}: {ms:.3} ms, median of {} runs, {} threads, {}\n",
            m.inputs, m.runs, m.threads, m.isa
        );
        if let Some(parts) = m.parts {
            text += &format!("the batch was run in {parts} parts, all layers for each in turn\n");
        }
        if !m.interpreted_nodes.is_empty() {
            text += &format!("no kernel, interpreted: {}\n", m.interpreted_nodes.join(", "));
        }
    }
    text
}
