//! Convolution forward: one indirect product per group, transformed tiles, or a stem's sums.

use super::ConvPlan;
use crate::Cpu;
use crate::gemm::Epilogue;
use crate::igemm::{self, Igemm, RowsOfA, RowsOfC};

/// `y = activation(conv(x) + bias + residual)`, all NHWC (but see [`ConvPlan::read_planes`]); `weights` from
/// [`ConvPlan::pack_forward`] for this instruction set, `scratch` of [`ConvPlan::forward_scratch_len`] elements.
pub fn forward(
    cpu: &Cpu,
    plan: &ConvPlan,
    x: &[f32],
    weights: &[f32],
    e: Epilogue,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let shape = &plan.shape;
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(y.len(), shape.output_len(), "output of {shape:?}");
    assert!(weights.len() >= plan.forward_weights_len(cpu.isa), "packed weights of {shape:?}");
    let [out_height, out_width] = shape.output();
    let pixels = out_height * out_width;
    e.check(shape.batch * pixels, shape.filters);
    if y.is_empty() {
        return;
    }
    if let Some(winograd) = &plan.winograd {
        return winograd.run(cpu, x, weights, e, y, scratch);
    }
    if let Some(stem) = &plan.stem {
        return stem.run(cpu, x, weights, e, y, scratch);
    }
    let packed = plan.forward_packed_shape(cpu.isa);
    let image_stride = shape.height * shape.width * shape.channels;
    let a_rows = if shape.is_plain() {
        RowsOfA::Affine { stride: shape.channels }
    } else {
        RowsOfA::Table { offsets: &plan.offsets, pixels, image_stride }
    };
    for group in 0..shape.groups {
        let column = group * shape.group_filters();
        let op = Igemm {
            m: shape.batch * pixels,
            n: shape.group_filters(),
            k: packed.k,
            taps: packed.taps,
            a: x[group * shape.group_channels()..].as_ptr(),
            a_rows,
            b: weights[group * packed.len()..].as_ptr(),
            b_layout: packed.layout(),
            c: y[column..].as_mut_ptr(),
            c_rows: RowsOfC::Affine { stride: shape.filters },
            bias: e.bias.map(|b| &b[column..column + shape.group_filters()]),
            residual: e.residual.map_or(std::ptr::null(), |r| r[column..].as_ptr()),
            accumulate: e.accumulate,
            activation: e.activation,
        };
        // SAFETY: lengths are asserted above; the table was built for this shape, so every offset plus k channels of
        // the group stays in its image; y is borrowed mutably and overlaps nothing.
        unsafe { igemm::run(cpu.isa, &cpu.threads, &op) };
    }
}
