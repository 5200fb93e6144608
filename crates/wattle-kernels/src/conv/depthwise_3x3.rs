//! Depthwise convolution with kernels of 3 x 3, moved by one pixel or two: a window slides along two output rows with the
//! kernel's nine vectors in registers, so that a pixel of the input is read once for all results it takes part in.

use super::ConvShape;
use super::depthwise::load;
use crate::Cpu;
use crate::gemm::Epilogue;
use crate::igemm::ZEROS;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Output elements of one task, at least.
const TASK: usize = 16 * 1024;

/// Whether [`forward`] can compute this depthwise convolution.
pub(super) fn applies(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && (shape.stride == [1, 1] || shape.stride == [2, 2])
        && shape.pads[1] <= 1
}

/// One convolution; the pointers reach whole tensors of this shape.
struct Rows<'a> {
    shape: &'a ConvShape,
    x: *const f32,
    weights: *const f32,
    e: Epilogue<'a>,
    y: *mut f32,
}

// SAFETY: tasks write disjoint rows of y and only read the rest.
unsafe impl Sync for Rows<'_> {}

/// `y = activation([y +] conv(x) + bias + residual)`; the caller has checked all lengths.
pub(super) fn forward(cpu: &Cpu, shape: &ConvShape, x: &[f32], weights: &[f32], e: Epilogue, y: &mut [f32]) {
    assert!(applies(shape) && x.len() == shape.input_len() && y.len() == shape.output_len());
    assert!(weights.len() >= shape.weights_len());
    if y.is_empty() {
        return;
    }
    let [height, width] = shape.output();
    let row = width * shape.channels;
    // Rows go in pairs, which share two of the three or four rows of the input that they read.
    let rows = (TASK / row).next_multiple_of(2).clamp(2, height.next_multiple_of(2));
    let pieces = height.div_ceil(rows);
    let op = Rows { shape, x: x.as_ptr(), weights: weights.as_ptr(), e, y: y.as_mut_ptr() };
    cpu.threads.for_each(shape.batch * pieces, |task| {
        let (image, first) = (task / pieces, task % pieces * rows);
        let last = height.min(first + rows);
        op.rows(cpu.isa, image, first..last);
        if !e.activation.is_clamp() {
            let (from, len) = ((image * height + first) * row, (last - first) * row);
            // SAFETY: these rows are whole, follow each other and are this task's.
            let rows = unsafe { std::slice::from_raw_parts_mut(op.y.add(from), len) };
            e.activation.apply(cpu.isa, rows);
        }
    });
}

impl Rows<'_> {
    fn rows(&self, isa: Isa, image: usize, rows: Range<usize>) {
        for y in rows.clone().step_by(2) {
            let pair = Band { op: self, image, y };
            match (self.shape.stride, y + 1 < rows.end) {
                ([1, 1], true) => isa.run(Channels::<1, 2, 4>(pair)),
                ([1, 1], false) => isa.run(Channels::<1, 1, 3>(pair)),
                (_, true) => isa.run(Channels::<2, 2, 5>(pair)),
                (_, false) => isa.run(Channels::<2, 1, 3>(pair)),
            }
        }
    }
}

/// Output rows of an image from row `y` on.
#[derive(Clone, Copy)]
struct Band<'a> {
    op: &'a Rows<'a>,
    image: usize,
    y: usize,
}

/// All channels of a band of `R` output rows, `STRIDE` input rows apart, which reads `READ` rows of the input.
struct Channels<'a, const STRIDE: usize, const R: usize, const READ: usize>(Band<'a>);

impl<const STRIDE: usize, const R: usize, const READ: usize> Kernel for Channels<'_, STRIDE, R, READ> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.0.op.shape.channels;
        let mut c = 0;
        // Two vectors of a pixel are neighbours in memory; their sums and weights fill thirty registers.
        while S::REGISTERS == 32 && c + 2 * S::LANES <= channels {
            s.run(Window::<STRIDE, R, READ, 2, false> { band: self.0, c, lanes: S::LANES });
            c += 2 * S::LANES;
        }
        while c + S::LANES <= channels {
            s.run(Window::<STRIDE, R, READ, 1, false> { band: self.0, c, lanes: S::LANES });
            c += S::LANES;
        }
        if c < channels {
            s.run(Window::<STRIDE, R, READ, 1, true> { band: self.0, c, lanes: channels - c });
        }
    }
}

/// `NV` vectors of channels from `c` (of the last only `lanes` if partial), all columns of a band.
struct Window<
    'a,
    const STRIDE: usize,
    const R: usize,
    const READ: usize,
    const NV: usize,
    const PARTIAL: bool,
> {
    band: Band<'a>,
    c: usize,
    lanes: usize,
}

/// Where the next column of each input row is: a row outside the image reads zeros and does not move.
struct Columns<const READ: usize> {
    at: [*const f32; READ],
    step: [usize; READ],
}

/// Reads a column of the input and adds it, by the kernel's columns that are named, to the sums that are named.
macro_rules! add_column {
    ($window:expr, $s:expr, $input:expr, $weights:expr, $($kx:literal to $sums:expr),+) => {
        for row in 0..READ {
            for v in 0..NV {
                // SAFETY: the column is in the image, with NV vectors of channels, or in the zeros.
                let pixel = unsafe { load::<S, PARTIAL>($s, $input.at[row].add(v * S::LANES), $window.lanes) };
                for i in 0..R {
                    let ky = row.wrapping_sub(i * STRIDE);
                    if ky < 3 {
                        $($sums[i][v] = $s.fma(pixel, $weights[3 * ky + $kx][v], $sums[i][v]);)+
                    }
                }
            }
            $input.at[row] = $input.at[row].wrapping_add($input.step[row]);
        }
    };
}

