//! RNN, GRU and LSTM over a sequence: the products with the inputs of all steps at once, then a step after the other.

use std::ops::Range;

use wattle_graph::DType;
use wattle_graph::ops::{self, Cell, Direction};
use wattle_kernels::elementwise::Unary;
use wattle_kernels::gemm::{Epilogue, gemm_packed};
use wattle_kernels::pack::{Packed, PackedShape};
use wattle_kernels::{Activation, Isa, recurrent};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::packing::{PackedOperand, Weights};

/// The extents of one application; sequences lie beside each other in every step.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub cell: Cell,
    pub steps: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
    pub directions: usize,
    reverse: bool,
}

impl Sizes {
    /// The extents, if the fast kernels compute what the operator says.
    pub fn of(site: &Site<'_>, op: &ops::Recurrent) -> Option<Sizes> {
        let plain = ops::Recurrent::new(op.cell, op.direction, op.hidden);
        let known_cell = match op.cell {
            Cell::Rnn => true,
            Cell::Gru { linear_before_reset } => linear_before_reset,
            Cell::Lstm { input_forget } => !input_forget,
        };
        let usual = op.activations == plain.activations && op.clip.is_none() && known_cell;
        let types = site.inputs.iter().enumerate().all(|(index, operand)| {
            let expected = if index == 4 { DType::I32 } else { DType::F32 };
            operand.as_ref().is_none_or(|o| o.dtype == expected)
        });
        let [a, b, input] = site.input(0).extents[..] else { return None };
        let (steps, batch) = if op.batch_first { (b, a) } else { (a, b) };
        // With one sequence the two orders of axes are one order in memory.
        let order = !op.batch_first || batch == 1;
        let fits = usual && types && order && site.optional(7).is_none() && a * b * input * op.hidden > 0;
        fits.then_some(Sizes {
            cell: op.cell,
            steps,
            batch,
            input,
            hidden: op.hidden,
            directions: op.directions(),
            reverse: op.direction == Direction::Reverse,
        })
    }

    /// Pre-activations of one sequence in one step.
    pub fn gates(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Rows of x: every sequence in every step.
    pub fn rows(&self) -> usize {
        self.steps * self.batch
    }

    /// Elements of the state of one direction.
    pub fn state(&self) -> usize {
        self.batch * self.hidden
    }

    /// The states of one direction among those of all.
    pub fn states(&self, direction: usize) -> Range<usize> {
        direction * self.state()..(direction + 1) * self.state()
    }

    /// The states of one direction after one step, in y.
    pub fn y(&self, step: usize, direction: usize) -> Range<usize> {
        let start = (step * self.directions + direction) * self.state();
        start..start + self.state()
    }

    /// The steps as a direction takes them.
    pub fn order(
        &self,
        direction: usize,
    ) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + use<> {
        let (steps, back) = (self.steps, self.reverse || direction == 1);
        (0..steps).map(move |i| if back { steps - 1 - i } else { i })
    }

    /// The biases of W and of R of one direction.
    pub fn biases<'a>(&self, bias: Option<&'a [f32]>, direction: usize) -> Option<(&'a [f32], &'a [f32])> {
        let n = self.gates();
        bias.map(|b| b[direction * 2 * n..][..2 * n].split_at(n))
    }

    /// The lengths of the sequences, each checked against the steps.
    pub fn lengths<'a>(&self, io: &Io<'a>) -> Result<Option<&'a [i32]>, EngineError> {
        let lengths = io.optional::<i32>(4)?;
        let bad = |n: i32| usize::try_from(n).map_or(true, |n| n > self.steps);
        match lengths.into_iter().flatten().find(|&&n| bad(n)) {
            None => Ok(lengths),
            Some(n) => Err(EngineError::Node {
                node: String::new(),
                op: String::new(),
                reason: format!("a sequence has the length {n}; expected 0 to {}", self.steps),
            }),
        }
    }
}

/// The sequences that have ended before `step`.
pub(super) fn ended(lengths: Option<&[i32]>, step: usize) -> impl Iterator<Item = usize> + '_ {
    let lengths = lengths.unwrap_or(&[]).iter().enumerate();
    lengths.filter(move |&(_, &n)| step >= n.max(0) as usize).map(|(sequence, _)| sequence)
}

struct Recurrent {
    sizes: Sizes,
    w: PackedOperand,
    r: PackedOperand,
    isa: Isa,
}

pub(super) fn bind(site: &Site<'_>, op: &ops::Recurrent) -> Option<Bound> {
    let sizes = Sizes::of(site, op)?;
    let matrices =
        |k: usize| Weights::Matrices { count: sizes.directions, k, n: sizes.gates(), transposed: true };
    let w = PackedOperand::new(site, 1, matrices(sizes.input));
    let r = PackedOperand::new(site, 2, matrices(sizes.hidden));
    let asks = [w.ask(), r.ask()];
    let kernel = Recurrent { sizes, w, r, isa: site.cpu.isa };
    let scratch = kernel.w.scratch() + kernel.r.scratch() + kernel.parts().iter().sum::<usize>();
    Some(asks.into_iter().fold(Bound::row_major(site, kernel).scratch(scratch), Bound::asks))
}

