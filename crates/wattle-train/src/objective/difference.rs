//! Distances from given numbers: squared, absolute, and Huber's between the two.

use wattle_data::error::Result;
use wattle_graph::ops::{Binary, BinaryFunction, Function, Reduce, Reduction, Unary};
use wattle_graph::{DType, Graph, GraphError, Tensor, ValueId};

use super::{Attached, Judged, Kind, Objective, TARGETS, before, chosen, target, target_field, text_of};
use crate::text::Fields;

/// How a difference d costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DifferenceKind {
    /// `d^2`.
    Squared,
    /// `|d|`.
    Absolute,
    /// `d^2 / 2` up to `delta`, beyond it `delta (|d| - delta / 2)` (Huber 1964, as PyTorch's `huber_loss`).
    Huber {
        /// Where the parabola becomes a line; above 0.
        delta: f32,
    },
}

/// The mean over all outputs of what their differences from the targets cost; targets have the output's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// How a difference costs.
    pub kind: DifferenceKind,
    /// The output that is judged; the first if `None`.
    pub output: Option<String>,
    /// The column of targets.
    pub target: String,
}

impl Difference {
    /// The mean of squared differences.
    pub fn squared() -> Difference {
        Difference { kind: DifferenceKind::Squared, output: None, target: TARGETS.into() }
    }

    pub(super) fn parse(mut fields: Fields) -> Result<Difference> {
        let (kind, known) = match fields.name.as_str() {
            "mse" => (DifferenceKind::Squared, "output or target"),
            "mae" => (DifferenceKind::Absolute, "output or target"),
            _ => {
                let delta =
                    fields.number("delta", "a number above 0", |&d: &f32| d.is_finite() && d > 0.0)?;
                (DifferenceKind::Huber { delta: delta.unwrap_or(1.0) }, "delta, output or target")
            }
        };
        let (output, target) = (fields.text("output"), fields.text("target"));
        fields.finish(known)?;
        Ok(Difference { kind, output, target: target.unwrap_or_else(|| TARGETS.into()) })
    }
}

/// The mean of what the differences of two values cost.
pub(super) fn mean_of(
    kind: DifferenceKind,
    graph: &mut Graph,
    a: ValueId,
    b: ValueId,
) -> std::result::Result<ValueId, GraphError> {
    let binary = |function| Binary { function };
    let difference = graph.apply(binary(BinaryFunction::Sub), &[a, b])?;
    let each = match kind {
        DifferenceKind::Squared => graph.apply(binary(BinaryFunction::Mul), &[difference, difference])?,
        DifferenceKind::Absolute => graph.apply(Unary { function: Function::Abs }, &[difference])?,
        DifferenceKind::Huber { delta } => {
            // With c = min(|d|, delta) both branches are c (|d| - c / 2).
            let size = graph.apply(Unary { function: Function::Abs }, &[difference])?;
            let [delta, half] = [delta, 0.5].map(|x| graph.constant(Tensor::scalar(x)));
            let cut = graph.apply(binary(BinaryFunction::Min), &[size, delta])?;
            let less = graph.apply(binary(BinaryFunction::Mul), &[cut, half])?;
            let rest = graph.apply(binary(BinaryFunction::Sub), &[size, less])?;
            graph.apply(binary(BinaryFunction::Mul), &[cut, rest])?
        }
    };
    graph.apply(Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false }, &[each])
}

impl Objective for Difference {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        let output = chosen(graph, outputs, self.output.as_deref())?;
        let output = before(graph, output, |_| false)?;
        let (targets, port) = target(graph, &self.target, DType::F32, &graph.extents(output)?);
        let loss = mean_of(self.kind, graph, output, targets)?;
        let judged = Some(Judged { output, target: targets, kind: Kind::Values });
        Ok(Attached { ports: vec![port], judged, ..Attached::loss(loss) })
    }

    fn text(&self) -> String {
        let (name, delta) = match self.kind {
            DifferenceKind::Squared => ("mse", None),
            DifferenceKind::Absolute => ("mae", None),
            DifferenceKind::Huber { delta } => ("huber", (delta != 1.0).then(|| delta.to_string())),
        };
        let (output, target) = (self.output.clone(), target_field(&self.target));
        text_of(name, &[("delta", delta), ("output", output), ("target", target)])
    }
}