impl<const STRIDE: usize, const R: usize, const READ: usize, const NV: usize, const PARTIAL: bool> Kernel
    for Window<'_, STRIDE, R, READ, NV, PARTIAL>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Band { op, image, y } = self.band;
        let shape = op.shape;
        let channels = shape.channels;
        let mut weights = [[s.zero(); NV]; 9];
        let mut bias = [s.zero(); NV];
        for v in 0..NV {
            let c = self.c + v * S::LANES;
            for (tap, w) in weights.iter_mut().enumerate() {
                // SAFETY: row `tap` of the weights has all channels.
                w[v] = unsafe { load::<S, PARTIAL>(s, op.weights.add(tap * channels + c), self.lanes) };
            }
            if let Some(values) = op.e.bias {
                // SAFETY: the bias has all channels.
                bias[v] = unsafe { load::<S, PARTIAL>(s, values.as_ptr().add(c), self.lanes) };
            }
        }
        let mut input = Columns::<READ> { at: [ZEROS.as_ptr(); READ], step: [0; READ] };
        for row in 0..READ {
            let y = (y * STRIDE + row).wrapping_sub(shape.pads[0]);
            if y < shape.height {
                let first = (image * shape.height + y) * shape.width * channels + self.c;
                input.at[row] = op.x.wrapping_add(first);
                input.step[row] = channels;
            }
        }
        let [out_height, width] = shape.output();
        let mut output = Output {
            at: ((image * out_height + y) * width) * channels + self.c,
            row: width * channels,
            op,
            clamp: {
                let (low, high) = op.e.activation.clamp();
                [s.splat(low), s.splat(high)]
            },
            extra: op.e.accumulate || op.e.residual.is_some(),
            lanes: self.lanes,
        };
        let left = shape.pads[1];
        // Sums of the column that is finished next, and of those after it, which read some of the same pixels.
        let (mut first, mut second) = ([bias; R], [bias; R]);
        if STRIDE == 1 {
            // Columns before the first that finishes a column of the output.
            let before = 2 - left;
            for _ in 0..before.min(shape.width) {
                let mut third = [bias; R];
                add_column!(self, s, input, weights, 1 to second, 0 to third);
                (first, second) = (second, third);
            }
            let inside = shape.width.saturating_sub(before);
            for _ in 0..inside {
                let mut third = [bias; R];
                add_column!(self, s, input, weights, 2 to first, 1 to second, 0 to third);
                output.store::<S, R, NV, PARTIAL>(s, &first);
                (first, second) = (second, third);
            }
            if shape.width < before {
                (first, second) = (second, [bias; R]);
            }
            // The rest lies right of the image.
            for _ in inside..width {
                output.store::<S, R, NV, PARTIAL>(s, &first);
                (first, second) = (second, [bias; R]);
            }
        } else {
            let mut read = 0;
            if left == 0 && shape.width > 0 {
                add_column!(self, s, input, weights, 0 to first);
                read = 1;
            }
            let inside = (shape.width - read) / 2;
            for _ in 0..inside {
                let mut second = [bias; R];
                add_column!(self, s, input, weights, 1 to first);
                add_column!(self, s, input, weights, 2 to first, 0 to second);
                output.store::<S, R, NV, PARTIAL>(s, &first);
                first = second;
            }
            for _ in inside..width {
                if read + 2 * inside < shape.width {
                    add_column!(self, s, input, weights, 1 to first);
                    read += 1;
                }
                output.store::<S, R, NV, PARTIAL>(s, &first);
                first = [bias; R];
            }
        }
    }
}

/// Where the next column of the output is, in y and the residual, and what happens to it on its way there.
struct Output<'a, F> {
    op: &'a Rows<'a>,
    at: usize,
    /// Elements of a row of the output.
    row: usize,
    clamp: [F; 2],
    /// Whether something besides the bias, with which sums begin, is added.
    extra: bool,
    lanes: usize,
}

impl<F: Copy> Output<'_, F> {
    #[inline(always)]
    fn store<S: Simd<F = F>, const R: usize, const NV: usize, const PARTIAL: bool>(
        &mut self,
        s: S,
        sums: &[[F; NV]; R],
    ) {
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = self.at + i * self.row + v * S::LANES;
                let mut sum = *sum;
                // SAFETY: the band's rows are in y and the residual, with all columns and channels.
                unsafe {
                    let to = self.op.y.add(at);
                    if self.extra {
                        if self.op.e.accumulate {
                            sum = s.add(sum, load::<S, PARTIAL>(s, to, self.lanes));
                        }
                        if let Some(residual) = self.op.e.residual {
                            sum = s.add(sum, load::<S, PARTIAL>(s, residual.as_ptr().add(at), self.lanes));
                        }
                    }
                    let sum = s.min(self.clamp[1], s.max(self.clamp[0], sum));
                    if PARTIAL { s.store_partial(to, self.lanes, sum) } else { s.store(to, sum) }
                }
            }
        }
        self.at += self.op.shape.channels;
    }
}
