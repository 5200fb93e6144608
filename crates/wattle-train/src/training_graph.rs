//! A training step as a graph: forward in training mode, loss, gradients, updates, all ordinary nodes.

use wattle_graph::ops::{BatchNormalization, Flatten, Op, Softmax};
use wattle_graph::rewrite::{self, Rebuild};
use wattle_graph::{
    DType, Differentiated, Graph, GraphError, Model, Parameters, Role, Shape, Source, ValueId, differentiate,
};

use crate::loss::Loss;
use crate::optimizer::Optimizer;

/// A network as a classifier or regressor of samples: one float input, one output with one row a sample.
///
/// # Errors
/// When the network has another number of inputs, or samples of `sample` (extents without the batch) do not fit.
pub fn bound_to_samples(model: &Model, batch: usize, sample: &[usize]) -> Result<Model, GraphError> {
    let [input] = model.graph.inputs() else {
        let text = format!("the model has {} inputs; training feeds exactly one", model.graph.inputs().len());
        return Err(GraphError::Invalid(text));
    };
    let value = model.graph.value(*input);
    let (name, elements) = (value.name.clone(), sample.iter().product::<usize>());
    if value.ty.dtype != DType::F32 {
        return Err(GraphError::Invalid(format!("input `{name}` is {}; training feeds f32", value.ty)));
    }
    // A network that takes flat rows is fed images as rows, and the other way round.
    let candidates = [[&[batch], sample].concat(), vec![batch, elements]];
    let fits = |shape: &Vec<usize>| match value.ty.shape.dims() {
        None => true,
        Some(dims) => {
            dims.len() == shape.len()
                && dims.iter().zip(shape).skip(1).all(|(d, n)| d.known().is_none_or(|k| k == *n))
        }
    };
    let Some(shape) = candidates.iter().find(|s| fits(s)) else {
        let text = format!("input `{name}` is {}; the samples are {sample:?} ({elements} numbers)", value.ty);
        return Err(GraphError::Invalid(text));
    };
    // The extent of the batch in the file is only what it was exported with.
    let graph = rewrite::rebatch(&model.graph, &name, shape)?;
    Ok(Model { graph, ..model.clone() })
}

/// The value that holds a row of logits (or predictions) for each sample: the first output, without the softmax
/// that a classifier may end in, as `[batch, width]`.
pub fn logits(graph: &mut Graph) -> Result<ValueId, GraphError> {
    let mut id =
        *graph.outputs().first().ok_or_else(|| GraphError::Invalid("the model has no output".into()))?;
    while let Source::Node { node, .. } = graph.value(id).source {
        let node = graph.node(node);
        id = match (&node.op, node.inputs.first()) {
            (Op::Softmax(Softmax { log: false, .. }) | Op::Identity(_), Some(Some(x))) => *x,
            _ => break,
        };
    }
    let extents = graph.extents(id)?;
    if !graph.value(id).ty.dtype.is_float() || extents.len() < 2 {
        let text =
            format!("output `{}` is {}; expected a row for each sample", graph.label(id), graph.value(id).ty);
        return Err(GraphError::Invalid(text));
    }
    if extents.len() > 2 { graph.apply(Flatten { axis: 1 }, &[id]) } else { Ok(id) }
}

/// The graph of one training step, and the parameters it needs, optimiser state included.
///
/// Inputs: the model's own, `targets`, `learning_rate` and `step` (scalars). Outputs: loss and logits.
/// Assignments: every trainable parameter on a path to the loss, its optimiser state, and running statistics.
pub fn training_graph(
    model: &Model,
    loss: Loss,
    optimizer: Optimizer,
) -> Result<(Graph, Parameters), GraphError> {
    let mut graph = in_training_mode(&model.graph)?;
    let mut parameters = model.parameters.clone();
    let output = logits(&mut graph)?;
    let loss = loss.attach(&mut graph, output)?;
    let trainable: Vec<ValueId> = graph
        .parameters()
        .filter(|&p| graph.parameter_of(p).is_some_and(|p| p.role == Role::Trainable))
        .collect();
    let Differentiated { graph: mut step, gradients } = differentiate(&graph, loss, &trainable)?;
    let rate = step.input("learning_rate", DType::F32, Shape::known(&[]));
    let count = step.input("step", DType::F32, Shape::known(&[]));
    let found =
        trainable.iter().zip(gradients).filter_map(|(&parameter, gradient)| Some((parameter, gradient?)));
    let updated = step.join_gradients(&found.collect::<Vec<_>>())?;
    for &(parameter, gradient) in &updated {
        optimizer.attach(&mut step, &mut parameters, parameter, gradient, [rate, count])?;
    }
    if updated.is_empty() {
        let text = format!("none of the model's {} trainable parameters leads to the loss", trainable.len());
        return Err(GraphError::Invalid(text));
    }
    step.set_outputs(vec![loss, output]);
    Ok((step, parameters))
}

/// Batch normalisation by the statistics of the batch, with the running ones assigned.
fn in_training_mode(graph: &Graph) -> Result<Graph, GraphError> {
    let mut rebuild = Rebuild::new(graph);
    for node in graph.nodes() {
        let Op::BatchNormalization(norm) = &node.op else {
            rebuild.copy(node)?;
            continue;
        };
        let operands = rebuild.operands(node);
        let op = BatchNormalization { training: true, ..norm.clone() };
        let results = rebuild.to.apply_all(op, &operands, &node.name)?;
        for (statistic, next) in operands[3..5].iter().flatten().zip(&results[1..3]) {
            if rebuild.to.parameter_of(*statistic).is_some() {
                rebuild.to.assign(*statistic, *next)?;
            }
        }
        rebuild.take_name(node.outputs[0], results[0]);
    }
    rebuild.finish()
}
