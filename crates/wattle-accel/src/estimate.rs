//! What a whole network costs on an architecture: every layer mapped, the mesh modes named, the sums.

use std::sync::Arc;

use crate::arch::Architecture;
use crate::constraints::Constraints;
use crate::crew::Crew;
use crate::distinct::each_distinct;
use crate::error::AccelError;
use crate::layer::{Kind, Layer, Operand};
use crate::mapper::{Effort, Mapped, Objective, Search, as_given, map_best_format, map_within};
use crate::mapping::Mapping;
use crate::mapping_file::MappingFile;
use crate::workload::{HostWork, Workload};

/// One layer, mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerEstimate {
    /// Name of the layer.
    pub name: String,
    /// Kind of nest.
    pub kind: Kind,
    /// Multiply-accumulates, zeros included.
    pub macs: f64,
    /// Products of two non-zero values.
    pub effective_macs: f64,
    /// Share of all multipliers that do useful products, averaged over the cycles.
    pub utilisation: f64,
    /// How activations, weights and partial sums travel.
    pub mode: String,
    /// The mapping and its cost.
    pub mapped: Mapped,
}

/// A network on an architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Name of the architecture.
    pub arch: String,
    /// Names of its buffers, from the outermost in.
    pub buffers: Vec<String>,
    /// Clock, Hz.
    pub clock_hz: f64,
    /// Layers in order.
    pub layers: Vec<LayerEstimate>,
    /// What the host does; its time and energy are not in the sums.
    pub host: Vec<HostWork>,
    /// Where the numbers come from.
    pub sources: Vec<String>,
}

impl Estimate {
    /// Cycles of all layers, one after the other.
    pub fn cycles(&self) -> f64 {
        self.sum(|l| l.mapped.cost.cycles.total())
    }

    /// Seconds of an inference.
    pub fn latency_s(&self) -> f64 {
        self.cycles() / self.clock_hz
    }

    /// Joules of an inference, external memory included.
    pub fn energy_j(&self) -> f64 {
        self.sum(|l| l.mapped.cost.energy.total()) * 1e-12
    }

    /// Joules without external memory, as chips publish them.
    pub fn chip_energy_j(&self) -> f64 {
        self.sum(|l| l.mapped.cost.energy.chip()) * 1e-12
    }

    /// Bytes moved from and to external memory.
    pub fn dram_bytes(&self) -> f64 {
        self.sum(|l| l.mapped.cost.dram_bits) / 8.0
    }

    /// Share of the multipliers that do useful products, over the whole time.
    pub fn utilisation(&self) -> f64 {
        let cycles = self.cycles();
        let busy = self.sum(|l| l.utilisation * l.mapped.cost.cycles.total());
        if cycles > 0.0 { busy / cycles } else { 0.0 }
    }

    /// Over the layers, from zero: the standard sum of nothing is minus zero.
    pub(crate) fn sum(&self, of: impl Fn(&LayerEstimate) -> f64) -> f64 {
        self.layers.iter().map(of).fold(0.0, |sum, x| sum + x)
    }
}

/// How a tensor travels over the clusters: its sharing along the axes that have ports of their own for it.
pub fn mode(arch: &Architecture, mapping: &Mapping, operand: Operand) -> &'static str {
    let clusters: Vec<usize> =
        (0..arch.axes.len()).filter(|&a| Operand::ALL.iter().all(|&o| arch.axes[a].has_port(o))).collect();
    if clusters.is_empty() {
        return "flat";
    }
    let shares = |axis: &usize| mapping.spatial[*axis].iter().any(|(d, n)| *n > 1 && !operand.depends_on(*d));
    let spreads = |axis: &usize| mapping.spatial[*axis].iter().any(|(_, n)| *n > 1);
    let sharing: Vec<bool> = clusters.iter().map(shares).collect();
    match sharing.as_slice() {
        all if clusters.iter().filter(|a| spreads(a)).all(shares) && all.contains(&true) => "broadcast",
        [true, _] => "vertical multicast",
        [_, true] => "horizontal multicast",
        _ => "unicast",
    }
}

/// Maps one layer.
pub fn estimate_layer(
    arch: &Architecture,
    layer: &Layer,
    objective: Objective,
    effort: Effort,
) -> Result<LayerEstimate, AccelError> {
    Ok(described(arch, layer, map_best_format(arch, layer, &arch.table()?, objective, effort)?))
}

/// The layers of a network under the mappings of a file, as given; a layer that the file does not have is an error.
pub fn estimate_given(
    arch: &Architecture,
    workload: &Workload,
    file: &MappingFile,
) -> Result<Estimate, AccelError> {
    let table = arch.table()?;
    let given = |layer: &Layer| {
        let (mapping, format) = file.mapping(arch, layer)?;
        Ok(described(arch, layer, as_given(arch, layer, &table, format, &mapping)?))
    };
    let layers = workload.layers.iter().map(given).collect::<Result<_, AccelError>>()?;
    whole(arch, layers, workload.host.clone())
}

fn whole(
    arch: &Architecture,
    layers: Vec<LayerEstimate>,
    host: Vec<HostWork>,
) -> Result<Estimate, AccelError> {
    Ok(Estimate {
        arch: arch.name.clone(),
        buffers: arch.buffer_names(),
        clock_hz: arch.clock_hz,
        layers,
        host,
        sources: arch.sources()?,
    })
}

fn described(arch: &Architecture, layer: &Layer, mapped: Mapped) -> LayerEstimate {
    let effective_macs = layer.effective_macs();
    let useful = match arch.pe.kind {
        crate::arch::PeKind::Sparse if layer.kind != Kind::Depthwise => effective_macs,
        _ => layer.macs(),
    };
    let mode = if arch.axes.iter().any(|a| !a.ports.is_empty()) {
        let of = |o| mode(arch, &mapped.mapping, o);
        format!("iact {}, weight {}", of(Operand::Iact), of(Operand::Weight))
    } else {
        "flat multicast".to_string()
    };
    LayerEstimate {
        name: layer.name.clone(),
        kind: layer.kind,
        macs: layer.macs(),
        effective_macs,
        utilisation: useful / (mapped.cost.cycles.total() * arch.multipliers() as f64),
        mode,
        mapped,
    }
}

/// Maps every layer of a network, on as many threads as given. A layer that fits nowhere becomes host work.
/// `progress` is told after each layer.
pub fn estimate(
    arch: &Architecture,
    workload: &Workload,
    objective: Objective,
    effort: Effort,
    threads: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<Estimate, AccelError> {
    let (table, crew, constraints) = (arch.table()?, Crew::of(threads), Constraints::default());
    let search = Search { objective, effort, constraints: &constraints, crew: &crew, watch: &|_| {} };
    let mapped = |layer: &Layer| {
        let found = map_within(arch, layer, &table, &search);
        found.map(|mapped| described(arch, layer, mapped)).map_err(Arc::new)
    };
    let results = each_distinct(&workload.layers, &crew, |_, _| true, mapped, progress);
    let (mut layers, mut host) = (vec![], workload.host.clone());
    for (layer, result) in workload.layers.iter().zip(results) {
        match result {
            Ok(found) => layers.push(LayerEstimate { name: layer.name.clone(), ..found }),
            Err(error) if matches!(*error, AccelError::Infeasible { .. }) => host.push(HostWork {
                name: layer.name.clone(),
                op: layer.kind.name().to_string(),
                macs: layer.macs() as u64,
                element_ops: 0,
                reason: "no mapping fits the architecture",
            }),
            Err(other) => return Err(AccelError::invalid(format!("layer `{}`", layer.name), other)),
        }
    }
    whole(arch, layers, host)
}
