//! `wattle accel map`: the best mapping of each layer with the bound that proves it, the front of energy and delay,
//! or the cost of mappings that are given.

use std::path::PathBuf;
use std::time::Duration;

use wattle_jobs::accel::map::{Best, Fronts, Infeasible, MapOptions, Mapped, map};
use wattle_jobs::accel::request::HardwareOptions;
use wattle_report::{Align, Table, number};

use super::request::ModelArgs;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle accel map`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  wattle accel map model.onnx --arch eyeriss-v2 --objective delay --out best.json\n  \
                        wattle accel map model.onnx --mapping best.json\n  wattle accel map model.onnx --front"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml or .yaml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
    /// Loop factors, orders and spatial loops that are fixed or bounded (.toml, .yaml).
    #[arg(long, value_name = "FILE")]
    constraints: Option<PathBuf>,
    /// Stop the search of a layer after this time, with the best so far and its gap.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// All mappings that no other beats in both energy and delay.
    #[arg(long, conflicts_with = "objective")]
    front: bool,
    /// Evaluate these mappings as given instead of searching.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["front", "constraints", "seconds"])]
    mapping: Option<PathBuf>,
    /// Write the mappings to this file, which `--mapping` takes.
    #[arg(long, value_name = "FILE", conflicts_with = "front")]
    out: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of seconds".to_string())?;
    let valid = Duration::try_from_secs_f64(value).ok().filter(|d| *d < Duration::from_secs(1 << 30));
    valid.ok_or_else(|| format!("found {value}, expected a number of seconds, 0 or more"))
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let options = MapOptions {
        model: args.model.options(),
        hardware: HardwareOptions { arch: args.arch, energy: args.energy, mapping: args.mapping },
        constraints: args.constraints,
        time: args.seconds,
        front: args.front,
        out: args.out,
    };
    let found = map(&options, context, &mut Bars::default())?;
    let text = match &found {
        Mapped::Best(best) => best_text(best, options.hardware.mapping.is_some()),
        Mapped::Front(fronts) => front_text(fronts),
    };
    context.print(&found, &text)
}

fn best_text(best: &Best, given: bool) -> String {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("energy", Align::Right),
        ("cycles", Align::Right),
        ("gap", Align::Right),
        ("opened", Align::Right),
        ("mapping", Align::Left),
    ]);
    for layer in &best.layers {
        let gap = match (layer.lower_bound, layer.proven) {
            (None, _) => "as given".to_string(),
            (_, true) => "proven".to_string(),
            (Some(bound), false) => number::percent(layer.value / bound - 1.0),
        };
        table.row([
            layer.name.clone(),
            number::si(layer.energy_pj * 1e-12, "J"),
            number::count(layer.cycles),
            gap,
            format!("{} of {}", number::count(layer.opened as f64), number::count(layer.branches as f64)),
            layer.mapping.clone(),
        ]);
    }
    // From zero, since a sum of nothing is minus zero.
    let [energy, cycles] =
        best.layers.iter().fold([0.0; 2], |[energy, cycles], l| [energy + l.energy_pj, cycles + l.cycles]);
    let (count, energy, cycles) = (best.layers.len(), number::si(energy * 1e-12, "J"), number::count(cycles));
    let claim = if given {
        "evaluated as given, nothing searched".to_string()
    } else {
        let proven = best.layers.iter().filter(|l| l.proven).count();
        let (least, space) = (best.objective, best.space);
        format!("least {least} proven for {proven} of {count} layers, within this space: {space}")
    };
    format!(
        "{table}\n{count} layers: {energy}, {cycles} cycles, modelled on {}\n{claim}\n{}",
        best.arch,
        left_over(&best.infeasible)
    )
}

fn front_text(fronts: &Fronts) -> String {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("energy", Align::Right),
        ("cycles", Align::Right),
        ("mapping", Align::Left),
    ]);
    for layer in &fronts.layers {
        for (at, point) in layer.points.iter().enumerate() {
            table.row([
                if at == 0 { layer.name.clone() } else { String::new() },
                number::si(point.energy_pj * 1e-12, "J"),
                number::count(point.cycles),
                point.mapping.clone(),
            ]);
        }
    }
    let proven = fronts.layers.iter().filter(|l| l.proven).count();
    format!(
        "{table}\nmappings on {} that no other beats in both energy and delay, modelled; proven for {proven} of {} \
         layers, within this space: {}\n{}",
        fronts.arch,
        fronts.layers.len(),
        fronts.space,
        left_over(&fronts.infeasible)
    )
}

fn left_over(infeasible: &[Infeasible]) -> String {
    infeasible.iter().map(|l| format!("no mapping: {}\n", l.reason)).collect()
}
