//! Gradient of a convolution's weights: for each tap, the sum over pixels of (input pixel) x (output gradient).
//!
//! The sum over output rows is split into a number of chunks that depends on the shape alone; each chunk has its own
//! partial result, and partials are added in order, so the bits do not depend on the number of threads.

use super::{ConvPlan, ConvShape};
use crate::outer::{self, Outer, Segment};
use crate::threads::Shared;
use crate::{Cpu, Isa};

/// Bytes of input and output gradient that one pass over all taps works on.
const BLOCK_BYTES: usize = 64 * 1024;
/// Segments of one block: at most this many output rows.
const BLOCK_ROWS: usize = 64;
/// Filters brought to the weights' order together: a cache line of sums.
const FILTERS: usize = 16;

/// How the work is split.
struct Split {
    /// Kernel rows and the elements of the input that meet each output pixel in one of them, or single taps.
    taps: usize,
    inputs: usize,
    chunks: usize,
    /// Input elements of one task.
    strip: usize,
}

impl Split {
    fn new(plan: &ConvPlan) -> Self {
        let shape = &plan.shape;
        let (taps, inputs) = match plan.padded {
            Some(_) => (shape.kernel[0], shape.kernel[1] * shape.channels),
            None => (shape.taps(), shape.group_channels()),
        };
        let rows = shape.batch * shape.output()[0];
        let chunks = match shape.weights_len() {
            0..=65_536 => 8,
            65_537..=524_288 => 4,
            _ => 1,
        };
        let strip = if chunks == 8 { inputs } else { inputs.min(96) };
        Split { taps, inputs, chunks: chunks.min(rows).max(1), strip }
    }

    fn partial_len(&self, shape: &ConvShape) -> usize {
        self.taps * self.inputs * shape.filters
    }
}

/// Scratch elements that [`weight_gradient`] needs.
pub fn weight_gradient_scratch_len(cpu: &Cpu, plan: &ConvPlan) -> usize {
    if let Some(winograd) = &plan.winograd_weight {
        return winograd.scratch_len(cpu);
    }
    let split = Split::new(plan);
    plan.padded_len() + split.chunks * split.partial_len(&plan.shape)
}

/// `dw = [dw +] gradient` of the weights `[filters, channels / groups, kernel height, kernel width]`, given the
/// input and the output's gradient, NHWC.
pub fn weight_gradient(
    cpu: &Cpu,
    plan: &ConvPlan,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dw: &mut [f32],
    scratch: &mut [f32],
) {
    let shape = &plan.shape;
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(dy.len(), shape.output_len(), "output gradient of {shape:?}");
    assert_eq!(dw.len(), shape.weights_len(), "weight gradient of {shape:?}");
    assert!(scratch.len() >= weight_gradient_scratch_len(cpu, plan), "scratch of {shape:?}");
    if dy.is_empty() {
        if !accumulate {
            dw.fill(0.0);
        }
        return;
    }
    if let Some(winograd) = &plan.winograd_weight {
        return winograd.run(cpu, x, dy, accumulate, dw, scratch);
    }
    let split = Split::new(plan);
    let (padded, partials) = scratch.split_at_mut(plan.padded_len());
    let partials = &mut partials[..split.chunks * split.partial_len(shape)];
    let x = match &plan.padded {
        Some(p) => {
            p.copy(cpu, shape, x, padded);
            &*padded
        }
        None => x,
    };
    let strips = split.inputs.div_ceil(split.strip);
    let partial_len = split.partial_len(shape);
    let rows = shape.batch * shape.output()[0];
    {
        let shared = Shared::new(partials);
        cpu.threads.for_each(split.chunks * strips, |task| {
            let (chunk, strip) = (task / strips, task % strips);
            let first = strip * split.strip;
            let part = Part {
                plan,
                split: &split,
                rows: rows * chunk / split.chunks..rows * (chunk + 1) / split.chunks,
                inputs: first..split.inputs.min(first + split.strip),
            };
            let partial = shared.pointer(chunk * partial_len, partial_len);
            // SAFETY: the partial is in bounds, and this task alone writes these inputs of it.
            unsafe { part.run(cpu.isa, x, dy, partial) };
        });
    }
    gather(cpu, plan, &split, accumulate, partials, dw);
}

/// Some output rows (of all images, in order) and some input channels.
struct Part<'a> {
    plan: &'a ConvPlan,
    split: &'a Split,
    rows: std::ops::Range<usize>,
    inputs: std::ops::Range<usize>,
}

