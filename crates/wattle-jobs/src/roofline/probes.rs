//! Small made-up networks that are timed once to learn how fast this machine runs each kind of kernel.

use wattle_graph::ops::{
    Aspect, BatchNormalization, Binary, BinaryFunction, Cast, Cell, Compare, Comparison, Concat, Conv,
    ConvTranspose, Coordinates, Direction, Flatten, Function, Gemm, GlobalPool, Interpolation, Lrn, MatMul,
    Pad, PadMode, Pool, PoolKind, Recurrent, Reduce, Reduction, Resize, Slice, Sliding, Softmax, Transpose,
    Unary,
};
use wattle_graph::{DType, Example, Graph, GraphError, Model, Parameter, Parameters, Shape, Tensor, ValueId};

/// One layer of a made-up network.
#[derive(Clone, Copy)]
enum Layer {
    /// Filters, taps, stride.
    Conv(usize, usize, usize),
    /// Taps, stride.
    Depthwise(usize, usize),
    Norm,
    Act(Function),
    /// An elementwise function that is no activation: what comes before it stays what [`Layer::Add`] adds.
    Map(Function),
    /// With a constant.
    With(BinaryFunction, f32),
    /// The value before the last activation, added; itself where that has another shape.
    Add,
    /// The same, multiplied.
    Mul,
    /// Twice itself along the channels.
    Join,
    /// Transposed convolution to this many channels, twice as wide and high.
    Up(usize),
    /// Nearest neighbours, twice as wide and high.
    Double,
    /// The maximum and the mean over the last axis.
    MaxLast,
    MeanLast,
    /// Where it equals its maximum over the last axis, as numbers: operators without a kernel, interpreted.
    Equal,
    /// Equal, as whole numbers.
    EqualWhole,
    /// Window, stride.
    MaxPool(usize, usize),
    MeanPool,
    /// Normalisation over five channels.
    AcrossChannels,
    /// All but the first and last of the last axis, and zeros in their place; all but the first and last channel.
    Crop,
    Frame,
    CropChannels,
    GlobalMean,
    Dense(usize),
    /// A product without bias over the last axis.
    Product(usize),
    Softmax,
    SwapLast,
}

/// Networks to run: extents of the input, then layers as [`Layer::read`] reads them.
const INFERENCE: [&str; 24] = [
    "1x3x160x160 conv16,3,2 hardswish depth3,1 relu conv32,1,1 depth3,2 relu conv64,1,1 add depth5,1 conv64,3,1 relu \
     maxpool conv128,1,1 relu conv128,3,1 relu depth5,2 conv256,1,1 relu conv256,3,1 mean dense100 softmax",
    "1x24x96x96 conv24,3,1 relu conv96,1,1 hardswish depth3,1 sigmoid conv24,1,1 meanpool conv48,5,1 relu add \
     conv12,1,1 maxpool conv96,3,1 relu conv96,1,1 mean dense10",
    "1x1x120x300 conv32,3,1 relu maxpool conv64,3,1 relu maxpool conv64,3,1 relu conv128,3,2 relu mean dense64 relu \
     dense1",
    "1x200x12x80 depth5,1 hardswish conv200,1,1 hardswish depth3,1 conv400,1,1 relu conv100,1,1 mean dense80",
    "1x600 dense256 relu dense1000 sigmoid dense64 tanh dense3000 softmax",
    "64x300 dense400 relu dense80 tanh dense12 softmax",
    "1x40x120 product120 gelu product480 gelu product120 softmax swap product64",
    "1x300x256 product256 silu swap product64 softmax add gelu",
    "8x6x14x14 conv20,5,1 relu maxpool dense90 relu dense10",
    "1x32x200x240 conv64,3,1 relu maxpool conv64,3,1 relu add maxpool hardswish mul join double up32 relu mul",
    "1x16x48x48 relu mul hardswish add up16 relu mul sigmoid mul double conv8,3,1 relu add join maxlast",
    "1x12x20x24 relu mul hardswish add double join relu mul up8 hardswish add maxlast",
    "1x400x600 relu mul gelu add equal tanh mul maxlast",
    "1x60x80 sigmoid equal tanh equal mul",
    "1x500x40 relu add meanlast mul swap equal tanh maxlast",
    // A stem of seven taps, normalised as networks of 2012 to 2014 were, and windows of three.
    "1x3x150x150 conv48,7,2 relu maxpool3,2 lrn conv48,1,1 relu conv96,3,1 relu lrn maxpool3,2 conv64,1,1 relu \
     maxpool3,1 conv64,1,1 relu mean dense30 softmax",
    "1x48x40x40 lrn conv64,3,1 relu maxpool3,2 lrn conv128,3,1 relu maxpool3,1 mean dense10",
    "1x3x120x120 conv24,3,2 relu maxpool3,2 depth3,1 conv60,1,1 relu depth3,2 conv240,1,1 relu depth3,1 conv240,1,1 \
     relu depth3,2 conv480,1,1 relu depth3,1 mean dense200",
    "1x16x230x70 conv64,3,1 relu conv96,3,1 relu maxpool conv96,3,1 relu \
     cropchannels conv32,3,1 relu cropchannels frame mean dense1",
    // Weights that no cache holds; and many weights at few places.
    "1x4000 dense3500 relu dense1200 relu dense100",
    "1x900 dense4000 relu dense2000 sigmoid dense10",
    "1x256x7x7 conv384,3,1 relu conv384,3,1 relu conv512,1,1 relu conv128,1,1 relu mean dense900 softmax",
    "1x96x1500 sigmoid square sqrt less square part log crop frame exp crop least invert equalwhole frame maxlast",
    "1x24x130 sigmoid square crop sqrt square log frame part exp crop less equalwhole crop least maxlast",
];

