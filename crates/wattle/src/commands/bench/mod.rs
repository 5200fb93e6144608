//! `wattle bench`: how long a model, or a training step of it, takes on this machine.

mod against;
mod pair;
mod spmm;

use std::path::PathBuf;

use wattle_jobs::bench::samples::Summary;
use wattle_jobs::bench::suite::{Suite, SuiteOptions, bench_suite, tables};
use wattle_jobs::bench::{StepOptions, Timed};
use wattle_jobs::models::{InputText, parse_input};
use wattle_jobs::roofline::nodes;
use wattle_jobs::training::learning::OptimizerName;
use wattle_jobs::{BenchOptions, Benched, bench};
use wattle_report::number;

use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// Arguments of `wattle bench`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group = clap::ArgGroup::new("which_model").args(["model", "model_flag"]).multiple(true))]
#[command(group = clap::ArgGroup::new("turns").args(["against", "other", "model_flag"]).multiple(true))]
#[command(after_help = "Example: wattle bench model.onnx --input x=1x3x224x224 --threads 2 --runs 50\n\
    Example: wattle bench model.onnx lean/lean.onnx (in turns)\n\
    Example: wattle bench model.onnx --against onnxruntime --python venv/bin/python\n\
    Example: WATTLE_ISA=avx2 wattle bench model.onnx (scalar, avx2 or avx512; the widest by default)\n\
    Example: wattle bench --out bench.html (the suite, about half a minute)")]
pub struct Args {
    #[command(subcommand)]
    kernel: Option<KernelBench>,
    /// The ONNX model; with --train also a network by name, such as resnet-20. Without a model, a suite is run.
    #[arg(id = "model", value_name = "MODEL")]
    first: Option<PathBuf>,
    /// Another model: both are timed in turns.
    #[arg(value_name = "OTHER", conflicts_with_all = ["train", "roofline", "against"])]
    other: Option<PathBuf>,
    /// The first model, as a flag.
    #[arg(id = "model_flag", long = "model", value_name = "MODEL")]
    flag: Option<PathBuf>,
    /// Shape or .npy file of an input; may be repeated. Inputs without a file are fed noise, never zeros.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = parse_input, requires = "which_model")]
    inputs: Vec<(String, InputText)>,
    /// Time a training step (forward, backward, update) of a classifier instead of an inference.
    #[arg(long, requires = "which_model")]
    train: bool,
    /// Samples in a training batch.
    #[arg(long, default_value_t = 32, requires = "train", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Optimiser of the training step.
    #[arg(long, default_value = "sgd", requires = "train", value_parser = named(&OptimizerName::ALL))]
    optimizer: OptimizerName,
    /// Share of each layer's weights (all layers but the last) that a random mask keeps in the training step, 0 to 1.
    #[arg(long, requires = "train", value_parser = density)]
    density: Option<f64>,
    /// Run every layer on dense kernels, however sparse its weights are.
    #[arg(long, requires = "which_model")]
    dense: bool,
    /// Timed runs, after warm-up: 30. In turns, of each: as many as fill 60 ms.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "which_model")]
    runs: Option<u32>,
    /// Compare with the machine's peaks: which share of what limits it each node reaches.
    #[arg(long, requires = "which_model", conflicts_with = "against")]
    roofline: bool,
    #[command(flatten)]
    peer: against::PeerArgs,
    /// Where the suite, run when no model is given, writes its page [default: bench.html].
    #[arg(long, value_name = "FILE", conflicts_with = "which_model")]
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
    // With the flag, what stands alone is the other model.
    let (model, other) = match (args.flag, args.first, args.other) {
        (Some(flag), first, None) => (Some(flag), first),
        (Some(_), ..) => {
            return Err(Failure::Input("found three models; expected one, or two to compare".into()));
        }
        (None, first, other) => (first, other),
    };
    let Some(model) = model else {
        let options = SuiteOptions { out: args.out.unwrap_or_else(|| "bench.html".into()) };
        let suite = bench_suite(&options, context, &mut Bars::default())?;
        return context.print(&suite, &suite_text(&suite));
    };
    let (optimizer, density) = (args.optimizer, args.density);
    let step = args.train.then_some(StepOptions { batch: args.batch as usize, optimizer, density });
    let options = BenchOptions {
        model,
        inputs: args.inputs,
        step,
        dense: args.dense,
        runs: args.runs,
        roofline: args.roofline,
        other,
        rounds: args.peer.rounds(),
        against: args.peer.options(),
    };
    let benched = bench(&options, context, &mut Bars::default())?;
    let text = match &benched {
        Benched::Timed(timed) => timed_text(timed),
        Benched::Compared(compared) => against::text(compared),
        Benched::Paired(paired) => pair::text(paired),
    };
    context.print(&benched, &text)
}

fn density(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|d| (0.0..=1.0).contains(d));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.05".into())
}

fn timed_text(timed: &Timed) -> String {
    let Summary { median_ms, p10_ms, p90_ms, runs, threads, isa, .. } = &timed.samples;
    let mut text = format!(
        "median {median_ms:.3} ms (10 % below {p10_ms:.3}, 90 % below {p90_ms:.3}), {runs} runs, {threads} threads, {isa}"
    );
    if let Some(roofline) = &timed.roofline {
        text = format!("{}\n{}\n{text}", nodes::table(&roofline.nodes), roofline.machine.text());
    }
    if !timed.interpreted_nodes.is_empty() {
        text += &format!("\nno kernel, interpreted: {}", timed.interpreted_nodes.join(", "));
    }
    text
}

fn suite_text(suite: &Suite) -> String {
    let mut text = tables(suite).map(|(_, table)| table.to_string()).join("\n");
    text += &format!("\n{}\n", suite.machine.text());
    if let Some(disturbed) = &suite.disturbed {
        text += &format!("warning: {disturbed}\n");
    }
    let (page, seconds) = (&suite.page, number::seconds(suite.seconds));
    text + &format!("weights are random; the page with plots is {page}; all took {seconds}\n")
}
