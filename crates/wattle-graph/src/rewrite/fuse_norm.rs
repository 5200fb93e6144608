//! Fusion of batch normalisation in training: residual addition and ReLU, forward and backward, in one pass over memory.

use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, Source, ValueId};
use crate::ops::{
    Binary, BinaryFunction, Function, FusedBatchNorm, FusedBatchNormGradient, Op, Unary, UnaryGradient,
};

/// `Relu(BN(x) [+ r])` and its gradient become one operator each, in training graphs.
pub const FUSE_BATCH_NORM: Pass = Pass { name: "fuse-batch-norm", rule };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    match &node.op {
        Op::Unary(Unary { function: Function::Relu }) => forward(rebuild, node),
        Op::BatchNormalizationGradient(_) => backward(rebuild, node),
        _ => Ok(Outcome::NoEffect),
    }
}

/// The batch norm whose result 0 is `value`, where nothing else reads that result.
fn norm_behind<'a>(rebuild: &Rebuild<'a>, value: ValueId) -> Option<&'a Node> {
    let node = rebuild.producer(value)?;
    let Op::BatchNormalization(norm) = &node.op else { return None };
    let alone = rebuild.uses(value) == 1 && node.outputs[0] == value;
    (alone && norm.training).then_some(node)
}

/// The batch norm and the residual behind the operand of a ReLU.
fn body<'a>(rebuild: &Rebuild<'a>, x: ValueId) -> Option<(&'a Node, Option<ValueId>)> {
    if let Some(norm) = norm_behind(rebuild, x) {
        return Some((norm, None));
    }
    let node = rebuild.producer(x).filter(|_| rebuild.uses(x) == 1)?;
    let Op::Binary(Binary { function: BinaryFunction::Add }) = node.op else { return None };
    let [Some(a), Some(b)] = node.inputs[..] else { return None };
    let ty = |id: ValueId| &rebuild.from.value(id).ty;
    if ty(a) != ty(b) {
        return None;
    }
    // With a norm on both sides the later one is the main branch: what it needs is still in cache.
    [(b, a), (a, b)].into_iter().find_map(|(main, other)| Some((norm_behind(rebuild, main)?, Some(other))))
}

fn forward(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Some((norm, residual)) = node.inputs[0].and_then(|x| body(rebuild, x)) else {
        return Ok(Outcome::NoEffect);
    };
    let Op::BatchNormalization(op) = &norm.op else { return Ok(Outcome::NoEffect) };
    let mut operands = rebuild.operands(norm);
    operands.extend(residual.map(|r| Some(rebuild.mapped(r))));
    let fused = FusedBatchNorm { norm: op.clone(), residual: residual.is_some() };
    let results = rebuild.to.apply_all(fused, &operands, &norm.name)?;
    rebuild.take_name(node.outputs[0], results[0]);
    // Whoever reads the statistics comes later in the order, or already has the unfused node's equal results.
    for (&old, &new) in norm.outputs.iter().zip(&results).skip(1) {
        rebuild.replace(old, new);
    }
    Ok(Outcome::Applied)
}

