//! Gemm: a scaled matrix product plus a scaled, broadcast bias; the fully connected layer.

use super::binary::broadcast_indices;
use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};

/// `alpha a b + beta c`: a is `[m, k]`, b is `[k, n]`, c is optional and broadcasts to `[m, n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the bias.
    pub beta: f32,
    /// Read a as `[k, m]`.
    pub transpose_a: bool,
    /// Read b as `[n, k]`.
    pub transpose_b: bool,
}

impl Default for Gemm {
    fn default() -> Gemm {
        Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: false }
    }
}

/// Whether an operand of shape `from` can be repeated to `to` without `to` growing; unknowns may fit.
pub(super) fn repeats_to(from: &[Dim], to: &[Dim]) -> bool {
    let fits = |f: &Dim, t: &Dim| match (f, t) {
        (Dim::Known(f), Dim::Known(t)) => *f == 1 || f == t,
        _ => true,
    };
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(f, t)| fits(f, t))
}

impl Gemm {
    fn of(transpose_a: bool, transpose_b: bool, alpha: f32) -> Gemm {
        Gemm { alpha, beta: 1.0, transpose_a, transpose_b }
    }
}

impl Operator for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let factor = |x: f32, name| (x != 1.0).then_some((name, Attribute::Float(x)));
        let flag = |on: bool, name| on.then_some((name, Attribute::Int(1)));
        let all = [
            factor(self.alpha, "alpha"),
            factor(self.beta, "beta"),
            flag(self.transpose_a, "transA"),
            flag(self.transpose_b, "transB"),
        ];
        all.into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "a")?;
        inputs.expect_dtype(1, "b", &[dtype])?;
        inputs.expect_rank(0, "a", 2)?;
        inputs.expect_rank(1, "b", 2)?;
        let axis = |dims: Option<&[Dim]>, index: usize| {
            dims.and_then(|d| d.get(index)).cloned().unwrap_or_else(|| Dim::symbol("gemm"))
        };
        let (a, b) = (inputs.dims(0, "a")?, inputs.dims(1, "b")?);
        let (mut m, mut ka) = (axis(a, 0), axis(a, 1));
        let (mut kb, mut n) = (axis(b, 0), axis(b, 1));
        if self.transpose_a {
            std::mem::swap(&mut m, &mut ka);
        }
        if self.transpose_b {
            std::mem::swap(&mut kb, &mut n);
        }
        if let (Dim::Known(x), Dim::Known(y)) = (&ka, &kb)
            && x != y
        {
            return Err(OpError::mismatch("inner extent", format!("{x} and {y}"), "equal extents"));
        }
        let shape = [m, n];
        if inputs.optional(2).is_some() {
            inputs.expect_dtype(2, "c", &[dtype])?;
            if let Some(c) = inputs.dims(2, "c")?
                && !repeats_to(c, &shape)
            {
                let wanted = format!("a shape that broadcasts to [{}, {}]", shape[0], shape[1]);
                return Err(OpError::mismatch("c", inputs.ty(2, "c")?, wanted));
            }
        }
        let known = a.is_some() && b.is_some();
        Ok(vec![TensorType::new(dtype, if known { Shape::from(shape.to_vec()) } else { Shape::Unknown })])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let shape = result_shapes(self, inputs)?.remove(0);
        let (m, n) = (shape[0], shape[1]);
        let k = a.shape()[if self.transpose_a { 0 } else { 1 }];
        let (x, y) = (a.to_f64(), b.to_f64());
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        let bias = inputs.optional(2).map(|c| (c.to_f64(), broadcast_indices(c.shape(), &[m, n])));
        let mut z = Vec::with_capacity(m * n);
        for i in 0..m {
            for j in 0..n {
                let left = |p| if self.transpose_a { x[p * m + i] } else { x[i * k + p] };
                let right = |p| if self.transpose_b { y[j * k + p] } else { y[p * n + j] };
                let product = alpha * (0..k).map(|p| left(p) * right(p)).sum::<f64>();
                z.push(product + bias.as_ref().map_or(0.0, |(c, at)| beta * c[at[i * n + j]]));
            }
        }
        Ok(vec![Tensor::from_f64(a.dtype(), [m, n], z)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (a, b, dz) = (g.input(0), g.input(1), g.gradient());
        let (mut da, mut db, mut dc) = (None, None, None);
        if g.wants(0) {
            da = Some(if self.transpose_a {
                g.apply(Gemm::of(self.transpose_b, true, self.alpha), &[b, dz])?
            } else {
                g.apply(Gemm::of(false, !self.transpose_b, self.alpha), &[dz, b])?
            });
        }
        if g.wants(1) {
            db = Some(if self.transpose_b {
                g.apply(Gemm::of(true, self.transpose_a, self.alpha), &[dz, a])?
            } else {
                g.apply(Gemm::of(!self.transpose_a, false, self.alpha), &[a, dz])?
            });
        }
        if let (Some(c), true) = (g.optional_input(2), g.wants(2)) {
            let sum = g.sum_to(dz, c)?;
            dc = Some(if self.beta == 1.0 {
                sum
            } else {
                let beta = Tensor::scalar(self.beta).cast(g.dtype(c));
                let beta = g.constant(beta);
                g.apply(Binary { function: BinaryFunction::Mul }, &[sum, beta])?
            });
        }
        Ok(Gradient::Inputs(vec![da, db, dc]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let inner = shapes.input(0).get(if self.transpose_a { 0 } else { 1 }).copied().unwrap_or(0);
        let macs = shapes.output_len(0).saturating_mul(inner as u64);
        // The sparser operand is the weight; products with its zeros need not be done.
        Work::macs(MacKind::Standard, macs, shapes.density(0).min(shapes.density(1)))
    }
}

impl Described for Gemm {
    const ONNX: &'static [&'static str] = &["Gemm"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let op = Gemm {
            alpha: node.float("alpha", 1.0)?,
            beta: node.float("beta", 1.0)?,
            transpose_a: node.int("transA", 0)? != 0,
            transpose_b: node.int("transB", 0)? != 0,
        };
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let of = |op: Gemm, a: &[usize], b: &[usize], c: &[usize]| {
            let operands = vec![Example::noise(a, 1), Example::noise(b, 2), Example::noise(c, 3)];
            Example::new(op, operands).macs(60)
        };
        let plain = Gemm::default;
        let no_bias = Gemm { alpha: 0.5, ..plain() };
        vec![
            of(plain(), &[3, 4], &[4, 5], &[5]),
            of(Gemm { transpose_b: true, ..plain() }, &[3, 4], &[5, 4], &[3, 5]),
            of(Gemm { transpose_a: true, alpha: 0.25, beta: 0.35, ..plain() }, &[4, 3], &[4, 5], &[3, 1]),
            of(Gemm { transpose_a: true, transpose_b: true, beta: 2.0, ..plain() }, &[4, 3], &[5, 4], &[]),
            Example::new(no_bias, vec![Example::noise(&[3, 4], 1), Example::noise(&[4, 5], 2)]).macs(60),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_that_would_enlarge_the_result_is_refused() {
        assert!(!repeats_to(&[2.into(), 3.into()], &[1.into(), 3.into()]));
        assert!(repeats_to(&[1.into(), 3.into()], &[Dim::symbol("N"), 3.into()]));
        assert!(!repeats_to(&[1.into(), 1.into(), 3.into()], &[4.into(), 3.into()]));
    }
}
