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

use std::collections::BTreeMap;

use wattle_engine::{Plan, Session};
use wattle_graph::{Example, Graph, Model, NodeId, Parameters, costs};
use wattle_meter::device::Device;
use wattle_meter::{Quantity, Source, Unit};
use wattle_train::loss::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::training_graph::training_graph;

use crate::context::Context;
use crate::failure::Failure;
use kernels::{Kernels, Size};

/// Timed runs of each probe. Each step's third shortest time counts, the lower median: others share the machine and
/// only slow it.
const RUNS: usize = 6;

/// A predicted duration.
pub struct Prediction {
    /// One run of the graph.
    pub seconds: Quantity,
    /// Kernels that no probe runs; their times come from kernels of other kinds.
    pub unknown: Vec<String>,
}

/// Predicts one run of a planned graph on this machine, after timing probes for about a second or two.
pub fn on_this_machine(plan: &Plan, training: bool, context: &Context) -> Result<Prediction, Failure> {
    let kernels = calibrate(training, context)?;
    let (mut value, mut low, mut high) = (0.0, 0.0, 0.0);
    let mut unknown: BTreeMap<String, ()> = BTreeMap::new();
    let steps = sizes(plan)?;
    for (kernel, size) in &steps {
        let time = kernels.predict(kernel, *size);
        (value, low, high) = (value + time.value, low + time.low, high + time.high);
        if !time.known {
            unknown.insert(kernel.clone(), ());
        }
    }
    let source = format!("roofline/1 calibrated on this machine, {} threads", context.cpu.threads.count());
    let seconds =
        Quantity::new(value, low.min(value), high.max(value), Unit::Second, Source::modelled(source))
            .map_err(|e| Failure::Run(e.to_string()))?;
    Ok(Prediction { seconds, unknown: unknown.into_keys().collect() })
}

/// Predicts one run on a device by its peak arithmetic and memory traffic: for each node whichever takes longer.
/// `utilisation` is the share of the peak that arithmetic reaches; traffic is assumed to reach 50 to 90 %.
pub fn on_device(
    graph: &Graph,
    parameters: &Parameters,
    device: &Device,
    utilisation: &Quantity,
) -> Result<Prediction, Failure> {
    let missing =
        |what: &str| Failure::Input(format!("--device {}: its {what} is not in the table", device.id));
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
        .map_err(|e| Failure::Run(e.to_string()))?;
    Ok(Prediction { seconds, unknown: vec![] })
}

/// Times the probes and fits every kind of kernel.
fn calibrate(training: bool, context: &Context) -> Result<Kernels, Failure> {
    let mut observed: Vec<(String, Size, f64)> = vec![];
    for probe in probes::probes(training)? {
        let (graph, parameters) = if probe.training {
            let loss = Loss::CrossEntropy { label_smoothing: 0.0 };
            let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
            training_graph(&probe.model, loss, optimizer)?
        } else {
            (probe.model.graph, probe.model.parameters)
        };
        let plan = Plan::compile(&graph, &parameters, &context.plan_options())?;
        let sizes = sizes(&plan)?;
        let mut session = Session::new(plan, &parameters)?;
        feed(&mut session, &Model { graph, parameters })?;
        session.run()?;
        let mut samples: Vec<Vec<f64>> = vec![];
        for _ in 0..RUNS {
            session.run_timed()?;
            samples.push(times(&session));
        }
        for (index, (kernel, size)) in sizes.into_iter().enumerate() {
            let mut column: Vec<f64> = samples.iter().map(|s| s[index]).collect();
            column.sort_by(f64::total_cmp);
            observed.push((kernel, size, column[(RUNS - 1) / 2]));
        }
    }
    Ok(Kernels::fit(observed))
}

/// Noise for floats; labels (i64) and scalars stay what the arena starts with, zero, which changes no time.
fn feed(session: &mut Session, model: &Model) -> Result<(), Failure> {
    if let Some(&input) = model.graph.inputs().first() {
        let noise = Example::noise(&model.graph.extents(input)?, 1);
        session.set_input(&model.graph.label(input), &noise)?;
    }
    Ok(())
}

/// Kernel and size of every step that computes a node; a change of layout counts to the step it is made for.
fn sizes(plan: &Plan) -> Result<Vec<(String, Size)>, Failure> {
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
                macs: cost.work.macs as f64 * padding(&step.kernel, &extents),
                bytes: (cost.bytes_read + cost.bytes_written) as f64,
                outputs: outputs as f64,
            },
        ));
    }
    Ok(sizes)
}

/// The kernel's name; convolutions of one tap are a kind of their own, for they are plain matrix products.
fn kind(graph: &Graph, node: NodeId, kernel: &str) -> Result<String, Failure> {
    let weights = graph.node(node).inputs.get(1).copied().flatten();
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

/// Seconds of each step of [`sizes`] in the last timed run.
fn times(session: &Session) -> Vec<f64> {
    let (mut times, mut pending) = (vec![], 0.0);
    for (step, time) in session.plan().steps().zip(session.step_times()) {
        pending += time.as_secs_f64();
        if step.node.is_some() {
            times.push(pending);
            pending = 0.0;
        }
    }
    times
}
