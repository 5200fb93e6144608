//! Latency and energy of a model on an architecture, layer by layer.

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_accel::{Estimate, HostWork, Layer as WorkloadLayer, LayerEstimate, Sparsity, Totals, Workload};

use super::request::{HardwareOptions, ModelOptions};
use crate::env::Env;
use crate::error::Result;
use crate::observer::Observer;

/// A model on an architecture.
#[derive(Clone, Debug)]
pub struct EstimateOptions {
    /// The model.
    pub model: ModelOptions,
    /// The architecture.
    pub hardware: HardwareOptions,
}

/// What a model costs on an architecture.
#[derive(Clone, Debug, Serialize)]
pub struct Estimated {
    /// The document.
    #[serde(flatten)]
    pub document: Document,
    /// The architecture, for a report.
    #[serde(skip)]
    pub arch: wattle_accel::Architecture,
    /// The layers, for a table.
    #[serde(skip)]
    pub workload: Workload,
    /// The layers mapped, for a table.
    #[serde(skip)]
    pub estimate: Estimate,
}

/// The result as JSON; version 1.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    schema: u32,
    /// The architecture.
    pub arch: String,
    /// Always `modelled`.
    pub kind: &'static str,
    /// Sums over the layers; host work is not in them.
    pub totals: Totals,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// What the host does.
    pub host: Vec<Host>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Kind of nest.
    pub kind: &'static str,
    /// Multiply-accumulates, zeros included.
    pub macs: f64,
    /// Products of two values that are not zero.
    pub macs_effective: f64,
    /// Densities of the operands.
    pub density: Density,
    /// By input channel over all groups, where the channels are known and differ.
    pub channel_density: ChannelDensity,
    /// Its cycles.
    pub cycles: f64,
    /// Its energy.
    pub energy_j: f64,
    /// Joules by component; they sum to `energy_j`.
    pub energy_parts_j: BTreeMap<String, f64>,
    /// Share of the multipliers that do useful products.
    pub utilisation: f64,
    /// How the operands travel.
    pub mode: String,
    /// What travels compressed.
    pub compressed: Compressed,
    /// What limits it.
    pub bound: String,
    /// Its loops.
    pub mapping: String,
}

/// Fractions that are not zero.
#[derive(Clone, Debug, Serialize)]
pub struct Density {
    /// Of the activations.
    pub iact: f64,
    /// Of the weights.
    pub weight: f64,
}

/// Densities by input channel over all groups, where they differ.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelDensity {
    /// Of the activations.
    pub iact: Option<Vec<f64>>,
    /// Of the weights.
    pub weight: Option<Vec<f64>>,
}

/// Whether an operand travels compressed.
#[derive(Clone, Debug, Serialize)]
pub struct Compressed {
    /// Of the activations.
    pub iact: bool,
    /// Of the weights.
    pub weight: bool,
}

/// Work of the host.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Multiply-accumulates, zeros included.
    pub macs: u64,
    /// Operations on elements.
    pub element_ops: u64,
    /// Why it is left to the host.
    pub reason: &'static str,
}

/// Estimates.
///
/// # Errors
/// If the model or the architecture cannot be used, or a layer has no mapping.
pub fn estimate(options: &EstimateOptions, env: &Env, observer: &mut dyn Observer) -> Result<Estimated> {
    let arch = options.hardware.architecture()?;
    let (workload, densities) = options.model.workload(env, observer)?;
    let objective = options.model.objective;
    let mut estimate = options.hardware.estimate(&arch, &workload, objective, env, observer)?;
    estimate.sources.push(densities);
    let document = document(&estimate, &workload);
    Ok(Estimated { document, arch, workload, estimate })
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

/// The whole estimate as a document.
fn document(estimate: &Estimate, workload: &Workload) -> Document {
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
        totals: estimate.totals(),
        layers: estimate.layers.iter().map(layer).collect(),
        host: estimate.host.iter().map(host).collect(),
        sources: estimate.sources.clone(),
    }
}
