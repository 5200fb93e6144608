//! Eyexam (Chen et al., arXiv 1807.07928, Sec. "Eyexam"): seven bounds, each at or below the last, from the shape
//! of a layer to its performance. Steps 1 to 5 bound the active multipliers, 6 and 7 the useful products a cycle.

use crate::arch::Architecture;
use crate::constraints::Limits;
use crate::cost::Bound;
use crate::estimate::LayerEstimate;
use crate::evaluation::Context;
use crate::layer::{Dim, Layer};
use crate::skipping::PeWork;
use crate::space::{arrays, pe_tiles, rest};
use crate::{AccelError, PeKind};

/// Names of the steps.
pub const STEPS: [&str; 7] = [
    "layer size and shape",
    "dataflow",
    "number of PEs",
    "dimensions of the array",
    "storage",
    "average bandwidth",
    "varying access patterns",
];

/// Products that count: a sparse PE skips those with a zero, the others do them all.
pub(crate) fn useful(arch: &Architecture, estimate: &LayerEstimate) -> f64 {
    if arch.pe.kind == PeKind::Sparse { estimate.effective_macs } else { estimate.macs }
}

/// Cycles in which each port and memory that limits delivery is busy: the networks of the array, the buffers from the
/// PEs outwards, external memory.
pub(crate) fn deliveries(arch: &Architecture, estimate: &LayerEstimate) -> Vec<(Bound, f64)> {
    let cost = &estimate.mapped.cost;
    let c = &cost.cycles;
    let mut list =
        vec![(Bound::IactNetwork, c.iact), (Bound::WeightNetwork, c.weight), (Bound::PsumNetwork, c.psum)];
    list.extend((0..arch.buffers.len()).rev().map(|b| (Bound::Buffer(b), c.buffers[b])));
    list.push((Bound::Dram, arch.external_cycles(cost.dram_bits)));
    list
}

/// The sixth step for each bandwidth alone: useful products a cycle that it allows, where it has a limit. The least of
/// them and of the PEs' mean work is the step.
pub fn bandwidths(arch: &Architecture, estimate: &LayerEstimate) -> Vec<(String, f64)> {
    let names = arch.buffer_names();
    let limits = deliveries(arch, estimate).into_iter().filter(|(_, cycles)| *cycles > 0.0);
    limits.map(|(bound, cycles)| (bound.name(&names).to_string(), useful(arch, estimate) / cycles)).collect()
}

/// The seven bounds of a mapped layer, in multiplications a cycle. `simulated` cycles set the last step; without
/// them the model does.
pub fn eyexam(
    arch: &Architecture,
    layer: &Layer,
    estimate: &LayerEstimate,
    simulated: Option<f64>,
) -> Result<[f64; 7], AccelError> {
    let lanes = if layer.bound(Dim::M) > 1 { arch.pe.lanes as f64 } else { 1.0 };
    let workload = layer.macs();
    let spreadable = |d: &Dim| arch.axes.iter().any(|a| a.allows(*d));
    let dataflow: f64 =
        Dim::ALL.iter().filter(|d| spreadable(d)).map(|d| layer.bound(*d) as f64).product::<f64>() * lanes;
    let multipliers = arch.multipliers() as f64;
    let rounds = (dataflow / multipliers).ceil().max(1.0);
    let fragmented = dataflow / rounds;
    let table = arch.table()?;
    let context = Context::new(arch, layer, &table, estimate.mapped.format)?;
    let (mut shaped, mut stored) = (0.0f64, 0.0f64);
    for array in arrays(arch, layer, &Limits::default()) {
        let facts = context.array(&array);
        let full = Dim::ALL.iter().map(|&d| {
            let n = facts.spread[d as usize];
            layer.bound(d) as f64 / layer.bound(d).div_ceil(n) as f64
        });
        let active = full.product::<f64>() * lanes;
        shaped = shaped.max(active);
        if active > stored {
            let fits = |pe: &[usize; 8]| {
                let [_, _, m, c, _, _, r, s] = *pe;
                let work = PeWork { weight_words: (m * c * r * s) as f64, ..PeWork::default() };
                // The least tile decides whether the array can be used at all.
                context.pe_misfit(pe, &work).is_none()
            };
            if pe_tiles(arch, &rest(layer, &array), &Limits::default()).iter().any(fits) {
                stored = active;
            }
        }
    }
    let cycles = estimate.mapped.cost.cycles;
    let useful = useful(arch, estimate);
    let delivering = deliveries(arch, estimate).into_iter().map(|(_, cycles)| cycles).fold(0.0, f64::max);
    let average = (estimate.mapped.mapping.tiles() * estimate.mapped.work.mean).max(delivering);
    let bounds = [
        workload,
        dataflow,
        fragmented,
        shaped,
        stored,
        useful / average,
        useful / simulated.unwrap_or(cycles.total()),
    ];
    let mut least = f64::INFINITY;
    Ok(bounds.map(|bound| {
        least = least.min(bound);
        least
    }))
}
