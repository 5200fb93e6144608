//! How near sparse products come to this machine's arithmetic peak.

use std::convert::Infallible;
use std::time::Duration;

use serde::Serialize;
use wattle_kernels::gemm::Epilogue;
use wattle_kernels::sparse::{
    self, Activations, Cut, HEIGHT, NOfM, Product, STRIP, SparseWeights, Transposed,
};
use wattle_kernels::{Cpu, peak};

use wattle_data::random::{Purpose, Stream};
use wattle_meter::timing::{Times, Turns, listed, once};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// Which product.
#[derive(Clone, Debug, Serialize)]
pub struct SpmmOptions {
    /// Rows of the sparse weights: outputs.
    pub m: u32,
    /// Columns of the activations: the batch, or pixels.
    pub n: u32,
    /// Columns of the sparse weights: inputs.
    pub k: u32,
    /// Share of weights that are not zero, 0 to 1.
    pub density: f64,
    /// Rows of the blocks in which weights are kept: 1 or 4.
    pub block_height: usize,
    /// Keep n of every m weights along k, such as `2:4`, instead of a density.
    pub n_of_m: Option<String>,
    /// Activations a sample after the other, transposed inside the timing, instead of a feature after the other.
    pub samples_first: bool,
    /// Rows and columns of weights differ in density by up to a factor of 50, as in pruned networks.
    pub skewed: bool,
    /// Also both gradients, as a training step needs them.
    pub backward: bool,
    /// Timed runs, after warm-up.
    pub runs: u32,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Multiplied {
    /// Outputs.
    pub m: u32,
    /// Batch, or pixels.
    pub n: u32,
    /// Inputs.
    pub k: u32,
    /// Weights that are not zero.
    pub nonzeros: usize,
    /// `1x1` or `4x1`.
    pub block: String,
    /// The pattern, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_of_m: Option<String>,
    /// Half of the runs are shorter.
    pub median_us: f64,
    /// A tenth is shorter.
    pub p10_us: f64,
    /// Nine tenths are shorter.
    pub p90_us: f64,
    /// Two operations for each non-zero and column of activations, over the median time.
    pub useful_gflops: f64,
    /// Measured in this process, of all threads.
    pub peak_gflops: f64,
    /// Useful over peak.
    pub fraction_of_peak: f64,
    /// What loads from the first-level cache allow: a vector of activations for each multiply-add, and the weight.
    pub load_bound_gflops: f64,
    /// Useful over what loads allow.
    pub fraction_of_load_bound: f64,
    /// Both gradients, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backward: Option<Backward>,
    /// Timed runs.
    pub runs: u32,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// How times are known.
    pub source: &'static str,
}

/// Both gradients.
#[derive(Clone, Debug, Serialize)]
pub struct Backward {
    /// Half of the runs of both together are shorter.
    pub median_us: f64,
    /// A tenth is shorter.
    pub p10_us: f64,
    /// Nine tenths are shorter.
    pub p90_us: f64,
    /// Median of the gradient of the activations.
    pub input_gradient_us: f64,
    /// Median of the gradient of the weights.
    pub weight_gradient_us: f64,
    /// Four operations for each non-zero and column of activations, over the median time.
    pub useful_gflops: f64,
}

/// A product to time.
pub struct Case {
    /// Outputs.
    pub m: usize,
    /// Batch, or pixels.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// Share of weights that are not zero.
    pub density: f64,
    /// Rows of a block: 1 or [`HEIGHT`].
    pub height: usize,
    /// Kept of neighbouring weights of a row, instead of `density` of them.
    pub n_of_m: Option<NOfM>,
    /// How activations and results lie in memory.
    pub arrangement: Activations,
    /// Whether rows and columns differ in density.
    pub skewed: bool,
    /// Whether gradients are timed too.
    pub backward: bool,
    /// Timed runs.
    pub runs: usize,
}

/// Times of a product and its gradients.
pub struct Timed {
    /// Weights that are not zero.
    pub nonzeros: usize,
    /// The product.
    pub forward: Times,
    /// Where gradients were asked for: the transposed weights brought up to date and their product; the sampled product; both.
    pub backward: Option<[Times; 3]>,
}

impl Timed {
    /// Useful operations a second of the forward product by its median.
    pub fn useful_flops(&self, case: &Case) -> f64 {
        2.0 * self.nonzeros as f64 * case.n as f64 / self.forward.median()
    }
}

/// Times a product with sparse weights and, if asked, its gradients.
pub fn bench_spmm(options: &SpmmOptions, env: &Env, _observer: &mut dyn Observer) -> Result<Multiplied> {
    let (m, n, k) = (options.m as usize, options.n as usize, options.k as usize);
    if !(0.0..=1.0).contains(&options.density) {
        return Err(JobError::option("density", format_args!("{} is not between 0 and 1", options.density)));
    }
    if options.block_height != 1 && options.block_height != HEIGHT {
        let found = format!("blocks of {} rows; expected 1 or {HEIGHT}", options.block_height);
        return Err(JobError::option("block", found));
    }
    if m * k > 1 << 30 || k * n > 1 << 30 || m * n > 1 << 30 {
        return Err(JobError::input(format!("{m} x {n} x {k} needs more than 4 GiB; choose smaller sizes")));
    }
    let n_of_m = options.n_of_m.as_deref().map(pattern).transpose()?;
    if let Some(pattern) = n_of_m.filter(|p| !k.is_multiple_of(p.m())) {
        return Err(JobError::option("k", format_args!("{k} is not a multiple of the groups of {pattern}")));
    }
    let cpu = &env.cpu;
    let case = Case {
        m,
        n,
        k,
        n_of_m,
        density: options.density,
        height: options.block_height,
        arrangement: if options.samples_first { Activations::Rows } else { Activations::Columns },
        skewed: options.skewed,
        backward: options.backward,
        runs: options.runs as usize,
    };
    let times = time(&case, cpu);
    let peak = peak::flops_per_second(cpu.isa) * cpu.threads.count() as f64;
    let useful = times.useful_flops(&case);
    let load_bound = load_bound(&case, cpu);
    let backward = times.backward.as_ref().map(|[of_input, of_weights, both]| Backward {
        median_us: both.median() * 1e6,
        p10_us: both.quantile(0.1) * 1e6,
        p90_us: both.quantile(0.9) * 1e6,
        input_gradient_us: of_input.median() * 1e6,
        weight_gradient_us: of_weights.median() * 1e6,
        useful_gflops: 4.0 * times.nonzeros as f64 * n as f64 / both.median() / 1e9,
    });
    Ok(Multiplied {
        m: options.m,
        n: options.n,
        k: options.k,
        nonzeros: times.nonzeros,
        block: format!("{}x1", options.block_height),
        n_of_m: n_of_m.map(|p| p.to_string()),
        median_us: times.forward.median() * 1e6,
        p10_us: times.forward.quantile(0.1) * 1e6,
        p90_us: times.forward.quantile(0.9) * 1e6,
        useful_gflops: useful / 1e9,
        peak_gflops: peak / 1e9,
        fraction_of_peak: useful / peak,
        load_bound_gflops: load_bound / 1e9,
        fraction_of_load_bound: useful / load_bound,
        backward,
        runs: options.runs,
        threads: cpu.threads.count(),
        isa: cpu.isa.name(),
        source: "measured:monotonic clock around each run",
    })
}

fn pattern(text: &str) -> Result<NOfM> {
    let parts = text.split_once(':').and_then(|(n, m)| NOfM::new(n.parse().ok()?, m.parse().ok()?));
    let wanted = "expected two powers of two, the first smaller, up to 16, such as 2:4";
    parts.ok_or_else(|| JobError::option("n_of_m", format_args!("`{text}`: {wanted}")))
}

/// Operations a second if nothing but loads took time: each non-zero reads the vectors of a strip once, and the weights of
/// four single non-zeros, or each of a block's, are read once a strip.
fn load_bound(case: &Case, cpu: &Cpu) -> f64 {
    let lanes = cpu.isa.lanes();
    let vectors = case.n.min(STRIP).div_ceil(lanes) as f64;
    let height = case.height as f64;
    let weights = if case.height == 1 { 0.25 } else { height };
    let products_a_load = height * vectors / (vectors + weights);
    2.0 * lanes as f64 * products_a_load * peak::loads_per_second(cpu.isa) * cpu.threads.count() as f64
}

/// Times a product and, if asked, its gradients in turn, on weights and activations that are not zero.
pub fn time(case: &Case, cpu: &Cpu) -> Timed {
    let &Case { m, n, k, height, arrangement, .. } = case;
    let mut dense =
        weights(m, k, if case.n_of_m.is_some() { 1.0 } else { case.density }, height, case.skewed);
    if let Some(pattern) = case.n_of_m {
        thin(&mut dense, pattern);
    }
    let threads = cpu.threads.count();
    let cut = match case.n_of_m {
        Some(pattern) => Cut::n_of_m(pattern, threads),
        None => Cut { height, ..Cut::unstructured(threads) },
    };
    let weights = SparseWeights::new(m, k, false, &dense, cut);
    let mut transposed =
        case.backward.then(|| Transposed::new(&weights, Cut::unstructured(cpu.threads.count())));
    let shape = Product { images: 1, positions: n, x: arrangement, y: arrangement };
    let mut numbers = Stream::new(1, Purpose::Init, &[1]);
    let mut noise = |len: usize| {
        let mut lines = Lines::new(len);
        lines.part().iter_mut().for_each(|x| *x = numbers.uniform_between(-1.0, 1.0) as f32);
        lines
    };
    let (mut x, mut dy) = (noise(k * n), noise(if case.backward { m * n } else { 0 }));
    let (mut y, mut dx) = (Lines::new(m * n), Lines::new(if case.backward { k * n } else { 0 }));
    let mut dw = vec![0.0; weights.values().len()];
    let needed = [
        sparse::product_scratch_len(cpu, &weights),
        transposed.as_ref().map_or(0, |t| sparse::product_scratch_len(cpu, t.weights())),
        if case.backward { sparse::sampled_product_scratch_len(cpu, &weights, &shape) } else { 0 },
    ];
    let mut scratch = vec![0.0; needed.into_iter().max().unwrap_or(0)];
    let parts = if case.backward { 4 } else { 1 };
    let Ok(mut times) = listed(&Turns::exactly(case.runs), parts, |times: &mut [Duration]| {
        times[0] = timed(|| {
            sparse::product(cpu, &weights, &shape, x.part(), Epilogue::default(), y.part(), &mut scratch);
        });
        if let Some(transposed) = &mut transposed {
            times[1] = timed(|| {
                transposed.update(cpu, weights.values());
                let w = transposed.weights();
                sparse::product(cpu, w, &shape, dy.part(), Epilogue::default(), dx.part(), &mut scratch);
            });
            times[2] = timed(|| {
                let (x, dy) = (x.part(), dy.part());
                sparse::sampled_product(cpu, &weights, &shape, x, dy, false, &mut dw, &mut scratch);
            });
            times[3] = times[1] + times[2];
        }
        Ok::<(), Infallible>(())
    });
    let backward = <[Times; 3]>::try_from(times.split_off(1)).ok();
    Timed { nonzeros: weights.kept(), forward: times.remove(0), backward }
}

fn timed(work: impl FnOnce()) -> Duration {
    let Ok(time) = once(|| {
        work();
        Ok::<(), Infallible>(())
    });
    time
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

/// Leaves the pattern's share of each group, chosen at random.
fn thin(weights: &mut [f32], pattern: NOfM) {
    let mut stream = Stream::new(1, Purpose::Init, &[2]);
    for group in weights.chunks_exact_mut(pattern.m()) {
        let mut left = pattern.n();
        for i in 0..group.len() {
            let places = group.len() - i;
            if stream.chance(left as f64 / places as f64) {
                left -= 1;
            } else {
                group[i] = 0.0;
            }
        }
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
