//! Fusion of quantised arithmetic that is spelled out: DequantizeLinear, a float operator, QuantizeLinear.

use std::sync::Arc;

use super::{Outcome, Pass, Rebuild, bind};
use crate::error::GraphError;
use crate::graph::{Node, ValueId};
use crate::ops::{
    Binary, BinaryFunction, Conv, DequantizeLinear, Function, Gemm, Op, PoolKind, QLinearAdd, QLinearConv,
    QLinearMatMul, QuantizeLinear, Unary,
};
use crate::shape::normalize_axis;
use crate::tensor::{DType, Tensor};

/// Convolutions, matrix products and additions between DequantizeLinear and QuantizeLinear become operators on bytes;
/// what only moves elements, or picks the largest, does it with bytes. A ReLU whose zero is the smallest byte is what
/// rounding to bytes does anyway. Sums are formed exactly instead of in floats, so that a result on the border of two
/// steps may take the other one.
pub const FUSE_QUANTIZED: Pass = Pass { name: "fuse-quantized", rule };

/// Constants that are stored quantised become floats, where no operator on bytes has taken them in.
pub const FOLD_QUANTIZED: Pass = Pass { name: "fold-quantized", rule: fold };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    match fused(rebuild, node)? {
        None => Ok(Outcome::NoEffect),
        Some(y) => {
            rebuild.take_name(node.outputs[0], y);
            Ok(Outcome::Applied)
        }
    }
}

fn fold(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    match node.op {
        Op::DequantizeLinear(_) => bind::fold_quantized(rebuild, node),
        _ => Ok(Outcome::NoEffect),
    }
}

/// A tensor as bytes with what they mean, in the graph being copied.
struct Quantized {
    bytes: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: i64,
}

impl Quantized {
    fn of(node: &Node, axis: i64, block: usize) -> Option<Quantized> {
        let &[Some(bytes), Some(scale), ref zero @ ..] = &node.inputs[..] else { return None };
        (block == 0).then(|| Quantized { bytes, scale, zero: zero.first().copied().flatten(), axis })
    }

    /// What `id` is the numbers of.
    fn behind(rebuild: &Rebuild<'_>, id: ValueId) -> Option<Quantized> {
        let node = rebuild.producer(id)?;
        let Op::DequantizeLinear(DequantizeLinear { quantization: q }) = &node.op else { return None };
        Quantized::of(node, q.axis, q.block)
    }

    fn scales<'a>(&self, rebuild: &Rebuild<'a>) -> Option<&'a Arc<Tensor>> {
        rebuild.from.constant_of(self.scale).filter(|s| s.dtype() == DType::F32)
    }

    /// Whether it is one of the 8-bit types with one constant scale and one constant zero point; those.
    fn whole(&self, rebuild: &Rebuild<'_>, dtype: DType) -> Option<(f32, i64)> {
        let scale = self.scales(rebuild)?.as_f32()?;
        let zero = match self.zero {
            None => 0,
            Some(zero) => one(&rebuild.from.constant_of(zero)?.to_i64())?,
        };
        matches!(dtype, DType::U8 | DType::I8).then_some((one(scale)?, zero))
    }

    /// The zero point in the graph being built.
    fn zero(&self, rebuild: &mut Rebuild<'_>, dtype: DType) -> ValueId {
        match self.zero {
            Some(zero) => rebuild.mapped(zero),
            None => rebuild.to.constant(Tensor::zeros(dtype, [])),
        }
    }

    /// Bytes, scale and zero point in the graph being built.
    fn operands(&self, rebuild: &mut Rebuild<'_>) -> [Option<ValueId>; 3] {
        let dtype = rebuild.from.value(self.bytes).ty.dtype;
        let zero = self.zero(rebuild, dtype);
        [Some(rebuild.mapped(self.bytes)), Some(rebuild.mapped(self.scale)), Some(zero)]
    }
}

fn one<T: Copy>(list: &[T]) -> Option<T> {
    match list {
        [x] => Some(*x),
        _ => None,
    }
}

