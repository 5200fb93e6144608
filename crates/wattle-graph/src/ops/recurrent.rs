//! Recurrent: RNN, GRU and LSTM over a sequence, forward, backward or both.

use super::cell::{Step, Weights};
use super::concrete::result_shapes;
use super::gate::import_activations;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// What runs at every step. Gates are stored in the order of the ONNX specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `h' = f(W x + R h + b)`.
    Rnn,
    /// Gates z, r, h: `h' = (1 - z) * g(W x + R (r * h) + b) + z * h` (Cho et al. 2014, arXiv 1406.1078).
    Gru {
        /// `r * (R h + b)` in place of `R (r * h) + b`.
        linear_before_reset: bool,
    },
    /// Gates i, o, f, c: `c' = f * c + i * g(..)`, `h' = o * h(c')` (Gers et al. 2000, with peepholes).
    Lstm {
        /// The forget gate is one minus the input gate.
        input_forget: bool,
    },
}

impl Cell {
    /// Number of gates, the candidate included.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    /// Activations of one direction, by default.
    fn activations(self) -> &'static [GateFunction] {
        use GateFunction::{Sigmoid, Tanh};
        match self {
            Cell::Rnn => &[Tanh],
            Cell::Gru { .. } => &[Sigmoid, Tanh],
            Cell::Lstm { .. } => &[Sigmoid, Tanh, Tanh],
        }
    }

    /// Whether there is a cell beside the state.
    pub fn has_cell(self) -> bool {
        matches!(self, Cell::Lstm { .. })
    }
}

/// In which order the steps of a sequence are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Direction {
    Forward,
    Reverse,
    Bidirectional,
}

/// `Recurrent(x, w, r, bias?, lengths?, state?, cell?, peephole?) -> (y, last state, last cell)`.
///
/// With `S` steps, `N` sequences, `I` inputs, `H` units, `D` directions and `G` gates: x `[S, N, I]`,
/// w `[D, GH, I]`, r `[D, GH, H]`, bias `[D, 2GH]`, lengths `[N]` i32, state and cell `[D, N, H]`,
/// peephole `[D, 3H]`; y `[S, D, N, H]`. RNN and GRU have neither cell nor peephole. Beyond the length of its
/// sequence y is zero; an empty sequence leaves the state as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// What runs at every step.
    pub cell: Cell,
    /// In which order.
    pub direction: Direction,
    /// Number of units, H.
    pub hidden: usize,
    /// Those of the gates, the candidate and (LSTM) the cell; for one direction after the other.
    pub activations: Vec<GateActivation>,
    /// Bound on what the activations of gates see.
    pub clip: Option<f32>,
    /// Sequences come first: x `[N, S, I]`, y `[N, S, D, H]`, states `[N, D, H]` (ONNX `layout` 1).
    pub batch_first: bool,
}

/// The extents of one application.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
    pub directions: usize,
    batch_first: bool,
}

impl Sizes {
    /// Where the row of x for one step of one sequence starts.
    pub fn x(&self, step: usize, sequence: usize) -> usize {
        let row = if self.batch_first { sequence * self.steps + step } else { step * self.batch + sequence };
        row * self.input
    }

    /// Where the row of y starts.
    pub fn y(&self, step: usize, direction: usize, sequence: usize) -> usize {
        let row = if self.batch_first {
            (sequence * self.steps + step) * self.directions + direction
        } else {
            (step * self.directions + direction) * self.batch + sequence
        };
        row * self.hidden
    }

    /// Where the row of a state starts.
    pub fn state(&self, direction: usize, sequence: usize) -> usize {
        let row = if self.batch_first {
            sequence * self.directions + direction
        } else {
            direction * self.batch + sequence
        };
        row * self.hidden
    }
}

/// The operands as f64, for one evaluation.
pub(super) struct Numbers<'a> {
    pub sizes: Sizes,
    pub x: std::borrow::Cow<'a, [f64]>,
    w: std::borrow::Cow<'a, [f64]>,
    r: std::borrow::Cow<'a, [f64]>,
    bias: Option<std::borrow::Cow<'a, [f64]>>,
    lengths: Option<Vec<usize>>,
    state: Option<std::borrow::Cow<'a, [f64]>>,
    cell: Option<std::borrow::Cow<'a, [f64]>>,
    peephole: Option<std::borrow::Cow<'a, [f64]>>,
}

