//! `wattle accel estimate`: latency and energy of a model on an architecture, layer by layer.

use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::{Estimate, HostWork};
use wattle_report::{Align, Table, number};

use super::request::{self, ModelArgs};
use crate::context::Context;
use crate::failure::Failure;

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
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
    /// Use these mappings, which `accel map --out` writes, as given instead of searching.
    #[arg(long, value_name = "FILE", conflicts_with = "objective")]
    mapping: Option<PathBuf>,
}

/// The result as JSON.
#[derive(Serialize)]
pub struct Document {
    arch: String,
    /// Always `modelled`.
    kind: &'static str,
    totals: Totals,
    layers: Vec<Layer>,
    host: Vec<Host>,
    sources: Vec<String>,
}

/// Sums over the layers; host work is not in them.
#[derive(Serialize)]
pub struct Totals {
    pub latency_s: f64,
    pub energy_j: f64,
    /// Without external memory, as chips publish it.
    chip_energy_j: f64,
    inferences_per_s: f64,
    inferences_per_j: f64,
    dram_bytes: f64,
    pub utilisation: f64,
    macs: f64,
    macs_effective: f64,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: &'static str,
    macs: f64,
    macs_effective: f64,
    cycles: f64,
    energy_j: f64,
    utilisation: f64,
    mode: String,
    compressed: Compressed,
    bound: &'static str,
    mapping: String,
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
    let arch = request::priced(request::architecture(&args.arch)?, args.energy.as_deref())?;
    let (workload, densities) = args.model.workload()?;
    let mut estimate = match &args.mapping {
        Some(path) => request::given(&arch, &workload, path)?,
        None => request::estimated(&arch, &workload, args.model.objective(), context)?,
    };
    estimate.sources.push(densities);
    if let Some(path) = &args.report {
        let html = wattle_accel::report(&arch, &workload, &estimate)?;
        std::fs::write(path, html).map_err(|e| Failure::at(path.display(), e))?;
    }
    context.print(&document(&estimate), &text(&estimate))
}

/// Sums of an estimate.
pub fn totals(estimate: &Estimate) -> Totals {
    // A model without layers takes no time here; rates of it mean nothing and are zero.
    let rate = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
    Totals {
        latency_s: estimate.latency_s(),
        energy_j: estimate.energy_j(),
        chip_energy_j: estimate.chip_energy_j(),
        inferences_per_s: rate(estimate.latency_s()),
        inferences_per_j: rate(estimate.energy_j()),
        dram_bytes: estimate.dram_bytes(),
        utilisation: estimate.utilisation(),
        macs: estimate.layers.iter().map(|l| l.macs).sum(),
        macs_effective: estimate.layers.iter().map(|l| l.effective_macs).sum(),
    }
}

/// The whole estimate as JSON.
pub fn document(estimate: &Estimate) -> Document {
    let layer = |l: &wattle_accel::LayerEstimate| Layer {
        name: l.name.clone(),
        kind: l.kind.name(),
        macs: l.macs,
        macs_effective: l.effective_macs,
        cycles: l.mapped.cost.cycles.total(),
        energy_j: l.mapped.cost.energy.total() * 1e-12,
        utilisation: l.utilisation,
        mode: l.mode.clone(),
        compressed: Compressed { iact: l.mapped.format.iact, weight: l.mapped.format.weight },
        bound: l.mapped.cost.cycles.bound().name(),
        mapping: l.mapped.mapping.to_string(),
    };
    let host = |h: &HostWork| Host {
        name: h.name.clone(),
        op: h.op.clone(),
        macs: h.macs,
        element_ops: h.element_ops,
        reason: h.reason,
    };
    Document {
        arch: estimate.arch.clone(),
        kind: "modelled",
        totals: totals(estimate),
        layers: estimate.layers.iter().map(layer).collect(),
        host: estimate.host.iter().map(host).collect(),
        sources: estimate.sources.clone(),
    }
}

fn text(estimate: &Estimate) -> String {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("MACs", Align::Right),
        ("cycles", Align::Right),
        ("energy", Align::Right),
        ("useful", Align::Right),
        ("bound", Align::Left),
        ("network", Align::Left),
    ]);
    for l in &estimate.layers {
        table.row([
            l.name.clone(),
            number::count(l.macs),
            number::count(l.mapped.cost.cycles.total()),
            number::si(l.mapped.cost.energy.total() * 1e-12, "J"),
            number::percent(l.utilisation),
            l.mapped.cost.cycles.bound().name().to_string(),
            l.mode.clone(),
        ]);
    }
    let t = totals(estimate);
    let mut text = format!(
        "{table}\nmodelled on {}: {} and {} an inference ({} without DRAM)\n{} inferences/s, {} inferences/J, \
         DRAM {}, multipliers usefully busy {}\n",
        estimate.arch,
        number::seconds(t.latency_s),
        number::si(t.energy_j, "J"),
        number::si(t.chip_energy_j, "J"),
        number::plain(t.inferences_per_s),
        number::plain(t.inferences_per_j),
        number::si(t.dram_bytes, "B"),
        number::percent(t.utilisation),
    );
    let apart: Vec<&HostWork> =
        estimate.host.iter().filter(|h| h.macs > 0 || h.reason.starts_with("custom")).collect();
    for h in &apart {
        text += &format!(
            "left to the host: {} ({}), {} MACs: {}\n",
            h.name,
            h.op,
            number::count(h.macs as f64),
            h.reason
        );
    }
    let rest = estimate.host.len() - apart.len();
    if rest > 0 {
        text += &format!("left to the host: {rest} nodes without multiply-accumulates\n");
    }
    for source in &estimate.sources {
        text += &format!("source: {source}\n");
    }
    text
}
