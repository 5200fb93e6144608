//! Softmax followed by cross entropy with integer labels: the loss of classification.

use super::concrete::result_shapes;
use super::negative_log_likelihood::expect_weights;
use super::softmax::{each_line, log_sum_exp};
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// `(logits, labels, weights? [C]) -> (loss [], log_probabilities)`: the classes lie along `axis` of the logits, and the
/// labels have the logits' shape without it.
///
/// With p the softmax over the C classes, a position with label y has the targets `t_c = (1 - e) w_y [c = y] + e / C w_c`
/// and costs `-sum_c t_c log p_c`; the loss is the sum over positions divided by the sum of their `w_y` (Szegedy et al.
/// 2016, section 7, for the smoothing e; all w are 1 without weights). Positions whose label is `ignored` are left out of
/// both sums. That is PyTorch's `cross_entropy`, but for a batch without any labelled position: its loss is 0 here, and
/// its gradient too, where PyTorch gives NaN. The log-probabilities are saved for the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropy {
    /// e, in 0..=1.
    pub label_smoothing: f32,
    /// The label of positions that do not count.
    pub ignored: Option<i64>,
    /// The axis of the classes; negative counts from the end.
    pub axis: i64,
}

/// `dlogits` from `(log_probabilities, labels, dloss, weights?)`: `(p_c sum_k t_k - t_c) dloss / sum_i w_i`.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropyGradient {
    /// The forward operator.
    pub forward: SoftmaxCrossEntropy,
}

impl SoftmaxCrossEntropy {
    /// Classes along axis 1, every position labelled, no smoothing.
    pub fn plain() -> SoftmaxCrossEntropy {
        SoftmaxCrossEntropy { label_smoothing: 0.0, ignored: None, axis: 1 }
    }

    fn expect(&self, inputs: Operands<'_>, logits: &'static str, weights: usize) -> Result<DType, OpError> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(OpError::mismatch("label_smoothing", self.label_smoothing, "0 to 1"));
        }
        let dtype = expect_labels_along(inputs, logits, self.axis)?;
        let dims = inputs.dims(0, logits)?;
        let classes = match dims {
            Some(dims) => dims[axis_of(self.axis, dims.len())?].known(),
            None => None,
        };
        expect_weights(inputs, weights, dtype, classes)?;
        Ok(dtype)
    }

    /// Calls `visit` with the elements, the label and its weight of each position that counts, in order; returns the sum of the
    /// weights.
    fn each_position(
        &self,
        shape: &[usize],
        labels: &[i64],
        weights: Option<&[f64]>,
        mut visit: impl FnMut(&[usize], usize, f64),
    ) -> Result<f64, OpError> {
        let (mut position, mut total, mut outcome) = (0, 0.0, Ok(()));
        each_line(shape, axis_of(self.axis, shape.len())?, |line| {
            if Some(labels[position]) != self.ignored {
                match class(labels, position, line.len()) {
                    Ok(label) => {
                        let weight = weights.map_or(1.0, |w| w[label]);
                        total += weight;
                        visit(line, label, weight);
                    }
                    Err(error) => outcome = outcome.clone().and(Err(error)),
                }
            }
            position += 1;
        });
        outcome.map(|()| total)
    }
}

/// `x / total`, or 0 where nothing was counted.
fn shared(x: f64, total: f64) -> f64 {
    if total == 0.0 { 0.0 } else { x / total }
}

/// Checks that logits and labels belong together.
pub(super) fn expect_labels(inputs: Operands<'_>, logits: &'static str) -> Result<DType, OpError> {
    expect_labels_along(inputs, logits, 1)
}