impl<'a> Numbers<'a> {
    pub fn new(op: &Recurrent, inputs: Tensors<'a>) -> Result<Numbers<'a>, OpError> {
        let x = inputs.get(0)?;
        let [a, b, input] = x.shape()[..] else {
            return Err(OpError::mismatch("x", format!("{:?}", x.shape()), "three axes"));
        };
        let (steps, batch) = if op.batch_first { (b, a) } else { (a, b) };
        let (hidden, directions, batch_first) = (op.hidden, op.directions(), op.batch_first);
        let sizes = Sizes { steps, batch, input, hidden, directions, batch_first };
        let lengths = inputs.optional(4).map(|t| t.to_i64().into_owned());
        if let Some(bad) = lengths.iter().flatten().find(|&&n| n < 0 || n as usize > steps) {
            return Err(OpError::mismatch("sequence length", bad, format!("0 to {steps}")));
        }
        let optional = |index| inputs.optional(index).map(|t: &Tensor| t.to_f64());
        Ok(Numbers {
            sizes,
            x: x.to_f64(),
            w: inputs.get(1)?.to_f64(),
            r: inputs.get(2)?.to_f64(),
            bias: optional(3),
            lengths: lengths.map(|list| list.into_iter().map(|n| n as usize).collect()),
            state: optional(5),
            cell: optional(6),
            peephole: optional(7),
        })
    }

    /// The weights of one direction.
    pub fn weights<'b>(&'b self, op: &'b Recurrent, direction: usize) -> Weights<'b> {
        let (input, hidden, rows) = (self.sizes.input, op.hidden, op.cell.gates() * op.hidden);
        let part = |list: &'b [f64], len: usize| &list[direction * len..][..len];
        let count = op.cell.activations().len();
        Weights {
            w: part(&self.w, rows * input),
            r: part(&self.r, rows * hidden),
            bias: self.bias.as_deref().map(|b| part(b, 2 * rows)),
            peephole: self.peephole.as_deref().map(|p| part(p, 3 * hidden)),
            input,
            hidden,
            activations: &op.activations[direction * count..][..count],
            clip: op.clip.map_or(f64::INFINITY, f64::from),
        }
    }

    /// State and cell before the first step of a sequence.
    pub fn initial(&self, direction: usize, sequence: usize) -> (Vec<f64>, Vec<f64>) {
        let at = self.sizes.state(direction, sequence);
        let row = |list: &Option<std::borrow::Cow<'_, [f64]>>| match list {
            Some(list) => list[at..][..self.sizes.hidden].to_vec(),
            None => vec![0.0; self.sizes.hidden],
        };
        (row(&self.state), row(&self.cell))
    }

    /// The steps of one sequence in the order they are taken.
    pub fn order(&self, op: &Recurrent, direction: usize, sequence: usize) -> Vec<usize> {
        let length = self.lengths.as_ref().map_or(self.sizes.steps, |l| l[sequence]);
        if op.direction == Direction::Reverse || direction == 1 {
            (0..length).rev().collect()
        } else {
            (0..length).collect()
        }
    }

    /// The input of one step of one sequence.
    pub fn x_row(&self, step: usize, sequence: usize) -> &[f64] {
        &self.x[self.sizes.x(step, sequence)..][..self.sizes.input]
    }
}

impl Recurrent {
    /// A cell with its default activations.
    pub fn new(cell: Cell, direction: Direction, hidden: usize) -> Recurrent {
        let mut op =
            Recurrent { cell, direction, hidden, activations: vec![], clip: None, batch_first: false };
        op.activations = op.default_activations();
        op
    }

    /// 1, or 2 for both directions.
    pub fn directions(&self) -> usize {
        if self.direction == Direction::Bidirectional { 2 } else { 1 }
    }

    fn default_activations(&self) -> Vec<GateActivation> {
        let one: Vec<_> = self.cell.activations().iter().map(|&f| GateActivation::of(f)).collect();
        one.repeat(self.directions())
    }

