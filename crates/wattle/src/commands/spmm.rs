//! `wattle bench spmm`: how near sparse products come to this machine's arithmetic peak.

use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_kernels::gemm::Epilogue;
use wattle_kernels::peak;
use wattle_kernels::sparse::{self, Activations, Cut, HEIGHT, Product, SparseWeights};
use wattle_train::random::{Purpose, Stream};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle bench spmm`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle bench spmm --m 304 --n 64 --k 784 --density 0.1")]
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
    /// Activations a sample after the other, transposed inside the timing, instead of a feature after the other.
    #[arg(long)]
    samples_first: bool,
    /// Rows and columns of weights differ in density by up to a factor of 50, as in pruned networks.
    #[arg(long)]
    skewed: bool,
    /// Timed runs, after warm-up.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
}

/// The result.
#[derive(Serialize)]
struct Document {
    m: u32,
    n: u32,
    k: u32,
    nonzeros: usize,
    block: String,
    median_us: f64,
    p10_us: f64,
    p90_us: f64,
    /// Two operations for each non-zero and column of activations, over the median time.
    useful_gflops: f64,
    /// Measured in this process, of all threads.
    peak_gflops: f64,
    fraction_of_peak: f64,
    runs: u32,
    threads: usize,
    isa: &'static str,
    source: &'static str,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let (m, n, k) = (args.m as usize, args.n as usize, args.k as usize);
    if !(0.0..=1.0).contains(&args.density) {
        return Err(Failure::Input(format!("--density {} is not between 0 and 1", args.density)));
    }
    if m * k > 1 << 30 || k * n > 1 << 30 || m * n > 1 << 30 {
        return Err(Failure::Input(format!("{m} x {n} x {k} needs more than 4 GiB; choose smaller sizes")));
    }
    let cpu = &context.cpu;
    let height = if args.block == "4x1" { HEIGHT } else { 1 };
    let weights = weights(m, k, args.density, height, args.skewed);
    let weights =
        SparseWeights::new(m, k, false, &weights, Cut { height, ..Cut::unstructured(cpu.threads.count()) });
    let arrangement = if args.samples_first { Activations::Rows } else { Activations::Columns };
    let shape = Product { images: 1, positions: n, x: arrangement, y: arrangement };
    let mut numbers = Stream::new(1, Purpose::Init, &[1]);
    let (mut x, mut y) = (Lines::new(k * n), Lines::new(m * n));
    x.part().iter_mut().for_each(|x| *x = numbers.uniform_between(-1.0, 1.0) as f32);
    let mut scratch = vec![0.0; sparse::product_scratch_len(cpu, &weights, &shape)];
    let warm_up = (args.runs / 10).max(2);
    let mut timed = || {
        let start = Instant::now();
        sparse::product(cpu, &weights, &shape, x.part(), Epilogue::default(), y.part(), &mut scratch);
        start.elapsed()
    };
    for _ in 0..warm_up {
        timed();
    }
    let mut samples: Vec<Duration> = (0..args.runs).map(|_| timed()).collect();
    let peak = peak::flops_per_second(cpu.isa) * cpu.threads.count() as f64;
    samples.sort();
    // Nearest rank.
    let quantile = |q: f64| {
        let rank = (q * samples.len() as f64).ceil() as usize;
        samples[rank.clamp(1, samples.len()) - 1].as_secs_f64()
    };
    let useful = 2.0 * weights.kept() as f64 * n as f64 / quantile(0.5);
    let document = Document {
        m: args.m,
        n: args.n,
        k: args.k,
        nonzeros: weights.kept(),
        block: args.block,
        median_us: quantile(0.5) * 1e6,
        p10_us: quantile(0.1) * 1e6,
        p90_us: quantile(0.9) * 1e6,
        useful_gflops: useful / 1e9,
        peak_gflops: peak / 1e9,
        fraction_of_peak: useful / peak,
        runs: args.runs,
        threads: cpu.threads.count(),
        isa: cpu.isa.name(),
        source: "measured:monotonic clock around each run",
    };
    let text = format!(
        "{} non-zeros, blocks {}: median {:.1} us (10 % below {:.1}, 90 % below {:.1}), {} runs\n\
         {:.1} GFLOP/s useful, {:.0} % of the measured peak {:.1} GFLOP/s, {} threads, {}",
        document.nonzeros,
        document.block,
        document.median_us,
        document.p10_us,
        document.p90_us,
        document.runs,
        document.useful_gflops,
        100.0 * document.fraction_of_peak,
        document.peak_gflops,
        document.threads,
        document.isa
    );
    context.print(&document, &text)
}

/// Memory that starts on a cache line, as an engine's arena does.
struct Lines {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Lines {
    fn new(len: usize) -> Lines {
        let data = vec![0.0; len + 16];
        let start = data.as_ptr().align_offset(64).min(16);
        Lines { data, start, len }
    }

    fn part(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// Random weights, whole blocks kept or not.
fn weights(rows: usize, columns: usize, density: f64, height: usize, skewed: bool) -> Vec<f32> {
    let mut stream = Stream::new(1, Purpose::Init, &[0]);
    let mut factors = |count: usize| -> Vec<f64> {
        let factor = |s: &mut Stream| if skewed { s.uniform_between(-2.0, 2.0).exp() } else { 1.0 };
        (0..count).map(|_| factor(&mut stream)).collect()
    };
    let bands = rows.div_ceil(height);
    let (of_band, of_column) = (factors(bands), factors(columns));
    let mean = of_band.iter().sum::<f64>() * of_column.iter().sum::<f64>() / (bands * columns) as f64;
    let mut weights = vec![0.0; rows * columns];
    for (band, by_band) in of_band.iter().enumerate() {
        for (column, by_column) in of_column.iter().enumerate() {
            if stream.chance((density * by_band * by_column / mean).min(1.0)) {
                for row in band * height..rows.min((band + 1) * height) {
                    weights[row * columns + column] = stream.uniform_between(0.1, 1.0) as f32;
                }
            }
        }
    }
    weights
}
