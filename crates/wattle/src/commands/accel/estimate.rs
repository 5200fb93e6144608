//! `wattle accel estimate`: latency and energy of a model on an architecture, layer by layer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::{Estimate, HostWork, Layer as WorkloadLayer, LayerEstimate, Sparsity, Workload};
use wattle_report::{Align, Table, number};

use super::request::{Given, ModelArgs};
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::accel::{Totals, totals};

/// Arguments of `wattle accel estimate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle accel estimate model.onnx --arch eyeriss-v2 --input x=1x3x224x224")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A shipped architecture (see `wattle accel archs`) or a .toml file.
    #[arg(long, default_value = "eyeriss-v2")]
    arch: String,
    /// Also write an HTML report.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

/// The result as JSON; version 1.
#[derive(Serialize)]
pub struct Document {
    schema: u32,
    arch: String,
    /// Always `modelled`.
    kind: &'static str,
    totals: Totals,
    layers: Vec<Layer>,
    host: Vec<Host>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: &'static str,
    macs: f64,
    macs_effective: f64,
    density: Density,
    /// By input channel over all groups, where the channels are known and differ.
    channel_density: ChannelDensity,
    cycles: f64,
    energy_j: f64,
    /// Joules by component; they sum to `energy_j`.
    energy_parts_j: BTreeMap<String, f64>,
    utilisation: f64,
    mode: String,
    compressed: Compressed,
    bound: String,
    mapping: String,
}

/// Fractions that are not zero.
#[derive(Serialize)]
struct Density {
    iact: f64,
    weight: f64,
}

#[derive(Serialize)]
struct ChannelDensity {
    iact: Option<Vec<f64>>,
    weight: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct Compressed {
    iact: bool,
    weight: bool,
}

#[derive(Serialize)]
struct Host {
    name: String,
    op: String,
    macs: u64,
    element_ops: u64,
    reason: &'static str,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arch = args.given.architecture(&args.arch)?;
    let (workload, densities) = args.model.workload(context)?;
    let mut estimate = args.given.estimate(&arch, &workload, args.model.objective(), context)?;
    estimate.sources.push(densities);
    if let Some(path) = &args.report {
        let html = wattle_accel::report(&arch, &workload, &estimate)?;
        std::fs::write(path, html).map_err(|e| Failure::at(path.display(), e))?;
    }
    context.print(&document(&estimate, &workload), &text(&estimate, &workload))
}

/// The layer that was mapped; both lists have the network's order and unique names.
fn layer_of<'a>(workload: &'a Workload, found: &LayerEstimate) -> Option<&'a WorkloadLayer> {
    workload.layers.iter().find(|l| l.name == found.name)
}

/// Densities of the channels where they differ, to six places.
fn of_channels(sparsity: &Sparsity) -> Option<Vec<f64>> {
    let list = sparsity.per_channel.as_ref()?;
    let differ = list.iter().any(|d| (d - sparsity.density).abs() > 1e-9);
    differ.then(|| list.iter().map(|d| (d * 1e6).round() / 1e6).collect())
}

/// The whole estimate as JSON.
pub fn document(estimate: &Estimate, workload: &Workload) -> Document {
    let parts = |l: &LayerEstimate| {
        let parts = l.mapped.cost.energy.parts(&estimate.buffers).into_iter();
        parts.map(|(part, pj)| (part.to_string(), pj * 1e-12)).collect()
    };
    let layer = |l: &LayerEstimate| {
        let (dense, given) = (Sparsity::dense(), layer_of(workload, l));
        let [iact, weight] = given.map_or([&dense; 2], |l| [&l.iact, &l.weight]);
        Layer {
            name: l.name.clone(),
            kind: l.kind.name(),
            macs: l.macs,
            macs_effective: l.effective_macs,
            density: Density { iact: iact.density, weight: weight.density },
            channel_density: ChannelDensity { iact: of_channels(iact), weight: of_channels(weight) },
            cycles: l.mapped.cost.cycles.total(),
            energy_j: l.mapped.cost.energy.total() * 1e-12,
            energy_parts_j: parts(l),
            utilisation: l.utilisation,
            mode: l.mode.clone(),
            compressed: Compressed { iact: l.mapped.format.iact, weight: l.mapped.format.weight },
            bound: l.mapped.cost.cycles.bound().name(&estimate.buffers).to_string(),
            mapping: l.mapped.mapping.text(&estimate.buffers),
        }
    };
    let host = |h: &HostWork| Host {
        name: h.name.clone(),
        op: h.op.clone(),
        macs: h.macs,
        element_ops: h.element_ops,
        reason: h.reason,
    };
    Document {
        schema: 1,
        arch: estimate.arch.clone(),
        kind: "modelled",
        totals: totals(estimate),
        layers: estimate.layers.iter().map(layer).collect(),
        host: estimate.host.iter().map(host).collect(),
        sources: estimate.sources.clone(),
    }
}

