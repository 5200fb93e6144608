//! Random small graphs of the operators that rewrites look for, to compare a graph with what it was rewritten to.
//!
//! A graph is made of patterns, each drawn from a number of its own: leaving numbers out gives a smaller graph of the
//! same kind, and so a failure shrinks to the few nodes that matter.

use std::collections::BTreeMap;

use super::Dice;
use crate::differentiate::differentiate;
use crate::error::GraphError;
use crate::graph::{Graph, Source, ValueId};
use crate::operator::Example;
use crate::ops::*;
use crate::parameter::{Parameter, Parameters, Role};
use crate::shape::Shape;
use crate::tensor::{DType, Tensor};

/// What a random graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Outputs of the network.
    Inference,
    /// A loss and its gradients, batch normalisation by the statistics of the batch.
    Training,
    /// Arithmetic between DequantizeLinear and QuantizeLinear.
    Quantised,
}

/// A graph to be, as the numbers it is drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomGraph {
    /// What it is for.
    pub purpose: Purpose,
    /// Decides the input and which values are returned.
    pub seed: u64,
    /// One number for each pattern.
    pub patterns: Vec<u64>,
}

/// A random graph, its weights, and what to feed it.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The graph; its weights are parameters and constants.
    pub graph: Graph,
    /// The weights that are parameters.
    pub parameters: Parameters,
    /// A tensor for each input.
    pub feeds: BTreeMap<String, Tensor>,
}

impl RandomGraph {
    /// The graph number `seed` of a purpose, of up to six patterns.
    pub fn new(purpose: Purpose, seed: u64) -> RandomGraph {
        let mut dice = Dice(seed ^ ((purpose as u64) << 56));
        let count = if purpose == Purpose::Quantised { 1 } else { 1 + dice.below(6) };
        RandomGraph { purpose, seed: dice.roll(), patterns: (0..count).map(|_| dice.roll()).collect() }
    }

    /// Draws it.
    ///
    /// # Errors
    /// When an operator refuses the gradient of a graph for training; such a graph is of no use.
    pub fn draw(&self) -> Result<Drawn, GraphError> {
        let mut builder = Builder::new(self.seed, self.purpose);
        for &pattern in &self.patterns {
            builder.dice = Dice(pattern);
            let made = match self.purpose {
                Purpose::Quantised => builder.quantised(),
                _ => builder.pattern(),
            };
            builder.open.extend(made);
        }
        builder.dice = Dice(self.seed);
        builder.finish()
    }

    /// The smallest graph of fewer patterns that `fails` as well.
    pub fn shrunk(self, fails: impl Fn(&RandomGraph) -> bool) -> RandomGraph {
        let mut smallest = self;
        loop {
            let without = |index| {
                let mut smaller = smallest.clone();
                smaller.patterns.remove(index);
                smaller
            };
            match (0..smallest.patterns.len()).map(without).find(&fails) {
                Some(smaller) => smallest = smaller,
                None => return smallest,
            }
        }
    }
}

/// Where `found` differs from `expected` by more than `tolerance`, relative to the largest number of a tensor or 1;
/// and by more than `steps`, absolute. What is not finite must be the same.
pub fn difference(expected: &[Tensor], found: &[Tensor], tolerance: f64, steps: f64) -> Option<String> {
    if expected.len() != found.len() {
        return Some(format!("{} results, expected {}", found.len(), expected.len()));
    }
    for (index, (e, f)) in expected.iter().zip(found).enumerate() {
        if e.shape() != f.shape() || e.dtype() != f.dtype() {
            let text = format!("{}{:?}, expected {}{:?}", f.dtype(), f.shape(), e.dtype(), e.shape());
            return Some(format!("result {index} is {text}"));
        }
        let scale = e.to_f64().iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
        for (i, (e, f)) in e.to_f64().iter().zip(f.to_f64().iter()).enumerate() {
            let same = e == f || e.is_nan() && f.is_nan() || (e - f).abs() <= tolerance * scale + steps;
            if !same {
                return Some(format!("result {index}[{i}] is {f}, expected {e}"));
            }
        }
    }
    None
}

