//! The networks of the suite that no training knows by name: MobileNetV1 and a Transformer encoder, with random weights
//! of which a random share is kept.

use wattle_data::random::{Purpose, Stream};
use wattle_graph::ops::{
    Binary, BinaryFunction, Conv, Flatten, Function, Gemm, GlobalPool, LayerNormalization, MatMul, PoolKind,
    Reshape, Sliding, Softmax, Transpose, Unary,
};
use wattle_graph::{DType, Graph, GraphError, Model, Parameter, Parameters, Shape, Tensor, ValueId};

struct Builder {
    graph: Graph,
    parameters: Parameters,
    /// Share of weights that are not zero, in layers that are pruned.
    density: f64,
}

type Built = Result<ValueId, GraphError>;

/// MobileNetV1 (Howard et al. 2017, table 1) for images of 224 x 224, batch normalisation folded: pairs of depthwise and
/// 1 x 1 layers. The latter and the last layer are pruned.
pub fn mobilenet_v1(batch: usize, density: f64) -> Result<Model, GraphError> {
    let mut b = Builder::new("mobilenet-v1", density);
    let x = b.graph.input("x", DType::F32, Shape::known(&[batch, 3, 224, 224]));
    let mut x = b.conv(x, 3, 32, 3, 2, false)?;
    let mut channels = 32;
    let rest = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)];
    for (filters, stride) in rest.into_iter().chain([(512, 1); 5]).chain([(1024, 2), (1024, 1)]) {
        x = b.conv(x, channels, channels, 3, stride, true)?;
        x = b.conv(x, channels, filters, 1, 1, false)?;
        channels = filters;
    }
    let pooled = b.graph.apply(GlobalPool { kind: PoolKind::Average }, &[x])?;
    let flat = b.graph.apply(Flatten { axis: 1 }, &[pooled])?;
    let (w, bias) = (b.weights(&[1000, channels], channels, density), b.vector(1000, 0.0));
    let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
    let y = b.graph.apply(op, &[flat, w, bias])?;
    Ok(b.model(y))
}

/// Six encoder layers (Vaswani et al. 2017, normalisation first) of width 512, 8 heads and 2048 hidden units on
/// sequences of 128 tokens that are already embedded. All products with weights are pruned.
pub fn encoder(batch: usize, density: f64) -> Result<Model, GraphError> {
    let (tokens, width, heads, hidden) = (128, 512, 8, 2048);
    let mut b = Builder::new("encoder", density);
    let mut x = b.graph.input("x", DType::F32, Shape::known(&[batch, tokens, width]));
    for _ in 0..6 {
        let normal = b.layer_norm(x, width)?;
        let mut of_heads = vec![];
        // Keys are transposed once more, for the product with the queries.
        for permutation in [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]] {
            let all = b.dense(normal, width, width)?;
            let split = b.reshape(all, &[batch, tokens, heads, width / heads])?;
            of_heads.push(b.graph.apply(Transpose { permutation: permutation.into() }, &[split])?);
        }
        let scores = b.graph.apply(MatMul::default(), &[of_heads[0], of_heads[1]])?;
        let scale = b.graph.constant(Tensor::scalar(1.0 / ((width / heads) as f32).sqrt()));
        let scores = b.binary(BinaryFunction::Mul, scores, scale)?;
        let attention = b.graph.apply(Softmax { axis: -1, log: false }, &[scores])?;
        let mixed = b.graph.apply(MatMul::default(), &[attention, of_heads[2]])?;
        let mixed = b.graph.apply(Transpose { permutation: vec![0, 2, 1, 3] }, &[mixed])?;
        let mixed = b.reshape(mixed, &[batch, tokens, width])?;
        let mixed = b.dense(mixed, width, width)?;
        x = b.binary(BinaryFunction::Add, x, mixed)?;
        let normal = b.layer_norm(x, width)?;
        let wide = b.dense(normal, width, hidden)?;
        let wide = b.graph.apply(Unary { function: Function::Relu }, &[wide])?;
        let narrow = b.dense(wide, hidden, width)?;
        x = b.binary(BinaryFunction::Add, x, narrow)?;
    }
    let y = b.layer_norm(x, width)?;
    Ok(b.model(y))
}

/// Keeps a random share of the weights of every trained matrix and filter bank; the first, which sees the samples, and
/// vectors stay whole unless the network has one hidden layer only.
pub fn prune(model: &mut Model, density: f64) {
    let names: Vec<String> = model.parameters.iter().map(|(name, _)| name.to_string()).collect();
    for (index, name) in names.iter().enumerate() {
        let Some(tensor) = model.parameters.get(name) else { continue };
        let shape = tensor.shape().to_vec();
        // A stem of three channels is a sliver of the work, and its loss would cost the most.
        if shape.len() < 2 || shape[1] <= 3 {
            continue;
        }
        let mut stream = Stream::new(2, Purpose::Init, &[index as u64]);
        let values = tensor.as_f32().unwrap_or(&[]);
        let values = values.iter().map(|&w| if stream.chance(density) { w } else { 0.0 }).collect();
        model.parameters.insert(name.clone(), Tensor::f32(shape, values));
    }
}

