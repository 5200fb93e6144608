//! BatchNorm folding: a convolution or matrix product followed by fixed scale and shift absorbs them.

use std::sync::Arc;

use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, ValueId};
use crate::ops::{ConvTranspose, Op};
use crate::tensor::Tensor;

/// `BN(Conv(x, w, b))` with constant weights and statistics becomes `Conv(x, w', b')`.
pub const FOLD_BATCH_NORM: Pass = Pass { name: "fold-batch-norm", rule };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Op::BatchNormalization(norm) = &node.op else { return Ok(Outcome::NoEffect) };
    if norm.training {
        return Ok(Outcome::Refused("batch statistics change with every batch"));
    }
    let Some(product) = node.inputs[0].and_then(|x| rebuild.producer(x)) else {
        return Ok(Outcome::Refused("its operand is not the result of a convolution"));
    };
    let output_axis = match &product.op {
        Op::Conv(_) => 0,
        Op::ConvTranspose(ConvTranspose { groups: 1, .. }) => 1,
        _ => return Ok(Outcome::Refused("its operand is not the result of a convolution")),
    };
    if rebuild.uses(product.outputs[0]) != 1 {
        return Ok(Outcome::Refused("the convolution's result is also used elsewhere"));
    }
    let constant = |id: Option<ValueId>| id.and_then(|id| rebuild.from.constant_of(id)).cloned();
    let statistics: Option<Vec<Arc<Tensor>>> = (1..5).map(|i| constant(node.inputs[i])).collect();
    let (Some(statistics), Some(w)) = (statistics, constant(product.inputs[1])) else {
        return Ok(Outcome::Refused("weights or statistics are not constant"));
    };
    let bias = product.inputs.get(2).copied().flatten();
    let Some(bias) = bias.map_or(Some(None), |b| constant(Some(b)).map(Some)) else {
        return Ok(Outcome::Refused("the convolution's bias is not constant"));
    };
    let [scale, shift, mean, variance] = [0, 1, 2, 3].map(|i| statistics[i].to_f64());
    let factor: Vec<f64> =
        scale.iter().zip(variance.iter()).map(|(s, v)| s / (v + f64::from(norm.epsilon)).sqrt()).collect();
    let new_bias: Vec<f64> = (0..factor.len())
        .map(|c| (bias.as_ref().map_or(0.0, |b| b.to_f64()[c]) - mean[c]) * factor[c] + shift[c])
        .collect();
    let inner: usize = w.shape()[output_axis + 1..].iter().product();
    let channels = factor.len();
    let scaled: Vec<f64> =
        w.to_f64().iter().enumerate().map(|(i, x)| x * factor[i / inner % channels]).collect();
    let x = product.inputs[0].map(|x| rebuild.mapped(x));
    let w = rebuild.to.constant(Tensor::from_f64(w.dtype(), w.shape(), scaled));
    let b = rebuild.to.constant(Tensor::from_f64(statistics[0].dtype(), [channels], new_bias));
    let y = rebuild.to.apply_all(product.op.clone(), &[x, Some(w), Some(b)], &product.name)?;
    rebuild.take_name(node.outputs[0], y[0]);
    Ok(Outcome::Applied)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::ops::{BatchNormalization, Conv, Sliding};
    use crate::parameter::Parameters;
    use crate::rewrite::run_passes;
    use crate::shape::Shape;
    use crate::tensor::DType;

    fn conv_and_norm(used_twice: bool) -> Graph {
        let mut graph = Graph::new("conv-bn");
        let x = graph.input("x", DType::F32, Shape::known(&[1, 2, 4, 4]));
        let w = graph.constant(Example::noise(&[3, 2, 3, 3], 1));
        let conv = Conv { sliding: Sliding::padded(2, 1), groups: 1 };
        let y = graph.apply(conv, &[x, w]).unwrap();
        let positive = Tensor::f32([3], vec![0.5, 1.0, 2.0]);
        let stats: Vec<_> = (2..5).map(|s| graph.constant(Example::noise(&[3], s))).collect();
        let variance = graph.constant(positive);
        let norm = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: false };
        let z = graph.apply(norm, &[y, stats[0], stats[1], stats[2], variance]).unwrap();
        graph.rename(z, "z");
        graph.output(z);
        if used_twice {
            graph.output(y);
        }
        graph
    }

    #[test]
    fn a_folded_graph_computes_the_same_without_the_norm() {
        let graph = conv_and_norm(false);
        let (folded, _) = run_passes(&graph, &[FOLD_BATCH_NORM], None).unwrap();
        assert_eq!(folded.nodes().len(), 1);
        let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[1, 2, 4, 4], 9))]);
        let before = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
        let after = interpret(&folded, &mut Parameters::new(), &feeds).unwrap();
        for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn a_result_used_elsewhere_is_left_alone_and_the_log_says_why() {
        let (kept, log) = run_passes(&conv_and_norm(true), &[FOLD_BATCH_NORM], None).unwrap();
        assert_eq!(kept.nodes().len(), 2);
        assert!(matches!(log[0].outcome, Outcome::Refused(_)));
    }
}
