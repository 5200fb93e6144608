//! Layers of Transformers (Vaswani et al. 2017), normalisation first, over `[batch, tokens, width]`.

use crate::error::GraphError;
use crate::graph::ValueId;
use crate::layers::{Built, Layers, ParameterSource};

/// How attention is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Numbers of a query, a key and a value of one head.
    pub width: usize,
}

impl Heads {
    /// Numbers of all heads together.
    pub fn inner(self) -> usize {
        self.count * self.width
    }
}

/// Attention of every token to every token, then two dense layers with ReLU, `hidden` between them; both are added to `x`.
pub fn encoder_layer<S: ParameterSource>(
    layers: &mut Layers<S>,
    name: &str,
    x: ValueId,
    heads: Heads,
    hidden: usize,
) -> Built {
    transformer_layer(layers, name, x, heads, hidden, |layers, qkv| attend_within(layers, qkv, heads, None))
}

/// The same with an attention of the caller's, from queries, keys and values `[.., heads.inner()]` to as many numbers.
pub fn transformer_layer<S: ParameterSource>(
    layers: &mut Layers<S>,
    name: &str,
    x: ValueId,
    heads: Heads,
    hidden: usize,
    attention: impl FnOnce(&mut Layers<S>, [ValueId; 3]) -> Built,
) -> Built {
    let width = layers.extent(x, -1)?;
    let y = layers.layer_norm(&format!("{name}.norm1"), x)?;
    let mut of_all = |part: &str| layers.project(&format!("{name}.{part}"), y, heads.inner());
    let qkv = [of_all("query")?, of_all("key")?, of_all("value")?];
    let y = attention(layers, qkv)?;
    let y = layers.project(&format!("{name}.out"), y, width)?;
    let x = layers.add(x, y)?;
    let y = layers.layer_norm(&format!("{name}.norm2"), x)?;
    let y = layers.project(&format!("{name}.up"), y, hidden)?;
    let y = layers.relu(y)?;
    let y = layers.project(&format!("{name}.down"), y, width)?;
    layers.add(x, y)
}

/// Attention among the tokens of each sample; a `mask`, broadcast over `[batch, heads, tokens, tokens]`, is added to scores.
pub fn attend_within<S: ParameterSource>(
    layers: &mut Layers<S>,
    qkv: [ValueId; 3],
    heads: Heads,
    mask: Option<ValueId>,
) -> Built {
    let mut split = |x| -> Result<ValueId, GraphError> {
        let tokens = layers.extent(x, 1)?;
        let x = layers.reshape(x, &[0, tokens, heads.count, heads.width])?;
        layers.transpose(x, &[0, 2, 1, 3])
    };
    let [q, k, v] = qkv;
    let qkv = [split(q)?, split(k)?, split(v)?];
    let y = layers.attend(qkv, mask)?;
    let y = layers.transpose(y, &[0, 2, 1, 3])?;
    let tokens = layers.extent(y, 1)?;
    layers.reshape(y, &[0, tokens, heads.inner()])
}
