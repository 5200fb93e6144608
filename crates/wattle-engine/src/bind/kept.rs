//! The three products of a layer whose weight is stored by its kept elements: with activations, with the gradient of
//! the result, and of both, at the kept elements only.

use std::sync::{Arc, Mutex};

use wattle_kernels::Activation;
use wattle_kernels::conv::ConvShape;
use wattle_kernels::gemm::Gemm;
use wattle_kernels::sparse::{self, Activations, Cut, Product, SparseWeights, Transposed};

use super::sparse::addends;
use super::{Epilogue, kept_conv};
use crate::error::EngineError;
use crate::kept::Kept;
use crate::kernel::{Bound, Io, Kernel, Site, lock};
use crate::layout::Layout;

/// A weight as a kernel reads it, brought up to date at every step.
enum Weight {
    AsStored(SparseWeights),
    Transposed(Transposed),
}

impl Weight {
    fn new(kept: &Kept, transposed: bool, threads: usize) -> Weight {
        if transposed {
            Weight::Transposed(Transposed::new(&kept.pattern, Cut::unstructured(threads)))
        } else {
            Weight::AsStored(kept.pattern.clone())
        }
    }

    fn get(&self) -> &SparseWeights {
        match self {
            Weight::AsStored(weights) => weights,
            Weight::Transposed(transposed) => transposed.weights(),
        }
    }

    fn update(&mut self, io: &Io<'_>) -> Result<(), EngineError> {
        let values = io.input(1)?;
        match self {
            Weight::AsStored(weights) => weights.values_mut().copy_from_slice(values),
            Weight::Transposed(transposed) => transposed.update(io.cpu, values),
        }
        Ok(())
    }
}

/// Activations, or gradients, times the kept weight.
struct ByWeight {
    weight: Mutex<Weight>,
    shape: Product,
    epilogue: Epilogue,
    name: String,
}

impl ByWeight {
    fn bind(
        site: &Site<'_>,
        kept: &Kept,
        transposed: bool,
        positions: usize,
        epilogue: &Epilogue,
        op: &str,
        layout: Layout,
    ) -> Bound {
        let weight = Weight::new(kept, transposed, site.cpu.threads.count());
        let shape = rows(positions);
        let scratch = sparse::product_scratch_len(site.cpu, weight.get());
        let name = format!("{op}-sparse-csr-f32-{}", site.cpu.isa.name());
        let kernel = ByWeight { weight: Mutex::new(weight), shape, epilogue: Epilogue { ..*epilogue }, name };
        let mut bound = Bound::uniform(site, layout, kernel)
            .scratch(scratch)
            .because(kept.why.clone())
            .density(kept.density());
        bound.input_layouts[1] = Layout::Kept;
        bound
    }
}

impl Kernel for ByWeight {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let mut weight = lock(&self.weight);
        weight.update(io)?;
        let e = addends(&self.epilogue, io)?;
        sparse::product(io.cpu, weight.get(), &self.shape, io.input(0)?, e, io.output(0)?, io.scratch()?);
        Ok(())
    }
}

/// The gradient of the kept elements, from what the layer read and the gradient of what it made.
struct Sampled {
    kept: Arc<Kept>,
    shape: Product,
    /// Which operand is the layer's.
    x: usize,
    name: String,
}

impl Sampled {
    fn bind(
        site: &Site<'_>,
        kept: &Arc<Kept>,
        positions: usize,
        x: usize,
        op: &str,
        layout: Layout,
    ) -> Bound {
        let shape = rows(positions);
        let scratch = sparse::sampled_product_scratch_len(site.cpu, &kept.pattern, &shape);
        let name = format!("{op}-sampled-f32-{}", site.cpu.isa.name());
        let kernel = Sampled { kept: kept.clone(), shape, x, name };
        let bound = Bound::uniform(site, layout, kernel)
            .scratch(scratch)
            .because(kept.why.clone())
            .density(kept.density());
        Bound { output_layouts: vec![Layout::Kept], ..bound }
    }
}

impl Kernel for Sampled {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, dy) = (io.input(self.x)?, io.input(1 - self.x)?);
        let (dw, scratch) = (io.output(0)?, io.scratch()?);
        sparse::sampled_product(io.cpu, &self.kept.pattern, &self.shape, x, dy, false, dw, scratch);
        Ok(())
    }
}

fn rows(positions: usize) -> Product {
    Product { images: 1, positions, x: Activations::Rows, y: Activations::Rows }
}

/// A matrix product with a kept weight, or for the gradient of one; `None` where there is neither.
pub(super) fn matmul(site: &Site<'_>, gemm: &Gemm, batch: usize, epilogue: &Epilogue) -> Option<Bound> {
    let Gemm { m, k, transpose_a, transpose_b, .. } = *gemm;
    if batch != 1 {
        return None;
    }
    if let (Some(kept), false) = (&site.kept[1], transpose_a) {
        let layout = Layout::RowMajor;
        return Some(ByWeight::bind(site, kept, !transpose_b, m, epilogue, "gemm", layout));
    }
    // `dW = a^T b`: the rows of the weight are the columns of a.
    let kept = site.kept_outputs[0].as_ref().filter(|_| transpose_a && !transpose_b)?;
    (epilogue.bias.is_none() && epilogue.residual.is_none())
        .then(|| Sampled::bind(site, kept, k, 1, "gemm", Layout::RowMajor))
}

/// The shape of a convolution that is a matrix product over pixels.
fn is_product(shape: &ConvShape) -> bool {
    shape.kernel == [1, 1] && shape.stride == [1, 1] && shape.pads == [0; 4]
}

/// The gradient of the input of a convolution with a kept weight.
pub(super) fn conv_by_input(site: &Site<'_>, shape: ConvShape) -> Option<Bound> {
    let kept = site.kept[1].as_ref()?;
    if !is_product(&shape) {
        return kept_conv::by_input(site, shape);
    }
    let none = Epilogue { bias: None, residual: None, activation: Activation::None };
    let pixels = shape.batch * shape.height * shape.width;
    let layout = Layout::ChannelsLast;
    Some(ByWeight::bind(site, kept, true, pixels, &none, "conv_input_gradient", layout))
}
