//! Pooling over windows of NHWC images: maximum and mean, with gradients. Global pooling is a window as large as the
//! image.

use crate::simd::vectorised;
use crate::threads::Shared;
use crate::{Cpu, Isa};

/// The shape of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width; given, since rounding up is the caller's choice.
    pub output: [usize; 2],
    /// Channels.
    pub channels: usize,
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilation: [usize; 2],
    /// Rows of padding above, columns of padding to the left.
    pub pads: [usize; 2],
}

impl PoolShape {
    /// One window that covers the whole image.
    pub fn global(batch: usize, input: [usize; 2], channels: usize) -> Self {
        PoolShape {
            batch,
            input,
            output: [1, 1],
            channels,
            kernel: input,
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0, 0],
        }
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.channels
    }

    /// Calls `f` with each input pixel of the window of an output pixel.
    #[inline(always)]
    fn window(&self, oy: usize, ox: usize, mut f: impl FnMut(usize)) {
        for ky in 0..self.kernel[0] {
            let y = (oy * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.pads[0]);
            if y >= self.input[0] {
                continue;
            }
            for kx in 0..self.kernel[1] {
                let x = (ox * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.pads[1]);
                if x < self.input[1] {
                    f(y * self.input[1] + x);
                }
            }
        }
    }

    /// What a mean divides by.
    fn divisor(&self, oy: usize, ox: usize, count_padding: bool) -> f32 {
        if count_padding {
            return (self.kernel[0] * self.kernel[1]) as f32;
        }
        let mut count = 0;
        self.window(oy, ox, |_| count += 1);
        count.max(1) as f32
    }

    fn check(&self, input: usize, output: usize) {
        assert_eq!(input, self.input_len(), "input of {self:?}");
        assert_eq!(output, self.output_len(), "output of {self:?}");
    }

    /// Calls `f(image, oy, row of y)` on each row of the output.
    fn output_rows(&self, cpu: &Cpu, y: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let row = self.output[1] * self.channels;
        if row == 0 || self.output[0] == 0 {
            return;
        }
        cpu.threads.for_each_piece(y, row, |i, y| f(i / self.output[0], i % self.output[0], y));
    }
}

/// The maximum of each window; NaN wins. `indices`, if asked for, gets the input pixel (`y * width + x`) of each
/// maximum, the first among equals, which [`max_pool_gradient`] needs. A window in padding alone gives -infinity and
/// index -1.
pub fn max_pool(cpu: &Cpu, shape: &PoolShape, x: &[f32], y: &mut [f32], indices: Option<&mut [i32]>) {
    shape.check(x.len(), y.len());
    assert!(indices.as_ref().is_none_or(|i| i.len() == y.len()), "one index an output element");
    let image_len = shape.input[0] * shape.input[1] * shape.channels;
    let indices = indices.map(Shared::new);
    shape.output_rows(cpu, y, |image, oy, y| {
        let x = &x[image * image_len..][..image_len];
        match indices {
            Some(indices) => {
                let first = (image * shape.output[0] + oy) * shape.output[1] * shape.channels;
                // SAFETY: rows of the output are disjoint.
                let indices = unsafe { indices.slice(first, y.len()) };
                max_row_indexed(cpu.isa, shape, oy, x, y, indices);
            }
            None => max_row(cpu.isa, shape, oy, x, y),
        }
    });
}

/// The maximum of each window of bytes, i8 if `signed`; a window in padding alone gives the smallest number.
pub fn max_pool_bytes(cpu: &Cpu, shape: &PoolShape, x: &[u8], signed: bool, y: &mut [u8]) {
    shape.check(x.len(), y.len());
    let (row, image_len) =
        (shape.output[1] * shape.channels, shape.input[0] * shape.input[1] * shape.channels);
    if row == 0 || shape.output[0] == 0 {
        return;
    }
    let flip = if signed { 0x80 } else { 0 };
    cpu.threads.for_each_piece(y, row, |i, y| {
        let x = &x[i / shape.output[0] * image_len..][..image_len];
        for (ox, y) in y.chunks_exact_mut(shape.channels).enumerate() {
            // As unsigned bytes, whose smallest is 0.
            y.fill(0);
            shape.window(i % shape.output[0], ox, |pixel| {
                larger_bytes(cpu.isa, &x[pixel * shape.channels..][..shape.channels], flip, y);
            });
            y.iter_mut().for_each(|y| *y ^= flip);
        }
    });
}

vectorised! {
    fn larger_bytes<'a>(s; x: &'a [u8], flip: u8, y: &'a mut [u8]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = (*y).max(x ^ flip);
        }
    }
}

/// Channels whose maxima stay in registers while the window runs.
const BLOCK: usize = 32;

impl PoolShape {
    /// The input rows that output rows `from..to` read, clipped to the image.
    pub(crate) fn rows_read(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        let reach = (self.kernel[0] - 1) * self.dilation[0] + 1;
        let first = (from * self.stride[0]).saturating_sub(self.pads[0]);
        let end = ((to - 1) * self.stride[0] + reach).saturating_sub(self.pads[0]).min(self.input[0]);
        first.min(end)..end
    }

