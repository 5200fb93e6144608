//! A small suite, about half a minute, with a page of plots.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use wattle_data::SampleShape;
use wattle_engine::Sparse;
use wattle_graph::Model;
use wattle_kernels::sparse::{Activations, HEIGHT};
use wattle_meter::bystanders::Watch;
use wattle_meter::timing::{Turns, repeated};
use wattle_report::{Align, Table, number};
use wattle_train::atomic_file::write_atomically;
use wattle_train::network::{self, Init};

use super::TrainingStep;
use super::inference::Inference;
use super::{networks, spmm, suite_page};
use crate::env::Env;
use crate::error::Result;
use crate::models;
use crate::observer::Observer;
use crate::roofline::machine::Machine;
use crate::roofline::nodes::{self, NodeShare};
use crate::training::learning::OptimizerName;

/// Share of weights that sparse networks keep.
pub const DENSITY: f64 = 0.1;
/// How long each item is timed, after warm-up.
const TIMED: Duration = Duration::from_millis(1500);
/// Most runs of an item.
const MOST_RUNS: usize = 2000;
/// Outputs, inputs and columns of the products.
const PRODUCTS: [(usize, usize, usize); 5] =
    [(304, 784, 64), (1024, 1024, 128), (3072, 768, 128), (512, 512, 832), (256, 256, 3136)];
/// Shares of weights kept in the products.
const DENSITIES: [f64; 3] = [0.2, 0.1, 0.05];

/// Networks, products and steps that are timed.
const ITEMS: u64 = 11;

/// Where the suite writes.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteOptions {
    /// Its page of plots.
    pub out: PathBuf,
}

/// What the suite found.
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    /// The machine's peaks.
    pub machine: Machine,
    /// Inferences: dense and sparse.
    pub inferences: Vec<Inferred>,
    /// Sparse products alone.
    pub products: Vec<Multiplied>,
    /// Training steps.
    pub steps: Vec<Stepped>,
    /// Where the page is.
    pub page: String,
    /// What disturbed the timing, if anything did.
    pub disturbed: Option<String>,
    /// How times are known.
    pub source: &'static str,
    /// All weights are random: times, not accuracies.
    pub weights: &'static str,
    /// What the whole suite took.
    #[serde(skip)]
    pub seconds: f64,
}

/// A time with its spread, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// Half of the runs are shorter.
    pub median_ms: f64,
    /// A tenth is shorter.
    pub p10_ms: f64,
    /// Nine tenths are shorter.
    pub p90_ms: f64,
    /// Runs.
    pub runs: usize,
}

/// One network, dense and with a tenth of its weights.
#[derive(Clone, Debug, Serialize)]
pub struct Inferred {
    /// Its name.
    pub network: String,
    /// Samples.
    pub batch: usize,
    /// All weights.
    pub dense: Time,
    /// A tenth of them.
    pub sparse: Time,
    /// Dense time over sparse time.
    pub gain: f64,
    /// The nodes of the sparse network.
    pub nodes: Vec<NodeShare>,
}

/// One sparse product.
#[derive(Clone, Debug, Serialize)]
pub struct Multiplied {
    /// Outputs, inputs, columns.
    pub m: usize,
    /// Inputs.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Share of weights kept.
    pub density: f64,
    /// `1x1` or `4x1`.
    pub block: &'static str,
    /// Time of one.
    pub median_us: f64,
    /// Operations with non-zeros.
    pub useful_gflops: f64,
    /// Of the arithmetic peak.
    pub fraction_of_peak: f64,
}

/// One training step.
#[derive(Clone, Debug, Serialize)]
pub struct Stepped {
    /// The network.
    pub network: String,
    /// Samples.
    pub batch: usize,
    /// What updates the weights.
    pub optimizer: String,
    /// Forward, backward, update.
    pub time: Time,
}

/// Runs the suite and writes the page.
pub fn bench_suite(options: &SuiteOptions, env: &Env, observer: &mut dyn Observer) -> Result<Suite> {
    let begun = Instant::now();
    let watch = Watch::begin(&[]);
    let mut done = 0;
    let mut advance = || {
        observer.progress("suite", done, ITEMS);
        done += 1;
    };
    advance();
    let machine = Machine::measure(&env.cpu);
    let mut inferences = vec![];
    for (name, batch) in
        [("lenet-300-100", 1), ("lenet-300-100", 16), ("resnet-20", 1), ("mobilenet-v1", 1), ("encoder", 1)]
    {
        inferences.push(infer(name, batch, &machine, env)?);
        advance();
    }
    let mut products = vec![];
    for (density, height) in DENSITIES.map(|d| (d, 1)).into_iter().chain([(DENSITY, HEIGHT)]) {
        products.extend(PRODUCTS.map(|(m, k, n)| multiply((m, k, n), density, height, &machine, env)));
        advance();
    }
    let mut steps = vec![];
    for (name, shape, batch, optimizer) in [
        ("lenet-300-100", vec![1, 1, 28, 28], 60, OptimizerName::Adam),
        ("resnet-20", vec![1, 3, 32, 32], 32, OptimizerName::Sgd),
    ] {
        let inputs = [("x".to_string(), models::InputText::Shape(shape))];
        let step = TrainingStep::new(Path::new(name), &inputs, batch, optimizer, None)?;
        let mut session = step.session(env, Sparse::Auto)?;
        let time = Time::of(|| Ok(session.run()?))?;
        steps.push(Stepped { network: name.into(), batch, optimizer: optimizer.as_str().into(), time });
        advance();
    }
    let mut suite = Suite {
        machine,
        inferences,
        products,
        steps,
        page: options.out.display().to_string(),
        disturbed: watch.warning(),
        source: "measured:monotonic clock around each run",
        weights: "random",
        seconds: 0.0,
    };
    let page = suite_page::page(&suite);
    write_atomically(&options.out, page.as_bytes())?;
    suite.seconds = begun.elapsed().as_secs_f64();
    Ok(suite)
}

