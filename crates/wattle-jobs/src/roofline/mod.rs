//! How long a graph takes before it runs: a roofline calibrated on this machine, or a device's own peak figures.
//!
//! On this machine, small made-up networks (`probes`) are timed step by step. For each kind of kernel the times
//! are fitted by `t = c + a macs + b bytes + d outputs` with non-negative coefficients (a roofline whose roofs add
//! up instead of hiding each other), and corrected by the residuals of the probes nearest in size. A planned graph
//! is then the sum over its steps. The interval comes from predicting each probe's step from the other probes.

mod kernels;
pub mod machine;
pub mod nodes;
mod probes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use wattle_engine::{Plan, Session, Store};
use wattle_graph::{Example, Graph, Model, NodeId, Parameters, Source as ValueSource, ValueId, costs};
use wattle_meter::device::Device;
use wattle_meter::timing::{Times, Turns, listed, once};
use wattle_meter::{Quantity, Source, Unit};
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::training_graph::training_graph;

use crate::env::Env;
use crate::error::{JobError, Result};
use kernels::{Kernels, Size, Time};

/// Timed runs of each probe. Each step's third shortest time counts, the lower median: others share the machine and
/// only slow it.
const TURNS: Turns = Turns { warm_up: 0, least: 6, most: 6, enough: Duration::ZERO };
/// More bytes than any cache holds.
const MOST_TOUCHED: usize = 64 << 20;

/// A predicted duration.
pub struct Prediction {
    /// One run of the graph.
    pub seconds: Quantity,
    /// Kernels that no probe runs; their times come from kernels of other kinds.
    pub unknown: Vec<String>,
    /// Where the time goes, by kernel; empty for a named device.
    pub kernels: Vec<KernelTime>,
}

/// What all steps of one kernel take.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTime {
    /// The kernel's name.
    pub kernel: String,
    /// Steps that it computes.
    pub steps: usize,
    /// Predicted seconds.
    pub predicted: f64,
    /// Measured seconds, where that was asked for.
    pub measured: Option<f64>,
}

/// Predicts one run of a planned graph on this machine, after timing probes for about a second or two.
pub fn on_this_machine(plan: &Plan, training: bool, env: &Env) -> Result<Prediction> {
    let calibration = calibrate(training, footprint(plan)?, env)?;
    let steps = sizes(plan)?;
    let total = calibration.predict(&steps);
    let source = format!("roofline/2 calibrated on this machine, {} threads", env.cpu.threads.count());
    let seconds = Quantity::new(total.value, total.low, total.high, Unit::Second, Source::modelled(source))
        .map_err(|e| JobError::run(e.to_string()))?;
    let mut kernels: BTreeMap<&str, KernelTime> = BTreeMap::new();
    let mut unknown: BTreeSet<String> = BTreeSet::new();
    for (kernel, size) in &steps {
        let time = calibration.kernels.predict(kernel, *size);
        if !time.known {
            unknown.insert(kernel.clone());
        }
        let sum = kernels.entry(kernel).or_insert_with(|| KernelTime {
            kernel: kernel.clone(),
            steps: 0,
            predicted: 0.0,
            measured: None,
        });
        sum.steps += 1;
        sum.predicted += time.value;
    }
    Ok(Prediction {
        seconds,
        unknown: unknown.into_iter().collect(),
        kernels: kernels.into_values().collect(),
    })
}

/// Predicts one run on a device by its peak arithmetic and memory traffic: for each node whichever takes longer.
/// `utilisation` is the share of the peak that arithmetic reaches; traffic is assumed to reach 50 to 90 %.
pub fn on_device(
    graph: &Graph,
    parameters: &Parameters,
    device: &Device,
    utilisation: &Quantity,
) -> Result<Prediction> {
    let missing = |what: &str| {
        JobError::input(format!("option `device`: the {what} of {} is not in the table", device.id))
    };
    let peak = device.peak().ok_or_else(|| missing("peak"))?.value();
    let traffic = device.traffic().ok_or_else(|| missing("memory traffic"))?.value();
    let mut sums = [0.0; 3];
    let nodes = costs(graph, parameters)?;
    for cost in &nodes {
        let flops = 2.0 * cost.work.macs as f64 + cost.work.element_ops as f64;
        let bytes = (cost.bytes_read + cost.bytes_written) as f64;
        let shares = [(utilisation.high(), 0.9), (utilisation.value(), 0.7), (utilisation.low(), 0.5)];
        for (sum, (arithmetic, memory)) in sums.iter_mut().zip(shares) {
            *sum += (flops / (peak * arithmetic)).max(bytes / (traffic * memory));
        }
    }
    let source = Source::modelled(format!("roofline/1 with the peaks of {}: {}", device.name, device.source));
    let seconds = Quantity::new(sums[1], sums[0], sums[2], Unit::Second, source)
        .map_err(|e| JobError::run(e.to_string()))?;
    Ok(Prediction { seconds, unknown: vec![], kernels: vec![] })
}

