//! The pinball loss: an answer that the truth stays below as often as asked.

use wattle_graph::ops::{Binary, BinaryFunction, Reduce, Reduction};
use wattle_graph::{DType, Graph, GraphError, Shape, Tensor, ValueId};
use wattle_train::objective::{Attached, Objective, Port};

/// Mean of `max(q e, (q - 1) e)` with `e = target - answer` (Koenker & Bassett 1978, "Regression quantiles").
///
/// It is smallest where the answer is the quantile q of the targets.
#[derive(Debug)]
pub struct Pinball {
    /// q, between 0 and 1.
    pub quantile: f32,
}

impl Objective for Pinball {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> Result<Attached, GraphError> {
        let answer = outputs[0];
        let extents = graph.extents(answer)?;
        let target = graph.input("demand_tomorrow", DType::F32, Shape::known(&extents));
        let binary = |function| Binary { function };
        let [q, less] = [self.quantile, self.quantile - 1.0].map(|x| graph.constant(Tensor::scalar(x)));
        let error = graph.apply(binary(BinaryFunction::Sub), &[target, answer])?;
        let above = graph.apply(binary(BinaryFunction::Mul), &[error, q])?;
        let below = graph.apply(binary(BinaryFunction::Mul), &[error, less])?;
        let worse = graph.apply(binary(BinaryFunction::Max), &[above, below])?;
        let loss = graph.apply(Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false }, &[worse])?;
        let port = Port { input: "demand_tomorrow".into(), column: "demand_tomorrow".into() };
        Ok(Attached { ports: vec![port], ..Attached::loss(loss) })
    }

    fn text(&self) -> String {
        format!("tutorial.pinball:quantile={}", self.quantile)
    }
}