fn expect_labels_along(inputs: Operands<'_>, logits: &'static str, axis: i64) -> Result<DType, OpError> {
    let dtype = inputs.expect_float(0, logits)?;
    inputs.expect_dtype(1, "labels", &[DType::I64, DType::I32])?;
    let (Some(x), Some(labels)) = (inputs.dims(0, logits)?, inputs.dims(1, "labels")?) else {
        return Ok(dtype);
    };
    if x.len() < 2 {
        return Err(OpError::mismatch(logits, inputs.ty(0, logits)?, "at least the axes [N, C]"));
    }
    let mut wanted = x.to_vec();
    wanted.remove(axis_of(axis, x.len())?);
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

impl Operator for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "SoftmaxCrossEntropy"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let e = self.label_smoothing;
        let smoothing = (e != 0.0).then_some(("label_smoothing", Attribute::Float(e)));
        let ignored = self.ignored.map(|label| ("ignore_index", Attribute::Int(label)));
        let axis = (self.axis != 1).then_some(("axis", Attribute::Int(self.axis)));
        [smoothing, ignored, axis].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = self.expect(inputs, "logits", 2)?;
        Ok(vec![TensorType::new(dtype, Shape::known(&[])), inputs.ty(0, "logits")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, labels) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let (values, e) = (x.to_f64(), f64::from(self.label_smoothing));
        let weights = inputs.optional(2).map(Tensor::to_f64);
        let mut log_p = vec![0.0; x.len()];
        each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let (max, log_sum) = log_sum_exp(&values, line);
            line.iter().for_each(|&i| log_p[i] = values[i] - max - log_sum);
        });
        let mut sum = 0.0;
        let total = self.each_position(x.shape(), &labels, weights.as_deref(), |line, label, weight| {
            sum -= (1.0 - e) * weight * log_p[line[label]];
            if e > 0.0 {
                let of = |c: usize| weights.as_ref().map_or(1.0, |w| w[c]);
                sum -= e / line.len() as f64
                    * line.iter().enumerate().map(|(c, &i)| of(c) * log_p[i]).sum::<f64>();
            }
        })?;
        let loss = Tensor::from_f64(x.dtype(), [], vec![shared(sum, total)]);
        Ok(vec![loss, Tensor::from_f64(x.dtype(), x.shape(), log_p)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(2) {
            return Ok(Gradient::NotDifferentiable("the weights of the classes are not trained"));
        }
        let (labels, log_p) = (g.input(1), g.output(1));
        let weights = if g.input_count() > 2 { g.optional_input(2) } else { None };
        let mut dx = None;
        if let Some(dloss) = g.output_gradient(0) {
            let op = SoftmaxCrossEntropyGradient { forward: self.clone() };
            let operands = [Some(log_p), Some(labels), Some(dloss), weights];
            let given = if weights.is_some() { 4 } else { 3 };
            dx = Some(g.apply_all(op, &operands[..given])?[0]);
        }
        if let Some(dlog_p) = g.output_gradient(1) {
            let more = g.apply(SoftmaxGradient { axis: self.axis, log: true }, &[log_p, dlog_p])?;
            dx = Some(match dx {
                None => more,
                Some(dx) => g.apply(Binary { function: BinaryFunction::Add }, &[dx, more])?,
            });
        }
        Ok(Gradient::Inputs(vec![dx, None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let smoothing = u64::from(self.label_smoothing > 0.0);
        Work::elementwise((5 + smoothing) * shapes.input_len(0) + shapes.input_len(1))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        if self.label_smoothing != 0.0 {
            return Err(OpError::Unsupported("ONNX has no cross entropy with label smoothing".into()));
        }
        if self.axis != 1 {
            return Err(OpError::Unsupported("ONNX has a cross entropy of classes along axis 1 only".into()));
        }
        node.same("SoftmaxCrossEntropyLoss", self.attributes());
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
        let of = |op, shape: &[usize], labels: Tensor, weighted: bool| {
            let SoftmaxCrossEntropy { axis, .. } = op;
            let classes = shape[axis.rem_euclid(shape.len() as i64) as usize];
            let weights = Tensor::f32([classes], (0..classes).map(|c| 0.5 + c as f32).collect());
            let inputs = vec![Some(Example::noise(shape, 1)), Some(labels), weighted.then_some(weights)];
            Example::optional(op, inputs).constants(&[2])
        };
        let plain = SoftmaxCrossEntropy::plain;
        let smooth = || SoftmaxCrossEntropy { label_smoothing: 0.1, ..plain() };
        let tokens = || Tensor::i64([2, 3], vec![2, -100, 1, 3, 0, -100]);
        vec![
            of(plain(), &[3, 5], Tensor::ints(&[4, 0, 2]), false),
            of(smooth(), &[3, 5], Tensor::ints(&[1, 1, 3]).cast(DType::I32), false),
            of(plain(), &[2, 3, 2], Tensor::i64([2, 2], vec![2, 0, 1, 1]), true),
            of(SoftmaxCrossEntropy { ignored: Some(1), ..smooth() }, &[3, 4], Tensor::ints(&[3, 1, 0]), true),
            of(SoftmaxCrossEntropy { ignored: Some(-100), axis: -1, ..smooth() }, &[2, 3, 4], tokens(), false),
        ]
    }
}

impl Operator for SoftmaxCrossEntropyGradient {
    fn name(&self) -> &'static str {
        "SoftmaxCrossEntropyGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.forward.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = self.forward.expect(inputs, "log_probabilities", 3)?;
        inputs.expect_dtype(2, "dloss", &[dtype])?;
        inputs.expect_rank(2, "dloss", 0)?;
        Ok(vec![inputs.ty(0, "log_probabilities")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (log_p, labels) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let (values, e) = (log_p.to_f64(), f64::from(self.forward.label_smoothing));
        let weights = inputs.optional(3).map(Tensor::to_f64);
        let mut dx = vec![0.0; log_p.len()];
        let visit = |line: &[usize], label: usize, weight: f64| {
            let of = |c: usize| e / line.len() as f64 * weights.as_ref().map_or(1.0, |w| w[c]);
            let targets: f64 = (0..line.len()).map(of).sum::<f64>() + (1.0 - e) * weight;
            for (c, &i) in line.iter().enumerate() {
                let target = of(c) + if c == label { (1.0 - e) * weight } else { 0.0 };
                dx[i] = values[i].exp() * targets - target;
            }
        };
        let total = self.forward.each_position(log_p.shape(), &labels, weights.as_deref(), visit)?;
        let factor = shared(inputs.get(2)?.to_f64()[0], total);
        dx.iter_mut().for_each(|x| *x *= factor);
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
        let of = |forward, weighted: bool| {
            let weights = weighted.then(|| Tensor::f32([4], vec![0.5, 2.0, 1.0, 3.0]));
            let operands = [Example::noise(&[3, 4], 1), Tensor::ints(&[3, 0, 1]), Tensor::scalar(0.7)];
            let operands = operands.map(Some).into_iter().chain([weights]).collect();
            Example::optional(SoftmaxCrossEntropyGradient { forward }, operands).constants(&[3])
        };
        let plain = SoftmaxCrossEntropy::plain;
        let smooth = || SoftmaxCrossEntropy { label_smoothing: 0.1, ..plain() };
        vec![
            of(plain(), false),
            of(smooth(), true),
            of(SoftmaxCrossEntropy { ignored: Some(0), ..smooth() }, false),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_outside_the_classes_is_an_error_that_says_where() {
        let (x, labels) = (Example::noise(&[2, 3], 1), Tensor::ints(&[1, 3]));
        let op = SoftmaxCrossEntropy::plain();
        let error = op.evaluate(Tensors::new(&[Some(&x), Some(&labels)])).unwrap_err();
        assert_eq!(error.to_string(), "label: found 3 at position 1, expected 0 to 2 for 3 classes");
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_number_of_classes() {
        let (x, labels) = (Tensor::zeros(DType::F64, [2, 8]), Tensor::ints(&[1, 3]));
        let op = SoftmaxCrossEntropy { label_smoothing: 0.3, ..SoftmaxCrossEntropy::plain() };
        let loss = op.evaluate(Tensors::new(&[Some(&x), Some(&labels)])).unwrap()[0].to_f64()[0];
        assert!((loss - 8f64.ln()).abs() < 1e-12);
    }

    /// Logits, labels, weights of the classes, smoothing, ignored label, and what PyTorch 2 makes of them:
    /// `F.cross_entropy(x, y, weight=w, label_smoothing=e, ignore_index=2)` in f64 and its gradient.
    #[test]
    fn weights_smoothing_and_ignored_labels_mean_what_they_mean_in_pytorch() {
        let x = Tensor::f64([3, 3], vec![0.5, -1.0, 2.0, 1.0, 0.0, -0.5, 0.3, 0.3, -2.0]);
        let (labels, weights) = (Tensor::ints(&[0, 2, 1]), Tensor::f64([3], vec![1.0, 2.0, 0.5]));
        let op = SoftmaxCrossEntropy { label_smoothing: 0.25, ignored: Some(2), axis: 1 };
        let out = op.evaluate(Tensors::new(&[Some(&x), Some(&labels), Some(&weights)])).unwrap();
        assert!((out[0].to_f64()[0] - PYTORCH_LOSS).abs() < 1e-12, "{}", out[0].to_f64()[0]);
        let op = SoftmaxCrossEntropyGradient { forward: op };
        let one = Tensor::f64([], vec![1.0]);
        let inputs = [Some(&out[1]), Some(&labels), Some(&one), Some(&weights)];
        let dx = op.evaluate(Tensors::new(&inputs)).unwrap();
        for (found, expected) in dx[0].to_f64().iter().zip(PYTORCH_GRADIENT) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// Where PyTorch and ONNX divide nothing by nothing: a batch of padding must not end a training.
    #[test]
    fn a_batch_without_a_label_costs_nothing() {
        let x = Tensor::f64([2, 3], vec![0.5, -1.0, 2.0, 1.0, 0.0, -0.5]);
        let op = SoftmaxCrossEntropy { ignored: Some(7), ..SoftmaxCrossEntropy::plain() };
        let labels = Tensor::ints(&[7, 7]);
        let out = op.evaluate(Tensors::new(&[Some(&x), Some(&labels)])).unwrap();
        assert_eq!(out[0].to_f64()[0], 0.0);
    }

    const PYTORCH_LOSS: f64 = 1.142_241_500_646_477;
    const PYTORCH_GRADIENT: [f64; 9] = [-0.216_913_058_284_709_5, -0.041_974_800_947_677_963, 0.258_887_859_232_387_5, 0.0, 0.0, 0.0, 0.256_578_707_141_775_66, -0.271_199_070_636_002_2, 0.014_620_363_494_226_42];
}
