//! Shape and Size: extents of the operand as integers.

use super::*;
use crate::shape::{Dim, Shape as Extents};
use crate::tensor::DType;

/// The extents of the operand, or of a range of its axes, as a rank-1 i64 tensor.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Shape {
    /// First axis; negative counts from the end.
    pub start: i64,
    /// One past the last axis; `None` for all.
    pub end: Option<i64>,
}

impl Shape {
    /// The axes reported, for an operand of `rank` axes; out-of-range bounds are clamped.
    pub fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let clamp = |i: i64| (if i < 0 { i + rank as i64 } else { i }).clamp(0, rank as i64) as usize;
        let (start, end) = (clamp(self.start), self.end.map_or(rank, clamp));
        start..end.max(start)
    }
}

impl Operator for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![];
        if self.start != 0 {
            attributes.push(("start", Attribute::Int(self.start)));
        }
        if let Some(end) = self.end {
            attributes.push(("end", Attribute::Int(end)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let rank = inputs.ty(0, "x")?.shape.rank();
        let count = rank.map_or_else(|| Dim::symbol("rank"), |r| self.range(r).len().into());
        Ok(vec![TensorType::new(DType::I64, vec![count])])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = inputs.get(0)?.shape();
        let extents: Vec<i64> = shape[self.range(shape.len())].iter().map(|&n| n as i64).collect();
        Ok(vec![Tensor::ints(&extents)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("extents do not depend on the elements"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::renaming()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Shape {
    const ONNX: &'static [&'static str] = &["Shape"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let start = node.int("start", 0)?;
        let end = match node.int("end", i64::MAX)? {
            i64::MAX => None,
            end => Some(end),
        };
        node.finish(Shape { start, end })
    }

    fn examples() -> Vec<Example> {
        let of = |start, end| Example::new(Shape { start, end }, vec![Example::noise(&[2, 3, 4], 1)]);
        vec![of(0, None), of(1, Some(-1)), of(-1, None)]
    }
}

/// The number of elements of the operand, as an i64 scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size;

impl Operator for Size {
    fn name(&self) -> &'static str {
        "Size"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.ty(0, "x")?;
        Ok(vec![TensorType::new(DType::I64, Extents::known(&[]))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::i64([], vec![inputs.get(0)?.len() as i64])])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("the number of elements does not depend on them"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::renaming()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Size {
    const ONNX: &'static [&'static str] = &["Size"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(Size)
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Size, vec![Example::noise(&[2, 3], 1)])]
    }
}
