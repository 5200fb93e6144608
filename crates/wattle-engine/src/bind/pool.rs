//! Pooling over windows and over whole images, channels last.

use wattle_graph::{DType, ops, ops::PoolKind};
use wattle_kernels::pool::{self, PoolShape};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// The kernel's description of a pooling of `x` to `y`, logical extents, over one or two spatial axes.
pub(super) fn shape(op: &ops::Pool, x: &[usize], y: &[usize]) -> Option<PoolShape> {
    let axes = x.len().checked_sub(2).filter(|a| (1..=2).contains(a))?;
    let pair = |of: &dyn Fn(usize) -> usize, missing: usize| match axes {
        1 => [missing, of(0)],
        _ => [of(0), of(1)],
    };
    Some(PoolShape {
        batch: x[0],
        input: pair(&|a| x[a + 2], 1),
        output: pair(&|a| y[a + 2], 1),
        channels: x[1],
        kernel: pair(&|a| op.kernel[a], 1),
        stride: pair(&|a| op.sliding.strides[a], 1),
        dilation: pair(&|a| op.sliding.dilations[a], 1),
        pads: pair(&|a| op.sliding.pads(a, x[a + 2], op.kernel[a]).0, 0),
    })
}

/// One window as large as the image, for any number of spatial axes.
fn global(x: &[usize]) -> Option<PoolShape> {
    let pixels = x.get(2..)?.iter().product();
    Some(PoolShape::global(x[0], [1, pixels], x[1]))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Max,
    Mean { count_padding: bool },
}

/// Only what the kernels compute exactly as ONNX means it.
fn kind(op: &ops::Pool) -> Option<Kind> {
    match op.kind {
        PoolKind::Max => Some(Kind::Max),
        // Rounding up puts part of a window beyond the padding, which must not be counted.
        PoolKind::Average if op.count_include_pad && op.ceil_mode => None,
        PoolKind::Average => Some(Kind::Mean { count_padding: op.count_include_pad }),
        PoolKind::Lp { .. } => None,
    }
}

fn global_kind(kind: PoolKind) -> Option<Kind> {
    match kind {
        PoolKind::Max => Some(Kind::Max),
        PoolKind::Average => Some(Kind::Mean { count_padding: true }),
        PoolKind::Lp { .. } => None,
    }
}

struct Pool {
    shape: PoolShape,
    kind: Kind,
}

pub(super) fn pool(site: &Site<'_>, op: &ops::Pool) -> Option<Bound> {
    let shape = shape(op, &site.input(0).extents, site.output(0))?;
    let kernel = Pool { shape, kind: kind(op)? };
    if site.outputs.len() != 1 {
        return None;
    }
    if let (Some(signed), Kind::Max) = (super::quantize::byte(site.input(0).dtype), kernel.kind) {
        return Some(Bound::uniform(site, Layout::ChannelsLast, BytePool { shape, signed }));
    }
    site.all(DType::F32).then(|| Bound::uniform(site, Layout::ChannelsLast, kernel))
}

/// The largest of bytes.
struct BytePool {
    shape: PoolShape,
    signed: bool,
}

impl Kernel for BytePool {
    fn name(&self) -> String {
        "max_pool-nhwc-8bit".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        pool::max_pool_bytes(io.cpu, &self.shape, io.input(0)?, self.signed, io.output(0)?);
        Ok(())
    }
}

pub(super) fn global_pool(site: &Site<'_>, op: &ops::GlobalPool) -> Option<Bound> {
    let kernel = Pool { shape: global(&site.input(0).extents)?, kind: global_kind(op.kind)? };
    site.all(DType::F32).then(|| Bound::uniform(site, Layout::ChannelsLast, kernel))
}

impl Kernel for Pool {
    fn name(&self) -> String {
        let kind = if self.kind == Kind::Max { "max" } else { "mean" };
        format!("{kind}_pool-nhwc-f32")
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, y) = (io.input(0)?, io.output(0)?);
        match self.kind {
            Kind::Max => pool::max_pool(io.cpu, &self.shape, x, y, None),
            Kind::Mean { count_padding } => pool::mean_pool(io.cpu, &self.shape, count_padding, x, y),
        }
        Ok(())
    }
}

struct PoolGradient {
    shape: PoolShape,
    kind: Kind,
}

pub(super) fn pool_gradient(site: &Site<'_>, op: &ops::PoolGradient) -> Option<Bound> {
    let shape = shape(&op.pool, &op.input_shape, &site.input(0).extents)?;
    gradient(site, shape, kind(&op.pool)?)
}

pub(super) fn global_pool_gradient(site: &Site<'_>, op: &ops::GlobalPoolGradient) -> Option<Bound> {
    gradient(site, global(&op.input_shape)?, global_kind(op.kind)?)
}

fn gradient(site: &Site<'_>, shape: PoolShape, kind: Kind) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let bound = Bound::uniform(site, Layout::ChannelsLast, PoolGradient { shape, kind });
    Some(match kind {
        // The maxima are found again: two values an element of the result.
        Kind::Max => bound.takes(2).scratch(2 * shape.output_len().next_multiple_of(16)),
        Kind::Mean { .. } => (1..site.inputs.len()).fold(bound, Bound::takes),
    })
}

impl Kernel for PoolGradient {
    fn name(&self) -> String {
        let kind = if self.kind == Kind::Max { "max" } else { "mean" };
        format!("{kind}_pool_gradient-nhwc-f32")
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (dy, dx) = (io.input(0)?, io.output(0)?);
        match self.kind {
            Kind::Max => {
                let len = self.shape.output_len();
                let (y, rest) = io.scratch()?.split_at_mut(len.next_multiple_of(16));
                let indices: &mut [i32] = bytemuck::cast_slice_mut(&mut rest[..len]);
                pool::max_pool(io.cpu, &self.shape, io.input(1)?, &mut y[..len], Some(indices));
                pool::max_pool_gradient(io.cpu, &self.shape, indices, dy, dx);
            }
            Kind::Mean { count_padding } => {
                pool::mean_pool_gradient(io.cpu, &self.shape, count_padding, dy, dx)
            }
        }
        Ok(())
    }
}
