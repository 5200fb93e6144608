//! Sparse convolution, NHWC, without im2col.
//!
//! The input is spread once into padded planes, one for each channel and each phase of the stride. Then every tap of
//! every output position lies at a constant distance from the position itself, so that a convolution is a product
//! whose "columns" (channel, kernel row, kernel column) start at places in the planes. A 1 x 1 convolution needs no
//! planes. Positions are numbered along the planes' lines; those that belong to no output are computed and dropped.

use super::panel::Source;
use super::product::{Grid, Job, Sink, product_scratch_len};
use super::weights::{Cut, SparseWeights};
use crate::Cpu;
use crate::conv::ConvShape;
use crate::gemm::Epilogue;
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// A convolution with sparse weights, prepared.
pub struct SparseConv {
    pub(super) shape: ConvShape,
    pub(super) weights: SparseWeights,
    /// `None` where the input is read as it is.
    pub(super) planes: Option<Planes>,
}

/// Images spread into padded planes, and where taps find their operands in those of one image.
pub(super) struct Planes {
    /// Height, width and channels of the images.
    image: [usize; 3],
    stride: [usize; 2],
    /// Rows and columns of zeros before the first pixel; wrapped below zero where planes begin inside the image.
    pads: [usize; 2],
    /// Phases of the stride that some tap reads: first row and column of each.
    phases: Vec<[usize; 2]>,
    /// Lines of a plane, and elements of a line.
    pub lines: usize,
    pub width: usize,
    /// First element, for the first output position, of each column of the weights.
    pub starts: Vec<u32>,
}

impl Planes {
    fn new(shape: &ConvShape) -> Planes {
        let [out_height, out_width] = shape.output();
        let [sy, sx] = shape.stride;
        let tap = |axis: usize, k: usize| k * shape.dilation[axis];
        let lines = out_height + tap(0, shape.kernel[0] - 1) / sy;
        let width = out_width + tap(1, shape.kernel[1] - 1) / sx;
        let mut phases = vec![];
        let mut taps = vec![];
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                let (y, x) = (tap(0, ky), tap(1, kx));
                let phase = [y % sy, x % sx];
                let index = phases.iter().position(|p| *p == phase).unwrap_or_else(|| {
                    phases.push(phase);
                    phases.len() - 1
                });
                taps.push((index * lines + y / sy) * width + x / sx);
            }
        }
        let image = [shape.height, shape.width, shape.channels];
        let pads = [shape.pads[0], shape.pads[1]];
        let mut planes = Planes { image, stride: shape.stride, pads, phases, lines, width, starts: vec![] };
        planes.starts = planes.starts_of(&taps);
        planes
    }

    /// Planes of whole images `[height, width, channels]`, `lines` by `width`, whose first element is the pixel
    /// `-pads`.
    pub(super) fn whole(image: [usize; 3], pads: [usize; 2], lines: usize, width: usize) -> Planes {
        Planes { image, stride: [1, 1], pads, phases: vec![[0, 0]], lines, width, starts: vec![] }
    }

    /// For each channel and tap the element where the tap's operand for the first position stands.
    pub(super) fn starts_of(&self, taps: &[usize]) -> Vec<u32> {
        let channel = self.channel_len();
        (0..self.image[2]).flat_map(|c| taps.iter().map(move |t| (c * channel + t) as u32)).collect()
    }

    fn channel_len(&self) -> usize {
        self.phases.len() * self.lines * self.width
    }

    /// Elements of the planes of one image.
    pub(super) fn image_len(&self) -> usize {
        self.image[2] * self.channel_len()
    }

    /// Copies images into their planes, sixteen channels of an image at a time.
    pub(super) fn spread(&self, cpu: &Cpu, x: &[f32], planes: &mut [f32]) {
        const CHANNELS: usize = 16;
        let [height, width, all] = self.image;
        let (blocks, image) = (all.div_ceil(CHANNELS), height * width * all);
        let batch = x.len() / image.max(1);
        assert!(
            x.len() == batch * image && planes.len() >= batch * self.image_len(),
            "planes of {batch} images"
        );
        let shared = Shared::new(planes);
        cpu.threads.for_each(batch * blocks, |i| {
            let (b, first) = (i / blocks, i % blocks * CHANNELS);
            let channels = CHANNELS.min(all - first);
            let start = (b * all + first) * self.channel_len();
            // SAFETY: these channels of this image are this task's alone.
            let out = unsafe { shared.slice(start, channels * self.channel_len()) };
            out.fill(0.0);
            for (phase, &[py, px]) in self.phases.iter().enumerate() {
                // Input column of plane column c: c * stride + px - pad.
                let column = |c: usize| (c * self.stride[1] + px).wrapping_sub(self.pads[1]);
                let Some(left) = (0..self.width).find(|&c| column(c) < width) else { continue };
                let count = (left..self.width).take_while(|&c| column(c) < width).count();
                for line in 0..self.lines {
                    let y = (line * self.stride[0] + py).wrapping_sub(self.pads[0]);
                    if y >= height {
                        continue;
                    }
                    let at = b * image + (y * width + column(left)) * all + first;
                    cpu.isa.run(Spread {
                        from: &x[at..],
                        from_step: self.stride[1] * all,
                        count,
                        channels,
                        out: &mut out[(phase * self.lines + line) * self.width + left..],
                        out_step: self.channel_len(),
                    });
                }
            }
        });
    }
}

