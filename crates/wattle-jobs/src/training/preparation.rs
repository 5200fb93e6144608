//! What a command that trains has before it trains.

use std::path::{Path, PathBuf};

use wattle_graph::{DType, Model};
use wattle_train::experiment::Experiment;
use wattle_train::initial_weights::initialise;
use wattle_train::network::Init;
use wattle_train::options::TrainOptions;
use wattle_train::weights::read_weights;

use super::data::DataOptions;
use super::epochs::{fit_batch, left_out};
use super::facts::facts;
use super::integers::check_integers;
use super::learning::{LearningOptions, Lesson};
use super::material::Material;
use crate::error::{JobError, Result};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// An `.onnx` file, or a network by name.
    pub model: &'a str,
    /// Which data.
    pub data: &'a DataOptions,
    /// How it learns.
    pub learning: &'a LearningOptions,
    /// Weights to start from, by name.
    pub init_from: Option<&'a PathBuf>,
    /// How the weights of a network by name are drawn.
    pub init: Init,
}

/// A model with the weights that it starts from, its samples, and how it learns.
pub struct Prepared {
    /// Model and samples.
    pub material: Material,
    /// How it learns; without a number that is asked for, a batch has no more samples than there are.
    pub options: TrainOptions,
    /// What a user should know.
    pub notes: Vec<String>,
    /// Samples of the training part.
    pub samples: usize,
}

impl Prepared {
    /// Reads what is asked for; `resolve` decides on the options that are not.
    ///
    /// # Errors
    /// If something cannot be read, does not fit the rest, or is out of its range.
    pub fn new(asked: Asked<'_>, resolve: impl FnOnce(&Lesson) -> Result<TrainOptions>) -> Result<Prepared> {
        let mut material = Material::new(asked.model, asked.data, asked.learning, asked.init)?;
        check_floats(&material.model)?;
        let mut options = resolve(&material.lesson())?;
        check_integers(&material.model, &*material.data.table, &options.loss)?;
        let mut notes = match asked.init_from {
            Some(path) => start_from(&mut material.model, path).map_err(|e| e.of("init_from"))?,
            None => vec![],
        };
        notes.extend(material.remarks.iter().cloned());
        let samples = material.data.splits.train().len();
        notes.extend(fit_batch(&mut options, asked.learning, samples));
        Ok(Prepared { material, options, notes, samples })
    }

    /// What of the model is trained and what is not, and which samples are left out.
    ///
    /// # Errors
    /// If the model cannot be trained.
    pub fn told(&self, experiment: &Experiment) -> Result<Vec<String>> {
        let mut told = facts(experiment)?;
        told.extend(left_out(experiment, self.samples));
        Ok(told)
    }
}

/// Refuses a model whose parameters are wider than what training computes in.
///
/// # Errors
/// Then, with the name of one.
fn check_floats(model: &Model) -> Result<()> {
    let graph = &model.graph;
    let wide = graph.parameters().find(|&id| graph.value(id).ty.dtype == DType::F64);
    let Some(name) = wide.and_then(|id| graph.parameter_of(id)).map(|parameter| &parameter.tensor) else {
        return Ok(());
    };
    let found =
        format!("`{name}` is of f64, and training computes in f32; expected f32: export it as float32");
    Err(JobError::at("the model", found))
}

/// Puts weights of a file into a model, by name; gives what did not match, in sentences.
///
/// # Errors
/// If the file cannot be read, or nothing in it is the model's.
fn start_from(model: &mut Model, path: &Path) -> Result<Vec<String>> {
    let matched = initialise(model, &read_weights(path)?)?;
    let place = path.display();
    Ok(match matched.is_complete() {
        true => vec![],
        false => vec![format!("weights of {place}: {matched}")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_graph::{Graph, Parameter, Parameters};

    #[test]
    fn a_model_of_doubles_is_refused_by_name_with_what_to_do() {
        let model = |dtype| {
            let mut graph = Graph::new("wide");
            graph.parameter(Parameter::trainable("w"), dtype, &[2]);
            Model::new(graph, Parameters::new())
        };
        assert!(check_floats(&model(DType::F32)).is_ok());
        let refused = check_floats(&model(DType::F64)).unwrap_err().to_string();
        assert!(refused.contains("`w`") && refused.contains("float32"), "{refused}");
    }
}
