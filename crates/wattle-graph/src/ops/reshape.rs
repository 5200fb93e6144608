//! Reshape: the same elements under another shape.

use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// `Reshape(x, shape)`: `shape` is a rank-1 i64 operand; -1 stands for what remains, and 0 for the extent of
/// `x` on that axis unless `allow_zero`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// Whether 0 in the shape means an empty axis rather than a copy of the operand's (ONNX `allowzero`).
    pub allow_zero: bool,
}

impl Reshape {
    /// The shape asked for, with zeros replaced; -1 is kept.
    fn requested(&self, shape: &[i64], from: Option<&[Dim]>) -> Result<Vec<Option<Dim>>, OpError> {
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, &n) in shape.iter().enumerate() {
            dims.push(match n {
                -1 => None,
                0 if !self.allow_zero => {
                    let from = from.ok_or(OpError::Unbound("the operand of Reshape with a 0 in its shape"))?;
                    let dim = from.get(axis).cloned();
                    Some(dim.ok_or_else(|| OpError::mismatch("shape", "0 beyond the operand's axes", from.len()))?)
                }
                n if n >= 0 => Some(Dim::Known(n as usize)),
                n => return Err(OpError::mismatch("shape", n, "-1, 0 or a positive extent")),
            });
        }
        if dims.iter().filter(|d| d.is_none()).count() > 1 {
            return Err(OpError::mismatch("shape", format!("{shape:?}"), "at most one -1"));
        }
        Ok(dims)
    }

    /// The shape of the result for an operand of type `x` and the content of the shape operand.
    fn resolve(&self, from: Option<&[Dim]>, shape: &[i64]) -> Result<Shape, OpError> {
        let dims = self.requested(shape, from)?;
        let total = from.and_then(|f| {
            f.iter().map(Dim::known).try_fold(1usize, |n, d| n.checked_mul(d?))
        });
        let kept = dims.iter().flatten().map(Dim::known).try_fold(1usize, |n, d| n.checked_mul(d?));
        let fits = |n: usize, total: usize| {
            let wanted = format!("{shape:?}, {n} elements");
            OpError::mismatch("shape", wanted, format!("the operand's {total} elements"))
        };
        let rest = match (total, kept) {
            (Some(total), Some(kept)) if dims.contains(&None) => {
                if kept == 0 || total % kept != 0 {
                    return Err(fits(kept, total));
                }
                Dim::Known(total / kept)
            }
            (Some(total), Some(kept)) if total != kept => return Err(fits(kept, total)),
            _ => self.symbolic_rest(from, &dims),
        };
        Ok(Shape::Ranked(dims.into_iter().map(|d| d.unwrap_or_else(|| rest.clone())).collect()))
    }

    /// What -1 stands for while some extents are symbols: the symbols and factors left after cancelling.
    fn symbolic_rest(&self, from: Option<&[Dim]>, dims: &[Option<Dim>]) -> Dim {
        let Some(from) = from else { return Dim::symbol("reshaped") };
        let mut remaining: Vec<Dim> = from.to_vec();
        let mut known = 1;
        for dim in dims.iter().flatten() {
            match remaining.iter().position(|d| d == dim) {
                Some(i) => drop(remaining.remove(i)),
                None => known = usize::saturating_mul(known, dim.known().unwrap_or(1).max(1)),
            }
        }
        let product = remaining.iter().fold(Dim::Known(1), |a, b| a.times(b));
        if known == 1 { product } else { product.map(&format!("({{}}/{known})"), |n| n / known) }
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        if self.allow_zero { vec![("allowzero", Attribute::Int(1))] } else { vec![] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "shape", &[DType::I64])?;
        inputs.expect_rank(1, "shape", 1)?;
        let shape = match (inputs.ints(1), inputs.dims(1, "shape")?) {
            (Some(shape), _) => self.resolve(x.shape.dims(), &shape)?,
            (None, Some([Dim::Known(rank)])) if *rank <= 32 => {
                Shape::Ranked((0..*rank).map(|i| Dim::symbol(format!("reshaped{i}"))).collect())
            }
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let from: Vec<Dim> = x.shape().iter().map(|&n| n.into()).collect();
        let shape = self.resolve(Some(&from), &inputs.get(1)?.to_i64())?;
        let extents = shape.extents().ok_or(OpError::Unbound("the shape operand of Reshape"))?;
        let reshaped = x.clone().reshaped(extents);
        Ok(vec![reshaped.ok_or_else(|| OpError::mismatch("shape", shape, "as many elements"))?])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (dy, x) = (backward.gradient(), backward.input(0));
        Ok(Gradient::Inputs(vec![Some(backward.reshape_to(dy, x)?), None]))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::renaming()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Reshape {
    const ONNX: &'static [&'static str] = &["Reshape"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let op = Reshape { allow_zero: node.int("allowzero", 0)? != 0 };
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let x = || Example::noise(&[2, 3, 4], 2);
        let to = |shape: &[i64], allow_zero| {
            Example::new(Reshape { allow_zero }, vec![x(), Tensor::ints(shape)]).constants(&[1])
        };
        vec![to(&[4, 6], false), to(&[0, -1], false), to(&[-1], true)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_cancels_symbols() {
        let from = [Dim::symbol("N"), Dim::Known(3), Dim::Known(4)];
        let shape = Reshape { allow_zero: false }.resolve(Some(&from), &[0, -1]).unwrap();
        assert_eq!(shape, Shape::Ranked(vec![Dim::symbol("N"), Dim::Known(12)]));
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        let from = [Dim::Known(10)];
        assert!(Reshape { allow_zero: false }.resolve(Some(&from), &[3, -1]).is_err());
        assert!(Reshape { allow_zero: false }.resolve(Some(&from), &[-1, -1]).is_err());
    }
}