/// A probe's steps with the time of each, and the time of a run without looking at the clock.
struct Timed {
    steps: Vec<(String, Size, f64)>,
    whole: f64,
}

/// What the probes have taught.
struct Calibration {
    kernels: Kernels,
    /// Whole runs of probes over what the other probes predict: lowest and highest that count.
    spread: (f64, f64),
}

impl Calibration {
    fn of(probes: &[Timed]) -> Calibration {
        let without = |left_out: usize| {
            let others = probes.iter().enumerate().filter(|(i, _)| *i != left_out);
            Kernels::fit(others.flat_map(|(_, p)| p.steps.iter().cloned()).collect())
        };
        let ratios = probes.iter().enumerate().map(|(i, probe)| {
            let steps: Vec<_> = probe.steps.iter().map(|(kernel, size, _)| (kernel.clone(), *size)).collect();
            probe.whole / sum(&without(i), &steps).value
        });
        Calibration { spread: kernels::spread(ratios.collect()), kernels: without(usize::MAX) }
    }

    /// The time of these steps together.
    fn predict(&self, steps: &[(String, Size)]) -> Time {
        let total = sum(&self.kernels, steps);
        Time {
            low: total.low.min(total.value * self.spread.0),
            high: total.high.max(total.value * self.spread.1),
            ..total
        }
    }
}

/// The times of steps, added. Steps of one kernel are taken to be wrong together, different kernels apart from each other,
/// so that their errors add up as squares.
fn sum(kernels: &Kernels, steps: &[(String, Size)]) -> Time {
    let mut by_kernel: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    let mut known = true;
    for (kernel, size) in steps {
        let time = kernels.predict(kernel, *size);
        known &= time.known;
        let sums = by_kernel.entry(kernel).or_default();
        sums[0] += time.value;
        sums[1] += time.value - time.low;
        sums[2] += time.high - time.value;
    }
    let value: f64 = by_kernel.values().map(|s| s[0]).sum();
    let error = |i: usize| by_kernel.values().map(|s| s[i] * s[i]).sum::<f64>().sqrt();
    Time { value, low: value - error(1), high: value + error(2), known }
}

/// Times the probes and fits every kind of kernel. Between two runs of a probe as many bytes are touched as a network of
/// this footprint would touch, so that the probe finds the caches as the network would.
fn calibrate(training: bool, footprint: usize, env: &Env) -> Result<Calibration> {
    let mut timed = vec![];
    let mut others = vec![0u8; footprint.min(MOST_TOUCHED)];
    for probe in probes::probes(training)? {
        let (graph, parameters) = if probe.training {
            let loss = Loss::cross_entropy();
            let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
            training_graph(&probe.model, &loss, optimizer)?
        } else {
            (probe.model.graph, probe.model.parameters)
        };
        let store = Store::new(&parameters);
        let plan = Plan::compile(&graph, &store, &env.plan_options())?;
        let sizes = sizes(&plan)?;
        let own = self::footprint(&plan)?;
        let mut touch = || touch(others.get_mut(own..).unwrap_or_default());
        let mut session = Session::new(plan, &store)?;
        feed(&mut session, &Model::new(graph, parameters))?;
        session.run()?;
        // The nodes of a run, and then a run as a whole.
        let times = listed(&TURNS, sizes.len() + 1, |times| {
            let (nodes, whole) = times.split_at_mut(sizes.len());
            touch();
            session.run_timed()?;
            add_up(&session, nodes);
            touch();
            whole[0] = once(|| session.run())?;
            Ok::<(), JobError>(())
        })?;
        let whole = times.last().map_or(f64::NAN, Times::median);
        let steps = sizes.into_iter().zip(&times).map(|((kernel, size), t)| (kernel, size, t.median()));
        timed.push(Timed { steps: steps.collect(), whole });
    }
    Ok(Calibration::of(&timed))
}

/// Writes to every cache line.
fn touch(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().step_by(64) {
        *byte = byte.wrapping_add(1);
    }
    std::hint::black_box(bytes);
}