    /// Output rows `from..to` of one image's maxima into `y`, out of `x`, which holds just the rows that they read.
    pub(crate) fn max_of_rows(&self, isa: Isa, from: usize, to: usize, x: &[f32], y: &mut [f32]) {
        let rows = self.rows_read(from, to);
        // In the numbering that starts at the first row of x, only what of the padding is above that row remains.
        let above = (self.pads[0] + rows.start).saturating_sub(from * self.stride[0]);
        let part = PoolShape { input: [rows.len(), self.input[1]], pads: [above, self.pads[1]], ..*self };
        for (oy, y) in y.chunks_exact_mut(self.output[1] * self.channels).enumerate() {
            max_row(isa, &part, oy, x, y);
        }
    }
}

vectorised! {
    fn max_row<'a>(s; shape: &'a PoolShape, oy: usize, x: &'a [f32], y: &'a mut [f32]) {
        let c = shape.channels;
        let whole = c - c % BLOCK;
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            for (block, y) in y[..whole].chunks_exact_mut(BLOCK).enumerate() {
                let mut highest = [f32::NEG_INFINITY; BLOCK];
                shape.window(oy, ox, |pixel| {
                    let x: &[f32; BLOCK] = x[pixel * c + block * BLOCK..][..BLOCK].try_into().expect("BLOCK elements");
                    for (y, x) in highest.iter_mut().zip(x) {
                        *y = larger(*y, *x);
                    }
                });
                y.copy_from_slice(&highest);
            }
            let y = &mut y[whole..];
            y.fill(f32::NEG_INFINITY);
            shape.window(oy, ox, |pixel| {
                for (y, x) in y.iter_mut().zip(&x[pixel * c + whole..][..c - whole]) {
                    *y = larger(*y, *x);
                }
            });
        }
    }
}

/// The larger of two; NaN wins.
#[inline(always)]
fn larger(y: f32, x: f32) -> f32 {
    if y >= x || y.is_nan() { y } else { x }
}

vectorised! {
    fn max_row_indexed<'a>(s; shape: &'a PoolShape, oy: usize, x: &'a [f32], y: &'a mut [f32], indices: &'a mut [i32]) {
        let c = shape.channels;
        for ((ox, y), indices) in y.chunks_exact_mut(c).enumerate().zip(indices.chunks_exact_mut(c)) {
            y.fill(f32::NEG_INFINITY);
            indices.fill(-1);
            shape.window(oy, ox, |pixel| {
                for ((y, index), x) in y.iter_mut().zip(indices.iter_mut()).zip(&x[pixel * c..][..c]) {
                    let keep = (*y >= *x && *index >= 0) || y.is_nan();
                    *y = if keep { *y } else { *x };
                    *index = if keep { *index } else { pixel as i32 };
                }
            });
        }
    }
}

/// `dx`: each output's gradient goes to the input element that was its maximum.
pub fn max_pool_gradient(cpu: &Cpu, shape: &PoolShape, indices: &[i32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    assert_eq!(indices.len(), dy.len(), "one index an output element");
    let image_len = shape.input[0] * shape.input[1] * shape.channels;
    let out_len = shape.output[0] * shape.output[1] * shape.channels;
    if image_len == 0 {
        return;
    }
    cpu.threads.for_each_piece(dx, image_len, |image, dx| {
        dx.fill(0.0);
        let at = image * out_len..(image + 1) * out_len;
        for (dy, indices) in
            dy[at.clone()].chunks_exact(shape.channels).zip(indices[at].chunks_exact(shape.channels))
        {
            for (c, (dy, &index)) in dy.iter().zip(indices).enumerate() {
                if index >= 0 {
                    dx[index as usize * shape.channels + c] += *dy;
                }
            }
        }
    });
}

/// The mean of each window, over its elements inside the image or, if `count_padding`, over the whole kernel.
pub fn mean_pool(cpu: &Cpu, shape: &PoolShape, count_padding: bool, x: &[f32], y: &mut [f32]) {
    shape.check(x.len(), y.len());
    let image_len = shape.input[0] * shape.input[1] * shape.channels;
    shape.output_rows(cpu, y, |image, oy, y| {
        mean_row(cpu.isa, shape, oy, count_padding, &x[image * image_len..][..image_len], y);
    });
}

vectorised! {
    fn mean_row<'a>(s; shape: &'a PoolShape, oy: usize, count_padding: bool, x: &'a [f32], y: &'a mut [f32]) {
        let c = shape.channels;
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            y.fill(0.0);
            shape.window(oy, ox, |pixel| {
                for (y, x) in y.iter_mut().zip(&x[pixel * c..][..c]) {
                    *y += *x;
                }
            });
            let inverse = 1.0 / shape.divisor(oy, ox, count_padding);
            for y in y.iter_mut() {
                *y *= inverse;
            }
        }
    }
}

