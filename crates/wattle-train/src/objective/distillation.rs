//! Distillation: a student learns a teacher's answers, without any labels.

use std::sync::Arc;

use wattle_data::error::Result;
use wattle_graph::ops::{Binary, BinaryFunction, Function, Op, Reduce, Reduction, Softmax, Unary};
use wattle_graph::rewrite::{self, INFERENCE_PASSES, run_passes};
use wattle_graph::{Graph, GraphError, Model, Tensor, TensorNames, ValueId, normalize_axis};

use super::difference::mean_of;
use super::{Attached, DifferenceKind, Objective, before, chosen, text_of};
use crate::binding::bind_inputs;
use crate::fingerprint;
use crate::text::Fields;

/// The divergence of a student's classes from a teacher's (Hinton et al. 2015, section 2).
///
/// With temperature T and p the softmax of logits over T, the loss is T^2 times the mean over positions of
/// `sum_c p_teacher (ln p_teacher - ln p_student)`; T^2 keeps the gradient's size whatever T is. Named values inside the
/// two networks can be matched besides, by the mean of their squared differences (Romero et al. 2015, without the
/// regressor: their shapes must be equal).
///
/// The teacher runs beside the student, on the same inputs by name, in inference mode; it is never trained.
#[derive(Clone, Debug)]
pub struct Distillation {
    /// T, above 0.
    pub temperature: f64,
    /// Pairs of values to match: the student's name, the teacher's.
    pub matched: Vec<(String, String)>,
    /// Weight of each match.
    pub matched_weight: f64,
    /// The axis of the classes, as in [`super::CrossEntropy`].
    pub axis: Option<i64>,
    /// The student's output that is judged, and the teacher's of the same name; the first of both if `None`.
    pub output: Option<String>,
    /// Who teaches.
    pub teacher: Option<Arc<Model>>,
    /// The teacher's [`fingerprint::of_model`]: what a text can say of it.
    print: Option<String>,
}

impl Distillation {
    /// The divergence at this temperature.
    pub fn new(temperature: f64, teacher: &Arc<Model>) -> Distillation {
        let mut made = Distillation {
            temperature,
            matched: vec![],
            matched_weight: 1.0,
            axis: None,
            output: None,
            teacher: None,
            print: None,
        };
        made.teach(teacher);
        made
    }

    /// Another teacher.
    pub(super) fn teach(&mut self, teacher: &Arc<Model>) {
        self.print = Some(fingerprint::of_model(teacher));
        self.teacher = Some(teacher.clone());
    }

    pub(super) fn parse(mut fields: Fields) -> Result<Distillation> {
        let positive = |x: &f64| x.is_finite() && *x > 0.0;
        let temperature = fields.number("t", "a number above 0", positive)?.unwrap_or(1.0);
        let matched_weight = fields.number("matched", "a number above 0", positive)?.unwrap_or(1.0);
        let axis = fields.number("axis", "a whole number but 0, which is the batch", |&a| a != 0)?;
        let mut matched = vec![];
        for pair in fields.text("match").iter().flat_map(|text| text.split(';')) {
            let Some((student, teacher)) = pair.split_once('/') else {
                return Err(fields.refuse(format_args!("match has `{pair}`")).expected("STUDENT/TEACHER"));
            };
            matched.push((student.trim().to_string(), teacher.trim().to_string()));
        }
        let (output, print) = (fields.text("output"), fields.text("teacher"));
        fields.finish("t, match, matched, axis or output")?;
        Ok(Distillation { temperature, matched, matched_weight, axis, output, teacher: None, print })
    }

    /// The teacher's answer and what is matched of it, as values of the student's graph.
    fn beside(&self, graph: &mut Graph) -> std::result::Result<Vec<ValueId>, GraphError> {
        let invalid = |text: &str| GraphError::Invalid(text.to_string());
        let teacher = self.teacher.as_ref().ok_or_else(|| invalid("distillation has no teacher"))?;
        let mut shapes = vec![];
        let mut feeds = vec![];
        for &input in teacher.graph.inputs() {
            let name = teacher.graph.label(input);
            let by_name = graph.inputs().iter().copied().find(|&id| graph.value(id).name == name);
            let sole = match (teacher.graph.inputs(), graph.inputs()) {
                ([_], [only]) => Some(*only),
                _ => None,
            };
            let fed = by_name.or(sole).ok_or_else(|| {
                let names: Vec<_> = graph.inputs().iter().map(|&i| graph.label(i)).collect();
                let inputs = names.join(", ");
                GraphError::Invalid(format!("the teacher reads `{name}`; the student's inputs are: {inputs}"))
            })?;
            shapes.push((name.clone(), graph.extents(fed)?));
            feeds.push((name, fed));
        }
        let mut network = bind_inputs(&teacher.graph, &shapes)?;
        let outputs = network.outputs().to_vec();
        let answer = chosen(&network, &outputs, self.output.as_deref())?;
        let mut wanted = vec![self.logits(&network, answer)?];
        for (_, name) in &self.matched {
            let found = network.find(name);
            wanted.push(found.ok_or_else(|| {
                GraphError::Invalid(format!("the teacher has no value `{name}` to be matched"))
            })?);
        }
        network.set_outputs(wanted);
        let (network, _) =
            run_passes(&rewrite::freeze(&network, &teacher.parameters)?, INFERENCE_PASSES, None)?;
        let feeds: Vec<(&str, ValueId)> = feeds.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        Ok(graph.splice(&network, &feeds, "teacher", TensorNames::Prefixed)?.outputs)
    }

