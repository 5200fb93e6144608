//! Products of 8-bit integers by constant weights: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.

use std::sync::Mutex;

use bytemuck::{cast_slice, cast_slice_mut};
use wattle_graph::{DType, Tensor, ops};
use wattle_kernels::conv::{self, ConvShape};
use wattle_kernels::quantize::{self, value};
use wattle_kernels::quantized::{Bytes, Frames, QuantizedWeights, Rows, Target, quantized_product};
#[cfg(target_arch = "x86_64")]
use wattle_kernels::quantized::{Depthwise, Levels};

use super::quantize::byte;
use crate::bytes;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site, lock};
use crate::layout::Layout;
use crate::sparse_cost::{ByteChoice, ByteLayer};

/// How the sums are formed.
enum Sums {
    /// Rows of the operand as they lie.
    Rows(QuantizedWeights),
    /// Rows read tap by tap: where each tap of each output pixel is in an image.
    Taps(ConvShape, Vec<i32>, QuantizedWeights),
    /// Rows read kernel row by kernel row out of padded copies of images with few channels.
    Frames(Frames, QuantizedWeights),
    /// A row for each patch of an image, copied together.
    Patches(ConvShape, QuantizedWeights),
    /// Channel by channel; weights `[taps, channels]` less their zero points.
    Depthwise(ConvShape, Vec<i16>),
    /// The same, made bytes in the same pass.
    #[cfg(target_arch = "x86_64")]
    DepthwiseBytes(Depthwise),
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

/// Weights for products of m rows by a matrix `[k, n]`, and what is known of the choice of their form.
fn pack(
    site: &Site<'_>,
    tensor: &Tensor,
    [m, k, n]: [usize; 3],
    zeros: &[u8],
    at: impl Fn(usize, usize) -> usize,
) -> Option<(QuantizedWeights, ByteChoice)> {
    let weights = bytes::of(tensor, Layout::RowMajor);
    let signed = byte(tensor.dtype())?;
    let layer = ByteLayer::count(site.cpu, m, k, n, |i, j| {
        value(weights[at(i, j)], signed) != value(zeros[if zeros.len() == 1 { 0 } else { j }], signed)
    });
    let choice = layer.choose(site.sparse, site.form, site.cpu);
    let sparse = if !choice.sparse {
        None
    } else if signed {
        QuantizedWeights::sparse::<i8>(site.cpu, k, n, cast_slice(&weights), cast_slice(zeros), &at)
    } else {
        QuantizedWeights::sparse(site.cpu, k, n, &weights, zeros, &at)
    };
    Some(match sparse {
        Some(sparse) => (sparse, choice),
        None => {
            let too_wide = || format!("no sparse kernel for bytes takes {k} inputs");
            let why = if choice.sparse { Some(too_wide()) } else { choice.why };
            let doubt = choice.doubt.filter(|_| !choice.sparse);
            (dense(site, signed, [k, n], &weights, zeros, at), ByteChoice { sparse: false, why, doubt })
        }
    })
}

fn dense(
    site: &Site<'_>,
    signed: bool,
    [k, n]: [usize; 2],
    weights: &[u8],
    zeros: &[u8],
    at: impl Fn(usize, usize) -> usize,
) -> QuantizedWeights {
    if signed {
        QuantizedWeights::new::<i8>(site.cpu, k, n, cast_slice(weights), cast_slice(zeros), at)
    } else {
        QuantizedWeights::new(site.cpu, k, n, weights, zeros, at)
    }
}

pub(super) fn matmul(site: &Site<'_>, quantized: bool) -> Option<Bound> {
    let form = form(site, quantized)?;
    let (a, b) = (site.input(0), site.input(form.weights));
    let (&[k, n], &[_, .., columns]) = (&b.extents[..], &a.extents[..]) else { return None };
    let m = a.len() / columns.max(1);
    let fits = k > 0 && columns == k && (!quantized || [1, n].contains(&site.input(4).len()));
    let constant = b.constant.filter(|_| fits)?;
    let (weights, choice) = pack(site, constant, [m, k, n], &zeros(site, &form, n)?, |k, j| k * n + j)?;
    let bound = product(site, &form, Sums::Rows(weights), [m, k, n], Layout::RowMajor)?;
    Some(bound.because(choice.why).doubted(choice.doubt))
}

pub(super) fn convolution(site: &Site<'_>, op: &ops::Conv, quantized: bool) -> Option<Bound> {
    let form = form(site, quantized)?;
    let w = site.input(form.weights);
    let shape = super::conv::shape(op, &site.input(0).extents, &w.extents)?;
    let (taps, channels, filters) = (shape.kernel[0] * shape.kernel[1], shape.channels, shape.filters);
    if quantized && ![1, filters].contains(&site.input(4).len()) || w.is_empty() {
        return None;
    }
    let zeros = zeros(site, &form, filters)?;
    let [height, width] = shape.output();
    let rows = shape.batch * height * width;
    let size = [rows, taps * channels / shape.groups, filters];
    let constant = w.constant?;
    let mut choice = ByteChoice::default();
    let frames = Frames::new(&shape).and_then(|frames| framed(site, constant, &shape, frames, &zeros));
    let sums = if let Some(frames) = frames {
        frames
    } else if shape.groups == 1 {
        // The weights' own order is [filters, channels, taps].
        let at = |k: usize, n: usize| (n * channels + k % channels) * taps + k / channels;
        let weights;
        (weights, choice) = pack(site, constant, size, &zeros, at)?;
        let direct = taps == 1 && shape.stride == [1, 1] && shape.pads == [0; 4];
        if direct {
            Sums::Rows(weights)
        } else if weights.is_direct() && channels % 4 == 0 && height * width > 0 {
            Sums::Taps(shape, conv::offsets(&shape), weights)
        } else {
            Sums::Patches(shape, weights)
        }
    } else if shape.groups == channels && filters == channels {
        let signed = byte(w.dtype)?;
        let bytes = bytes::of(constant, Layout::RowMajor);
        let one = |i: usize| {
            let (tap, c) = (i / channels, i % channels);
            let zero = zeros[if zeros.len() == 1 { 0 } else { c }];
            (value(bytes[c * taps + tap], signed) - value(zero, signed)) as i16
        };
        let weights: Vec<i16> = (0..taps * channels).map(one).collect();
        depthwise(site, shape, weights, quantized)
    } else {
        return None;
    };
    let bound = product(site, &form, sums, size, Layout::ChannelsLast)?;
    Some(bound.because(choice.why).doubted(choice.doubt))
}

/// A convolution of images with few channels, where the kernels read rows tap by tap.
fn framed(site: &Site<'_>, tensor: &Tensor, shape: &ConvShape, frames: Frames, zeros: &[u8]) -> Option<Sums> {
    if shape.groups != 1 {
        return None;
    }
    let (taps, wide, filters) = (shape.kernel[0] * shape.kernel[1], frames.channels(), shape.filters);
    let given = bytes::of(tensor, Layout::RowMajor);
    // `[filters, taps, channels of a frame]`; channels that fill up have their filter's zero point.
    let weights: Vec<u8> = (0..filters * taps * wide)
        .map(|i| match (i / (taps * wide), i / wide % taps, i % wide) {
            (f, tap, c) if c < shape.channels => given[(f * shape.channels + c) * taps + tap],
            (f, ..) => zeros[if zeros.len() == 1 { 0 } else { f }],
        })
        .collect();
    let k = taps * wide;
    let packed = dense(site, byte(tensor.dtype())?, [k, filters], &weights, zeros, |k_at, f| f * k + k_at);
    packed.is_direct().then_some(Sums::Frames(frames, packed))
}

fn depthwise(site: &Site<'_>, shape: ConvShape, weights: Vec<i16>, quantized: bool) -> Sums {
    #[cfg(target_arch = "x86_64")]
    if let Some(depthwise) = Depthwise::new(site.cpu, &shape, &weights).filter(|_| quantized) {
        return Sums::DepthwiseBytes(depthwise);
    }
    let _ = (site, quantized);
    Sums::Depthwise(shape, weights)
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
    /// Scratch, in elements of 4 bytes: the product's own, patches, sums that do not stay, factors of sums.
    fn parts(&self) -> [usize; 4] {
        let [m, k, n] = self.size;
        let (own, patches, sums) = match &self.sums {
            Sums::Rows(weights) => (weights.scratch_len(m, m * k), 0, 0),
            Sums::Taps(shape, _, weights) => (weights.scratch_len(m, shape.input_len()), 0, 0),
            Sums::Frames(frames, weights) => (weights.scratch_len(m, frames.bytes()), frames.bytes(), 0),
            Sums::Patches(_, weights) => (weights.scratch_len(m, m * k), m * k, 0),
            Sums::Depthwise(..) => (0, 0, m * n),
            #[cfg(target_arch = "x86_64")]
            Sums::DepthwiseBytes(depthwise) => (4 * depthwise.scratch_len(), 0, 0),
        };
        let (sums, factors) = if matches!(self.end, End::Sums) { (0, 0) } else { (sums, n) };
        [own.div_ceil(4), patches.div_ceil(4), sums, factors].map(|len| len.next_multiple_of(16))
    }
}

impl Kernel for Product {
    fn name(&self) -> String {
        let kind = match &self.sums {
            Sums::Rows(weights) => format!("gemm-{}", weights.kind()),
            Sums::Taps(.., weights) | Sums::Frames(.., weights) | Sums::Patches(_, weights) => {
                format!("conv-nhwc-{}", weights.kind())
            }
            Sums::Depthwise(..) => "depthwise-nhwc".into(),
            #[cfg(target_arch = "x86_64")]
            Sums::DepthwiseBytes(_) => "depthwise-nhwc-vnni".into(),
        };
        format!("{kind}-8bit-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let ([m, k, n], cpu, signed) = (self.size, io.cpu, self.signed);
        let (x, zero) = (io.input::<u8>(0)?, io.optional::<u8>(2)?.map_or(0, |z| z[0]));
        let [own, patches, sums, factors] = super::recurrent::cut(io.scratch()?, self.parts());
        let own: &mut [u8] = cast_slice_mut(own);
        let (mut scales, mut bias, mut zero_of_y, mut signed_y) = (&mut factors[..0], None, 0, false);
        if let End::Bytes { signed, biased } = self.end {
            let (x_scale, w_scale) = (io.input::<f32>(1)?[0], io.input::<f32>(4)?);
            let (y_scale, y_zero) = (io.input::<f32>(6)?[0], io.input::<u8>(7)?[0]);
            scales = &mut factors[..w_scale.len()];
            // The order of these roundings is onnxruntime's.
            scales.iter_mut().zip(w_scale).for_each(|(f, w)| *f = x_scale * w / y_scale);
            bias = if biased { Some(io.input::<i32>(8)?) } else { None };
            (zero_of_y, signed_y) = (value(y_zero, signed), signed);
        }
        let target = match self.end {
            End::Sums => Target::Sums(io.output::<i32>(0)?),
            End::Bytes { .. } => {
                let y = io.output::<u8>(0)?;
                Target::Bytes { y, bias, factors: scales, zero: zero_of_y, signed: signed_y }
            }
        };
        let bytes = |data| Bytes { data, signed, zero: value(zero, signed) };
        match &self.sums {
            Sums::Rows(weights) => quantized_product(cpu, m, bytes(x), Rows::Following, weights, target, own),
            Sums::Taps(shape, offsets, weights) => {
                let [height, width] = shape.output();
                let rows = Rows::Taps {
                    offsets,
                    pixels: height * width,
                    image: shape.height * shape.width * shape.channels,
                    channels: shape.channels,
                };
                quantized_product(cpu, m, bytes(x), rows, weights, target, own);
            }
            Sums::Frames(frames, weights) => {
                let filled = &mut cast_slice_mut::<f32, u8>(patches)[..frames.bytes()];
                frames.fill(cpu, x, zero, filled);
                quantized_product(cpu, m, bytes(filled), frames.rows(), weights, target, own);
            }
            Sums::Patches(shape, weights) => {
                let patches = &mut cast_slice_mut::<f32, u8>(patches)[..m * k];
                conv::patches(cpu, shape, 0, x, zero, patches);
                quantized_product(cpu, m, bytes(patches), Rows::Following, weights, target, own);
            }
            #[cfg(target_arch = "x86_64")]
            Sums::DepthwiseBytes(depthwise) => {
                let Target::Bytes { y, bias, factors, zero: zero_of_y, signed } = target else {
                    return Err(EngineError::Defect("a kernel that makes bytes is asked for sums".into()));
                };
                let levels = Levels { bias, factors, zero: zero_of_y, signed };
                depthwise.run(cpu, bytes(x), levels, y, cast_slice_mut(own));
            }
            Sums::Depthwise(shape, weights) => {
                let zero = value(zero, signed);
                match target {
                    Target::Sums(sums) => {
                        quantize::depthwise_sums(cpu, shape, x, zero, signed, weights, sums)
                    }
                    Target::Bytes { y, bias, factors, zero: zero_of_y, signed: signed_y } => {
                        let sums = &mut cast_slice_mut(sums)[..m * n];
                        quantize::depthwise_sums(cpu, shape, x, zero, signed, weights, sums);
                        quantize::requantize(cpu, n, sums, bias, factors, zero_of_y, signed_y, y);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A product of two computed matrices, or of as many pairs of them as there are: attention.
struct Computed {
    /// Products, rows, length of each dot product, columns.
    size: [usize; 4],
    /// Whether a, b and y are i8.
    signed: [bool; 3],
    /// Packed anew for each product.
    packed: Mutex<QuantizedWeights>,
    isa: &'static str,
}

/// QLinearMatMul of matrices that are both computed, with one scale and one zero point for each operand.
pub(super) fn computed(site: &Site<'_>) -> Option<Bound> {
    let (a, b) = (site.input(0), site.input(3));
    let single = [1, 2, 4, 5, 6, 7].iter().all(|&i| site.input(i).len() == 1);
    let scales = [1, 4, 6].iter().all(|&i| site.input(i).dtype == DType::F32);
    let signed = [byte(a.dtype)?, byte(b.dtype)?, byte(site.outputs[0].1)?];
    let (&[ref outer @ .., m, k], &[ref other @ .., inner, n]) = (&a.extents[..], &b.extents[..]) else {
        return None;
    };
    let fits = outer == other && inner == k && k > 0 && n > 0 && site.optional(8).is_none();
    if !single || !scales || !fits {
        return None;
    }
    let packed = QuantizedWeights::new(site.cpu, k, n, &vec![0i8; k * n], &[0], |i, j| i * n + j);
    let scratch = packed.scratch_len(m, m * k).div_ceil(4).next_multiple_of(16);
    let size = [outer.iter().product(), m, k, n];
    let kernel = Computed { size, signed, packed: Mutex::new(packed), isa: site.cpu.isa.name() };
    Some(Bound::row_major(site, kernel).scratch(scratch))
}

impl Kernel for Computed {
    fn name(&self) -> String {
        format!("gemm-computed-{}-8bit-{}", lock(&self.packed).kind(), self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let ([count, m, k, n], [a_signed, b_signed, y_signed]) = (self.size, self.signed);
        let (a, b, y) = (io.input::<u8>(0)?, io.input::<u8>(3)?, io.output::<u8>(0)?);
        let zero =
            |i: usize, signed: bool| -> Result<i32, EngineError> { Ok(value(io.input::<u8>(i)?[0], signed)) };
        let (a_zero, b_zero, y_zero) = (zero(2, a_signed)?, zero(5, b_signed)?, zero(7, y_signed)?);
        let scale = |i: usize| -> Result<f32, EngineError> { Ok(io.input::<f32>(i)?[0]) };
        let factors = [scale(1)? * scale(4)? / scale(6)?];
        let scratch: &mut [u8] = cast_slice_mut(io.scratch()?);
        let mut packed = lock(&self.packed);
        for i in 0..count {
            packed.refill(Bytes { data: &b[i * k * n..][..k * n], signed: b_signed, zero: b_zero });
            let a = Bytes { data: &a[i * m * k..][..m * k], signed: a_signed, zero: a_zero };
            let y = &mut y[i * m * n..][..m * n];
            let target = Target::Bytes { y, bias: None, factors: &factors, zero: y_zero, signed: y_signed };
            quantized_product(io.cpu, m, a, Rows::Following, &packed, target, scratch);
        }
        Ok(())
    }
}
