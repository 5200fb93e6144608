//! Affine folding: a convolution followed by constant factors and shifts of its channels absorbs them.

use super::{Outcome, Pass, Rebuild};
use crate::error::GraphError;
use crate::graph::{Node, Source, ValueId};
use crate::ops::{Binary, BinaryFunction, ConvTranspose, Op};
use crate::tensor::Tensor;

/// `Conv(x, w, b) * factor + shift`, constant and one number or one a channel, becomes `Conv(x, w', b')`.
pub const FOLD_AFFINE: Pass = Pass { name: "fold-affine", rule };

fn rule(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Outcome, GraphError> {
    use BinaryFunction::{Add, Div, Mul, Sub};
    let Op::Binary(Binary { function }) = node.op else { return Ok(Outcome::NoEffect) };
    let [Some(a), Some(b)] = node.inputs[..] else { return Ok(Outcome::NoEffect) };
    let either = [(a, b), (b, a)];
    let order = if matches!(function, Add | Mul) { &either[..] } else { &either[..1] };
    for &(main, other) in order {
        let Some(numbers) = rebuild.from.constant_of(other).cloned() else { continue };
        let result = rebuild.mapped(main);
        let Source::Node { node: product, output: 0 } = rebuild.to.value(result).source else { continue };
        let product = rebuild.to.node(product);
        let output_axis = match product.op {
            Op::Conv(_) => 0,
            Op::ConvTranspose(ConvTranspose { groups: 1, .. }) => 1,
            _ => continue,
        };
        let (Some(w), bias) = (product.inputs[1], product.inputs.get(2).copied().flatten()) else { continue };
        let (Some(w), bias) =
            (rebuild.to.constant_of(w).cloned(), bias.map(|b| rebuild.to.constant_of(b).cloned()))
        else {
            continue;
        };
        let Some(bias) = bias.map_or(Some(None), |b| b.map(Some)) else { continue };
        let channels = w.shape()[output_axis];
        let rank = w.shape().len();
        let Some(values) = per_channel(&numbers, channels, rank) else { continue };
        if rebuild.uses(main) != 1 || rebuild.from.outputs().contains(&main) {
            return Ok(Outcome::Refused("the convolution's result is also used elsewhere"));
        }
        let (factor, shift): (Vec<f64>, Vec<f64>) = match function {
            Mul => (values, vec![0.0; channels]),
            Div => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; channels]),
            Add => (vec![1.0; channels], values),
            Sub => (vec![1.0; channels], values.iter().map(|v| -v).collect()),
            _ => return Ok(Outcome::NoEffect),
        };
        if factor.iter().any(|f| !f.is_finite()) {
            return Ok(Outcome::Refused("it divides by 0"));
        }
        let (op, x, name) = (product.op.clone(), product.inputs[0], product.name.clone());
        let inner: usize = w.shape()[output_axis + 1..].iter().product();
        let scaled =
            w.to_f64().iter().enumerate().map(|(i, x)| x * factor[i / inner.max(1) % channels]).collect();
        let old = |c: usize| bias.as_ref().map_or(0.0, |b| b.to_f64()[c]);
        let shifted = (0..channels).map(|c| old(c) * factor[c] + shift[c]).collect();
        let new_w = rebuild.to.constant(Tensor::from_f64(w.dtype(), w.shape(), scaled));
        let new_b = rebuild.to.constant(Tensor::from_f64(w.dtype(), [channels], shifted));
        let y = rebuild.to.apply_all(op, &[x, Some(new_w), Some(new_b)], &name)?[0];
        rebuild.take_name(node.outputs[0], y);
        return Ok(Outcome::Applied);
    }
    Ok(Outcome::NoEffect)
}

/// One number for each channel of a result of `rank` axes, if the tensor broadcasts along channels alone.
fn per_channel(numbers: &Tensor, channels: usize, rank: usize) -> Option<Vec<f64>> {
    let shape = numbers.shape();
    if numbers.len() == 1 && shape.len() <= rank {
        return Some(vec![numbers.to_f64()[0]; channels]);
    }
    let axis = shape.len().checked_sub(rank - 1)?;
    let along = shape.len() <= rank
        && shape.iter().enumerate().all(|(i, &n)| n == if i == axis { channels } else { 1 });
    along.then(|| numbers.to_f64().into_owned())
}

/// One of the values the old graph knows as a scalar constant.
pub(super) fn scalar(rebuild: &Rebuild<'_>, id: ValueId) -> Option<f64> {
    let constant = rebuild.from.constant_of(id)?;
    (constant.len() == 1).then(|| constant.to_f64()[0])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::interpret::interpret;
    use crate::operator::Example;
    use crate::ops::{Conv, Sliding};
    use crate::parameter::Parameters;
    use crate::rewrite::run_passes;
    use crate::shape::Shape;
    use crate::tensor::DType;

    #[test]
    fn factors_and_shifts_join_the_convolution_and_rows_of_pixels_do_not() {
        for (shape, folds) in
            [(vec![], true), (vec![3, 1, 1], true), (vec![1, 3, 1, 1], true), (vec![4], false)]
        {
            let mut graph = Graph::new("affine");
            let x = graph.input("x", DType::F32, Shape::known(&[1, 2, 4, 4]));
            let w = graph.constant(Example::noise(&[3, 2, 3, 3], 1));
            let mut y = graph.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &[x, w]).unwrap();
            for (seed, function) in
                [BinaryFunction::Mul, BinaryFunction::Add, BinaryFunction::Div].into_iter().enumerate()
            {
                let c = graph.constant(Example::noise(&shape, seed as u32 + 2));
                y = graph.apply(Binary { function }, &[y, c]).unwrap();
            }
            graph.output(y);
            let (folded, _) = run_passes(&graph, &[FOLD_AFFINE], None).unwrap();
            assert_eq!(folded.nodes().len(), if folds { 1 } else { 4 }, "{shape:?}");
            let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[1, 2, 4, 4], 9))]);
            let before = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
            let after = interpret(&folded, &mut Parameters::new(), &feeds).unwrap();
            let scale = before[0].to_f64().iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for (a, b) in before[0].to_f64().iter().zip(after[0].to_f64().iter()) {
                assert!((a - b).abs() <= 1e-5 * scale, "{a} {b}");
            }
        }
    }
}