    /// Types of y, the last state and the last cell; checks all operands.
    fn results(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        if self.activations.len() != self.directions() * self.cell.activations().len() {
            let wanted = self.directions() * self.cell.activations().len();
            return Err(OpError::mismatch("activations", self.activations.len(), wanted));
        }
        inputs.expect_rank(0, "x", 3)?;
        let unknown = || Dim::symbol("?");
        let (steps, batch, input) = match inputs.dims(0, "x")? {
            Some([batch, steps, input]) if self.batch_first => (steps.clone(), batch.clone(), input.clone()),
            Some([steps, batch, input]) => (steps.clone(), batch.clone(), input.clone()),
            _ => (unknown(), unknown(), unknown()),
        };
        let rows = self.hidden.saturating_mul(self.cell.gates());
        let directions = Dim::Known(self.directions());
        let hidden = Dim::Known(self.hidden);
        let state = |batch: Dim| {
            if self.batch_first {
                vec![batch, directions.clone(), hidden.clone()]
            } else {
                vec![directions.clone(), batch, hidden.clone()]
            }
        };
        let d = || directions.clone();
        let mut wanted = vec![
            (1, "w", vec![d(), rows.into(), input]),
            (2, "r", vec![d(), rows.into(), hidden.clone()]),
            (3, "bias", vec![d(), rows.saturating_mul(2).into()]),
            (4, "sequence lengths", vec![batch.clone()]),
            (5, "initial state", state(batch.clone())),
        ];
        if self.cell.has_cell() {
            wanted.push((6, "initial cell", state(batch.clone())));
            wanted.push((7, "peephole", vec![d(), self.hidden.saturating_mul(3).into()]));
        }
        if inputs.len() > wanted.len() + 1 {
            return Err(OpError::mismatch("operands", inputs.len(), format!("at most {}", wanted.len() + 1)));
        }
        for (index, name, dims) in wanted {
            if inputs.optional(index).is_none() && index > 2 {
                continue;
            }
            inputs.expect_dtype(index, name, &[if index == 4 { DType::I32 } else { dtype }])?;
            inputs.expect_rank(index, name, dims.len())?;
            let found = inputs.dims(index, name)?.unwrap_or(&[]);
            let clash = |(a, b): (&Dim, &Dim)| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
            if found.iter().zip(&dims).any(clash) {
                let expected = Shape::Ranked(dims);
                return Err(OpError::mismatch(name, Shape::Ranked(found.to_vec()), expected));
            }
        }
        if inputs.dims(0, "x")?.is_none() {
            return Ok(vec![
                TensorType::new(dtype, Shape::Unknown);
                if self.cell.has_cell() { 3 } else { 2 }
            ]);
        }
        let y = if self.batch_first {
            vec![batch.clone(), steps, directions.clone(), hidden.clone()]
        } else {
            vec![steps, directions.clone(), batch.clone(), hidden.clone()]
        };
        let mut types = vec![TensorType::new(dtype, y), TensorType::new(dtype, state(batch))];
        if self.cell.has_cell() {
            types.push(types[1].clone());
        }
        Ok(types)
    }

    /// Multiply-accumulates by W and by R.
    pub(super) fn products(&self, x: &[usize]) -> (u64, u64) {
        let rows = (self.cell.gates() * self.directions()) as u64 * self.hidden as u64;
        let input = x.last().map_or(0, |&n| n as u64);
        let applications = x.iter().rev().skip(1).map(|&n| n as u64).product::<u64>();
        let of = |columns: u64| applications.saturating_mul(rows).saturating_mul(columns);
        (of(input), of(self.hidden as u64))
    }
}

