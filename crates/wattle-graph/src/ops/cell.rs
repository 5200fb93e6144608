//! One step, forward and back, of the cells that `Recurrent` runs: RNN, GRU and LSTM.

use super::{Cell, GateActivation};

/// What one direction of a recurrence computes with, row-major, in f64.
pub(super) struct Weights<'a> {
    /// `[gates * hidden, input]`.
    pub w: &'a [f64],
    /// `[gates * hidden, hidden]`.
    pub r: &'a [f64],
    /// `[2 * gates * hidden]`: added to the products with W, then to those with R.
    pub bias: Option<&'a [f64]>,
    /// `[3 * hidden]`: of the input, output and forget gate (LSTM only).
    pub peephole: Option<&'a [f64]>,
    /// Extent of the input.
    pub input: usize,
    /// Extent of the state.
    pub hidden: usize,
    /// Of the gates, the candidate, and (LSTM) the cell.
    pub activations: &'a [GateActivation],
    /// Bound on what activations see.
    pub clip: f64,
}

/// All that one step computes.
pub(super) struct Step {
    /// What the activations of the gates see, before clipping.
    pre: Vec<f64>,
    /// The gates.
    gates: Vec<f64>,
    /// GRU: what the candidate's rows of R are multiplied by, or (`linear_before_reset`) their product.
    reset: Vec<f64>,
    /// LSTM: the activation of the new cell.
    cell_out: Vec<f64>,
    /// LSTM: the new cell.
    pub cell: Vec<f64>,
    /// The new state.
    pub state: Vec<f64>,
}

/// Gradients of the weights of one direction, summed over steps.
pub(super) struct WeightGradients {
    pub w: Vec<f64>,
    pub r: Vec<f64>,
    pub bias: Vec<f64>,
    pub peephole: Vec<f64>,
}

/// Gradients of what one step reads.
pub(super) struct StepGradient {
    pub x: Vec<f64>,
    pub state: Vec<f64>,
    pub cell: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Weights<'_> {
    fn clipped(&self, x: f64) -> f64 {
        x.clamp(-self.clip, self.clip)
    }

    fn activate(&self, which: usize, x: f64) -> f64 {
        self.activations[which].apply(self.clipped(x))
    }

    /// Slope of a gate's activation where it saw `x`.
    fn slope(&self, which: usize, x: f64) -> f64 {
        if x.abs() > self.clip { 0.0 } else { self.activations[which].slope(x) }
    }

    fn peep(&self, gate: usize, unit: usize) -> f64 {
        self.peephole.map_or(0.0, |p| p[gate * self.hidden + unit])
    }

    /// Row `row` of `R v`, with the bias that belongs to R.
    fn recurrent(&self, row: usize, v: &[f64]) -> f64 {
        let bias = self.bias.map_or(0.0, |b| b[b.len() / 2 + row]);
        dot(&self.r[row * self.hidden..][..self.hidden], v) + bias
    }

    /// One step from the state `h` (and cell `c`) on input `x`.
    pub fn forward(&self, cell: Cell, x: &[f64], h: &[f64], c: &[f64]) -> Step {
        let (n, count) = (self.hidden, cell.gates());
        let mut pre: Vec<f64> = (0..count * n)
            .map(|row| dot(&self.w[row * self.input..][..self.input], x) + self.bias.map_or(0.0, |b| b[row]))
            .collect();
        let mut gates = vec![0.0; count * n];
        let mut step =
            Step { pre: vec![], gates: vec![], reset: vec![], cell_out: vec![], cell: vec![], state: vec![] };
        match cell {
            Cell::Rnn => {
                for j in 0..n {
                    pre[j] += self.recurrent(j, h);
                    gates[j] = self.activate(0, pre[j]);
                }
                step.state = gates.clone();
            }
            Cell::Gru { linear_before_reset } => {
                for j in 0..2 * n {
                    pre[j] += self.recurrent(j, h);
                    gates[j] = self.activate(0, pre[j]);
                }
                step.reset = if linear_before_reset {
                    (0..n).map(|j| self.recurrent(2 * n + j, h)).collect()
                } else {
                    (0..n).map(|j| gates[n + j] * h[j]).collect()
                };
                for j in 0..n {
                    let part = if linear_before_reset {
                        gates[n + j] * step.reset[j]
                    } else {
                        self.recurrent(2 * n + j, &step.reset)
                    };
                    pre[2 * n + j] += part;
                    gates[2 * n + j] = self.activate(1, pre[2 * n + j]);
                }
                step.state = (0..n).map(|j| (1.0 - gates[j]) * gates[2 * n + j] + gates[j] * h[j]).collect();
            }
            Cell::Lstm { input_forget } => {
                pre.iter_mut().enumerate().for_each(|(row, p)| *p += self.recurrent(row, h));
                for j in 0..n {
                    pre[j] += self.peep(0, j) * c[j];
                    pre[2 * n + j] += self.peep(2, j) * c[j];
                    let input = self.activate(0, pre[j]);
                    let forget = if input_forget { 1.0 - input } else { self.activate(0, pre[2 * n + j]) };
                    let candidate = self.activate(1, pre[3 * n + j]);
                    let new_cell = forget * c[j] + input * candidate;
                    pre[n + j] += self.peep(1, j) * new_cell;
                    let output = self.activate(0, pre[n + j]);
                    let cell_out = self.activations[2].apply(new_cell);
                    for (gate, value) in [input, output, forget, candidate].into_iter().enumerate() {
                        gates[gate * n + j] = value;
                    }
                    step.cell.push(new_cell);
                    step.cell_out.push(cell_out);
                    step.state.push(output * cell_out);
                }
            }
        }
        Step { pre, gates, ..step }
    }

