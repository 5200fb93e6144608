//! Softmax followed by cross entropy with integer labels: the loss of classification.

use super::concrete::result_shapes;
use super::softmax::{each_line, log_sum_exp};
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// `(logits [N, C, d..], labels [N, d..]) -> (loss [], log_probabilities [N, C, d..])`.
///
/// The loss is the mean over all labelled positions of `-sum_c q_c log p_c`, with p the softmax over the C
/// classes and `q = (1 - e) onehot + e / C` (Szegedy et al. 2016, section 7; e = 0 gives the plain cross
/// entropy). The log-probabilities are saved for the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropy {
    /// e, in 0..=1.
    pub label_smoothing: f32,
}

/// `dlogits` from `(log_probabilities, labels, dloss)`: `(p - q) dloss / count`.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropyGradient {
    /// e of the forward operator.
    pub label_smoothing: f32,
}

/// Checks that logits and labels belong together.
pub(super) fn expect_labels(inputs: Operands<'_>, logits: &'static str) -> Result<DType, OpError> {
    let dtype = inputs.expect_float(0, logits)?;
    inputs.expect_dtype(1, "labels", &[DType::I64, DType::I32])?;
    let (Some(x), Some(labels)) = (inputs.dims(0, logits)?, inputs.dims(1, "labels")?) else {
        return Ok(dtype);
    };
    if x.len() < 2 {
        return Err(OpError::mismatch(logits, inputs.ty(0, logits)?, "at least the axes [N, C]"));
    }
    let mut wanted = x.to_vec();
    wanted.remove(1);
    let agree = |(a, b): (&Dim, &Dim)| a == b || a.known().is_none() || b.known().is_none();
    if labels.len() != wanted.len() || !labels.iter().zip(&wanted).all(agree) {
        return Err(OpError::mismatch("labels", inputs.ty(1, "labels")?, Shape::from(wanted)));
    }
    Ok(dtype)
}

/// The class at `position`; an error when there is no such class.
pub(super) fn class(labels: &[i64], position: usize, classes: usize) -> Result<usize, OpError> {
    let label = labels[position];
    usize::try_from(label).ok().filter(|&c| c < classes).ok_or_else(|| {
        let found = format!("{label} at position {position}");
        OpError::mismatch("label", found, format!("0 to {} for {classes} classes", classes as i64 - 1))
    })
}

fn expect_smoothing(e: f32) -> Result<(), OpError> {
    if (0.0..=1.0).contains(&e) { Ok(()) } else { Err(OpError::mismatch("label_smoothing", e, "0 to 1")) }
}