/// What takes the place of a QuantizeLinear and what is before it.
fn fused(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Option<ValueId>, GraphError> {
    let Some((end, to, levels)) = end(rebuild, node) else { return Ok(None) };
    let Some(x) = below_limits(rebuild, end.bytes, levels, to) else { return Ok(None) };
    let Some(body) = rebuild.producer(x) else { return Ok(None) };
    if rebuild.uses(x) != 1 || rebuild.from.outputs().contains(&x) {
        return Ok(None);
    }
    let (op, mut operands): (Op, _) = match &body.op {
        Op::Conv(Conv { sliding, groups }) => {
            let conv = Conv { sliding: sliding.clone(), groups: *groups };
            match product(rebuild, body, 0, false) {
                Some(operands) => (QLinearConv { conv }.into(), operands),
                None => return Ok(None),
            }
        }
        Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b }) => {
            match product(rebuild, body, if *transpose_b { 0 } else { 1 }, *transpose_b) {
                Some(operands) => (QLinearMatMul.into(), operands),
                None => return Ok(None),
            }
        }
        Op::MatMul(_) => match product(rebuild, body, -1, false) {
            Some(operands) => (QLinearMatMul.into(), operands),
            None => return Ok(None),
        },
        Op::Binary(Binary { function: BinaryFunction::Add }) => {
            let mut operands = vec![];
            for id in &body.inputs {
                let Some(term) = id.and_then(|id| Quantized::behind(rebuild, id)) else { return Ok(None) };
                let dtype = rebuild.from.value(term.bytes).ty.dtype;
                if term.whole(rebuild, dtype).is_none() {
                    return Ok(None);
                }
                operands.extend(term.operands(rebuild));
            }
            (QLinearAdd.into(), operands)
        }
        op if moves(op) => {
            let same = body.inputs[0].and_then(|id| Quantized::behind(rebuild, id)).filter(|from| {
                let dtype = rebuild.from.value(from.bytes).ty.dtype;
                dtype == to && from.whole(rebuild, dtype) == Some(levels)
            });
            let Some(from) = same else { return Ok(None) };
            let mut operands = rebuild.operands(body);
            operands[0] = Some(rebuild.mapped(from.bytes));
            return Ok(Some(rebuild.to.apply_all(op.clone(), &operands, &body.name)?[0]));
        }
        _ => return Ok(None),
    };
    let zero = end.zero(rebuild, to);
    operands.splice(6..6, [Some(rebuild.mapped(end.scale)), Some(zero)]);
    Ok(Some(rebuild.to.apply_all(op, &operands, &body.name)?[0]))
}

/// A QuantizeLinear to bytes of one constant scale: its operands, type, scale and zero point.
fn end(rebuild: &Rebuild<'_>, node: &Node) -> Option<(Quantized, DType, (f32, i64))> {
    let Op::QuantizeLinear(QuantizeLinear { quantization: q, to }) = &node.op else { return None };
    let end = Quantized::of(node, q.axis, q.block)?;
    let levels = end.whole(rebuild, *to)?;
    (rebuild.from.value(end.bytes).ty.dtype == DType::F32).then_some((end, *to, levels))
}

/// What `x` is without limits that rounding to bytes sets anyway.
fn below_limits(rebuild: &Rebuild<'_>, x: ValueId, (scale, zero): (f32, i64), to: DType) -> Option<ValueId> {
    let (lowest, highest) = if to == DType::I8 { (-128, 127) } else { (0, 255) };
    let Some(node) = rebuild.producer(x) else { return Some(x) };
    let limit = |index: usize, open: f32| match node.inputs.get(index).copied().flatten() {
        None => Some(open),
        Some(id) => one(rebuild.from.constant_of(id)?.as_f32()?),
    };
    let (low, high) = match node.op {
        Op::Unary(Unary { function: Function::Relu }) => (0.0, f32::INFINITY),
        Op::Clip(_) => match (limit(1, f32::NEG_INFINITY), limit(2, f32::INFINITY)) {
            (Some(low), Some(high)) => (low, high),
            _ => return Some(x),
        },
        _ => return Some(x),
    };
    let idle = (low / scale).round_ties_even() + zero as f32 <= lowest as f32
        && (high / scale).round_ties_even() + zero as f32 >= highest as f32;
    // A limit that bites, or that others read, stays where it is.
    (idle && rebuild.uses(x) == 1 && !rebuild.from.outputs().contains(&x)).then_some(node.inputs[0]?)
}

