//! Fused: a product followed by a bias, a residual addition, an activation and a pooling, as one pass over memory.

use super::*;
use super::binary::broadcast_indices;
use super::concrete::result_shapes;
use crate::DType;
use crate::shape::{self, Dim, broadcast};

/// What is applied to each element last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// An element-wise function.
    Function(Function),
    /// Limits to `low..=high`.
    Clip {
        /// Lower limit.
        low: f32,
        /// Upper limit.
        high: f32,
    },
    /// `factor f(x) + shift`.
    Scaled {
        /// f.
        function: Function,
        /// Factor of the function's value.
        factor: f32,
        /// Added after.
        shift: f32,
    },
}

impl Activation {
    /// The activation of one number.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Activation::Function(f) => f.value(x),
            Activation::Clip { low, high } => x.max(f64::from(low)).min(f64::from(high)),
            Activation::Scaled { function, factor, shift } => f64::from(factor) * function.value(x) + f64::from(shift),
        }
    }
}

/// `pool(activation(body(operands..) + bias + residual))`; the operands of `body` come first, then the bias if there
/// is one (of rank 1, along axis 1 of a convolution and the last axis of a matrix product), then the residual.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// The product.
    pub body: Box<Op>,
    /// How many operands the product has.
    pub operands: usize,
    /// Whether a bias follows the product's operands.
    pub bias: bool,
    /// Whether an operand of the result's shape follows, to be added before the activation.
    pub residual: bool,
    /// Applied to each element.
    pub activation: Option<Activation>,
    /// Applied last, without indices.
    pub pool: Option<Pool>,
}

impl Fused {
    /// The product alone.
    pub fn new(body: Op, operands: usize) -> Fused {
        Fused { body: Box::new(body), operands, bias: false, residual: false, activation: None, pool: None }
    }

    /// Position of the bias among the operands.
    pub fn bias_index(&self) -> Option<usize> {
        self.bias.then_some(self.operands)
    }

    /// Position of the residual among the operands.
    pub fn residual_index(&self) -> Option<usize> {
        self.residual.then_some(self.operands + usize::from(self.bias))
    }

    /// Extents of the body's result, before any pooling.
    fn body_outputs(&self, shapes: &Shapes<'_>) -> Vec<Vec<usize>> {
        if self.pool.is_none() {
            return shapes.outputs.to_vec();
        }
        let ty = |extents: &Vec<usize>| TensorType { dtype: DType::F32, shape: shape::Shape::known(extents) };
        let types: Vec<_> = shapes.inputs.iter().map(|i| i.as_ref().map(ty)).collect();
        let operands: Vec<_> =
            types.iter().map(|t| t.as_ref().map(|ty| Operand { ty, constant: None })).collect();
        let results = self.body.infer(Operands::new(&operands).first(self.operands)).unwrap_or_default();
        results.iter().map(|y| y.shape.extents().unwrap_or_default()).collect()
    }

    /// The shape under which a bias of `n` elements broadcasts to a result of `rank` axes.
    fn bias_shape(&self, n: usize, rank: usize) -> Vec<usize> {
        let mut shape = vec![1; rank];
        let axis = if matches!(*self.body, Op::MatMul(_)) { rank.saturating_sub(1) } else { 1 };
        if let Some(extent) = shape.get_mut(axis) {
            *extent = n;
        }
        shape
    }
}