/// `dx` of [`mean_pool`].
pub fn mean_pool_gradient(cpu: &Cpu, shape: &PoolShape, count_padding: bool, dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    let image_len = shape.input[0] * shape.input[1] * shape.channels;
    let out_len = shape.output[0] * shape.output[1] * shape.channels;
    if image_len == 0 {
        return;
    }
    cpu.threads.for_each_piece(dx, image_len, |image, dx| {
        spread(cpu.isa, shape, count_padding, &dy[image * out_len..][..out_len], dx);
    });
}

vectorised! {
    fn spread<'a>(s; shape: &'a PoolShape, count_padding: bool, dy: &'a [f32], dx: &'a mut [f32]) {
        let c = shape.channels;
        dx.fill(0.0);
        for (pixel, dy) in dy.chunks_exact(c).enumerate() {
            let (oy, ox) = (pixel / shape.output[1], pixel % shape.output[1]);
            let inverse = 1.0 / shape.divisor(oy, ox, count_padding);
            shape.window(oy, ox, |pixel| {
                for (dx, dy) in dx[pixel * c..][..c].iter_mut().zip(dy) {
                    *dx += *dy * inverse;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    fn shapes() -> Vec<PoolShape> {
        let base = PoolShape {
            batch: 2,
            input: [7, 8],
            output: [3, 4],
            channels: 5,
            kernel: [2, 2],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [0, 0],
        };
        vec![
            base,
            PoolShape { output: [4, 4], pads: [1, 0], kernel: [3, 3], channels: 33, ..base },
            PoolShape {
                output: [5, 8],
                stride: [1, 1],
                pads: [1, 1],
                kernel: [3, 2],
                dilation: [2, 2],
                ..base
            },
            PoolShape { output: [4, 4], ..base },
            PoolShape::global(3, [4, 5], 17),
        ]
    }

    #[test]
    fn maxima_of_bytes_are_those_of_their_numbers() {
        let numbers = &mut Numbers::new(7);
        for shape in shapes() {
            for signed in [false, true] {
                let x: Vec<u8> = (0..shape.input_len()).map(|_| numbers.next() as u8).collect();
                let floats: Vec<f32> = x.iter().map(|x| crate::quantize::value(*x, signed) as f32).collect();
                let (mut want, mut y) = (vec![0.0; shape.output_len()], vec![3; shape.output_len()]);
                for cpu in cpus().iter().flatten() {
                    max_pool(cpu, &shape, &floats, &mut want, None);
                    max_pool_bytes(cpu, &shape, &x, signed, &mut y);
                    for (y, want) in y.iter().zip(&want) {
                        let least = if signed { -128.0 } else { 0.0 };
                        assert_eq!(crate::quantize::value(*y, signed) as f32, want.max(least));
                    }
                }
            }
        }
    }

    #[test]
    fn pools_and_gradients_match_the_oracle() {
        for shape in shapes() {
            let numbers = &mut Numbers::new(3);
            let (x, dy) = (numbers.take(shape.input_len()), numbers.take(shape.output_len()));
            let c = shape.channels;
            let (in_pixels, out_pixels) =
                (shape.input[0] * shape.input[1], shape.output[0] * shape.output[1]);
            for count_padding in [false, true] {
                let (mut max_want, mut mean_want) = (vec![], vec![]);
                let (mut dmax_want, mut dmean_want) = (vec![0.0f64; x.len()], vec![0.0f64; x.len()]);
                for o in 0..dy.len() {
                    let (image, pixel, ch) = (o / c / out_pixels, o / c % out_pixels, o % c);
                    let mut inside = vec![];
                    shape.window(pixel / shape.output[1], pixel % shape.output[1], |p| {
                        inside.push((image * in_pixels + p) * c + ch)
                    });
                    let top = inside.iter().copied().fold(inside[0], |m, i| if x[i] > x[m] { i } else { m });
                    max_want.push(x[top] as f64);
                    dmax_want[top] += dy[o] as f64;
                    let n =
                        if count_padding { shape.kernel[0] * shape.kernel[1] } else { inside.len() } as f64;
                    mean_want.push(inside.iter().map(|&i| x[i] as f64).sum::<f64>() / n);
                    inside.iter().for_each(|&i| dmean_want[i] += dy[o] as f64 / n);
                }
                for cpu in cpus().iter().flatten() {
                    let (mut y, mut dx, mut indices) =
                        (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0; dy.len()]);
                    max_pool(cpu, &shape, &x, &mut y, None);
                    assert_close(&y, &max_want, 0.0, "max");
                    max_pool(cpu, &shape, &x, &mut y, Some(&mut indices));
                    assert_close(&y, &max_want, 0.0, "max with indices");
                    max_pool_gradient(cpu, &shape, &indices, &dy, &mut dx);
                    assert_close(&dx, &dmax_want, 1e-6, "max gradient");
                    mean_pool(cpu, &shape, count_padding, &x, &mut y);
                    assert_close(&y, &mean_want, 1e-6, "mean");
                    mean_pool_gradient(cpu, &shape, count_padding, &dy, &mut dx);
                    assert_close(&dx, &dmean_want, 1e-6, "mean gradient");
                }
            }
        }
    }
}
