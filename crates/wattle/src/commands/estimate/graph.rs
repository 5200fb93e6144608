//! Estimates from a graph: how long its runs take, here or on a named device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use wattle_engine::{Plan, Session, Sparse, Store};
use wattle_graph::{Graph, Model, Parameters, Tensor, costs};
use wattle_meter::device::Device;
use wattle_meter::{Derivation, Quantity, Source, Unit, estimate};
use wattle_report::{Align, Table, number};

use super::{GraphTime, Kernels};
use crate::accounting::given;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;
use wattle_jobs::bench::TrainingStep;
use wattle_jobs::learning::OptimizerName;
use wattle_jobs::models::{self, InputText};
use wattle_jobs::roofline::{self, KernelTime, Prediction};

/// Requests of an inference estimate.
const REQUESTS: u64 = 1000;
/// Timed runs of `--check`.
const CHECKS: usize = 9;

/// A graph, and how often it runs.
#[derive(clap::Args, Debug)]
pub struct GraphArgs {
    /// The ONNX model; with --train also a network by name, such as resnet-20.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flops", "params", "device_hours"])]
    model: Option<PathBuf>,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input, requires = "model")]
    inputs: Vec<(String, InputText)>,
    /// Train the model as a classifier instead of answering 1000 requests.
    #[arg(long, requires_all = ["model", "samples"])]
    train: bool,
    /// Samples of the training data.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// Passes over them.
    #[arg(long, default_value_t = 1, value_name = "E", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Samples in a batch.
    #[arg(long, default_value_t = 32, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Optimiser of the training step.
    #[arg(long, default_value = "sgd", value_parser = named(&OptimizerName::ALL))]
    optimizer: OptimizerName,
    /// Run it a few times too and say how far off the estimate is.
    #[arg(long, requires = "model", conflicts_with = "device")]
    check: bool,
}

impl GraphArgs {
    /// Whether there is a graph, so that networks are timed.
    pub fn is_given(&self) -> bool {
        self.model.is_some()
    }
}

/// Hours that the runs of the graph take, if one was given, noted step by step; on a device, or on this machine.
pub fn timed(
    all: &super::Args,
    device: Option<&Device>,
    derivation: &mut Derivation,
    notes: &mut Vec<String>,
    context: &Context,
) -> Result<Option<GraphTime>, Failure> {
    let failure = |e: wattle_meter::QuantityError| Failure::Run(e.to_string());
    let args = &all.graph;
    let Some(model) = &args.model else { return Ok(None) };
    let utilisation = given("--utilisation", &all.hardware.utilisation, Unit::One, (1e-6, 1.0))?;
    let work = Work::load(model, args)?;
    let (graph, parameters) = work.graph();
    let runs = match args.samples {
        Some(samples) if args.train => samples.div_ceil(u64::from(args.batch)).saturating_mul(args.epochs),
        _ => REQUESTS,
    };
    let macs: u64 = costs(graph, parameters)?.iter().map(|c| c.work.macs).sum();
    let counted = Source::modelled("2 x multiply-accumulates of the graph x runs");
    let flops = Quantity::exact(2.0 * macs as f64 * runs as f64, Unit::Flop, counted).map_err(failure)?;
    derivation.given("flops", &flops);
    let prediction = match device {
        Some(device) => {
            let utilisation = utilisation.unwrap_or_else(estimate::usual_utilisation);
            derivation.given("utilisation", &utilisation);
            roofline::on_device(graph, parameters, device, &utilisation)?
        }
        None => {
            let store = Store::new(parameters);
            let plan = Plan::compile(graph, &store, &context.plan_options())?;
            roofline::on_this_machine(&plan, args.train, context)?
        }
    };
    if !prediction.unknown.is_empty() {
        let kernels = prediction.unknown.join(", ");
        notes.push(format!("kernels without a calibration, taken as average ones: {kernels}"));
    }
    let mut prediction = prediction;
    if args.check {
        notes.push(check(&work, &mut prediction, context)?);
    }
    derivation.given("run", &prediction.seconds);
    let runs = Quantity::count(runs, Unit::One, Source::assumed("stated by --samples, --epochs, --batch"));
    derivation.given("runs", &runs);
    let duration =
        derivation.step("duration", "run x runs", prediction.seconds.times(&runs)).map_err(failure)?;
    let time = derivation.step("run_time", "duration", duration.to(Unit::Hour)).map_err(failure)?;
    let kernels = Kernels::new(&prediction.kernels, all.explain)?;
    Ok(Some(GraphTime { time, threads: context.cpu.threads.count(), answers_requests: !args.train, kernels }))
}

impl Kernels {
    /// What `--explain` adds: where the time goes, most of it first.
    fn new(kernels: &[KernelTime], wanted: bool) -> Result<Kernels, Failure> {
        if !wanted || kernels.is_empty() {
            return Ok(Kernels::default());
        }
        let mut table = Table::new([
            ("kernel", Align::Left),
            ("steps", Align::Right),
            ("predicted", Align::Right),
            ("measured", Align::Right),
        ]);
        let mut sorted: Vec<&KernelTime> = kernels.iter().collect();
        sorted.sort_by(|a, b| b.predicted.total_cmp(&a.predicted));
        for k in &sorted {
            let measured = k.measured.map_or(String::new(), number::seconds);
            table.row([k.kernel.clone(), k.steps.to_string(), number::seconds(k.predicted), measured]);
        }
        Ok(Kernels { json: Some(super::json(&sorted)?), text: format!("\n{table}") })
    }
}

/// What is run.
enum Work {
    Training(Box<TrainingStep>),
    Inference(Box<Model>, BTreeMap<String, Tensor>),
}

impl Work {
    fn load(path: &Path, args: &GraphArgs) -> Result<Work, Failure> {
        if args.train {
            let step = TrainingStep::new(path, &args.inputs, args.batch as usize, args.optimizer, None)?;
            return Ok(Work::Training(Box::new(step)));
        }
        let model = models::load(path)?;
        let feeds = models::read_feeds(&args.inputs)?;
        let model = models::bind(&model, &args.inputs, &feeds)?;
        let feeds = models::made_up(&model, &feeds)?;
        Ok(Work::Inference(Box::new(model), feeds))
    }

    fn graph(&self) -> (&Graph, &Parameters) {
        match self {
            Work::Training(step) => (&step.graph, &step.parameters),
            Work::Inference(model, _) => (&model.graph, &model.parameters),
        }
    }

    fn session(&self, context: &Context) -> Result<Session, Failure> {
        match self {
            Work::Training(step) => Ok(step.session(context, Sparse::Auto)?),
            Work::Inference(model, feeds) => {
                let store = Store::new(&model.parameters);
                let plan = Plan::compile(&model.graph, &store, &context.plan_options())?;
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
fn check(work: &Work, prediction: &mut Prediction, context: &Context) -> Result<String, Failure> {
    let predicted = &prediction.seconds;
    let mut session = work.session(context)?;
    session.run()?;
    session.run()?;
    let mut times = vec![];
    for _ in 0..CHECKS {
        let start = Instant::now();
        session.run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let measured = times[CHECKS / 2];
    roofline::measure(&mut prediction.kernels, &mut session)?;
    Ok(format!(
        "checked: predicted {:.3} ms [{:.3}, {:.3}], measured {:.3} ms (median of {CHECKS}), {:+.0} %, {} the interval",
        predicted.value() * 1e3,
        predicted.low() * 1e3,
        predicted.high() * 1e3,
        measured * 1e3,
        100.0 * (predicted.value() / measured - 1.0),
        if predicted.contains(measured) { "inside" } else { "outside" }
    ))
}
