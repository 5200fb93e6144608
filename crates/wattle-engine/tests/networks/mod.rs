//! Networks that tests and benches train, each a graph of one training step; built by the layers of `wattle_graph`.

pub mod decoder;
pub mod prefixes;
pub mod step;

use std::sync::Arc;

use wattle_graph::layers::{Built, Drawing, Fresh, Layers, ParameterSource};
use wattle_graph::networks::{self, Heads};
use wattle_graph::{DType, Example, Graph, Parameters, Shape, Tensor, ValueId};

use step::{Optimizer, training_step};

/// Parameters that are noise.
pub type Noise = Fresh<Box<dyn FnMut(Drawing<'_>) -> Vec<f32>>>;

/// A network of new parameters whose variance is about `1 / fan_in`.
pub fn fresh(name: &str) -> Layers<Noise> {
    drawn(name, 1.0)
}

/// The same with variance `gain / fan_in`; 2 keeps the size of activations behind ReLU.
fn drawn(name: &str, gain: f64) -> Layers<Noise> {
    let draw = move |drawing: Drawing<'_>| {
        let noise = Example::noise(drawing.extents, drawing.place as u32 + 1);
        let factor = (3.0 * gain / drawing.fan_in as f64).sqrt();
        noise.to_f64().iter().map(|x| (x * factor) as f32).collect()
    };
    Layers::new(name, Fresh::new(Box::new(draw)))
}

/// Names of matrices and filters, which are masked.
pub fn weights(parameters: &Parameters) -> Vec<String> {
    let is_weight =
        |(name, tensor): &(&str, &Arc<Tensor>)| name.ends_with(".weight") && tensor.shape().len() > 1;
    let names: Vec<String> = parameters.iter().filter(is_weight).map(|(name, _)| name.to_string()).collect();
    assert!(!names.is_empty(), "a network without weights");
    names
}

/// A training step of LeNet-300-100 on rows of 784.
pub fn lenet(batch: usize, optimizer: Optimizer) -> (Graph, Parameters) {
    let mut layers = drawn("lenet-300-100", 2.0);
    let x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 784]));
    let logits = networks::lenet_300_100(&mut layers, x, 10).expect("it fits");
    let (graph, source) = training_step(layers, logits, optimizer);
    (graph, source.parameters)
}

/// A training step of a residual network for small images with `blocks` blocks a stage: 3 make ResNet-20.
pub fn resnet(
    batch: usize,
    size: usize,
    widths: &[usize],
    blocks: usize,
    optimizer: Optimizer,
) -> (Graph, Parameters) {
    let mut layers = drawn("resnet", 2.0);
    layers.training = true;
    let x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 3, size, size]));
    let logits = networks::resnet(&mut layers, x, widths, blocks, 10).expect("it fits");
    let (graph, source) = training_step(layers, logits, optimizer);
    (graph, source.parameters)
}

/// Dense layers of these widths over `batch` rows of 12; the logits of 5 outputs.
pub fn mlp<S: ParameterSource>(layers: &mut Layers<S>, batch: usize, widths: &[usize]) -> Built {
    let x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 12]));
    networks::mlp(layers, x, widths, 5)
}

/// A Transformer that predicts the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transformer {
    pub layers: usize,
    pub width: usize,
    pub heads: Heads,
    pub hidden: usize,
}

impl Transformer {
    /// Logits `[texts * length, tokens]` for `x` of `[texts, length]`.
    pub fn build<S: ParameterSource>(
        &self,
        layers: &mut Layers<S>,
        [texts, length]: [usize; 2],
        tokens: usize,
    ) -> Built {
        let x = layers.graph.input("x", DType::I64, Shape::known(&[texts, length]));
        let table = layers.table("embedding", tokens, self.width)?;
        let mut x = layers.look_up(table, x)?;
        for layer in 0..self.layers {
            x = networks::encoder_layer(layers, &format!("layers.{layer}"), x, self.heads, self.hidden)?;
        }
        let x = layers.layer_norm("norm", x)?;
        let logits = layers.project("head", x, tokens)?;
        layers.reshape(logits, &[texts * length, tokens])
    }
}

/// A graph of these outputs and its parameters.
pub fn inference<S>(mut layers: Layers<S>, output: ValueId) -> (Graph, S) {
    layers.graph.output(output);
    (layers.graph, layers.source)
}
