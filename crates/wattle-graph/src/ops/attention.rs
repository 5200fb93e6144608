//! Attention: scaled dot-product attention in one pass, without the matrix of weights ever leaving the operator.

use super::concrete::result_shapes;
use super::gemm::repeats_to;
use super::*;
use crate::shape::{Dim, Shape};

/// `softmax(scale q k^T + mask) v` (Vaswani et al. 2017, equation 1): `(q [B, H, S, D], k [B, H, T, D],
/// v [B, H, T, E], mask? broadcastable to [B, H, S, T]) -> [B, H, S, E]`.
///
/// A query whose every key is masked by -inf gets NaN, as from the softmax and the product of which it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Factor of the products, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Query i sees keys 0..=i only.
    pub causal: bool,
}

/// `(q, k, v, mask?, dy) -> (dq, dk, dv)`; the weights are computed again.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionGradient {
    /// The forward operator.
    pub forward: Attention,
}

/// Extents of one application.
struct Sizes {
    heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    value_width: usize,
    /// For each weight, the mask element added to it.
    mask_at: Option<Vec<usize>>,
}

impl Attention {
    /// Checks q, k, v and mask; gives the shape of the result.
    fn result(&self, inputs: Operands<'_>) -> Result<TensorType, OpError> {
        let dtype = inputs.expect_float(0, "q")?;
        for (index, name) in [(0, "q"), (1, "k"), (2, "v")] {
            inputs.expect_dtype(index, name, &[dtype])?;
            inputs.expect_rank(index, name, 4)?;
        }
        let (Some(q), Some(k), Some(v)) = (inputs.dims(0, "q")?, inputs.dims(1, "k")?, inputs.dims(2, "v")?)
        else {
            return Ok(TensorType::new(dtype, Shape::Unknown));
        };
        let equal = |a: &Dim, b: &Dim| a == b || a.known().is_none() || b.known().is_none();
        if !(equal(&q[0], &k[0]) && equal(&q[1], &k[1]) && equal(&q[3], &k[3])) {
            return Err(OpError::mismatch(
                "k",
                inputs.ty(1, "k")?,
                format!("batch, heads and width of q {}", inputs.ty(0, "q")?),
            ));
        }
        if !(0..3).all(|a| equal(&v[a], &k[a])) {
            return Err(OpError::mismatch(
                "v",
                inputs.ty(2, "v")?,
                format!("batch, heads and length of k {}", inputs.ty(1, "k")?),
            ));
        }
        if inputs.optional(3).is_some() {
            inputs.expect_dtype(3, "mask", &[dtype])?;
            let weights = [q[0].clone(), q[1].clone(), q[2].clone(), k[2].clone()];
            if inputs.dims(3, "mask")?.is_some_and(|m| !repeats_to(m, &weights)) {
                let wanted = format!("a shape that broadcasts to {}", Shape::from(weights.to_vec()));
                return Err(OpError::mismatch("mask", inputs.ty(3, "mask")?, wanted));
            }
        }
        Ok(TensorType::new(dtype, vec![q[0].clone(), q[1].clone(), q[2].clone(), v[3].clone()]))
    }

    fn sizes(&self, inputs: Tensors<'_>) -> Result<Sizes, OpError> {
        let (q, v) = (inputs.get(0)?.shape(), inputs.get(2)?.shape());
        let weights = super::concrete::bounded(vec![q[0], q[1], q[2], v[2]])?;
        let mask_at = inputs.optional(3).map(|m| super::binary::broadcast_indices(m.shape(), &weights));
        let [heads, queries] = [q[0] * q[1], q[2]];
        Ok(Sizes { heads, queries, keys: v[2], width: q[3], value_width: v[3], mask_at })
    }

