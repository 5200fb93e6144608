//! What a user should know before training a model: what is trained, what is not, and what may go wrong.

use std::fmt;

use crate::differentiate::differentiate;
use crate::error::GraphError;
use crate::graph::{Graph, Node, ValueId};
use crate::ops::Op;
use crate::parameter::Role;

/// One thing to know about a model, as data; its text is one plain sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A tensor follows its gradient.
    Trained {
        /// Its name.
        tensor: String,
        /// How many numbers it has.
        elements: usize,
        /// The nodes that read it, where there are several: it is trained as one.
        shared_by: Vec<String>,
    },
    /// A float tensor of the model is not trained.
    Constant {
        /// Its name.
        tensor: String,
        /// How many numbers it has.
        elements: usize,
        /// Why.
        why: String,
    },
    /// A parameter stays as it is, because the loss does not depend on it.
    NoGradient {
        /// Its name.
        tensor: String,
        /// How many numbers it has.
        elements: usize,
        /// Why.
        why: String,
    },
    /// The file shared one tensor that an exporter had merged; each use has its own now.
    Separated {
        /// The tensor of the file.
        tensor: String,
        /// The names of the others.
        into: Vec<String>,
    },
    /// Something that the file asks of training is not done.
    LeftOut {
        /// The node.
        node: String,
        /// What it asks for, and what is done instead.
        what: String,
    },
    /// A deep convolutional network has no normalisation, as files do whose exporter folded it into the weights.
    NoNormalisation {
        /// How many convolutions it has.
        convolutions: usize,
    },
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Trained { tensor, elements, shared_by } if shared_by.len() > 1 => {
                write!(f, "`{tensor}` ({elements}) is trained as one tensor for {}.", listed(shared_by))
            }
            Fact::Trained { tensor, elements, .. } => write!(f, "`{tensor}` ({elements}) is trained."),
            Fact::Constant { tensor, elements, why } => {
                write!(f, "`{tensor}` ({elements}) is not trained: {why}.")
            }
            Fact::NoGradient { tensor, elements, why } => {
                write!(f, "`{tensor}` ({elements}) gets no gradient and stays as it is: {why}.")
            }
            Fact::Separated { tensor, into } => write!(
                f,
                "`{tensor}` was one tensor for {} uses, merged by the exporter because they were equal; {} {} \
                 trained on {} own.",
                into.len() + 1,
                listed(into),
                if into.len() == 1 { "is" } else { "are" },
                if into.len() == 1 { "its" } else { "their" },
            ),
            Fact::LeftOut { node, what } => write!(f, "`{node}`: {what}."),
            Fact::NoNormalisation { convolutions } => write!(
                f,
                "None of the {convolutions} convolutions is followed by a normalisation: where the exporter has folded \
                 it into the weights, training may diverge or stay at chance. Export the model in training mode, or \
                 without constant folding, to keep it."
            ),
        }
    }
}

/// Up to four names, and how many more.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(4).map(|n| format!("`{n}`")).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Convolutions from which a network counts as deep. A small U-Net whose exporter folded its normalisation has five; some of
/// eight that never had any (VGG-11) train well, which the sentence leaves open.
const DEEP: usize = 5;

