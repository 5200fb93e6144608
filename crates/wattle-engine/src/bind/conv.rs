//! Convolution over one or two spatial axes, channels last, with bias, residual and activation in its epilogue.

use std::sync::Arc;

use wattle_graph::{DType, ops};
use wattle_kernels::conv::{self, ConvPlan, ConvShape};
use wattle_kernels::gemm;

use super::{Epilogue, kept_conv, sparse};
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;
use crate::packing::{PackedOperand, Weights};
use crate::sparse_cost::Form;

/// Most bytes of a convolution's tables of offsets: 1 GiB, thousands of times what usual images need.
const LARGEST_TABLES: usize = 1 << 30;

/// The kernel's description of a convolution over `x` by `w`, logical extents; `None` where the kernels do not
/// reach (three spatial axes, more pixels than their tables may hold).
pub(crate) fn shape(op: &ops::Conv, x: &[usize], w: &[usize]) -> Option<ConvShape> {
    let axes = x.len().checked_sub(2).filter(|a| (1..=2).contains(a))?;
    // One spatial axis is the width of an image of height one.
    let pair = |of: &dyn Fn(usize) -> usize, missing: usize| match axes {
        1 => [missing, of(0)],
        _ => [of(0), of(1)],
    };
    let pads = |axis: usize| op.sliding.pads(axis, x[axis + 2], w[axis + 2]);
    let (before, after) = (pair(&|a| pads(a).0, 0), pair(&|a| pads(a).1, 0));
    let [height, width] = pair(&|a| x[a + 2], 1);
    let shape = ConvShape {
        batch: x[0],
        height,
        width,
        channels: x[1],
        filters: w[0],
        kernel: pair(&|a| w[a + 2], 1),
        stride: pair(&|a| op.sliding.strides[a], 1),
        dilation: pair(&|a| op.sliding.dilations[a], 1),
        pads: [before[0], before[1], after[0], after[1]],
        groups: op.groups,
    };
    shape.is_in_reach(LARGEST_TABLES).then_some(shape)
}

struct Conv {
    plan: Arc<ConvPlan>,
    depthwise: bool,
    weights: PackedOperand,
    epilogue: Epilogue,
    isa: &'static str,
}

pub(super) fn bind(site: &Site<'_>, op: &ops::Conv, epilogue: &Epilogue) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let planned = if site.form == Some(Form::Direct) { ConvPlan::direct } else { ConvPlan::new };
    let mut plan = planned(shape(op, &site.input(0).extents, &site.input(1).extents)?);
    let depthwise = plan.shape().is_depthwise();
    let present = |index: Option<usize>| index.filter(|&i| site.optional(i).is_some());
    let epilogue = Epilogue { bias: present(epilogue.bias), residual: epilogue.residual, ..*epilogue };
    if let Some(bound) = kept_conv::forward(site, *plan.shape(), &epilogue) {
        return Some(bound);
    }
    let constant = site.input(1).constant.and_then(|w| w.as_f32());
    let refusal = match constant.map(|w| sparse::conv(site, &plan, w, &epilogue)) {
        Some(Ok(bound)) => return Some(bound),
        Some(Err(refusal)) => refusal,
        None => sparse::Refusal::default(),
    };
    let read = input_layout(site, &mut plan);
    let plan = Arc::new(plan);
    let packing = if depthwise { Weights::Depthwise(plan.clone()) } else { Weights::Forward(plan.clone()) };
    let weights = PackedOperand::new(site, 1, packing);
    let scratch = weights.scratch() + if depthwise { 0 } else { plan.forward_scratch_len(site.cpu) };
    let ask = weights.ask();
    let kernel = Conv { plan, depthwise, weights, epilogue, isa: site.cpu.isa.name() };
    let dense = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch).asks(ask);
    let mut bound = refusal.explain(dense);
    bound.input_layouts[0] = read;
    bound.input_layouts[1] = Layout::RowMajor;
    Some(bound)
}

/// The layout that the plan reads the image in, from now on: a network's input may stay as it is where channels are few.
pub(super) fn input_layout(site: &Site<'_>, plan: &mut ConvPlan) -> Layout {
    let planes = site.input(0).layout == Layout::RowMajor && plan.read_planes();
    if planes { Layout::RowMajor } else { Layout::ChannelsLast }
}

impl Kernel for Conv {
    fn name(&self) -> String {
        let kind = match () {
            _ if self.depthwise => "depthwise",
            _ if self.plan.reads_planes() => return format!("conv-nchw-f32-{}", self.isa),
            _ if self.plan.is_transformed() => "conv-transformed",
            _ => "conv",
        };
        format!("{kind}-nhwc-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (weights, scratch) = self.weights.read(io, io.scratch()?)?;
        let bias = self.epilogue.bias.map(|i| io.input(i)).transpose()?;
        let residual = self.epilogue.residual.map(|i| io.input(i)).transpose()?;
        let epilogue =
            gemm::Epilogue { bias, residual, activation: self.epilogue.activation, ..Default::default() };
        if self.depthwise {
            conv::depthwise_forward(io.cpu, &self.plan, io.input(0)?, weights, epilogue, io.output(0)?);
        } else {
            let len = self.plan.forward_scratch_len(io.cpu);
            let scratch = &mut scratch[..len];
            conv::forward(io.cpu, &self.plan, io.input(0)?, weights, epilogue, io.output(0)?, scratch);
        }
        Ok(())
    }
}

/// Transposed convolution: the input gradient of the convolution it transposes.
struct Transposed {
    plan: Arc<ConvPlan>,
    depthwise: bool,
    weights: PackedOperand,
    epilogue: Epilogue,
    isa: &'static str,
}

pub(super) fn transposed(site: &Site<'_>, op: &ops::ConvTranspose, epilogue: &Epilogue) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    // Its result is the operand of that convolution, and its weight has the same axes in the same order.
    let plan = Arc::new(ConvPlan::new(shape(&op.conv(), site.output(0), &site.input(1).extents)?));
    let depthwise = plan.shape().is_depthwise();
    let packing =
        if depthwise { Weights::Depthwise(plan.clone()) } else { Weights::InputGradient(plan.clone()) };
    let weights = PackedOperand::new(site, 1, packing);
    let scratch = weights.scratch() + if depthwise { 0 } else { plan.input_gradient_scratch_len(site.cpu) };
    let present = |index: Option<usize>| index.filter(|&i| site.optional(i).is_some());
    let epilogue = Epilogue { bias: present(epilogue.bias), residual: epilogue.residual, ..*epilogue };
    let ask = weights.ask();
    let kernel = Transposed { plan, depthwise, weights, epilogue, isa: site.cpu.isa.name() };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch).asks(ask);
    bound.input_layouts[1] = Layout::RowMajor;
    Some(bound)
}

impl Kernel for Transposed {
    fn name(&self) -> String {
        format!("conv_transpose-nhwc-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (weights, scratch) = self.weights.read(io, io.scratch()?)?;
        let bias = self.epilogue.bias.map(|i| io.input(i)).transpose()?;
        let residual = self.epilogue.residual.map(|i| io.input(i)).transpose()?;
        let epilogue =
            gemm::Epilogue { bias, residual, activation: self.epilogue.activation, ..Default::default() };
        let (x, y) = (io.input(0)?, io.output(0)?);
        if self.depthwise {
            conv::depthwise_input_gradient(io.cpu, &self.plan, x, weights, epilogue, y);
        } else {
            conv::input_gradient(io.cpu, &self.plan, x, weights, epilogue, y, scratch);
        }
        Ok(())
    }
}
