//! A Transformer decoder, for a whole text at once and for one token after another with a cache of keys and values.

use wattle_graph::layers::{Built, Initially, Layers};
use wattle_graph::networks::{Heads, attend_within, transformer_layer};
use wattle_graph::ops::{Compare, Comparison, Concat, Expand, ScatterNd, ScatterReduction, Where};
use wattle_graph::{DType, Graph, GraphError, Parameters, Role, Shape, Tensor, ValueId};

use super::{Noise, fresh, inference};

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    pub layers: usize,
    pub heads: Heads,
    pub tokens: usize,
    /// Longest text.
    pub length: usize,
}

/// Added to the scores of what may not be attended to.
const NEVER: f32 = -1e9;

impl Decoder {
    /// Logits `[1, length, tokens]` of the whole text `tokens`, `[1, length]`, each from what comes before it.
    pub fn whole(&self) -> (Graph, Parameters) {
        let (mut layers, n) = (fresh("decoder"), self.length);
        let tokens = layers.graph.input("tokens", DType::I64, Shape::known(&[1, n]));
        let mask = (0..n * n).map(|i| if i % n > i / n { NEVER } else { 0.0 }).collect();
        let mask = layers.graph.constant(Tensor::f32([n, n], mask));
        let attention =
            |layers: &mut Layers<Noise>, _, qkv| attend_within(layers, qkv, self.heads, Some(mask));
        let built = self.build(&mut layers, tokens, |_, table| Ok(table), attention);
        let (graph, source) = inference(layers, built.expect("it fits"));
        (graph, source.parameters)
    }

    /// Logits `[1, 1, tokens]` after the token `tokens`, `[1, 1]`, at place `place`, whose keys and values join those kept
    /// before.
    pub fn step(&self) -> (Graph, Parameters) {
        let mut layers = fresh("decoder-step");
        let built = self.next(&mut layers);
        let (graph, source) = inference(layers, built.expect("it fits"));
        (graph, source.parameters)
    }

    fn next(&self, layers: &mut Layers<Noise>) -> Built {
        let (Heads { count, width }, n) = (self.heads, self.length);
        let tokens = layers.graph.input("tokens", DType::I64, Shape::known(&[1, 1]));
        let place = layers.graph.input("place", DType::I64, Shape::known(&[1]));
        let places = layers.graph.constant(Tensor::ints(&(0..n as i64).collect::<Vec<_>>()));
        let later = layers.apply(Compare { comparison: Comparison::Greater }, &[places, place])?;
        let [never, always] = [NEVER, 0.0].map(|x| layers.graph.constant(Tensor::f32([], vec![x])));
        let mask = layers.apply(Where, &[later, never, always])?;
        // The place of each head's new row: `[head, place]`.
        let heads = layers.graph.constant(Tensor::i64([count, 1], (0..count as i64).collect()));
        let column = layers.graph.constant(Tensor::ints(&[count as i64, 1]));
        let column = layers.apply(Expand, &[place, column])?;
        let slots = layers.apply(Concat { axis: 1 }, &[heads, column])?;
        let position = |layers: &mut Layers<Noise>, table| layers.look_up(table, place);
        self.build(layers, tokens, position, |layers, layer, [q, k, v]| {
            let q = layers.reshape(q, &[count, 1, width])?;
            let mut kept = |part: &str, new| -> Result<ValueId, GraphError> {
                let name = format!("layers.{layer}.{part}");
                let kept =
                    layers.parameter(&name, &[count, n, width], Role::State, Initially::Filled(0.0))?;
                let new = layers.reshape(new, &[count, width])?;
                let op = ScatterNd { reduction: ScatterReduction::Replace };
                let next = layers.apply(op, &[kept, slots, new])?;
                layers.graph.assign(kept, next)?;
                Ok(next)
            };
            let (k, v) = (kept("keys", k)?, kept("values", v)?);
            let y = layers.attend([q, k, v], Some(mask))?;
            layers.reshape(y, &[1, 1, self.heads.inner()])
        })
    }

    /// Tokens and their positions, layers of this `attention`, and logits; `positions` takes rows of a table of all.
    fn build(
        &self,
        layers: &mut Layers<Noise>,
        tokens: ValueId,
        positions: impl FnOnce(&mut Layers<Noise>, ValueId) -> Built,
        attention: impl Fn(&mut Layers<Noise>, usize, [ValueId; 3]) -> Built,
    ) -> Built {
        let width = self.heads.inner();
        let table = layers.table("positions", self.length, width)?;
        let positions = positions(layers, table)?;
        let table = layers.table("embedding", self.tokens, width)?;
        let x = layers.look_up(table, tokens)?;
        let mut x = layers.add(x, positions)?;
        for layer in 0..self.layers {
            let name = format!("layers.{layer}");
            let attention = |layers: &mut Layers<Noise>, qkv| attention(layers, layer, qkv);
            x = transformer_layer(layers, &name, x, self.heads, 4 * width, attention)?;
        }
        let x = layers.layer_norm("norm", x)?;
        layers.project("head", x, self.tokens)
    }
}
