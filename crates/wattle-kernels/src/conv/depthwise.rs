//! Depthwise convolution, NHWC: vectors run over channels, each channel with a kernel of its own.

use super::{ConvPlan, ConvShape, depthwise_3x3};
use crate::Cpu;
use crate::gemm::Epilogue;
use crate::igemm::{MAX_K, OUTSIDE, RowsOfC, ZEROS};
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Output elements of one task, at least.
const TASK: usize = 16 * 1024;
/// Chunks of the sum over output pixels in the weight gradient.
const CHUNKS: usize = 8;

/// Reorders weights `[channels, 1, kernel height, kernel width]` to `[kernel height * kernel width, channels]`, as all
/// depthwise kernels read them.
pub fn pack_depthwise(shape: &ConvShape, weights: &[f32], out: &mut [f32]) {
    assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
    let taps = shape.taps();
    for (channel, weights) in weights.chunks_exact(taps).enumerate() {
        for (tap, w) in weights.iter().enumerate() {
            out[tap * shape.channels + channel] = *w;
        }
    }
}

/// `y = activation([y +] conv(x) + bias + residual)`; weights from [`pack_depthwise`].
pub fn depthwise_forward(cpu: &Cpu, plan: &ConvPlan, x: &[f32], weights: &[f32], e: Epilogue, y: &mut [f32]) {
    let shape = &plan.shape;
    assert!(shape.is_depthwise(), "{shape:?}");
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(y.len(), shape.output_len(), "output of {shape:?}");
    assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
    let [out_height, out_width] = shape.output();
    let pixels = out_height * out_width;
    e.check(shape.batch * pixels, shape.channels);
    if depthwise_3x3::applies(shape) {
        return depthwise_3x3::forward(cpu, shape, x, weights, e, y);
    }
    let op = Depthwise {
        channels: shape.channels,
        pixels,
        images: shape.batch,
        x: x.as_ptr(),
        x_image: shape.height * shape.width * shape.channels,
        offsets: &plan.offsets,
        weights: weights.as_ptr(),
        taps: None,
        tap_count: shape.taps(),
        y: y.as_mut_ptr(),
        y_rows: RowsOfC::Affine { stride: shape.channels },
        e,
    };
    op.run(cpu);
}

/// `dx = activation([dx +] gradient + bias + residual)` of the input of [`depthwise_forward`] given `dy`; also the
/// depthwise transposed convolution.
pub fn depthwise_input_gradient(
    cpu: &Cpu,
    plan: &ConvPlan,
    dy: &[f32],
    weights: &[f32],
    e: Epilogue,
    dx: &mut [f32],
) {
    let shape = &plan.shape;
    assert!(shape.is_depthwise(), "{shape:?}");
    assert_eq!(dx.len(), shape.input_len(), "input gradient of {shape:?}");
    assert_eq!(dy.len(), shape.output_len(), "output gradient of {shape:?}");
    assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
    e.check(shape.batch * shape.height * shape.width, shape.channels);
    let [out_height, out_width] = shape.output();
    for phase in plan.phases() {
        let op = Depthwise {
            channels: shape.channels,
            pixels: phase.pixels.len(),
            images: shape.batch,
            x: dy.as_ptr(),
            x_image: out_height * out_width * shape.channels,
            offsets: &phase.offsets,
            weights: weights.as_ptr(),
            taps: Some(&phase.taps),
            tap_count: phase.taps.len(),
            y: dx.as_mut_ptr(),
            y_rows: RowsOfC::Table {
                offsets: &phase.pixels,
                image_stride: shape.height * shape.width * shape.channels,
            },
            e,
        };
        op.run(cpu);
    }
}

/// `y[p, c] = sum over taps of x[offset(tap, p) + c] * weights[tap, c]` for the pixels of all images.
struct Depthwise<'a> {
    channels: usize,
    pixels: usize,
    images: usize,
    x: *const f32,
    x_image: usize,
    /// `[tap][pixel]`.
    offsets: &'a [i32],
    weights: *const f32,
    /// Rows of the weights that the taps use; all in order if none.
    taps: Option<&'a [u32]>,
    tap_count: usize,
    y: *mut f32,
    y_rows: RowsOfC<'a>,
    e: Epilogue<'a>,
}

