//! Squeeze, Unsqueeze and Flatten: axes of extent one come, go, or merge; no element moves.

use super::*;
use crate::shape::{Dim, Shape};

/// Removes axes of extent one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Squeeze {
    /// The axes, or all of extent one when `None`.
    pub axes: Option<Vec<i64>>,
}

/// Inserts axes of extent one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsqueeze {
    /// Positions in the result.
    pub axes: Vec<i64>,
}

/// Merges the axes before `axis` into one and the others into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flatten {
    /// First axis of the second group; may equal the rank.
    pub axis: i64,
}

/// The same axes counted from the front, without repetition.
fn normalized(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut list = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    if list.windows(2).any(|w| w[0] == w[1]) {
        return Err(OpError::mismatch("axes", format!("{axes:?}"), "different axes"));
    }
    Ok(list)
}

/// The axes of an operator whose opset 13 made them an operand.
fn axes_of(node: &mut ForeignNode<'_>) -> Result<Option<Vec<i64>>, ImportError> {
    if node.opset() < 13 {
        return node.optional_ints("axes");
    }
    Ok(node.constant_input(1)?.map(|axes| axes.to_i64().into_owned()))
}

impl Squeeze {
    fn result(&self, dims: &[Dim]) -> Result<Shape, OpError> {
        let Some(axes) = &self.axes else {
            // A symbol may turn out to be one: then even the rank is unknown.
            if dims.iter().any(|d| d.known().is_none()) {
                return Ok(Shape::Unknown);
            }
            return Ok(Shape::Ranked(dims.iter().filter(|d| d.known() != Some(1)).cloned().collect()));
        };
        let axes = normalized(axes, dims.len())?;
        for &axis in &axes {
            if dims[axis].known().is_some_and(|n| n != 1) {
                return Err(OpError::mismatch("squeezed axis", &dims[axis], 1));
            }
        }
        Ok(Shape::Ranked((0..dims.len()).filter(|a| !axes.contains(a)).map(|a| dims[a].clone()).collect()))
    }
}

impl Unsqueeze {
    fn result(&self, dims: &[Dim]) -> Result<Shape, OpError> {
        let rank = dims.len() + self.axes.len();
        let axes = normalized(&self.axes, rank)?;
        let mut old = dims.iter().cloned();
        let dim = |a| if axes.contains(&a) { Some(Dim::Known(1)) } else { old.next() };
        Ok(Shape::Ranked((0..rank).filter_map(dim).collect()))
    }
}

impl Flatten {
    fn result(&self, dims: &[Dim]) -> Result<Shape, OpError> {
        let rank = dims.len() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        if !(0..=rank).contains(&axis) {
            return Err(OpError::mismatch("axis", self.axis, format!("-{rank}..={rank}")));
        }
        let product = |part: &[Dim]| part.iter().fold(Dim::Known(1), |a, b| a.times(b));
        let (rows, columns) = dims.split_at(axis as usize);
        Ok(Shape::Ranked(vec![product(rows), product(columns)]))
    }
}

/// Implements [`Operator`] for an operator that gives its operand another shape by `result`.
macro_rules! reshaping {
    ($op:ident, $attributes:expr) => {
        impl Operator for $op {
            fn name(&self) -> &'static str {
                stringify!($op)
            }

            fn attributes(&self) -> Vec<(&'static str, Attribute)> {
                let attributes: fn(&$op) -> Vec<(&'static str, Attribute)> = $attributes;
                attributes(self)
            }

            fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
                let x = inputs.ty(0, "x")?;
                let shape = x.shape.dims().map_or(Ok(Shape::Unknown), |dims| self.result(dims))?;
                Ok(vec![TensorType::new(x.dtype, shape)])
            }

            fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
                let x = inputs.get(0)?;
                let dims: Vec<Dim> = x.shape().iter().map(|&n| n.into()).collect();
                let shape = self.result(&dims)?;
                let reshaped = shape.extents().and_then(|e| x.clone().reshaped(e));
                Ok(vec![reshaped.ok_or_else(|| OpError::mismatch("shape", shape, "as many elements"))?])
            }

            fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
                let (dy, x) = (g.gradient(), g.input(0));
                Ok(Gradient::Inputs(vec![Some(g.reshape_to(dy, x)?)]))
            }

            fn work(&self, _: &Shapes<'_>) -> Work {
                Work::renaming()
            }

            fn agreement(&self) -> Agreement {
                Agreement::Exact
            }

            fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
                self.write(node);
                Ok(())
            }
        }
    };
}

reshaping!(Squeeze, |op| match &op.axes {
    Some(axes) => vec![("axes", Attribute::Ints(axes.clone()))],
    None => vec![],
});
reshaping!(Unsqueeze, |op| vec![("axes", Attribute::Ints(op.axes.clone()))]);
reshaping!(Flatten, |op| vec![("axis", Attribute::Int(op.axis))]);

impl Squeeze {
    fn write(&self, node: &mut ExportNode<'_>) {
        let mut inputs = vec![node.input(0)];
        if let Some(axes) = &self.axes {
            inputs.push(node.constant(Tensor::ints(axes)));
        }
        node.emit_final("Squeeze", &inputs, vec![]);
    }
}

impl Unsqueeze {
    fn write(&self, node: &mut ExportNode<'_>) {
        let axes = node.constant(Tensor::ints(&self.axes));
        node.emit_final("Unsqueeze", &[node.input(0), axes], vec![]);
    }
}

impl Flatten {
    fn write(&self, node: &mut ExportNode<'_>) {
        node.same("Flatten", self.attributes());
    }
}

impl Described for Squeeze {
    const ONNX: &'static [&'static str] = &["Squeeze"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axes = axes_of(node)?;
        let x = node.input(0)?;
        Ok(vec![node.apply(Squeeze { axes }, &[x])?])
    }

    fn examples() -> Vec<Example> {
        let of = |axes: Option<&[i64]>| {
            let op = Squeeze { axes: axes.map(<[i64]>::to_vec) };
            Example::new(op, vec![Example::noise(&[1, 3, 1, 2], 1)])
        };
        vec![of(None), of(Some(&[0])), of(Some(&[-2, 0]))]
    }
}

impl Described for Unsqueeze {
    const ONNX: &'static [&'static str] = &["Unsqueeze"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axes = axes_of(node)?.ok_or_else(|| node.refuse("axes are missing"))?;
        let x = node.input(0)?;
        Ok(vec![node.apply(Unsqueeze { axes }, &[x])?])
    }

    fn examples() -> Vec<Example> {
        let of = |axes: &[i64]| {
            Example::new(Unsqueeze { axes: axes.to_vec() }, vec![Example::noise(&[3, 2], 1)])
        };
        vec![of(&[0]), of(&[1, -1]), of(&[2, 0, 1])]
    }
}

impl Described for Flatten {
    const ONNX: &'static [&'static str] = &["Flatten"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 1)?;
        node.finish(Flatten { axis })
    }

    fn examples() -> Vec<Example> {
        [0, 1, 3, -1].map(|axis| Example::new(Flatten { axis }, vec![Example::noise(&[2, 3, 4], 1)])).into()
    }
}
