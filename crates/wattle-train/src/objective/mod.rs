//! Objectives: what a network should become good at, as nodes that end in one number to be made small.
//!
//! | text | objective |
//! |---|---|
//! | `cross-entropy` | [`CrossEntropy`]; `smoothing=0.1`, `ignore=-100`, `axis=1`, `weights=1/2/0.5` |
//! | `bce` | [`BinaryCrossEntropy`] |
//! | `mse`, `mae`, `huber:delta=1` | [`Difference`] |
//! | `distil:t=4` | [`Distillation`]; `match=layer3/layer5`, `matched=0.1`, `axis=1` |
//! | `output:NAME` | [`ModelOutput`]: a loss that the model itself computes |
//! | `cross-entropy:smoothing=0.1 + 0.5*mse:output=boxes,target=boxes` | a weighted sum |
//!
//! All but `output` take `output=NAME`, the model's output that is judged (the first if left out), and, where they read
//! targets, `target=NAME`, the column of the batch that holds them (`targets` if left out).

mod binary;
mod cross_entropy;
mod difference;
mod distillation;
mod model_output;
mod sum;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wattle_data::error::{Error, Result};
use wattle_graph::ops::Op;
use wattle_graph::{DType, Graph, GraphError, Model, Shape, Source, ValueId};

pub use binary::BinaryCrossEntropy;
pub use cross_entropy::CrossEntropy;
pub use difference::{Difference, DifferenceKind};
pub use distillation::Distillation;
pub use model_output::ModelOutput;

use crate::text::Fields;

/// The column that holds the targets where none is named.
pub const TARGETS: &str = "targets";

/// What a network should become good at.
pub trait Objective: fmt::Debug + Send + Sync {
    /// Adds the loss of the network's outputs to its graph, and an input for every target it reads.
    ///
    /// Outputs have the batch on their first axis.
    ///
    /// # Errors
    /// When the outputs are not what the objective judges.
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError>;

    /// All that decides the nodes that [`Objective::attach`] adds; it enters the keys of runs.
    fn text(&self) -> String;
}

/// What an objective has added to a graph.
#[derive(Clone, Debug)]
pub struct Attached {
    /// One float, to be made small: a mean over what the batch holds.
    pub loss: ValueId,
    /// What the loss is a mean over, as one float: the sum of the weights of all that counted. `None` where every sample
    /// counts alike. Losses of several batches are averaged by it.
    pub weight: Option<ValueId>,
    /// Single floats worth knowing, such as the parts of a sum.
    pub metrics: Vec<(String, ValueId)>,
    /// The inputs added, and the columns that feed them.
    pub ports: Vec<Port>,
    /// What metrics compare; `None` where the objective has no targets to compare with.
    pub judged: Option<Judged>,
}

impl Attached {
    /// A loss without anything else.
    pub fn loss(loss: ValueId) -> Attached {
        Attached { loss, weight: None, metrics: vec![], ports: vec![], judged: None }
    }
}

/// An input of a graph and the column of a batch that feeds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name of the input.
    pub input: String,
    /// Name of the column.
    pub column: String,
}

/// What metrics compare, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The network's answer, before any softmax or sigmoid.
    pub output: ValueId,
    /// The input that holds what is right.
    pub target: ValueId,
    /// What both mean.
    pub kind: Kind,
}

/// What a network answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A score for each class along `axis`; targets are classes, and those that are `ignored` do not count.
    Classes {
        /// Counted from the first axis, which is the batch.
        axis: usize,
        /// The label that does not count.
        ignored: Option<i64>,
    },
    /// A score for each yes or no: yes above 0.
    Binary,
    /// Numbers.
    Values,
}

/// An objective by its text form, or one of the caller's own.
#[derive(Clone, Debug)]
pub enum Loss {
    /// Cross entropy of classes.
    CrossEntropy(CrossEntropy),
    /// Cross entropy of yes and no.
    Binary(BinaryCrossEntropy),
    /// A distance from given numbers.
    Difference(Difference),
    /// A teacher's answers.
    Distillation(Distillation),
    /// What the model itself computes.
    Output(ModelOutput),
    /// Several, each with its weight.
    Sum(Vec<(f64, Loss)>),
    /// Anything else. It is known by its text, which cannot be parsed back.
    Custom(Arc<dyn Objective>),
}

