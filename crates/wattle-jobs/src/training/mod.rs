//! What training, evaluating, pruning and searching share: data, a model, how it learns, and who follows.

pub mod curves;
pub mod data;
pub mod follow;
pub mod learning;

use std::path::Path;
use std::sync::Arc;

use wattle_data::Table;
use wattle_graph::{Model, Parameters, Role, Source, ValueId};
use wattle_tickets::{Fractions, prunable};
use wattle_train::binding;
use wattle_train::experiment::Experiment;
use wattle_train::initial_weights::initialise;
use wattle_train::network::{self, Init};
use wattle_train::objective::Loss;
use wattle_train::options::TrainOptions;
use wattle_train::training_data::TrainingData;
use wattle_train::weights::read_weights;

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models;
use data::{DataOptions, Divided, Prepared, prepare};
use learning::LearningOptions;

/// The model to train: a file with its weights, or a network by name, freshly initialised.
///
/// # Errors
/// If the file cannot be read, or there is neither such a file nor such a network.
pub fn model(name: &str, data: &TrainingData, init: Init, seed: u64) -> Result<Model> {
    if is_file(name) {
        return models::load(Path::new(name));
    }
    let outputs = data.dataset.targets.class_count().unwrap_or(1);
    Ok(network::build(name, &data.dataset.shape, outputs, init, seed)?)
}

/// A model and the data it learns from and is judged by: the file says which columns it takes; a network by name is made
/// for the data.
///
/// # Errors
/// If one cannot be read, or they do not fit.
pub fn material(name: &str, options: &DataOptions, learning: &LearningOptions) -> Result<(Model, Divided)> {
    let (loss, ignore_index) = (learning.loss.as_ref(), learning.ignore_index);
    if is_file(name) {
        let model = models::load(Path::new(name))?;
        let divided = Divided::for_model(options, &model, loss, ignore_index)?;
        if matches!(loss, None | Some(Loss::CrossEntropy(_))) {
            check_fit(&model, divided.table())?;
        }
        return Ok((model, divided));
    }
    let prepared = prepare(options, loss)?;
    let model = model(name, &prepared.training, Init::KaimingNormal, learning.seed)?;
    Ok((model, prepared.into()))
}

/// Refuses a model that does not fit the data before anything is computed: samples, and an output for each class.
///
/// # Errors
/// If a column does not fit its input, or a class has no output.
pub fn check_fit(model: &Model, table: &dyn Table) -> Result<()> {
    let refuse = |found: &dyn std::fmt::Display| JobError::at("the model", found);
    let bound = binding::bind(model, table.columns(), 1).map_err(|e| refuse(&e))?.model.graph;
    let Some(&output) = bound.outputs().first() else { return Ok(()) };
    let (Ok(extents), Some(classes)) = (bound.extents(output), table.classes()) else { return Ok(()) };
    let classes = classes.names.len();
    match extents[..] {
        [_, width] if width < classes => Err(refuse(&format_args!(
            "it has {width} outputs; {} has {classes} classes; expected one output for each class",
            table.name()
        ))),
        _ => Ok(()),
    }
}

/// Whether this names a file, and no network.
fn is_file(name: &str) -> bool {
    let is_name = network::NETWORKS.iter().any(|(n, _)| *n == name);
    !is_name && (name.ends_with(".onnx") || Path::new(name).exists())
}

/// Puts weights of a file into a model, by name; gives what did not match, in sentences.
///
/// # Errors
/// If the file cannot be read, or nothing in it is the model's.
pub fn start_from(model: &mut Model, path: &Path) -> Result<Vec<String>> {
    let matched = initialise(model, &read_weights(path)?)?;
    let place = path.display();
    Ok(match matched.is_complete() {
        true => vec![],
        false => vec![format!("weights of {place}: {matched}")],
    })
}

/// The trainable parameters, each tensor once, with their values in the graph.
fn trainable(model: &Model) -> Vec<(ValueId, &str)> {
    let parameter = |id| match &model.graph.value(id).source {
        Source::Parameter(p) if p.role == Role::Trainable => Some((id, p.tensor.as_str())),
        _ => None,
    };
    let mut found: Vec<(ValueId, &str)> = model.graph.value_ids().filter_map(parameter).collect();
    found.sort_by_key(|(_, name)| *name);
    found.dedup_by_key(|(_, name)| *name);
    found
}

/// Tensors of zeros and ones that learn like any other, in a sentence: who put a mask into the graph expects its zeros to
/// stay.
pub fn masks_that_learn(model: &Model, options: &TrainOptions) -> Option<String> {
    let is_mask = |name: &str| {
        let values = model.parameters.get(name).and_then(|t| t.as_f32()).unwrap_or_default();
        let [zeros, ones] = [0.0, 1.0].map(|x| values.iter().filter(|v| **v == x).count());
        zeros > 0 && ones > 0 && zeros + ones == values.len()
    };
    let (ids, names): (Vec<ValueId>, Vec<&str>) = trainable(model).into_iter().unzip();
    let treatments = options.groups.treatments(&model.graph, &ids).ok()?;
    let learns = names.into_iter().zip(treatments).filter(|(name, how)| how.is_trained && is_mask(name));
    let names: Vec<&str> = learns.map(|(name, _)| name).collect();
    let first = names.first()?;
    Some(format!(
        "only zeros and ones, and yet learnt like any other parameter: {}; a mask stays as it is when it is frozen: \
         option `freeze={first}`",
        names.join(", ")
    ))
}

/// Weights that pruning does not reach, in a sentence.
pub fn out_of_reach(model: &Model) -> Option<String> {
    let layers = prunable(&model.graph, Fractions { conv: 1.0, dense: 1.0, output: 1.0 });
    let is_weight = |name: &str| model.parameters.get(name).is_some_and(|t| t.shape().len() > 1);
    let reached = |name: &str| layers.iter().any(|layer| layer.tensor == name);
    let missed = trainable(model).into_iter().map(|(_, name)| name);
    let missed: Vec<&str> = missed.filter(|name| is_weight(name) && !reached(name)).collect();
    (!missed.is_empty()).then(|| {
        format!(
            "not pruned, since only weights that go straight into a convolution or a matrix product are: {}",
            missed.join(", ")
        )
    })
}

/// The experiment of a model on prepared data, judged on the validation part where there is one.
///
/// # Errors
/// If the batches do not fit the data.
pub fn experiment(
    model: &Model,
    prepared: &Prepared,
    options: &TrainOptions,
    env: &Env,
) -> Result<Experiment> {
    let data = &prepared.training;
    let mut experiment =
        Experiment::new(model.clone(), data.source(options)?, options.clone(), env.plan_options());
    if !prepared.splits.validation().is_empty() {
        experiment.validation = Some(data.part(prepared.splits.validation())?);
    }
    Ok(experiment)
}

/// What the validation part is, for keys: it chooses.
pub fn fingerprint_of(validation: &Option<Arc<dyn wattle_data::Source>>) -> Option<String> {
    validation.as_ref().map(|source| source.fingerprint())
}

/// The parameters that the model itself has, without optimiser state.
pub fn own_parameters(model: &Model, trained: &Parameters) -> Parameters {
    let mut own = Parameters::new();
    for id in model.graph.value_ids() {
        let Source::Parameter(parameter) = &model.graph.value(id).source else { continue };
        if let Some(tensor) = trained.get(&parameter.tensor) {
            own.insert(parameter.tensor.clone(), tensor.clone());
            if let Some(mask) = trained.mask(&parameter.tensor) {
                own.set_mask(&parameter.tensor, mask.clone());
            }
        }
    }
    own
}
