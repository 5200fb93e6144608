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
/// product or by a Transpose, alone or together with the split into heads. One head alone is left: its product has the
/// parallel rows.
pub const RECOGNISE_ATTENTION: Pass = Pass { name: "recognise-attention", rule };

/// The parts, in the graph being copied.
struct Parts {
    q: ValueId,
    k: ValueId,
    /// Order of k's axes that makes it `[.., keys, width]`, where it is not that already.
    order: Option<Vec<usize>>,
    v: ValueId,
    mask: Option<ValueId>,
    scale: f32,
}

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Some(parts) = parts(rebuild, node).filter(|parts| fits(rebuild, parts).is_some()) else {
        return Ok(Outcome::NoEffect);
    };
    let flat = rebuild.from.extents(parts.q)?.len() == 3;
    let mut k = rebuild.mapped(parts.k);
    if let Some(permutation) = parts.order.filter(|order| !order.is_sorted()) {
        k = rebuild.to.apply(Transpose { permutation }, &[k])?;
    }
    let mut operands = vec![];
    for operand in [rebuild.mapped(parts.q), k, rebuild.mapped(parts.v)] {
        let whole = Unsqueeze { axes: vec![0] };
        operands.push(Some(if flat { rebuild.to.apply(whole, &[operand])? } else { operand }));
    }
    operands.extend(parts.mask.map(|mask| Some(rebuild.mapped(mask))));
    let attention = Attention { scale: parts.scale, causal: false };
    let mut y = rebuild.to.apply_all(attention, &operands, &node.name)?[0];
    if flat {
        y = rebuild.to.apply(Squeeze { axes: Some(vec![0]) }, &[y])?;
    }
    rebuild.take_name(node.outputs[0], y);
    Ok(Outcome::Applied)
}

/// What a value is a constant multiple of, and the factor; itself, once, where nothing scales it.
fn scaled(rebuild: &Rebuild<'_>, id: ValueId) -> (ValueId, f64) {
    let unscaled = || {
        let node = alone(rebuild, id)?;
        let (Op::Binary(Binary { function }), &[Some(a), Some(b)]) = (&node.op, &node.inputs[..]) else {
            return None;
        };
        match function {
            BinaryFunction::Mul => {
                let by_b = scalar(rebuild, b).map(|factor| (a, factor));
                by_b.or_else(|| Some((b, scalar(rebuild, a)?)))
            }
            BinaryFunction::Div => Some((a, 1.0 / scalar(rebuild, b)?)),
            _ => None,
        }
    };
    unscaled().unwrap_or((id, 1.0))
}

/// The node that makes `id`, where one other node reads it and nobody else.
fn alone<'a>(rebuild: &Rebuild<'a>, id: ValueId) -> Option<&'a Node> {
    rebuild.producer(id).filter(|_| rebuild.uses(id) == 1)
}

/// Both operands of a matrix product, and whether the right one is transposed.
fn product(node: &Node) -> Option<(ValueId, ValueId, bool)> {
    match (&node.op, &node.inputs[..]) {
        (Op::MatMul(MatMul { transpose_a: false, transpose_b }), &[Some(a), Some(b)]) => {
            Some((a, b, *transpose_b))
        }
        _ => None,
    }
}

fn parts(rebuild: &Rebuild<'_>, node: &Node) -> Option<Parts> {
    let (weights, v, false) = product(node)? else { return None };
    let softmax = alone(rebuild, weights)?;
    let rank = rebuild.from.extents(v).ok()?.len();
    let Op::Softmax(op) = &softmax.op else { return None };
    if op.log || crate::shape::normalize_axis(op.axis, rank)? + 1 != rank {
        return None;
    }
    let scores = softmax.inputs[0]?;
    let first_of = |id| {
        let (unscaled, factor) = scaled(rebuild, id);
        Some((product(alone(rebuild, unscaled)?)?, factor))
    };
    let (((q, k, k_is_rows), factor), mask) = match first_of(scores) {
        Some(first) => (first, None),
        None => {
            let sum = alone(rebuild, scores)?;
            let (Op::Binary(Binary { function: BinaryFunction::Add }), &[Some(a), Some(b)]) =
                (&sum.op, &sum.inputs[..])
            else {
                return None;
            };
            match first_of(a) {
                Some(first) => (first, Some(b)),
                None => (first_of(b)?, Some(a)),
            }
        }
    };
    let ((q, of_q), (k, of_k)) = (scaled(rebuild, q), scaled(rebuild, k));
    let scale = (factor * of_q * of_k) as f32;
    if k_is_rows {
        return Some(Parts { q, k, order: None, v, mask, scale });
    }
    // The transposition may split the heads as well; what is left of it without the exchange of the last axes.
    let transpose = rebuild.producer(k)?;
    let Op::Transpose(op) = &transpose.op else { return None };
    let mut order = op.order(rank).ok()?;
    order.swap(rank - 2, rank - 1);
    Some(Parts { q, k: transpose.inputs[0]?, order: Some(order), v, mask, scale })
}