// SAFETY: tasks write disjoint pixels of y and only read the rest.
unsafe impl Sync for Depthwise<'_> {}

impl Depthwise<'_> {
    fn run(&self, cpu: &Cpu) {
        if self.pixels * self.channels * self.images == 0 {
            return;
        }
        let piece = (TASK / self.channels).clamp(1, self.pixels);
        let pieces = self.pixels.div_ceil(piece);
        cpu.threads.for_each(self.images * pieces, |task| {
            let (image, part) = (task / pieces, task % pieces);
            let pixels = part * piece..self.pixels.min((part + 1) * piece);
            cpu.isa.run(PixelTask { op: self, image, pixels: pixels.clone() });
            if !self.e.activation.is_clamp() {
                let offset = |p: usize| self.y_rows.offset(image * self.pixels + p);
                let (first, len) = (offset(pixels.start), pixels.len() * self.channels);
                if offset(pixels.end - 1) == first + len - self.channels {
                    // SAFETY: the pixels follow each other without gaps: one run of y that this task owns.
                    let run = unsafe { std::slice::from_raw_parts_mut(self.y.add(first), len) };
                    return self.e.activation.apply(cpu.isa, run);
                }
                for p in pixels {
                    // SAFETY: the pixel's channels lie in y, and this task owns them.
                    let row = unsafe {
                        let start = self.y.add(self.y_rows.offset(image * self.pixels + p));
                        std::slice::from_raw_parts_mut(start, self.channels)
                    };
                    self.e.activation.apply(cpu.isa, row);
                }
            }
        });
    }
}

struct PixelTask<'a> {
    op: &'a Depthwise<'a>,
    image: usize,
    pixels: Range<usize>,
}

impl Kernel for PixelTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut c = 0;
        while c < self.op.channels {
            let left = self.op.channels - c;
            // More vectors share the work of finding a pixel, as far as registers go.
            if left >= 4 * S::LANES && S::REGISTERS == 32 {
                self.strip::<S, 4, 4>(s, c, S::LANES);
                c += 4 * S::LANES;
            } else if left >= 2 * S::LANES {
                self.strip::<S, 4, 2>(s, c, S::LANES);
                c += 2 * S::LANES;
            } else {
                self.strip::<S, 8, 1>(s, c, left.min(S::LANES));
                c += S::LANES;
            }
        }
    }
}

impl PixelTask<'_> {
    /// Channels from `c`: all lanes of `NV` vectors, of the last only `lanes`.
    #[inline(always)]
    fn strip<S: Simd, const PIXELS: usize, const NV: usize>(&self, s: S, c: usize, lanes: usize) {
        let mut p = self.pixels.start;
        while p < self.pixels.end {
            if lanes == S::LANES {
                s.run(PixelTile::<PIXELS, NV, false> { task: self, p, c, lanes });
            } else {
                s.run(PixelTile::<PIXELS, NV, true> { task: self, p, c, lanes });
            }
            p += PIXELS;
        }
    }
}

struct PixelTile<'a, const PIXELS: usize, const NV: usize, const PARTIAL: bool> {
    task: &'a PixelTask<'a>,
    p: usize,
    c: usize,
    lanes: usize,
}