/// Networks to train for a step.
const TRAINING: [&str; 13] = [
    "24x3x28x28 conv16,3,1 norm relu conv16,3,1 norm add relu conv32,3,2 norm relu conv32,3,1 norm relu conv48,3,2 \
     norm relu conv48,1,1 norm add relu mean dense10",
    "96x3x36x36 conv16,3,1 norm relu conv16,3,1 norm add relu conv32,3,2 norm relu conv32,3,1 norm add relu \
     conv64,3,2 norm relu conv64,3,1 norm add relu mean dense12",
    "64x1x30x30 conv4,5,1 relu maxpool conv12,5,1 relu maxpool dense90 relu dense10",
    "32x1x24x24 conv8,5,1 relu maxpool conv16,5,1 relu maxpool dense100 relu dense60 relu dense10",
    "100x1x20x20 conv12,3,1 relu conv24,3,1 relu maxpool dense50 relu dense10",
    "48x500 dense350 relu dense120 relu dense10",
    "120x900 dense200 relu dense80 relu dense10",
    "16x100 dense64 relu dense10",
    "20x16x16x16 depth3,1 norm relu conv48,1,1 norm relu depth3,2 norm conv24,1,1 norm meanpool dense10",
    // Many weights at few places, as at the end of wide networks.
    "12x128x8x8 conv192,3,2 norm relu conv256,3,1 norm add relu conv320,3,2 norm relu conv320,3,1 norm add relu mean dense20",
    "16x256x2x2 conv512,3,1 norm relu conv512,3,1 norm relu mean dense10",
    "24x3x48x48 conv40,7,2 norm relu maxpool3,2 conv40,3,1 norm add relu conv80,3,2 norm relu conv80,1,1 norm relu mean dense20",
    "10x24x24x24 conv48,3,1 norm relu conv48,3,1 norm add relu conv96,1,2 norm relu conv96,3,1 norm relu mean dense10",
];

