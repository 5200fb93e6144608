//! Estimates from a graph: how long its runs take, here or on a named device.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wattle_engine::{Plan, Session, Sparse, Store};
use wattle_graph::{Graph, Model, Parameters, Tensor, costs};
use wattle_meter::device::Device;
use wattle_meter::timing::{Turns, repeated};
use wattle_meter::{Derivation, Quantity, QuantityError, Source, Unit, estimate};

use super::{EstimateOptions, REQUESTS, Timed};
use crate::bench::TrainingStep;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models::{self, InputText};
use crate::observer::Observer;
use crate::roofline::{self, Prediction};
use crate::training::learning::OptimizerName;

/// Timed runs of a check.
const CHECKS: usize = 11;

/// A graph, and how often it runs.
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// The ONNX model; to be trained, also a network by name, such as resnet-20.
    pub model: PathBuf,
    /// Shapes or files of inputs.
    pub inputs: Vec<(String, InputText)>,
    /// The model is trained as a classifier; without it, it answers [`REQUESTS`] requests.
    pub training: Option<TrainingRuns>,
    /// Whether to run it a few times too and say how far off the estimate is.
    pub check: bool,
}

/// How long a training is.
#[derive(Clone, Debug)]
pub struct TrainingRuns {
    /// Samples of the training data.
    pub samples: u64,
    /// Passes over them.
    pub epochs: u64,
    /// Samples in a batch.
    pub batch: usize,
    /// Optimiser of the training step.
    pub optimizer: OptimizerName,
}

impl TrainingRuns {
    /// Steps in all.
    fn steps(&self) -> u64 {
        self.samples.div_ceil(self.batch.max(1) as u64).saturating_mul(self.epochs)
    }
}

/// Hours that the runs of the graph take, if one was given, noted step by step; on a device, or on this machine.
pub(super) fn timed(
    options: &EstimateOptions,
    device: Option<&Device>,
    derivation: &mut Derivation,
    notes: &mut Vec<String>,
    env: &Env,
    _observer: &mut dyn Observer,
) -> Result<Option<Timed>> {
    let failure = |e: QuantityError| JobError::run(e);
    let Some(asked) = &options.graph else { return Ok(None) };
    let runner = Runner::load(asked)?;
    let (graph, parameters) = runner.graph();
    let runs = asked.training.as_ref().map_or(REQUESTS, TrainingRuns::steps);
    let macs: u64 = costs(graph, parameters)?.iter().map(|c| c.work.macs).sum();
    let counted = Source::modelled("2 x multiply-accumulates of the graph x runs");
    let flops = Quantity::exact(2.0 * macs as f64 * runs as f64, Unit::Flop, counted).map_err(failure)?;
    derivation.given("flops", &flops);
    let mut prediction = match device {
        Some(device) => {
            let utilisation = options.utilisation.clone().unwrap_or_else(estimate::usual_utilisation);
            derivation.given("utilisation", &utilisation);
            roofline::on_device(graph, parameters, device, &utilisation)?
        }
        None => {
            let plan = Plan::compile(graph, &Store::new(parameters), &env.plan_options())?;
            roofline::on_this_machine(&plan, asked.training.is_some(), env)?
        }
    };
    if !prediction.unknown.is_empty() {
        let kernels = prediction.unknown.join(", ");
        notes.push(format!("kernels without a calibration, taken as average ones: {kernels}"));
    }
    if asked.check {
        notes.push(check(&runner, &mut prediction, env)?);
    }
    derivation.given("run", &prediction.seconds);
    let runs = Quantity::count(runs, Unit::One, Source::assumed("stated as samples, epochs and batch"));
    derivation.given("runs", &runs);
    let duration =
        derivation.step("duration", "run x runs", prediction.seconds.times(&runs)).map_err(failure)?;
    let time = derivation.step("run_time", "duration", duration.to(Unit::Hour)).map_err(failure)?;
    let mut kernels = if options.explain { prediction.kernels } else { vec![] };
    kernels.sort_by(|a, b| b.predicted.total_cmp(&a.predicted));
    Ok(Some(Timed {
        time,
        threads: env.cpu.threads.count(),
        answers_requests: asked.training.is_none(),
        kernels,
    }))
}

/// What is run.
enum Runner {
    Training(Box<TrainingStep>),
    Inference(Box<Model>, BTreeMap<String, Tensor>),
}

impl Runner {
    fn load(asked: &GraphOptions) -> Result<Runner> {
        if let Some(training) = &asked.training {
            let step =
                TrainingStep::new(&asked.model, &asked.inputs, training.batch, training.optimizer, None)?;
            return Ok(Runner::Training(Box::new(step)));
        }
        let model = models::load(&asked.model)?;
        let feeds = models::read_feeds(&asked.inputs)?;
        let model = models::bind(&model, &asked.inputs, &feeds)?;
        let feeds = models::made_up(&model, &feeds)?;
        Ok(Runner::Inference(Box::new(model), feeds))
    }

    fn graph(&self) -> (&Graph, &Parameters) {
        match self {
            Runner::Training(step) => (&step.graph, &step.parameters),
            Runner::Inference(model, _) => (&model.graph, &model.parameters),
        }
    }

    fn session(&self, env: &Env) -> Result<Session> {
        match self {
            Runner::Training(step) => step.session(env, Sparse::Auto),
            Runner::Inference(model, feeds) => {
                let store = Store::new(&model.parameters);
                let plan = Plan::compile(&model.graph, &store, &env.plan_options())?;
                let mut session = Session::new(plan, &store)?;
                for (name, tensor) in feeds {
                    session.set_input(name, tensor)?;
                }
                Ok(session)
            }
        }
    }
}

/// Runs the graph after it was predicted, and says how far off the prediction is.
fn check(runner: &Runner, prediction: &mut Prediction, env: &Env) -> Result<String> {
    let predicted = &prediction.seconds;
    let mut session = runner.session(env)?;
    let times = repeated(&Turns::exactly(CHECKS), || session.run())?;
    let measured = times.median();
    roofline::measure(&mut prediction.kernels, &mut session)?;
    let drift = times.drift().map_or(String::new(), |drift| format!("; {drift}"));
    Ok(format!(
        "checked: predicted {:.3} ms [{:.3}, {:.3}], measured {:.3} ms (median of {CHECKS}), {:+.0} %, {} the \
         interval{drift}",
        predicted.value() * 1e3,
        predicted.low() * 1e3,
        predicted.high() * 1e3,
        measured * 1e3,
        100.0 * (predicted.value() / measured - 1.0),
        if predicted.contains(measured) { "inside" } else { "outside" }
    ))
}
