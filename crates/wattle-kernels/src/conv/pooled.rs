//! Convolution and the maximum over windows of its result in one pass: what is pooled never leaves the cache.

use super::ConvPlan;
use crate::gemm::Epilogue;
use crate::igemm::{self, Igemm, RowsOfA, RowsOfC};
use crate::pool::PoolShape;
use crate::threads::Shared;
use crate::{Cpu, Threads};
use std::ops::Range;

/// Bytes of a strip of the convolution's result: half of a small L2 cache.
const STRIP: usize = 256 * 1024;

/// Rows of the pooled result that are made at a time.
fn strip_rows(plan: &ConvPlan, pool: &PoolShape) -> usize {
    let row = 4 * pool.input[1] * plan.shape.filters;
    let reach = (pool.kernel[0] - 1) * pool.dilation[0] + 1;
    let rows = (STRIP / row.max(1)).saturating_sub(reach) / pool.stride[0] + 1;
    rows.min(pool.output[0].max(1))
}

/// Rows of the convolution's result in a strip.
fn held_rows(plan: &ConvPlan, pool: &PoolShape) -> usize {
    let reach = (pool.kernel[0] - 1) * pool.dilation[0] + 1;
    ((strip_rows(plan, pool) - 1) * pool.stride[0] + reach).min(pool.input[0])
}

/// Elements of a strip of the convolution's result, and of the planes that it reads where channels are few.
fn strip_len(plan: &ConvPlan, pool: &PoolShape) -> [usize; 2] {
    let rows = held_rows(plan, pool);
    let planes = plan.stem.as_ref().filter(|_| rows > 0).map_or(0, |stem| stem.planes_len(rows));
    [(rows * pool.input[1] * plan.shape.filters).next_multiple_of(16), planes]
}

/// Scratch elements that [`max_pooled`] needs: one strip a thread.
pub fn max_pooled_scratch_len(plan: &ConvPlan, pool: &PoolShape, threads: &Threads) -> usize {
    threads.count() * strip_len(plan, pool).iter().sum::<usize>()
}

