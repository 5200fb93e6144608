//! Which steps are so small that calling other threads would take longer than they save.

use wattle_graph::Shapes;

use crate::kernel::Site;

/// Seconds of work below which a step stays on the calling thread: calling another and waiting for it takes about a
/// quarter of this.
const WORTH_SHARING: f64 = 4e-6;
/// The same for sparse products, whose threads each make panels of activations of their own: measured on LeNet-300-100,
/// batch 16, of whose layers two threads make the one of 9 microseconds by this guess faster and the one of 4 no faster.
const SPARSE_WORTH_SHARING: f64 = 6e-6;

/// A low guess of a step's time in seconds: one core's usual rates, in products and in bytes moved.
fn guessed_time(macs: u64, bytes: usize) -> f64 {
    macs as f64 / 40e9 + bytes as f64 / 10e9
}

/// Whether a change of layout is too small for other threads to be called, touching `bytes`.
pub(crate) fn is_small_move(bytes: usize) -> bool {
    guessed_time(0, bytes) < WORTH_SHARING
}

/// Whether a node is too small for other threads to be called, computing `density` of its products and touching `bytes`.
pub(crate) fn is_small(site: &Site<'_>, density: f64, bytes: usize) -> bool {
    let extents: Vec<_> = site.inputs.iter().map(|i| i.as_ref().map(|i| i.extents.clone())).collect();
    let results: Vec<_> = site.outputs.iter().map(|o| o.0.clone()).collect();
    let densities = vec![1.0; extents.len()];
    let work = site.node.op.work(&Shapes { inputs: &extents, outputs: &results, densities: &densities });
    // An update of kept elements touches as many of them.
    let kept = site.kept.iter().chain(&site.kept_outputs).flatten().next();
    let share = kept.map_or(density, |kept| kept.density());
    let macs = (work.macs as f64 * share) as u64;
    let elements = (work.element_ops as f64 * share) as u64;
    if density < 1.0 {
        guessed_time(macs, 0) < SPARSE_WORTH_SHARING
    } else {
        guessed_time(macs.max(elements / 4), bytes) < WORTH_SHARING
    }
}