/// `iact`, `weight`, both or `-`.
fn compressed(l: &LayerEstimate) -> &'static str {
    match (l.mapped.format.iact, l.mapped.format.weight) {
        (true, true) => "both",
        (true, false) => "iact",
        (false, true) => "weight",
        (false, false) => "-",
    }
}

fn text(estimate: &Estimate, workload: &Workload) -> String {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("MACs", Align::Right),
        ("iact", Align::Right),
        ("weight", Align::Right),
        ("CSC", Align::Left),
        ("cycles", Align::Right),
        ("energy", Align::Right),
        ("useful", Align::Right),
        ("bound", Align::Left),
        ("network", Align::Left),
    ]);
    for l in &estimate.layers {
        let density = |of: fn(&WorkloadLayer) -> f64| {
            layer_of(workload, l).map_or(String::new(), |layer| format!("{:.0} %", 100.0 * of(layer)))
        };
        table.row([
            l.name.clone(),
            number::count(l.macs),
            density(|l| l.iact.density),
            density(|l| l.weight.density),
            compressed(l).to_string(),
            number::count(l.mapped.cost.cycles.total().round()),
            number::si(l.mapped.cost.energy.total() * 1e-12, "J"),
            number::percent(l.utilisation),
            l.mapped.cost.cycles.bound().name(&estimate.buffers).to_string(),
            l.mode.clone(),
        ]);
    }
    let mut text = String::new();
    if estimate.layers.is_empty() {
        text +=
            &format!("nothing for {} to do: no convolution or matrix product in the model\n", estimate.arch);
    } else {
        let t = totals(estimate);
        text += &format!(
            "{table}\nmodelled on {}: {} and {} an inference ({} without DRAM)\n{} inferences/s, {} \
             inferences/J, DRAM {}, multipliers usefully busy {}\n",
            estimate.arch,
            number::seconds(t.latency_s),
            number::si(t.energy_j, "J"),
            number::si(t.chip_energy_j, "J"),
            number::plain(t.inferences_per_s),
            number::plain(t.inferences_per_j),
            number::si(t.dram_bytes, "B"),
            number::percent(t.utilisation),
        );
    }
    text += &host_text(&estimate.host);
    for source in &estimate.sources {
        text += &format!("source: {source}\n");
    }
    text
}

/// What is left to the host: each node that multiplies or that nobody knows, the others counted.
fn host_text(host: &[HostWork]) -> String {
    let (apart, rest): (Vec<&HostWork>, Vec<&HostWork>) =
        host.iter().partition(|h| h.macs > 0 || h.reason.starts_with("custom"));
    let mut text = String::new();
    for h in &apart {
        text += &format!(
            "left to the host: {} ({}), {} MACs: {}\n",
            h.name,
            h.op,
            number::count(h.macs as f64),
            h.reason
        );
    }
    if !rest.is_empty() {
        let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
        rest.iter().for_each(|h| *ops.entry(&h.op).or_default() += 1);
        let list: Vec<String> = ops.iter().map(|(op, n)| format!("{n} {op}")).collect();
        text += &format!("left to the host, without multiply-accumulates: {}\n", list.join(", "));
    }
    if !host.is_empty() {
        text += "time and energy of the host are in no figure here\n";
    }
    text
}
