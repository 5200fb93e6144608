//! Pad: elements added around a tensor, or taken off where a pad is negative.

use super::concrete::result_shapes;
use super::*;
use super::movement_gradient::gradient_of;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// What the added elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// A constant: operand 2, or zero.
    Constant,
    /// The nearest element of the border.
    Edge,
    /// A reflection that does not repeat the border.
    Reflect,
    /// The tensor again, as if it were a ring.
    Wrap,
}

/// `Pad(x, pads, value?, axes?)`; `pads` holds all starts, then all ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    /// What the added elements are.
    pub mode: PadMode,
}

/// Elements added before and after each axis.
fn per_axis(pads: &[i64], axes: Option<&[i64]>, rank: usize) -> Result<Vec<(i64, i64)>, OpError> {
    let all: Vec<i64> = (0..rank as i64).collect();
    let axes = axes.unwrap_or(&all);
    if pads.len() != 2 * axes.len() {
        return Err(OpError::mismatch("pads", pads.len(), format!("{} numbers", 2 * axes.len())));
    }
    let mut list = vec![(0, 0); rank];
    if let Some(far) = pads.iter().find(|p| p.unsigned_abs() > 1 << 31) {
        return Err(OpError::mismatch("pad", far, "-2^31 to 2^31"));
    }
    for (i, &axis) in axes.iter().enumerate() {
        list[axis_of(axis, rank)?] = (pads[i], pads[axes.len() + i]);
    }
    Ok(list)
}

/// An extent after padding.
fn padded(extent: usize, (before, after): (i64, i64)) -> Result<usize, OpError> {
    let total = (extent as i64).saturating_add(before).saturating_add(after);
    let bad = || OpError::mismatch("padded extent", total, "0 to 2^31");
    usize::try_from(total).ok().filter(|&n| n <= 1 << 31).ok_or_else(bad)
}

impl PadMode {
    /// Where an element `at` (counted from the first of the operand) comes from; `None` for a constant.
    fn source(self, at: i64, extent: usize) -> Option<usize> {
        let n = extent as i64;
        let inside = (0..n).contains(&at);
        match self {
            _ if inside => Some(at as usize),
            _ if n == 0 => None,
            PadMode::Constant => None,
            PadMode::Edge => Some(at.clamp(0, n - 1) as usize),
            PadMode::Wrap => Some(at.rem_euclid(n) as usize),
            PadMode::Reflect if n == 1 => Some(0),
            PadMode::Reflect => {
                let phase = at.rem_euclid(2 * (n - 1));
                Some(phase.min(2 * (n - 1) - phase) as usize)
            }
        }
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mode = match self.mode {
            PadMode::Constant => return vec![],
            PadMode::Edge => "edge",
            PadMode::Reflect => "reflect",
            PadMode::Wrap => "wrap",
        };
        vec![("mode", Attribute::Text(mode.into()))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "pads", &[DType::I64])?;
        if inputs.optional(2).is_some() {
            inputs.expect_dtype(2, "value", &[x.dtype])?;
            let value = &inputs.ty(2, "value")?.shape;
            if value.extents().is_some_and(|e| e.iter().product::<usize>() != 1) {
                return Err(OpError::mismatch("value", value, "one number"));
            }
        }
        let Some(dims) = x.shape.dims() else { return Ok(vec![TensorType::new(x.dtype, Shape::Unknown)]) };
        let axes_known = inputs.optional(3).is_none() || inputs.ints(3).is_some();
        let (Some(pads), true) = (inputs.ints(1), axes_known) else {
            let unknown = dims.iter().map(|d| Dim::symbol(format!("padded({d})")));
            return Ok(vec![TensorType::new(x.dtype, unknown.collect::<Vec<_>>())]);
        };
        let pads = per_axis(&pads, inputs.ints(3).as_deref(), dims.len())?;
        let mut result = vec![];
        for (dim, pads) in dims.iter().zip(pads) {
            result.push(match (dim, pads) {
                (Dim::Known(n), pads) => padded(*n, pads)?.into(),
                (symbol, (0, 0)) => symbol.clone(),
                (symbol, (before, after)) => Dim::symbol(format!("({symbol}{:+})", before.saturating_add(after))),
            });
        }
        Ok(vec![TensorType::new(x.dtype, result)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let axes = inputs.optional(3).map(|a| a.to_i64().into_owned());
        let pads = per_axis(&inputs.get(1)?.to_i64(), axes.as_deref(), x.shape().len())?;
        let shape =
            x.shape().iter().zip(&pads).map(|(&n, &p)| padded(n, p)).collect::<Result<Vec<_>, _>>()?;
        if crate::tensor::element_count(&shape).is_none_or(|n| n > 1 << 31) {
            return Err(OpError::mismatch("padded shape", format!("{shape:?}"), "at most 2^31 elements"));
        }
        let from = strides(x.shape());
        let mut source = vec![];
        each_index(&shape, |index| {
            let mut at = Some(0);
            for axis in 0..index.len() {
                let along = self.mode.source(index[axis] as i64 - pads[axis].0, x.shape()[axis]);
                at = at.zip(along).map(|(a, i)| a + i * from[axis]);
            }
            source.push(at);
        });
        let moved = x.take(shape.clone(), &source);
        let Some(value) = inputs.optional(2).filter(|_| self.mode == PadMode::Constant) else {
            return Ok(vec![moved]);
        };
        let fill = value.take(shape, &vec![Some(0); source.len()]);
        let kept: Vec<bool> = source.iter().map(Option::is_some).collect();
        Ok(vec![super::select::select(&kept, &moved, &fill)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(2) {
            return Ok(Gradient::NotDifferentiable("the padding value is not meant to be trained"));
        }
        gradient_of(&Op::from(self.clone()), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Pad {
    const ONNX: &'static [&'static str] = &["Pad"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let mode = match node.text("mode", "constant")?.as_str() {
            "constant" => PadMode::Constant,
            "edge" => PadMode::Edge,
            "reflect" => PadMode::Reflect,
            "wrap" => PadMode::Wrap,
            other => return Err(node.refuse(format!("mode = `{other}`; known: constant, edge, reflect, wrap"))),
        };
        if node.opset() >= 11 {
            return node.finish(Pad { mode });
        }
        let pads = node.ints("pads", &[])?;
        let value = node.float("value", 0.0)?;
        let x = node.input(0)?;
        let dtype = node.graph().value(x).ty.dtype;
        let pads = node.constant(Tensor::ints(&pads));
        let value = node.constant(Tensor::scalar(value).cast(dtype));
        Ok(vec![node.apply(Pad { mode }, &[x, pads, value])?])
    }

    fn examples() -> Vec<Example> {
        let x = || Example::noise(&[2, 4], 1);
        let of = |mode, pads: &[i64]| Example::new(Pad { mode }, vec![x(), Tensor::ints(pads)]).constants(&[1]);
        let value = Some(Tensor::scalar(0.3));
        let axes = vec![Some(x()), Some(Tensor::ints(&[1, 2])), value, Some(Tensor::ints(&[-1]))];
        vec![
            of(PadMode::Constant, &[1, 0, 0, 2]),
            of(PadMode::Constant, &[0, -1, 1, 1]),
            of(PadMode::Edge, &[1, 2, 0, 1]),
            of(PadMode::Reflect, &[1, 3, 0, 2]),
            of(PadMode::Wrap, &[0, 5, 1, 0]),
            Example::optional(Pad { mode: PadMode::Constant }, axes).constants(&[1, 2, 3]),
        ]
    }
}
