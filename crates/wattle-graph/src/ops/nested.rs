//! Graphs inside operators: their types on given operands, what two of them have in common, what they cost.

use super::*;
use crate::cost::costs;
use crate::graph::Graph;
use crate::parameter::Parameters;
use crate::rewrite::retyped;
use crate::shape::{Dim, Shape};

/// Types of the outputs of a graph.
pub(super) fn output_types(graph: &Graph) -> Vec<TensorType> {
    graph.outputs().iter().map(|&o| graph.value(o).ty.clone()).collect()
}

/// What is common to two types: extents that differ become symbols, ranks that differ leave nothing known.
pub(super) fn merged(a: &TensorType, b: &TensorType) -> Result<TensorType, OpError> {
    if a.dtype != b.dtype {
        return Err(OpError::mismatch("types of the branches", format!("{a} and {b}"), "one element type"));
    }
    let shape = match (a.shape.dims(), b.shape.dims()) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            let dim =
                |(x, y): (&Dim, &Dim)| if x == y { x.clone() } else { Dim::symbol(format!("({x}|{y})")) };
            Shape::Ranked(x.iter().zip(y).map(dim).collect())
        }
        _ => Shape::Unknown,
    };
    Ok(TensorType::new(a.dtype, shape))
}

/// The graph on inputs of these types, all others inferred, and the work of one run; nothing when they do not fit.
pub(super) fn counted(graph: &Graph, inputs: &[TensorType]) -> (Option<Graph>, Work) {
    let operands: Vec<_> = inputs.iter().map(|ty| Some(Operand { ty, constant: None })).collect();
    let found = retyped(graph, &operands).ok().and_then(|graph| {
        let list = costs(&graph, &Parameters::new()).ok()?;
        Some((graph, list))
    });
    let (graph, list) = found.unzip();
    let mut sum = Work::movement();
    for cost in list.unwrap_or_default() {
        sum.macs = sum.macs.saturating_add(cost.work.macs);
        sum.effective_macs = sum.effective_macs.saturating_add(cost.work.effective_macs);
        sum.element_ops = sum.element_ops.saturating_add(cost.work.element_ops);
    }
    (graph, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn branches_of_different_shape_agree_on_what_is_common() {
        let ty = |dims: Vec<Dim>| TensorType::new(DType::F32, dims);
        let both = merged(&ty(vec![2.into(), 3.into()]), &ty(vec![2.into(), 4.into()])).unwrap();
        assert_eq!(both.to_string(), "f32[2, (3|4)]");
        assert_eq!(merged(&ty(vec![]), &ty(vec![2.into()])).unwrap().shape, Shape::Unknown);
    }
}