/// Bytes that a run of the plan goes through: constants, parameters, and what it computes.
fn footprint(plan: &Plan) -> Result<usize> {
    let graph = plan.graph();
    let mut kept: BTreeMap<ValueId, usize> = BTreeMap::new();
    for step in plan.steps() {
        for &value in step.node.iter().flat_map(|node| graph.node(*node).inputs.iter().flatten()) {
            if matches!(graph.value(value).source, ValueSource::Constant(_)) {
                let elements: usize = graph.extents(value)?.iter().product();
                kept.insert(value, elements * graph.value(value).ty.dtype.size());
            }
        }
    }
    let stored: usize = plan.parameter_bytes().map(|(_, bytes)| bytes).sum();
    Ok(plan.arena_bytes() + stored + kept.values().sum::<usize>())
}

/// Adds what each kernel really takes in this session.
pub fn measure(kernels: &mut [KernelTime], session: &mut Session) -> Result<()> {
    let sizes = sizes(session.plan())?;
    let times = listed(&TURNS, sizes.len(), |times| {
        session.run_timed()?;
        add_up(session, times);
        Ok::<(), JobError>(())
    })?;
    for ((kernel, _), time) in sizes.into_iter().zip(times.iter().map(Times::median)) {
        if let Some(sum) = kernels.iter_mut().find(|k| k.kernel == kernel) {
            sum.measured = Some(sum.measured.unwrap_or(0.0) + time);
        }
    }
    Ok(())
}

/// Noise for floats; labels (i64) and scalars stay what the arena starts with, zero, which changes no time.
fn feed(session: &mut Session, model: &Model) -> Result<()> {
    if let Some(&input) = model.graph.inputs().first() {
        let noise = Example::noise(&model.graph.extents(input)?, 1);
        session.set_input(&model.graph.label(input), &noise)?;
    }
    Ok(())
}

/// Kernel and size of every step that computes a node; a change of layout counts to the step it is made for.
fn sizes(plan: &Plan) -> Result<Vec<(String, Size)>> {
    let graph = plan.graph();
    let nodes: BTreeMap<NodeId, _> =
        costs(graph, &Parameters::new())?.into_iter().map(|c| (c.node, c)).collect();
    let mut sizes = vec![];
    for step in plan.steps() {
        let Some(node) = step.node else { continue };
        let Some(cost) = nodes.get(&node) else { continue };
        let output = graph.node(node).outputs[0];
        let extents = graph.extents(output)?;
        let outputs: usize = extents.iter().product();
        sizes.push((
            kind(graph, node, &step.kernel)?,
            Size {
                macs: (cost.work.macs as f64 * padding(&step.kernel, &extents))
                    .max(cost.work.element_ops as f64),
                bytes: (cost.bytes_read + cost.bytes_written) as f64,
                outputs: outputs as f64,
            },
        ));
    }
    Ok(sizes)
}

/// The kernel's name; convolutions of one tap are a kind of their own, for they are plain matrix products.
fn kind(graph: &Graph, node: NodeId, kernel: &str) -> Result<String> {
    let weights = if kernel.contains("weight_gradient") {
        graph.node(node).outputs.first().copied()
    } else {
        graph.node(node).inputs.get(1).copied().flatten()
    };
    let taps: usize = match weights {
        Some(weights) if kernel.starts_with("conv") => graph.extents(weights)?.iter().skip(2).product(),
        _ => 0,
    };
    Ok(if taps == 1 { format!("{kernel}-pointwise") } else { kernel.to_owned() })
}

/// How much more arithmetic a convolution does than asked, because it computes whole vectors of channels.
fn padding(kernel: &str, extents: &[usize]) -> f64 {
    let lanes = [("avx512", 16), ("avx2", 8), ("neon", 4)];
    let lanes = lanes.into_iter().find(|(isa, _)| kernel.ends_with(isa)).map_or(1, |(_, lanes)| lanes);
    let axis = usize::from(!kernel.contains("weight_gradient"));
    match extents.get(axis) {
        Some(&channels) if channels > 0 && extents.len() == 4 => {
            (channels.div_ceil(lanes) * lanes) as f64 / channels as f64
        }
        _ => 1.0,
    }
}

/// The time of each step of [`sizes`] in the last timed run.
fn add_up(session: &Session, nodes: &mut [Duration]) {
    let (mut nodes, mut pending) = (nodes.iter_mut(), Duration::ZERO);
    for (step, time) in session.plan().steps().zip(session.step_times()) {
        pending += *time;
        if step.node.is_some()
            && let Some(node) = nodes.next()
        {
            *node = std::mem::take(&mut pending);
        }
    }
}