impl Time {
    /// Times calls for about [`TIMED`].
    fn of(mut call: impl FnMut() -> Result<()>) -> Result<Time> {
        let turns = Turns { warm_up: 3, least: 5, most: MOST_RUNS, enough: TIMED };
        let times = repeated(&turns, &mut call)?;
        let [median_ms, p10_ms, p90_ms] = [0.5, 0.1, 0.9].map(|q| 1e3 * times.quantile(q));
        Ok(Time { median_ms, p10_ms, p90_ms, runs: times.turns() })
    }
}

/// A network by its name in the suite.
fn network(name: &str, batch: usize, density: f64) -> Result<Model> {
    let mut model = match name {
        "mobilenet-v1" => return Ok(networks::mobilenet_v1(batch, density)?),
        "encoder" => return Ok(networks::encoder(batch, density)?),
        "resnet-20" => {
            let sample = SampleShape::Image { channels: 3, height: 32, width: 32 };
            network::build(name, &sample, 10, Init::KaimingNormal, 1)?
        }
        _ => network::build(name, &SampleShape::Features(784), 10, Init::KaimingNormal, 1)?,
    };
    if density < 1.0 {
        networks::prune(&mut model, density);
    }
    let input = model.graph.inputs()[0];
    let label = model.graph.label(input);
    let mut extents = vec![batch];
    let dims = model.graph.value(input).ty.shape.dims().unwrap_or(&[]);
    extents.extend(dims.iter().skip(1).filter_map(|d| d.known()));
    Ok(model.bind(&[(&label, &extents)])?)
}

fn infer(name: &str, batch: usize, machine: &Machine, env: &Env) -> Result<Inferred> {
    let inference = |density: f64| {
        let model = network(name, batch, density)?;
        let feeds = models::made_up(&model, &Default::default())?;
        Inference::of(model, feeds, false, env)
    };
    let (mut dense, mut sparse) = (inference(1.0)?, inference(DENSITY)?);
    let dense = Time::of(|| Ok(dense.session.run()?))?;
    let time = Time::of(|| Ok(sparse.session.run()?))?;
    let nodes = nodes::shares(&mut sparse.session, machine)?;
    let gain = dense.median_ms / time.median_ms;
    Ok(Inferred { network: name.into(), batch, dense, sparse: time, gain, nodes })
}

fn multiply(
    (m, k, n): (usize, usize, usize),
    density: f64,
    height: usize,
    machine: &Machine,
    env: &Env,
) -> Multiplied {
    let case = spmm::Case {
        m,
        n,
        k,
        density,
        n_of_m: None,
        height,
        arrangement: Activations::Columns,
        skewed: false,
        backward: false,
        runs: 150,
    };
    let times = spmm::time(&case, &env.cpu);
    let useful = times.useful_flops(&case);
    Multiplied {
        m,
        k,
        n,
        density,
        block: if height == 1 { "1x1" } else { "4x1" },
        median_us: times.forward.median() * 1e6,
        useful_gflops: useful / 1e9,
        fraction_of_peak: useful / machine.flops_per_second,
    }
}

/// The three tables, each with its heading.
pub fn tables(document: &Suite) -> [(&'static str, Table); 3] {
    let right = |name: &'static str| (name, Align::Right);
    let mut inferences = Table::new([
        ("inference", Align::Left),
        right("batch"),
        right("dense, ms"),
        right("10 % of weights, ms"),
        right("p10-p90, ms"),
        right("gain"),
    ]);
    for i in &document.inferences {
        inferences.row([
            i.network.clone(),
            i.batch.to_string(),
            format!("{:.4}", i.dense.median_ms),
            format!("{:.4}", i.sparse.median_ms),
            format!("{:.4}-{:.4}", i.sparse.p10_ms, i.sparse.p90_ms),
            format!("{:.1}x", i.gain),
        ]);
    }
    let mut products = Table::new([
        ("product, out x in, columns", Align::Left),
        right("kept"),
        right("blocks"),
        right("us"),
        right("useful GFLOP/s"),
        right("of peak"),
    ]);
    for p in &document.products {
        products.row([
            format!("{} x {}, {}", p.m, p.k, p.n),
            number::percent(p.density),
            p.block.to_string(),
            format!("{:.1}", p.median_us),
            format!("{:.1}", p.useful_gflops),
            number::percent(p.fraction_of_peak),
        ]);
    }
    let mut steps = Table::new([
        ("training step", Align::Left),
        right("batch"),
        ("optimiser", Align::Left),
        right("ms"),
        right("p10-p90, ms"),
    ]);
    for s in &document.steps {
        steps.row([
            s.network.clone(),
            s.batch.to_string(),
            s.optimizer.clone(),
            format!("{:.3}", s.time.median_ms),
            format!("{:.3}-{:.3}", s.time.p10_ms, s.time.p90_ms),
        ]);
    }
    [("Inference", inferences), ("Sparse products alone", products), ("Training", steps)]
}
