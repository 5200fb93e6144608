//! Inference mode: what a graph that was exported in training mode does once it is trained.

use super::Rebuild;
use crate::error::GraphError;
use crate::graph::Graph;
use crate::ops::{BatchNormalization, Identity, Op};

/// The graph with batch normalisation by the running statistics, and without Dropout.
///
/// A normalisation whose next statistics the graph reads or returns stays as it is: they are what was asked for.
pub fn in_inference_mode(graph: &Graph) -> Result<Graph, GraphError> {
    let mut rebuild = Rebuild::new(graph);
    for node in graph.nodes() {
        match &node.op {
            Op::BatchNormalization(norm)
                if norm.training && node.outputs[1..].iter().all(|&o| rebuild.uses(o) == 0) =>
            {
                let operands = rebuild.operands(node);
                let op = BatchNormalization { training: false, ..norm.clone() };
                let y = rebuild.to.apply_all(op, &operands, &node.name)?[0];
                rebuild.take_name(node.outputs[0], y);
            }
            Op::Dropout(_) => {
                let x = rebuild.operands(node)[0];
                let y = rebuild.to.apply_all(Identity, &[x], &node.name)?[0];
                rebuild.take_name(node.outputs[0], y);
            }
            _ => rebuild.copy(node)?,
        }
    }
    rebuild.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ValueId;
    use crate::shape::Shape;
    use crate::tensor::DType;

    fn normalised(returns_statistics: bool) -> Graph {
        let mut graph = Graph::new("training");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
        let vectors: Vec<ValueId> =
            (0..4).map(|i| graph.input(format!("v{i}"), DType::F32, Shape::known(&[3]))).collect();
        let operands: Vec<_> = [x].iter().chain(&vectors).copied().map(Some).collect();
        let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: true };
        let results = graph.apply_all(op, &operands, "norm").unwrap();
        graph.rename(results[0], "y");
        graph.output(results[0]);
        if returns_statistics {
            graph.output(results[1]);
        }
        graph
    }

    #[test]
    fn a_norm_uses_its_running_statistics_unless_the_next_ones_are_asked_for() {
        for returns in [false, true] {
            let after = in_inference_mode(&normalised(returns)).unwrap();
            let Op::BatchNormalization(norm) = &after.nodes()[0].op else { panic!("{after}") };
            assert_eq!((norm.training, after.label(after.outputs()[0])), (returns, "y".to_string()));
        }
    }
}
