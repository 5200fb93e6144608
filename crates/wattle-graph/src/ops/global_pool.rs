//! Global pooling: the maximum, mean or p-norm of each channel.

use super::concrete::result_shapes;
use super::pool::{
    add_pooled_gradient, expect_gradient_operands, gradient_operands, import_p, pool_types, pooled,
};
use super::*;
use crate::shape::{Dim, Shape};

/// `x [N, C, d..] -> y [N, C, 1..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalPool {
    /// What becomes of a channel.
    pub kind: PoolKind,
}

/// `dx` from `(dy, x?, y?)`: the mean needs dy alone, the others both x and the result y.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalPoolGradient {
    /// What became of a channel.
    pub kind: PoolKind,
    /// Extents of the forward operand.
    pub input_shape: Vec<usize>,
}

fn result(x: &[Dim]) -> Result<Vec<Dim>, OpError> {
    if x.len() < 3 {
        return Err(OpError::mismatch("x", format!("{} axes", x.len()), "at least the axes [N, C, d]"));
    }
    let mut dims = vec![Dim::Known(1); x.len()];
    dims[..2].clone_from_slice(&x[..2]);
    Ok(dims)
}

impl Operator for GlobalPool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "GlobalMaxPool",
            PoolKind::Average => "GlobalAveragePool",
            PoolKind::Lp { .. } => "GlobalLpPool",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.kind {
            PoolKind::Lp { p } if p != 2 => vec![("p", Attribute::Int(i64::from(p)))],
            _ => vec![],
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_dtype(0, "x", pool_types(self.kind))?;
        if self.kind == (PoolKind::Lp { p: 0 }) {
            return Err(OpError::mismatch("p", 0, "at least 1"));
        }
        let shape = match inputs.dims(0, "x")? {
            Some(x) => Shape::Ranked(result(x)?),
            None => Shape::Unknown,
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let shape = result_shapes(self, inputs)?.remove(0);
        let channels: usize = shape.iter().product();
        let plane = x.len().checked_div(channels).unwrap_or(0);
        let values = x.to_f64();
        let channel = |c: usize| values[c * plane..(c + 1) * plane].iter().copied();
        let y = (0..channels).map(|c| pooled(self.kind, channel(c), plane)).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = gradient_operands(self.kind, g);
        let op = GlobalPoolGradient { kind: self.kind, input_shape: g.extents(g.input(0))? };
        Ok(Gradient::Inputs(vec![Some(g.apply_all(op, &operands)?[0])]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn agreement(&self) -> Agreement {
        if self.kind == PoolKind::Max { Agreement::Exact } else { Agreement::Relative(1e-5) }
    }
}

impl Described for GlobalPool {
    const ONNX: &'static [&'static str] = &["GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let kind = match node.op_type() {
            "GlobalMaxPool" => PoolKind::Max,
            "GlobalAveragePool" => PoolKind::Average,
            _ => PoolKind::Lp { p: import_p(node)? },
        };
        node.finish(GlobalPool { kind })
    }

    fn examples() -> Vec<Example> {
        let of = |kind, shape: &[usize]| Example::new(GlobalPool { kind }, vec![Example::noise(shape, 1)]);
        vec![
            of(PoolKind::Average, &[2, 3, 4, 5]),
            of(PoolKind::Max, &[2, 3, 4, 5]),
            of(PoolKind::Lp { p: 2 }, &[2, 3, 4]),
            of(PoolKind::Lp { p: 3 }, &[1, 2, 2, 2, 3]),
        ]
    }
}

impl Operator for GlobalPoolGradient {
    fn name(&self) -> &'static str {
        "GlobalPoolGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let shape = Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect());
        vec![("pool", Attribute::Text(format!("{:?}", self.kind))), ("shape", shape)]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x: Vec<Dim> = self.input_shape.iter().map(|&n| n.into()).collect();
        let y = Shape::Ranked(result(&x)?);
        Ok(vec![expect_gradient_operands(self.kind, inputs, &self.input_shape, &y)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let dy = inputs.get(0)?;
        let dys = dy.to_f64();
        let (x, y) = (inputs.optional(1).map(Tensor::to_f64), inputs.optional(2).map(Tensor::to_f64));
        let total: usize = shape.iter().product();
        let plane = total.checked_div(dys.len()).unwrap_or(0);
        let mut dx = vec![0.0; total];
        for c in 0..dys.len() {
            let from: Vec<usize> = (c * plane..(c + 1) * plane).collect();
            let window = (dys[c], x.as_deref().unwrap_or(&[]), y.as_deref().map_or(0.0, |y| y[c]));
            add_pooled_gradient(self.kind, &mut dx, &from, window, plane);
        }
        Ok(vec![Tensor::from_f64(dy.dtype(), shape, dx)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if self.kind != PoolKind::Average {
            return Ok(Gradient::NotDifferentiable("second derivatives of this pooling are not defined"));
        }
        let ddx = g.gradient();
        Ok(Gradient::Inputs(vec![Some(g.apply(GlobalPool { kind: self.kind }, &[ddx])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for GlobalPoolGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let op = GlobalPoolGradient { kind: PoolKind::Average, input_shape: vec![2, 3, 4, 5] };
        vec![Example::new(op, vec![Example::noise(&[2, 3, 1, 1], 1)])]
    }
}
