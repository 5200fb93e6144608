//! Optimiser updates, in place, exact zeros under the parameter's mask.

use wattle_graph::{DType, ops};
use wattle_kernels::optimizer::{self, Adam, Mask, Sgd};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Result `index` holding operand `from`: the same memory, or a copy of it.
fn updated<'a>(io: &Io<'a>, from: usize, index: usize) -> Result<&'a mut [f32], EngineError> {
    let next = io.output::<f32>(index)?;
    if !io.shares(from, index) {
        next.copy_from_slice(io.input(from)?);
    }
    Ok(next)
}

fn mask(bytes: &Option<Vec<u8>>) -> Mask<'_> {
    bytes.as_deref().map_or(Mask::Full, Mask::Bytes)
}

/// The mask to apply, the layout of parameter, gradient and state, and why. Where kept elements are stored alone, no
/// mask is left to apply.
fn stored(site: &Site<'_>) -> (Option<Vec<u8>>, Layout, Option<String>) {
    match &site.kept[0] {
        Some(kept) => (None, Layout::Kept, Some(kept.why.clone())),
        None => (site.masks[0].clone(), Layout::RowMajor, None),
    }
}

/// A kernel whose first operands, as many as `tensors`, and results have this layout; the others are single numbers.
fn tensors(site: &Site<'_>, layout: Layout, kernel: impl Kernel + 'static, tensors: usize) -> Bound {
    let mut bound = Bound::uniform(site, layout, kernel);
    bound.input_layouts[tensors..].fill(Layout::RowMajor);
    bound
}

struct SgdUpdate {
    op: ops::SgdUpdate,
    mask: Option<Vec<u8>>,
}

pub(super) fn sgd(site: &Site<'_>, op: &ops::SgdUpdate) -> Option<Bound> {
    let (mask, layout, why) = stored(site);
    let kernel = SgdUpdate { op: op.clone(), mask };
    let bound = site.all(DType::F32).then(|| tensors(site, layout, kernel, 3).because(why).in_place(0, 0))?;
    Some(if site.outputs.len() > 1 { bound.in_place(2, 1) } else { bound })
}

impl Kernel for SgdUpdate {
    fn name(&self) -> String {
        if self.mask.is_some() { "sgd_update-masked-f32".into() } else { "sgd_update-f32".into() }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let parameter = updated(io, 0, 0)?;
        let with_velocity = io.outputs.len() > 1;
        let velocity = if with_velocity { updated(io, 2, 1)? } else { &mut [] };
        let options = Sgd {
            rate: io.input::<f32>(3)?[0],
            momentum: self.op.momentum as f32,
            dampening: 0.0,
            decay: self.op.weight_decay as f32,
            nesterov: self.op.nesterov,
        };
        optimizer::sgd(io.cpu, &options, mask(&self.mask), parameter, io.input(1)?, velocity);
        Ok(())
    }
}

struct AdamUpdate {
    op: ops::AdamUpdate,
    mask: Option<Vec<u8>>,
}

pub(super) fn adam(site: &Site<'_>, op: &ops::AdamUpdate) -> Option<Bound> {
    let (mask, layout, why) = stored(site);
    let kernel = AdamUpdate { op: op.clone(), mask };
    let in_place = |b: Bound| b.in_place(0, 0).in_place(2, 1).in_place(3, 2);
    site.all(DType::F32).then(|| in_place(tensors(site, layout, kernel, 4).because(why)))
}

impl Kernel for AdamUpdate {
    fn name(&self) -> String {
        if self.mask.is_some() { "adam_update-masked-f32".into() } else { "adam_update-f32".into() }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (parameter, first, second) = (updated(io, 0, 0)?, updated(io, 2, 1)?, updated(io, 3, 2)?);
        let options = Adam {
            rate: io.input::<f32>(4)?[0],
            beta1: self.op.beta1 as f32,
            beta2: self.op.beta2 as f32,
            epsilon: self.op.epsilon as f32,
            decay: self.op.weight_decay as f32,
            decoupled: self.op.decoupled,
        };
        let step = io.input::<f32>(5)?[0] as u64;
        optimizer::adam(io.cpu, &options, step, mask(&self.mask), parameter, io.input(1)?, first, second);
        Ok(())
    }
}