    /// The scores before a softmax that the network may end in.
    fn logits(&self, graph: &Graph, output: ValueId) -> std::result::Result<ValueId, GraphError> {
        before(graph, output, |op| matches!(op, Op::Softmax(Softmax { log: false, .. })))
    }
}

impl Objective for Distillation {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        let student = chosen(graph, outputs, self.output.as_deref())?;
        let student = self.logits(graph, student)?;
        let taught = self.beside(graph)?;
        let extents = graph.extents(student)?;
        let same = |graph: &Graph, student: ValueId, teacher: ValueId| {
            if graph.extents(student)? == graph.extents(teacher)? {
                return Ok(());
            }
            let ty = |id: ValueId| format!("`{}` is {}", graph.label(id), graph.value(id).ty);
            let text = format!("{}, but {}: what is distilled has one shape", ty(student), ty(teacher));
            Err(GraphError::Invalid(text))
        };
        same(graph, student, taught[0])?;
        let rank = extents.len();
        let axis = self.axis.unwrap_or(if rank == 3 { 2 } else { 1 });
        let axis = normalize_axis(axis, rank).filter(|&axis| axis > 0).ok_or_else(|| {
            GraphError::Invalid(format!(
                "output `{}` is {extents:?}: no axis of classes",
                graph.label(student)
            ))
        })? as i64;
        let binary = |function| Binary { function };
        let cooled = graph.constant(Tensor::scalar(1.0 / self.temperature as f32));
        let [ours, theirs] = [student, taught[0]].map(|logits| -> std::result::Result<_, GraphError> {
            let logits = graph.apply(binary(BinaryFunction::Mul), &[logits, cooled])?;
            graph.apply(Softmax { axis, log: true }, &[logits])
        });
        let (ours, theirs) = (ours?, theirs?);
        let share = graph.apply(Unary { function: Function::Exp }, &[theirs])?;
        let apart = graph.apply(binary(BinaryFunction::Sub), &[theirs, ours])?;
        let each = graph.apply(binary(BinaryFunction::Mul), &[share, apart])?;
        let sum =
            graph.apply(Reduce { kind: Reduction::Sum, axes: vec![axis], keep_dims: false }, &[each])?;
        let mean = graph.apply(Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false }, &[sum])?;
        let squared = graph.constant(Tensor::scalar((self.temperature * self.temperature) as f32));
        let mut loss = graph.apply(binary(BinaryFunction::Mul), &[mean, squared])?;
        let mut metrics = vec![];
        for ((name, _), &teacher) in self.matched.iter().zip(&taught[1..]) {
            let found = graph.find(name);
            let student = found.ok_or_else(|| {
                GraphError::Invalid(format!("the model has no value `{name}` to be matched"))
            })?;
            same(graph, student, teacher)?;
            let apart = mean_of(DifferenceKind::Squared, graph, student, teacher)?;
            metrics.push((format!("match {name}"), apart));
            let weight = graph.constant(Tensor::scalar(self.matched_weight as f32));
            let scaled = graph.apply(binary(BinaryFunction::Mul), &[apart, weight])?;
            loss = graph.apply(binary(BinaryFunction::Add), &[loss, scaled])?;
        }
        Ok(Attached { metrics, ..Attached::loss(loss) })
    }

    fn text(&self) -> String {
        let pairs: Vec<String> = self.matched.iter().map(|(a, b)| format!("{a}/{b}")).collect();
        let number = |x: f64| (x != 1.0).then(|| x.to_string());
        text_of(
            "distil",
            &[
                ("t", number(self.temperature)),
                ("match", (!pairs.is_empty()).then(|| pairs.join(";"))),
                ("matched", number(self.matched_weight)),
                ("axis", self.axis.map(|a| a.to_string())),
                ("output", self.output.clone()),
                ("teacher", self.print.clone()),
            ],
        )
    }
}
