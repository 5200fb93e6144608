//! Weighted sums of objectives.

use wattle_graph::ops::{Binary, BinaryFunction};
use wattle_graph::{Graph, GraphError, Tensor, ValueId};

use super::{Attached, Loss, Objective};

/// Adds every term and their weighted sum. The parts are metrics under their texts; the first term with targets is the
/// one that metrics judge.
///
/// Where terms are means over different things (some tokens are ignored by one of them), batches count alike.
pub(super) fn attach(
    terms: &[(f64, Loss)],
    graph: &mut Graph,
    outputs: &[ValueId],
) -> Result<Attached, GraphError> {
    let mut sum: Option<Attached> = None;
    for (weight, term) in terms {
        let one = term.attach(graph, outputs)?;
        let scaled = if *weight == 1.0 {
            one.loss
        } else {
            let weight = graph.constant(Tensor::scalar(*weight as f32));
            graph.apply(Binary { function: BinaryFunction::Mul }, &[one.loss, weight])?
        };
        let mut so_far = match sum.take() {
            None => Attached { loss: scaled, weight: None, metrics: vec![], ..one.clone() },
            Some(mut so_far) => {
                so_far.loss =
                    graph.apply(Binary { function: BinaryFunction::Add }, &[so_far.loss, scaled])?;
                so_far.ports.extend(one.ports.iter().cloned());
                so_far.judged = so_far.judged.or(one.judged.clone());
                so_far
            }
        };
        so_far.metrics.push((term.text(), one.loss));
        so_far.metrics.extend(one.metrics);
        sum = Some(so_far);
    }
    sum.ok_or_else(|| GraphError::Invalid("a sum of no losses".into()))
}

/// `cross-entropy + 0.5*mse`.
pub(super) fn text(terms: &[(f64, Loss)]) -> String {
    let text = |(weight, term): &(f64, Loss)| {
        if *weight == 1.0 { term.text() } else { format!("{weight}*{}", term.text()) }
    };
    terms.iter().map(text).collect::<Vec<_>>().join(" + ")
}