impl Loss {
    /// Plain cross entropy of classes.
    pub fn cross_entropy() -> Loss {
        Loss::CrossEntropy(CrossEntropy::default())
    }

    /// The objective behind the name.
    fn objective(&self) -> &dyn Objective {
        match self {
            Loss::CrossEntropy(objective) => objective,
            Loss::Binary(objective) => objective,
            Loss::Difference(objective) => objective,
            Loss::Distillation(objective) => objective,
            Loss::Output(objective) => objective,
            Loss::Sum(_) => self,
            Loss::Custom(objective) => &**objective,
        }
    }

    /// The same with this teacher, wherever one is needed.
    pub fn taught_by(mut self, teacher: &Arc<Model>) -> Loss {
        self.teach(teacher);
        self
    }

    fn teach(&mut self, teacher: &Arc<Model>) {
        match self {
            Loss::Distillation(objective) => objective.teach(teacher),
            Loss::Sum(terms) => terms.iter_mut().for_each(|(_, term)| term.teach(teacher)),
            _ => {}
        }
    }

    /// Whether a teacher is needed.
    pub fn needs_teacher(&self) -> bool {
        match self {
            Loss::Distillation(_) => true,
            Loss::Sum(terms) => terms.iter().any(|(_, term)| term.needs_teacher()),
            _ => false,
        }
    }

    /// The columns of targets that are read, in order, each once.
    pub fn targets(&self) -> Vec<&str> {
        match self {
            Loss::CrossEntropy(objective) => vec![&objective.target],
            Loss::Binary(objective) => vec![&objective.target],
            Loss::Difference(objective) => vec![&objective.target],
            Loss::Distillation(_) | Loss::Output(_) | Loss::Custom(_) => vec![],
            Loss::Sum(terms) => {
                let mut names: Vec<&str> = vec![];
                for name in terms.iter().flat_map(|(_, term)| term.targets()) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                names
            }
        }
    }

    /// The same where positions of this label do not count, unless it names another label itself.
    pub fn ignoring(mut self, label: Option<i64>) -> Loss {
        self.each_cross_entropy(&mut |objective| objective.ignored = objective.ignored.or(label));
        self
    }

    /// Changes each term that is a cross entropy; gives how many there are.
    pub fn each_cross_entropy(&mut self, change: &mut dyn FnMut(&mut CrossEntropy)) -> usize {
        match self {
            Loss::CrossEntropy(objective) => {
                change(objective);
                1
            }
            Loss::Sum(terms) => terms.iter_mut().map(|(_, term)| term.each_cross_entropy(change)).sum(),
            _ => 0,
        }
    }

    /// The label that does not count, if some term says so.
    pub fn ignored(&self) -> Option<i64> {
        match self {
            Loss::CrossEntropy(objective) => objective.ignored,
            Loss::Sum(terms) => terms.iter().find_map(|(_, term)| term.ignored()),
            _ => None,
        }
    }

    /// The same with other names for the columns of targets, where `name` knows one for what it is given.
    pub fn renamed(mut self, name: &dyn Fn(&str) -> Option<String>) -> Loss {
        if let Loss::Sum(terms) = &mut self {
            for (_, term) in terms {
                *term = std::mem::replace(term, Loss::Sum(vec![])).renamed(name);
            }
            return self;
        }
        let column = self.targets().first().and_then(|target| name(target));
        column.into_iter().fold(self, |loss, column| loss.with_target(&column))
    }

    /// Reads this column of targets instead.
    pub fn with_target(mut self, name: &str) -> Loss {
        match &mut self {
            Loss::CrossEntropy(objective) => objective.target = name.into(),
            Loss::Binary(objective) => objective.target = name.into(),
            Loss::Difference(objective) => objective.target = name.into(),
            Loss::Distillation(_) | Loss::Output(_) | Loss::Custom(_) | Loss::Sum(_) => {}
        }
        self
    }
}

impl Objective for Loss {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        match self {
            Loss::Sum(terms) => sum::attach(terms, graph, outputs),
            _ => self.objective().attach(graph, outputs),
        }
    }

    fn text(&self) -> String {
        match self {
            Loss::Sum(terms) => sum::text(terms),
            _ => self.objective().text(),
        }
    }
}

