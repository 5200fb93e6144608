//! An inference, planned and fed, ready to be timed.

use std::collections::BTreeMap;
use std::path::Path;

use wattle_engine::{Session, Sparse, Store};
use wattle_graph::{Model, Tensor};

use crate::env::Env;
use crate::error::Result;
use crate::models::{self, InputText};
use crate::timings;

/// A planned model with its inputs, ready to run.
pub struct Inference {
    /// What its inputs are fed.
    pub feeds: BTreeMap<String, Tensor>,
    /// The session that holds them.
    pub session: Session,
}

impl Inference {
    /// Reads a model and its inputs; inputs without a file are noise.
    pub fn read(path: &Path, inputs: &[(String, InputText)], dense: bool, env: &Env) -> Result<Inference> {
        let model = models::load(path)?;
        let feeds = models::read_feeds(inputs)?;
        let model = models::bind(&model, inputs, &feeds)?;
        let feeds = models::made_up(&model, &feeds)?;
        Inference::of(model, feeds, dense, env)
    }

    /// Plans a model whose shapes are known; `dense` keeps it from sparse kernels.
    pub fn of(model: Model, feeds: BTreeMap<String, Tensor>, dense: bool, env: &Env) -> Result<Inference> {
        let mut options = env.plan_options();
        if dense {
            options.sparse = Sparse::Never;
        }
        let store = Store::new(&model.parameters);
        let plan = timings::compile(&model.graph, &store, options)?;
        let mut session = Session::new(plan, &store)?;
        for (name, tensor) in &feeds {
            session.set_input(name, tensor)?;
        }
        Ok(Inference { feeds, session })
    }
}