/// Whether one Attention computes it, and better than its parts do.
fn fits(rebuild: &Rebuild<'_>, parts: &Parts) -> Option<()> {
    let from = rebuild.from;
    let f32 = [parts.q, parts.k, parts.v].iter().all(|&id| from.value(id).ty.dtype == DType::F32);
    let (q, v, k) = (from.extents(parts.q).ok()?, from.extents(parts.v).ok()?, from.extents(parts.k).ok()?);
    let k = parts.order.as_ref().map_or(k.clone(), |order| order.iter().map(|&axis| k[axis]).collect());
    let rank = q.len();
    if !f32 || !(3..=4).contains(&rank) || k.len() != rank || v.len() != rank {
        return None;
    }
    let batch = rank - 2;
    let heads: usize = q[..batch].iter().product();
    let same = q[..batch] == k[..batch] && q[..batch] == v[..batch] && q[rank - 1] == k[rank - 1];
    let scores = [&q[..rank - 1], &k[batch..=batch]].concat();
    let mask_fits = match parts.mask {
        None => true,
        Some(mask) => {
            let mask = from.extents(mask).ok()?;
            let fits = mask.iter().rev().zip(scores.iter().rev()).all(|(m, s)| *m == 1 || m == s);
            mask.len() <= rank && fits
        }
    };
    (same && k[batch] == v[batch] && mask_fits && heads > 1).then_some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::ops::Softmax;
    use crate::parameter::Parameters;
    use crate::rewrite::run_passes;
    use crate::shape::Shape;
    use crate::tensor::Tensor;

    /// How an exporter wrote it.
    #[derive(Clone, Copy, Debug)]
    struct Form {
        /// The factor stands on both operands, as PyTorch's own decomposition has it; else after the product.
        before: bool,
        divide: bool,
        /// The exchange of axes is one with the split into heads.
        merged: bool,
        mask: bool,
        heads: usize,
    }

    fn written(form: Form) -> Graph {
        let mut graph = Graph::new("attention");
        let h = form.heads;
        let mut input = |name: &str, shape: &[usize]| graph.input(name, DType::F32, Shape::known(shape));
        let q = input("q", &[2, h, 3, 4]);
        let k = if form.merged { input("k", &[2, 5, h, 4]) } else { input("k", &[2, h, 5, 4]) };
        let (v, mask) = (input("v", &[2, h, 5, 6]), input("mask", &[2, 1, 1, 5]));
        let by = |graph: &mut Graph, x, factor: f32| {
            let (function, c) = match form.divide {
                true => (BinaryFunction::Div, graph.constant(Tensor::scalar(1.0 / factor))),
                false => (BinaryFunction::Mul, graph.constant(Tensor::scalar(factor))),
            };
            graph.apply(Binary { function }, &[x, c]).unwrap()
        };
        let permutation = if form.merged { vec![0, 2, 3, 1] } else { vec![0, 1, 3, 2] };
        let k = graph.apply(Transpose { permutation }, &[k]).unwrap();
        let (q, k) = match form.before {
            true => (by(&mut graph, q, 0.5), by(&mut graph, k, 0.5)),
            false => (q, k),
        };
        let mut scores = graph.apply(MatMul::default(), &[q, k]).unwrap();
        if !form.before {
            scores = by(&mut graph, scores, 0.25);
        }
        if form.mask {
            scores = graph.apply(Binary { function: BinaryFunction::Add }, &[mask, scores]).unwrap();
        }
        let weights = graph.apply(Softmax { axis: -1, log: false }, &[scores]).unwrap();
        let y = graph.apply(MatMul::default(), &[weights, v]).unwrap();
        graph.output(y);
        graph
    }

    fn results(graph: &Graph) -> Vec<f64> {
        let feed = |(i, &id): (usize, &ValueId)| {
            let extents = graph.extents(id).unwrap();
            (graph.label(id), Example::noise(&extents, i as u32 + 1))
        };
        let feeds: BTreeMap<String, Tensor> = graph.inputs().iter().enumerate().map(feed).collect();
        interpret(graph, &mut Parameters::new(), &feeds).unwrap()[0].to_f64().into_owned()
    }

    #[test]
    fn attention_is_recognised_in_every_form_and_stays_what_it_was() {
        for bits in 0..16 {
            let [before, divide, merged, mask] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
            let graph = written(Form { before, divide, merged, mask, heads: 3 });
            let (short, _) = run_passes(&graph, &[RECOGNISE_ATTENTION], None).unwrap();
            let found = short.nodes().iter().filter(|n| matches!(n.op, Op::Attention(_))).count();
            assert_eq!((found, short.nodes().len()), (1, if merged { 2 } else { 1 }), "{short}");
            for (a, b) in results(&graph).iter().zip(results(&short)) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn scores_that_others_read_are_left_alone() {
        let form = Form { before: false, divide: false, merged: false, mask: true, heads: 2 };
        let mut graph = written(form);
        let scores =
            graph.nodes().iter().find(|n| matches!(n.op, Op::Softmax(_))).unwrap().inputs[0].unwrap();
        graph.output(scores);
        let (same, _) = run_passes(&graph, &[RECOGNISE_ATTENTION], None).unwrap();
        assert!(!same.nodes().iter().any(|n| matches!(n.op, Op::Attention(_))), "{same}");
    }
}