impl PartialEq for Loss {
    fn eq(&self, other: &Loss) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Loss> {
        let mut terms = text.split(" + ").map(weighted).collect::<Result<Vec<_>>>()?;
        match &terms[..] {
            [(1.0, _)] => Ok(terms.remove(0).1),
            _ => Ok(Loss::Sum(terms)),
        }
    }
}

crate::text::as_text!(Loss);

/// A term of a sum: `0.5*mse`.
fn weighted(text: &str) -> Result<(f64, Loss)> {
    let text = text.trim();
    let Some((factor, rest)) = text.split_once('*') else { return Ok((1.0, term(text)?)) };
    let weight = factor.trim().parse::<f64>().ok().filter(|w| w.is_finite() && *w > 0.0);
    let weight = weight.ok_or_else(|| {
        Error::input(format_args!("loss `{text}`"), format_args!("the weight is `{factor}`"))
            .expected("a number above 0")
    })?;
    Ok((weight, term(rest)?))
}

fn term(text: &str) -> Result<Loss> {
    if let Some(name) = text.trim().strip_prefix("output:") {
        return ModelOutput::new(name.trim()).map(Loss::Output);
    }
    let fields = Fields::of("loss", text)?;
    match fields.name.as_str() {
        "cross-entropy" => CrossEntropy::parse(fields).map(Loss::CrossEntropy),
        "bce" => BinaryCrossEntropy::parse(fields).map(Loss::Binary),
        "mse" | "mae" | "huber" => Difference::parse(fields).map(Loss::Difference),
        "distil" => Distillation::parse(fields).map(Loss::Distillation),
        _ => Err(fields.refuse("not a loss").expected(
            "cross-entropy, bce, mse, mae, huber, distil, output:NAME, or a sum such as `mse + 0.5*mae`",
        )),
    }
}

/// What an objective judges where no output is named: the first; else the one of this name.
fn chosen(
    graph: &Graph,
    outputs: &[ValueId],
    name: Option<&str>,
) -> std::result::Result<ValueId, GraphError> {
    let found = match name {
        None => outputs.first().copied(),
        Some(name) => outputs.iter().copied().find(|&id| graph.label(id) == name),
    };
    found.ok_or_else(|| {
        let names: Vec<_> = outputs.iter().map(|&id| graph.label(id)).collect();
        GraphError::Invalid(match name {
            None => "the model has no output".into(),
            Some(name) => {
                format!("there is no output `{name}`; the outputs are: {}", names.join(", "))
            }
        })
    })
}

/// The value before the activations that `is_activation` knows and before what only passes it on; a float.
fn before(
    graph: &Graph,
    mut id: ValueId,
    is_activation: impl Fn(&Op) -> bool,
) -> std::result::Result<ValueId, GraphError> {
    let ty = &graph.value(id).ty;
    if !ty.dtype.is_float() {
        let text = format!("output `{}` is {ty}; a loss judges floats", graph.label(id));
        return Err(GraphError::Invalid(text));
    }
    while let Source::Node { node, .. } = graph.value(id).source {
        let node = graph.node(node);
        match node.inputs.first() {
            Some(Some(x)) if is_activation(&node.op) || matches!(node.op, Op::Identity(_)) => id = *x,
            _ => break,
        }
    }
    Ok(id)
}

/// Adds the input that a column of targets feeds. Its name is the column's, unless the network has an input of that name:
/// the target of an autoencoder is its input.
fn target(graph: &mut Graph, column: &str, dtype: DType, extents: &[usize]) -> (ValueId, Port) {
    let mut input = column.to_string();
    while graph.find(&input).is_some() {
        input = format!("target:{input}");
    }
    let id = graph.input(input.clone(), dtype, Shape::known(extents));
    (id, Port { input, column: column.to_string() })
}

/// `name` and the fields that are given, as a text that parses back.
fn text_of(name: &str, fields: &[(&str, Option<String>)]) -> String {
    let given: Vec<String> =
        fields.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect();
    if given.is_empty() { name.to_string() } else { format!("{name}:{}", given.join(",")) }
}

/// The column of targets, where it is not the usual one.
fn target_field(target: &str) -> Option<String> {
    (target != TARGETS).then(|| target.to_string())
}

#[cfg(test)]
mod tests;
