//! Networks written layer by layer, over parameters that come from where the caller wants them.
//!
//! ```
//! use wattle_graph::layers::{Drawing, Filters, Fresh, Layers};
//! use wattle_graph::{DType, Dim, Model};
//!
//! let ones = |drawing: Drawing<'_>| vec![1.0; drawing.extents.iter().product()];
//! let mut layers = Layers::new("small", Fresh::new(ones));
//! let x = layers.graph.input("x", DType::F32, vec![Dim::symbol("N"), 3.into(), 8.into(), 8.into()]);
//! let y = layers.conv("conv", x, Filters::new(16, 3).strided(2).biased())?;
//! let y = layers.relu(y)?;
//! let y = layers.channel_means(y)?;
//! let y = layers.dense("head", y, 10)?;
//! let (graph, source) = layers.finish("logits", y);
//! let model = Model::new(graph, source.parameters);
//! assert_eq!(model.parameters.get("conv.weight").unwrap().shape(), [16, 3, 3, 3]);
//! # Ok::<(), wattle_graph::GraphError>(())
//! ```

use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::ops::{
    BatchNormalization, Binary, BinaryFunction, Conv, Flatten, Function, Gather, Gemm, GlobalPool,
    LayerNormalization, MatMul, Op, Pool, PoolKind, Reshape, Sliding, Softmax, Transpose, Unary,
};
use crate::parameter::{Parameter, Parameters, Role, Window};
use crate::shape::Dim;
use crate::tensor::{DType, Tensor};

/// A parameter that a layer asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name: the layer's and its own, as `conv1.weight`.
    pub name: &'a str,
    /// Its extents.
    pub extents: &'a [usize],
    /// Who may change it.
    pub role: Role,
    /// What it holds before training.
    pub initially: Initially,
}

/// What a parameter holds before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initially {
    /// Numbers drawn by a rule that knows how many inputs an output sees and how many outputs see an input.
    Drawn {
        /// Inputs that an output sees.
        fan_in: usize,
        /// Outputs that an input reaches.
        fan_out: usize,
    },
    /// This number everywhere.
    Filled(f32),
}

/// Where the parameters of a network come from: drawn, read from a file, windows on those of a larger network.
pub trait ParameterSource {
    /// The value in `graph` that holds what is wanted, with its extents.
    fn parameter(&mut self, graph: &mut Graph, wanted: Wanted<'_>) -> Result<ValueId, GraphError>;
}

/// New tensors, one for each parameter: filled as wanted, or drawn.
#[derive(Debug)]
pub struct Fresh<D> {
    /// Those made so far.
    pub parameters: Parameters,
    draw: D,
}

/// Numbers that are to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawing<'a> {
    /// Parameters made before this one: it names the stream of random numbers, so that a layer's do not depend on others'.
    pub place: usize,
    /// Extents of the tensor.
    pub extents: &'a [usize],
    /// Inputs that an output sees.
    pub fan_in: usize,
    /// Outputs that an input reaches.
    pub fan_out: usize,
}

impl<D: FnMut(Drawing<'_>) -> Vec<f32>> Fresh<D> {
    /// Tensors whose numbers `draw` draws, row by row.
    pub fn new(draw: D) -> Fresh<D> {
        Fresh { parameters: Parameters::new(), draw }
    }
}

impl<D: FnMut(Drawing<'_>) -> Vec<f32>> ParameterSource for Fresh<D> {
    fn parameter(&mut self, graph: &mut Graph, wanted: Wanted<'_>) -> Result<ValueId, GraphError> {
        let Wanted { name, extents, role, initially } = wanted;
        let values = match initially {
            Initially::Filled(value) => vec![value; extents.iter().product()],
            Initially::Drawn { fan_in, fan_out } => {
                (self.draw)(Drawing { place: self.parameters.iter().count(), extents, fan_in, fan_out })
            }
        };
        self.parameters.insert(name, Tensor::f32(extents, values));
        let parameter = Parameter { tensor: name.to_owned(), window: Window::full(), role };
        Ok(graph.parameter(parameter, DType::F32, extents))
    }
}

/// A network under construction. Layers are called by `name`; a layer's parameters are `name.weight`, `name.bias`.
#[derive(Debug)]
pub struct Layers<S> {
    /// What is built so far.
    pub graph: Graph,
    /// Where parameters come from.
    pub source: S,
    /// Trainable parameters that layers asked for, in this order.
    pub trained: Vec<(String, ValueId)>,
    /// In training, running statistics of batch normalisation and what each becomes; nothing is assigned yet.
    pub statistics: Vec<(ValueId, ValueId)>,
    /// Whether batch normalisation goes by the batch.
    pub training: bool,
}

/// A layer's result.
pub type Built = Result<ValueId, GraphError>;

