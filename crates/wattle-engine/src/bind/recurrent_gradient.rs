//! Backpropagation through time: all gates again from x and y at once, back step by step, then the products.

use wattle_graph::ops::{self, Cell};
use wattle_kernels::elementwise::{self, Unary};
use wattle_kernels::gemm::{Epilogue, Gemm, gemm, gemm_packed};
use wattle_kernels::pack::{PackedShape, pack_matrix};
use wattle_kernels::reduce::{Reduce, reduce, reduce_scratch_len};
use wattle_kernels::{Activation, Cpu, recurrent};

use super::recurrent::{Sizes, cut, ended, start};
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

/// Where y and the gradients of y, the last state and the last cell stand among the operands.
const Y: usize = 8;

struct RecurrentGradient {
    sizes: Sizes,
    isa: &'static str,
}

pub(super) fn bind(site: &Site<'_>, op: &ops::RecurrentGradient) -> Option<Bound> {
    let kernel = RecurrentGradient { sizes: Sizes::of(site, &op.forward)?, isa: site.cpu.isa.name() };
    let scratch = kernel.parts(site.cpu).iter().sum();
    Some(Bound::row_major(site, kernel).scratch(scratch))
}

impl RecurrentGradient {
    /// Scratch: one packed matrix, one bias, the gates and then their gradients, the states before each step, the
    /// products with R (GRU), the cells around each step (LSTM), new states, the gradients kept for sequences that
    /// have ended, and what the products and sums need.
    fn parts(&self, cpu: &Cpu) -> [usize; 9] {
        let s = &self.sizes;
        let (rows, gates, state) = (s.rows(), s.gates(), s.state());
        let packed = |k, n| PackedShape::new(cpu.isa, 1, k, n).len();
        let gru = if matches!(s.cell, Cell::Gru { .. }) { rows * gates } else { 0 };
        let cells = if s.cell.has_cell() { (s.steps + 1) * state } else { 0 };
        [
            [
                packed(s.input, gates),
                packed(s.hidden, gates),
                packed(gates, s.input),
                packed(gates, s.hidden),
            ]
            .into_iter()
            .fold(0, usize::max),
            gates,
            rows * gates,
            rows * s.hidden,
            gru,
            cells,
            rows * s.hidden,
            2 * state,
            reduce_scratch_len(1, rows, gates),
        ]
    }
}