fn backward(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Some(dy) = node.inputs[4] else { return Ok(Outcome::NoEffect) };
    // In the new graph: another norm may have taken this ReLU's gradient in already, and made it a result.
    let Source::Node { node: relu, .. } = rebuild.to.value(rebuild.mapped(dy)).source else {
        return Ok(Outcome::NoEffect);
    };
    let relu = rebuild.to.node(relu);
    let Op::UnaryGradient(UnaryGradient { function: Function::Relu }) = relu.op else {
        return Ok(Outcome::NoEffect);
    };
    let (y, outer) = (relu.inputs[1], relu.inputs[2]);
    let residual = rebuild.uses(dy) > 1;
    let mut operands = rebuild.operands(node);
    operands[4] = outer;
    operands.push(y);
    let results = rebuild.to.apply_all(FusedBatchNormGradient { residual }, &operands, &node.name)?;
    for (&old, &new) in node.outputs.iter().zip(&results) {
        rebuild.take_name(old, new);
    }
    if residual {
        rebuild.replace(dy, results[3]);
    }
    Ok(Outcome::Applied)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::differentiate::differentiate;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::ops::{BatchNormalization, SumTo};
    use crate::parameter::{Parameter, Parameters};
    use crate::rewrite::run_passes;
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};

    /// `loss = sum(w relu(BN(relu(BN(x))) + x))` with its gradients by x and the scale.
    fn block() -> Graph {
        let mut graph = Graph::new("block");
        let shape = [4, 3, 2, 2];
        let x = graph.input("x", DType::F32, Shape::known(&shape));
        let weights = graph.constant(Example::noise(&shape, 3));
        let norm = |graph: &mut Graph, x: ValueId, seed: u32| {
            let [scale, bias] =
                [0, 1].map(|i| graph.input(format!("s{}", seed + i), DType::F32, Shape::known(&[3])));
            let [mean, variance] = ["m", "v"].map(|n| {
                let parameter = Parameter::state(format!("{n}{seed}"));
                graph.parameter(parameter, DType::F32, &[3])
            });
            let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: true };
            let results = graph.apply_all(op, &[x, scale, bias, mean, variance].map(Some), "").unwrap();
            graph.assign(mean, results[1]).unwrap();
            graph.assign(variance, results[2]).unwrap();
            results[0]
        };
        let relu = Unary { function: Function::Relu };
        let y = norm(&mut graph, x, 1);
        let y = graph.apply(relu.clone(), &[y]).unwrap();
        let y = norm(&mut graph, y, 5);
        let y = graph.apply(Binary { function: BinaryFunction::Add }, &[y, x]).unwrap();
        let y = graph.apply(relu, &[y]).unwrap();
        let y = graph.apply(Binary { function: BinaryFunction::Mul }, &[y, weights]).unwrap();
        let loss = graph.apply(SumTo { shape: vec![] }, &[y]).unwrap();
        let scale = graph.find("s1").unwrap();
        let d = differentiate(&graph, loss, &[x, scale]).unwrap();
        let mut graph = d.graph;
        graph.set_outputs([vec![loss], d.gradients.into_iter().flatten().collect()].concat());
        graph
    }

    #[test]
    fn the_fused_step_computes_the_same_losses_gradients_and_statistics() {
        let graph = block();
        let (fused, log) = run_passes(&graph, &[FUSE_BATCH_NORM], None).unwrap();
        fused.check().unwrap();
        assert_eq!(log.len(), 4, "{fused}");
        let names: Vec<_> = fused.nodes().iter().map(|n| n.op.name()).collect();
        assert!(
            !names.iter().any(|n| ["Relu", "UnaryGradient", "BatchNormalization"].contains(n)),
            "{names:?}"
        );
        let mut feeds = BTreeMap::from([("x".to_string(), Example::noise(&[4, 3, 2, 2], 9))]);
        for (name, seed) in [("s1", 1), ("s2", 2), ("s5", 3), ("s6", 4)] {
            feeds.insert(name.into(), Example::noise(&[3], seed));
        }
        let mut states = [Parameters::new(), Parameters::new()];
        for state in &mut states {
            for name in ["m1", "m5", "v1", "v5"] {
                state.insert(name, Tensor::f32([3], vec![0.5; 3]));
            }
        }
        let [before, after] = &mut states;
        let (expected, got) =
            (interpret(&graph, before, &feeds).unwrap(), interpret(&fused, after, &feeds).unwrap());
        for (e, g) in expected.iter().zip(&got) {
            for (x, y) in e.to_f64().iter().zip(g.to_f64().iter()) {
                assert!((x - y).abs() < 1e-5, "{x} {y}");
            }
        }
        for ((name, e), (_, g)) in before.iter().zip(after.iter()) {
            assert_eq!(e.to_f64(), g.to_f64(), "{name}");
            assert_ne!(e.to_f64()[0], 0.5, "{name} has not moved");
        }
    }
}