/// Extents and steps of a convolution over images: taps are square, padding is `taps / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Channels that come out.
    pub count: usize,
    /// Extent of a filter along both axes.
    pub taps: usize,
    /// Step along both axes.
    pub stride: usize,
    /// Groups of channels that see only each other.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Filters {
    /// `count` filters of `taps x taps` without bias that see every channel.
    pub fn new(count: usize, taps: usize) -> Filters {
        Filters { count, taps, stride: 1, groups: 1, bias: false }
    }

    /// These, `stride` apart.
    pub fn strided(self, stride: usize) -> Filters {
        Filters { stride, ..self }
    }

    /// These, with a bias.
    pub fn biased(self) -> Filters {
        Filters { bias: true, ..self }
    }

    /// One filter a channel.
    pub fn depthwise(self) -> Filters {
        Filters { groups: self.count, ..self }
    }
}

impl<S: ParameterSource> Layers<S> {
    /// An empty network.
    pub fn new(name: &str, source: S) -> Layers<S> {
        Layers { graph: Graph::new(name), source, trained: vec![], statistics: vec![], training: false }
    }

    /// The finished network without its parameters' source, of one output.
    pub fn finish(mut self, output: &str, value: ValueId) -> (Graph, S) {
        self.graph.rename(value, output);
        self.graph.output(value);
        (self.graph, self.source)
    }

    /// The result of an operator that has one.
    pub fn apply(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Built {
        self.graph.apply(op, operands)
    }

    /// What a layer asks its source for.
    pub fn parameter(&mut self, name: &str, extents: &[usize], role: Role, initially: Initially) -> Built {
        let value = self.source.parameter(&mut self.graph, Wanted { name, extents, role, initially })?;
        if role == Role::Trainable {
            self.trained.push((name.to_owned(), value));
        }
        Ok(value)
    }

    /// A trainable vector that is `value` everywhere.
    pub fn vector(&mut self, name: &str, len: usize, value: f32) -> Built {
        self.parameter(name, &[len], Role::Trainable, Initially::Filled(value))
    }

    /// A trainable matrix of `rows` vectors of `width`, such as an embedding: each element sees one input.
    pub fn table(&mut self, name: &str, rows: usize, width: usize) -> Built {
        let drawn = Initially::Drawn { fan_in: rows, fan_out: width };
        self.parameter(name, &[rows, width], Role::Trainable, drawn)
    }

    /// The extent of an axis, which must be known; negative axes count from the last.
    pub fn extent(&self, x: ValueId, axis: isize) -> Result<usize, GraphError> {
        let dims = self.graph.value(x).ty.shape.dims().unwrap_or(&[]);
        let place = if axis < 0 { dims.len().checked_add_signed(axis) } else { Some(axis.unsigned_abs()) };
        place.and_then(|place| dims.get(place)).and_then(Dim::known).ok_or_else(|| {
            let found = format!("{} has no known extent of axis {axis}", self.graph.label(x));
            GraphError::Invalid(found)
        })
    }

    /// `x W^T + b` for rows `[N, inputs]`; `name.weight` is `[outputs, inputs]`, as PyTorch keeps it.
    pub fn dense(&mut self, name: &str, x: ValueId, outputs: usize) -> Built {
        let inputs = self.extent(x, 1)?;
        let drawn = Initially::Drawn { fan_in: inputs, fan_out: outputs };
        let w = self.parameter(&format!("{name}.weight"), &[outputs, inputs], Role::Trainable, drawn)?;
        let b = self.vector(&format!("{name}.bias"), outputs, 0.0)?;
        let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
        Ok(self.graph.apply_all(op, &[Some(x), Some(w), Some(b)], name)?[0])
    }

    /// `x W + b` along the last axis of any number of axes; `name.weight` is `[inputs, outputs]`.
    pub fn project(&mut self, name: &str, x: ValueId, outputs: usize) -> Built {
        let inputs = self.extent(x, -1)?;
        let drawn = Initially::Drawn { fan_in: inputs, fan_out: outputs };
        let w = self.parameter(&format!("{name}.weight"), &[inputs, outputs], Role::Trainable, drawn)?;
        let b = self.vector(&format!("{name}.bias"), outputs, 0.0)?;
        let y = self.apply(MatMul::default(), &[x, w])?;
        self.add(y, b)
    }

    /// A convolution of images `[N, C, H, W]`; `name.weight` is `[filters, C / groups, taps, taps]`.
    pub fn conv(&mut self, name: &str, x: ValueId, filters: Filters) -> Built {
        let Filters { count, taps, stride, groups, bias } = filters;
        let read = self.extent(x, 1)? / groups;
        let drawn = Initially::Drawn { fan_in: read * taps * taps, fan_out: count * taps * taps };
        let extents = [count, read, taps, taps];
        let w = self.parameter(&format!("{name}.weight"), &extents, Role::Trainable, drawn)?;
        let b = if bias { Some(self.vector(&format!("{name}.bias"), count, 0.0)?) } else { None };
        let op = Conv { sliding: Sliding::strided(2, taps / 2, stride), groups };
        Ok(self.graph.apply_all(op, &[Some(x), Some(w), b], name)?[0])
    }

    /// Batch normalisation over axis 1: gain `name.weight`, shift `name.bias`, and running statistics.
    pub fn batch_norm(&mut self, name: &str, x: ValueId) -> Built {
        let channels = self.extent(x, 1)?;
        let scale = self.vector(&format!("{name}.weight"), channels, 1.0)?;
        let bias = self.vector(&format!("{name}.bias"), channels, 0.0)?;
        let mut running = |part: &str, value| {
            let filled = Initially::Filled(value);
            self.parameter(&format!("{name}.running_{part}"), &[channels], Role::State, filled)
        };
        let (mean, variance) = (running("mean", 0.0)?, running("var", 1.0)?);
        let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: self.training };
        let operands = [x, scale, bias, mean, variance].map(Some);
        let results = self.graph.apply_all(op, &operands, name)?;
        if let [_, next_mean, next_variance, ..] = results[..] {
            self.statistics.extend([(mean, next_mean), (variance, next_variance)]);
        }
        Ok(results[0])
    }

