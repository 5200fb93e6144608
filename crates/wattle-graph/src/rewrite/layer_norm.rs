//! Recognition of layer normalisation in the arithmetic that exporters wrote before it was an operator (opset 17).

use super::fold_affine::scalar;
use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, ValueId};
use crate::ops::{Binary, BinaryFunction, Function, LayerNormalization, Op, Reduce, Reduction, Unary};

/// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + shift` over the last axis, with a constant scale and
/// shift of its extent, becomes one operator. The result may differ in the last digits.
pub const RECOGNISE_LAYER_NORM: Pass = Pass { name: "recognise-layer-norm", rule };

/// The parts, in the graph being copied.
struct Parts {
    x: ValueId,
    epsilon: f32,
    scale: ValueId,
    shift: ValueId,
}

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    let Some(Parts { x, epsilon, scale, shift }) = parts(rebuild, node) else { return Ok(Outcome::NoEffect) };
    let operands = [x, scale, shift].map(|id| Some(rebuild.mapped(id)));
    let y = rebuild.to.apply_all(LayerNormalization { axis: -1, epsilon }, &operands, &node.name)?[0];
    rebuild.take_name(node.outputs[0], y);
    Ok(Outcome::Applied)
}

fn parts(rebuild: &Rebuild<'_>, node: &Node) -> Option<Parts> {
    let (product, shift) = with_vector(rebuild, binary(node, BinaryFunction::Add)?)?;
    let product = rebuild.producer(product)?;
    let (normal, scale) = with_vector(rebuild, binary(product, BinaryFunction::Mul)?)?;
    let (deviation, root) = binary(rebuild.producer(normal)?, BinaryFunction::Div)?;
    let x = centred(rebuild, deviation)?;
    let root = rebuild.producer(root)?;
    if !matches!(root.op, Op::Unary(Unary { function: Function::Sqrt })) {
        return None;
    }
    let (a, b) = binary(rebuild.producer(root.inputs[0]?)?, BinaryFunction::Add)?;
    let (variance, epsilon) = match (scalar(rebuild, a), scalar(rebuild, b)) {
        (_, Some(epsilon)) => (a, epsilon),
        (Some(epsilon), _) => (b, epsilon),
        _ => return None,
    };
    let of_squares = squared(rebuild, mean(rebuild, variance)?)?;
    let width = *rebuild.from.extents(x).ok()?.last()?;
    let vector = |id| rebuild.from.constant_of(id).is_some_and(|t| t.shape() == [width]);
    let same = centred(rebuild, of_squares)? == x && vector(scale) && vector(shift);
    (same && epsilon >= 0.0).then_some(Parts { x, epsilon: epsilon as f32, scale, shift })
}

fn binary(node: &Node, wanted: BinaryFunction) -> Option<(ValueId, ValueId)> {
    match (&node.op, &node.inputs[..]) {
        (Op::Binary(Binary { function }), &[Some(a), Some(b)]) if *function == wanted => Some((a, b)),
        _ => None,
    }
}

/// The operand that is computed, then the constant one.
fn with_vector(rebuild: &Rebuild<'_>, (a, b): (ValueId, ValueId)) -> Option<(ValueId, ValueId)> {
    let known = |id| rebuild.from.constant_of(id).is_some();
    match (known(a), known(b)) {
        (false, true) => Some((a, b)),
        (true, false) => Some((b, a)),
        _ => None,
    }
}

/// x, where `id` is `x - mean(x)`.
fn centred(rebuild: &Rebuild<'_>, id: ValueId) -> Option<ValueId> {
    let (x, subtracted) = binary(rebuild.producer(id)?, BinaryFunction::Sub)?;
    (mean(rebuild, subtracted)? == x).then_some(x)
}

/// x, where `id` is its mean over the last axis, which is kept.
fn mean(rebuild: &Rebuild<'_>, id: ValueId) -> Option<ValueId> {
    let node = rebuild.producer(id)?;
    let (Op::Reduce(Reduce { kind: Reduction::Mean, axes, keep_dims: true }), &[Some(x), ..]) =
        (&node.op, &node.inputs[..])
    else {
        return None;
    };
    let rank = rebuild.from.extents(x).ok()?.len();
    let last = matches!(axes[..], [axis] if crate::shape::normalize_axis(axis, rank) == Some(rank - 1));
    last.then_some(x)
}

/// x, where `id` is its square.
fn squared(rebuild: &Rebuild<'_>, id: ValueId) -> Option<ValueId> {
    let node = rebuild.producer(id)?;
    if let Some((x, exponent)) = binary(node, BinaryFunction::Pow) {
        return (scalar(rebuild, exponent)? == 2.0).then_some(x);
    }
    let (a, b) = binary(node, BinaryFunction::Mul)?;
    (a == b).then_some(a)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::parameter::Parameters;
    use crate::rewrite::{remove_dead_code, run_passes};
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};

    /// A layer normalisation of `[2, 3, 8]`, spelled out with this exponent and these axes of the variance.
    fn spelled_out(exponent: f32, axes: &[i64], twice: bool) -> Graph {
        let mut g = Graph::new("layer-norm");
        let x = g.input("x", DType::F32, Shape::known(&[2, 3, 8]));
        let of = |g: &mut Graph, function, a, b| g.apply(Binary { function }, &[a, b]).unwrap();
        let average = |axes: &[i64]| Reduce { kind: Reduction::Mean, axes: axes.into(), keep_dims: true };
        let centred = |g: &mut Graph| {
            let mean = g.apply(average(&[-1]), &[x]).unwrap();
            of(g, BinaryFunction::Sub, x, mean)
        };
        let d = centred(&mut g);
        let again = if twice { centred(&mut g) } else { d };
        let [exponent, epsilon] = [exponent, 1e-3].map(|v| g.constant(Tensor::scalar(v)));
        let squares = of(&mut g, BinaryFunction::Pow, again, exponent);
        let variance = g.apply(average(axes), &[squares]).unwrap();
        let sum = of(&mut g, BinaryFunction::Add, variance, epsilon);
        let root = g.apply(Unary { function: Function::Sqrt }, &[sum]).unwrap();
        let y = of(&mut g, BinaryFunction::Div, d, root);
        let scale = g.constant(Tensor::f32([8], (1..9).map(|i| i as f32 / 4.0).collect::<Vec<_>>()));
        let shift = g.constant(Tensor::f32([8], vec![0.5; 8]));
        let y = of(&mut g, BinaryFunction::Mul, scale, y);
        let y = of(&mut g, BinaryFunction::Add, y, shift);
        g.output(y);
        g
    }

    #[test]
    fn layer_norm_is_recognised_only_where_it_is_one() {
        for (exponent, axes, twice, known) in [
            (2.0, &[-1][..], false, true),
            (2.0, &[2], true, true),
            (4.0, &[-1], false, false),
            (2.0, &[1], false, false),
        ] {
            let graph = spelled_out(exponent, axes, twice);
            let (short, _) = run_passes(&graph, &[RECOGNISE_LAYER_NORM], None).unwrap();
            let short = remove_dead_code(&short).unwrap();
            assert_eq!(short.nodes().len() == 1, known, "{short}");
            let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[2, 3, 8], 1))]);
            let before = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
            let after = interpret(&short, &mut Parameters::new(), &feeds).unwrap();
            for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