struct Builder {
    graph: Graph,
    parameters: Parameters,
    feeds: BTreeMap<String, Tensor>,
    /// Values that patterns may go on from.
    open: Vec<ValueId>,
    dice: Dice,
    training: bool,
}

/// Extents of an input; the first is the batch.
const INPUTS: &[&[usize]] =
    &[&[2, 3, 5, 5], &[1, 4, 4, 3], &[2, 2, 6], &[2, 3, 4, 4], &[3, 4], &[2, 6], &[2, 3, 4]];

impl Builder {
    fn new(seed: u64, purpose: Purpose) -> Builder {
        let mut builder = Builder {
            graph: Graph::new("random"),
            parameters: Parameters::new(),
            feeds: BTreeMap::new(),
            open: vec![],
            dice: Dice(seed),
            training: purpose == Purpose::Training,
        };
        if purpose != Purpose::Quantised {
            let shape = builder.dice.of(INPUTS);
            let x = builder.input(shape);
            builder.open.push(x);
        }
        builder
    }

    fn noise(&mut self, shape: &[usize]) -> Tensor {
        Example::noise(shape, self.dice.roll() as u32)
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = format!("x{}", self.feeds.len());
        let tensor = self.noise(shape);
        self.feeds.insert(name.clone(), tensor);
        self.graph.input(name, DType::F32, Shape::known(shape))
    }

