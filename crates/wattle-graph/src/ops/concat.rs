//! Concat and Split: tensors laid end to end along one axis, and taken apart again.

use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{each_index, strides};

/// Lays any number of tensors end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis they grow along.
    pub axis: i64,
}

/// Takes a tensor apart into consecutive parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The axis it is cut along.
    pub axis: i64,
    /// Extent of each part; all equal (the last smaller) when only their number is given.
    pub parts: Parts,
}

/// How a [`Split`] divides its axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// These extents.
    Sizes(Vec<usize>),
    /// This many parts of equal extent, rounded up; the last takes what remains.
    Count(usize),
}

/// Takes a run of each part in turn, `outer` times.
fn interleave<T: Copy>(parts: &[std::borrow::Cow<'_, [T]>], runs: &[usize], outer: usize) -> Vec<T>
where
    [T]: ToOwned<Owned = Vec<T>>,
{
    let mut all = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for row in 0..outer {
        for (part, run) in parts.iter().zip(runs) {
            all.extend_from_slice(&part[row * run..(row + 1) * run]);
        }
    }
    all
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let first = inputs.ty(0, "x0")?;
        let mut merged: Option<Vec<Dim>> = first.shape.dims().map(<[Dim]>::to_vec);
        for index in 1..inputs.len() {
            let next = inputs.ty(index, "x")?;
            if next.dtype != first.dtype {
                return Err(OpError::mismatch("element type", next.dtype, first.dtype));
            }
            let (Some(dims), Some(next)) = (&mut merged, next.shape.dims()) else {
                merged = None;
                continue;
            };
            if dims.len() != next.len() {
                return Err(OpError::mismatch("rank", next.len(), dims.len()));
            }
            let axis = axis_of(self.axis, dims.len())?;
            for (at, (a, b)) in dims.iter_mut().zip(next).enumerate() {
                if at == axis {
                    *a = a.plus(b);
                } else if let (Some(x), Some(y)) = (a.known(), b.known()) {
                    if x != y {
                        return Err(OpError::mismatch("extent off the axis", y, x));
                    }
                } else if b.known().is_some() {
                    *a = b.clone();
                }
            }
        }
        if let Some(dims) = &merged {
            axis_of(self.axis, dims.len())?;
        }
        Ok(vec![TensorType::new(first.dtype, merged.map_or(Shape::Unknown, Shape::Ranked))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let first = inputs.get(0)?;
        let axis = axis_of(self.axis, first.shape().len())?;
        let mut shape = first.shape().to_vec();
        let mut parts = vec![];
        for index in 0..inputs.len() {
            parts.push(inputs.get(index)?);
        }
        shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
        let outer: usize = shape[..axis].iter().product();
        let runs: Vec<usize> = parts.iter().map(|p| p.shape()[axis..].iter().product()).collect();
        let dtype = first.dtype();
        Ok(vec![if dtype.is_float() {
            let data: Vec<_> = parts.iter().map(|p| p.to_f64()).collect();
            Tensor::from_f64(dtype, shape, interleave(&data, &runs, outer))
        } else {
            let data: Vec<_> = parts.iter().map(|p| p.to_i64()).collect();
            Tensor::from_i64(dtype, shape, interleave(&data, &runs, outer))
        }])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut sizes = vec![];
        for index in 0..g.input_count() {
            let extents = g.extents(g.input(index))?;
            let axis = if self.axis < 0 { self.axis + extents.len() as i64 } else { self.axis };
            sizes.push(extents[axis as usize]);
        }
        let dy = g.gradient();
        let parts = g.apply_all(Split { axis: self.axis, parts: Parts::Sizes(sizes) }, &[Some(dy)])?;
        Ok(Gradient::Inputs(parts.into_iter().map(Some).collect()))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Concat {
    const ONNX: &'static [&'static str] = &["Concat"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 1)?;
        node.finish(Concat { axis })
    }

    fn examples() -> Vec<Example> {
        let noise = Example::noise;
        vec![
            Example::new(Concat { axis: 1 }, vec![noise(&[2, 3, 2], 1), noise(&[2, 1, 2], 2), noise(&[2, 2, 2], 3)]),
            Example::new(Concat { axis: 0 }, vec![noise(&[2], 1), noise(&[3], 2)]),
            Example::new(Concat { axis: -1 }, vec![Tensor::ints(&[1, 2]), Tensor::ints(&[3])]),
            Example::new(Concat { axis: 1 }, vec![noise(&[1, 3, 2, 2], 1), noise(&[1, 5, 2, 2], 2)]),
        ]
    }
}

impl Split {
    /// Extents of the parts of an axis of this extent.
    pub fn sizes(&self, extent: usize) -> Result<Vec<usize>, OpError> {
        match &self.parts {
            Parts::Sizes(sizes) if sizes.iter().sum::<usize>() == extent => Ok(sizes.clone()),
            Parts::Sizes(sizes) => Err(OpError::mismatch("split", format!("{sizes:?}"), format!("a sum of {extent}"))),
            Parts::Count(count) => {
                let size = extent.div_ceil((*count).max(1));
                let part = |i: usize| size.min(extent.saturating_sub(i * size));
                Ok((0..*count).map(part).collect())
            }
        }
    }

    fn count(&self) -> usize {
        match &self.parts {
            Parts::Sizes(sizes) => sizes.len(),
            Parts::Count(count) => *count,
        }
    }
}

impl Operator for Split {
    fn name(&self) -> &'static str {
        "Split"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let parts = match &self.parts {
            Parts::Sizes(sizes) => ("split", Attribute::Ints(sizes.iter().map(|&n| n as i64).collect())),
            Parts::Count(count) => ("num_outputs", Attribute::Int(*count as i64)),
        };
        vec![("axis", Attribute::Int(self.axis)), parts]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        let Some(dims) = x.shape.dims() else {
            return Ok(vec![TensorType::new(x.dtype, Shape::Unknown); self.count()]);
        };
        let axis = axis_of(self.axis, dims.len())?;
        let part = |dim: Dim| {
            let mut part = dims.to_vec();
            part[axis] = dim;
            TensorType::new(x.dtype, part)
        };
        match (&self.parts, &dims[axis]) {
            (_, Dim::Known(extent)) => Ok(self.sizes(*extent)?.into_iter().map(|n| part(n.into())).collect()),
            (Parts::Sizes(sizes), _) => Ok(sizes.iter().map(|&n| part(n.into())).collect()),
            (Parts::Count(count), extent) => {
                let dim = |i| extent.map(&format!("part{i}of{count}({{}})"), |n| n);
                Ok((0..*count).map(|i| part(dim(i))).collect())
            }
        }
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let axis = axis_of(self.axis, x.shape().len())?;
        let from = strides(x.shape());
        let mut start = 0;
        let mut parts = vec![];
        for size in self.sizes(x.shape()[axis])? {
            let mut shape = x.shape().to_vec();
            shape[axis] = size;
            let mut source = vec![];
            each_index(&shape, |index| {
                let at: usize = index.iter().zip(&from).map(|(i, s)| i * s).sum();
                source.push(Some(at + start * from[axis]));
            });
            parts.push(x.take(shape, &source));
            start += size;
        }
        Ok(parts)
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut parts = vec![];
        for index in 0..self.count() {
            parts.push(match g.output_gradient(index) {
                Some(gradient) => gradient,
                None => {
                    let (dtype, extents) = (g.dtype(g.output(index)), g.extents(g.output(index))?);
                    g.constant(Tensor::zeros(dtype, extents))
                }
            });
        }
        Ok(Gradient::Inputs(vec![Some(g.apply(Concat { axis: self.axis }, &parts)?)]))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let mut attributes = vec![("axis", Attribute::Int(self.axis))];
        let mut inputs = vec![node.input(0)];
        match &self.parts {
            Parts::Sizes(sizes) => {
                let sizes: Vec<i64> = sizes.iter().map(|&n| n as i64).collect();
                inputs.push(node.constant(Tensor::ints(&sizes)));
            }
            Parts::Count(count) => attributes.push(("num_outputs", Attribute::Int(*count as i64))),
        }
        node.emit_final("Split", &inputs, attributes);
        Ok(())
    }
}

impl Described for Split {
    const ONNX: &'static [&'static str] = &["Split"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 0)?;
        let sizes = if node.opset() < 13 {
            node.optional_ints("split")?
        } else {
            node.constant_input(1)?.map(|sizes| sizes.to_i64().into_owned())
        };
        let count = node.int("num_outputs", node.output_count() as i64)?;
        let parts = match sizes {
            Some(sizes) => {
                let sizes: Option<Vec<usize>> = sizes.iter().map(|&n| usize::try_from(n).ok()).collect();
                Parts::Sizes(sizes.ok_or_else(|| node.refuse("split has a negative extent"))?)
            }
            None if (1..=1 << 16).contains(&count) => Parts::Count(count as usize),
            None => return Err(node.refuse(format!("num_outputs = {count}"))),
        };
        let x = node.input(0)?;
        node.apply_all(Split { axis, parts }, &[Some(x)])
    }

    fn examples() -> Vec<Example> {
        let of = |axis, parts| Example::new(Split { axis, parts }, vec![Example::noise(&[2, 7], 1)]);
        vec![of(1, Parts::Sizes(vec![1, 4, 2])), of(0, Parts::Count(2)), of(-1, Parts::Count(3))]
    }
}
