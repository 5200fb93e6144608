//! `wattle accel explain`: Eyexam's seven bounds, layer by layer and summed, the layers that lose most, and what
//! would help them.

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_accel::{
    Effort, LayerEstimate, Remedy, STEPS, bandwidths, eyexam, made_up, network_bounds, remedies, simulate,
    simulates,
};
use wattle_report::{Align, Table, number};

use super::request::{Given, ModelArgs};
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

#[derive(Serialize)]
struct Document {
    schema: u32,
    arch: String,
    /// Always `modelled`.
    kind: &'static str,
    multipliers: usize,
    steps: [&'static str; 7],
    /// The whole network, in multiplications a cycle after each step.
    bounds: [f64; 7],
    layers: Vec<Layer>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// Multiplications a cycle after each step.
    bounds: [f64; 7],
    /// The sixth step for each network and memory that limits delivery, alone.
    bandwidths: BTreeMap<String, f64>,
    /// Whether `simulated` or `modelled` cycles set the last step; `cycles` are these.
    last_step: &'static str,
    cycles: f64,
    model_cycles: f64,
    /// Cycles beyond those that fully busy multipliers would take.
    lost_cycles: f64,
    /// The step after the size of the layer at which most is lost.
    held_back_by: &'static str,
    advice: &'static str,
    /// What was tried, where it was: those that help, best first.
    would_help: Option<Vec<Help>>,
}

/// The layer mapped again after one change.
#[derive(Serialize)]
struct Help {
    change: String,
    speed_up: f64,
    energy_gain: f64,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = args.given.architecture(&args.arch)?;
    let (workload, densities) = args.model.workload(context)?;
    let objective = args.model.objective();
    let estimate = args.given.estimate(&arch, &workload, objective, context)?;
    let table = arch.table()?;
    let can_simulate = simulates(&arch).is_ok();
    let mut examined: Vec<Examined<'_>> = vec![];
    let bar = crate::bars::bar("simulating", estimate.layers.len() as u64);
    for found in &estimate.layers {
        bar.inc(1);
        let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) else { continue };
        let mut simulated = None;
        if can_simulate && layer.macs() <= args.max_macs {
            let (iacts, weights) = made_up(layer, 1);
            let mapped = &found.mapped;
            let run = simulate(&arch, layer, &table, mapped.format, &mapped.mapping, &iacts, &weights)?;
            simulated = Some(run.cycles);
        }
        examined.push(Examined { found, bounds: eyexam(&arch, layer, found, simulated)?, simulated });
    }
    bar.finish_and_clear();
    let pairs: Vec<_> = examined.iter().map(|e| (e.found, e.bounds)).collect();
    let bounds = network_bounds(&arch, &pairs);
    let peak = arch.multipliers() as f64;
    let lost = |e: &Examined<'_>| e.cycles() * (1.0 - e.bounds[6] / peak);
    examined.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    let tried = args.remedies.min(args.worst).min(examined.len());
    let bar = crate::bars::bar("trying what would help", tried as u64);
    let mut layers = vec![];
    for (index, examined) in examined.iter().enumerate() {
        let Examined { found, bounds, simulated } = examined;
        let step = held_back(bounds, peak);
        let layer = workload.layers.iter().find(|l| l.name == found.name);
        let would_help = match layer.filter(|_| index < tried) {
            Some(layer) => {
                let list = remedies(&arch, layer, found, objective, Effort::default())?;
                bar.inc(1);
                Some(list.into_iter().map(help).collect())
            }
            None => None,
        };
        layers.push(Layer {
            name: found.name.clone(),
            bounds: *bounds,
            bandwidths: bandwidths(&arch, found).into_iter().collect(),
            last_step: if simulated.is_some() { "simulated" } else { "modelled" },
            cycles: examined.cycles(),
            model_cycles: found.mapped.cost.cycles.total(),
            lost_cycles: lost(examined),
            held_back_by: STEPS[step],
            advice: advice(step),
            would_help,
        });
    }
    bar.finish_and_clear();
    let all: f64 = layers.iter().map(|l| l.lost_cycles).sum();
    let mut text = String::new();
    if layers.is_empty() {
        text += "nothing to explain: no convolution or matrix product in the model\n";
    } else {
        text += &waterfall(&bounds, &arch.name, peak);
        text += &format!("\n{}\n", worst(&layers[..args.worst.min(layers.len())], all));
        text += "multiplications a cycle after each step; lost: cycles beyond those of fully busy multipliers, and \
                 their share\n";
        text += &match simulates(&arch) {
            Ok(()) => last_step(&layers, args.max_macs),
            Err(error) => format!("step 7: modelled; {error}\n"),
        };
        for layer in layers.iter().take(tried) {
            text += &helped(layer);
        }
    }
    let mut sources = estimate.sources.clone();
    sources.push(densities);
    sources.iter().for_each(|source| text += &format!("source: {source}\n"));
    let document = Document {
        schema: 1,
        multipliers: arch.multipliers(),
        arch: arch.name,
        kind: "modelled",
        steps: STEPS,
        bounds,
        layers,
        sources,
    };
    context.print(&document, &text)
}

/// A layer with its bounds, and with its cycles where it was simulated.
struct Examined<'a> {
    found: &'a LayerEstimate,
    bounds: [f64; 7],
    simulated: Option<f64>,
}

impl Examined<'_> {
    /// Simulated cycles, or the model's.
    fn cycles(&self) -> f64 {
        self.simulated.unwrap_or(self.found.mapped.cost.cycles.total())
    }
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

fn help(remedy: Remedy) -> Help {
    Help { change: remedy.change, speed_up: remedy.speed_up, energy_gain: remedy.energy_gain }
}

/// The step at which the largest share of what the array could do is lost.
fn held_back(bounds: &[f64; 7], peak: f64) -> usize {
    let loss = |step: usize| bounds[step - 1].min(peak) / bounds[step].max(f64::MIN_POSITIVE);
    (1..7).max_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap_or(6)
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
