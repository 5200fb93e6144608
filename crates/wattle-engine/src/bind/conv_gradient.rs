//! Gradients of convolution by its input and by its weight, channels last.

use wattle_graph::{DType, ops};
use wattle_kernels::conv::{self, ConvPlan};
use wattle_kernels::gemm;

use super::{kept, kept_conv};
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

struct ByInput {
    plan: ConvPlan,
    depthwise: bool,
    isa: &'static str,
}

pub(super) fn by_input(site: &Site<'_>, op: &ops::ConvInputGradient) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let plan = ConvPlan::new(super::conv::shape(&op.conv, &op.input_shape, &site.input(1).extents)?);
    if let Some(bound) = kept::conv_by_input(site, *plan.shape()) {
        return Some(bound);
    }
    let depthwise = plan.shape().is_depthwise();
    let packing = packed_len(&plan, depthwise, site.cpu.isa).next_multiple_of(16);
    let scratch = packing + if depthwise { 0 } else { plan.input_gradient_scratch_len(site.cpu) };
    let kernel = ByInput { plan, depthwise, isa: site.cpu.isa.name() };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch);
    bound.input_layouts[1] = Layout::RowMajor;
    Some(bound)
}

fn packed_len(plan: &ConvPlan, depthwise: bool, isa: wattle_kernels::Isa) -> usize {
    if depthwise { plan.shape().weights_len() } else { plan.input_gradient_weights_len(isa) }
}

impl Kernel for ByInput {
    fn name(&self) -> String {
        let kind = if self.depthwise { "depthwise" } else { "conv" };
        format!("{kind}_input_gradient-nhwc-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (dy, w, dx) = (io.input(0)?, io.input(1)?, io.output(0)?);
        let len = packed_len(&self.plan, self.depthwise, io.cpu.isa);
        let (packed, scratch) = io.scratch()?.split_at_mut(len.next_multiple_of(16));
        let packed = &mut packed[..len];
        let none = gemm::Epilogue::default();
        if self.depthwise {
            conv::pack_depthwise(self.plan.shape(), w, packed);
            conv::depthwise_input_gradient(io.cpu, &self.plan, dy, packed, none, dx);
        } else {
            self.plan.pack_input_gradient(io.cpu, w, packed);
            conv::input_gradient(io.cpu, &self.plan, dy, packed, none, dx, scratch);
        }
        Ok(())
    }
}

struct ByWeight {
    plan: ConvPlan,
    depthwise: bool,
    isa: &'static str,
}

pub(super) fn by_weight(site: &Site<'_>, op: &ops::ConvWeightGradient) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let plan = ConvPlan::new(super::conv::shape(&op.conv, &site.input(0).extents, &op.weight_shape)?);
    if let Some(bound) = kept_conv::by_weight(site, *plan.shape()) {
        return Some(bound);
    }
    let depthwise = plan.shape().is_depthwise();
    let scratch = if depthwise {
        conv::depthwise_weight_gradient_scratch_len(&plan)
    } else {
        conv::weight_gradient_scratch_len(site.cpu, &plan)
    };
    let kernel = ByWeight { plan, depthwise, isa: site.cpu.isa.name() };
    let bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch);
    Some(Bound { output_layouts: vec![Layout::RowMajor], ..bound })
}

impl Kernel for ByWeight {
    fn name(&self) -> String {
        let kind = if self.depthwise { "depthwise" } else { "conv" };
        format!("{kind}_weight_gradient-nhwc-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, dy, dw, scratch) = (io.input(0)?, io.input(1)?, io.output(0)?, io.scratch()?);
        if self.depthwise {
            conv::depthwise_weight_gradient(io.cpu, &self.plan, x, dy, false, dw, scratch);
        } else {
            conv::weight_gradient(io.cpu, &self.plan, x, dy, false, dw, scratch);
        }
        Ok(())
    }
}