impl Layer {
    /// Reads `conv16,3,2` (filters, taps, stride), `depth3,1` (taps, stride), `dense10`, `relu`, ...
    fn read(word: &str) -> Option<Layer> {
        let name = word.trim_end_matches(|c: char| c.is_ascii_digit() || c == ',');
        let numbers: Option<Vec<usize>> = match &word[name.len()..] {
            "" => Some(vec![]),
            numbers => numbers.split(',').map(|n| n.parse().ok()).collect(),
        };
        Some(match (name, &numbers?[..]) {
            ("conv", &[filters, taps, stride]) => Layer::Conv(filters, taps, stride),
            ("depth", &[taps, stride]) => Layer::Depthwise(taps, stride),
            ("dense", &[width]) => Layer::Dense(width),
            ("product", &[width]) => Layer::Product(width),
            ("norm", []) => Layer::Norm,
            ("up", &[filters]) => Layer::Up(filters),
            ("add", []) => Layer::Add,
            ("mul", []) => Layer::Mul,
            ("join", []) => Layer::Join,
            ("double", []) => Layer::Double,
            ("maxlast", []) => Layer::MaxLast,
            ("meanlast", []) => Layer::MeanLast,
            ("equal", []) => Layer::Equal,
            ("equalwhole", []) => Layer::EqualWhole,
            ("maxpool", []) => Layer::MaxPool(2, 2),
            ("maxpool", &[window, stride]) => Layer::MaxPool(window, stride),
            ("lrn", []) => Layer::AcrossChannels,
            ("crop", []) => Layer::Crop,
            ("frame", []) => Layer::Frame,
            ("cropchannels", []) => Layer::CropChannels,
            ("square", []) => Layer::With(BinaryFunction::Pow, 2.0),
            ("less", []) => Layer::With(BinaryFunction::Sub, 0.5),
            ("part", []) => Layer::With(BinaryFunction::Div, 3.0),
            ("least", []) => Layer::With(BinaryFunction::Max, 0.1),
            ("sqrt", []) => Layer::Map(Function::Sqrt),
            ("log", []) => Layer::Map(Function::Log),
            ("exp", []) => Layer::Map(Function::Exp),
            ("invert", []) => Layer::Map(Function::Reciprocal),
            ("meanpool", []) => Layer::MeanPool,
            ("mean", []) => Layer::GlobalMean,
            ("softmax", []) => Layer::Softmax,
            ("swap", []) => Layer::SwapLast,
            ("relu", []) => Layer::Act(Function::Relu),
            ("sigmoid", []) => Layer::Act(Function::Sigmoid),
            ("tanh", []) => Layer::Act(Function::Tanh),
            ("gelu", []) => Layer::Act(Function::Gelu),
            ("silu", []) => Layer::Act(Function::Silu),
            ("hardswish", []) => Layer::Act(Function::HardSwish),
            _ => return None,
        })
    }
}

/// A network to time, and whether it is to be trained.
pub struct Probe {
    /// The network, all shapes known.
    pub model: Model,
    /// Whether a training step is timed.
    pub training: bool,
}

/// The probes of inference or of training.
pub fn probes(training: bool) -> Result<Vec<Probe>, GraphError> {
    let recipes: &[&str] = if training { &TRAINING } else { &INFERENCE };
    let mut probes = vec![];
    for recipe in recipes {
        probes.push(Probe { model: network(recipe)?, training });
    }
    if !training {
        for (steps, width, hidden) in [(1, 128, 128), (1, 40, 64), (40, 64, 48), (12, 256, 200)] {
            probes.push(Probe { model: recurrent(steps, width, hidden)?, training });
        }
    }
    Ok(probes)
}

struct Builder {
    graph: Graph,
    parameters: Parameters,
}

