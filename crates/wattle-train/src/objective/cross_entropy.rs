//! Cross entropy of classes, along any axis.

use wattle_data::error::Result;
use wattle_graph::ops::{
    Binary, BinaryFunction, Cast, Compare, Comparison, Gather, Not, Op, Reduce, Reduction, Softmax,
    SoftmaxCrossEntropy, Transpose, Where,
};
use wattle_graph::{DType, Graph, GraphError, Tensor, ValueId, normalize_axis};

use super::{Attached, Judged, Kind, Objective, TARGETS, before, chosen, target, target_field, text_of};
use crate::text::Fields;

/// Cross entropy of classes; the output holds logits (a softmax at its end is taken off).
///
/// Logits `[batch, .., classes, ..]`, targets `[batch, ..]`: the class of every position as an integer. The loss is that
/// of [`SoftmaxCrossEntropy`]: the mean over the positions that are not ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Share of the target spread over all classes, 0 to 1.
    pub smoothing: f32,
    /// The label of positions that do not count.
    pub ignored: Option<i64>,
    /// The axis of the classes; negative counts from the end. `None` is the last axis of three (`[batch, tokens, classes]`)
    /// and else axis 1 (`[batch, classes, height, width]`).
    pub axis: Option<i64>,
    /// How much each class counts; empty for all alike.
    pub weights: Vec<f32>,
    /// The output that is judged; the first if `None`.
    pub output: Option<String>,
    /// The column of targets.
    pub target: String,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy {
            smoothing: 0.0,
            ignored: None,
            axis: None,
            weights: vec![],
            output: None,
            target: TARGETS.into(),
        }
    }
}

impl CrossEntropy {
    pub(super) fn parse(mut fields: Fields) -> Result<CrossEntropy> {
        let smoothing = fields.number("smoothing", "a share from 0 to 1", |e| (0.0..=1.0).contains(e))?;
        let ignored = fields.number("ignore", "a whole number", |_| true)?;
        let axis = fields.number("axis", "a whole number but 0, which is the batch", |&a| a != 0)?;
        let weights = match fields.text("weights") {
            None => vec![],
            Some(text) => {
                let number = |t: &str| t.trim().parse::<f32>().ok().filter(|w| w.is_finite() && *w >= 0.0);
                let weights: Option<Vec<f32>> = text.split('/').map(number).collect();
                weights.ok_or_else(|| {
                    fields
                        .refuse(format_args!("weights is `{text}`"))
                        .expected("a number for each class, such as 1/2/0.5")
                })?
            }
        };
        let (output, target) = (fields.text("output"), fields.text("target"));
        fields.finish("smoothing, ignore, axis, weights, output or target")?;
        let target = target.unwrap_or_else(|| TARGETS.into());
        Ok(CrossEntropy { smoothing: smoothing.unwrap_or(0.0), ignored, axis, weights, output, target })
    }

    /// The sum of the weights of the positions that count; `None` where all count alike.
    fn weight(
        &self,
        graph: &mut Graph,
        targets: ValueId,
        weights: Option<ValueId>,
    ) -> std::result::Result<Option<ValueId>, GraphError> {
        let counts = match self.ignored {
            None => None,
            Some(label) => {
                let label = graph.constant(Tensor::i64([], vec![label]));
                let ignored = graph.apply(Compare { comparison: Comparison::Equal }, &[targets, label])?;
                Some(graph.apply(Not, &[ignored])?)
            }
        };
        let each = match (counts, weights) {
            (None, None) => return Ok(None),
            (Some(counts), None) => graph.apply(Cast { to: DType::F32 }, &[counts])?,
            (None, Some(weights)) => graph.apply(Gather { axis: 0 }, &[weights, targets])?,
            (Some(counts), Some(weights)) => {
                let any = graph.constant(Tensor::i64([], vec![0]));
                let classes = graph.apply(Where, &[counts, targets, any])?;
                let weight = graph.apply(Gather { axis: 0 }, &[weights, classes])?;
                let counts = graph.apply(Cast { to: DType::F32 }, &[counts])?;
                graph.apply(Binary { function: BinaryFunction::Mul }, &[weight, counts])?
            }
        };
        let sum = Reduce { kind: Reduction::Sum, axes: vec![], keep_dims: false };
        graph.apply(sum, &[each]).map(Some)
    }
}

impl Objective for CrossEntropy {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        let output = chosen(graph, outputs, self.output.as_deref())?;
        let mut logits = before(graph, output, |op| matches!(op, Op::Softmax(Softmax { log: false, .. })))?;
        let mut extents = graph.extents(logits)?;
        let rank = extents.len();
        let refuse = |graph: &Graph, what: &str| {
            let text = format!("output `{}` is {}; {what}", graph.label(logits), graph.value(logits).ty);
            GraphError::Invalid(text)
        };
        if rank < 2 {
            return Err(refuse(graph, "cross entropy expects a score for each class of each sample"));
        }
        let axis = self.axis.unwrap_or(if rank == 3 { 2 } else { 1 });
        let axis = normalize_axis(axis, rank).filter(|&axis| axis > 0);
        let mut axis = axis.ok_or_else(|| refuse(graph, "the axis of the classes is none of its axes"))?;
        let classes = extents[axis];
        if !self.weights.is_empty() && self.weights.len() != classes {
            let what = format!("{} weights are given for {classes} classes", self.weights.len());
            return Err(refuse(graph, &what));
        }
        // The kernel wants classes on axis 1 or on the last.
        if axis != 1 && axis != rank - 1 {
            let mut permutation: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
            permutation.push(axis);
            logits = graph.apply(Transpose { permutation }, &[logits])?;
            extents = graph.extents(logits)?;
            axis = rank - 1;
        }
        let mut positions = extents;
        positions.remove(axis);
        let (targets, port) = target(graph, &self.target, DType::I64, &positions);
        let weights = match &self.weights[..] {
            [] => None,
            weights => Some(graph.constant(Tensor::f32([classes], weights.to_vec()))),
        };
        let op =
            SoftmaxCrossEntropy { label_smoothing: self.smoothing, ignored: self.ignored, axis: axis as i64 };
        let operands = [Some(logits), Some(targets), weights];
        let given = if weights.is_some() { 3 } else { 2 };
        let loss = graph.apply_all(op, &operands[..given], "loss")?[0];
        let weight = self.weight(graph, targets, weights)?;
        let kind = Kind::Classes { axis, ignored: self.ignored };
        let judged = Some(Judged { output: logits, target: targets, kind });
        Ok(Attached { weight, ports: vec![port], judged, ..Attached::loss(loss) })
    }

    fn text(&self) -> String {
        let weights: Vec<String> = self.weights.iter().map(f32::to_string).collect();
        text_of(
            "cross-entropy",
            &[
                ("smoothing", (self.smoothing != 0.0).then(|| self.smoothing.to_string())),
                ("ignore", self.ignored.map(|i| i.to_string())),
                ("axis", self.axis.map(|a| a.to_string())),
                ("weights", (!weights.is_empty()).then(|| weights.join("/"))),
                ("output", self.output.clone()),
                ("target", target_field(&self.target)),
            ],
        )
    }
}
