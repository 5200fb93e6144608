//! What whoever trains a model should know of it, in sentences: what is not trained, what is trained as one, what may go
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use wattle_graph::{Fact, GraphError, Model, Role, Source, training_facts};
use wattle_tickets::{Fractions, prunable};
use wattle_train::binding;
use wattle_train::experiment::Experiment;
use wattle_train::objective::Objective;

use crate::error::{JobError, Result};

/// Names in a sentence, at most.
const NAMED: usize = 5;

/// The facts of an experiment's model. Those of the training itself (what is frozen, what gets no gradient, what the
/// interpreter runs) are notes of the trainer.
///
/// # Errors
/// If the model does not fit the data or the objective.
pub fn facts(experiment: &Experiment) -> Result<Vec<String>> {
    let of_training = learnt(experiment).map_err(|error| JobError::at("the model", error))?;
    let mut sentences = vec![];
    // Tensors that are constant for one reason are named together.
    let mut constant: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for fact in experiment.model.facts.iter().chain(&of_training) {
        match fact {
            Fact::Constant { tensor, why, .. } => constant.entry(why).or_default().push(tensor),
            Fact::Trained { shared_by, .. } if shared_by.len() < 2 => {}
            // The trainer's notes name these.
            Fact::NoGradient { .. } => {}
            fact => sentences.push(sentence(&fact.to_string())),
        }
    }
    for (why, tensors) in constant {
        let named = tensors.iter().take(NAMED).map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ");
        let more = tensors.len().saturating_sub(NAMED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let verb = if tensors.len() == 1 { "is" } else { "are" };
        sentences.push(format!("{named}{rest} {verb} not trained: {why}"));
    }
    Ok(sentences)
}

/// Weights that pruning does not reach, in a sentence.
pub fn out_of_reach(model: &Model) -> Option<String> {
    let layers = prunable(&model.graph, Fractions { conv: 1.0, dense: 1.0, output: 1.0 });
    let parameter = |id| match &model.graph.value(id).source {
        Source::Parameter(p) if p.role == Role::Trainable => Some(p.tensor.as_str()),
        _ => None,
    };
    let is_weight = |name: &&str| model.parameters.get(name).is_some_and(|t| t.shape().len() > 1);
    let is_missed = |name: &&str| !layers.iter().any(|layer| layer.tensor == *name);
    let names = model.graph.value_ids().filter_map(parameter);
    let missed: BTreeSet<&str> = names.filter(is_weight).filter(is_missed).collect();
    let named: Vec<&str> = missed.iter().copied().take(NAMED).collect();
    let more = missed.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!missed.is_empty()).then(|| {
        format!(
            "not pruned, since only weights that go straight into a convolution or a matrix product are: {}{rest}",
            named.join(", ")
        )
    })
}

/// The facts that a loss decides.
fn learnt(experiment: &Experiment) -> std::result::Result<Vec<Fact>, GraphError> {
    let mut graph = binding::bind(&experiment.model, experiment.data.columns(), 1)?.model.graph;
    let outputs = graph.outputs().to_vec();
    let loss = experiment.options.loss.attach(&mut graph, &outputs)?.loss;
    training_facts(&graph, loss)
}

/// Notes do not end in a full stop.
fn sentence(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_owned()
}
