//! Convolution of images with few channels, the first layer of most networks: a strip of the image is copied with its
//! padding, one plane for each channel, and sums of neighbouring output pixels stay in registers over all of the kernel.

use super::ConvShape;
use crate::Cpu;
use crate::gemm::Epilogue;
use crate::simd::{Isa, Kernel, Simd, unrolled};
use crate::threads::Shared;
use std::ops::Range;

/// More channels than this keep vectors busy in the product over channels last.
const FEW: usize = 4;
/// Vectors of filters in a panel of the weights.
const VECTORS: usize = 2;
/// Output elements of one task, about: its strip of the image stays in a second-level cache.
const TASK: usize = 32 * 1024;
/// Output pixels of the largest tile: 28 of 32 registers hold sums of two vectors.
const PIXELS: usize = 14;

/// A convolution of few channels.
pub(super) struct Stem {
    shape: ConvShape,
    /// Columns of a plane: as many as a tile may read that begins in the image's last output column.
    width: usize,
    /// Whether images are planes, `[channels, height, width]`, instead of pixels, `[height, width, channels]`.
    pub planes: bool,
}

impl Stem {
    /// Applies when channels are few and the taps of a kernel row are neighbours in a plane.
    pub(super) fn new(shape: &ConvShape) -> Option<Self> {
        let [out_height, out_width] = shape.output();
        let applies = shape.groups == 1
            && !shape.is_depthwise()
            && shape.channels <= FEW
            && shape.kernel[1] > 1
            && shape.dilation[1] == 1
            && out_height * out_width > 0;
        let width = (out_width + PIXELS - 2) * shape.stride[1] + shape.kernel[1];
        applies.then_some(Stem { shape: *shape, width, planes: false })
    }

    /// Products of one sum.
    fn depth(&self) -> usize {
        self.shape.channels * self.shape.taps()
    }

    /// Elements of packed weights.
    pub(super) fn weights_len(&self, isa: Isa) -> usize {
        self.depth() * self.shape.filters.next_multiple_of(VECTORS * isa.lanes())
    }

    /// Packs weights `[filters, channels, kernel height, kernel width]` to `[panel, depth, filters of the panel]`.
    pub(super) fn pack(&self, isa: Isa, weights: &[f32], out: &mut [f32]) {
        let (depth, panel) = (self.depth(), VECTORS * isa.lanes());
        let out = &mut out[..self.weights_len(isa)];
        out.fill(0.0);
        for (filter, weights) in weights.chunks_exact(depth.max(1)).enumerate() {
            for (k, w) in weights.iter().enumerate() {
                out[(filter / panel * depth + k) * panel + filter % panel] = *w;
            }
        }
    }