    /// Layer normalisation over the last axis: gain `name.weight`, shift `name.bias`.
    pub fn layer_norm(&mut self, name: &str, x: ValueId) -> Built {
        let width = self.extent(x, -1)?;
        let scale = self.vector(&format!("{name}.weight"), width, 1.0)?;
        let bias = self.vector(&format!("{name}.bias"), width, 0.0)?;
        let op = LayerNormalization { axis: -1, epsilon: 1e-5 };
        Ok(self.graph.apply_all(op, &[Some(x), Some(scale), Some(bias)], name)?[0])
    }

    /// The rows of a `table` that integers name.
    pub fn look_up(&mut self, table: ValueId, tokens: ValueId) -> Built {
        self.apply(Gather { axis: 0 }, &[table, tokens])
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, x: ValueId) -> Built {
        self.apply(Unary { function: Function::Relu }, &[x])
    }

    /// The sum of two, broadcast.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Built {
        self.apply(Binary { function: BinaryFunction::Add }, &[a, b])
    }

    /// The largest of each `taps x taps` pixels, `taps / 2` of padding where windows overlap.
    pub fn max_pool(&mut self, x: ValueId, taps: usize, stride: usize) -> Built {
        let pad = if taps > stride { taps / 2 } else { 0 };
        self.apply(Pool::new(PoolKind::Max, &[taps, taps], Sliding::strided(2, pad, stride)), &[x])
    }

    /// The mean of each channel, as rows `[N, C]`.
    pub fn channel_means(&mut self, x: ValueId) -> Built {
        let means = self.apply(GlobalPool { kind: PoolKind::Average }, &[x])?;
        self.flatten(means)
    }

    /// Rows of all that a sample has.
    pub fn flatten(&mut self, x: ValueId) -> Built {
        self.apply(Flatten { axis: 1 }, &[x])
    }

    /// The same elements with other extents; a 0 keeps the extent at its place.
    pub fn reshape(&mut self, x: ValueId, extents: &[usize]) -> Built {
        let extents: Vec<i64> = extents.iter().map(|&n| n as i64).collect();
        let extents = self.graph.constant(Tensor::ints(&extents));
        self.apply(Reshape { allow_zero: false }, &[x, extents])
    }

    /// Axes in another order.
    pub fn transpose(&mut self, x: ValueId, permutation: &[usize]) -> Built {
        self.apply(Transpose { permutation: permutation.to_vec() }, &[x])
    }

    /// Attention (Vaswani et al. 2017, equation 1): `softmax(q k^T / sqrt(width) + mask) v` for `[.., rows, width]`.
    pub fn attend(&mut self, [q, k, v]: [ValueId; 3], mask: Option<ValueId>) -> Built {
        let width = self.extent(q, -1)?;
        let factor = self.graph.constant(Tensor::scalar(1.0 / (width as f32).sqrt()));
        let scores = self.apply(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k])?;
        let mut scores = self.apply(Binary { function: BinaryFunction::Mul }, &[scores, factor])?;
        if let Some(mask) = mask {
            scores = self.add(scores, mask)?;
        }
        let shares = self.apply(Softmax { axis: -1, log: false }, &[scores])?;
        self.apply(MatMul::default(), &[shares, v])
    }
}
