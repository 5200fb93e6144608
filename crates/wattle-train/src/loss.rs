//! Losses: the nodes that turn a network's output and the targets into one number.

use serde::{Deserialize, Serialize};
use wattle_graph::ops::{Binary, BinaryFunction, Function, Reduce, Reduction, SoftmaxCrossEntropy, Unary};
use wattle_graph::{DType, Graph, GraphError, Shape, ValueId};

/// What training makes small.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Loss {
    /// Cross entropy of classes; the output holds logits.
    CrossEntropy {
        /// Share of the target spread over all classes.
        label_smoothing: f32,
    },
    /// Mean of squared differences.
    MeanSquaredError,
    /// Mean over all outputs of the cross entropy of a yes or no; the output holds logits, targets are 0 to 1.
    BinaryCrossEntropy,
}

impl Loss {
    /// Adds the targets (an input named `targets`: class indices `[batch]`, or values of the output's shape) and
    /// the loss; returns the loss.
    pub(crate) fn attach(&self, graph: &mut Graph, output: ValueId) -> Result<ValueId, GraphError> {
        let extents = graph.extents(output)?;
        let binary = |function| Binary { function };
        let unary = |function| Unary { function };
        let mean = Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false };
        match *self {
            Loss::CrossEntropy { label_smoothing } => {
                let targets = graph.input("targets", DType::I64, Shape::known(&extents[..1]));
                let op = SoftmaxCrossEntropy { label_smoothing, ..SoftmaxCrossEntropy::plain() };
                graph.apply(op, &[output, targets])
            }
            Loss::MeanSquaredError => {
                let targets = graph.input("targets", DType::F32, Shape::known(&extents));
                let difference = graph.apply(binary(BinaryFunction::Sub), &[output, targets])?;
                let square = graph.apply(binary(BinaryFunction::Mul), &[difference, difference])?;
                graph.apply(mean, &[square])
            }
            Loss::BinaryCrossEntropy => {
                // max(x, 0) - x t + ln(1 + e^-|x|) = softplus(x) - x t, which does not overflow.
                let targets = graph.input("targets", DType::F32, Shape::known(&extents));
                let all = graph.apply(unary(Function::Softplus), &[output])?;
                let hit = graph.apply(binary(BinaryFunction::Mul), &[output, targets])?;
                let each = graph.apply(binary(BinaryFunction::Sub), &[all, hit])?;
                graph.apply(mean, &[each])
            }
        }
    }

    /// The loss of given outputs and targets, in f64, as a mean over `count` samples; for evaluation.
    pub fn value(&self, outputs: &[f32], labels: &[i64], values: &[f32], count: usize) -> f64 {
        let width = outputs.len() / count.max(1);
        let sum: f64 = match *self {
            Loss::CrossEntropy { label_smoothing } => {
                let e = f64::from(label_smoothing);
                let row = |(row, &label): (&[f32], &i64)| {
                    let max = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
                    let total: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
                    let log = |x: f32| f64::from(x - max) - total.ln();
                    let spread =
                        if e > 0.0 { row.iter().map(|&x| log(x)).sum::<f64>() / width as f64 } else { 0.0 };
                    -(1.0 - e) * log(row[label as usize]) - e * spread
                };
                outputs.chunks_exact(width.max(1)).zip(labels).map(row).sum()
            }
            Loss::MeanSquaredError => {
                let each = outputs.iter().zip(values).map(|(x, t)| f64::from(x - t).powi(2));
                each.sum::<f64>() / width.max(1) as f64
            }
            Loss::BinaryCrossEntropy => {
                let each = outputs.iter().zip(values).map(|(&x, &t)| {
                    let (x, t) = (f64::from(x), f64::from(t));
                    x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()
                });
                each.sum::<f64>() / width.max(1) as f64
            }
        };
        sum / count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use wattle_graph::{Example, Parameters, Tensor, interpret};

    #[test]
    fn the_graph_and_the_plain_formula_agree() {
        let outputs = Example::noise(&[3, 4], 1);
        let values = Tensor::f32(
            [3, 4],
            Example::noise(&[3, 4], 2).as_f32().unwrap().iter().map(|x| x.abs()).collect(),
        );
        let labels = [1i64, 3, 0];
        for loss in
            [Loss::CrossEntropy { label_smoothing: 0.1 }, Loss::MeanSquaredError, Loss::BinaryCrossEntropy]
        {
            let mut graph = Graph::new("loss");
            let x = graph.input("x", DType::F32, Shape::known(&[3, 4]));
            let id = loss.attach(&mut graph, x).unwrap();
            graph.output(id);
            let targets = match loss {
                Loss::CrossEntropy { .. } => Tensor::ints(&labels),
                _ => values.clone(),
            };
            let feeds =
                BTreeMap::from([("x".to_string(), outputs.clone()), ("targets".to_string(), targets)]);
            let found = interpret(&graph, &mut Parameters::new(), &feeds).unwrap()[0].to_f64()[0];
            let plain = loss.value(outputs.as_f32().unwrap(), &labels, values.as_f32().unwrap(), 3);
            assert!((found - plain).abs() < 1e-6, "{loss:?}: {found} {plain}");
        }
    }
}
