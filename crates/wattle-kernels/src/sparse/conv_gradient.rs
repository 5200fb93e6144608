//! The two gradients of a sparse convolution, NHWC, on the kernels of the forward one.
//!
//! The weight's is a sampled product whose columns are taps in the planes of the input. The input's is, for each phase
//! of the stride, a convolution of the result's gradient by the taps that reach pixels of that phase: all phases
//! read the same planes.

use super::conv::{Planes, SparseConv};
use super::panel::{STRIP, Source};
use super::product::{self, Grid, Sink};
use super::sampled;
use super::transposed::{Places, Transposed};
use super::weights::{Cut, SparseWeights};
use crate::Cpu;
use crate::conv::ConvShape;
use crate::gemm::Epilogue;
use crate::threads::Shared;

impl SparseConv {
    /// Elements of the result's gradient with gaps where planes have positions of no output; 0 where there are none.
    fn gapped_len(&self) -> usize {
        let (images, positions) = self.positions();
        let [_, out_width] = self.shape.output();
        match &self.planes {
            Some(p) if p.width != out_width => images * positions * self.shape.filters,
            _ => 0,
        }
    }

    /// Scratch elements that [`SparseConv::weight_gradient`] needs.
    pub fn weight_gradient_scratch_len(&self, cpu: &Cpu) -> usize {
        let (images, positions) = self.positions();
        let strips = images * positions.div_ceil(STRIP);
        self.planes_len() + self.gapped_len() + sampled::scratch_len(cpu, &self.weights, strips)
    }

    /// The gradient of each stored weight, in their order, from the input and the result's gradient.
    ///
    /// # Panics
    /// If lengths contradict the shape.
    pub fn weight_gradient(&self, cpu: &Cpu, x: &[f32], dy: &[f32], dw: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
        assert_eq!(dy.len(), shape.output_len(), "result of {shape:?}");
        let (images, positions) = self.positions();
        let (planes, scratch) = scratch.split_at_mut(self.planes_len());
        let (gapped, scratch) = scratch.split_at_mut(self.gapped_len());
        let dy = match &self.planes {
            Some(p) if !gapped.is_empty() => {
                self.leave_gaps(cpu, p, dy, gapped);
                &*gapped
            }
            _ => dy,
        };
        let image = positions * shape.filters;
        let dy = |i: usize| Source::Rows { x: &dy[i * image..][..image], step: shape.filters };
        if let Some(p) = &self.planes {
            p.spread(cpu, x, planes);
        }
        let planes = &*planes;
        let source = |i: usize| match &self.planes {
            None => Source::Rows { x, step: shape.channels },
            Some(p) => Source::Table { x: &planes[i * p.image_len()..][..p.image_len()], starts: &p.starts },
        };
        let job = sampled::Job { weights: &self.weights, images, positions, x: &source, dy: &dy };
        job.run(cpu, false, dw, scratch);
    }

    /// Copies the result's gradient line by line, zeros after each but an image's last.
    fn leave_gaps(&self, cpu: &Cpu, p: &Planes, dy: &[f32], gapped: &mut [f32]) {
        let [out_height, out_width] = self.shape.output();
        let (filters, (_, positions)) = (self.shape.filters, self.positions());
        let line = out_width * filters;
        cpu.threads.for_each_piece(gapped, positions * filters, |image, to| {
            let from = &dy[image * out_height * line..][..out_height * line];
            for (from, to) in from.chunks_exact(line).zip(to.chunks_mut(p.width * filters)) {
                to[..line].copy_from_slice(from);
                to[line..].fill(0.0);
            }
        });
    }
}

/// The gradient of a sparse convolution's input, whose weights change.
pub struct SparseConvInputGradient {
    shape: ConvShape,
    planes: Planes,
    phases: Vec<Phase>,
}

/// The input's pixels at one phase of the stride.
struct Phase {
    /// First row and column.
    first: [usize; 2],
    /// Rows and columns.
    count: [usize; 2],
    /// `[channels, filters x taps]`; none where no tap reaches the phase.
    weights: Option<Transposed>,
    /// Where each column starts in the planes.
    starts: Vec<u32>,
}

/// Along one axis: the pixels of a phase, and the taps that reach them.
struct Line {
    first: usize,
    count: usize,
    /// Tap, and the output that it connects the first pixel with; the next pixel is connected with the next output.
    taps: Vec<(usize, isize)>,
}

/// Pixel `i` and tap `k` belong to output `(i + pad - k dilation) / stride`, where that is whole.
fn lines(size: usize, taps: usize, stride: usize, dilation: usize, pad: usize) -> Vec<Line> {
    let line = |first: usize| {
        let reached = (0..taps).filter_map(|k| {
            let distance = (first + pad) as isize - (k * dilation) as isize;
            (distance.rem_euclid(stride as isize) == 0).then(|| (k, distance.div_euclid(stride as isize)))
        });
        Line { first, count: (size - first).div_ceil(stride), taps: reached.collect() }
    };
    (0..stride.min(size)).map(line).collect()
}