impl Operator for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "SoftmaxCrossEntropy"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let e = self.label_smoothing;
        if e == 0.0 { vec![] } else { vec![("label_smoothing", Attribute::Float(e))] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = expect_labels(inputs, "logits")?;
        expect_smoothing(self.label_smoothing)?;
        Ok(vec![TensorType::new(dtype, Shape::known(&[])), inputs.ty(0, "logits")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, labels) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let (values, e) = (x.to_f64(), f64::from(self.label_smoothing));
        let mut log_p = vec![0.0; x.len()];
        let (mut total, mut position) = (0.0, 0);
        let mut outcome = Ok(());
        each_line(x.shape(), 1, |line| {
            let (max, log_sum) = log_sum_exp(&values, line);
            line.iter().for_each(|&i| log_p[i] = values[i] - max - log_sum);
            match class(&labels, position, line.len()) {
                Ok(label) => {
                    total -= (1.0 - e) * log_p[line[label]];
                    if e > 0.0 {
                        total -= e / line.len() as f64 * line.iter().map(|&i| log_p[i]).sum::<f64>();
                    }
                }
                Err(error) => outcome = outcome.clone().and(Err(error)),
            }
            position += 1;
        });
        outcome?;
        let loss = Tensor::from_f64(x.dtype(), [], vec![total / labels.len() as f64]);
        Ok(vec![loss, Tensor::from_f64(x.dtype(), x.shape(), log_p)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (labels, log_p) = (g.input(1), g.output(1));
        let mut dx = None;
        if let Some(dloss) = g.output_gradient(0) {
            let op = SoftmaxCrossEntropyGradient { label_smoothing: self.label_smoothing };
            dx = Some(g.apply(op, &[log_p, labels, dloss])?);
        }
        if let Some(dlog_p) = g.output_gradient(1) {
            let more = g.apply(SoftmaxGradient { axis: 1, log: true }, &[log_p, dlog_p])?;
            dx = Some(match dx {
                None => more,
                Some(dx) => g.apply(Binary { function: BinaryFunction::Add }, &[dx, more])?,
            });
        }
        Ok(Gradient::Inputs(vec![dx, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let smoothing = u64::from(self.label_smoothing > 0.0);
        Work::elementwise((5 + smoothing) * shapes.input_len(0) + shapes.input_len(1))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        if self.label_smoothing != 0.0 {
            return Err(OpError::Unsupported("ONNX has no cross entropy with label smoothing".into()));
        }
        node.same("SoftmaxCrossEntropyLoss", vec![]);
        Ok(())
    }
}

impl Described for SoftmaxCrossEntropy {
    /// The ONNX losses, of which this is one form, are read by [`NegativeLogLikelihood`].
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("this loss is read by NegativeLogLikelihood"))
    }

    fn examples() -> Vec<Example> {
        let of = |label_smoothing, shape: &[usize], labels: Tensor| {
            Example::new(SoftmaxCrossEntropy { label_smoothing }, vec![Example::noise(shape, 1), labels])
        };
        vec![
            of(0.0, &[3, 5], Tensor::ints(&[4, 0, 2])),
            of(0.1, &[3, 5], Tensor::ints(&[1, 1, 3]).cast(DType::I32)),
            of(0.0, &[2, 3, 2], Tensor::i64([2, 2], vec![2, 0, 1, 1])),
        ]
    }
}

impl Operator for SoftmaxCrossEntropyGradient {
    fn name(&self) -> &'static str {
        "SoftmaxCrossEntropyGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        SoftmaxCrossEntropy { label_smoothing: self.label_smoothing }.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = expect_labels(inputs, "log_probabilities")?;
        expect_smoothing(self.label_smoothing)?;
        inputs.expect_dtype(2, "dloss", &[dtype])?;
        inputs.expect_rank(2, "dloss", 0)?;
        Ok(vec![inputs.ty(0, "log_probabilities")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (log_p, labels) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let (values, e) = (log_p.to_f64(), f64::from(self.label_smoothing));
        let factor = inputs.get(2)?.to_f64()[0] / labels.len() as f64;
        let mut dx = vec![0.0; log_p.len()];
        let mut position = 0;
        let mut outcome = Ok(());
        each_line(log_p.shape(), 1, |line| {
            match class(&labels, position, line.len()) {
                Ok(label) => {
                    let spread = e / line.len() as f64;
                    for (c, &i) in line.iter().enumerate() {
                        let q = spread + if c == label { 1.0 - e } else { 0.0 };
                        dx[i] = (values[i].exp() - q) * factor;
                    }
                }
                Err(error) => outcome = outcome.clone().and(Err(error)),
            }
            position += 1;
        });
        outcome?;
        Ok(vec![Tensor::from_f64(log_p.dtype(), log_p.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of the cross entropy are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(3 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for SoftmaxCrossEntropyGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let of = |label_smoothing| {
            let operands = vec![Example::noise(&[3, 4], 1), Tensor::ints(&[3, 0, 1]), Tensor::scalar(0.7)];
            Example::new(SoftmaxCrossEntropyGradient { label_smoothing }, operands)
        };
        vec![of(0.0), of(0.1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_outside_the_classes_is_an_error_that_says_where() {
        let (x, labels) = (Example::noise(&[2, 3], 1), Tensor::ints(&[1, 3]));
        let op = SoftmaxCrossEntropy { label_smoothing: 0.0 };
        let error = op.evaluate(Tensors::new(&[Some(&x), Some(&labels)])).unwrap_err();
        assert_eq!(error.to_string(), "label: found 3 at position 1, expected 0 to 2 for 3 classes");
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_number_of_classes() {
        let (x, labels) = (Tensor::zeros(DType::F64, [2, 8]), Tensor::ints(&[1, 3]));
        let op = SoftmaxCrossEntropy { label_smoothing: 0.3 };
        let loss = op.evaluate(Tensors::new(&[Some(&x), Some(&labels)])).unwrap()[0].to_f64()[0];
        assert!((loss - 8f64.ln()).abs() < 1e-12);
    }
}