    /// The weights of one query over all keys; `row` counts queries over all heads.
    fn weights(&self, s: &Sizes, row: usize, q: &[f64], k: &[f64], mask: Option<&[f64]>) -> Vec<f64> {
        let (head, query) = (row / s.queries, row % s.queries);
        let score = |key: usize| {
            if self.causal && key > query {
                return f64::NEG_INFINITY;
            }
            let at = head * s.keys + key;
            let (x, y) = (&q[row * s.width..][..s.width], &k[at * s.width..][..s.width]);
            let dot: f64 = x.iter().zip(y).map(|(a, b)| a * b).sum();
            let added = s.mask_at.as_ref().zip(mask).map_or(0.0, |(to, m)| m[to[row * s.keys + key]]);
            f64::from(self.scale) * dot + added
        };
        let scores: Vec<f64> = (0..s.keys).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            return vec![f64::NAN; s.keys];
        }
        let powers: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / sum).collect()
    }

    /// Number of (query, key) pairs over all heads, counting those that a causal mask removes.
    fn pairs(shapes: &Shapes<'_>) -> (u64, u64, u64) {
        let (q, v) = (shapes.input(0), shapes.input(2));
        let extent = |list: &[usize], axis: usize| list.get(axis).copied().unwrap_or(0) as u64;
        let pairs = (0..3).map(|a| extent(q, a)).product::<u64>() * extent(v, 2);
        (pairs, extent(q, 3), extent(v, 3))
    }
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let causal = self.causal.then_some(("is_causal", Attribute::Int(1)));
        [Some(("scale", Attribute::Float(self.scale))), causal].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![self.result(inputs)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let (q, k, v) = (inputs.get(0)?, inputs.get(1)?.to_f64(), inputs.get(2)?.to_f64());
        let (qs, mask, s) = (q.to_f64(), inputs.optional(3).map(Tensor::to_f64), self.sizes(inputs)?);
        let mut y = vec![0.0; shape.iter().product()];
        for row in 0..s.heads * s.queries {
            let weights = self.weights(&s, row, &qs, &k, mask.as_deref());
            for (key, weight) in weights.into_iter().enumerate() {
                let from = (row / s.queries * s.keys + key) * s.value_width;
                for e in 0..s.value_width {
                    y[row * s.value_width + e] += weight * v[from + e];
                }
            }
        }
        Ok(vec![Tensor::from_f64(q.dtype(), shape, y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(3) {
            return Ok(Gradient::NotDifferentiable("the mask of Attention is not trained"));
        }
        let mut operands: Vec<_> = (0..4).map(|i| g.optional_input(i)).collect();
        operands.push(g.output_gradient(0));
        let parts = g.apply_all(AttentionGradient { forward: self.clone() }, &operands)?;
        Ok(Gradient::Inputs(parts.into_iter().map(Some).chain([None]).collect()))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let (pairs, width, value_width) = Attention::pairs(shapes);
        let macs = pairs.saturating_mul(width + value_width);
        // Scaling, mask and softmax.
        Work { element_ops: pairs.saturating_mul(6), ..Work::macs(MacKind::Standard, macs, 1.0) }
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let dtype = node.input_type(0).dtype;
        let permutation = vec![("perm", Attribute::Ints(vec![0, 1, 3, 2]))];
        let keys = node.emit("Transpose", &[node.input(1)], permutation);
        let mut scores = node.emit("MatMul", &[node.input(0), keys], vec![]);
        if self.scale != 1.0 {
            let scale = node.constant(Tensor::scalar(self.scale).cast(dtype));
            scores = node.emit("Mul", &[scores, scale], vec![]);
        }
        if !node.input(3).is_empty() {
            scores = node.emit("Add", &[scores, node.input(3)], vec![]);
        }
        if self.causal {
            let extents = (node.input_type(0).shape.extents(), node.input_type(1).shape.extents());
            let (Some(q), Some(k)) = extents else {
                return Err(OpError::Unbound("the length of the sequence"));
            };
            let (queries, keys) = (q[2], k[2]);
            super::concrete::bounded(vec![queries, keys])?;
            let seen = |i: usize| if i % keys > i / keys { f64::NEG_INFINITY } else { 0.0 };
            let later = Tensor::from_f64(dtype, [queries, keys], (0..queries * keys).map(seen).collect());
            let later = node.constant(later);
            scores = node.emit("Add", &[scores, later], vec![]);
        }
        let weights = node.emit("Softmax", &[scores], vec![("axis", Attribute::Int(-1))]);
        node.emit_final("MatMul", &[weights, node.input(2)], vec![]);
        Ok(())
    }
}

impl Described for Attention {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("Attention is recognised in its parts, not read"))
    }

    fn examples() -> Vec<Example> {
        let of = |causal, mask: Option<&[usize]>, macs| {
            let [q, k, v]: [&[usize]; 3] = [&[2, 2, 3, 4], &[2, 2, 5, 4], &[2, 2, 5, 3]];
            let mut inputs: Vec<_> = [q, k, v].iter().zip(1..).map(|(s, i)| Example::noise(s, i)).collect();
            inputs.extend(mask.map(|m| Example::noise(m, 4)));
            Example::new(Attention { scale: 0.5, causal }, inputs).constants(&[3]).macs(macs)
        };
        let pairs = 2 * 2 * 3 * 5;
        vec![of(false, None, pairs * 7), of(true, None, pairs * 7), of(false, Some(&[2, 1, 1, 5]), pairs * 7)]
    }
}

