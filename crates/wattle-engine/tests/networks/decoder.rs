//! A Transformer decoder, for a whole text at once and for one token after another with a cache of keys and values.

use wattle_graph::ops::*;
use wattle_graph::{DType, Graph, Parameter, Shape, Tensor, ValueId};

use super::elastic::{Elastic, View};

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    pub layers: usize,
    pub heads: usize,
    pub head_width: usize,
    pub tokens: usize,
    /// Longest text.
    pub length: usize,
}

/// Added to the scores of what may not be attended to.
const NEVER: f32 = -1e9;

impl Decoder {
    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Logits `[length, tokens]` of the whole text `tokens`, each from what comes before it.
    pub fn whole(&self) -> Graph {
        let (mut e, n) = (Elastic::new("decoder", View::Windows), self.length);
        let tokens = e.graph.input("tokens", DType::I64, Shape::known(&[n]));
        let mask = (0..n * n).map(|i| if i % n > i / n { NEVER } else { 0.0 }).collect();
        let mask = e.graph.constant(Tensor::f32([n, n], mask));
        let positions = e.weight("positions", &[n, self.width()], &[n, self.width()]);
        self.layers(&mut e, tokens, positions, |this, e, _, [q, k, v]| {
            let split = |e: &mut Elastic, x| {
                let x = e.reshape(x, &[n, this.heads, this.head_width]);
                e.transpose(x, &[1, 0, 2])
            };
            let [q, k, v] = [q, k, v].map(|x| split(e, x));
            let y = e.attend(q, k, v, Some(mask), this.head_width);
            let y = e.transpose(y, &[1, 0, 2]);
            e.reshape(y, &[n, this.width()])
        })
    }

    /// Logits `[1, tokens]` after the token `tokens` at place `place`, whose keys and values join those kept before.
    pub fn step(&self) -> Graph {
        let (mut e, n) = (Elastic::new("decoder-step", View::Windows), self.length);
        let tokens = e.graph.input("tokens", DType::I64, Shape::known(&[1]));
        let place = e.graph.input("place", DType::I64, Shape::known(&[1]));
        let table = e.weight("positions", &[n, self.width()], &[n, self.width()]);
        let position = e.apply(Gather { axis: 0 }, &[table, place]);
        let places = e.graph.constant(Tensor::ints(&(0..n as i64).collect::<Vec<_>>()));
        let later = e.apply(Compare { comparison: Comparison::Greater }, &[places, place]);
        let [never, always] = [NEVER, 0.0].map(|x| e.graph.constant(Tensor::f32([], vec![x])));
        let mask = e.apply(Where, &[later, never, always]);
        // The place of each head's new row: `[head, place]`.
        let heads = Tensor::i64([self.heads, 1], (0..self.heads as i64).collect());
        let heads = e.graph.constant(heads);
        let column = e.graph.constant(Tensor::ints(&[self.heads as i64, 1]));
        let column = e.apply(Expand, &[place, column]);
        let slots = e.apply(Concat { axis: 1 }, &[heads, column]);
        self.layers(&mut e, tokens, position, |this, e, layer, [q, k, v]| {
            let q = e.reshape(q, &[this.heads, 1, this.head_width]);
            let [k, v] = [("keys", k), ("values", v)].map(|(name, new)| {
                let extents = [this.heads, n, this.head_width];
                let kept = Parameter::state(format!("layer{layer}.{name}"));
                let kept = e.graph.parameter(kept, DType::F32, &extents);
                let new = e.reshape(new, &[this.heads, this.head_width]);
                let op = ScatterNd { reduction: ScatterReduction::Replace };
                let next = e.apply(op, &[kept, slots, new]);
                e.graph.assign(kept, next).expect("types agree");
                next
            });
            let y = e.attend(q, k, v, Some(mask), this.head_width);
            e.reshape(y, &[1, this.width()])
        })
    }

    fn layers(
        &self,
        e: &mut Elastic,
        tokens: ValueId,
        positions: ValueId,
        attention: impl Fn(&Decoder, &mut Elastic, usize, [ValueId; 3]) -> ValueId,
    ) -> Graph {
        let width = self.width();
        let table = e.weight("embedding", &[self.tokens, width], &[self.tokens, width]);
        let x = e.apply(Gather { axis: 0 }, &[table, tokens]);
        let mut x = e.add(x, positions);
        for layer in 0..self.layers {
            let name = |part: &str| format!("layer{layer}.{part}");
            let y = e.norm(x, &name("norm1"), width, width);
            let qkv = ["q", "k", "v"].map(|n| e.dense(y, &name(n), [width; 2], [width; 2]));
            let y = attention(self, e, layer, qkv);
            let y = e.dense(y, &name("out"), [width; 2], [width; 2]);
            x = e.add(x, y);
            let y = e.norm(x, &name("norm2"), width, width);
            let y = e.dense(y, &name("up"), [width, 4 * width], [width, 4 * width]);
            let y = e.relu(y);
            let y = e.dense(y, &name("down"), [4 * width, width], [4 * width, width]);
            x = e.add(x, y);
        }
        let x = e.norm(x, "norm", width, width);
        let logits = e.dense(x, "head", [width, self.tokens], [width, self.tokens]);
        e.graph.output(logits);
        std::mem::take(&mut e.graph)
    }
}