/// The facts of training `graph` to a smaller `loss`, one of its values: every parameter is trained or named with the
/// reason why not, quantised weights are named, and so is a deep network without normalisation. What reading the file
/// decided is in [`Model::facts`](crate::Model::facts).
///
/// # Errors
/// As [`differentiate`]: an operator on the way from a parameter to the loss has no gradient, or a shape is unknown.
pub fn training_facts(graph: &Graph, loss: ValueId) -> Result<Vec<Fact>, GraphError> {
    let trainable: Vec<ValueId> = graph
        .parameters()
        .filter(|&id| graph.parameter_of(id).is_some_and(|p| p.role == Role::Trainable))
        .collect();
    let gradients = differentiate(graph, loss, &trainable)?.gradients;
    let leads = leads_to(graph, loss);
    let mut facts = vec![];
    for (&id, gradient) in trainable.iter().zip(gradients) {
        let (tensor, elements) = (graph.label(id), graph.extents(id)?.iter().product());
        facts.push(match gradient {
            Some(_) => Fact::Trained { tensor, elements, shared_by: readers(graph, id) },
            None if leads[id.index()] => {
                let why = "an operator between it and the loss is constant wherever it has a slope".into();
                Fact::NoGradient { tensor, elements, why }
            }
            None => Fact::NoGradient { tensor, elements, why: "the loss does not depend on it".into() },
        });
    }
    for node in graph.nodes() {
        let quantised = matches!(node.op, Op::DequantizeLinear(_));
        if let (true, Some(Some(id))) = (quantised, node.inputs.first())
            && let Some(levels) = graph.constant_of(*id)
        {
            let why = "it is stored quantised".to_string();
            facts.push(Fact::Constant { tensor: graph.label(*id), elements: levels.len(), why });
        }
    }
    let is_conv = |op: &Op| matches!(op, Op::Conv(_) | Op::ConvTranspose(_));
    let normalises = |op: &Op| {
        matches!(
            op,
            Op::BatchNormalization(_) | Op::GroupNormalization(_) | Op::LayerNormalization(_) | Op::Lrn(_)
        )
    };
    let convolutions = graph.nodes().iter().filter(|n| is_conv(&n.op)).count();
    if convolutions >= DEEP && !graph.nodes().iter().any(|n| normalises(&n.op)) {
        facts.push(Fact::NoNormalisation { convolutions });
    }
    Ok(facts)
}

/// The nodes that read a value, by name.
fn readers(graph: &Graph, id: ValueId) -> Vec<String> {
    let reading = graph.nodes().iter().filter(|n| n.inputs.contains(&Some(id)));
    let label = |n: &Node| match n.name.is_empty() {
        true => graph.label(n.outputs[0]),
        false => n.name.clone(),
    };
    reading.map(label).collect()
}

/// For each value, whether a path of nodes leads from it to `end`.
fn leads_to(graph: &Graph, end: ValueId) -> Vec<bool> {
    let mut leads = vec![false; graph.values().len()];
    leads[end.index()] = true;
    for node in graph.nodes().iter().rev() {
        if node.outputs.iter().any(|o| leads[o.index()]) {
            for input in node.inputs.iter().flatten() {
                leads[input.index()] = true;
            }
        }
    }
    leads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Conv, Function, MatMul, Sliding, SumTo, Unary};
    use crate::parameter::Parameter;
    use crate::shape::Shape;
    use crate::tensor::DType;

    fn parameter(graph: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
        graph.parameter(Parameter::trainable(name), DType::F32, shape)
    }

    #[test]
    fn every_parameter_is_trained_or_named_with_the_reason() {
        let mut graph = Graph::new("facts");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
        let [w, rounded, unused] = ["w", "rounded", "unused"].map(|n| parameter(&mut graph, n, &[3, 3]));
        let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
        let y = graph.apply(MatMul::default(), &[y, w]).unwrap();
        let round = graph.apply(Unary { function: Function::Round }, &[rounded]).unwrap();
        let y = graph.apply(MatMul::default(), &[y, round]).unwrap();
        graph.apply(MatMul::default(), &[x, unused]).unwrap();
        let loss = graph.apply(SumTo { shape: vec![] }, &[y]).unwrap();
        let texts: Vec<String> = training_facts(&graph, loss).unwrap().iter().map(Fact::to_string).collect();
        assert_eq!(texts.len(), 3);
        assert_eq!(texts[0], "`w` (9) is trained as one tensor for `matmul.4`, `matmul.5`.");
        assert!(texts[1].contains("`rounded` (9) gets no gradient"), "{texts:?}");
        assert!(texts[2].ends_with("the loss does not depend on it."), "{texts:?}");
    }

    #[test]
    fn a_deep_network_without_normalisation_is_named() {
        let named = |depth: usize| {
            let mut graph = Graph::new("deep");
            let mut x = graph.input("x", DType::F32, Shape::known(&[1, 1, 4, 4]));
            for i in 0..depth {
                let w = parameter(&mut graph, &format!("w{i}"), &[1, 1, 3, 3]);
                x = graph.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &[x, w]).unwrap();
            }
            let loss = graph.apply(SumTo { shape: vec![] }, &[x]).unwrap();
            training_facts(&graph, loss).unwrap().contains(&Fact::NoNormalisation { convolutions: depth })
        };
        assert!(named(20) && named(5) && !named(4));
    }
}