impl Builder {
    fn parameter(&mut self, role: fn(String) -> Parameter, shape: &[usize], scale: f32) -> ValueId {
        let seed = self.parameters.iter().count() as u32 + 1;
        let parameter = role(format!("p{seed}"));
        let noise = Example::noise(shape, seed);
        let values = noise.to_f64().iter().map(|x| (x.abs() as f32 + 0.1) * scale).collect();
        self.parameters.insert(parameter.tensor.clone(), Tensor::f32(shape, values));
        self.graph.parameter(parameter, DType::F32, shape)
    }

    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let fan_in: usize = shape[1..].iter().product();
        self.parameter(Parameter::trainable, shape, 1.0 / fan_in as f32)
    }

    fn layer(&mut self, x: ValueId, before: ValueId, layer: Layer) -> Result<ValueId, GraphError> {
        let extents = self.graph.extents(x)?;
        match layer {
            Layer::Conv(filters, taps, stride) => {
                let w = self.weight(&[filters, extents[1], taps, taps]);
                let b = self.weight(&[filters]);
                let op = Conv { sliding: Sliding::strided(2, taps / 2, stride), groups: 1 };
                self.graph.apply(op, &[x, w, b])
            }
            Layer::Depthwise(taps, stride) => {
                let w = self.weight(&[extents[1], 1, taps, taps]);
                let b = self.weight(&[extents[1]]);
                let op = Conv { sliding: Sliding::strided(2, taps / 2, stride), groups: extents[1] };
                self.graph.apply(op, &[x, w, b])
            }
            Layer::Norm => {
                let mut operands = vec![x];
                operands.extend((0..2).map(|_| self.parameter(Parameter::trainable, &extents[1..2], 1.0)));
                operands.extend((0..2).map(|_| self.parameter(Parameter::state, &extents[1..2], 1.0)));
                let operands: Vec<_> = operands.into_iter().map(Some).collect();
                let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: false };
                Ok(self.graph.apply_all(op, &operands, "")?[0])
            }
            Layer::Act(function) | Layer::Map(function) => self.graph.apply(Unary { function }, &[x]),
            Layer::With(function, constant) => {
                let constant = self.graph.constant(Tensor::f32([1], vec![constant]));
                self.graph.apply(Binary { function }, &[x, constant])
            }
            Layer::AcrossChannels => {
                self.graph.apply(Lrn { alpha: 1e-4, beta: 0.75, bias: 1.0, size: 5 }, &[x])
            }
            Layer::Crop | Layer::CropChannels => {
                let axis = if matches!(layer, Layer::Crop) { extents.len() as i64 - 1 } else { 1 };
                let [start, end, axis] = [1, -1, axis].map(|i| self.graph.constant(Tensor::ints(&[i])));
                self.graph.apply(Slice, &[x, start, end, axis])
            }
            Layer::Frame => {
                let mut pads = vec![0; 2 * extents.len()];
                (pads[extents.len() - 1], pads[2 * extents.len() - 1]) = (1, 1);
                let pads = self.graph.constant(Tensor::i64([pads.len()], pads));
                self.graph.apply(Pad { mode: PadMode::Constant }, &[x, pads])
            }
            Layer::EqualWhole => {
                let whole = self.graph.apply(Cast { to: DType::I32 }, &[x])?;
                let most = self.graph.constant(Tensor::from_i64(DType::I32, [1], vec![1]));
                let equal = self.graph.apply(Compare { comparison: Comparison::Equal }, &[whole, most])?;
                self.graph.apply(Cast { to: DType::F32 }, &[equal])
            }
            Layer::Add | Layer::Mul => {
                let other = if self.graph.extents(before)? == extents { before } else { x };
                let function =
                    if matches!(layer, Layer::Add) { BinaryFunction::Add } else { BinaryFunction::Mul };
                self.graph.apply(Binary { function }, &[x, other])
            }
            Layer::Join => self.graph.apply(Concat { axis: 1 }, &[x, x]),
            Layer::Up(filters) => {
                let w = self.weight(&[extents[1], filters, 2, 2]);
                let sliding = Sliding::strided(2, 0, 2);
                let op = ConvTranspose { sliding, groups: 1, output_padding: vec![0, 0] };
                self.graph.apply(op, &[x, w])
            }
            Layer::Double => {
                let scales = self.graph.constant(Tensor::f32([4], vec![1.0, 1.0, 2.0, 2.0]));
                let op = Resize {
                    interpolation: Interpolation::NearestFloor,
                    coordinates: Coordinates::Asymmetric,
                    axes: None,
                    aspect: Aspect::Stretch,
                };
                Ok(self.graph.apply_all(op, &[Some(x), None, Some(scales)], "")?[0])
            }
            Layer::MaxLast | Layer::MeanLast => {
                let kind = if matches!(layer, Layer::MaxLast) { Reduction::Max } else { Reduction::Mean };
                self.graph.apply(Reduce { kind, axes: vec![-1], keep_dims: true }, &[x])
            }
            Layer::Equal => {
                let most = Reduce { kind: Reduction::Max, axes: vec![-1], keep_dims: true };
                let most = self.graph.apply(most, &[x])?;
                let equal = self.graph.apply(Compare { comparison: Comparison::Equal }, &[x, most])?;
                self.graph.apply(Cast { to: DType::F32 }, &[equal])
            }
            Layer::MaxPool(window, stride) => {
                let sliding = Sliding::strided(2, (window - 1) / 2, stride);
                self.graph.apply(Pool::new(PoolKind::Max, &[window, window], sliding), &[x])
            }
            Layer::MeanPool => {
                self.graph.apply(Pool::new(PoolKind::Average, &[2, 2], Sliding::strided(2, 0, 2)), &[x])
            }
            Layer::GlobalMean => self.graph.apply(GlobalPool { kind: PoolKind::Average }, &[x]),
            Layer::Dense(width) => {
                let x = if extents.len() > 2 { self.graph.apply(Flatten { axis: 1 }, &[x])? } else { x };
                let columns = self.graph.extents(x)?[1];
                let w = self.weight(&[width, columns]);
                let b = self.weight(&[width]);
                let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
                self.graph.apply(op, &[x, w, b])
            }
            Layer::Product(width) => {
                let columns = extents[extents.len() - 1];
                let w = self.parameter(Parameter::trainable, &[columns, width], 1.0 / columns as f32);
                self.graph.apply(MatMul::default(), &[x, w])
            }
            Layer::Softmax => self.graph.apply(Softmax { axis: -1, log: false }, &[x]),
            Layer::SwapLast => self.graph.apply(Transpose { permutation: vec![0, 2, 1] }, &[x]),
        }
    }
}