impl SparseConvInputGradient {
    /// For the convolution of this shape with these weights, a column for each (channel, kernel row, kernel column).
    /// `None` for grouped convolutions and images beyond the reach of 32-bit offsets.
    pub fn new(shape: ConvShape, original: &SparseWeights, cut: Cut) -> Option<SparseConvInputGradient> {
        let [out_height, out_width] = shape.output();
        let axis = |size, axis: usize| {
            lines(size, shape.kernel[axis], shape.stride[axis], shape.dilation[axis], shape.pads[axis])
        };
        let (rows, columns) = (axis(shape.height, 0), axis(shape.width, 1));
        // The lowest output that any tap needs for its first pixel, and how many follow in all.
        let span = |lines: &[Line]| {
            let all = || lines.iter().flat_map(|l| l.taps.iter().map(move |t| (t.1, t.1 + l.count as isize)));
            let low = all().map(|t| t.0).min()?;
            Some((low, (all().map(|t| t.1).max()? - low) as usize))
        };
        let ((top, height), (left, width)) = (span(&rows)?, span(&columns)?);
        if shape.groups != 1 || shape.filters * height * width > u32::MAX as usize / 2 {
            return None;
        }
        let pads = [top.wrapping_neg() as usize, left.wrapping_neg() as usize];
        let planes = Planes::whole([out_height, out_width, shape.filters], pads, height, width);
        let (places, all) = (Places::new(original), shape.kernel[0] * shape.kernel[1]);
        let mut phases = vec![];
        for row in &rows {
            for column in &columns {
                let taps: Vec<(usize, usize)> = (row.taps.iter())
                    .flat_map(|&(ky, y)| column.taps.iter().map(move |&(kx, x)| (ky, y, kx, x)))
                    .map(|(ky, y, kx, x)| {
                        (ky * shape.kernel[1] + kx, (y - top) as usize * width + (x - left) as usize)
                    })
                    .collect();
                let size = [shape.channels, shape.filters * taps.len()];
                let position = |channel: usize, at: usize| {
                    let (filter, tap) = (at / taps.len(), taps[at % taps.len()].0);
                    (filter * shape.channels + channel) * all + tap
                };
                let weights =
                    (!taps.is_empty()).then(|| Transposed::rearranged(&places, size, position, cut));
                let starts = planes.starts_of(&taps.iter().map(|t| t.1).collect::<Vec<_>>());
                let (first, count) = ([row.first, column.first], [row.count, column.count]);
                phases.push(Phase { first, count, weights, starts });
            }
        }
        Some(SparseConvInputGradient { shape, planes, phases })
    }

    /// Takes over the values of the weights.
    pub fn update(&mut self, cpu: &Cpu, original: &[f32]) {
        for weights in self.phases.iter_mut().filter_map(|p| p.weights.as_mut()) {
            weights.update(cpu, original);
        }
    }

    /// Whether the only phase is the whole input.
    fn is_whole(&self) -> bool {
        self.shape.stride == [1, 1]
    }

    fn positions(&self, phase: &Phase) -> usize {
        (phase.count[0] - 1) * self.planes.width + phase.count[1]
    }

    /// Scratch elements that [`SparseConvInputGradient::run`] needs.
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        let batch = self.shape.batch;
        let of_phase = |phase: &Phase| {
            let product =
                phase.weights.as_ref().map_or(0, |w| product::product_scratch_len(cpu, w.weights()));
            let apart = if self.is_whole() { 0 } else { phase.count[0] * phase.count[1] };
            product + batch * apart * self.shape.channels
        };
        batch * self.planes.image_len() + self.phases.iter().map(of_phase).max().unwrap_or(0)
    }

    /// `dx` from `dy`, by the weights as of the last update.
    ///
    /// # Panics
    /// If lengths contradict the shape.
    pub fn run(&self, cpu: &Cpu, dy: &[f32], dx: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(dx.len(), shape.input_len(), "input of {shape:?}");
        assert_eq!(dy.len(), shape.output_len(), "result of {shape:?}");
        let image = self.planes.image_len();
        let (planes, scratch) = scratch.split_at_mut(shape.batch * image);
        self.planes.spread(cpu, dy, planes);
        let planes = &*planes;
        for phase in &self.phases {
            let Some(weights) = &phase.weights else {
                self.interleave(cpu, phase, None, dx);
                continue;
            };
            let source = |i: usize| Source::Table { x: &planes[i * image..][..image], starts: &phase.starts };
            let job = product::Job {
                weights: weights.weights(),
                images: shape.batch,
                positions: self.positions(phase),
                source: &source,
                sink: Sink::Rows,
                grid: Grid { width: self.planes.width, used: phase.count[1] },
                epilogue: Epilogue::default(),
            };
            if self.is_whole() {
                job.run(cpu, dx, scratch);
            } else {
                let len = shape.batch * phase.count[0] * phase.count[1] * shape.channels;
                let (apart, scratch) = scratch.split_at_mut(len);
                job.run(cpu, apart, scratch);
                self.interleave(cpu, phase, Some(apart), dx);
            }
        }
    }

    /// Brings a phase's pixels to their places; zeros where there is nothing.
    fn interleave(&self, cpu: &Cpu, phase: &Phase, apart: Option<&[f32]>, dx: &mut [f32]) {
        let ConvShape { height, width, channels, stride, .. } = self.shape;
        let [rows, columns] = phase.count;
        let dx = Shared::new(dx);
        cpu.threads.for_each(self.shape.batch * rows, |line| {
            let (image, row) = (line / rows, line % rows);
            let y = image * height + phase.first[0] + row * stride[0];
            // SAFETY: every line of the phase is another line of dx, and this task's alone.
            let to = unsafe { dx.slice(y * width * channels, width * channels) };
            for column in 0..columns {
                let to = &mut to[(phase.first[1] + column * stride[1]) * channels..][..channels];
                match apart {
                    Some(from) => {
                        to.copy_from_slice(&from[(line * columns + column) * channels..][..channels])
                    }
                    None => to.fill(0.0),
                }
            }
        });
    }
}
