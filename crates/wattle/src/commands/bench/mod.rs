//! `wattle bench`: how long a model, or a training step of it, takes on this machine.

mod against;
mod bystanders;
mod inference;
mod networks;
mod peer;
mod samples;
mod spmm;
mod suite;
mod suite_page;
mod train;

use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_engine::Sparse;

pub(in crate::commands) use train::TrainingStep;

use super::training::OptimizerName;
use crate::context::Context;
use crate::failure::Failure;
use crate::roofline::machine::Machine;
use crate::roofline::nodes::{self, NodeShare};
use inference::Inference;
use wattle_jobs::models::{self, InputText};

/// Arguments of `wattle bench`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Example: wattle bench model.onnx --input x=1x3x224x224 --threads 2 --runs 50\n\
    Example: wattle bench model.onnx --against onnxruntime --python venv/bin/python\n\
    Example: WATTLE_ISA=avx2 wattle bench model.onnx (scalar, avx2 or avx512; the widest by default)\n\
    Example: wattle bench --out bench.html (the suite, about half a minute)")]
pub struct Args {
    #[command(subcommand)]
    kernel: Option<KernelBench>,
    /// The ONNX model; with --train also a network by name, such as resnet-20. Without a model, a suite is run.
    model: Option<PathBuf>,
    /// Shape or .npy file of an input; may be repeated. Inputs without a file are fed noise, never zeros.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input, requires = "model")]
    inputs: Vec<(String, InputText)>,
    /// Time a training step (forward, backward, update) of a classifier instead of an inference.
    #[arg(long, requires = "model")]
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
    #[arg(long, requires = "model")]
    dense: bool,
    /// Timed runs, after warm-up: 30. With --against, in each turn: as many as fill 60 ms.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "model")]
    runs: Option<u32>,
    /// Compare with the machine's peaks: which share of what limits it each node reaches.
    #[arg(long, requires = "model", conflicts_with = "against")]
    roofline: bool,
    #[command(flatten)]
    peer: against::PeerArgs,
    /// Where the suite, run when no model is given, writes its page [default: bench.html].
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    out: Option<PathBuf>,
}

/// Kernels timed alone.
#[derive(clap::Subcommand, Debug)]
enum KernelBench {
    /// A product with sparse weights.
    Spmm(spmm::Args),
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    if let Some(KernelBench::Spmm(args)) = args.kernel {
        return spmm::run(args, context);
    }
    let Some(path) = args.model.clone() else {
        return suite::run(&args.out.unwrap_or_else(|| "bench.html".into()), context);
    };
    let runs = args.runs.unwrap_or(30) as usize;
    if args.train {
        return train(&args, &path, runs, context);
    }
    let mut inference = Inference::read(&path, &args.inputs, args.dense, context)?;
    if args.peer.asked() {
        let Inference { feeds, session } = inference;
        let name = path.display().to_string();
        let work = against::Work { name, session, model: path, feeds, training: None, dense: args.dense };
        return against::run(&args.peer, work, args.runs, context);
    }
    let samples = inference.time(runs)?;
    let roofline = match args.roofline {
        true => Some(Roofline::of(&mut inference.session, context)?),
        false => None,
    };
    print(samples, roofline, context)
}

/// Times whole training steps on noise, with labels spread over the classes.
fn train(args: &Args, path: &Path, runs: usize, context: &Context) -> Result<(), Failure> {
    let step = TrainingStep::new(path, &args.inputs, args.batch as usize, args.optimizer, args.density)?;
    let mut session = step.session(context, if args.dense { Sparse::Never } else { Sparse::Auto })?;
    if args.peer.asked() {
        let (folder, work) = step.compared(path, session, args.optimizer, args.dense)?;
        against::run(&args.peer, work, args.runs, context)?;
        return folder.close().map_err(|e| Failure::Run(format!("temporary folder: {e}")));
    }
    let samples = samples::time(runs, || Ok(session.run()?))?;
    let roofline = match args.roofline {
        true => Some(Roofline::of(&mut session, context)?),
        false => None,
    };
    print(samples, roofline, context)
}

fn density(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|d| (0.0..=1.0).contains(d));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.05".into())
}

/// What was timed, beside what the machine could do.
#[derive(Serialize)]
struct Roofline {
    machine: Machine,
    nodes: Vec<NodeShare>,
}

impl Roofline {
    /// Measures the machine and the nodes of a session whose inputs are set.
    fn of(session: &mut wattle_engine::Session, context: &Context) -> Result<Roofline, Failure> {
        let machine = Machine::measure(&context.cpu);
        let nodes = nodes::shares(session, &machine)?;
        Ok(Roofline { machine, nodes })
    }
}

/// The document of a plain benchmark.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    samples: samples::Document,
    #[serde(skip_serializing_if = "Option::is_none")]
    roofline: Option<Roofline>,
}

fn print(samples: samples::Samples, roofline: Option<Roofline>, context: &Context) -> Result<(), Failure> {
    let document = Document { samples: samples::Document::new(samples, context), roofline };
    let mut text = document.samples.text();
    if let Some(roofline) = &document.roofline {
        text = format!("{}\n{}\n{text}", nodes::table(&roofline.nodes), roofline.machine.text());
    }
    context.print(&document, &text)
}