impl SparseConv {
    /// The non-zeros of weights `[filters, channels, kernel height, kernel width]`; `None` for grouped convolutions,
    /// which have no sparse kernel.
    pub fn new(shape: ConvShape, weights: &[f32], cut: Cut) -> Option<SparseConv> {
        if shape.groups != 1 {
            return None;
        }
        let taps = shape.kernel[0] * shape.kernel[1];
        let weights = SparseWeights::new(shape.filters, shape.channels * taps, false, weights, cut);
        SparseConv::of(shape, weights)
    }

    /// With weights that are stored already, a column for each (channel, kernel row, kernel column).
    pub fn of(shape: ConvShape, weights: SparseWeights) -> Option<SparseConv> {
        let [out_height, out_width] = shape.output();
        let reach = shape.channels * (shape.height + 64) * (shape.width + 64);
        if shape.groups != 1 || out_height * out_width == 0 || reach > u32::MAX as usize / 8 {
            return None;
        }
        assert_eq!(weights.rows(), shape.filters, "filters of {shape:?}");
        assert_eq!(weights.columns() * shape.filters, shape.weights_len(), "weights of {shape:?}");
        let planes = (!shape.is_plain()).then(|| Planes::new(&shape));
        Some(SparseConv { shape, weights, planes })
    }

    /// The shape it was prepared for.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The weights, with a column for each (channel, kernel row, kernel column).
    pub fn weights(&self) -> &SparseWeights {
        &self.weights
    }

    /// The weights, whose values may be changed.
    pub fn weights_mut(&mut self) -> &mut SparseWeights {
        &mut self.weights
    }

    /// Images, and positions computed in each, those of no output included.
    pub(super) fn positions(&self) -> (usize, usize) {
        let [out_height, out_width] = self.shape.output();
        match &self.planes {
            // Pixels of all images follow each other.
            None => (1, self.shape.batch * out_height * out_width),
            Some(p) => (self.shape.batch, (out_height - 1) * p.width + out_width),
        }
    }

    pub(super) fn planes_len(&self) -> usize {
        self.planes.as_ref().map_or(0, |p| self.shape.batch * p.image_len())
    }

    /// Scratch elements that [`SparseConv::forward`] needs.
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        self.planes_len() + product_scratch_len(cpu, &self.weights)
    }

    /// `y = activation(conv(x) + bias + residual)`, all NHWC.
    ///
    /// # Panics
    /// If lengths contradict the shape, or the epilogue accumulates.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], e: Epilogue, y: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
        assert_eq!(y.len(), shape.output_len(), "output of {shape:?}");
        let (images, positions) = self.positions();
        let (planes, scratch) = scratch.split_at_mut(self.planes_len());
        let [_, out_width] = shape.output();
        let Some(p) = &self.planes else {
            let source = |_| Source::Rows { x, step: shape.channels };
            let grid = Grid { width: positions.max(1), used: positions.max(1) };
            let job = Job {
                weights: &self.weights,
                images,
                positions,
                source: &source,
                sink: Sink::Rows,
                grid,
                epilogue: e,
            };
            return job.run(cpu, y, scratch);
        };
        p.spread(cpu, x, planes);
        let (planes, image) = (&*planes, p.image_len());
        let source = |i: usize| Source::Table { x: &planes[i * image..][..image], starts: &p.starts };
        let grid = Grid { width: p.width, used: out_width };
        let job = Job {
            weights: &self.weights,
            images,
            positions,
            source: &source,
            sink: Sink::Rows,
            grid,
            epilogue: e,
        };
        job.run(cpu, y, scratch);
    }
}

/// `out[c * out_step + i] = from[i * from_step + c]`.
struct Spread<'a> {
    from: &'a [f32],
    from_step: usize,
    count: usize,
    channels: usize,
    out: &'a mut [f32],
    out_step: usize,
}

impl Kernel for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Spread { from, from_step, count, channels, out, out_step } = self;
        let (whole_count, whole_channels) = (count / S::LANES * S::LANES, channels / S::LANES * S::LANES);
        if count > 0 && channels > 0 {
            assert!(from.len() >= (count - 1) * from_step + channels);
            assert!(out.len() >= (channels - 1) * out_step + count);
        }
        for c in (0..whole_channels).step_by(S::LANES) {
            for i in (0..whole_count).step_by(S::LANES) {
                // SAFETY: whole blocks, within what is asserted above.
                unsafe {
                    let (from, to) =
                        (from.as_ptr().add(i * from_step + c), out.as_mut_ptr().add(c * out_step + i));
                    s.transpose(from, from_step, to, out_step);
                }
            }
        }
        for i in 0..count {
            let done = if i < whole_count { whole_channels } else { 0 };
            for c in done..channels {
                out[c * out_step + i] = from[i * from_step + c];
            }
        }
    }
}
