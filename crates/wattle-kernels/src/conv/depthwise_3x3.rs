//! Depthwise convolution with kernels of 3 x 3, moved by one pixel or two: a tile of output pixels stays in registers
//! with the kernel's nine vectors, so that a pixel of the input is read once for all results in the tile.

use super::ConvShape;
use super::depthwise::load;
use crate::Cpu;
use crate::gemm::Epilogue;
use crate::igemm::{MAX_K, ZEROS};
use crate::simd::{Isa, Kernel, Simd, prefetch_near, prefetch_write, unrolled};
use std::ops::Range;

/// Output elements of one task, at least.
const TASK: usize = 16 * 1024;
/// Columns of a tile.
const COLUMNS: usize = 4;
/// Pixels of the input that the largest tile reads.
const PIXELS: usize = 5 * 9;

/// Whether [`forward`] can compute this depthwise convolution.
pub(super) fn applies(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && (shape.stride == [1, 1] || shape.stride == [2, 2])
        && shape.channels <= MAX_K
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
        let [_, width] = self.shape.output();
        for y in rows.clone().step_by(2) {
            for x in (0..width).step_by(COLUMNS) {
                let place = [image, y, x];
                match self.shape.stride {
                    [1, 1] => isa.run(Tile::<1, 4, 6> { op: self, place, last: rows.end }),
                    _ => isa.run(Tile::<2, 5, 9> { op: self, place, last: rows.end }),
                }
            }
        }
    }
}

/// Two rows of [`COLUMNS`] output pixels, all channels; it reads `HEIGHT` x `WIDTH` pixels of the input.
struct Tile<'a, const STRIDE: usize, const HEIGHT: usize, const WIDTH: usize> {
    op: &'a Rows<'a>,
    /// Image, row and column of the first pixel.
    place: [usize; 3],
    /// Rows from here on are not stored.
    last: usize,
}

impl<const STRIDE: usize, const HEIGHT: usize, const WIDTH: usize> Kernel
    for Tile<'_, STRIDE, HEIGHT, WIDTH>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let shape = self.op.shape;
        let [image, y, x] = self.place;
        let mut pixels = [ZEROS.as_ptr(); PIXELS];
        for row in 0..HEIGHT {
            let y = (y * STRIDE + row).wrapping_sub(shape.pads[0]);
            if y >= shape.height {
                continue;
            }
            for column in 0..WIDTH {
                let x = (x * STRIDE + column).wrapping_sub(shape.pads[1]);
                if x < shape.width {
                    let pixel = (image * shape.height + y) * shape.width + x;
                    pixels[row * WIDTH + column] = self.op.x.wrapping_add(pixel * shape.channels);
                }
            }
        }
        let mut c = 0;
        while c + S::LANES <= shape.channels {
            // SAFETY: pixels have all channels, zeros MAX_K.
            unsafe { self.channels::<S, false>(s, &pixels, c, S::LANES) };
            c += S::LANES;
        }
        if c < shape.channels {
            // SAFETY: as above.
            unsafe { self.channels::<S, true>(s, &pixels, c, shape.channels - c) };
        }
    }
}

impl<const STRIDE: usize, const HEIGHT: usize, const WIDTH: usize> Tile<'_, STRIDE, HEIGHT, WIDTH> {
    /// # Safety
    /// Pixels must be readable for `lanes` channels from `c`, of which the convolution has as many.
    #[inline(always)]
    unsafe fn channels<S: Simd, const PARTIAL: bool>(
        &self,
        s: S,
        pixels: &[*const f32; PIXELS],
        c: usize,
        lanes: usize,
    ) {
        let shape = self.op.shape;
        let e = &self.op.e;
        let mut weights = [s.zero(); 9];
        for (tap, w) in weights.iter_mut().enumerate() {
            // SAFETY: row `tap` of the weights has all channels.
            *w = unsafe { load::<S, PARTIAL>(s, self.op.weights.add(tap * shape.channels + c), lanes) };
        }
        let [out_height, out_width] = shape.output();
        let [image, y, x] = self.place;
        let place = self.op.y.wrapping_add(((image * out_height + y) * out_width + x) * shape.channels + c);
        unrolled!(i < 2, of 0 1 => {
            unrolled!(j < COLUMNS, of 0 1 2 3 => {
                prefetch_write(place.wrapping_add((i * out_width + j) * shape.channels));
            });
        });
        // What the next tile reads beyond this one.
        unrolled!(row < HEIGHT, of 0 1 2 3 4 => {
            unrolled!(column < COLUMNS * STRIDE, of 0 1 2 3 4 5 6 7 => {
                let last = pixels[row * WIDTH + WIDTH - 1 - column];
                prefetch_near(last.wrapping_add(COLUMNS * STRIDE * shape.channels + c));
            });
        });
        let mut sums = [[s.zero(); COLUMNS]; 2];
        unrolled!(row < HEIGHT, of 0 1 2 3 4 => {
            unrolled!(column < WIDTH, of 0 1 2 3 4 5 6 7 8 => {
                // SAFETY: the caller's promise.
                let pixel = unsafe { load::<S, PARTIAL>(s, pixels[row * WIDTH + column].add(c), lanes) };
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let (ky, kx) = (row.wrapping_sub(i * STRIDE), column.wrapping_sub(j * STRIDE));
                        if ky < 3 && kx < 3 {
                            *sum = s.fma(pixel, weights[3 * ky + kx], *sum);
                        }
                    }
                }
            });
        });
        let (low, high) = e.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let bias = match e.bias {
            // SAFETY: the bias has all channels.
            Some(bias) => unsafe { load::<S, PARTIAL>(s, bias.as_ptr().add(c), lanes) },
            None => s.zero(),
        };
        unrolled!(i < 2, of 0 1 => {
            unrolled!(j < COLUMNS, of 0 1 2 3 => {
                if y + i < self.last && x + j < out_width {
                    let at = ((image * out_height + y + i) * out_width + x + j) * shape.channels + c;
                    let mut sum = sums[i][j];
                    // SAFETY: the pixel is in y and the residual, and has all channels.
                    unsafe {
                        let to = self.op.y.add(at);
                        if e.accumulate {
                            sum = s.add(sum, load::<S, PARTIAL>(s, to, lanes));
                        }
                        sum = s.add(sum, bias);
                        if let Some(residual) = e.residual {
                            sum = s.add(sum, load::<S, PARTIAL>(s, residual.as_ptr().add(at), lanes));
                        }
                        let sum = s.min(high, s.max(low, sum));
                        if PARTIAL { s.store_partial(to, lanes, sum) } else { s.store(to, sum) }
                    }
                }
            });
        });
    }
}
