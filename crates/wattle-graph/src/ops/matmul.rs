//! MatMul: the matrix product over the last two axes, batched over the others by broadcasting.

use super::*;
use super::binary::broadcast_indices;
use crate::shape::{Dim, Shape, broadcast};

/// NumPy `matmul`: `[.., m, k] x [.., k, n] -> [.., m, n]`; a rank-1 operand is a row (left) or column
/// (right) whose axis vanishes from the result. Either operand may be read with its last two axes swapped.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MatMul {
    /// Read the left operand as `[.., k, m]`.
    pub transpose_a: bool,
    /// Read the right operand as `[.., n, k]`.
    pub transpose_b: bool,
}

/// Sizes of one product: batch shapes of both operands and the result, and m, k, n.
pub(super) struct Sizes {
    pub a_batch: Vec<usize>,
    pub b_batch: Vec<usize>,
    pub batch: Vec<usize>,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub shape: Vec<usize>,
}

impl MatMul {
    /// Batch axes, rows and columns of an operand, after transposition; `left` decides what rank 1 means.
    fn split(dims: &[Dim], left: bool, transpose: bool) -> (Vec<Dim>, Dim, Dim) {
        match dims {
            [k] if left => (vec![], 1.into(), k.clone()),
            [k] => (vec![], k.clone(), 1.into()),
            [batch @ .., x, y] if transpose => (batch.to_vec(), y.clone(), x.clone()),
            [batch @ .., x, y] => (batch.to_vec(), x.clone(), y.clone()),
            [] => (vec![], 1.into(), 1.into()),
        }
    }

    pub(super) fn result(&self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
        if a.is_empty() || b.is_empty() || (self.transpose_a && a.len() < 2) || (self.transpose_b && b.len() < 2) {
            return Err(OpError::mismatch("rank", format!("{} and {} axes", a.len(), b.len()), "more axes"));
        }
        let (a_batch, m, ka) = MatMul::split(a, true, self.transpose_a);
        let (b_batch, kb, n) = MatMul::split(b, false, self.transpose_b);
        if let (Dim::Known(x), Dim::Known(y)) = (&ka, &kb)
            && x != y
        {
            return Err(OpError::mismatch("inner extent", format!("{x} and {y}"), "equal extents"));
        }
        let clash = || OpError::mismatch("batch axes", format!("{a_batch:?} and {b_batch:?}"), "broadcastable");
        let batch = broadcast(&a_batch.clone().into(), &b_batch.clone().into()).ok_or_else(clash)?;
        let mut dims = batch.dims().unwrap_or(&[]).to_vec();
        if a.len() > 1 {
            dims.push(m);
        }
        if b.len() > 1 {
            dims.push(n);
        }
        Ok(dims)
    }

