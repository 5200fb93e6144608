//! DepthToSpace and SpaceToDepth: blocks of pixels become channels, and channels blocks of pixels.

use super::concrete::result_shapes;
use super::movement_gradient::gradient_of;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{each_index, strides};

/// `[N, C * b * b, H, W] -> [N, C, H * b, W * b]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthToSpace {
    /// b.
    pub block: usize,
    /// Whether channels count as column, row, depth (`CRD`: the depth of one block is consecutive); else depth,
    /// column, row (`DCR`).
    pub depth_last: bool,
}

/// `[N, C, H * b, W * b] -> [N, b * b * C, H, W]`, the inverse of `DCR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceToDepth {
    /// b.
    pub block: usize,
}

/// `dim / by`, which must leave no remainder.
fn divided(what: &'static str, dim: &Dim, by: usize) -> Result<Dim, OpError> {
    match dim {
        Dim::Known(n) if !n.is_multiple_of(by) => {
            Err(OpError::mismatch(what, n, format!("a multiple of {by}")))
        }
        _ => Ok(dim.map(&format!("({{}}/{by})"), |n| n / by)),
    }
}

/// The block size, which is from 1 to 2^15 so that its square is small.
fn import_block(node: &mut ForeignNode<'_>) -> Result<usize, ImportError> {
    match node.int("blocksize", 0)? {
        b @ 1..=32768 => Ok(b as usize),
        b => Err(node.refuse(format!("blocksize = {b}; expected 1 to 32768"))),
    }
}

impl Operator for DepthToSpace {
    fn name(&self) -> &'static str {
        "DepthToSpace"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("blocksize", Attribute::Int(self.block as i64))];
        if self.depth_last {
            attributes.push(("mode", Attribute::Text("CRD".into())));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_rank(0, "x", 4)?;
        let x = inputs.ty(0, "x")?;
        let b = Dim::Known(self.block);
        let shape = match x.shape.dims() {
            Some([n, c, h, w]) => {
                let c = divided("channels", c, self.block * self.block)?;
                Shape::Ranked(vec![n.clone(), c, h.times(&b), w.times(&b)])
            }
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let (b, from) = (self.block, strides(x.shape()));
        let mut source = Vec::with_capacity(x.len());
        each_index(&shape, |at| {
            let (within, c) = (at[2] % b * b + at[3] % b, at[1]);
            let channel = if self.depth_last { c * b * b + within } else { within * shape[1] + c };
            source.push(Some(at[0] * from[0] + channel * from[1] + at[2] / b * from[2] + at[3] / b));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(self.clone()), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for DepthToSpace {
    const ONNX: &'static [&'static str] = &["DepthToSpace"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let block = import_block(node)?;
        let depth_last = match node.text("mode", "DCR")?.as_str() {
            "DCR" => false,
            "CRD" => true,
            other => return Err(node.refuse(format!("mode = `{other}`; expected DCR or CRD"))),
        };
        node.finish(DepthToSpace { block, depth_last })
    }

    fn examples() -> Vec<Example> {
        let of = |block, depth_last, x: &[usize]| {
            Example::new(DepthToSpace { block, depth_last }, vec![Example::noise(x, 1)])
        };
        vec![of(2, false, &[2, 8, 1, 3]), of(2, true, &[1, 8, 2, 2]), of(1, false, &[1, 2, 2, 2])]
    }
}

impl Operator for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("blocksize", Attribute::Int(self.block as i64))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_rank(0, "x", 4)?;
        let x = inputs.ty(0, "x")?;
        let shape = match x.shape.dims() {
            Some([n, c, h, w]) => {
                let c = c.times(&Dim::Known(self.block * self.block));
                let (h, w) = (divided("height", h, self.block)?, divided("width", w, self.block)?);
                Shape::Ranked(vec![n.clone(), c, h, w])
            }
            _ => Shape::Unknown,
        };
        Ok(vec![TensorType::new(x.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let (b, from, channels) = (self.block, strides(x.shape()), x.shape()[1]);
        let mut source = Vec::with_capacity(x.len());
        each_index(&shape, |at| {
            let (within, c) = (at[1] / channels, at[1] % channels);
            let (row, column) = (at[2] * b + within / b, at[3] * b + within % b);
            source.push(Some(at[0] * from[0] + c * from[1] + row * from[2] + column));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(self.clone()), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for SpaceToDepth {
    const ONNX: &'static [&'static str] = &["SpaceToDepth"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let block = import_block(node)?;
        node.finish(SpaceToDepth { block })
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new(SpaceToDepth { block: 2 }, vec![Example::noise(&[2, 3, 2, 4], 1)]),
            Example::new(SpaceToDepth { block: 3 }, vec![Example::noise(&[1, 1, 3, 3], 2)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_to_depth_undoes_depth_to_space() {
        let x = Example::noise(&[2, 12, 2, 3], 1);
        let spread =
            DepthToSpace { block: 2, depth_last: false }.evaluate(Tensors::new(&[Some(&x)])).unwrap();
        let back = SpaceToDepth { block: 2 }.evaluate(Tensors::new(&[Some(&spread[0])])).unwrap();
        assert_eq!(back[0], x);
    }
}
