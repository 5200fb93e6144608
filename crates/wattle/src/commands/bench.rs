//! `wattle bench`: how long a model, or a training step of it, takes on this machine.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use wattle_engine::{Plan, PlanOptions, Session, Sparse};
use wattle_graph::{Example, Graph, Parameters};
use wattle_tickets::{Fractions, prunable, random_masks};
use wattle_train::data::SampleShape;
use wattle_train::loss::Loss;
use wattle_train::network::{self, Init};
use wattle_train::training_graph::{bound_to_samples, training_graph};

use super::training::OptimizerName;
use crate::context::Context;
use crate::failure::Failure;
use crate::models::{self, InputText};

/// Arguments of `wattle bench`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Example: wattle bench model.onnx --input x=1x3x224x224 --threads 2 --runs 50")]
pub struct Args {
    #[command(subcommand)]
    kernel: Option<KernelBench>,
    /// The ONNX model; with --train also a network by name, such as resnet-20.
    #[arg(required = true)]
    model: Option<PathBuf>,
    /// Shape or .npy file of an input; may be repeated. Inputs without a file are fed noise, never zeros.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Time a training step (forward, backward, update) of a classifier instead of an inference.
    #[arg(long)]
    train: bool,
    /// Samples in a training batch.
    #[arg(long, default_value_t = 32, requires = "train", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Optimiser of the training step.
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd, requires = "train")]
    optimizer: OptimizerName,
    /// Share of each layer's weights (all layers but the last) that a random mask keeps in the training step, 0 to 1.
    #[arg(long, requires = "train", value_parser = density)]
    density: Option<f64>,
    /// Run every layer on dense kernels, however sparse its weights are.
    #[arg(long)]
    dense: bool,
    /// Timed runs, after warm-up.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
}

/// Kernels timed alone.
#[derive(clap::Subcommand, Debug)]
enum KernelBench {
    /// A product with sparse weights.
    Spmm(super::spmm::Args),
}

/// The result, in milliseconds.
#[derive(Serialize)]
struct Document {
    median_ms: f64,
    p10_ms: f64,
    p90_ms: f64,
    min_ms: f64,
    runs: usize,
    threads: usize,
    isa: &'static str,
    source: &'static str,
    samples_ms: Vec<f64>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if let Some(KernelBench::Spmm(args)) = args.kernel {
        return super::spmm::run(args, context);
    }
    let path = args.model.clone().ok_or_else(|| Failure::Input("bench needs a model".into()))?;
    if args.train {
        return train(args, &path, context);
    }
    let model = models::load(&path)?;
    let feeds = models::read_feeds(&args.inputs)?;
    let model = models::bind(&model, &args.inputs, &feeds)?;
    let feeds = models::made_up(&model, &feeds)?;
    let mut options = context.plan_options();
    if args.dense {
        options.sparse = Sparse::Never;
    }
    let plan = Plan::compile(&model.graph, &model.parameters, &options)?;
    let mut session = Session::new(plan, &model.parameters)?;
    for (name, tensor) in &feeds {
        session.set_input(name, tensor)?;
    }
    let samples = time(args.runs as usize, || Ok(session.run()?))?;
    print(samples, context)
}

/// Times whole training steps on noise, with labels spread over the classes.
fn train(args: Args, path: &Path, context: &Context) -> Result<(), Failure> {
    let step = TrainingStep::new(path, &args.inputs, args.batch as usize, args.optimizer, args.density)?;
    let mut session = step.session(context, if args.dense { Sparse::Never } else { Sparse::Auto })?;
    let samples = time(args.runs as usize, || Ok(session.run()?))?;
    print(samples, context)
}

/// A training step (forward, backward, update) of a classifier.
pub(super) struct TrainingStep {
    /// The step as a graph.
    pub graph: Graph,
    /// Its parameters, optimiser state included.
    pub parameters: Parameters,
    batch: usize,
    /// Extents of one sample.
    sample: Vec<usize>,
}

impl TrainingStep {
    /// The step of an ONNX file, or of a network by name on samples of the shape given (28 x 28 by default).
    pub(super) fn new(
        path: &Path,
        inputs: &[(String, InputText)],
        batch: usize,
        optimizer: OptimizerName,
        density: Option<f64>,
    ) -> Result<TrainingStep, Failure> {
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
                    Failure::Input(format!(
                        "input `{label}` has the shape {shape}; give it with --input {label}=1x3x32x32"
                    ))
                })?
            }
            _ => {
                return Err(Failure::Input(
                    "the model has several inputs; training feeds exactly one".into(),
                ));
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
        Ok(TrainingStep { graph, parameters, batch, sample })
    }

    /// A session of it, fed noise and labels spread over the classes.
    pub(super) fn session(&self, context: &Context, sparse: Sparse) -> Result<Session, Failure> {
        let classes = self.graph.extents(self.graph.outputs()[1])?[1];
        let options = PlanOptions { sparse, ..context.plan_options() };
        let plan = Plan::compile(&self.graph, &self.parameters, &options)?;
        let mut session = Session::new(plan, &self.parameters)?;
        let noise = Example::noise(&[&[self.batch], &self.sample[..]].concat(), 1);
        session.input_mut::<f32>(0)?.copy_from_slice(noise.as_f32().unwrap_or(&[]));
        let labels = session.input_mut::<i64>(1)?;
        labels.iter_mut().enumerate().for_each(|(i, label)| *label = (i % classes) as i64);
        session.input_mut::<f32>(2)?[0] = 1e-3;
        session.input_mut::<f32>(3)?[0] = 1.0;
        Ok(session)
    }
}

fn density(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|d| (0.0..=1.0).contains(d));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.05".into())
}

/// Times `runs` calls after a warm-up of a tenth of them, at least two.
fn time(runs: usize, mut call: impl FnMut() -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    for _ in 0..(runs / 10).max(2) {
        call()?;
    }
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        call()?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples)
}

fn print(samples: Vec<f64>, context: &Context) -> Result<(), Failure> {
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    // Nearest rank.
    let quantile = |q: f64| sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
    let document = Document {
        median_ms: quantile(0.5),
        p10_ms: quantile(0.1),
        p90_ms: quantile(0.9),
        min_ms: sorted[0],
        runs: sorted.len(),
        threads: context.cpu.threads.count(),
        isa: context.cpu.isa.name(),
        source: "measured:monotonic clock around each run",
        samples_ms: samples,
    };
    let text = format!(
        "median {:.3} ms (10 % below {:.3}, 90 % below {:.3}), {} runs, {} threads, {}",
        document.median_ms, document.p10_ms, document.p90_ms, document.runs, document.threads, document.isa
    );
    context.print(&document, &text)
}
