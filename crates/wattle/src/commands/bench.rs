//! `wattle bench`: how long a model, or a training step of it, takes on this machine.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use wattle_engine::{Plan, Session};

use crate::context::Context;
use crate::failure::Failure;
use crate::models::{self, InputText};

/// Arguments of `wattle bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle bench model.onnx --input x=1x3x224x224 --threads 2 --runs 50")]
pub struct Args {
    /// The ONNX model.
    model: PathBuf,
    /// Shape or .npy file of an input; may be repeated. Inputs without a file are fed noise, never zeros.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Timed runs, after warm-up.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
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
    let model = models::load(&args.model)?;
    let feeds = models::read_feeds(&args.inputs)?;
    let model = models::bind(&model, &args.inputs, &feeds)?;
    let feeds = models::made_up(&model, &feeds)?;
    let plan = Plan::compile(&model.graph, &model.parameters, &context.plan_options())?;
    let mut session = Session::new(plan, &model.parameters)?;
    for (name, tensor) in &feeds {
        session.set_input(name, tensor)?;
    }
    let samples = time(args.runs as usize, || Ok(session.run()?))?;
    print(samples, context)
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
