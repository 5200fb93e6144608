//! What would help a layer: the same layer mapped again after one change to the chip or to the layer.

use crate::arch::{Architecture, PeKind};
use crate::error::AccelError;
use crate::estimate::{LayerEstimate, estimate_layer};
use crate::layer::{Dim, Kind, Layer, Sparsity};
use crate::mapper::{Effort, Objective};

/// One change and what it does to a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// The change.
    pub change: String,
    /// Cycles an inference before over after; above 1 is faster.
    pub speed_up: f64,
    /// Energy an inference before over after, at the same energy table: larger memories and ports cost nothing more.
    pub energy_gain: f64,
}

/// Changes worth trying, each applied alone.
fn changes(arch: &Architecture, layer: &Layer) -> Vec<(String, Architecture, Layer, f64)> {
    let mut list = vec![];
    let mut chip = |change: &str, edit: &dyn Fn(&mut Architecture)| {
        let mut other = arch.clone();
        edit(&mut other);
        list.push((change.to_string(), other, layer.clone(), 1.0));
    };
    chip("activation ports twice as wide", &|a| a.ports.iact_bits *= 2.0);
    chip("weight ports twice as wide", &|a| a.ports.weight_bits *= 2.0);
    chip("psum ports twice as wide", &|a| a.ports.psum_bits *= 2.0);
    chip("pads of the PEs twice as large", &|a| {
        a.pe.iact_words *= 2;
        a.pe.weight_words *= 2;
        a.pe.psum_words *= 2;
    });
    for (at, buffer) in arch.buffers.iter().enumerate() {
        let name = if arch.buffers.len() > 1 { format!("buffer `{}`", buffer.name) } else { "buffer".into() };
        chip(&format!("{name} twice as large"), &|a| a.buffers[at].scale_bytes(2.0));
        if buffer.read_bits_per_cycle.or(buffer.write_bits_per_cycle).is_some() {
            chip(&format!("{name} twice as fast"), &|a| {
                let buffer = &mut a.buffers[at];
                buffer.read_bits_per_cycle = buffer.read_bits_per_cycle.map(|bits| 2.0 * bits);
                buffer.write_bits_per_cycle = buffer.write_bits_per_cycle.map(|bits| 2.0 * bits);
            });
        }
    }
    if arch.pe.serial_psums || arch.pe.serial_weights {
        chip("a second copy of each pad, so that loads and drains overlap", &|a| {
            (a.pe.serial_psums, a.pe.serial_weights) = (false, false);
        });
    }
    if let Some(bytes) = arch.dram_bytes_per_cycle {
        chip("external memory twice as fast", &|a| a.dram_bytes_per_cycle = Some(2.0 * bytes));
    }
    if layer.bound(Dim::N) * layer.bound(Dim::Q) < 64 {
        let mut batch = layer.clone();
        let rows = if layer.kind == Kind::Gemm { Dim::Q } else { Dim::N };
        batch.bounds[rows as usize] *= 4;
        if layer.kind == Kind::Gemm {
            batch.input[1] *= 4;
        }
        (batch.iact.mask, batch.weight.mask) = (None, batch.weight.mask);
        list.push(("four inferences at a time".to_string(), arch.clone(), batch, 4.0));
    }
    if arch.pe.kind == PeKind::Sparse && layer.kind != Kind::Depthwise {
        let halved = |s: &Sparsity| Sparsity {
            density: s.density / 2.0,
            per_channel: s.per_channel.as_ref().map(|list| list.iter().map(|d| d / 2.0).collect()),
            mask: None,
        };
        let fewer = Layer { weight: halved(&layer.weight), ..layer.clone() };
        list.push(("half of the weights left pruned".to_string(), arch.clone(), fewer, 1.0));
    }
    list
}

/// Maps the layer again after each change; those that help most come first, those that do not help (less than 1 %)
/// are left out, and so is what fits no longer.
pub fn remedies(
    arch: &Architecture,
    layer: &Layer,
    found: &LayerEstimate,
    objective: Objective,
    effort: Effort,
) -> Result<Vec<Remedy>, AccelError> {
    let (cycles, energy) = (found.mapped.cost.cycles.total(), found.mapped.cost.energy.total());
    let mut list = vec![];
    for (change, arch, layer, inferences) in changes(arch, layer) {
        let changed = match estimate_layer(&arch, &layer, objective, effort) {
            Ok(changed) => changed.mapped.cost,
            Err(AccelError::Infeasible { .. }) => continue,
            Err(other) => return Err(other),
        };
        let speed_up = cycles * inferences / changed.cycles.total();
        let energy_gain = energy * inferences / changed.energy.total();
        if speed_up > 1.01 || energy_gain > 1.01 {
            list.push(Remedy { change, speed_up, energy_gain });
        }
    }
    list.sort_by(|a, b| (b.speed_up * b.energy_gain).total_cmp(&(a.speed_up * a.energy_gain)));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_bound_by_its_weights_is_helped_by_wider_weight_ports_and_by_a_batch() {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let layer = Layer::gemm("fc", 1, 2048, 1024);
        let found = estimate_layer(&arch, &layer, Objective::Edp, Effort::default()).unwrap();
        let list = remedies(&arch, &layer, &found, Objective::Edp, Effort::default()).unwrap();
        let gain = |what: &str| list.iter().find(|r| r.change.contains(what)).map_or(1.0, |r| r.speed_up);
        assert!(gain("weight ports") > 1.5 && gain("four inferences") > 1.5, "{list:?}");
        assert!(gain("psum ports") < 1.1, "{list:?}");
        assert!(list.iter().all(|r| r.speed_up > 1.0 || r.energy_gain > 1.0));
    }
}