    /// Rows of a plane that so many output rows read.
    fn plane_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.shape.stride[0] + (self.shape.kernel[0] - 1) * self.shape.dilation[0] + 1
    }

    /// Elements of the planes that so many output rows, at least one, read.
    pub(super) fn planes_len(&self, rows: usize) -> usize {
        (self.shape.channels * self.plane_rows(rows) * self.width).next_multiple_of(16)
    }

    /// Output rows of a task.
    fn task_rows(&self) -> usize {
        let [height, width] = self.shape.output();
        (TASK / (width * self.shape.filters).max(1)).clamp(1, height)
    }

    /// Scratch elements that [`Self::run`] needs.
    pub(super) fn scratch_len(&self, cpu: &Cpu) -> usize {
        cpu.threads.count() * self.planes_len(self.task_rows())
    }

    /// `y = activation([y +] conv(x) + bias + residual)`; the caller has checked all lengths but that of the scratch.
    pub(super) fn run(
        &self,
        cpu: &Cpu,
        x: &[f32],
        weights: &[f32],
        e: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        let [height, width] = self.shape.output();
        let (rows, row) = (self.task_rows(), width * self.shape.filters);
        let pieces = height.div_ceil(rows);
        let len = self.planes_len(rows);
        let (y, scratch) = (Shared::new(y), Shared::new(scratch));
        cpu.threads.for_each_slot(self.shape.batch * pieces, |slot, task| {
            let (image, first) = (task / pieces, task % pieces * rows);
            let rows = first..height.min(first + rows);
            let (from, out) = ((image * height + first) * row, rows.len() * row);
            // SAFETY: tasks that run at the same time have different slots, and every task its own rows of y.
            let (planes, y) = unsafe { (scratch.slice(slot * len, len), y.slice(from, out)) };
            let residual = e.residual.map(|r| &r[from..from + out]);
            self.rows(cpu.isa, x, weights, Epilogue { residual, ..e }, image, rows, y, planes);
        });
    }

    /// Some output rows of one image, which `y` and the residual are alone; `planes` has [`Self::planes_len`] elements.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn rows(
        &self,
        isa: Isa,
        x: &[f32],
        weights: &[f32],
        e: Epilogue,
        image: usize,
        rows: Range<usize>,
        y: &mut [f32],
        planes: &mut [f32],
    ) {
        let [_, out_width] = self.shape.output();
        let row = out_width * self.shape.filters;
        let len = self.shape.height * self.shape.width * self.shape.channels;
        let height = self.plane_rows(rows.len());
        assert!(y.len() == rows.len() * row && e.residual.is_none_or(|r| r.len() == y.len()));
        assert!(e.bias.is_none_or(|b| b.len() == self.shape.filters));
        assert!(weights.len() >= self.weights_len(isa));
        let planes = &mut planes[..self.planes_len(rows.len())];
        self.copy(&x[image * len..][..len], rows.start * self.shape.stride[0], height, planes);
        isa.run(Strip { stem: self, planes, height, weights, e, rows: rows.len(), y: y.as_mut_ptr() });
        if !e.activation.is_clamp() {
            e.activation.apply(isa, y);
        }
    }

    /// Copies `height` rows of an image, the first of which is `first` of the padded image, to planes.
    fn copy(&self, x: &[f32], first: usize, height: usize, planes: &mut [f32]) {
        let shape = &self.shape;
        let left = shape.pads[1].min(self.width);
        let inside = shape.width.min(self.width - left);
        let rows = planes[..shape.channels * height * self.width].chunks_exact_mut(self.width);
        for (i, out) in rows.enumerate() {
            let (channel, y) = (i / height, (first + i % height).wrapping_sub(shape.pads[0]));
            if y >= shape.height {
                out.fill(0.0);
                continue;
            }
            let (before, out) = out.split_at_mut(left);
            let (out, after) = out.split_at_mut(inside);
            before.fill(0.0);
            after.fill(0.0);
            if self.planes {
                out.copy_from_slice(&x[(channel * shape.height + y) * shape.width..][..inside]);
            } else {
                let pixels = x[y * shape.width * shape.channels..].chunks_exact(shape.channels);
                out.iter_mut().zip(pixels).for_each(|(out, pixel)| *out = pixel[channel]);
            }
        }
    }
}

/// Output rows of a strip, from its planes of `height` rows each.
struct Strip<'a> {
    stem: &'a Stem,
    planes: &'a [f32],
    height: usize,
    weights: &'a [f32],
    e: Epilogue<'a>,
    rows: usize,
    y: *mut f32,
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let filters = self.stem.shape.filters;
        let mut filter = 0;
        while filter < filters {
            if filter + S::LANES < filters {
                self.panel::<S, 2>(s, filter);
            } else {
                self.panel::<S, 1>(s, filter);
            }
            filter += VECTORS * S::LANES;
        }
    }
}