impl Operator for Fused {
    fn name(&self) -> &'static str {
        "Fused"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("body", Attribute::Text(self.body.name().into()))];
        attributes.extend(self.body.attributes());
        for (on, name) in [(self.bias, "bias"), (self.residual, "residual")] {
            if on {
                attributes.push((name, Attribute::Int(1)));
            }
        }
        if let Some(activation) = self.activation {
            attributes.push(("activation", Attribute::Text(format!("{activation:?}"))));
        }
        if let Some(pool) = &self.pool {
            attributes.push(("pool", Attribute::Text(pool.name().into())));
            attributes.push(("pool_kernel", Attribute::Ints(pool.kernel.iter().map(|&k| k as i64).collect())));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let body = self.body.infer(inputs.first(self.operands))?;
        let [y] = &body[..] else {
            return Err(OpError::mismatch("results of the body", body.len(), 1));
        };
        if let Some(index) = self.bias_index() {
            inputs.expect_rank(index, "bias", 1)?;
            inputs.expect_dtype(index, "bias", &[y.dtype])?;
            if let (Some([Dim::Known(n)]), Some(dims)) = (inputs.dims(index, "bias")?, y.shape.dims()) {
                let bias = self.bias_shape(*n, dims.len());
                let clash = |(dim, &b): (&Dim, &usize)| b != 1 && dim.known().is_some_and(|m| m != b);
                if dims.iter().zip(&bias).any(clash) {
                    return Err(OpError::mismatch("bias", n, format!("one per channel of {y}")));
                }
            }
        }
        if let Some(index) = self.residual_index() {
            let residual = inputs.ty(index, "residual")?;
            if broadcast(&y.shape, &residual.shape).as_ref() != Some(&y.shape) || residual.dtype != y.dtype {
                return Err(OpError::mismatch("residual", residual, y));
            }
        }
        match &self.pool {
            Some(pool) => pool.infer(Operands::new(&[Some(Operand { ty: y, constant: None })])),
            None => Ok(body),
        }
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let y = self.body.evaluate(inputs.first(self.operands))?.swap_remove(0);
        let mut values = y.to_f64().into_owned();
        let mut add = |addend: &Tensor, shape: &[usize]| {
            let addends = addend.to_f64();
            for (value, from) in values.iter_mut().zip(broadcast_indices(shape, y.shape())) {
                *value += addends[from];
            }
        };
        if let Some(index) = self.bias_index() {
            let bias = inputs.get(index)?;
            add(bias, &self.bias_shape(bias.len(), y.shape().len()));
        }
        if let Some(index) = self.residual_index() {
            let residual = inputs.get(index)?;
            add(residual, residual.shape());
        }
        if let Some(activation) = self.activation {
            values.iter_mut().for_each(|x| *x = activation.value(*x));
        }
        let y = Tensor::from_f64(y.dtype(), y.shape(), values);
        match &self.pool {
            Some(pool) => pool.evaluate(Tensors::new(&[Some(&y)])),
            None => Ok(vec![y]),
        }
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("fused operators are made after differentiation"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let extra = u64::from(self.bias) + u64::from(self.residual) + u64::from(self.activation.is_some());
        let body_outputs = self.body_outputs(shapes);
        let body_shapes = Shapes { outputs: &body_outputs, ..*shapes };
        let body = self.body.work(&body_shapes);
        let pool = self.pool.as_ref().map_or(0, |pool| pool.work(shapes).element_ops);
        Work { element_ops: body.element_ops + extra * body_shapes.output_len(0) + pool, ..body }
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("fused operators are made for running, after the point of export".into()))
    }
}

impl Described for Fused {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no Fused"))
    }

    fn examples() -> Vec<Example> {
        let relu = Some(Activation::Function(Function::Relu));
        let clip = Some(Activation::Clip { low: -0.5, high: 0.5 });
        let conv = Op::from(Conv { sliding: Sliding::padded(2, 1), groups: 1 });
        let x = || Example::noise(&[2, 3, 4, 4], 1);
        let w = || Example::noise(&[5, 3, 3, 3], 2);
        let residual = || Example::noise(&[2, 5, 4, 4], 4);
        let matmul = Op::from(MatMul::default());
        let scaled = Activation::Scaled { function: Function::HardSwish, factor: 1.5, shift: -0.25 };
        let depthwise = Op::from(Conv { sliding: Sliding::padded(2, 1), groups: 3 });
        vec![
            Example::new(Fused { activation: Some(scaled), ..Fused::new(conv.clone(), 2) }, vec![x(), w()])
                .macs(2 * 5 * 16 * 27),
            Example::new(
                Fused { activation: Some(scaled), ..Fused::new(depthwise, 2) },
                vec![x(), Example::noise(&[3, 1, 3, 3], 2)],
            )
            .macs(2 * 3 * 16 * 9),
            Example::new(
                Fused { bias: true, residual: true, activation: relu, ..Fused::new(conv.clone(), 2) },
                vec![x(), w(), Example::noise(&[5], 3), residual()],
            )
            .macs(2 * 5 * 16 * 27),
            Example::new(Fused { activation: clip, ..Fused::new(conv.clone(), 3) }, vec![x(), w(), Example::noise(&[5], 3)])
                .macs(2 * 5 * 16 * 27),
            Example::new(
                Fused {
                    bias: true,
                    activation: relu,
                    pool: Some(Pool::new(PoolKind::Max, &[2, 2], Sliding::padded(2, 1))),
                    ..Fused::new(conv.clone(), 2)
                },
                vec![x(), w(), Example::noise(&[5], 3)],
            )
            .macs(2 * 5 * 16 * 27),
            Example::new(
                Fused { bias: true, activation: relu, ..Fused::new(matmul, 2) },
                vec![Example::noise(&[3, 4], 1), Example::noise(&[4, 2], 2), Example::noise(&[2], 3)],
            )
            .macs(24),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_of_a_convolution_runs_along_its_channels() {
        let fused = Fused::new(Conv { sliding: Sliding::padded(2, 1), groups: 1 }.into(), 2);
        assert_eq!(fused.bias_shape(5, 4), [1, 5, 1, 1]);
        assert_eq!(Fused::new(MatMul::default().into(), 2).bias_shape(5, 3), [1, 1, 5]);
    }
}
