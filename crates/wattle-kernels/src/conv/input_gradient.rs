//! Gradient of a convolution's input, which is also transposed convolution: an indirect product over the output's
//! gradient. With a stride, input pixels fall into phases that each see their own subset of the taps.

use super::{ConvPlan, ConvShape};
use crate::gemm::Epilogue;
use crate::igemm::{self, Igemm, OUTSIDE, RowsOfA, RowsOfC};
use crate::pack::PackedShape;
use crate::{Cpu, Isa};

/// The input pixels that see the same taps.
pub(super) struct Phase {
    /// Positions in the kernel, `y * width + x`.
    pub taps: Vec<u32>,
    /// First element of each pixel in an image of the input.
    pub pixels: Vec<i32>,
    /// `[tap][pixel]`: first element of the output pixel that it reads, or [`OUTSIDE`].
    pub offsets: Vec<i32>,
}

impl Phase {
    pub(super) fn packed_shape(&self, shape: &ConvShape, isa: Isa) -> PackedShape {
        PackedShape::new(isa, self.taps.len(), shape.group_filters(), shape.group_channels())
    }
}

/// The output coordinate that input coordinate `i` meets through kernel position `k`, if a whole number.
fn output_of(shape: &ConvShape, axis: usize, i: usize, k: usize) -> Option<usize> {
    let up = (i + shape.pads[axis]).checked_sub(k * shape.dilation[axis])?;
    up.is_multiple_of(shape.stride[axis]).then_some(up / shape.stride[axis])
}

pub(super) fn phases(shape: &ConvShape) -> Vec<Phase> {
    let [out_height, out_width] = shape.output();
    let phase_of = |axis: usize, i: usize| (i + shape.pads[axis]) % shape.stride[axis];
    let mut phases = Vec::new();
    for phase_y in 0..shape.stride[0] {
        for phase_x in 0..shape.stride[1] {
            let ys: Vec<usize> = (0..shape.height).filter(|&y| phase_of(0, y) == phase_y).collect();
            let xs: Vec<usize> = (0..shape.width).filter(|&x| phase_of(1, x) == phase_x).collect();
            if ys.is_empty() || xs.is_empty() {
                continue;
            }
            let sees = |axis: usize, k: usize, phase: usize| {
                (k * shape.dilation[axis]) % shape.stride[axis] == phase
            };
            let mut taps = Vec::new();
            let mut offsets = Vec::new();
            for ky in (0..shape.kernel[0]).filter(|&k| sees(0, k, phase_y)) {
                for kx in (0..shape.kernel[1]).filter(|&k| sees(1, k, phase_x)) {
                    taps.push((ky * shape.kernel[1] + kx) as u32);
                    for &y in &ys {
                        for &x in &xs {
                            let at = (output_of(shape, 0, y, ky), output_of(shape, 1, x, kx));
                            offsets.push(match at {
                                (Some(y), Some(x)) if y < out_height && x < out_width => {
                                    ((y * out_width + x) * shape.filters) as i32
                                }
                                _ => OUTSIDE,
                            });
                        }
                    }
                }
            }
            let pixels = ys
                .iter()
                .flat_map(|y| xs.iter().map(move |x| ((y * shape.width + x) * shape.channels) as i32))
                .collect();
            phases.push(Phase { taps, pixels, offsets });
        }
    }
    phases
}

/// `dx = activation([dx +] gradient + bias + residual)`, where the gradient of the input is that of [`super::forward`]
/// given `dy`; `weights` from [`ConvPlan::pack_input_gradient`]. The epilogue serves transposed convolution (bias) and
/// gradients that meet (residual or accumulate). `scratch` has [`ConvPlan::input_gradient_scratch_len`] elements.
pub fn input_gradient(
    cpu: &Cpu,
    plan: &ConvPlan,
    dy: &[f32],
    weights: &[f32],
    e: Epilogue,
    dx: &mut [f32],
    scratch: &mut [f32],
) {
    let shape = &plan.shape;
    assert_eq!(dx.len(), shape.input_len(), "input gradient of {shape:?}");
    assert_eq!(dy.len(), shape.output_len(), "output gradient of {shape:?}");
    assert!(weights.len() >= plan.input_gradient_weights_len(cpu.isa), "packed weights of {shape:?}");
    e.check(shape.batch * shape.height * shape.width, shape.channels);
    if dx.is_empty() {
        return;
    }
    if let Some(winograd) = &plan.winograd_gradient {
        return winograd.run(cpu, dy, weights, e, dx, scratch);
    }
    let [out_height, out_width] = shape.output();
    let image_stride = shape.height * shape.width * shape.channels;
    let mut at = 0;
    for group in 0..shape.groups {
        let column = group * shape.group_channels();
        for phase in plan.phases() {
            let packed = phase.packed_shape(shape, cpu.isa);
            let c_rows = if plan.phases().len() == 1 {
                RowsOfC::Affine { stride: shape.channels }
            } else {
                RowsOfC::Table { offsets: &phase.pixels, image_stride }
            };
            let op = Igemm {
                m: shape.batch * phase.pixels.len(),
                n: shape.group_channels(),
                k: shape.group_filters(),
                taps: phase.taps.len(),
                a: dy.as_ptr().wrapping_add(group * shape.group_filters()),
                a_rows: RowsOfA::Table {
                    offsets: &phase.offsets,
                    pixels: phase.pixels.len(),
                    image_stride: out_height * out_width * shape.filters,
                },
                b: weights[at..].as_ptr(),
                b_layout: packed.layout(),
                c: dx[column..].as_mut_ptr(),
                c_rows,
                bias: e.bias.map(|b| &b[column..column + shape.group_channels()]),
                residual: e.residual.map_or(std::ptr::null(), |r| r[column..].as_ptr()),
                accumulate: e.accumulate,
                activation: e.activation,
            };
            // SAFETY: lengths are asserted above; offsets were checked against the output's size when planned; dx is
            // borrowed mutably and overlaps nothing.
            unsafe { igemm::run(cpu.isa, &cpu.threads, &op) };
            at += packed.len();
        }
    }
}