impl Strip<'_> {
    /// The filters from `filter` on, up to `NV` vectors.
    #[inline(always)]
    fn panel<S: Simd, const NV: usize>(&self, s: S, filter: usize) {
        let [_, width] = self.stem.shape.output();
        for row in 0..self.rows {
            let mut x = 0;
            while x < width {
                let pixels = width - x;
                let (strip, stride) = (self, self.stem.shape.stride[1]);
                x += match (S::REGISTERS, pixels, stride) {
                    (32, 5.., 2) => s.run(Tile::<PIXELS, NV, 2> { strip, filter, row, x }),
                    (32, 5.., _) => s.run(Tile::<PIXELS, NV, 0> { strip, filter, row, x }),
                    (_, 3.., 2) => s.run(Tile::<6, NV, 2> { strip, filter, row, x }),
                    (_, 3.., _) => s.run(Tile::<6, NV, 0> { strip, filter, row, x }),
                    _ => s.run(Tile::<4, NV, 0> { strip, filter, row, x }),
                };
            }
        }
    }
}

/// `P` neighbouring output pixels (those past the row's end are not stored) by `NV` vectors of filters. The stride is
/// that of the shape if `STRIDE` is 0.
struct Tile<'a, const P: usize, const NV: usize, const STRIDE: usize> {
    strip: &'a Strip<'a>,
    filter: usize,
    row: usize,
    x: usize,
}

impl<const P: usize, const NV: usize, const STRIDE: usize> Kernel for Tile<'_, P, NV, STRIDE> {
    /// Pixels that were computed.
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        const { assert!(P <= PIXELS) };
        let strip = self.strip;
        let Stem { shape, width, .. } = strip.stem;
        let stride = if STRIDE == 0 { shape.stride[1] } else { STRIDE };
        let last_lanes = (shape.filters - self.filter).min(NV * S::LANES) - (NV - 1) * S::LANES;
        let lanes = |v: usize| if v == NV - 1 { last_lanes } else { S::LANES };
        let mut sums = [[s.zero(); NV]; P];
        if let Some(bias) = strip.e.bias {
            for v in 0..NV {
                // SAFETY: the bias has a value for each filter.
                let bias = unsafe { s.load_partial(bias.as_ptr().add(self.filter + v * S::LANES), lanes(v)) };
                unrolled!(j < P => {
                    sums[j][v] = bias;
                });
            }
        }
        let mut weights = strip.weights.as_ptr().wrapping_add(self.filter * strip.stem.depth());
        for channel in 0..shape.channels {
            for ky in 0..shape.kernel[0] {
                let y = self.row * shape.stride[0] + ky * shape.dilation[0];
                let row = (channel * strip.height + y) * width + self.x * stride;
                for kx in 0..shape.kernel[1] {
                    // SAFETY: the panel has depth rows of VECTORS vectors. Row y is in the plane, and so is column
                    // (x + P - 1) * stride + kx, since x < out_width and P <= PIXELS.
                    unsafe {
                        let mut w = [s.zero(); NV];
                        for (v, w) in w.iter_mut().enumerate() {
                            *w = s.load(weights.add(v * S::LANES));
                        }
                        let from = strip.planes.as_ptr().add(row + kx);
                        unrolled!(j < P => {
                            let pixel = s.splat(*from.add(j * stride));
                            for v in 0..NV {
                                sums[j][v] = s.fma(pixel, w[v], sums[j][v]);
                            }
                        });
                    }
                    weights = weights.wrapping_add(VECTORS * S::LANES);
                }
            }
        }
        let [_, out_width] = shape.output();
        let (low, high) = strip.e.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let whole = last_lanes == S::LANES;
        let place = (self.row * out_width + self.x) * shape.filters + self.filter;
        unrolled!(j < P => {
            if self.x + j < out_width {
                for v in 0..NV {
                    let at = place + j * shape.filters + v * S::LANES;
                    let mut sum = sums[j][v];
                    // SAFETY: the pixel is in y and the residual, with all filters.
                    unsafe {
                        let to = strip.y.add(at);
                        if strip.e.accumulate {
                            sum = s.add(sum, s.load_partial(to, lanes(v)));
                        }
                        if let Some(residual) = strip.e.residual {
                            sum = s.add(sum, s.load_partial(residual.as_ptr().add(at), lanes(v)));
                        }
                        sum = s.min(high, s.max(low, sum));
                        if whole { s.store(to, sum) } else { s.store_partial(to, lanes(v), sum) }
                    }
                }
            }
        });
        P
    }
}
