//! Products of 8-bit integers by constant weights: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.

use bytemuck::{cast_slice, cast_slice_mut};
use wattle_graph::{DType, Tensor, ops};
use wattle_kernels::conv::{self, ConvShape};
use wattle_kernels::quantize::{self, value};
use wattle_kernels::quantized::{QuantizedWeights, quantized_gemm, quantized_gemm_scratch_len};

use super::quantize::byte;
use crate::bytes;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// How the sums are formed.
enum Sums {
    /// Rows of the operand as they lie.
    Rows(QuantizedWeights),
    /// A row for each patch of an image.
    Patches(ConvShape, QuantizedWeights),
    /// Channel by channel; weights `[taps, channels]` less their zero points.
    Depthwise(ConvShape, Vec<i16>),
}

/// What becomes of the sums: they stay, or become bytes of this sign.
#[derive(Clone, Copy)]
enum End {
    Sums,
    Bytes { signed: bool, biased: bool },
}

struct Product {
    sums: Sums,
    /// Rows, length of each dot product, columns.
    size: [usize; 3],
    signed: bool,
    end: End,
    isa: &'static str,
}

/// Where the weights and their zero points stand among the operands, and what the result is.
struct Form {
    weights: usize,
    zero: usize,
    end: End,
}

/// The form of this node, if its types and constants are those that the kernels take.
fn form(site: &Site<'_>, quantized: bool) -> Option<Form> {
    let form = if !quantized {
        Form { weights: 1, zero: 3, end: End::Sums }
    } else {
        let scales = [1, 4, 6].iter().all(|&i| site.input(i).dtype == DType::F32);
        let single = scales && site.input(1).len() == 1;
        let (biased, signed) = (site.optional(8).is_some(), byte(site.outputs[0].1)?);
        Form { weights: 3, zero: 5, end: single.then_some(End::Bytes { signed, biased })? }
    };
    let zero_known = site.optional(form.zero).is_none_or(|z| z.constant.is_some());
    let one_zero = site.optional(2).is_none_or(|z| z.len() == 1);
    (zero_known && one_zero).then_some(form)
}

/// The zero points of constant weights, one or one for each column.
fn zeros(site: &Site<'_>, form: &Form, columns: usize) -> Option<Vec<u8>> {
    let zeros = match site.optional(form.zero) {
        None => vec![0],
        Some(zero) => bytes::of(zero.constant?, Layout::RowMajor),
    };
    [1, columns].contains(&zeros.len()).then_some(zeros)
}

fn pack(
    tensor: &Tensor,
    [k, n]: [usize; 2],
    zeros: &[u8],
    at: impl Fn(usize, usize) -> usize,
) -> Option<QuantizedWeights> {
    let weights = bytes::of(tensor, Layout::RowMajor);
    Some(match byte(tensor.dtype())? {
        false => QuantizedWeights::new(k, n, &weights, zeros, at),
        true => QuantizedWeights::new::<i8>(k, n, cast_slice(&weights), cast_slice(zeros), at),
    })
}

pub(super) fn matmul(site: &Site<'_>, quantized: bool) -> Option<Bound> {
    let form = form(site, quantized)?;
    let (a, b) = (site.input(0), site.input(form.weights));
    let (&[k, n], &[_, .., columns]) = (&b.extents[..], &a.extents[..]) else { return None };
    let m = a.len() / columns.max(1);
    let fits = k > 0 && columns == k && (!quantized || [1, n].contains(&site.input(4).len()));
    let weights = pack(b.constant.filter(|_| fits)?, [k, n], &zeros(site, &form, n)?, |k, j| k * n + j)?;
    product(site, &form, Sums::Rows(weights), [m, k, n], Layout::RowMajor)
}

pub(super) fn convolution(site: &Site<'_>, op: &ops::Conv, quantized: bool) -> Option<Bound> {
    let form = form(site, quantized)?;
    let w = site.input(form.weights);
    let shape = super::conv::shape(op, &site.input(0).extents, &w.extents)?;
    let (taps, channels, filters) = (shape.kernel[0] * shape.kernel[1], shape.channels, shape.filters);
    if quantized && ![1, filters].contains(&site.input(4).len()) || w.len() == 0 {
        return None;
    }
    let zeros = zeros(site, &form, filters)?;
    let [height, width] = shape.output();
    let rows = shape.batch * height * width;
    let size = [rows, taps * channels / shape.groups, filters];
    let constant = w.constant?;
    let sums = if shape.groups == 1 {
        // The weights' own order is [filters, channels, taps].
        let at = |k: usize, n: usize| (n * channels + k % channels) * taps + k / channels;
        let weights = pack(constant, [taps * channels, filters], &zeros, at)?;
        let direct = taps == 1 && shape.stride == [1, 1] && shape.pads == [0; 4];
        if direct { Sums::Rows(weights) } else { Sums::Patches(shape, weights) }
    } else if shape.groups == channels && filters == channels {
        let signed = byte(w.dtype)?;
        let bytes = bytes::of(constant, Layout::RowMajor);
        let one = |i: usize| {
            let (tap, c) = (i / channels, i % channels);
            let zero = zeros[if zeros.len() == 1 { 0 } else { c }];
            (value(bytes[c * taps + tap], signed) - value(zero, signed)) as i16
        };
        Sums::Depthwise(shape, (0..taps * channels).map(one).collect())
    } else {
        return None;
    };
    product(site, &form, sums, size, Layout::ChannelsLast)
}

