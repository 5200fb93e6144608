//! How long a model, a training step of it, or a sparse product takes on this machine.

pub mod against;
mod inference;
mod networks;
pub mod pair;
mod peer;
pub mod samples;
pub mod spmm;
pub mod suite;
mod suite_page;
mod train;

use std::path::PathBuf;

use serde::Serialize;
use wattle_engine::{Session, Sparse};
use wattle_meter::timing::{Turns, repeated};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models::InputText;
use crate::observer::Observer;
use crate::roofline::machine::Machine;
use crate::roofline::nodes::{self, NodeShare};
use crate::training::learning::OptimizerName;
use against::{AgainstOptions, Compared};
use inference::Inference;
use pair::Paired;
pub use peer::PeerName;
pub use train::TrainingStep;

/// Runs where nobody says how many.
const RUNS: u32 = 30;

/// What to time.
#[derive(Clone, Debug, Serialize)]
pub struct BenchOptions {
    /// The ONNX model; of a training step also a network by name.
    pub model: PathBuf,
    /// Shapes or files of inputs; the others are fed noise.
    pub inputs: Vec<(String, InputText)>,
    /// A training step of a classifier instead of an inference.
    pub step: Option<StepOptions>,
    /// Every layer on dense kernels, however sparse its weights are.
    pub dense: bool,
    /// Timed runs after warm-up, 30 by default; in a comparison, runs of a turn, as many as fill 60 ms.
    pub runs: Option<u32>,
    /// Also which share of what limits it each node reaches.
    pub roofline: bool,
    /// In turns with another model.
    pub other: Option<PathBuf>,
    /// Turns of each of two models.
    pub rounds: u32,
    /// In turns with another runtime.
    pub against: Option<AgainstOptions>,
}

/// Which training step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepOptions {
    /// Samples in a batch.
    pub batch: usize,
    /// What updates the weights.
    pub optimizer: OptimizerName,
    /// Share of each layer's weights, 0 to 1, that a random mask keeps in all layers but the last.
    pub density: Option<f64>,
}

/// What was timed.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Benched {
    /// Alone.
    Timed(Box<Timed>),
    /// In turns with another runtime.
    Compared(Box<Compared>),
    /// Two models in turns.
    Paired(Box<Paired>),
}

/// A plain benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// Times of runs.
    #[serde(flatten)]
    pub samples: samples::Summary,
    /// Nodes of a training step or model that only the reference interpreter can run, slowly.
    pub interpreted_nodes: Vec<String>,
    /// What limits each node; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roofline: Option<Roofline>,
}

/// What was timed, beside what the machine could do.
#[derive(Clone, Debug, Serialize)]
pub struct Roofline {
    /// The machine's ceilings.
    pub machine: Machine,
    /// Every node's share of what limits it.
    pub nodes: Vec<NodeShare>,
}

/// Times a model or a training step of it, alone or in turns with another runtime.
pub fn bench(options: &BenchOptions, env: &Env, observer: &mut dyn Observer) -> Result<Benched> {
    match options.step {
        None => infer(options, env, observer),
        Some(step) => train(options, step, env, observer),
    }
}

fn infer(options: &BenchOptions, env: &Env, observer: &mut dyn Observer) -> Result<Benched> {
    if let Some(other) = &options.other {
        return pair::compare(options, other, env, observer).map(|found| Benched::Paired(Box::new(found)));
    }
    let Inference { feeds, mut session } =
        Inference::read(&options.model, &options.inputs, options.dense, env)?;
    let Some(peer) = &options.against else { return timed(&mut session, options, env) };
    let name = options.model.display().to_string();
    let work = against::Contest {
        name,
        session,
        model: options.model.clone(),
        feeds,
        training: None,
        dense: options.dense,
    };
    against::compare(peer, work, options.runs, env, observer).map(|found| Benched::Compared(Box::new(found)))
}

/// Times whole training steps on noise, with labels spread over the classes.
fn train(
    options: &BenchOptions,
    step: StepOptions,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Benched> {
    let made = TrainingStep::new(&options.model, &options.inputs, step.batch, step.optimizer, step.density)?;
    let mut session = made.session(env, if options.dense { Sparse::Never } else { Sparse::Auto })?;
    let Some(peer) = &options.against else { return timed(&mut session, options, env) };
    let (folder, work) = made.compared(&options.model, session, step.optimizer, options.dense)?;
    let compared = against::compare(peer, work, options.runs, env, observer)?;
    folder.close().map_err(|e| JobError::run(format_args!("temporary folder: {e}")))?;
    Ok(Benched::Compared(Box::new(compared)))
}

/// Times a session whose inputs are set.
fn timed(session: &mut Session, options: &BenchOptions, env: &Env) -> Result<Benched> {
    let times = repeated(&Turns::exactly(options.runs.unwrap_or(RUNS) as usize), || session.run())?;
    let roofline = match options.roofline {
        true => {
            let machine = Machine::measure(&env.cpu);
            Some(Roofline { nodes: nodes::shares(session, &machine)?, machine })
        }
        false => None,
    };
    let interpreted_nodes = session.plan().interpreted().into_iter().map(String::from).collect();
    let samples = samples::Summary::new(&times, env);
    Ok(Benched::Timed(Box::new(Timed { samples, interpreted_nodes, roofline })))
}