impl Kernel for RecurrentGradient {
    fn name(&self) -> String {
        format!("recurrent_gradient-f32-{}", self.isa)
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (s, cpu) = (self.sizes, io.cpu);
        let (gates, state, input, hidden) = (s.gates(), s.state(), s.input, s.hidden);
        let (x, w, r) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.input::<f32>(2)?);
        let (bias, lengths) = (io.optional::<f32>(3)?, s.lengths(io)?);
        let (first, first_cell) = (io.optional::<f32>(5)?, io.optional::<f32>(6)?);
        let (y, dy) = (io.input::<f32>(Y)?, io.optional::<f32>(Y + 1)?);
        let (d_last, d_last_cell) = (io.optional::<f32>(Y + 2)?, io.optional::<f32>(Y + 3)?);
        let (dx, dw, dr) = (io.output::<f32>(0)?, io.output::<f32>(1)?, io.output::<f32>(2)?);
        let (d_bias, d_first) = (io.output::<f32>(3)?, io.output::<f32>(4)?);
        let d_first_cell = if s.cell.has_cell() { io.output::<f32>(5)? } else { &mut [] };
        if s.cell.has_cell() {
            // There is no peephole, so it has no gradient.
            io.output::<f32>(6)?.fill(0.0);
        }
        let [packed, bias_sum, pre, before, from_hidden, cells, after, kept, sums] =
            cut(io.scratch()?, self.parts(cpu));
        let is_gru = matches!(s.cell, Cell::Gru { .. });
        for direction in 0..s.directions {
            let w = &w[direction * gates * input..][..gates * input];
            let r = &r[direction * gates * hidden..][..gates * hidden];
            let biases = s.biases(bias, direction);
            let part = s.states(direction);

            // The state that each step started from, where the step stands in x.
            let mut earlier: Option<usize> = None;
            for step in s.order(direction) {
                let to = &mut before[step * state..][..state];
                match earlier {
                    None => start(to, first, part.clone()),
                    Some(earlier) => {
                        to.copy_from_slice(&y[s.y(earlier, direction)]);
                        // Going back, a sequence starts at its last step.
                        for sequence in ended(lengths, earlier) {
                            let at = sequence * hidden;
                            let start_at = part.start + at;
                            start(&mut to[at..at + hidden], first, start_at..start_at + hidden);
                        }
                    }
                }
                earlier = Some(step);
            }

            let with_x = biases.map(|(of_w, of_r)| {
                for ((sum, a), b) in bias_sum.iter_mut().zip(of_w).zip(of_r) {
                    *sum = if is_gru { *a } else { a + b };
                }
                &*bias_sum
            });
            let by_w = pack_matrix(cpu, input, gates, true, w, packed);
            gemm_packed(cpu, s.rows(), x, by_w, Epilogue { bias: with_x, ..Default::default() }, pre);
            let by_r = pack_matrix(cpu, hidden, gates, true, r, packed);
            let more = Epilogue { accumulate: true, ..Default::default() };
            match s.cell {
                Cell::Rnn => {
                    let activation = Activation::Unary(Unary::Tanh);
                    gemm_packed(cpu, s.rows(), before, by_r, Epilogue { activation, ..more }, pre);
                }
                Cell::Gru { .. } => {
                    let bias = biases.map(|(_, of_r)| of_r);
                    let product = Epilogue { bias, ..Default::default() };
                    gemm_packed(cpu, s.rows(), before, by_r, product, from_hidden);
                    recurrent::gru_step(cpu, hidden, pre, from_hidden, before, after);
                }
                Cell::Lstm { .. } => {
                    gemm_packed(cpu, s.rows(), before, by_r, more, pre);
                    start(&mut cells[..state], first_cell, part.clone());
                    for (taken, step) in s.order(direction).enumerate() {
                        let (old, new) = cells[taken * state..][..2 * state].split_at_mut(state);
                        let gates = &mut pre[step * s.batch * gates..][..s.batch * gates];
                        recurrent::lstm_step(cpu, hidden, gates, old, new, &mut after[..state]);
                        for sequence in ended(lengths, step) {
                            let row = sequence * hidden..(sequence + 1) * hidden;
                            new[row.clone()].copy_from_slice(&old[row]);
                        }
                    }
                }
            }

            let dh = &mut d_first[part.clone()];
            start(dh, d_last, part.clone());
            let dc = if s.cell.has_cell() { &mut d_first_cell[part.clone()] } else { &mut [] };
            start(dc, d_last_cell, part.start..part.start + dc.len());
            let (kept, kept_cell) = kept.split_at_mut(state);
            let by_r = pack_matrix(cpu, gates, hidden, false, r, packed);
            for (taken, step) in s.order(direction).enumerate().rev() {
                kept.copy_from_slice(dh);
                kept_cell[..dc.len()].copy_from_slice(dc);
                if let Some(dy) = dy {
                    dh.iter_mut().zip(&dy[s.y(step, direction)]).for_each(|(d, more)| *d += more);
                }
                let block = step * s.batch * gates..(step + 1) * s.batch * gates;
                let d_gates = &mut pre[block.clone()];
                match s.cell {
                    Cell::Rnn => {
                        let slope = &mut after[..state];
                        elementwise::unary_gradient(cpu, Unary::Tanh, d_gates, dh, slope);
                        d_gates.copy_from_slice(slope);
                        dh.fill(0.0);
                    }
                    Cell::Gru { .. } => {
                        let (product, before) =
                            (&mut from_hidden[block.clone()], &before[step * state..][..state]);
                        recurrent::gru_step_gradient(cpu, hidden, d_gates, product, before, dh);
                    }
                    Cell::Lstm { .. } => {
                        let (old, new) = cells[taken * state..][..2 * state].split_at(state);
                        recurrent::lstm_step_gradient(cpu, hidden, d_gates, old, new, dh, dc);
                        dh.fill(0.0);
                    }
                }
                // A sequence that has ended passes its gradients on.
                for sequence in ended(lengths, step) {
                    let row = sequence * hidden..(sequence + 1) * hidden;
                    d_gates[sequence * gates..][..gates].fill(0.0);
                    if is_gru {
                        from_hidden[block.start + sequence * gates..][..gates].fill(0.0);
                    }
                    dh[row.clone()].copy_from_slice(&kept[row.clone()]);
                    if s.cell.has_cell() {
                        dc[row.clone()].copy_from_slice(&kept_cell[row]);
                    }
                }
                let product = if is_gru { &from_hidden[block] } else { &pre[block] };
                gemm_packed(cpu, s.batch, product, by_r, more, dh);
            }

            let of_r = if is_gru { &*from_hidden } else { &*pre };
            let into_x = Epilogue { accumulate: direction > 0, ..Default::default() };
            let by_w = pack_matrix(cpu, gates, input, false, w, packed);
            gemm_packed(cpu, s.rows(), pre, by_w, into_x, dx);
            let sum = |n| Gemm { m: gates, n, k: s.rows(), transpose_a: true, transpose_b: false };
            let dw = &mut dw[direction * gates * input..][..gates * input];
            gemm(cpu, &sum(input), pre, x, Epilogue::default(), dw, &mut []);
            let dr = &mut dr[direction * gates * hidden..][..gates * hidden];
            gemm(cpu, &sum(hidden), of_r, before, Epilogue::default(), dr, &mut []);
            let (of_w, into_r) = d_bias[direction * 2 * gates..][..2 * gates].split_at_mut(gates);
            reduce(cpu, Reduce::Sum, [1, s.rows(), gates], pre, of_w, sums);
            reduce(cpu, Reduce::Sum, [1, s.rows(), gates], of_r, into_r, sums);
        }
        Ok(())
    }
}
