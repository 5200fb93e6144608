//! A training step (forward, backward, update), ready to be timed.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;
use wattle_data::SampleShape;
use wattle_engine::{Plan, PlanOptions, Session, Sparse, Store};
use wattle_graph::onnx::encode_model;
use wattle_graph::{Example, Graph, Model, Parameters, Tensor};
use wattle_tickets::{Fractions, prunable, random_masks};
use wattle_train::loss::Loss;
use wattle_train::network::{self, Init};
use wattle_train::training_graph::{bound_to_samples, training_graph};

use super::against::Contest;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::learning::OptimizerName;
use crate::models::{self, InputText};

/// A training step (forward, backward, update) of a classifier.
pub struct TrainingStep {
    /// The step as a graph.
    pub graph: Graph,
    /// Its parameters, optimiser state included.
    pub parameters: Parameters,
    /// The network that is trained, bound to the batch.
    network: Model,
    batch: usize,
    /// Extents of one sample.
    sample: Vec<usize>,
}

/// Learning rate of the steps timed: small, for noise teaches nothing.
const RATE: f32 = 1e-3;

impl TrainingStep {
    /// The step of an ONNX file, or of a network by name on samples of the shape given (28 x 28 by default). With a
    /// density, random masks keep that share of each layer's weights but the last's.
    pub fn new(
        path: &Path,
        inputs: &[(String, InputText)],
        batch: usize,
        optimizer: OptimizerName,
        density: Option<f64>,
    ) -> Result<TrainingStep> {
        let name = path.to_string_lossy().into_owned();
        let sample = inputs.iter().find_map(|(_, text)| match text {
            InputText::Shape(extents) => Some(extents.clone()),
            InputText::File(_) => None,
        });
        let mut model = if path.exists() || name.ends_with(".onnx") {
            models::load(path)?
        } else {
            let extents = sample.clone().unwrap_or_else(|| vec![1, 1, 28, 28]);
            let shape = match extents[..] {
                [_, channels, height, width] => SampleShape::Image { channels, height, width },
                _ => SampleShape::Features(extents.iter().skip(1).product()),
            };
            network::build(&name, &shape, 10, Init::KaimingNormal, 1)?
        };
        let sample: Vec<usize> = match (&sample, model.graph.inputs()) {
            (Some(extents), _) => extents[1..].to_vec(),
            (None, [input]) => {
                let shape = &model.graph.value(*input).ty.shape;
                let known: Option<Vec<usize>> =
                    shape.dims().and_then(|d| d[1..].iter().map(|d| d.known()).collect());
                known.ok_or_else(|| {
                    let label = model.graph.label(*input);
                    JobError::option(
                        "input",
                        format!("`{label}` has the shape {shape}; expected {label}=1x3x32x32"),
                    )
                })?
            }
            _ => {
                return Err(JobError::input("the model has several inputs; training feeds exactly one"));
            }
        };
        if let Some(density) = density {
            let layers = prunable(&model.graph, Fractions { conv: 1.0, dense: 1.0, output: 0.0 });
            for (tensor, mask) in random_masks(&model.parameters, &layers, density, 1) {
                model.parameters.set_mask(&tensor, mask);
            }
        }
        let bound = bound_to_samples(&model, batch, &sample)?;
        let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
        let (graph, parameters) = training_graph(&bound, loss, optimizer.with_decay(0.0))?;
        Ok(TrainingStep { graph, parameters, network: bound, batch, sample })
    }

    /// A session of it, fed noise and labels spread over the classes.
    pub fn session(&self, env: &Env, sparse: Sparse) -> Result<Session> {
        let classes = self.graph.extents(self.graph.outputs()[1])?[1];
        let options = PlanOptions { sparse, ..env.plan_options() };
        let store = Store::new(&self.parameters);
        let plan = Plan::compile(&self.graph, &store, &options)?;
        let mut session = Session::new(plan, &store)?;
        let noise = self.noise();
        session.input_mut::<f32>(0)?.copy_from_slice(noise.as_f32().unwrap_or(&[]));
        let labels = session.input_mut::<i64>(1)?;
        labels.iter_mut().enumerate().for_each(|(i, label)| *label = (i % classes) as i64);
        session.input_mut::<f32>(2)?[0] = RATE;
        session.input_mut::<f32>(3)?[0] = 1.0;
        Ok(session)
    }

    fn noise(&self) -> Tensor {
        Example::noise(&[&[self.batch], &self.sample[..]].concat(), 1)
    }

    /// What a peer needs to run the same step: the network as a file in a temporary folder, samples and labels.
    pub fn compared(
        &self,
        name: &Path,
        session: Session,
        optimizer: OptimizerName,
        dense: bool,
    ) -> Result<(TempDir, Contest)> {
        let io = |e: std::io::Error| JobError::run(format!("temporary folder for the network: {e}"));
        let folder = tempfile::Builder::new().prefix("wattle-bench-").tempdir().map_err(io)?;
        let model = folder.path().join("network.onnx");
        std::fs::write(&model, encode_model(&self.network)?).map_err(io)?;
        let input = self.network.graph.inputs()[0];
        let (label, extents) = (self.network.graph.label(input), self.network.graph.extents(input)?);
        let samples = Tensor::f32(extents, self.noise().as_f32().unwrap_or(&[]).to_vec());
        let classes = self.graph.extents(self.graph.outputs()[1])?[1];
        let labels: Vec<i64> = (0..self.batch).map(|i| (i % classes) as i64).collect();
        let optimizer = optimizer.as_str();
        let work = Contest {
            name: format!("{}, training step, {optimizer}, batch {}", name.display(), self.batch),
            session,
            model,
            feeds: BTreeMap::from([(label, samples)]),
            training: Some((optimizer.into(), f64::from(RATE), Tensor::ints(&labels))),
            dense,
        };
        Ok((folder, work))
    }
}