    /// A weight: a parameter or a constant.
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let tensor = self.noise(shape);
        self.holding(tensor, Role::Trainable)
    }

    fn holding(&mut self, tensor: Tensor, role: Role) -> ValueId {
        if self.dice.one_in(2) {
            let constant = self.graph.constant(tensor);
            // Exporters leave arithmetic between constants for whoever reads the file to fold.
            let computed = role == Role::Trainable && self.dice.one_in(4);
            let negated =
                if computed { self.apply(Unary { function: Function::Neg }, &[constant]) } else { None };
            return negated.unwrap_or(constant);
        }
        let name = format!("w{}", self.parameters.iter().count());
        let shape = tensor.shape().to_vec();
        self.parameters.insert(name.clone(), tensor);
        let parameter = Parameter { role, ..Parameter::trainable(name) };
        self.graph.parameter(parameter, DType::F32, &shape)
    }

    fn number(&mut self, value: f32, rank: usize) -> ValueId {
        self.graph.constant(Tensor::f32(vec![1; rank], vec![value]))
    }

    fn extents(&self, id: ValueId) -> Vec<usize> {
        self.graph.extents(id).unwrap_or_default()
    }

    /// A value to go on from, most often the latest.
    fn pick(&mut self, fits: impl Fn(&[usize]) -> bool) -> Option<ValueId> {
        let fitting: Vec<ValueId> = self.open.iter().copied().filter(|&id| fits(&self.extents(id))).collect();
        let last = *fitting.last()?;
        Some(if self.dice.one_in(4) { self.dice.of(&fitting) } else { last })
    }

    fn apply(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Option<ValueId> {
        self.graph.apply(op, operands).ok()
    }

    fn binary(&mut self, function: BinaryFunction, a: ValueId, b: ValueId) -> Option<ValueId> {
        // Commutative operands come in either order.
        let swap = matches!(function, BinaryFunction::Add | BinaryFunction::Mul) && self.dice.one_in(2);
        self.apply(Binary { function }, &if swap { [b, a] } else { [a, b] })
    }

    /// The next pattern; `None` where it does not fit what there is.
    fn pattern(&mut self) -> Option<ValueId> {
        match self.dice.below(20) {
            0 | 1 => self.convolution(),
            2 => self.transposed_convolution(),
            3 | 4 => self.product(),
            5 | 6 => self.with_constant(),
            7 => self.sum(),
            8 | 9 => self.activation(),
            10 => self.limits(),
            11 => self.batch_norm(),
            12 => self.spelled_activation(),
            13 => self.spelled_layer_norm(),
            14 => self.spelled_attention(),
            15 => self.pool(),
            16 | 17 => self.movement(),
            18 => self.again(),
            _ => self.softmax_or_reduce(),
        }
    }

    fn convolution(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| (3..=4).contains(&e.len()))?;
        let extents = self.extents(x);
        let (channels, axes) = (extents[1], extents.len() - 2);
        let groups = if self.dice.one_in(4) { channels } else { 1 };
        let outputs = groups * (1 + self.dice.below(3));
        let kernel = self.dice.of(&[1, 3]);
        let stride = 1 + self.dice.below(2);
        let sliding = Sliding::strided(axes, kernel / 2, stride);
        let w = self.weight(&[&[outputs, channels / groups], &vec![kernel; axes][..]].concat());
        let bias = self.dice.one_in(2).then(|| self.weight(&[outputs]));
        let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
        self.apply(Conv { sliding, groups }, &operands)
    }

    fn transposed_convolution(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| e.len() == 4)?;
        let channels = self.extents(x)[1];
        let outputs = 1 + self.dice.below(3);
        let sliding = Sliding::strided(2, 0, 1 + self.dice.below(2));
        let w = self.weight(&[channels, outputs, 2, 2]);
        let bias = self.dice.one_in(2).then(|| self.weight(&[outputs]));
        let operands: Vec<ValueId> = [x, w].into_iter().chain(bias).collect();
        self.apply(ConvTranspose { sliding, groups: 1, output_padding: vec![0, 0] }, &operands)
    }

    fn product(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| e.len() >= 2)?;
        let extents = self.extents(x);
        let (rank, k) = (extents.len(), extents[extents.len() - 1]);
        let n = 1 + self.dice.below(4);
        let transpose_b = self.dice.one_in(2);
        if rank > 2 || self.dice.one_in(2) {
            let w = self.weight(&[k, n]);
            return self.apply(MatMul::default(), &[x, w]);
        }
        let transpose_a = self.dice.one_in(4);
        let (m, k) = if transpose_a { (k, extents[0]) } else { (extents[0], k) };
        let w = self.weight(&if transpose_b { [n, k] } else { [k, n] });
        let [alpha, beta] = [0; 2].map(|_| if self.dice.one_in(3) { 0.5 } else { 1.0 });
        let shapes: &[&[usize]] = &[&[n], &[n], &[1, n], &[m, n], &[m, 1], &[1], &[]];
        let shape = self.dice.of(shapes).to_vec();
        let c = (!self.dice.one_in(3)).then(|| self.weight(&shape));
        let operands: Vec<ValueId> = [x, w].into_iter().chain(c).collect();
        self.apply(Gemm { alpha, beta, transpose_a, transpose_b }, &operands)
    }

    /// Arithmetic with a number, a vector, one number a channel or a whole tensor; of more axes than the value, too.
    fn with_constant(&mut self) -> Option<ValueId> {
        use BinaryFunction::{Add, Div, Mul, Sub};
        let x = self.pick(|e| !e.is_empty())?;
        let extents = self.extents(x);
        let rank = extents.len();
        let shape = match self.dice.below(7) {
            0 => vec![],
            1 => vec![1; 1 + self.dice.below(rank)],
            2 => vec![1; rank + 1],
            3 | 4 => vec![extents[rank - 1]],
            5 if rank > 2 => [&[extents[1]], &vec![1; rank - 2][..]].concat(),
            _ => extents,
        };
        let c = self.weight(&shape);
        let function = self.dice.of(&[Add, Add, Mul, Mul, Sub, Div]);
        match (function, self.dice.one_in(4)) {
            (Sub, true) => self.apply(Binary { function }, &[c, x]),
            _ => self.binary(function, x, c),
        }
    }

    /// A residual addition, or a product of two values.
    fn sum(&mut self) -> Option<ValueId> {
        let x = self.pick(|_| true)?;
        let extents = self.extents(x);
        let y = self.pick(|e| e == extents)?;
        let function = if self.dice.one_in(5) { BinaryFunction::Mul } else { BinaryFunction::Add };
        self.binary(function, x, y)
    }

    fn activation(&mut self) -> Option<ValueId> {
        use Function::*;
        let functions = [
            Relu,
            Relu,
            LeakyRelu { alpha: 0.1 },
            HardSigmoid { alpha: 0.2, beta: 0.5 },
            HardSwish,
            Sigmoid,
            Silu,
            Tanh,
            Gelu,
            Elu { alpha: 0.5 },
            Softplus,
            Mish,
        ];
        let (x, function) = (self.pick(|_| true)?, self.dice.of(&functions));
        self.apply(Unary { function }, &[x])
    }

    fn limits(&mut self) -> Option<ValueId> {
        let x = self.pick(|_| true)?;
        let (low, high) = self.dice.of(&[(0.0, 6.0), (-0.5, 0.5), (0.0, 1.0)]);
        let rank = self.dice.below(2);
        let [low, high] = [low, high].map(|b| Some(self.number(b, rank)));
        let open = self.dice.below(3);
        let operands = [Some(x), low.filter(|_| open != 1), high.filter(|_| open != 2)];
        Some(self.graph.apply_all(Clip, &operands, "").ok()?[0])
    }

    fn batch_norm(&mut self) -> Option<ValueId> {
        let convolved = if self.dice.one_in(2) { self.convolution() } else { None };
        let x = convolved.or_else(|| self.pick(|e| e.len() >= 2))?;
        let c = self.extents(x)[1];
        let positive =
            |t: Tensor| Tensor::f32([c], t.to_f64().iter().map(|v| v.abs() as f32 + 0.5).collect());
        let [scale, bias] = [0; 2].map(|_| self.weight(&[c]));
        let (mean, variance) = (self.noise(&[c]), positive(self.noise(&[c])));
        let [mean, variance] = [mean, variance].map(|t| self.holding(t, Role::State));
        let op = BatchNormalization { epsilon: 1e-3, momentum: 0.9, training: self.training };
        let y = self.apply(op, &[x, scale, bias, mean, variance])?;
        if self.dice.one_in(2) { self.apply(Unary { function: Function::Relu }, &[y]) } else { Some(y) }
    }

    /// HardSigmoid, HardSwish and Silu in arithmetic, with their own constants or others, of any rank.
    fn spelled_activation(&mut self) -> Option<ValueId> {
        use BinaryFunction::{Add, Div, Mul};
        let x = self.pick(|_| true)?;
        let ranks = self.extents(x).len() + 2;
        if self.dice.one_in(3) {
            let gate = self.apply(Unary { function: Function::Sigmoid }, &[x])?;
            return self.binary(Mul, x, gate);
        }
        let shift = self.dice.of(&[3.0, 3.0, 3.0, 2.5]);
        let rank = if self.dice.one_in(3) { self.dice.below(ranks) } else { 0 };
        let [shift, sixth_rank] = [self.number(shift, rank), self.number(6.0, 0)];
        let sum = self.binary(Add, x, shift)?;
        let [low, high] = [0.0, 6.0].map(|b| self.number(b, 0));
        let mut gate = self.apply(Clip, &[sum, low, high])?;
        let swish = self.dice.one_in(2);
        let first = self.dice.one_in(2);
        if swish && first {
            gate = self.binary(Mul, x, gate)?;
        }
        let mut y = match self.dice.one_in(2) {
            true => self.binary(Div, gate, sixth_rank)?,
            false => {
                let rank = if self.dice.one_in(3) { self.dice.below(ranks) } else { 0 };
                let sixth = self.number(1.0 / 6.0, rank);
                self.binary(Mul, gate, sixth)?
            }
        };
        if swish && !first {
            y = self.binary(Mul, x, y)?;
        }
        Some(y)
    }

    fn spelled_layer_norm(&mut self) -> Option<ValueId> {
        use BinaryFunction::{Add, Div, Mul, Pow, Sub};
        let x = self.pick(|e| !e.is_empty() && e[e.len() - 1] > 1)?;
        let extents = self.extents(x);
        let (rank, width) = (extents.len(), extents[extents.len() - 1]);
        let axis = if self.dice.one_in(5) { 0 } else { rank as i64 - 1 };
        let mean = || Reduce { kind: Reduction::Mean, axes: vec![axis], keep_dims: true };
        let m = self.apply(mean(), &[x])?;
        let d = self.binary(Sub, x, m)?;
        let square = match self.dice.one_in(2) {
            true => self.binary(Mul, d, d)?,
            false => {
                let two = self.number(2.0, 0);
                self.binary(Pow, d, two)?
            }
        };
        let variance = self.apply(mean(), &[square])?;
        let epsilon_rank = if self.dice.one_in(4) { self.dice.below(rank + 2) } else { 0 };
        let epsilon = self.number(1e-2, epsilon_rank);
        let sum = self.binary(Add, variance, epsilon)?;
        let root = self.apply(Unary { function: Function::Sqrt }, &[sum])?;
        let normal = self.binary(Div, d, root)?;
        let shape = if self.dice.one_in(6) { vec![1, width] } else { vec![width] };
        let scale = self.weight(&shape);
        let y = self.binary(Mul, normal, scale)?;
        let shift = self.weight(&[width]);
        self.binary(Add, y, shift)
    }

    fn spelled_attention(&mut self) -> Option<ValueId> {
        use BinaryFunction::{Add, Div, Mul};
        let rank = self.dice.of(&[3, 4]);
        let batch = if rank == 3 { vec![2] } else { vec![1 + self.dice.below(2), 2] };
        let (queries, keys, width) = (1 + self.dice.below(3), 1 + self.dice.below(4), 2);
        let mut operand = |rows: usize| {
            let shape = [&batch[..], &[rows, width]].concat();
            self.weight(&shape)
        };
        let (q, k, v) = (operand(queries), operand(keys), operand(keys));
        let shift = self.dice.of(&[0.0f32, 1.0]);
        // Something must depend on the input.
        let x = self.pick(|_| true)?;
        let all = self.apply(Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false }, &[x])?;
        let [q, k] = [q, k].map(|operand| self.binary(Add, operand, all));
        let (q, k) = (q?, k?);
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        let k = self.apply(Transpose { permutation }, &[k])?;
        let mut scores = self.apply(MatMul::default(), &[q, k])?;
        if self.dice.one_in(2) {
            let rank = if self.dice.one_in(4) { rank + 1 } else { 0 };
            let factor = self.number(0.5, rank);
            scores = match self.dice.one_in(2) {
                true => self.binary(Mul, scores, factor)?,
                false => self.binary(Div, scores, factor)?,
            };
        }
        if self.dice.one_in(2) {
            let shape: Vec<usize> =
                self.dice.of(&[vec![keys], vec![queries, keys], vec![1, 1, keys], vec![1, 1, 1, 1, keys]]);
            let mask = self.weight(&shape);
            scores = self.binary(Add, scores, mask)?;
        }
        let last = self.extents(scores).len() as i64 - 1;
        let axis = if self.dice.one_in(5) { last - 1 } else { last };
        let weights = self.apply(Softmax { axis, log: false }, &[scores])?;
        let y = self.apply(MatMul::default(), &[weights, v])?;
        let shift = self.number(shift, 0);
        self.binary(Add, y, shift)
    }

    fn pool(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| e.len() == 4)?;
        let kind = self.dice.of(&[PoolKind::Max, PoolKind::Max, PoolKind::Average]);
        if self.dice.one_in(4) {
            return self.apply(GlobalPool { kind: PoolKind::Average }, &[x]);
        }
        let sliding = Sliding::strided(2, self.dice.below(2), 1 + self.dice.below(2));
        self.apply(Pool::new(kind, &[2, 2], sliding), &[x])
    }

    fn movement(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| !e.is_empty())?;
        let extents = self.extents(x);
        let rank = extents.len();
        match self.dice.below(5) {
            0 => self.apply(Flatten { axis: 1 }, &[x]),
            1 => {
                let mut permutation: Vec<usize> = (0..rank).collect();
                permutation.swap(self.dice.below(rank), rank - 1);
                self.apply(Transpose { permutation }, &[x])
            }
            2 => {
                let shape = self.graph.constant(Tensor::ints(&[extents[0] as i64, -1]));
                self.apply(Reshape { allow_zero: false }, &[x, shape])
            }
            3 => self.apply(Concat { axis: rank as i64 - 1 }, &[x, x]),
            _ => self.apply(Identity, &[x]),
        }
    }

    /// A node once more, with the same operands.
    fn again(&mut self) -> Option<ValueId> {
        let id = *self.open.last()?;
        let Source::Node { node, .. } = self.graph.value(id).source else { return None };
        let node = self.graph.node(node).clone();
        let copy = self.graph.apply_all(node.op, &node.inputs, "").ok()?[0];
        self.binary(BinaryFunction::Add, copy, id)
    }

    fn softmax_or_reduce(&mut self) -> Option<ValueId> {
        let x = self.pick(|e| e.len() >= 2)?;
        let rank = self.extents(x).len();
        if self.dice.one_in(2) {
            let log = self.dice.one_in(3);
            let axis = self.dice.of(&[-1, 1]);
            return self.apply(Softmax { axis, log }, &[x]);
        }
        let axes = vec![1 + self.dice.below(rank - 1) as i64];
        let keep_dims = self.dice.one_in(2);
        self.apply(Reduce { kind: Reduction::Mean, axes, keep_dims }, &[x])
    }

    /// One operator on numbers that are stored as bytes, and its result as bytes.
    fn quantised(&mut self) -> Option<ValueId> {
        let kind = self.dice.below(5);
        let shape: &[usize] = if kind < 2 { &[2, 3, 4, 4] } else { &[3, 4] };
        let x = self.input(shape);
        let a = self.through_bytes(x)?;
        let rounded = |b: &mut Builder, dtype, shape: &[usize], levels: i64| {
            let count = shape.iter().product::<usize>();
            let values = (0..count).map(|_| b.dice.below(2 * levels as usize) as i64 - levels).collect();
            b.graph.constant(Tensor::from_i64(dtype, shape, values))
        };
        let y = match kind {
            0 | 3 => {
                let (outputs, axis, w) = match kind {
                    0 => (2, 0, rounded(self, DType::I8, &[2, 3, 3, 3], 100)),
                    _ => (5, 0, rounded(self, DType::I8, &[5, 4], 100)),
                };
                let scales = if self.dice.one_in(2) { 1 } else { outputs };
                let scales: Vec<f32> = (0..scales).map(|_| 0.002 * (1 + self.dice.below(4)) as f32).collect();
                let w = self.real(w, &scales, axis)?;
                let bias = self.dice.one_in(2).then(|| rounded(self, DType::I32, &[outputs], 500));
                let unit = self.dice.of(&[0.01, 0.01, 0.02]);
                let scales: Vec<f32> = scales.iter().map(|s| s * unit).collect();
                let bias = bias.and_then(|b| self.real(b, &scales, 0));
                let operands: Vec<ValueId> = [a, w].into_iter().chain(bias).collect();
                match kind {
                    0 => self.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &operands)?,
                    _ => self.apply(Gemm { transpose_b: true, ..Gemm::default() }, &operands)?,
                }
            }
            1 => {
                let sliding = Sliding::strided(2, self.dice.below(2), 1 + self.dice.below(2));
                self.apply(Pool::new(PoolKind::Max, &[2, 2], sliding), &[a])?
            }
            2 => {
                let b = self.input(shape);
                let b = self.through_bytes(b)?;
                self.binary(BinaryFunction::Add, a, b)?
            }
            _ => {
                let w = rounded(self, DType::I8, &[4, 5], 100);
                let w = self.real(w, &[0.002], 1)?;
                self.apply(MatMul::default(), &[a, w])?
            }
        };
        let y = match self.dice.below(3) {
            0 => self.apply(Unary { function: Function::Relu }, &[y])?,
            1 => self.limits_of(y)?,
            _ => y,
        };
        let bytes = self.levels(y, LEVEL_STEP)?;
        self.real(bytes, &[LEVEL_STEP], 1)
    }

    fn limits_of(&mut self, x: ValueId) -> Option<ValueId> {
        let [low, high] = [0.0, 6.0].map(|b| self.number(b, 0));
        self.apply(Clip, &[x, low, high])
    }

    fn through_bytes(&mut self, x: ValueId) -> Option<ValueId> {
        let bytes = self.levels(x, 0.01)?;
        self.real(bytes, &[0.01], 1)
    }

    fn levels(&mut self, x: ValueId, scale: f32) -> Option<ValueId> {
        let zero = self.dice.of(&[0i64, 128, 100]);
        let to = if zero > 0 { DType::U8 } else { self.dice.of(&[DType::U8, DType::I8]) };
        let zero = self.graph.constant(Tensor::from_i64(
            to,
            [],
            vec![if to == DType::I8 { zero.min(100) } else { zero }],
        ));
        let scale = self.graph.constant(Tensor::scalar(scale));
        self.apply(QuantizeLinear { quantization: Quantization { axis: 1, block: 0 }, to }, &[x, scale, zero])
    }

    /// The numbers behind bytes; of bytes that QuantizeLinear made, with its own zero point.
    fn real(&mut self, bytes: ValueId, scales: &[f32], axis: i64) -> Option<ValueId> {
        let shape = if scales.len() == 1 { vec![] } else { vec![scales.len()] };
        let scale = self.graph.constant(Tensor::f32(shape, scales.to_vec()));
        let zero = match self.graph.value(bytes).source {
            Source::Node { node, .. } => self.graph.node(node).inputs.get(2).copied().flatten(),
            _ => None,
        };
        let op = DequantizeLinear { quantization: Quantization { axis, block: 0 } };
        Some(self.graph.apply_all(op, &[Some(bytes), Some(scale), zero], "").ok()?[0])
    }

    fn finish(mut self) -> Result<Drawn, GraphError> {
        let nothing = || GraphError::Invalid("no pattern fitted".into());
        let last = *self.open.last().ok_or_else(nothing)?;
        let mut outputs = vec![last];
        for id in self.open.clone() {
            let made = matches!(self.graph.value(id).source, Source::Node { .. });
            if made && id != last && self.dice.one_in(6) {
                outputs.push(id);
            }
        }
        if !self.training {
            self.graph.set_outputs(outputs);
            return Ok(Drawn { graph: self.graph, parameters: self.parameters, feeds: self.feeds });
        }
        // Elements weigh differently, so that no gradient cancels.
        let weights = self.noise(&self.extents(last));
        let weights = self.graph.constant(weights);
        let product = self.graph.apply(Binary { function: BinaryFunction::Mul }, &[last, weights])?;
        let loss = self.graph.apply(SumTo { shape: vec![] }, &[product])?;
        let trained = |id: &ValueId| self.graph.parameter_of(*id).is_some_and(|p| p.role == Role::Trainable);
        let wrt: Vec<ValueId> =
            self.graph.parameters().filter(trained).chain(self.graph.inputs().iter().copied()).collect();
        let found = differentiate(&self.graph, loss, &wrt)?;
        let mut graph = found.graph;
        // A step: what is a training graph is told by its assignments.
        for (&id, gradient) in wrt.iter().zip(&found.gradients) {
            if let (Some(_), Some(gradient)) = (graph.parameter_of(id), gradient) {
                let next = graph.apply(Binary { function: BinaryFunction::Sub }, &[id, *gradient])?;
                graph.assign(id, next)?;
            }
        }
        graph.set_outputs([loss].into_iter().chain(found.gradients.into_iter().flatten()).collect());
        Ok(Drawn { graph, parameters: self.parameters, feeds: self.feeds })
    }
}

/// The step between two levels of the results of graphs of [`Purpose::Quantised`].
pub const LEVEL_STEP: f32 = 0.02;