/// Operands of a product of bytes, without those of the result; those of the weights have their scales along `axis`.
fn product(rebuild: &mut Rebuild<'_>, body: &Node, axis: i64, turned: bool) -> Option<Vec<Option<ValueId>>> {
    let (a, b) = (Quantized::behind(rebuild, body.inputs[0]?)?, Quantized::behind(rebuild, body.inputs[1]?)?);
    let [a_type, b_type] = [a.bytes, b.bytes].map(|id| rebuild.from.value(id).ty.dtype);
    let (a_scale, _) = a.whole(rebuild, a_type)?;
    let weights = rebuild.from.constant_of(b.bytes).cloned();
    let scales = b.scales(rebuild)?.clone();
    let zeros = b.zero.map(|zero| rebuild.from.constant_of(zero).cloned());
    if !matches!(b_type, DType::U8 | DType::I8) || matches!(zeros, Some(None)) {
        return None;
    }
    if scales.len() != 1 {
        let rank = rebuild.from.value(b.bytes).ty.shape.rank()?;
        if normalize_axis(b.axis, rank) != normalize_axis(axis, rank) || scales.shape().len() != 1 {
            return None;
        }
    }
    let bias = match body.inputs.get(2).copied().flatten() {
        None => None,
        Some(id) => Some(whole_bias(rebuild, id, a_scale, scales.as_f32()?)?),
    };
    let mut operands = a.operands(rebuild).to_vec();
    operands.extend(b.operands(rebuild));
    if turned {
        let weights = weights?;
        let &[n, k] = weights.shape() else { return None };
        let source: Vec<_> = (0..k * n).map(|i| Some(i % n * k + i / n)).collect();
        operands[3] = Some(rebuild.to.constant(weights.take([k, n], &source)));
    }
    if let Some(bias) = bias {
        operands.push(Some(rebuild.to.constant(bias)));
    }
    Some(operands)
}

/// A constant bias in units of the product's sums, if it is stored in them.
fn whole_bias(rebuild: &Rebuild<'_>, id: ValueId, a_scale: f32, b_scales: &[f32]) -> Option<Tensor> {
    let bias = Quantized::behind(rebuild, id)?;
    let levels = rebuild.from.constant_of(bias.bytes)?;
    let (scales, count) = (bias.scales(rebuild)?.as_f32()?, levels.len());
    let zero = bias.zero.map(|zero| rebuild.from.constant_of(zero));
    let centred = match zero {
        None => true,
        Some(zero) => zero?.to_i64().iter().all(|&z| z == 0),
    };
    let of = |list: &[f32], i: usize| list[if list.len() == 1 { 0 } else { i }];
    let fits = |list: &[f32]| list.len() == 1 || list.len() == count;
    let near = |i: usize| {
        let (found, wanted) = (of(scales, i), a_scale * of(b_scales, i));
        (found - wanted).abs() <= 1e-5 * wanted.abs()
    };
    let same = levels.dtype() == DType::I32 && levels.shape().len() == 1 && centred;
    (same && fits(scales) && fits(b_scales) && (0..count).all(near)).then(|| (**levels).clone())
}

