//! Cross entropy of answers of yes or no, any number of them a sample.

use wattle_data::error::Result;
use wattle_graph::ops::{Binary, BinaryFunction, Function, Op, Reduce, Reduction, Unary};
use wattle_graph::{DType, Graph, GraphError, ValueId};

use super::{Attached, Judged, Kind, Objective, TARGETS, before, chosen, target, target_field, text_of};
use crate::text::Fields;

/// The mean over all outputs of the cross entropy of a yes or no.
///
/// The output holds logits (a sigmoid at its end is taken off); targets are numbers from 0, no, to 1, yes, of the output's
/// shape. With logit x and target t each costs `max(x, 0) - x t + ln(1 + e^-|x|)`, which does not overflow.
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryCrossEntropy {
    /// The output that is judged; the first if `None`.
    pub output: Option<String>,
    /// The column of targets.
    pub target: String,
}

impl Default for BinaryCrossEntropy {
    fn default() -> BinaryCrossEntropy {
        BinaryCrossEntropy { output: None, target: TARGETS.into() }
    }
}

impl BinaryCrossEntropy {
    pub(super) fn parse(mut fields: Fields) -> Result<BinaryCrossEntropy> {
        let (output, target) = (fields.text("output"), fields.text("target"));
        fields.finish("output or target")?;
        Ok(BinaryCrossEntropy { output, target: target.unwrap_or_else(|| TARGETS.into()) })
    }
}

impl Objective for BinaryCrossEntropy {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        let output = chosen(graph, outputs, self.output.as_deref())?;
        let is_sigmoid = |op: &Op| matches!(op, Op::Unary(Unary { function: Function::Sigmoid }));
        let logits = before(graph, output, is_sigmoid)?;
        let (targets, port) = target(graph, &self.target, DType::F32, &graph.extents(logits)?);
        let binary = |function| Binary { function };
        // softplus(x) - x t is the same and is two kernels.
        let all = graph.apply(Unary { function: Function::Softplus }, &[logits])?;
        let hit = graph.apply(binary(BinaryFunction::Mul), &[logits, targets])?;
        let each = graph.apply(binary(BinaryFunction::Sub), &[all, hit])?;
        let mean = Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false };
        let loss = graph.apply(mean, &[each])?;
        let judged = Some(Judged { output: logits, target: targets, kind: Kind::Binary });
        Ok(Attached { ports: vec![port], judged, ..Attached::loss(loss) })
    }

    fn text(&self) -> String {
        text_of("bce", &[("output", self.output.clone()), ("target", target_field(&self.target))])
    }
}
