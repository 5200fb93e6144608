//! Convolutions whose weight is stored by its kept elements: forward, and the gradients of input and weight.

use std::sync::Mutex;

use wattle_kernels::conv::ConvShape;
use wattle_kernels::sparse::{Cut, SparseConv, SparseConvInputGradient};

use super::Epilogue;
use super::sparse::addends;
use crate::error::EngineError;
use crate::kept::Kept;
use crate::kernel::{Bound, Io, Kernel, Site, lock};
use crate::layout::Layout;

fn bound(site: &Site<'_>, kept: &Kept, kernel: impl Kernel + 'static, scratch: usize) -> Bound {
    Bound::uniform(site, Layout::ChannelsLast, kernel)
        .scratch(scratch)
        .because(kept.why.clone())
        .density(kept.density())
}

fn name(op: &str, site: &Site<'_>) -> String {
    format!("{op}-nhwc-f32-{}", site.cpu.isa.name())
}

struct Forward {
    conv: Mutex<SparseConv>,
    epilogue: Epilogue,
    name: String,
}

/// A convolution with a kept weight.
pub(super) fn forward(site: &Site<'_>, shape: ConvShape, epilogue: &Epilogue) -> Option<Bound> {
    let kept = site.kept[1].as_ref()?;
    let conv = SparseConv::of(shape, kept.pattern.clone())?;
    let scratch = conv.scratch_len(site.cpu);
    let kernel = Forward {
        conv: Mutex::new(conv),
        epilogue: Epilogue { ..*epilogue },
        name: name("conv-sparse-csr", site),
    };
    let mut bound = bound(site, kept, kernel, scratch);
    bound.input_layouts[1] = Layout::Kept;
    Some(bound)
}

impl Kernel for Forward {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let mut conv = lock(&self.conv);
        conv.weights_mut().values_mut().copy_from_slice(io.input(1)?);
        let e = addends(&self.epilogue, io)?;
        conv.forward(io.cpu, io.input(0)?, e, io.output(0)?, io.scratch()?);
        Ok(())
    }
}

struct ByInput {
    gradient: Mutex<SparseConvInputGradient>,
    name: String,
}

/// The gradient of the input of a convolution with a kept weight.
pub(super) fn by_input(site: &Site<'_>, shape: ConvShape) -> Option<Bound> {
    let kept = site.kept[1].as_ref()?;
    let cut = Cut::unstructured(site.cpu.threads.count());
    let gradient = SparseConvInputGradient::new(shape, &kept.pattern, cut)?;
    let scratch = gradient.scratch_len(site.cpu);
    let kernel =
        ByInput { gradient: Mutex::new(gradient), name: name("conv_input_gradient-sparse-csr", site) };
    let mut bound = bound(site, kept, kernel, scratch);
    bound.input_layouts[1] = Layout::Kept;
    Some(bound)
}

impl Kernel for ByInput {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let mut gradient = lock(&self.gradient);
        gradient.update(io.cpu, io.input(1)?);
        gradient.run(io.cpu, io.input(0)?, io.output(0)?, io.scratch()?);
        Ok(())
    }
}

struct ByWeight {
    conv: SparseConv,
    name: String,
}

/// The gradient of the kept weight of a convolution.
pub(super) fn by_weight(site: &Site<'_>, shape: ConvShape) -> Option<Bound> {
    let kept = site.kept_outputs[0].as_ref()?;
    let conv = SparseConv::of(shape, kept.pattern.clone())?;
    let scratch = conv.weight_gradient_scratch_len(site.cpu);
    let kernel = ByWeight { conv, name: name("conv_weight_gradient-sampled", site) };
    Some(Bound { output_layouts: vec![Layout::Kept], ..bound(site, kept, kernel, scratch) })
}

impl Kernel for ByWeight {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, dy, dw) = (io.input(0)?, io.input(1)?, io.output(0)?);
        self.conv.weight_gradient(io.cpu, x, dy, dw, io.scratch()?);
        Ok(())
    }
}