/// Whether the results are elements of operand 0, and the largest of bytes are the bytes of the largest.
fn moves(op: &Op) -> bool {
    match op {
        Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Transpose(_) | Op::Unsqueeze(_) => true,
        Op::Pool(pool) => pool.kind == PoolKind::Max && !pool.indices,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::ops::{Flatten, Pool, Quantization, Sliding};
    use crate::parameter::Parameters;
    use crate::rewrite::run_passes;
    use crate::shape::Shape;

    const WHOLE: Quantization = Quantization { axis: 1, block: 0 };

    fn constant(graph: &mut Graph, dtype: DType, shape: &[usize], seed: i64) -> ValueId {
        let count = shape.iter().product::<usize>() as i64;
        let values = (0..count).map(|i| (i * i * 37 + seed) % 251 - 125).collect();
        graph.constant(Tensor::from_i64(dtype, shape, values))
    }

    fn real(graph: &mut Graph, bytes: ValueId, scale: Vec<f32>, zero: Option<i64>, axis: i64) -> ValueId {
        let dtype = graph.value(bytes).ty.dtype;
        let zero = zero.map(|z| Tensor::from_i64(dtype, [], vec![z])).map(|z| graph.constant(z));
        let shape = if scale.len() == 1 { vec![] } else { vec![scale.len()] };
        let scale = graph.constant(Tensor::f32(shape, scale));
        let op = DequantizeLinear { quantization: Quantization { axis, block: 0 } };
        graph.apply_all(op, &[Some(bytes), Some(scale), zero], "").unwrap()[0]
    }

    fn level(graph: &mut Graph, x: ValueId, scale: f32, zero: i64) -> ValueId {
        let zero = graph.constant(Tensor::from_i64(DType::U8, [], vec![zero]));
        let scale = graph.constant(Tensor::scalar(scale));
        let op = QuantizeLinear { quantization: WHOLE, to: DType::U8 };
        graph.apply(op, &[x, scale, zero]).unwrap()
    }

    /// Convolution, ReLU, its maximum, a sum with it, and a fully connected layer, all by way of floats.
    fn network() -> Graph {
        let mut g = Graph::new("quantised");
        let x = g.input("x", DType::F32, Shape::known(&[2, 3, 6, 6]));
        let bytes = level(&mut g, x, 0.01, 128);
        let x = real(&mut g, bytes, vec![0.01], Some(128), 1);
        let w = constant(&mut g, DType::I8, &[4, 3, 3, 3], 1);
        let scales = vec![0.001, 0.002, 0.0015, 0.0005];
        let w = real(&mut g, w, scales.clone(), None, 0);
        let b = constant(&mut g, DType::I32, &[4], 7);
        let b = real(&mut g, b, scales.iter().map(|s| s * 0.01).collect(), None, 0);
        let conv = Conv { sliding: Sliding::padded(2, 1), groups: 1 };
        let y = g.apply(conv, &[x, w, b]).unwrap();
        let y = g.apply(Unary { function: Function::Relu }, &[y]).unwrap();
        let bytes = level(&mut g, y, 0.004, 0);
        let y = real(&mut g, bytes, vec![0.004], Some(0), 1);
        let pool = g.apply(Pool::new(PoolKind::Max, &[3, 3], Sliding::padded(2, 1)), &[y]).unwrap();
        let bytes = level(&mut g, pool, 0.004, 0);
        let pool = real(&mut g, bytes, vec![0.004], Some(0), 1);
        let sum = g.apply(Binary { function: BinaryFunction::Add }, &[y, pool]).unwrap();
        let bytes = level(&mut g, sum, 0.007, 3);
        let sum = real(&mut g, bytes, vec![0.007], Some(3), 1);
        let flat = g.apply(Flatten { axis: 1 }, &[sum]).unwrap();
        let bytes = level(&mut g, flat, 0.007, 3);
        let flat = real(&mut g, bytes, vec![0.007], Some(3), 1);
        let w = constant(&mut g, DType::I8, &[5, 144], 3);
        let w = real(&mut g, w, vec![0.001, 0.002, 0.0015, 0.0005, 0.001], None, 0);
        let gemm = Gemm { transpose_b: true, ..Gemm::default() };
        let y = g.apply(gemm, &[flat, w]).unwrap();
        let bytes = level(&mut g, y, 0.02, 100);
        let y = real(&mut g, bytes, vec![0.02], Some(100), 1);
        g.output(y);
        g
    }

    #[test]
    fn products_sums_and_moves_between_bytes_are_done_in_bytes() {
        let graph = network();
        let (fused, _) = run_passes(&graph, &[FUSE_QUANTIZED], None).unwrap();
        let names: Vec<_> = fused.nodes().iter().map(|n| n.op.name()).collect();
        let wanted = [
            "QuantizeLinear",
            "QLinearConv",
            "MaxPool",
            "QLinearAdd",
            "Flatten",
            "QLinearMatMul",
            "DequantizeLinear",
        ];
        assert_eq!(names, wanted, "{fused}");
        let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[2, 3, 6, 6], 1))]);
        let before = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
        let after = interpret(&fused, &mut Parameters::new(), &feeds).unwrap();
        let mut levels = std::collections::BTreeSet::new();
        for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
            assert!((a - b).abs() < 0.0201, "more than a step apart: {a} {b}");
            levels.insert((a / 0.02).round() as i64);
        }
        assert!(levels.len() > 5, "the results differ enough to compare: {levels:?}");
    }

    #[test]
    fn a_limit_that_bites_and_a_bias_in_other_units_stay_as_written() {
        for (zero, bias_scale, fuses) in [(0, 2e-5, true), (5, 2e-5, false), (0, 3e-5, false)] {
            let mut g = Graph::new("refused");
            let x = g.input("x", DType::U8, Shape::known(&[1, 2, 4, 4]));
            let x = real(&mut g, x, vec![0.01], Some(128), 1);
            let w = constant(&mut g, DType::I8, &[2, 2, 1, 1], 1);
            let w = real(&mut g, w, vec![0.002], None, 1);
            let b = constant(&mut g, DType::I32, &[2], 7);
            let b = real(&mut g, b, vec![bias_scale], None, 0);
            let y = g.apply(Conv { sliding: Sliding::padded(2, 0), groups: 1 }, &[x, w, b]).unwrap();
            let y = g.apply(Unary { function: Function::Relu }, &[y]).unwrap();
            let y = level(&mut g, y, 0.01, zero);
            g.output(y);
            let (after, _) = run_passes(&g, &[FUSE_QUANTIZED], None).unwrap();
            assert_eq!(after.nodes().len() == 1, fuses, "zero {zero}, bias in {bias_scale}: {after}");
        }
    }
}