/// `y = max_pool(activation(conv(x) + bias))`, all NHWC, for a convolution of one group: as [`super::forward`]
/// followed by [`crate::pool::max_pool`], to the bit. The epilogue may not have a residual nor accumulate.
#[allow(clippy::too_many_arguments)]
pub fn max_pooled(
    cpu: &Cpu,
    plan: &ConvPlan,
    pool: &PoolShape,
    x: &[f32],
    weights: &[f32],
    e: Epilogue,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let shape = &plan.shape;
    assert!(
        shape.groups == 1 && plan.winograd.is_none(),
        "pooling wants a direct plan of one group: {shape:?}"
    );
    assert_eq!(x.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(
        (pool.batch, pool.input, pool.channels),
        (shape.batch, shape.output(), shape.filters),
        "pooling of {shape:?}"
    );
    assert_eq!(y.len(), pool.output_len(), "output of {pool:?}");
    assert!(weights.len() >= plan.forward_weights_len(cpu.isa), "packed weights of {shape:?}");
    assert!(scratch.len() >= max_pooled_scratch_len(plan, pool, &cpu.threads), "scratch of {shape:?}");
    assert!(e.residual.is_none() && !e.accumulate, "a pooled convolution has no residual");
    let pixels = pool.input[0] * pool.input[1];
    e.check(shape.batch * pixels, shape.filters);
    if y.is_empty() {
        return;
    }
    let packed = plan.forward_packed_shape(cpu.isa);
    let image_stride = shape.height * shape.width * shape.channels;
    let a_rows = if shape.is_plain() {
        RowsOfA::Affine { stride: shape.channels }
    } else {
        RowsOfA::Table { offsets: &plan.offsets, pixels, image_stride }
    };
    let (height, [strip_len, planes_len]) = (strip_rows(plan, pool), strip_len(plan, pool));
    let parts = match cpu.threads.count() {
        1 => 1,
        threads => (4 * threads).div_ceil(shape.batch).min(pool.output[0]),
    };
    let part_rows = pool.output[0].div_ceil(parts);
    let (row, out_row) = (pool.input[1] * shape.filters, pool.output[1] * pool.channels);
    let (scratch, y) = (Shared::new(scratch), Shared::new(y));
    cpu.threads.for_each_slot(shape.batch * parts, |slot, task| {
        // SAFETY: tasks that run at the same time have different slots.
        let own = unsafe { scratch.slice(slot * (strip_len + planes_len), strip_len + planes_len) };
        let (strip, planes) = own.split_at_mut(strip_len);
        let (image, mut from) = (task / parts, task % parts * part_rows);
        let end = pool.output[0].min(from + part_rows);
        let mut held: Range<usize> = 0..0;
        while from < end {
            let to = (from + height).min(end);
            let rows = pool.rows_read(from, to);
            // Windows that overlap those of the strip before find its last rows again.
            let known = held.end.saturating_sub(rows.start).min(rows.len());
            strip.copy_within((held.len() - known) * row..held.len() * row, 0);
            match &plan.stem {
                Some(stem) => {
                    let fresh = rows.start + known..rows.end;
                    let to = &mut strip[known * row..rows.len() * row];
                    if !fresh.is_empty() {
                        stem.rows(cpu.isa, x, weights, e, image, fresh, to, planes);
                    }
                }
                None => {
                    let first = image * pixels + rows.start * pool.input[1];
                    let op = Igemm {
                        m: shape.batch * pixels,
                        n: shape.filters,
                        k: packed.k,
                        taps: packed.taps,
                        a: x.as_ptr(),
                        a_rows,
                        b: weights.as_ptr(),
                        b_layout: packed.layout(),
                        c: strip.as_mut_ptr(),
                        c_rows: RowsOfC::Part { first, stride: shape.filters },
                        bias: e.bias,
                        residual: std::ptr::null(),
                        accumulate: false,
                        activation: e.activation,
                    };
                    let fresh = first + known * pool.input[1]..first + rows.len() * pool.input[1];
                    // SAFETY: lengths are asserted above; the table was built for this shape; a strip has room for the
                    // rows that so many rows of the result read, and is this task's.
                    unsafe { igemm::run_rows(cpu.isa, &op, fresh) };
                }
            }
            // SAFETY: each task has its own rows of the result.
            let y = unsafe { y.slice((image * pool.output[0] + from) * out_row, (to - from) * out_row) };
            pool.max_of_rows(cpu.isa, from, to, &strip[..rows.len() * row], y);
            held = rows;
            from = to;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;
    use crate::conv::{ConvShape, forward};
    use crate::elementwise::Unary;
    use crate::pool::max_pool;
    use crate::testing::{Numbers, cpus};

    /// Both ways, on every instruction set and number of threads, must agree to the bit.
    fn check(shape: ConvShape, kernel: usize, stride: usize, pad: usize, activation: Activation) {
        let [height, width] = shape.output();
        let size = |extent: usize| (extent + 2 * pad - kernel) / stride + 1;
        let pool = PoolShape {
            batch: shape.batch,
            input: [height, width],
            output: [size(height), size(width)],
            channels: shape.filters,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pads: [pad; 2],
        };
        let numbers = &mut Numbers::new(3);
        let (x, w) = (numbers.take(shape.input_len()), numbers.take(shape.weights_len()));
        let bias = numbers.take(shape.filters);
        let plan = ConvPlan::direct(shape);
        for cpu in cpus().iter().flatten() {
            let e = || Epilogue { bias: Some(&bias), activation, ..Default::default() };
            let mut packed = vec![0.0; plan.forward_weights_len(cpu.isa)];
            plan.pack_forward(cpu, &w, &mut packed);
            let mut full = vec![0.0; shape.output_len()];
            forward(cpu, &plan, &x, &packed, e(), &mut full, &mut vec![0.0; plan.forward_scratch_len(cpu)]);
            let mut want = vec![0.0; pool.output_len()];
            max_pool(cpu, &pool, &full, &mut want, None);
            let mut got = vec![f32::NAN; pool.output_len()];
            let mut scratch = vec![f32::NAN; max_pooled_scratch_len(&plan, &pool, &cpu.threads)];
            max_pooled(cpu, &plan, &pool, &x, &packed, e(), &mut got, &mut scratch);
            assert_eq!(got, want, "{shape:?} {pool:?} {}", cpu.isa.name());
        }
    }

    #[test]
    fn a_pooled_convolution_is_the_convolution_then_the_pooling() {
        let shape = ConvShape {
            batch: 2,
            height: 37,
            width: 41,
            channels: 1,
            filters: 33,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [1; 4],
            groups: 1,
        };
        check(shape, 2, 2, 0, Activation::Relu);
        check(ConvShape { channels: 5, ..shape }, 3, 2, 1, Activation::Unary(Unary::Tanh));
        check(
            ConvShape { kernel: [1, 1], pads: [0; 4], channels: 7, filters: 64, ..shape },
            3,
            1,
            1,
            Activation::None,
        );
        check(
            ConvShape { kernel: [7, 7], stride: [2, 2], pads: [3; 4], channels: 3, ..shape },
            3,
            2,
            1,
            Activation::Relu,
        );
    }
}