impl Recurrent {
    /// Scratch beside W and R packed: both biases as one, all pre-activations, the products with R, the next cell.
    fn parts(&self) -> [usize; 4] {
        let s = &self.sizes;
        let from_hidden = if matches!(s.cell, Cell::Gru { .. }) { s.batch * s.gates() } else { 0 };
        let cell = if s.cell.has_cell() { s.state() } else { 0 };
        [s.gates(), s.rows() * s.gates(), from_hidden, cell]
    }

    /// The packed matrix of one direction, whose rows have `k` elements.
    fn matrix<'a>(&self, all: &'a [f32], k: usize, direction: usize) -> Packed<'a> {
        let shape = PackedShape::new(self.isa, 1, k, self.sizes.gates());
        Packed::new(shape, &all[direction * shape.len()..])
    }
}

/// Cuts `scratch` into pieces of these lengths.
pub(super) fn cut<const N: usize>(mut scratch: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|len| {
        let (piece, rest) = std::mem::take(&mut scratch).split_at_mut(len);
        scratch = rest;
        piece
    })
}

/// Copies the part of `from` for one direction, or zeros where there is none.
pub(super) fn start(to: &mut [f32], from: Option<&[f32]>, part: Range<usize>) {
    match from {
        Some(from) => to.copy_from_slice(&from[part]),
        None => to.fill(0.0),
    }
}

impl Kernel for Recurrent {
    fn name(&self) -> String {
        let cell = match self.sizes.cell {
            Cell::Rnn => "rnn",
            Cell::Gru { .. } => "gru",
            Cell::Lstm { .. } => "lstm",
        };
        format!("{cell}-f32-{}", self.isa.name())
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (s, cpu) = (self.sizes, io.cpu);
        let x = io.input::<f32>(0)?;
        let bias = io.optional::<f32>(3)?;
        let (lengths, first, first_cell) = (s.lengths(io)?, io.optional::<f32>(5)?, io.optional::<f32>(6)?);
        let (y, last) = (io.output::<f32>(0)?, io.output::<f32>(1)?);
        let last_cell = if s.cell.has_cell() { io.output::<f32>(2)? } else { &mut [] };
        let (all_w, scratch) = self.w.read(io, io.scratch()?)?;
        let (all_r, scratch) = self.r.read(io, scratch)?;
        let [bias_sum, pre, from_hidden, next_cell] = cut(scratch, self.parts());
        for direction in 0..s.directions {
            let w = self.matrix(all_w, s.input, direction);
            let r = self.matrix(all_r, s.hidden, direction);
            let biases = s.biases(bias, direction);
            let with_x = biases.map(|(of_w, of_r)| {
                let apart = matches!(s.cell, Cell::Gru { .. });
                for ((sum, a), b) in bias_sum.iter_mut().zip(of_w).zip(of_r) {
                    *sum = if apart { *a } else { a + b };
                }
                &*bias_sum
            });
            gemm_packed(cpu, s.rows(), x, w, Epilogue { bias: with_x, ..Default::default() }, pre);
            let state = &mut last[s.states(direction)];
            start(state, first, s.states(direction));
            let cell = if s.cell.has_cell() { &mut last_cell[s.states(direction)] } else { &mut [] };
            start(cell, first_cell, s.states(direction).start..s.states(direction).start + cell.len());
            let more = Epilogue { accumulate: true, ..Default::default() };
            for step in s.order(direction) {
                let gates = &mut pre[step * s.batch * s.gates()..][..s.batch * s.gates()];
                let h = &mut y[s.y(step, direction)];
                match s.cell {
                    Cell::Rnn => {
                        h.copy_from_slice(gates);
                        let activation = Activation::Unary(Unary::Tanh);
                        gemm_packed(cpu, s.batch, state, r, Epilogue { activation, ..more }, h);
                    }
                    Cell::Gru { .. } => {
                        let bias = biases.map(|(_, of_r)| of_r);
                        let product = Epilogue { bias, ..Default::default() };
                        gemm_packed(cpu, s.batch, state, r, product, from_hidden);
                        recurrent::gru_step(cpu, s.hidden, gates, from_hidden, state, h);
                    }
                    Cell::Lstm { .. } => {
                        gemm_packed(cpu, s.batch, state, r, more, gates);
                        recurrent::lstm_step(cpu, s.hidden, gates, cell, next_cell, h);
                    }
                }
                for sequence in ended(lengths, step) {
                    let row = sequence * s.hidden..(sequence + 1) * s.hidden;
                    h[row.clone()].copy_from_slice(&state[row.clone()]);
                    if s.cell.has_cell() {
                        next_cell[row.clone()].copy_from_slice(&cell[row]);
                    }
                }
                state.copy_from_slice(h);
                cell.copy_from_slice(next_cell);
                for sequence in ended(lengths, step) {
                    h[sequence * s.hidden..][..s.hidden].fill(0.0);
                }
            }
        }
        Ok(())
    }
}
