//! Reverse-mode differentiation as a graph transformation: gradients are ordinary nodes.

use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::operator::{Backward, Gradient};
use crate::ops::{Binary, BinaryFunction};
use crate::tensor::Tensor;

/// A graph extended by the gradients of one of its values.
#[derive(Clone, Debug)]
pub struct Differentiated {
    /// The given graph, with all its values under their old ids, and the gradient nodes after it.
    pub graph: Graph,
    /// The gradient by each value of `wrt`, in order; `None` where the loss does not depend on it.
    pub gradients: Vec<Option<ValueId>>,
}

/// Extends `graph` by nodes that compute the gradients of the scalar `loss` by each value in `wrt`.
///
/// All shapes must be known. An operator without a gradient on a path from `wrt` to `loss` is an error that
/// names it; off such paths it does not matter.
pub fn differentiate(graph: &Graph, loss: ValueId, wrt: &[ValueId]) -> Result<Differentiated, GraphError> {
    let loss_type = &graph.value(loss).ty;
    if !loss_type.dtype.is_float() || graph.extents(loss)?.iter().product::<usize>() != 1 {
        let text = format!("the loss `{}` is {loss_type}; it must be one float", graph.label(loss));
        return Err(GraphError::Invalid(text));
    }
    let needed = depends_on(graph, wrt);
    let mut extended = graph.clone();
    let mut gradients: Vec<Option<ValueId>> = vec![None; graph.values().len()];
    let one = Tensor::from_f64(loss_type.dtype, graph.extents(loss)?, vec![1.0]);
    gradients[loss.index()] = Some(extended.constant(one));

    for node in graph.nodes().iter().rev() {
        let output_gradients: Vec<_> = node.outputs.iter().map(|o| gradients[o.index()]).collect();
        let wanted: Vec<_> = node.inputs.iter().map(|i| i.is_some_and(|i| needed[i.index()])).collect();
        if output_gradients.iter().all(Option::is_none) || !wanted.contains(&true) {
            continue;
        }
        let mut backward =
            Backward { graph: &mut extended, node, output_gradients: &output_gradients, wanted: &wanted };
        let input_gradients = match node.op.gradient(&mut backward)? {
            Gradient::Inputs(list) => list,
            Gradient::Zero(_) => continue,
            Gradient::NotDifferentiable(reason) => {
                return Err(GraphError::NotDifferentiable {
                    node: node.name.clone(),
                    op: node.op.name().to_string(),
                    reason,
                });
            }
        };
        for ((input, gradient), wanted) in node.inputs.iter().zip(input_gradients).zip(wanted) {
            let (Some(input), Some(gradient), true) = (input, gradient, wanted) else { continue };
            let sum = &mut gradients[input.index()];
            *sum = Some(match *sum {
                None => gradient,
                Some(so_far) => {
                    extended.apply(Binary { function: BinaryFunction::Add }, &[so_far, gradient])?
                }
            });
        }
    }
    let gradients = wrt.iter().map(|id| gradients[id.index()]).collect();
    Ok(Differentiated { graph: extended, gradients })
}

/// For each value, whether it depends on any of `roots` through float values.
fn depends_on(graph: &Graph, roots: &[ValueId]) -> Vec<bool> {
    let mut depends = vec![false; graph.values().len()];
    for root in roots {
        depends[root.index()] = true;
    }
    for node in graph.nodes() {
        if node.inputs.iter().flatten().any(|i| depends[i.index()]) {
            for &output in &node.outputs {
                depends[output.index()] = depends[output.index()] || graph.value(output).ty.dtype.is_float();
            }
        }
    }
    depends
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::interpret::interpret;
    use crate::ops::*;
    use crate::parameter::Parameters;
    use crate::shape::Shape;
    use crate::tensor::DType;

    #[test]
    fn a_value_used_twice_gets_the_sum_of_both_gradients() {
        let mut graph = Graph::new("square");
        let x = graph.input("x", DType::F64, Shape::known(&[]));
        let y = graph.apply(Binary { function: BinaryFunction::Mul }, &[x, x]).unwrap();
        let d = differentiate(&graph, y, &[x]).unwrap();
        let mut with_output = d.graph.clone();
        with_output.output(d.gradients[0].unwrap());
        let inputs = BTreeMap::from([("x".to_string(), Tensor::f64([], vec![3.0]))]);
        let out = interpret(&with_output, &mut Parameters::new(), &inputs).unwrap();
        assert_eq!(out[0].to_f64()[0], 6.0);
    }

    #[test]
    fn a_loss_that_is_not_one_number_is_refused() {
        let mut graph = Graph::new("vector");
        let x = graph.input("x", DType::F32, Shape::known(&[2]));
        assert!(matches!(differentiate(&graph, x, &[x]), Err(GraphError::Invalid(_))));
    }

    #[test]
    fn the_listing_of_a_small_gradient_is_stable() {
        let mut graph = Graph::new("layer");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
        let w = graph.input("w", DType::F32, Shape::known(&[3, 1]));
        let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
        let loss = graph.apply(SumTo { shape: vec![] }, &[y]).unwrap();
        let d = differentiate(&graph, loss, &[w]).unwrap();
        assert_eq!(
            d.graph.to_string(),
            "graph layer {\n  input x: f32[2, 3]\n  input w: f32[3, 1]\n  \
             matmul.2 = MatMul(x, w) -> f32[2, 1]\n  sumto.3 = SumTo(matmul.2) {shape: []} -> f32[]\n  \
             add.6 = Add(1, [0, 0]) -> f32[2, 1]\n  \
             matmul.7 = MatMul(x, add.6) {transA: 1} -> f32[3, 1]\n  return \n}"
        );
    }
}
