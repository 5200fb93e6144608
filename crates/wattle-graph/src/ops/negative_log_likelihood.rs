//! NegativeLogLikelihood: the cross entropy of given log-probabilities, in all of ONNX's forms.

use super::concrete::result_shapes;
use super::cross_entropy::{class, expect_labels};
use super::*;
use crate::shape::Shape;

/// How the losses of all positions become the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReduction {
    /// Their sum over the sum of their weights.
    Mean,
    /// Their sum.
    Sum,
    /// As they are, under the shape of the labels.
    None,
}

/// `(log_probabilities [N, C, d..], labels [N, d..], weights? [C]) -> loss`: each position costs
/// `-weights[label] log_probabilities[label]`, or nothing where the label is to be ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegativeLogLikelihood {
    /// What becomes of the positions' losses.
    pub reduction: LossReduction,
    /// Positions with this label cost nothing and have no weight.
    pub ignored: Option<i64>,
}

/// `dlog_probabilities` from `(labels, weights?, dloss)`; the loss is linear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegativeLogLikelihoodGradient {
    /// The forward operator.
    pub forward: NegativeLogLikelihood,
    /// Extents of its first operand.
    pub input_shape: Vec<usize>,
}

impl NegativeLogLikelihood {
    fn text(&self) -> &'static str {
        match self.reduction {
            LossReduction::Mean => "mean",
            LossReduction::Sum => "sum",
            LossReduction::None => "none",
        }
    }

    /// For each position, the flat index of its log-probability and its weight; `None` where ignored.
    fn picks(
        &self,
        shape: &[usize],
        labels: &[i64],
        weights: Option<&[f64]>,
    ) -> Result<Vec<Option<(usize, f64)>>, OpError> {
        let inner: usize = shape[2..].iter().product();
        let pick = |(position, label): (usize, &i64)| {
            if Some(*label) == self.ignored {
                return Ok(None);
            }
            let c = class(labels, position, shape[1])?;
            let at = (position / inner * shape[1] + c) * inner + position % inner;
            Ok(Some((at, weights.map_or(1.0, |w| w[c]))))
        };
        labels.iter().enumerate().map(pick).collect()
    }
}

/// Checks the operand of one weight a class.
pub(super) fn expect_weights(
    inputs: Operands<'_>,
    index: usize,
    dtype: crate::tensor::DType,
    classes: Option<usize>,
) -> Result<(), OpError> {
    if inputs.optional(index).is_none() {
        return Ok(());
    }
    inputs.expect_dtype(index, "weights", &[dtype])?;
    inputs.expect_rank(index, "weights", 1)?;
    let found = inputs.dims(index, "weights")?.and_then(|d| d[0].known());
    match (found, classes) {
        (Some(n), Some(c)) if n != c => Err(OpError::mismatch("weights", n, format!("one per class, {c}"))),
        _ => Ok(()),
    }
}

