//! `wattle bench spmm`: how near sparse products come to this machine's arithmetic peak.

use wattle_jobs::bench::spmm::{Multiplied, SpmmOptions, bench_spmm};

use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle bench spmm`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle bench spmm --m 304 --n 64 --k 784 --density 0.1 --backward")]
pub struct Args {
    /// Rows of the sparse weights: outputs.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    m: u32,
    /// Columns of the activations: the batch, or pixels.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    n: u32,
    /// Columns of the sparse weights: inputs.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    k: u32,
    /// Share of weights that are not zero, from 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    density: f64,
    /// Shape of the blocks in which weights are kept.
    #[arg(long, default_value = "1x1", value_parser = ["1x1", "4x1"])]
    block: String,
    /// Keep n of every m weights along k, such as `2:4`, instead of a density.
    #[arg(long, value_name = "N:M", conflicts_with_all = ["block", "density", "skewed", "backward"])]
    n_of_m: Option<String>,
    /// Activations a sample after the other, transposed inside the timing, instead of a feature after the other.
    #[arg(long)]
    samples_first: bool,
    /// Rows and columns of weights differ in density by up to a factor of 50, as in pruned networks.
    #[arg(long)]
    skewed: bool,
    /// Also both gradients, as a training step needs them: of the activations (with the transposed weights brought up to
    /// date) and of the kept weights.
    #[arg(long)]
    backward: bool,
    /// Timed runs, after warm-up.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let options = SpmmOptions {
        m: args.m,
        n: args.n,
        k: args.k,
        density: args.density,
        block_height: if args.block == "4x1" { 4 } else { 1 },
        n_of_m: args.n_of_m,
        samples_first: args.samples_first,
        skewed: args.skewed,
        backward: args.backward,
        runs: args.runs,
    };
    let found = bench_spmm(&options, context, &mut Bars::default())?;
    context.print(&found, &text(&found))
}

fn text(found: &Multiplied) -> String {
    let mut text = format!(
        "{} non-zeros, {}: median {:.1} us (10 % below {:.1}, 90 % below {:.1}), {} runs\n\
         {:.1} GFLOP/s useful, {:.0} % of the measured peak {:.1} GFLOP/s, {} threads, {}\n\
         {:.0} % of the {:.1} GFLOP/s that measured loads from the first-level cache allow\n",
        found.nonzeros,
        found.n_of_m.as_ref().map_or_else(|| format!("blocks {}", found.block), String::clone),
        found.median_us,
        found.p10_us,
        found.p90_us,
        found.runs,
        found.useful_gflops,
        100.0 * found.fraction_of_peak,
        found.peak_gflops,
        found.threads,
        found.isa,
        100.0 * found.fraction_of_load_bound,
        found.load_bound_gflops
    );
    if let Some(b) = &found.backward {
        text += &format!(
            "backward: median {:.1} us (10 % below {:.1}, 90 % below {:.1}): activations {:.1}, weights {:.1}; \
             {:.1} GFLOP/s useful, {:.0} % of the peak\n",
            b.median_us,
            b.p10_us,
            b.p90_us,
            b.input_gradient_us,
            b.weight_gradient_us,
            b.useful_gflops,
            100.0 * b.useful_gflops / found.peak_gflops
        );
    }
    text
}