fn product(site: &Site<'_>, form: &Form, sums: Sums, size: [usize; 3], layout: Layout) -> Option<Bound> {
    let signed = byte(site.input(0).dtype)?;
    let kernel = Product { sums, size, signed, end: form.end, isa: site.cpu.isa.name() };
    let scratch = kernel.parts().iter().sum();
    let mut bound = Bound::uniform(site, layout, kernel).scratch(scratch);
    bound.input_layouts[1..].fill(Layout::RowMajor);
    bound = bound.takes(form.weights);
    Some(if site.optional(form.zero).is_some() { bound.takes(form.zero) } else { bound })
}

impl Product {
    /// Scratch, in elements of 4 bytes: rows as 16 bits, patches, sums that do not stay, their factors.
    fn parts(&self) -> [usize; 4] {
        let [m, k, n] = self.size;
        let wide = quantized_gemm_scratch_len(m, k).div_ceil(2);
        let (wide, patches) = match self.sums {
            Sums::Rows(_) => (wide, 0),
            Sums::Patches(..) => (wide, (m * k).div_ceil(4)),
            Sums::Depthwise(..) => (0, 0),
        };
        let (sums, factors) = if matches!(self.end, End::Sums) { (0, 0) } else { (m * n, n) };
        [wide, patches, sums, factors].map(|len| len.next_multiple_of(16))
    }
}

impl Kernel for Product {
    fn name(&self) -> String {
        let kind = match self.sums {
            Sums::Rows(_) => "gemm",
            Sums::Patches(..) => "conv-nhwc",
            Sums::Depthwise(..) => "depthwise-nhwc",
        };
        format!("{kind}-8bit-{}", self.isa)
    }

    fn run(&mut self, io: &Io<'_>) -> Result<(), EngineError> {
        let ([m, k, n], cpu, signed) = (self.size, io.cpu, self.signed);
        let (x, zero) = (io.input::<u8>(0)?, io.optional::<u8>(2)?.map_or(0, |z| z[0]));
        let [wide, patches, sums, factors] = super::recurrent::cut(io.scratch()?, self.parts());
        let patches_len = if patches.is_empty() { 0 } else { m * k };
        let patches = &mut cast_slice_mut::<f32, u8>(patches)[..patches_len];
        let sums = match self.end {
            End::Sums => io.output::<i32>(0)?,
            End::Bytes { .. } => &mut cast_slice_mut(sums)[..m * n],
        };
        let (rows, weights) = match &self.sums {
            Sums::Rows(weights) => (x, Some(weights)),
            Sums::Patches(shape, weights) => {
                conv::patches(cpu, shape, 0, x, zero, patches);
                (&*patches, Some(weights))
            }
            Sums::Depthwise(shape, weights) => {
                quantize::depthwise_sums(cpu, shape, x, value(zero, signed), signed, weights, sums);
                (x, None)
            }
        };
        if let Some(weights) = weights {
            let wide = cast_slice_mut(wide);
            match signed {
                false => quantized_gemm(cpu, m, rows, &[zero], weights, sums, wide),
                true => {
                    quantized_gemm::<i8>(cpu, m, cast_slice(rows), &[zero as i8], weights, sums, wide);
                }
            }
        }
        if let End::Bytes { signed, biased } = self.end {
            let (x_scale, w_scale) = (io.input::<f32>(1)?[0], io.input::<f32>(4)?);
            let (y_scale, y_zero) = (io.input::<f32>(6)?[0], io.input::<u8>(7)?[0]);
            let factors = &mut factors[..w_scale.len()];
            // The order of these roundings is onnxruntime's.
            factors.iter_mut().zip(w_scale).for_each(|(f, w)| *f = x_scale * w / y_scale);
            let bias = if biased { Some(io.input::<i32>(8)?) } else { None };
            let (zero, y) = (value(y_zero, signed), io.output(0)?);
            quantize::requantize(cpu, n, sums, bias, factors, zero, signed, y);
        }
        Ok(())
    }
}
