//! `wattle bench MODEL`: how long an inference takes.

use std::collections::BTreeMap;
use std::path::Path;

use wattle_engine::{Session, Sparse};
use wattle_graph::{Model, Tensor};

use super::samples::{self, Samples};
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models::{self, InputText};
use wattle_jobs::timings;

/// A planned model with its inputs, ready to run.
pub struct Inference {
    /// What its inputs are fed.
    pub feeds: BTreeMap<String, Tensor>,
    /// The session that holds them.
    pub session: Session,
}

impl Inference {
    /// Reads a model and its inputs; inputs without a file are noise.
    pub fn read(
        path: &Path,
        inputs: &[(String, InputText)],
        dense: bool,
        context: &Context,
    ) -> Result<Inference, Failure> {
        let model = models::load(path)?;
        let feeds = models::read_feeds(inputs)?;
        let model = models::bind(&model, inputs, &feeds)?;
        let feeds = models::made_up(&model, &feeds)?;
        Inference::of(model, feeds, dense, context)
    }

    /// Plans a model whose shapes are known; `dense` keeps it from sparse kernels.
    pub fn of(
        model: Model,
        feeds: BTreeMap<String, Tensor>,
        dense: bool,
        context: &Context,
    ) -> Result<Inference, Failure> {
        let mut options = context.plan_options();
        if dense {
            options.sparse = Sparse::Never;
        }
        let plan = timings::compile(&model.graph, &model.parameters, options)?;
        let mut session = Session::new(plan, &model.parameters)?;
        for (name, tensor) in &feeds {
            session.set_input(name, tensor)?;
        }
        Ok(Inference { feeds, session })
    }

    /// Times `runs` inferences, warmed up.
    pub fn time(&mut self, runs: usize) -> Result<Samples, Failure> {
        samples::time(runs, || Ok(self.session.run()?))
    }
}
