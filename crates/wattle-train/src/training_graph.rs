//! A training step as a graph: forward in training mode, loss, gradients, updates, all ordinary nodes.

use wattle_graph::ops::{BatchNormalization, Op};
use wattle_graph::rewrite::{self, Rebuild};
use wattle_graph::{DType, Graph, GraphError, Model, Parameters};

use crate::objective::Objective;
use crate::optimizer::Optimizer;
use crate::step_graph::{StepGraph, StepOptions};

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
    let graph = rewrite::rebatch(&rewrite::in_inference_mode(&model.graph)?, &name, shape)?;
    Ok(Model { graph, ..model.clone() })
}

/// The graph of one training step of all parameters, and what it needs, optimiser state included.
///
/// Inputs: the model's own, the targets, `learning_rate` and `step` (scalars). Outputs: the loss, and what it judges (logits)
/// where there are targets. Assignments: every
/// trainable parameter on a path to the loss, its optimiser state, and running statistics. [`StepGraph`] says more and does
/// more.
pub fn training_graph(
    model: &Model,
    loss: &dyn Objective,
    optimizer: Optimizer,
) -> Result<(Graph, Parameters), GraphError> {
    let step = StepGraph::new(model, loss, &StepOptions::new(optimizer))?;
    let mut face = step.fused()?;
    if let Some(judged) = step.judged() {
        face.graph.output(judged.output);
    }
    Ok((face.graph, face.parameters))
}

/// Batch normalisation by the statistics of the batch, with the running ones assigned.
pub(crate) fn in_training_mode(graph: &Graph) -> Result<Graph, GraphError> {
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