impl<const PIXELS: usize, const NV: usize, const PARTIAL: bool> Kernel
    for PixelTile<'_, PIXELS, NV, PARTIAL>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let op = self.task.op;
        let (c, lanes) = (self.c, self.lanes);
        let count = (self.task.pixels.end - self.p).min(PIXELS);
        let x = op.x.wrapping_add(self.task.image * op.x_image + c);
        let mut acc = [[s.zero(); NV]; PIXELS];
        for t in 0..op.tap_count {
            let row = op.taps.map_or(t, |taps| taps[t] as usize);
            let mut w = [s.zero(); NV];
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: row t of the weights has all channels; c + NV vectors (the last partial) are within them.
                *w = unsafe {
                    load::<S, PARTIAL>(s, op.weights.add(row * op.channels + c + v * S::LANES), lanes)
                };
            }
            for i in 0..PIXELS {
                let p = self.p + i.min(count - 1);
                // SAFETY: p < pixels, and the table has tap_count * pixels entries.
                let offset = unsafe { *op.offsets.get_unchecked(t * op.pixels + p) };
                let outside = offset == OUTSIDE;
                let from = if outside { ZEROS.as_ptr() } else { x.wrapping_add(offset as usize) };
                for v in 0..NV {
                    // SAFETY: inside, the pixel has all channels; outside, there are more zeros than NV vectors.
                    let value = unsafe { load::<S, PARTIAL>(s, from.add(v * S::LANES), lanes) };
                    acc[i][v] = s.fma(value, w[v], acc[i][v]);
                }
            }
        }
        const { assert!(NV * S::LANES <= MAX_K) };
        let (low, high) = op.e.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        for i in 0..PIXELS {
            if i >= count {
                break;
            }
            let at = op.y_rows.offset(self.task.image * op.pixels + self.p + i) + c;
            for v in 0..NV {
                let mut y = acc[i][v];
                let step = v * S::LANES;
                // SAFETY: the pixel's channels are in y and the residual, the channels in the bias.
                unsafe {
                    if op.e.accumulate {
                        y = s.add(y, load::<S, PARTIAL>(s, op.y.add(at + step), lanes));
                    }
                    if let Some(bias) = op.e.bias {
                        y = s.add(y, load::<S, PARTIAL>(s, bias.as_ptr().add(c + step), lanes));
                    }
                    if let Some(residual) = op.e.residual {
                        y = s.add(y, load::<S, PARTIAL>(s, residual.as_ptr().add(at + step), lanes));
                    }
                    y = s.min(high, s.max(low, y));
                    if PARTIAL {
                        s.store_partial(op.y.add(at + step), lanes, y);
                    } else {
                        s.store(op.y.add(at + step), y);
                    }
                }
            }
        }
    }
}

/// # Safety
/// `p` must be readable for a vector, or `lanes` elements if partial.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const PARTIAL: bool>(s: S, p: *const f32, lanes: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { if PARTIAL { s.load_partial(p, lanes) } else { s.load(p) } }
}

/// Scratch elements that [`depthwise_weight_gradient`] needs.
pub fn depthwise_weight_gradient_scratch_len(plan: &ConvPlan) -> usize {
    CHUNKS * plan.shape.weights_len()
}

/// `dw = [dw +] gradient` of the weights `[channels, 1, kernel height, kernel width]`.
pub fn depthwise_weight_gradient(
    cpu: &Cpu,
    plan: &ConvPlan,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dw: &mut [f32],
    scratch: &mut [f32],
) {
    let shape = &plan.shape;
    assert!(shape.is_depthwise(), "{shape:?}");
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(dy.len(), shape.output_len(), "output gradient of {shape:?}");
    assert_eq!(dw.len(), shape.weights_len(), "weight gradient of {shape:?}");
    let len = shape.weights_len();
    if len == 0 {
        return;
    }
    let scratch = &mut scratch[..CHUNKS * len];
    let [out_height, out_width] = shape.output();
    let total = shape.batch * out_height * out_width;
    cpu.threads.for_each_piece(scratch, len, |chunk, partial| {
        let pixels = total * chunk / CHUNKS..total * (chunk + 1) / CHUNKS;
        partial.fill(0.0);
        add_weight_gradient(cpu.isa, plan, x, dy, pixels, partial);
    });
    let (sum, rest) = scratch.split_at_mut(len);
    for other in rest.chunks_exact(len) {
        sum.iter_mut().zip(other).for_each(|(x, y)| *x += y);
    }
    let taps = shape.taps();
    for (channel, dw) in dw.chunks_exact_mut(taps).enumerate() {
        for (tap, dw) in dw.iter_mut().enumerate() {
            let value = sum[tap * shape.channels + channel];
            *dw = if accumulate { *dw + value } else { value };
        }
    }
}

