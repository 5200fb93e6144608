//! Layers whose constant weights are mostly zero: matrix products and convolutions that compute non-zeros only.

use std::fmt;

use wattle_graph::DType;
use wattle_kernels::conv::ConvPlan;
use wattle_kernels::gemm::{self, Gemm};
use wattle_kernels::sparse::{
    self, Activations, Cut, NOfM, Product, SparseConv, SparseLookup, SparseRows, SparseWeights,
};

use super::Epilogue;
use crate::choices::Sparse;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;
use crate::sparse_cost::{Doubt, Form, Layer};

/// With more non-zeros than this share, no sparse kernel is considered, nor is the choice reported.
const WORTH_COUNTING: f64 = 0.7;

/// A sparse kernel, or why not.
pub(super) type Answer = Result<Bound, Refusal>;

/// A dense kernel it is; no reason where the weights are not sparse.
#[derive(Default)]
pub(super) struct Refusal {
    why: Option<String>,
    doubt: Option<Doubt>,
}

impl Refusal {
    /// The dense kernel, with what is known of the choice.
    pub(super) fn explain(self, dense: Bound) -> Bound {
        dense.because(self.why).doubted(self.doubt)
    }
}

struct Chosen {
    form: Form,
    why: String,
    doubt: Option<Doubt>,
}

/// The form of a layer, by the model or as the site demands; `kind` tells layers apart that count alike.
fn form(site: &Site<'_>, layer: &Layer, kind: impl fmt::Debug) -> Result<Chosen, Refusal> {
    let lanes = site.cpu.isa.lanes();
    let choice = layer.choose(lanes);
    let why = choice.to_string();
    let doubt = || {
        let described = format!("{kind:?} {layer:?}");
        Doubt::new(described, choice.form, layer.contenders(lanes))
    };
    match (site.sparse, site.form.unwrap_or(choice.form)) {
        (Sparse::Never, _) => {
            Err(Refusal { why: Some("sparse kernels are switched off".into()), doubt: None })
        }
        (Sparse::Auto, _) if layer.density() > WORTH_COUNTING => Err(Refusal::default()),
        (Sparse::Auto, Form::Dense) => Err(Refusal { why: Some(why), doubt: doubt() }),
        (Sparse::Auto, form) => Ok(Chosen { form, why, doubt: doubt() }),
        (Sparse::Always, Form::Dense) => Ok(Chosen { form: Form::Unstructured, why, doubt: None }),
        (Sparse::Always, form) => Ok(Chosen { form, why, doubt: None }),
    }
}

/// How weights `[rows, columns]` are cut; by a pattern of theirs, if they have one, instead of single elements.
fn cut(form: Form, threads: usize, [rows, columns]: [usize; 2], keep: impl Fn(usize, usize) -> bool) -> Cut {
    match form {
        Form::Blocked => Cut::blocked(threads),
        Form::Vector => Cut::unstructured(threads),
        Form::Unstructured | Form::Dense => match NOfM::of(rows, columns, keep) {
            Some(pattern) => Cut::n_of_m(pattern, threads),
            None => Cut::unstructured(threads),
        },
    }
}

fn kind(form: Form, pattern: Option<NOfM>) -> String {
    match (form, pattern) {
        (Form::Unstructured, Some(pattern)) => pattern.to_string(),
        _ => form.to_string(),
    }
}

struct MatMul {
    weights: Stored,
    shape: Product,
    epilogue: Epilogue,
    name: String,
}

enum Stored {
    Panels(Box<SparseWeights>),
    Rows(SparseRows),
    Lookup(SparseLookup),
}

/// Weights for single vectors. Only AVX-512 looks up in registers; elsewhere a lookup would be a gather.
fn vector_form(site: &Site<'_>, n: usize, k: usize, transposed: bool, weights: &[f32]) -> Option<Stored> {
    let lookup = site.cpu.isa.lanes() == 16;
    let lookup = lookup.then(|| SparseLookup::new(n, k, transposed, weights)).flatten();
    lookup.map(Stored::Lookup).or_else(|| SparseRows::new(n, k, transposed, weights).map(Stored::Rows))
}