impl Operator for Recurrent {
    fn name(&self) -> &'static str {
        match self.cell {
            Cell::Rnn => "RNN",
            Cell::Gru { .. } => "GRU",
            Cell::Lstm { .. } => "LSTM",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("hidden_size", Attribute::Int(self.hidden as i64))];
        match self.direction {
            Direction::Forward => {}
            Direction::Reverse => attributes.push(("direction", Attribute::Text("reverse".into()))),
            Direction::Bidirectional => {
                attributes.push(("direction", Attribute::Text("bidirectional".into())))
            }
        }
        if self.activations != self.default_activations() {
            let names = self.activations.iter().map(|a| a.function.name().to_string()).collect();
            attributes.push(("activations", Attribute::Texts(names)));
            let given =
                |pick: fn(&GateActivation) -> Option<f32>| self.activations.iter().filter_map(pick).collect();
            let alphas: Vec<f32> = given(|a| a.function.defaults().0.map(|_| a.alpha));
            let betas: Vec<f32> = given(|a| a.function.defaults().1.map(|_| a.beta));
            for (name, list) in [("activation_alpha", alphas), ("activation_beta", betas)] {
                if !list.is_empty() {
                    attributes.push((name, Attribute::Floats(list)));
                }
            }
        }
        if let Some(clip) = self.clip {
            attributes.push(("clip", Attribute::Float(clip)));
        }
        match self.cell {
            Cell::Gru { linear_before_reset: true } => {
                attributes.push(("linear_before_reset", Attribute::Int(1)));
            }
            Cell::Lstm { input_forget: true } => attributes.push(("input_forget", Attribute::Int(1))),
            _ => {}
        }
        if self.batch_first {
            attributes.push(("layout", Attribute::Int(1)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        self.results(inputs)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shapes = result_shapes(self, inputs)?;
        let numbers = Numbers::new(self, inputs)?;
        let sizes = numbers.sizes;
        let mut results: Vec<Vec<f64>> = shapes.iter().map(|s| vec![0.0; s.iter().product()]).collect();
        for direction in 0..sizes.directions {
            let weights = numbers.weights(self, direction);
            for sequence in 0..sizes.batch {
                let (mut state, mut cell) = numbers.initial(direction, sequence);
                for step in numbers.order(self, direction, sequence) {
                    let done: Step = weights.forward(self.cell, numbers.x_row(step, sequence), &state, &cell);
                    (state, cell) = (done.state, done.cell);
                    results[0][sizes.y(step, direction, sequence)..][..self.hidden].copy_from_slice(&state);
                }
                let at = sizes.state(direction, sequence);
                results[1][at..][..self.hidden].copy_from_slice(&state);
                if self.cell.has_cell() {
                    results[2][at..][..self.hidden].copy_from_slice(&cell);
                }
            }
        }
        let dtype = inputs.get(0)?.dtype();
        Ok(shapes.into_iter().zip(results).map(|(s, v)| Tensor::from_f64(dtype, s, v)).collect())
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut operands: Vec<Option<ValueId>> = (0..8).map(|i| g.optional_input(i)).collect();
        operands.push(Some(g.output(0)));
        operands.extend((0..2).map(|i| g.output_gradient(i)));
        operands.push(if self.cell.has_cell() { g.output_gradient(2) } else { None });
        let found = g.apply_all(RecurrentGradient { forward: self.clone() }, &operands)?;
        // dx, dw, dr, dbias, dstate, dcell, dpeephole; lengths have none.
        let source = [Some(0), Some(1), Some(2), Some(3), None, Some(4), Some(5), Some(6)];
        let of = |i: usize| source[i].and_then(|s: usize| found.get(s).copied()).filter(|_| g.wants(i));
        Ok(Gradient::Inputs((0..g.input_count()).map(of).collect()))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let (by_w, by_r) = self.products(shapes.input(0));
        let effective = by_w as f64 * shapes.density(1) + by_r as f64 * shapes.density(2);
        // Per unit and step: an activation for each gate, and about as many products and sums again.
        let element_ops = shapes.output_len(0).saturating_mul(2 * self.cell.gates() as u64);
        Work {
            element_ops,
            effective_macs: effective.round() as u64,
            ..Work::macs(MacKind::Recurrent, by_w + by_r, 1.0)
        }
    }
}

impl Described for Recurrent {
    const ONNX: &'static [&'static str] = &["GRU", "LSTM", "RNN"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let flag = |node: &mut ForeignNode<'_>, name: &str| match node.int(name, 0)? {
            n @ (0 | 1) => Ok(n == 1),
            other => Err(node.refuse(format!("{name} = {other}; expected 0 or 1"))),
        };
        let cell = match node.op_type() {
            "GRU" => Cell::Gru { linear_before_reset: flag(node, "linear_before_reset")? },
            "LSTM" => Cell::Lstm { input_forget: flag(node, "input_forget")? },
            _ => Cell::Rnn,
        };
        let direction = match node.text("direction", "forward")?.as_str() {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            "bidirectional" => Direction::Bidirectional,
            other => return Err(node.refuse(format!("direction = `{other}`"))),
        };
        let r = node.input(2)?;
        let from_r = node.graph().value(r).ty.shape.dims().and_then(|d| d.last()?.known());
        let hidden = node.int("hidden_size", from_r.map_or(0, |n| n as i64))?;
        if !(1..=1 << 20).contains(&hidden) {
            return Err(node.refuse(format!("hidden_size = {hidden}; expected 1 to 2^20")));
        }
        let mut op = Recurrent::new(cell, direction, hidden as usize);
        op.activations = import_activations(node, op.activations)?;
        op.clip = match node.float("clip", 0.0)? {
            // Exporters write 0 for "none".
            0.0 => None,
            clip if clip > 0.0 => Some(clip),
            clip => return Err(node.refuse(format!("clip = {clip}; expected a positive number"))),
        };
        op.batch_first = flag(node, "layout")?;
        // Before operator set 7 GRU and RNN could state the output of a sequence; nothing newer has it.
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let lstm = Cell::Lstm { input_forget: false };
        let gru = |linear_before_reset| Cell::Gru { linear_before_reset };
        let mut soft = Recurrent::new(lstm, Direction::Bidirectional, 2);
        use GateFunction::*;
        soft.activations =
            [Softsign, Softplus, ScaledTanh, Sigmoid, Affine, Tanh].map(GateActivation::of).to_vec();
        soft.activations[2].beta = 0.5;
        let mut clipped = Recurrent::new(gru(false), Direction::Forward, 3);
        clipped.clip = Some(0.4);
        clipped.activations = [HardSigmoid, Elu].map(GateActivation::of).to_vec();
        let batch_first =
            Recurrent { batch_first: true, ..Recurrent::new(gru(true), Direction::Bidirectional, 2) };
        let forget = Cell::Lstm { input_forget: true };
        vec![
            example(Recurrent::new(lstm, Direction::Forward, 3), 0).macs(3 * 2 * 12 * (4 + 3)),
            example(Recurrent::new(lstm, Direction::Reverse, 2), 5).macs(3 * 2 * 8 * (4 + 2)),
            example(Recurrent::new(lstm, Direction::Bidirectional, 2), 2).macs(2 * 3 * 2 * 8 * (4 + 2)),
            example(Recurrent::new(forget, Direction::Forward, 2), 5).macs(3 * 2 * 8 * (4 + 2)),
            example(soft, 5).macs(2 * 3 * 2 * 8 * (4 + 2)),
            example(Recurrent::new(gru(false), Direction::Forward, 3), 1).macs(3 * 2 * 9 * (4 + 3)),
            example(Recurrent::new(gru(false), Direction::Bidirectional, 2), 3).macs(2 * 3 * 2 * 6 * (4 + 2)),
            example(Recurrent::new(gru(true), Direction::Reverse, 2), 3).macs(3 * 2 * 6 * (4 + 2)),
            example(batch_first, 3).macs(2 * 3 * 2 * 6 * (4 + 2)),
            example(clipped, 1).macs(3 * 2 * 9 * (4 + 3)),
            example(Recurrent::new(Cell::Rnn, Direction::Forward, 3), 0).macs(3 * 2 * 3 * (4 + 3)),
            example(Recurrent::new(Cell::Rnn, Direction::Bidirectional, 2), 3).macs(2 * 3 * 2 * 2 * (4 + 2)),
        ]
    }
}

/// Three steps of two sequences of four inputs, with the first `optional` of the optional operands.
pub(super) fn example(op: Recurrent, optional: usize) -> Example {
    let (d, h, rows) = (op.directions(), op.hidden, op.cell.gates() * op.hidden);
    let x = if op.batch_first { [2, 3, 4] } else { [3, 2, 4] };
    let state = if op.batch_first { [2, d, h] } else { [d, 2, h] };
    let lengths = Tensor::from_i64(DType::I32, [2], vec![3, 2]);
    let all = [
        Example::noise(&[d, 2 * rows], 4),
        lengths,
        Example::noise(&state, 5),
        Example::noise(&state, 6),
        Example::noise(&[d, 3 * h], 7),
    ];
    let mut inputs =
        vec![Example::noise(&x, 1), Example::noise(&[d, rows, 4], 2), Example::noise(&[d, rows, h], 3)];
    inputs.extend(all.into_iter().take(optional));
    Example::new(op, inputs)
}