impl Operator for AttentionGradient {
    fn name(&self) -> &'static str {
        "AttentionGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.forward.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let y = self.forward.result(inputs)?;
        let dy = inputs.ty(4, "dy")?;
        if *dy != y {
            return Err(OpError::mismatch("dy", dy, y));
        }
        Ok(vec![inputs.ty(0, "q")?.clone(), inputs.ty(1, "k")?.clone(), inputs.ty(2, "v")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let [q, k, v, dy] = [0, 1, 2, 4].map(|i| inputs.get(i));
        let (q, k, v, dys) = (q?, k?, v?, dy?.to_f64());
        let (qs, ks, vs) = (q.to_f64(), k.to_f64(), v.to_f64());
        let (mask, s) = (inputs.optional(3).map(Tensor::to_f64), self.forward.sizes(inputs)?);
        let scale = f64::from(self.forward.scale);
        let (mut dq, mut dk, mut dv) = (vec![0.0; qs.len()], vec![0.0; ks.len()], vec![0.0; vs.len()]);
        for row in 0..s.heads * s.queries {
            let weights = self.forward.weights(&s, row, &qs, &ks, mask.as_deref());
            let first_key = row / s.queries * s.keys;
            let dy = &dys[row * s.value_width..][..s.value_width];
            let dweights: Vec<f64> = (0..s.keys)
                .map(|key| {
                    let value = &vs[(first_key + key) * s.value_width..][..s.value_width];
                    dy.iter().zip(value).map(|(a, b)| a * b).sum()
                })
                .collect();
            let mean: f64 = weights.iter().zip(&dweights).map(|(w, d)| w * d).sum();
            for (key, (weight, dweight)) in weights.iter().zip(&dweights).enumerate() {
                let at = first_key + key;
                for (e, d) in dy.iter().enumerate() {
                    dv[at * s.value_width + e] += weight * d;
                }
                let dscore = scale * weight * (dweight - mean);
                for d in 0..s.width {
                    dq[row * s.width + d] += dscore * ks[at * s.width + d];
                    dk[at * s.width + d] += dscore * qs[row * s.width + d];
                }
            }
        }
        let of = |like: &Tensor, values| Tensor::from_f64(q.dtype(), like.shape(), values);
        Ok(vec![of(q, dq), of(k, dk), of(v, dv)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of Attention are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let (pairs, width, value_width) = Attention::pairs(shapes);
        // The scores again, dq and dk; the gradients of the weights and of v.
        let macs = pairs.saturating_mul(3 * width + 2 * value_width);
        Work { element_ops: pairs.saturating_mul(9), ..Work::macs(MacKind::Gradient, macs, 1.0) }
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for AttentionGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = Attention { scale: 0.5, causal: true };
        let mut inputs: Vec<_> = (1..4).map(|i| Some(Example::noise(&[1, 2, 3, 2], i))).collect();
        inputs.extend([None, Some(Example::noise(&[1, 2, 3, 2], 4))]);
        vec![Example::optional(AttentionGradient { forward }, inputs).macs(2 * 3 * 3 * 10)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_causal_query_sees_no_later_key_and_a_fully_masked_one_gives_nan() {
        let [q, k, v] = [1, 2, 3].map(|i| Example::noise(&[1, 1, 2, 2], i));
        let mask = Tensor::f32([2, 2], vec![f32::NEG_INFINITY, 0.0, 0.0, 0.0]);
        let op = Attention { scale: 1.0, causal: true };
        let run = |mask| op.evaluate(Tensors::new(&[Some(&q), Some(&k), Some(&v), mask])).unwrap().remove(0);
        assert_eq!(run(None).to_f64()[..2], v.to_f64()[..2]);
        assert!(run(Some(&mask)).to_f64()[..2].iter().all(|x| x.is_nan()));
    }
}