    /// Gradients of a step's inputs from those of its new state and cell; adds those of the weights to `sums`.
    #[allow(clippy::too_many_arguments, reason = "the operands of a step, its results, and their gradients")]
    pub fn backward(
        &self,
        cell: Cell,
        x: &[f64],
        h: &[f64],
        c: &[f64],
        step: &Step,
        d_state: &[f64],
        d_cell: &[f64],
        sums: &mut WeightGradients,
    ) -> StepGradient {
        let n = self.hidden;
        let (pre, gates) = (&step.pre, &step.gates);
        // Gradients of the products with W and with R; they differ only where the reset gate lies between.
        let mut d_w = vec![0.0; cell.gates() * n];
        let mut d_r = vec![0.0; cell.gates() * n];
        let mut before = StepGradient { x: vec![0.0; self.input], state: vec![0.0; n], cell: vec![0.0; n] };
        let mut candidate_reads = h;
        match cell {
            Cell::Rnn => {
                for j in 0..n {
                    d_w[j] = d_state[j] * self.slope(0, pre[j]);
                    d_r[j] = d_w[j];
                }
            }
            Cell::Gru { linear_before_reset } => {
                for j in 0..n {
                    let (update, candidate) = (gates[j], gates[2 * n + j]);
                    before.state[j] += d_state[j] * update;
                    d_w[j] = d_state[j] * (h[j] - candidate) * self.slope(0, pre[j]);
                    d_w[2 * n + j] = d_state[j] * (1.0 - update) * self.slope(1, pre[2 * n + j]);
                }
                let mut d_reset = vec![0.0; n];
                if linear_before_reset {
                    for j in 0..n {
                        d_reset[j] = d_w[2 * n + j] * step.reset[j];
                        d_r[2 * n + j] = d_w[2 * n + j] * gates[n + j];
                    }
                } else {
                    candidate_reads = &step.reset;
                    d_r[2 * n..].copy_from_slice(&d_w[2 * n..]);
                    for j in 0..n {
                        let through: f64 = (0..n).map(|k| d_r[2 * n + k] * self.r[(2 * n + k) * n + j]).sum();
                        d_reset[j] = through * h[j];
                        before.state[j] += through * gates[n + j];
                    }
                }
                for j in 0..n {
                    d_w[n + j] = d_reset[j] * self.slope(0, pre[n + j]);
                }
                d_r[..2 * n].copy_from_slice(&d_w[..2 * n]);
            }
            Cell::Lstm { input_forget } => {
                for j in 0..n {
                    let [input, output, forget, candidate] = [0, 1, 2, 3].map(|gate| gates[gate * n + j]);
                    let d_output = d_state[j] * step.cell_out[j] * self.slope(0, pre[n + j]);
                    let d_new = d_cell[j]
                        + d_state[j] * output * self.activations[2].slope(step.cell[j])
                        + d_output * self.peep(1, j);
                    let coupled = if input_forget { c[j] } else { 0.0 };
                    let d_input = d_new * (candidate - coupled) * self.slope(0, pre[j]);
                    let d_forget =
                        if input_forget { 0.0 } else { d_new * c[j] * self.slope(0, pre[2 * n + j]) };
                    let d_candidate = d_new * input * self.slope(1, pre[3 * n + j]);
                    before.cell[j] = d_new * forget + d_input * self.peep(0, j) + d_forget * self.peep(2, j);
                    for (gate, d) in [d_input, d_output, d_forget, d_candidate].into_iter().enumerate() {
                        d_w[gate * n + j] = d;
                    }
                    for (gate, d) in
                        [d_input * c[j], d_output * step.cell[j], d_forget * c[j]].into_iter().enumerate()
                    {
                        sums.peephole[gate * n + j] += d;
                    }
                }
                d_r.copy_from_slice(&d_w);
            }
        }
        let resets_operand = matches!(cell, Cell::Gru { linear_before_reset: false });
        for row in 0..d_w.len() {
            let reads = if row >= 2 * n { candidate_reads } else { h };
            for (k, &xk) in x.iter().enumerate() {
                sums.w[row * self.input + k] += d_w[row] * xk;
                before.x[k] += d_w[row] * self.w[row * self.input + k];
            }
            for (k, &hk) in reads.iter().enumerate() {
                sums.r[row * n + k] += d_r[row] * hk;
                if !(resets_operand && row >= 2 * n) {
                    before.state[k] += d_r[row] * self.r[row * n + k];
                }
            }
            sums.bias[row] += d_w[row];
            sums.bias[d_w.len() + row] += d_r[row];
        }
        before
    }
}
