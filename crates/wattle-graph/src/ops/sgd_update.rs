//! The parameter update of stochastic gradient descent, with momentum and weight decay.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Shape;
use crate::tensor::DType;

/// `(param, grad, velocity?, lr []) -> (next param, next velocity?)`, all but lr of one shape.
///
/// With `g = grad + weight_decay param` and `v = momentum velocity + g`, the parameter moves by `-lr v`, or by
/// `-lr (g + momentum v)` with Nesterov's momentum (Sutskever et al. 2013, in PyTorch's form: the learning rate
/// scales the step, not the velocity). Without momentum there is no velocity, neither operand nor result.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdUpdate {
    /// Fraction of the velocity kept; 0 for none.
    pub momentum: f64,
    /// Looks one step of momentum ahead.
    pub nesterov: bool,
    /// Factor of the parameter added to its gradient.
    pub weight_decay: f64,
}

/// Checks that operands `1..last` are present with the type of operand 0 and that operands from `last` to
/// `last + scalars` are single numbers of that element type; returns that type. Shared by all updates.
pub(super) fn expect_update(
    inputs: Operands<'_>,
    tensors: &[(usize, &'static str)],
    scalars: &[(usize, &'static str)],
) -> Result<TensorType, OpError> {
    inputs.expect_float(0, "param")?;
    let param = inputs.ty(0, "param")?;
    for &(index, name) in tensors {
        let ty = inputs.ty(index, name)?;
        if ty != param {
            return Err(OpError::mismatch(name, ty, format!("the type of param, {param}")));
        }
    }
    for &(index, name) in scalars {
        inputs.expect_dtype(index, name, &[DType::F32, DType::F64])?;
        let shape = &inputs.ty(index, name)?.shape;
        if *shape != Shape::known(&[]) {
            return Err(OpError::mismatch(name, shape, "a single number, []"));
        }
    }
    Ok(param.clone())
}

impl Operator for SgdUpdate {
    fn name(&self) -> &'static str {
        "SgdUpdate"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let number = |x: f64, name| (x != 0.0).then_some((name, Attribute::Float(x as f32)));
        let nesterov = self.nesterov.then_some(("nesterov", Attribute::Int(1)));
        let all = [number(self.momentum, "momentum"), nesterov, number(self.weight_decay, "weight_decay")];
        all.into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let scalars = [(3, "lr")];
        if self.momentum == 0.0 {
            return Ok(vec![expect_update(inputs, &[(1, "grad")], &scalars)?]);
        }
        let ty = expect_update(inputs, &[(1, "grad"), (2, "velocity")], &scalars)?;
        Ok(vec![ty.clone(), ty])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (param, grad, lr) = (inputs.get(0)?, inputs.get(1)?, inputs.get(3)?.to_f64()[0]);
        let (ws, gs) = (param.to_f64(), grad.to_f64());
        let decayed = |i: usize| gs[i] + self.weight_decay * ws[i];
        let tensor = |values| Tensor::from_f64(param.dtype(), param.shape(), values);
        if self.momentum == 0.0 {
            return Ok(vec![tensor((0..ws.len()).map(|i| ws[i] - lr * decayed(i)).collect())]);
        }
        let vs = inputs.get(2)?.to_f64();
        let next_v: Vec<f64> = (0..ws.len()).map(|i| self.momentum * vs[i] + decayed(i)).collect();
        let step = |i: usize| if self.nesterov { decayed(i) + self.momentum * next_v[i] } else { next_v[i] };
        let next_w = (0..ws.len()).map(|i| ws[i] - lr * step(i)).collect();
        Ok(vec![tensor(next_w), tensor(next_v)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("training through the optimiser's steps is not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let decay = if self.weight_decay != 0.0 { 2 } else { 0 };
        let momentum = if self.momentum != 0.0 { 2 } else { 0 };
        let nesterov = if self.nesterov { 2 } else { 0 };
        Work::elementwise((2 + decay + momentum + nesterov) * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("SgdUpdate belongs to training graphs, which ONNX cannot hold".into()))
    }
}

impl Described for SgdUpdate {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX inference graphs have no updates"))
    }

    fn examples() -> Vec<Example> {
        let of = |momentum, nesterov, weight_decay| {
            let velocity = (momentum != 0.0).then(|| Example::noise(&[2, 3], 3));
            let operands = vec![
                Some(Example::noise(&[2, 3], 1)),
                Some(Example::noise(&[2, 3], 2)),
                velocity,
                Some(Tensor::scalar(0.1)),
            ];
            Example::optional(SgdUpdate { momentum, nesterov, weight_decay }, operands)
        };
        vec![of(0.0, false, 0.0), of(0.9, false, 5e-4), of(0.9, true, 5e-4), of(0.0, false, 0.01)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(op: &SgdUpdate, velocity: Option<f64>) -> Vec<f64> {
        let t = |x: f64| Tensor::f64([1], vec![x]);
        let (w, g, v, lr) = (t(2.0), t(1.0), velocity.map(t), Tensor::scalar(0.5));
        let operands = [Some(&w), Some(&g), v.as_ref(), Some(&lr)];
        op.evaluate(Tensors::new(&operands)).unwrap().iter().map(|t| t.to_f64()[0]).collect()
    }

    #[test]
    fn updates_match_hand_computed_steps() {
        // g = 1 + 0.25 * 2 = 1.5; v = 0.5 * 4 + 1.5 = 3.5; plain step 3.5, Nesterov 1.5 + 0.5 * 3.5.
        let heavy = SgdUpdate { momentum: 0.5, nesterov: false, weight_decay: 0.25 };
        assert_eq!(step(&heavy, Some(4.0)), [2.0 - 0.5 * 3.5, 3.5]);
        assert_eq!(step(&SgdUpdate { nesterov: true, ..heavy.clone() }, Some(4.0)), [2.0 - 0.5 * 3.25, 3.5]);
        assert_eq!(step(&SgdUpdate { momentum: 0.0, ..heavy }, None), [2.0 - 0.5 * 1.5]);
    }
}
