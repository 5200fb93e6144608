//! Convolution, activation and maximum over windows in one pass.

use wattle_graph::{DType, ops};
use wattle_kernels::conv::{self, ConvPlan};
use wattle_kernels::gemm;
use wattle_kernels::pages::HugeVec;
use wattle_kernels::pool::PoolShape;

use super::Epilogue;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

struct Pooled {
    plan: ConvPlan,
    pool: PoolShape,
    /// Weights packed at plan time, where they are constant.
    packed: Option<HugeVec<f32>>,
    epilogue: Epilogue,
    isa: &'static str,
}

pub(super) fn bind(site: &Site<'_>, op: &ops::Conv, pool: &ops::Pool, epilogue: Epilogue) -> Option<Bound> {
    if !site.all(DType::F32) || op.groups != 1 {
        return None;
    }
    let shape = super::conv::shape(op, &site.input(0).extents, &site.input(1).extents)?;
    let [height, width] = shape.output();
    let pool = super::pool::shape(pool, &[shape.batch, shape.filters, height, width], site.output(0))?;
    let mut plan = ConvPlan::direct(shape);
    let read = super::conv::input_layout(site, &mut plan);
    let len = plan.forward_weights_len(site.cpu.isa);
    let packed = site.input(1).constant.and_then(|w| w.as_f32()).map(|w| {
        let mut packed = HugeVec::zeroed(len);
        plan.pack_forward(site.cpu, w, &mut packed);
        packed
    });
    let packing = if packed.is_some() { 0 } else { len.next_multiple_of(16) };
    let scratch = packing + conv::max_pooled_scratch_len(&plan, &pool, &site.cpu.threads);
    let epilogue = Epilogue { bias: epilogue.bias.filter(|&i| site.optional(i).is_some()), ..epilogue };
    let taken = packed.is_some();
    let kernel = Pooled { plan, pool, packed, epilogue, isa: site.cpu.isa.name() };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch);
    bound.input_layouts[0] = read;
    bound.input_layouts[1] = Layout::RowMajor;
    Some(if taken { bound.takes(1) } else { bound })
}

impl Kernel for Pooled {
    fn name(&self) -> String {
        let read = if self.plan.reads_planes() { "nchw" } else { "nhwc" };
        format!("conv+max_pool-{read}-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let mut scratch = io.scratch()?;
        let weights: &[f32] = match &self.packed {
            Some(packed) => packed,
            None => {
                let len = self.plan.forward_weights_len(io.cpu.isa);
                let (packed, rest) = scratch.split_at_mut(len.next_multiple_of(16));
                self.plan.pack_forward(io.cpu, io.input(1)?, &mut packed[..len]);
                scratch = rest;
                &packed[..len]
            }
        };
        let bias = self.epilogue.bias.map(|i| io.input(i)).transpose()?;
        let epilogue = gemm::Epilogue { bias, activation: self.epilogue.activation, ..Default::default() };
        let (x, y) = (io.input(0)?, io.output(0)?);
        conv::max_pooled(io.cpu, &self.plan, &self.pool, x, weights, epilogue, y, scratch);
        Ok(())
    }
}