fn add_weight_gradient(
    isa: Isa,
    plan: &ConvPlan,
    x: &[f32],
    dy: &[f32],
    pixels: Range<usize>,
    out: &mut [f32],
) {
    isa.run(TapSums { plan, x, dy, pixels, out: out.as_mut_ptr() });
}

struct TapSums<'a> {
    plan: &'a ConvPlan,
    x: &'a [f32],
    dy: &'a [f32],
    /// Output pixels, counted over all images.
    pixels: Range<usize>,
    /// `[tap, channel]`.
    out: *mut f32,
}

impl Kernel for TapSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let shape = &self.plan.shape;
        let [out_height, out_width] = shape.output();
        let image_pixels = out_height * out_width;
        // Work through pixels in blocks that stay in cache while all channels and taps pass.
        let block = (8192 / shape.channels).max(16);
        let mut first = self.pixels.start;
        while first < self.pixels.end {
            let image = first / image_pixels;
            let end = self.pixels.end.min(first + block).min((image + 1) * image_pixels);
            let mut c = 0;
            while c < shape.channels {
                let lanes = (shape.channels - c).min(S::LANES);
                let mut tap = 0;
                while tap < shape.taps() {
                    let left = shape.taps() - tap;
                    let block = TapBlock { task: &self, image, pixels: first..end, c, lanes, tap };
                    tap += match left {
                        9.. => block.run::<S, 9>(s),
                        7..=8 => block.run::<S, 7>(s),
                        5..=6 => block.run::<S, 5>(s),
                        3..=4 => block.run::<S, 3>(s),
                        _ => block.run::<S, 1>(s),
                    };
                }
                c += lanes;
            }
            first = end;
        }
    }
}

struct TapBlock<'a> {
    task: &'a TapSums<'a>,
    image: usize,
    pixels: Range<usize>,
    c: usize,
    lanes: usize,
    tap: usize,
}

impl TapBlock<'_> {
    #[inline(always)]
    fn run<S: Simd, const T: usize>(self, s: S) -> usize {
        if self.lanes == S::LANES {
            s.run(TapTile::<T, false>(&self));
        } else {
            s.run(TapTile::<T, true>(&self));
        }
        T
    }
}

struct TapTile<'a, const T: usize, const PARTIAL: bool>(&'a TapBlock<'a>);

impl<const T: usize, const PARTIAL: bool> Kernel for TapTile<'_, T, PARTIAL> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let TapBlock { task, image, ref pixels, c, lanes, tap } = *self.0;
        let shape = &task.plan.shape;
        let [out_height, out_width] = shape.output();
        let image_pixels = out_height * out_width;
        let x = task.x.as_ptr().wrapping_add(image * shape.height * shape.width * shape.channels + c);
        let offsets = task.plan.offsets.as_ptr();
        let mut acc = [s.zero(); T];
        for pixel in pixels.clone() {
            // SAFETY: pixel < batch * image_pixels and c + lanes <= channels.
            let dy =
                unsafe { load::<S, PARTIAL>(s, task.dy.as_ptr().add(pixel * shape.channels + c), lanes) };
            let p = pixel - image * image_pixels;
            for (t, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the table has taps * image_pixels entries; inside, the pixel has all channels; outside, there
                // are more zeros than one vector.
                let value = unsafe {
                    let offset = *offsets.add((tap + t) * image_pixels + p);
                    let outside = offset == OUTSIDE;
                    let from = if outside { ZEROS.as_ptr() } else { x.wrapping_add(offset as usize) };
                    load::<S, PARTIAL>(s, from, lanes)
                };
                *acc = s.fma(value, dy, *acc);
            }
        }
        for (t, acc) in acc.iter().enumerate() {
            // SAFETY: row tap + t of the partial has all channels.
            unsafe {
                let out = task.out.add((tap + t) * shape.channels + c);
                let sum = s.add(*acc, load::<S, PARTIAL>(s, out, lanes));
                if PARTIAL {
                    s.store_partial(out, lanes, sum);
                } else {
                    s.store(out, sum);
                }
            }
        }
    }
}