    pub(super) fn sizes(&self, a: &[usize], b: &[usize]) -> Result<Sizes, OpError> {
        let dims = |e: &[usize]| e.iter().map(|&n| n.into()).collect::<Vec<Dim>>();
        let extents = |d: Vec<Dim>| d.iter().filter_map(Dim::known).collect::<Vec<usize>>();
        let (a, b) = (dims(a), dims(b));
        let shape = extents(self.result(&a, &b)?);
        let (a_batch, m, k) = MatMul::split(&a, true, self.transpose_a);
        let (b_batch, _, n) = MatMul::split(&b, false, self.transpose_b);
        let (a_batch, b_batch) = (extents(a_batch), extents(b_batch));
        let batch = super::binary::broadcast_extents(&a_batch, &b_batch)?;
        let [m, k, n] = [m, k, n].map(|d| d.known().unwrap_or(1));
        Ok(Sizes { a_batch, b_batch, batch, m, k, n, shape })
    }
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let flag = |on: bool, name| on.then_some((name, Attribute::Int(1)));
        [flag(self.transpose_a, "transA"), flag(self.transpose_b, "transB")].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (a, b) = (inputs.ty(0, "a")?, inputs.ty(1, "b")?);
        if a.dtype != b.dtype {
            return Err(OpError::mismatch("b", b.dtype, format!("the type of a, {}", a.dtype)));
        }
        let shape = match (a.shape.dims(), b.shape.dims()) {
            (Some(x), Some(y)) => Shape::Ranked(self.result(x, y)?),
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(a.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let s = self.sizes(a.shape(), b.shape())?;
        let (x, y) = (a.to_f64(), b.to_f64());
        let mut z = Vec::with_capacity(s.shape.iter().product());
        let a_at = broadcast_indices(&s.a_batch, &s.batch);
        let b_at = broadcast_indices(&s.b_batch, &s.batch);
        for (a_index, b_index) in a_at.into_iter().zip(b_at) {
            let (x, y) = (&x[a_index * s.m * s.k..], &y[b_index * s.k * s.n..]);
            for i in 0..s.m {
                for j in 0..s.n {
                    let left = |p| if self.transpose_a { x[p * s.m + i] } else { x[i * s.k + p] };
                    let right = |p| if self.transpose_b { y[j * s.k + p] } else { y[p * s.n + j] };
                    z.push((0..s.k).map(|p| left(p) * right(p)).sum::<f64>());
                }
            }
        }
        Ok(vec![Tensor::from_f64(a.dtype(), s.shape, z)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (a, b, dz) = (g.input(0), g.input(1), g.gradient());
        let (a_shape, b_shape) = (g.extents(a)?, g.extents(b)?);
        if a_shape.len() < 2 || b_shape.len() < 2 {
            return self.gradient_of_vectors(g, &a_shape, &b_shape);
        }
        let mul = |transpose_a, transpose_b| MatMul { transpose_a, transpose_b };
        let (mut da, mut db) = (None, None);
        if g.wants(0) {
            let full = if self.transpose_a {
                g.apply(mul(self.transpose_b, true), &[b, dz])?
            } else {
                g.apply(mul(false, !self.transpose_b), &[dz, b])?
            };
            da = Some(g.sum_to(full, a)?);
        }
        if g.wants(1) {
            db = Some(self.right_gradient(g, a, b, dz, &a_shape, &b_shape)?);
        }
        Ok(Gradient::Inputs(vec![da, db]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let Ok(s) = self.sizes(shapes.input(0), shapes.input(1)) else { return Work::movement() };
        let macs = s.batch.iter().product::<usize>() as u64 * (s.m * s.n) as u64 * s.k as u64;
        // The sparser operand is the weight; products with its zeros need not be done.
        Work::macs(MacKind::Standard, macs, shapes.density(0).min(shapes.density(1)))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let mut operands = [node.input(0), node.input(1)];
        for (index, transposed) in [self.transpose_a, self.transpose_b].into_iter().enumerate() {
            if transposed {
                let rank = node.input_type(index).shape.rank().ok_or(OpError::Unbound("the operand's rank"))?;
                let mut permutation: Vec<i64> = (0..rank as i64).collect();
                permutation.swap(rank - 1, rank - 2);
                let attributes = vec![("perm", Attribute::Ints(permutation))];
                operands[index] = node.emit("Transpose", &[operands[index].clone()], attributes);
            }
        }
        node.emit_final("MatMul", &operands, vec![]);
        Ok(())
    }
}

impl MatMul {
    /// The gradient of the right operand. A weight shared by the whole batch gets it from one product over all
    /// rows instead of one per batch element and a sum.
    fn right_gradient(
        &self,
        g: &mut Backward<'_>,
        a: ValueId,
        b: ValueId,
        dz: ValueId,
        a_shape: &[usize],
        b_shape: &[usize],
    ) -> Result<ValueId, GraphError> {
        let mul = |transpose_a, transpose_b| MatMul { transpose_a, transpose_b };
        let (mut a, mut dz) = (a, dz);
        if b_shape.len() == 2 && a_shape.len() > 2 && !self.transpose_a {
            let flat = |g: &mut Backward<'_>, x: ValueId, columns: usize| {
                let shape = g.constant(Tensor::ints(&[-1, columns as i64]));
                g.apply(Reshape { allow_zero: false }, &[x, shape])
            };
            let columns = *a_shape.last().unwrap_or(&1);
            a = flat(g, a, columns)?;
            let columns = *g.extents(dz)?.last().unwrap_or(&1);
            dz = flat(g, dz, columns)?;
        }
        let full = if self.transpose_b {
            g.apply(mul(true, self.transpose_a), &[dz, a])?
        } else {
            g.apply(mul(!self.transpose_a, false), &[a, dz])?
        };
        g.sum_to(full, b)
    }

    /// Gradients where an operand is a vector: the same product with the missing axis restored.
    fn gradient_of_vectors(
        &self,
        g: &mut Backward<'_>,
        a_shape: &[usize],
        b_shape: &[usize],
    ) -> Result<Gradient, GraphError> {
        let (a, b, dz) = (g.input(0), g.input(1), g.gradient());
        let reshape = |g: &mut Backward<'_>, x: ValueId, shape: &[usize]| {
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            let shape = g.constant(Tensor::ints(&shape));
            g.apply(Reshape { allow_zero: true }, &[x, shape])
        };
        let (mut matrix_a, mut matrix_b) = (a_shape.to_vec(), b_shape.to_vec());
        let mut product = g.extents(dz)?;
        if b_shape.len() < 2 {
            matrix_b.push(1);
            product.push(1);
        }
        if a_shape.len() < 2 {
            matrix_a.insert(0, 1);
            product.insert(product.len() - 1, 1);
        }
        let (x, y) = (reshape(g, a, &matrix_a)?, reshape(g, b, &matrix_b)?);
        let dz = reshape(g, dz, &product)?;
        let mul = |transpose_a, transpose_b| MatMul { transpose_a, transpose_b };
        let dx = g.apply(mul(false, !self.transpose_b), &[dz, y])?;
        let dx = g.sum_to(dx, x)?;
        let dy = g.apply(mul(!self.transpose_a, false), &[x, dz])?;
        let dy = g.sum_to(dy, y)?;
        Ok(Gradient::Inputs(vec![Some(reshape(g, dx, a_shape)?), Some(reshape(g, dy, b_shape)?)]))
    }
}

impl Described for MatMul {
    const ONNX: &'static [&'static str] = &["MatMul"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(MatMul::default())
    }

    fn examples() -> Vec<Example> {
        let of = |op: MatMul, a: &[usize], b: &[usize], macs| {
            Example::new(op, vec![Example::noise(a, 1), Example::noise(b, 2)]).macs(macs)
        };
        let plain = MatMul::default();
        vec![
            of(plain.clone(), &[3, 4], &[4, 5], 60),
            of(plain.clone(), &[2, 3, 4], &[4, 5], 120),
            of(plain.clone(), &[2, 1, 3, 4], &[2, 4, 5], 240),
            of(plain.clone(), &[4], &[4, 5], 20),
            of(plain.clone(), &[3, 4], &[4], 12),
            of(MatMul { transpose_a: false, transpose_b: true }, &[2, 3, 4], &[5, 4], 120),
            of(MatMul { transpose_a: true, transpose_b: false }, &[4, 3], &[4, 5], 60),
            of(MatMul { transpose_a: true, transpose_b: true }, &[2, 4, 3], &[2, 5, 4], 120),
        ]
    }
}