impl Builder {
    fn new(name: &str, density: f64) -> Builder {
        Builder { graph: Graph::new(name), parameters: Parameters::new(), density }
    }

    fn model(mut self, y: ValueId) -> Model {
        self.graph.rename(y, "y");
        self.graph.output(y);
        Model::new(self.graph, self.parameters)
    }

    /// Weights whose products keep the size of their inputs: variance 2 over what is left of the fan-in.
    fn weights(&mut self, shape: &[usize], fan_in: usize, density: f64) -> ValueId {
        let index = self.parameters.iter().count();
        let mut stream = Stream::new(1, Purpose::Init, &[index as u64]);
        let deviation = (2.0 / (fan_in as f64 * density.max(1e-3))).sqrt();
        let mut draw = || if stream.chance(density) { (stream.normal() * deviation) as f32 } else { 0.0 };
        let values = (0..shape.iter().product()).map(|_| draw()).collect();
        self.parameter(index, Tensor::f32(shape, values))
    }

    fn vector(&mut self, len: usize, value: f32) -> ValueId {
        let index = self.parameters.iter().count();
        self.parameter(index, Tensor::f32([len], vec![value; len]))
    }

    fn parameter(&mut self, index: usize, tensor: Tensor) -> ValueId {
        let (name, shape) = (format!("p{index}"), tensor.shape().to_vec());
        self.parameters.insert(name.clone(), tensor);
        self.graph.parameter(Parameter::trainable(name), DType::F32, &shape)
    }

    fn binary(&mut self, function: BinaryFunction, a: ValueId, b: ValueId) -> Built {
        self.graph.apply(Binary { function }, &[a, b])
    }

    fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Built {
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let shape = self.graph.constant(Tensor::ints(&shape));
        self.graph.apply(Reshape { allow_zero: false }, &[x, shape])
    }

    /// A convolution with bias and ReLU; depthwise ones and stems stay dense.
    fn conv(
        &mut self,
        x: ValueId,
        channels: usize,
        filters: usize,
        taps: usize,
        stride: usize,
        depthwise: bool,
    ) -> Built {
        let (groups, read) = if depthwise { (channels, 1) } else { (1, channels) };
        let density = if taps == 1 { self.density } else { 1.0 };
        let w = self.weights(&[filters, read, taps, taps], read * taps * taps, density);
        let bias = self.vector(filters, 0.1);
        let y = self
            .graph
            .apply(Conv { sliding: Sliding::strided(2, taps / 2, stride), groups }, &[x, w, bias])?;
        self.graph.apply(Unary { function: Function::Relu }, &[y])
    }

    fn dense(&mut self, x: ValueId, inputs: usize, outputs: usize) -> Built {
        let (w, bias) = (self.weights(&[inputs, outputs], inputs, self.density), self.vector(outputs, 0.0));
        let y = self.graph.apply(MatMul::default(), &[x, w])?;
        self.binary(BinaryFunction::Add, y, bias)
    }

    fn layer_norm(&mut self, x: ValueId, width: usize) -> Built {
        let (scale, bias) = (self.vector(width, 1.0), self.vector(width, 0.0));
        self.graph.apply(LayerNormalization { axis: -1, epsilon: 1e-5 }, &[x, scale, bias])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_graph::{costs, totals};

    fn sums(model: &Model) -> wattle_graph::Totals {
        totals(&costs(&model.graph, &model.parameters).unwrap())
    }

    #[test]
    fn mobilenet_has_the_published_size() {
        let sums = sums(&mobilenet_v1(1, 0.1).unwrap());
        // Howard et al. 2017, table 8: 569 million multiply-adds, 4.2 million parameters.
        assert_eq!(sums.macs / 1_000_000, 568);
        assert!((4_200_000..4_250_000).contains(&sums.parameters), "{}", sums.parameters);
        let kept = sums.effective_macs as f64 / sums.macs as f64;
        assert!((0.1..0.2).contains(&kept), "{kept}: dense stems and depthwise layers, a tenth of the rest");
    }

    #[test]
    fn the_encoder_keeps_what_is_asked_for() {
        let sums = sums(&encoder(1, 0.1).unwrap());
        let kept = sums.nonzero_parameters as f64 / sums.parameters as f64;
        assert!((0.095..0.105).contains(&kept), "{kept}");
    }
}
