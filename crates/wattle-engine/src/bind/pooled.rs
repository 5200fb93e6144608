//! Convolution, activation and maximum over windows in one pass.

use std::sync::Arc;

use wattle_graph::{DType, ops};
use wattle_kernels::conv::{self, ConvPlan};
use wattle_kernels::gemm;
use wattle_kernels::pool::PoolShape;

use super::Epilogue;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;
use crate::packing::{PackedOperand, Weights};

struct Pooled {
    plan: Arc<ConvPlan>,
    pool: PoolShape,
    weights: PackedOperand,
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
    let plan = Arc::new(plan);
    let weights = PackedOperand::new(site, 1, Weights::Forward(plan.clone()));
    let scratch = weights.scratch() + conv::max_pooled_scratch_len(&plan, &pool, &site.cpu.threads);
    let epilogue = Epilogue { bias: epilogue.bias.filter(|&i| site.optional(i).is_some()), ..epilogue };
    let ask = weights.ask();
    let kernel = Pooled { plan, pool, weights, epilogue, isa: site.cpu.isa.name() };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch).asks(ask);
    bound.input_layouts[0] = read;
    bound.input_layouts[1] = Layout::RowMajor;
    Some(bound)
}

impl Kernel for Pooled {
    fn name(&self) -> String {
        let read = if self.plan.reads_planes() { "nchw" } else { "nhwc" };
        format!("conv+max_pool-{read}-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (weights, scratch) = self.weights.read(io, io.scratch()?)?;
        let bias = self.epilogue.bias.map(|i| io.input(i)).transpose()?;
        let epilogue = gemm::Epilogue { bias, activation: self.epilogue.activation, ..Default::default() };
        let (x, y) = (io.input(0)?, io.output(0)?);
        conv::max_pooled(io.cpu, &self.plan, &self.pool, x, weights, epilogue, y, scratch);
        Ok(())
    }
}