impl Part<'_> {
    /// # Safety
    /// `partial` must be writable for `split.partial_len` elements, of which this call writes its own inputs.
    unsafe fn run(&self, isa: Isa, x: &[f32], dy: &[f32], partial: *mut f32) {
        let shape = &self.plan.shape;
        let [_, out_width] = shape.output();
        let row_bytes = 4 * (out_width * shape.filters + shape.width * shape.channels);
        let block = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, BLOCK_ROWS);
        let filters = shape.group_filters();
        let mut segments = [Segment::default(); BLOCK_ROWS];
        let mut row = self.rows.start;
        while row < self.rows.end {
            let end = self.rows.end.min(row + block);
            for tap in 0..self.split.taps {
                let count = self.segments(row..end, tap, &mut segments);
                for group in 0..shape.groups {
                    let matrix = (group * self.split.taps + tap) * self.split.inputs * filters;
                    let op = Outer {
                        rows: self.inputs.len(),
                        columns: filters,
                        a: x.as_ptr().wrapping_add(group * shape.group_channels() + self.inputs.start),
                        a_step: shape.stride[1] * shape.channels,
                        b: dy.as_ptr().wrapping_add(group * filters),
                        b_step: shape.filters,
                        segments: &segments[..count],
                        // SAFETY: the matrix lies in the partial.
                        c: unsafe { partial.add(matrix + self.inputs.start * filters) },
                        c_stride: filters,
                        accumulate: row != self.rows.start,
                    };
                    // SAFETY: segments lie in x and dy as built by `segments`; the rest is the caller's promise.
                    unsafe { outer::run(isa, &op) };
                }
            }
            row = end;
        }
    }

    /// The runs of output pixels in `rows` for which the tap is inside the input; returns how many.
    fn segments(&self, rows: std::ops::Range<usize>, tap: usize, out: &mut [Segment; BLOCK_ROWS]) -> usize {
        let shape = &self.plan.shape;
        let [out_height, out_width] = shape.output();
        let mut count = 0;
        for row in rows {
            let (image, oy) = (row / out_height, row % out_height);
            let b = row * out_width * shape.filters;
            let segment = match &self.plan.padded {
                Some(padded) => {
                    let y = oy * shape.stride[0] + tap * shape.dilation[0];
                    let a = image * padded.image_len(shape) + y * padded.width * shape.channels;
                    Some(Segment { a, b, len: out_width })
                }
                None => {
                    let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                    inside(shape, oy, ky, kx).map(|(y, x, first, len)| Segment {
                        a: ((image * shape.height + y) * shape.width + x) * shape.channels,
                        b: b + first * shape.filters,
                        len,
                    })
                }
            };
            let Some(segment) = segment else { continue };
            let step = shape.stride[1] * shape.channels;
            match out[..count].last_mut() {
                Some(last)
                    if last.a + last.len * step == segment.a
                        && last.b + last.len * shape.filters == segment.b =>
                {
                    last.len += segment.len;
                }
                _ => {
                    out[count] = segment;
                    count += 1;
                }
            }
        }
        count
    }
}

/// For output row `oy` and a tap: the input row, the input column of the first output column that is inside, that
/// output column, and how many are inside.
fn inside(shape: &ConvShape, oy: usize, ky: usize, kx: usize) -> Option<(usize, usize, usize, usize)> {
    let y = (oy * shape.stride[0] + ky * shape.dilation[0]).checked_sub(shape.pads[0])?;
    if y >= shape.height {
        return None;
    }
    let [_, out_width] = shape.output();
    let reach = kx * shape.dilation[1];
    // Input column = ox * stride + reach - pad, to be in 0..width.
    let first = shape.pads[1].saturating_sub(reach).div_ceil(shape.stride[1]);
    let end = (shape.width + shape.pads[1]).checked_sub(reach)?.div_ceil(shape.stride[1]).min(out_width);
    (first < end).then(|| (y, first * shape.stride[1] + reach - shape.pads[1], first, end - first))
}

/// Adds the partials in order and puts the sum into the weights' own order.
fn gather(cpu: &Cpu, plan: &ConvPlan, split: &Split, accumulate: bool, partials: &mut [f32], dw: &mut [f32]) {
    let shape = &plan.shape;
    let (channels, taps) = (shape.group_channels(), shape.taps());
    let partial_len = split.partial_len(shape);
    let (sum, rest) = partials.split_at_mut(partial_len);
    cpu.threads.for_each_piece(sum, 4096, |i, sum| {
        for other in rest.chunks_exact(partial_len) {
            sum.iter_mut().zip(&other[i * 4096..]).for_each(|(x, y)| *x += y);
        }
    });
    to_order_of_weights(cpu, shape, sum, accumulate, dw, |group, channel, tap| match plan.padded {
        Some(_) => {
            let (y, x) = (tap / shape.kernel[1], tap % shape.kernel[1]);
            y * split.inputs + x * channels + channel
        }
        None => (group * taps + tap) * channels + channel,
    });
}

/// Brings sums `[row][filter of the group]` to `[filter][channel][tap]`; `row(group, channel, tap)` says where. A few
/// filters at a time: reading single ones, rows apart, would wait for the caches.
pub(super) fn to_order_of_weights(
    cpu: &Cpu,
    shape: &ConvShape,
    sums: &[f32],
    accumulate: bool,
    dw: &mut [f32],
    row: impl Fn(usize, usize, usize) -> usize + Sync,
) {
    let (filters, channels, taps) = (shape.group_filters(), shape.group_channels(), shape.taps());
    let filter_len = channels * taps;
    if filter_len == 0 {
        return;
    }
    let group_len = filters * filter_len;
    let blocks = filters.div_ceil(FILTERS);
    let shared = Shared::new(dw);
    cpu.threads.for_each(shape.groups * blocks, |task| {
        let (group, first) = (task / blocks, task % blocks * FILTERS);
        let count = FILTERS.min(filters - first);
        // SAFETY: every task has filters of its own.
        let dw = unsafe { shared.slice(group * group_len + first * filter_len, count * filter_len) };
        for channel in 0..channels {
            for tap in 0..taps {
                let from = &sums[row(group, channel, tap) * filters + first..][..count];
                for (value, to) in from.iter().zip(dw[channel * taps + tap..].iter_mut().step_by(filter_len))
                {
                    *to = if accumulate { *to + value } else { *value };
                }
            }
        }
    });
}