impl Operator for NegativeLogLikelihood {
    fn name(&self) -> &'static str {
        "NegativeLogLikelihoodLoss"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let reduction = Attribute::Text(self.text().into());
        let reduction = (self.reduction != LossReduction::Mean).then_some(("reduction", reduction));
        let ignored = self.ignored.map(|label| ("ignore_index", Attribute::Int(label)));
        [reduction, ignored].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = expect_labels(inputs, "log_probabilities")?;
        let classes = inputs.dims(0, "log_probabilities")?.and_then(|d| d.get(1)?.known());
        expect_weights(inputs, 2, dtype, classes)?;
        let shape = match self.reduction {
            LossReduction::None => inputs.ty(1, "labels")?.shape.clone(),
            _ => Shape::known(&[]),
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let (x, labels) = (inputs.get(0)?, inputs.get(1)?.to_i64());
        let (values, weights) = (x.to_f64(), inputs.optional(2).map(Tensor::to_f64));
        let picks = self.picks(x.shape(), &labels, weights.as_deref())?;
        let losses: Vec<f64> = picks.iter().map(|p| p.map_or(0.0, |(at, w)| -w * values[at])).collect();
        let total: f64 = picks.iter().flatten().map(|p| p.1).sum();
        let loss = match self.reduction {
            LossReduction::None => losses,
            LossReduction::Sum => vec![losses.iter().sum()],
            LossReduction::Mean => vec![losses.iter().sum::<f64>() / total],
        };
        Ok(vec![Tensor::from_f64(x.dtype(), shape, loss)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(2) {
            return Ok(Gradient::NotDifferentiable("the weights of the classes are not trained"));
        }
        let operands = [Some(g.input(1)), g.optional_input(2), g.output_gradient(0)];
        let op = NegativeLogLikelihoodGradient { forward: self.clone(), input_shape: g.extents(g.input(0))? };
        Ok(Gradient::Inputs(vec![Some(g.apply_all(op, &operands)?[0]), None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(3 * shapes.input_len(1))
    }
}

impl Described for NegativeLogLikelihood {
    const ONNX: &'static [&'static str] = &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let reduction = match node.text("reduction", "mean")?.as_str() {
            "mean" => LossReduction::Mean,
            "sum" => LossReduction::Sum,
            "none" => LossReduction::None,
            other => return Err(node.refuse(format!("reduction = `{other}`; known: mean, sum, none"))),
        };
        let ignored = match node.attribute("ignore_index") {
            None => None,
            Some(Attribute::Int(label)) => Some(label),
            Some(other) => return Err(node.refuse(format!("ignore_index = {other}; expected an integer"))),
        };
        let op = NegativeLogLikelihood { reduction, ignored };
        if node.op_type() == "NegativeLogLikelihoodLoss" {
            return node.finish(op);
        }
        let (x, labels, weights) = (node.input(0)?, node.input(1)?, node.optional_input(2));
        if op.reduction == LossReduction::Mean && op.ignored.is_none() && weights.is_none() {
            return node.apply_all(SoftmaxCrossEntropy::plain(), &[Some(x), Some(labels)]);
        }
        let log_p = node.apply(Softmax { axis: 1, log: true }, &[x])?;
        let loss = node.apply_all(op, &[Some(log_p), Some(labels), weights])?[0];
        Ok(vec![loss, log_p])
    }

    fn examples() -> Vec<Example> {
        let of = |reduction, ignored, shape: &[usize], labels: Tensor, weighted: bool| {
            let weights = Tensor::f32([shape[1]], (0..shape[1]).map(|c| 0.5 + c as f32).collect());
            let inputs = vec![Some(Example::noise(shape, 1)), Some(labels), weighted.then_some(weights)];
            Example::optional(NegativeLogLikelihood { reduction, ignored }, inputs).constants(&[2])
        };
        let flat = || Tensor::ints(&[2, 0, 1]);
        let image = || Tensor::i64([2, 2], vec![2, -1, 0, 1]);
        vec![
            of(LossReduction::Mean, None, &[3, 4], flat(), true),
            of(LossReduction::Sum, Some(0), &[3, 4], flat(), false),
            of(LossReduction::None, Some(-1), &[2, 3, 2], image(), true),
            of(LossReduction::Mean, Some(-1), &[2, 3, 2], image(), false),
        ]
    }
}

impl Operator for NegativeLogLikelihoodGradient {
    fn name(&self) -> &'static str {
        "NegativeLogLikelihoodGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.forward.attributes();
        attributes.push(("shape", Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let labels = inputs.ty(0, "labels")?;
        let dtype = inputs.expect_float(2, "dloss")?;
        if self.input_shape.len() < 2 {
            return Err(OpError::mismatch(
                "shape",
                format!("{:?}", self.input_shape),
                "at least the axes [N, C]",
            ));
        }
        let mut positions = self.input_shape.clone();
        let classes = positions.remove(1);
        if labels.shape != Shape::known(&positions) {
            return Err(OpError::mismatch("labels", labels, Shape::known(&positions)));
        }
        expect_weights(inputs, 1, dtype, Some(classes))?;
        let loss = if self.forward.reduction == LossReduction::None { positions } else { vec![] };
        if inputs.ty(2, "dloss")?.shape != Shape::known(&loss) {
            return Err(OpError::mismatch("dloss", inputs.ty(2, "dloss")?, Shape::known(&loss)));
        }
        Ok(vec![TensorType::new(dtype, Shape::known(&self.input_shape))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let (labels, dloss) = (inputs.get(0)?.to_i64(), inputs.get(2)?);
        let (weights, ds) = (inputs.optional(1).map(Tensor::to_f64), dloss.to_f64());
        let picks = self.forward.picks(&shape, &labels, weights.as_deref())?;
        let total: f64 = picks.iter().flatten().map(|p| p.1).sum();
        let mut dx = vec![0.0; shape.iter().product()];
        for (position, pick) in picks.into_iter().enumerate() {
            let Some((at, weight)) = pick else { continue };
            dx[at] = match self.forward.reduction {
                LossReduction::None => -weight * ds[position],
                LossReduction::Sum => -weight * ds[0],
                LossReduction::Mean => -weight * ds[0] / total,
            };
        }
        Ok(vec![Tensor::from_f64(dloss.dtype(), shape, dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of the loss are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(2 * shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for NegativeLogLikelihoodGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = NegativeLogLikelihood { reduction: LossReduction::Mean, ignored: Some(1) };
        let op = NegativeLogLikelihoodGradient { forward, input_shape: vec![3, 4] };
        vec![Example::optional(op, vec![Some(Tensor::ints(&[2, 1, 0])), None, Some(Tensor::scalar(0.5))])]
    }
}
