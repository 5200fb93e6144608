//! Recognition of attention in the products and the softmax that exporters write.

use super::fold_affine::scalar;
use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, ValueId};
use crate::ops::{Attention, Binary, BinaryFunction, MatMul, Op, Squeeze, Transpose, Unsqueeze};
use crate::tensor::DType;

/// `softmax(s q k^T + mask) v` becomes one operator, whose scores stay in cache and whose heads run in parallel.
///
/// The factor may stand before or after the first product, on either operand, as Mul or Div; k may be transposed by the
/// product or by a Transpose, alone or together with the split into heads. A query that may see no key at all gives
/// zeros in place of NaN. One head alone is left: its product has the parallel rows.
pub const RECOGNISE_ATTENTION: Pass = Pass { name: "recognise-attention", rule };

/// The parts, in the graph being copied.
struct Parts {
    q: ValueId,
    /// With its last two axes exchanged.
    k: ValueId,
    v: ValueId,
    mask: Option<ValueId>,
    scale: f32,
}

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Some(parts) = parts(rebuild, node).filter(|parts| fits(rebuild, node, parts)) else {
        return Ok(Outcome::NoEffect);
    };
    let flat = rebuild.from.extents(parts.q)?.len() == 3;
    let k = untransposed(rebuild, parts.k)?;
    let mut operands = vec![];
    for operand in [rebuild.mapped(parts.q), k, rebuild.mapped(parts.v)] {
        let whole = Unsqueeze { axes: vec![0] };
        operands.push(Some(if flat { rebuild.to.apply(whole, &[operand])? } else { operand }));
    }
    operands.extend(parts.mask.map(|mask| Some(rebuild.mapped(mask))));
    let attention = Attention { scale: parts.scale, causal: false };
    let mut y = rebuild.to.apply_all(attention, &operands, &node.name)?[0];
    if flat {
        y = rebuild.to.apply(Squeeze { axes: vec![0] }, &[y])?;
    }
    rebuild.take_name(node.outputs[0], y);
    Ok(Outcome::Applied)
}

fn parts(rebuild: &Rebuild<'_>, node: &Node) -> Option<Parts> {
    let (weights, v) = product(node, false)?;
    let softmax = alone(rebuild, weights)?;
    let rank = rebuild.from.extents(v).ok()?.len();
    let Op::Softmax(op) = &softmax.op else { return None };
    if op.log || crate::shape::normalize_axis(op.axis, rank)? + 1 != rank {
        return None;
    }
    let mut scores = softmax.inputs[0]?;
    let mut mask = None;
    if let Some((a, b)) = sum(alone(rebuild, scores)?) {
        // The scores are what a product, scaled or not, has made.
        let made = |id| scaled(rebuild, id).is_some_and(|(id, _)| alone(rebuild, id).is_some_and(is_product));
        (scores, mask) = if made(a) { (a, Some(b)) } else { (made(b).then_some(b)?, Some(a)) };
    }
    let (product_of, after) = scaled(rebuild, scores)?;
    let first = alone(rebuild, product_of)?;
    let (transposed, (q, k)) = match &first.op {
        Op::MatMul(MatMul { transpose_a: false, transpose_b }) => {
            (*transpose_b, product(first, *transpose_b)?)
        }
        _ => return None,
    };
    let ((q, of_q), (k, of_k)) = (scaled(rebuild, q)?, scaled(rebuild, k)?);
    let swapped = rebuild.producer(k).is_some_and(|n| swaps_last(&n.op, rank));
    (!transposed && swapped).then_some(Parts { q, k, v, mask, scale: (after * of_q * of_k) as f32 })
}

/// Both operands of a plain product.
fn product(node: &Node, transpose_b: bool) -> Option<(ValueId, ValueId)> {
    match (&node.op, &node.inputs[..]) {
        (Op::MatMul(op), &[Some(a), Some(b)])
            if *op == (MatMul { transpose_a: false, transpose_b }) =>
        {
            Some((a, b))
        }
        _ => None,
    }
}
