//! Recognition of activations that exporters spell out in arithmetic.

use super::fold_affine::scalar;
use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, ValueId};
use crate::ops::{Binary, BinaryFunction, Function, Op, Unary};

/// `clip(x + 3, 0, 6) / 6`, `x clip(x + 3, 0, 6) / 6` and `x sigmoid(x)` become one function each: HardSigmoid and
/// HardSwish (Howard et al. 2019, section 5.2) and Silu. The result may differ in the last digit.
pub const RECOGNISE: Pass = Pass { name: "recognise-activation", rule };

const HARD_SIGMOID: Function = Function::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    match recognised(rebuild, node) {
        // Integers may be clipped and divided, too.
        Some((_, x)) if !rebuild.from.value(x).ty.dtype.is_float() => Ok(Outcome::NoEffect),
        None => Ok(Outcome::NoEffect),
        Some((function, x)) => {
            let x = rebuild.mapped(x);
            let y = rebuild.to.apply_all(Unary { function }, &[Some(x)], &node.name)?[0];
            rebuild.take_name(node.outputs[0], y);
            Ok(Outcome::Applied)
        }
    }
}

fn recognised(rebuild: &Rebuild<'_>, node: &Node) -> Option<(Function, ValueId)> {
    if let Some(inner) = divided_by_6(rebuild, node) {
        if let Some(x) = shifted_relu6(rebuild, inner) {
            return Some((HARD_SIGMOID, x));
        }
        let (a, b) = factors(rebuild.producer(inner)?)?;
        let x = [(a, b), (b, a)].into_iter().find(|&(x, gate)| shifted_relu6(rebuild, gate) == Some(x))?.0;
        return Some((Function::HardSwish, x));
    }
    let (a, b) = factors(node)?;
    [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
        let gate = rebuild.producer(gate)?;
        if gate.inputs.first() == Some(&Some(x))
            && matches!(gate.op, Op::Unary(Unary { function: Function::Sigmoid }))
        {
            return Some((Function::Silu, x));
        }
        // The factor may itself be a hard sigmoid, written either way.
        let hard = matches!(gate.op, Op::Unary(Unary { function }) if is_hard_sigmoid(function))
            && gate.inputs.first() == Some(&Some(x))
            || divided_by_6(rebuild, gate).and_then(|inner| shifted_relu6(rebuild, inner)) == Some(x);
        hard.then_some((Function::HardSwish, x))
    })
}

fn is_hard_sigmoid(function: Function) -> bool {
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    matches!(function, Function::HardSigmoid { alpha, beta } if near(alpha, 1.0 / 6.0) && near(beta, 0.5))
}

/// Both operands of a product.
fn factors(node: &Node) -> Option<(ValueId, ValueId)> {
    match (&node.op, &node.inputs[..]) {
        (Op::Binary(Binary { function: BinaryFunction::Mul }), &[Some(a), Some(b)]) => Some((a, b)),
        _ => None,
    }
}

/// What the node divides by the constant 6, or multiplies by a sixth.
fn divided_by_6(rebuild: &Rebuild<'_>, node: &Node) -> Option<ValueId> {
    let (Op::Binary(Binary { function }), &[Some(a), Some(b)]) = (&node.op, &node.inputs[..]) else {
        return None;
    };
    match function {
        BinaryFunction::Div => (scalar(rebuild, b)? == 6.0).then_some(a),
        BinaryFunction::Mul => {
            let sixth = |id| scalar(rebuild, id).is_some_and(|v| (v - 1.0 / 6.0).abs() < 1e-7);
            if sixth(b) { Some(a) } else { sixth(a).then_some(b) }
        }
        _ => None,
    }
}

/// x, where `value` is `clip(x + 3, 0, 6)`.
fn shifted_relu6(rebuild: &Rebuild<'_>, value: ValueId) -> Option<ValueId> {
    let clip = rebuild.producer(value)?;
    let (Op::Clip(_), &[Some(sum), Some(low), Some(high)]) = (&clip.op, &clip.inputs[..]) else {
        return None;
    };
    if scalar(rebuild, low)? != 0.0 || scalar(rebuild, high)? != 6.0 {
        return None;
    }
    let sum = rebuild.producer(sum)?;
    let (Op::Binary(Binary { function: BinaryFunction::Add }), &[Some(a), Some(b)]) =
        (&sum.op, &sum.inputs[..])
    else {
        return None;
    };
    let three = |id| scalar(rebuild, id) == Some(3.0);
    if three(b) { Some(a) } else { three(a).then_some(b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::ops::Clip;
    use crate::parameter::Parameters;
    use crate::rewrite::run_passes;
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};

    /// `x clip(x + shift, 0, 6) / 6`, the division last or of the factor.
    fn spelled_out(shift: f32, division_last: bool) -> Graph {
        let mut graph = Graph::new("hard-swish");
        let x = graph.input("x", DType::F32, Shape::known(&[5]));
        let [shift, zero, six] = [shift, 0.0, 6.0].map(|v| graph.constant(Tensor::scalar(v)));
        let apply = |graph: &mut Graph, function, a, b| graph.apply(Binary { function }, &[a, b]).unwrap();
        let sum = apply(&mut graph, BinaryFunction::Add, x, shift);
        let gate = graph.apply(Clip, &[sum, zero, six]).unwrap();
        let y = if division_last {
            let product = apply(&mut graph, BinaryFunction::Mul, x, gate);
            apply(&mut graph, BinaryFunction::Div, product, six)
        } else {
            let gate = apply(&mut graph, BinaryFunction::Div, gate, six);
            apply(&mut graph, BinaryFunction::Mul, x, gate)
        };
        graph.output(y);
        graph
    }

    #[test]
    fn hard_swish_is_recognised_only_with_its_own_constants() {
        for (shift, division_last, known) in [(3.0, true, true), (3.0, false, true), (2.5, true, false)] {
            let graph = spelled_out(shift, division_last);
            let (short, _) = run_passes(&graph, &[RECOGNISE], None).unwrap();
            assert_eq!(short.nodes().len(), if known { 1 } else { 4 }, "{short}");
            let x = Tensor::f32([5], vec![-4.0, -1.5, 0.0, 2.0, 5.0]);
            let feeds = BTreeMap::from([("x".to_string(), x)]);
            let before = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
            let after = interpret(&short, &mut Parameters::new(), &feeds).unwrap();
            for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}
