//! `wattle accel explain`: Eyexam's seven bounds, layer by layer and summed, the layers that lose most, and what
//! would help them.

use wattle_accel::STEPS;
use wattle_jobs::accel::explain::Layer;
use wattle_jobs::accel::{ExplainOptions, Explained, explain};
use wattle_report::{Align, Table, number};

use super::request::{Given, ModelArgs};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Width of the longest bar of the waterfall, in characters.
const BAR: usize = 40;

/// Arguments of `wattle accel explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel explain model.onnx --arch eyeriss-v2 --worst 5")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    given: Given,
    /// A shipped architecture (see `wattle accel archs`) or a .toml or .yaml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// How many layers to show, those that lose most cycles first.
    #[arg(long, default_value_t = 8)]
    worst: usize,
    /// For how many of them to try what would help: each is mapped again after every change.
    #[arg(long, default_value_t = 3)]
    remedies: usize,
    /// Largest layer to simulate for the last step, in multiply-accumulates; the model sets it for larger ones, for
    /// all with 0, and for all on architectures of more than one buffer.
    #[arg(long, default_value_t = 20e6)]
    max_macs: f64,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let options = ExplainOptions {
        model: args.model.options(),
        hardware: args.given.options(args.arch),
        remedies: args.remedies.min(args.worst),
        max_macs: args.max_macs,
    };
    let found = explain(&options, context, &mut Bars::default())?;
    context.print(&found, &text(&found, args.worst, args.max_macs))
}

fn text(found: &Explained, most: usize, max_macs: f64) -> String {
    let layers = &found.layers;
    let mut text = String::new();
    if layers.is_empty() {
        text += "nothing to explain: no convolution or matrix product in the model\n";
    } else {
        let all: f64 = layers.iter().map(|l| l.lost_cycles).sum();
        text += &waterfall(&found.bounds, &found.arch, found.multipliers as f64);
        text += &format!("\n{}\n", worst(&layers[..most.min(layers.len())], all));
        text += "multiplications a cycle after each step; lost: cycles beyond those of fully busy multipliers, and \
                 their share\n";
        text += &match &found.not_simulated {
            None => last_step(layers, max_macs),
            Some(error) => format!("step 7: modelled; {error}\n"),
        };
        for layer in layers.iter().filter(|layer| layer.would_help.is_some()) {
            text += &helped(layer);
        }
    }
    found.sources.iter().for_each(|source| text += &format!("source: {source}\n"));
    text
}

/// What set the last step: the simulator, or the model where a layer was too large for it.
fn last_step(layers: &[Layer], max_macs: f64) -> String {
    let modelled: Vec<&str> =
        layers.iter().filter(|l| l.last_step == "modelled").map(|l| l.name.as_str()).collect();
    let simulated = layers.len() - modelled.len();
    let mut text = format!(
        "step 7: simulated on {simulated} of {} layers, with zeros of known masks and all else drawn to \
         the densities",
        layers.len()
    );
    if !modelled.is_empty() {
        text += &format!(
            "; modelled on {}, which have more than {} MACs (--max-macs)",
            modelled.join(", "),
            number::count(max_macs)
        );
    }
    text + "\n"
}

/// The network's bounds as bars; the first two steps know no array and have none.
fn waterfall(bounds: &[f64; 7], arch: &str, peak: f64) -> String {
    let mut text = format!("the whole network on {arch}, multiplications a cycle of {peak}, modelled\n\n");
    for (step, (&bound, name)) in bounds.iter().zip(STEPS).enumerate() {
        let length = (bound / peak * BAR as f64).round() as usize;
        let bar = if length > BAR { format!("{}>", "█".repeat(BAR)) } else { "█".repeat(length) };
        let share = if bound > peak { String::new() } else { number::percent(bound / peak) };
        text += format!("{} {name:<26} {:>8}  {share:>7}  {bar}", step + 1, number::count(bound.round()))
            .trim_end();
        text.push('\n');
    }
    text
}

fn worst(layers: &[Layer], all: f64) -> Table {
    let mut table = Table::new(
        [("layer", Align::Left)]
            .into_iter()
            .chain(["shape", "flow", "PEs", "array", "store", "bandw.", "access"].map(|s| (s, Align::Right)))
            .chain([("lost", Align::Right), ("", Align::Right), ("held back by", Align::Left)]),
    );
    for layer in layers {
        let bounds = layer.bounds.map(|b| if b < 9999.5 { number::plain(b) } else { number::count(b) });
        let tail = [
            number::count(layer.lost_cycles.round()),
            number::percent(if all > 0.0 { layer.lost_cycles / all } else { 0.0 }),
            layer.held_back_by.to_string(),
        ];
        table.row([layer.name.clone()].into_iter().chain(bounds).chain(tail));
    }
    table
}

/// What would help a layer, as tried.
fn helped(layer: &Layer) -> String {
    let mut text = format!("{}, held back by {}: {}\n", layer.name, layer.held_back_by, layer.advice);
    if layer.held_back_by == STEPS[5]
        && let Some((name, _)) = layer.bandwidths.iter().min_by(|a, b| a.1.total_cmp(b.1))
    {
        text += &format!("  the tightest is that of the {name}\n");
    }
    let Some(list) = &layer.would_help else { return text };
    if list.is_empty() {
        text += "  nothing of what was tried helps\n";
    }
    for help in list {
        text += &format!(
            "  {}: {}x the speed, {}x the inferences/J\n",
            help.change,
            number::plain(help.speed_up),
            number::plain(help.energy_gain)
        );
    }
    text
}