fn network(recipe: &str) -> Result<Model, GraphError> {
    let unread = || GraphError::Invalid(format!("probe {recipe:?} cannot be read"));
    let (input, layers) = recipe.split_once(' ').ok_or_else(unread)?;
    let input: Option<Vec<usize>> = input.split('x').map(|n| n.parse().ok()).collect();
    let mut builder = Builder { graph: Graph::new("probe"), parameters: Parameters::new() };
    let mut x = builder.graph.input("x", DType::F32, Shape::known(&input.ok_or_else(unread)?));
    let mut before = x;
    for word in layers.split_whitespace() {
        let layer = Layer::read(word).ok_or_else(unread)?;
        let y = builder.layer(x, before, layer)?;
        if matches!(layer, Layer::Act(_)) {
            before = x;
        }
        x = y;
    }
    builder.graph.output(x);
    Ok(Model::new(builder.graph, builder.parameters))
}

fn recurrent(steps: usize, width: usize, hidden: usize) -> Result<Model, GraphError> {
    let mut builder = Builder { graph: Graph::new("probe"), parameters: Parameters::new() };
    let x = builder.graph.input("x", DType::F32, Shape::known(&[steps, 1, width]));
    let w = builder.weight(&[1, 4 * hidden, width]);
    let r = builder.weight(&[1, 4 * hidden, hidden]);
    let y = builder
        .graph
        .apply(Recurrent::new(Cell::Lstm { input_forget: false }, Direction::Forward, hidden), &[x, w, r])?;
    builder.graph.output(y);
    Ok(Model::new(builder.graph, builder.parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_makes_a_network() {
        assert_eq!(probes(true).unwrap().len(), TRAINING.len());
        assert_eq!(probes(false).unwrap().len(), INFERENCE.len() + 4);
    }
}
