//! Where a convolution reads: offset tables over one image, and the padded copy of images with few channels.

use super::ConvShape;
use crate::Cpu;
use crate::igemm::OUTSIDE;

/// For each tap and output pixel, the first element of the input pixel it reads within its image, or -1 outside of it:
/// `[tap][output pixel]`, channels last.
pub fn forward(shape: &ConvShape) -> Vec<i32> {
    let [out_height, out_width] = shape.output();
    let mut table = Vec::with_capacity(shape.taps() * out_height * out_width);
    for ky in 0..shape.kernel[0] {
        for kx in 0..shape.kernel[1] {
            for oy in 0..out_height {
                for ox in 0..out_width {
                    let y = (oy * shape.stride[0] + ky * shape.dilation[0]).checked_sub(shape.pads[0]);
                    let x = (ox * shape.stride[1] + kx * shape.dilation[1]).checked_sub(shape.pads[1]);
                    table.push(match (y, x) {
                        (Some(y), Some(x)) if y < shape.height && x < shape.width => {
                            ((y * shape.width + x) * shape.channels) as i32
                        }
                        _ => OUTSIDE,
                    });
                }
            }
        }
    }
    table
}

/// The size of an image copied together with its padding.
pub(super) struct Padded {
    pub height: usize,
    pub width: usize,
}

/// Up to this many elements in a row of the kernel, copying the image beats one pass per tap.
const FEW: usize = 24;

impl Padded {
    /// Applies when channels are few and the taps of a kernel row are neighbours in memory.
    pub(super) fn new(shape: &ConvShape) -> Option<Self> {
        let [out_height, out_width] = shape.output();
        let row = shape.kernel[1] * shape.channels;
        let applies = shape.groups == 1
            && !shape.is_depthwise()
            && shape.channels <= 4
            && row <= FEW
            && shape.kernel[1] > 1
            && shape.dilation[1] == 1
            && out_height > 0
            && out_width > 0;
        applies.then(|| Padded {
            height: (out_height - 1) * shape.stride[0] + (shape.kernel[0] - 1) * shape.dilation[0] + 1,
            width: (out_width - 1) * shape.stride[1] + shape.kernel[1],
        })
    }

    pub(super) fn image_len(&self, shape: &ConvShape) -> usize {
        self.height * self.width * shape.channels
    }

    pub(super) fn len(&self, shape: &ConvShape) -> usize {
        shape.batch * self.image_len(shape)
    }

    /// Copies all images with their padding.
    pub(super) fn copy(&self, cpu: &Cpu, shape: &ConvShape, x: &[f32], out: &mut [f32]) {
        let image = shape.height * shape.width * shape.channels;
        let row = self.width * shape.channels;
        let left = (shape.pads[1] * shape.channels).min(row);
        let inside = (shape.width * shape.channels).min(row - left);
        cpu.threads.for_each_piece(&mut out[..self.len(shape)], row.max(1), |i, out| {
            let (x, y) = (&x[i / self.height * image..][..image], i % self.height);
            match y.checked_sub(shape.pads[0]) {
                Some(y) if y < shape.height => {
                    out[..left].fill(0.0);
                    out[left..left + inside]
                        .copy_from_slice(&x[y * shape.width * shape.channels..][..inside]);
                    out[left + inside..].fill(0.0);
                }
                _ => out.fill(0.0),
            }
        });
    }
}

/// Copies the patch of each output pixel, `[batch * output pixels, taps * channels / groups]`, for one group; padding
/// reads as `padding`. For operators without a kernel of their own, such as integer convolution.
pub fn patches<T: Copy + Send + Sync>(
    cpu: &Cpu,
    shape: &ConvShape,
    group: usize,
    x: &[T],
    padding: T,
    out: &mut [T],
) {
    let [out_height, out_width] = shape.output();
    let channels = shape.group_channels();
    let patch = shape.taps() * channels;
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(out.len(), shape.batch * out_height * out_width * patch, "patches of {shape:?}");
    if out.is_empty() {
        return;
    }
    cpu.threads.for_each_piece(out, out_width * patch, |row, out| {
        let (image, oy) = (row / out_height, row % out_height);
        for (ox, out) in out.chunks_exact_mut(patch).enumerate() {
            for (tap, out) in out.chunks_exact_mut(channels).enumerate() {
                let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                let y = (oy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                let x_at = (ox * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                if y < shape.height && x_at < shape.width {
                    let pixel = (image * shape.height + y) * shape.width + x_at;
                    out.copy_from_slice(&x[pixel * shape.channels + group * channels..][..channels]);
                } else {
                    out.fill(padding);
                }
            }
        }
    });
}
