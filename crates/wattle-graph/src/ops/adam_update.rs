//! The parameter update of Adam and AdamW.

use super::concrete::result_shapes;
use super::sgd_update::expect_update;
use super::*;

/// `(param, grad, m, v, lr [], step []) -> (next param, next m, next v)`; step counts from 1.
///
/// Kingma & Ba 2015, algorithm 1: moving averages m of the gradient and v of its square, both divided by
/// `1 - beta^step`, move the parameter by `-lr m / (sqrt(v) + epsilon)`. Weight decay is added to the gradient,
/// or, decoupled, moves the parameter by `-lr weight_decay param` besides (AdamW, Loshchilov & Hutter 2019,
/// algorithm 2, with the learning rate as their schedule).
#[derive(Clone, Debug, PartialEq)]
pub struct AdamUpdate {
    /// Fraction of m kept.
    pub beta1: f64,
    /// Fraction of v kept.
    pub beta2: f64,
    /// Added to the square root.
    pub epsilon: f64,
    /// Strength of weight decay; 0 for none.
    pub weight_decay: f64,
    /// The decay bypasses the moving averages (AdamW).
    pub decoupled: bool,
}

impl Default for AdamUpdate {
    /// The values that Kingma & Ba recommend, without weight decay.
    fn default() -> AdamUpdate {
        AdamUpdate { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

impl Operator for AdamUpdate {
    fn name(&self) -> &'static str {
        "AdamUpdate"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let number = |x: f64, name| (name, Attribute::Float(x as f32));
        let mut list =
            vec![number(self.beta1, "beta1"), number(self.beta2, "beta2"), number(self.epsilon, "epsilon")];
        if self.weight_decay != 0.0 {
            list.push(number(self.weight_decay, "weight_decay"));
            list.push(("decoupled", Attribute::Int(i64::from(self.decoupled))));
        }
        list
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let ty = expect_update(inputs, &[(1, "grad"), (2, "m"), (3, "v")], &[(4, "lr"), (5, "step")])?;
        Ok(vec![ty; 3])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let param = inputs.get(0)?;
        let (ws, gs) = (param.to_f64(), inputs.get(1)?.to_f64());
        let (ms, vs) = (inputs.get(2)?.to_f64(), inputs.get(3)?.to_f64());
        let (lr, step) = (inputs.get(4)?.to_f64()[0], inputs.get(5)?.to_f64()[0]);
        let correction = |beta: f64| 1.0 - beta.powf(step);
        let (m_correction, v_correction) = (correction(self.beta1), correction(self.beta2));
        let (coupled, apart) =
            if self.decoupled { (0.0, self.weight_decay) } else { (self.weight_decay, 0.0) };
        let (mut next_w, mut next_m, mut next_v) = (vec![], vec![], vec![]);
        for i in 0..ws.len() {
            let g = gs[i] + coupled * ws[i];
            let m = self.beta1 * ms[i] + (1.0 - self.beta1) * g;
            let v = self.beta2 * vs[i] + (1.0 - self.beta2) * g * g;
            let direction = m / m_correction / ((v / v_correction).sqrt() + self.epsilon);
            next_w.push(ws[i] - lr * (direction + apart * ws[i]));
            next_m.push(m);
            next_v.push(v);
        }
        let tensor = |values| Tensor::from_f64(param.dtype(), param.shape(), values);
        Ok([next_w, next_m, next_v].map(tensor).into())
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("training through the optimiser's steps is not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let decay = if self.weight_decay != 0.0 { 2 } else { 0 };
        // m: 3 operations, v: 4, the step: 7.
        Work::elementwise((14 + decay) * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("AdamUpdate belongs to training graphs, which ONNX cannot hold".into()))
    }
}

impl Described for AdamUpdate {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX inference graphs have no updates"))
    }

    fn examples() -> Vec<Example> {
        let of = |op: AdamUpdate, step| {
            let squares = Example::noise(&[5], 4).to_f64().iter().map(|x| x * x).collect();
            let v = Tensor::from_f64(crate::tensor::DType::F32, [5], squares);
            let [w, g, m] = [1, 2, 3].map(|seed| Example::noise(&[5], seed));
            Example::new(op, vec![w, g, m, v, Tensor::scalar(0.1), Tensor::scalar(step)])
        };
        let decayed = AdamUpdate { weight_decay: 0.01, ..AdamUpdate::default() };
        vec![
            of(AdamUpdate::default(), 1.0),
            of(decayed.clone(), 2.0),
            of(AdamUpdate { decoupled: true, ..decayed }, 1000.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn first_step(op: &AdamUpdate) -> f64 {
        let (w, g) = (Tensor::f64([1], vec![2.0]), Tensor::f64([1], vec![-3.0]));
        let (zero, lr, step) = (Tensor::zeros(DType::F64, [1]), Tensor::scalar(0.5), Tensor::scalar(1.0));
        let operands = [Some(&w), Some(&g), Some(&zero), Some(&zero), Some(&lr), Some(&step)];
        op.evaluate(Tensors::new(&operands)).unwrap()[0].to_f64()[0]
    }

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        // Corrected, m = g and v = g^2, so that the step is lr sign(g).
        assert!((first_step(&AdamUpdate::default()) - 2.5).abs() < 1e-8);
    }

    #[test]
    fn decoupled_decay_shrinks_the_parameter_besides() {
        let op = AdamUpdate { weight_decay: 0.1, decoupled: true, ..AdamUpdate::default() };
        assert!((first_step(&op) - (2.5 - 0.5 * 0.1 * 2.0)).abs() < 1e-8);
        // Coupled decay only changes the gradient, here -3 + 0.2, whose sign alone counts in the first step.
        assert!((first_step(&AdamUpdate { decoupled: false, ..op }) - 2.5).abs() < 1e-8);
    }
}