/// A product of activations `[m, k]` and constant weights `[k, n]`, or `[n, k]` if `transpose_b`.
pub(super) fn matmul(site: &Site<'_>, gemm: &Gemm, weights: &[f32], epilogue: &Epilogue) -> Answer {
    let Gemm { m, n, k, transpose_b, .. } = *gemm;
    if n * k == 0 || m == 0 {
        return Err(Refusal::default());
    }
    let vector = k <= 1 << 16;
    let layer = Layer { vector, ..Layer::of_product(m, n, k) };
    let layer = layer.count(weights, !transpose_b);
    let Chosen { form, why, doubt } = form(site, &layer, "product")?;
    let threads = site.cpu.threads.count();
    let shape = Product { images: 1, positions: m, x: Activations::Rows, y: Activations::Rows };
    let vector = (form == Form::Vector).then(|| vector_form(site, n, k, !transpose_b, weights)).flatten();
    let (weights, scratch, pattern) = match vector {
        Some(vector) => (vector, 0, None),
        None => {
            let keep = |row: usize, column: usize| {
                weights[if transpose_b { row * k + column } else { column * n + row }] != 0.0
            };
            let cut = cut(form, threads, [n, k], keep);
            let weights = SparseWeights::new(n, k, !transpose_b, weights, cut);
            let scratch = sparse::product_scratch_len(site.cpu, &weights);
            (Stored::Panels(Box::new(weights)), scratch, cut.pattern)
        }
    };
    let name = format!("gemm-sparse-{}-f32-{}", kind(form, pattern), site.cpu.isa.name());
    let epilogue = Epilogue { ..*epilogue };
    let kernel = MatMul { weights, shape, epilogue, name };
    Ok(Bound::row_major(site, kernel)
        .scratch(scratch)
        .takes(1)
        .because(why)
        .doubted(doubt)
        .density(layer.density()))
}

pub(super) fn addends<'a>(epilogue: &Epilogue, io: &Io<'a>) -> Result<gemm::Epilogue<'a>, EngineError> {
    let bias = epilogue.bias.map(|i| io.input(i)).transpose()?;
    let residual = epilogue.residual.map(|i| io.input(i)).transpose()?;
    Ok(gemm::Epilogue { bias, residual, activation: epilogue.activation, ..Default::default() })
}

impl Kernel for MatMul {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, y, e) = (io.input(0)?, io.output(0)?, addends(&self.epilogue, io)?);
        match &self.weights {
            Stored::Rows(rows) => rows.product(io.cpu, x, e, y),
            Stored::Lookup(lookup) => lookup.product(io.cpu, x, e, y),
            Stored::Panels(weights) => sparse::product(io.cpu, weights, &self.shape, x, e, y, io.scratch()?),
        }
        Ok(())
    }
}

struct Conv {
    conv: SparseConv,
    epilogue: Epilogue,
    name: String,
}

/// A convolution with constant weights, channels last.
pub(super) fn conv(site: &Site<'_>, plan: &ConvPlan, weights: &[f32], epilogue: &Epilogue) -> Answer {
    let shape = *plan.shape();
    if shape.groups != 1 || weights.is_empty() || !site.all(DType::F32) {
        return Err(Refusal::default());
    }
    let layer = Layer::of_conv_shape(&shape);
    let layer = layer.count(weights, false);
    let Chosen { form, why, doubt } = form(site, &layer, shape)?;
    // With more taps than one, a column of the weights is a tap of a channel: patterns go along channels.
    let (columns, single) = (weights.len() / shape.filters, shape.kernel == [1, 1]);
    let keep = |row: usize, column: usize| !single || weights[row * columns + column] != 0.0;
    let cut = cut(form, site.cpu.threads.count(), [shape.filters, columns], keep);
    let conv = SparseConv::new(shape, weights, cut).ok_or_else(Refusal::default)?;
    let scratch = conv.scratch_len(site.cpu);
    let name = format!("conv-sparse-{}-nhwc-f32-{}", kind(form, cut.pattern), site.cpu.isa.name());
    let kernel = Conv { conv, epilogue: Epilogue { ..*epilogue }, name };
    let bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch).takes(1);
    Ok(bound.because(why).doubted(doubt).density(layer.density()))
}

impl Kernel for Conv {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let e = addends(&self.epilogue, io)?;
        self.conv.forward(io.cpu, io.input(0)?, e, io.output(0)?, io.scratch()?);
        Ok(())
    }
}
