//! Sparse convolution, NHWC, without im2col.
//!
//! The input is spread once into padded planes, one for each channel and each phase of the stride. Then every tap of
//! every output position lies at a constant distance from the position itself, so that a convolution is a product
//! whose "columns" (channel, kernel row, kernel column) start at places in the planes. A 1 x 1 convolution needs no
//! planes. Positions are numbered along the planes' lines; those that belong to no output are computed and dropped.

use super::panel::{STRIP, Source};
use super::product::{Grid, Job, Sink, scratch_len};
use super::weights::{Cut, SparseWeights};
use crate::Cpu;
use crate::conv::ConvShape;
use crate::gemm::Epilogue;
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// A convolution with sparse weights, prepared.
pub struct SparseConv {
    shape: ConvShape,
    weights: SparseWeights,
    /// `None` where the input is read as it is.
    planes: Option<Planes>,
}

/// Where taps find their operands.
struct Planes {
    /// Phases of the stride that some tap reads: first row and column of each.
    phases: Vec<[usize; 2]>,
    /// Lines of a plane, and elements of a line.
    lines: usize,
    width: usize,
    /// First element, for the first output position, of each column of the weights.
    starts: Vec<u32>,
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
        let channel = phases.len() * lines * width;
        let starts =
            (0..shape.channels).flat_map(|c| taps.iter().map(move |t| (c * channel + t) as u32)).collect();
        Planes { phases, lines, width, starts }
    }

    fn channel_len(&self) -> usize {
        self.phases.len() * self.lines * self.width
    }
}

impl SparseConv {
    /// The non-zeros of weights `[filters, channels, kernel height, kernel width]`; `None` for grouped convolutions,
    /// which have no sparse kernel.
    pub fn new(shape: ConvShape, weights: &[f32], cut: Cut) -> Option<SparseConv> {
        let [out_height, out_width] = shape.output();
        let reach = shape.channels * (shape.height + 64) * (shape.width + 64);
        if shape.groups != 1 || out_height * out_width == 0 || reach > u32::MAX as usize / 8 {
            return None;
        }
        let taps = shape.kernel[0] * shape.kernel[1];
        let weights = SparseWeights::new(shape.filters, shape.channels * taps, false, weights, cut);
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

    fn positions(&self) -> (usize, usize) {
        let [out_height, out_width] = self.shape.output();
        match &self.planes {
            // Pixels of all images follow each other.
            None => (1, self.shape.batch * out_height * out_width),
            Some(p) => (self.shape.batch, (out_height - 1) * p.width + out_width),
        }
    }

    fn planes_len(&self) -> usize {
        self.planes.as_ref().map_or(0, |p| self.shape.batch * self.shape.channels * p.channel_len())
    }

    /// Scratch elements that [`SparseConv::forward`] needs.
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        let (images, positions) = self.positions();
        self.planes_len() + scratch_len(cpu, &self.weights, images * positions.div_ceil(STRIP))
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
        self.spread(cpu, p, x, planes);
        let (planes, image) = (&*planes, shape.channels * p.channel_len());
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

    /// Copies the input into its planes, sixteen channels of an image at a time.
    fn spread(&self, cpu: &Cpu, p: &Planes, x: &[f32], planes: &mut [f32]) {
        const CHANNELS: usize = 16;
        let shape = &self.shape;
        let (blocks, image) =
            (shape.channels.div_ceil(CHANNELS), shape.height * shape.width * shape.channels);
        let shared = Shared::new(planes);
        cpu.threads.for_each(shape.batch * blocks, |i| {
            let (b, first) = (i / blocks, i % blocks * CHANNELS);
            let channels = CHANNELS.min(shape.channels - first);
            let start = (b * shape.channels + first) * p.channel_len();
            // SAFETY: these channels of this image are this task's alone.
            let out = unsafe { shared.slice(start, channels * p.channel_len()) };
            out.fill(0.0);
            for (phase, &[py, px]) in p.phases.iter().enumerate() {
                // Input column of plane column c: c * stride + px - pad.
                let column = |c: usize| (c * shape.stride[1] + px).wrapping_sub(shape.pads[1]);
                let Some(left) = (0..p.width).find(|&c| column(c) < shape.width) else { continue };
                let count = (left..p.width).take_while(|&c| column(c) < shape.width).count();
                for line in 0..p.lines {
                    let y = (line * shape.stride[0] + py).wrapping_sub(shape.pads[0]);
                    if y >= shape.height {
                        continue;
                    }
                    let at = b * image + (y * shape.width + column(left)) * shape.channels + first;
                    cpu.isa.run(Spread {
                        from: &x[at..],
                        from_step: shape.stride[1] * shape.channels,
                        count,
                        channels,
                        out: &mut out[(phase * p.lines + line) * p.width + left..],
                        out_step: p.channel_len(),
                    });
                }
            }
        });
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
