//! What a model costs, node by node, counted and, if asked, measured.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::{Estimate, Objective, Workload};
use wattle_engine::{Session, Store};
use wattle_graph::{MacKind, Model, costs, totals};

use crate::accel::{self, Modelled};
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models::{self, InputText};
use crate::node_times;
use crate::observer::Observer;
use crate::timings;

/// Timed runs of which the median counts.
const RUNS: usize = 7;

/// What to look at.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileOptions {
    /// The ONNX model.
    pub model: PathBuf,
    /// Shapes or files of inputs; the others are fed noise.
    pub inputs: Vec<(String, InputText)>,
    /// Run the model too.
    pub measure: bool,
    /// Also map it on this architecture, by its name or its file.
    pub accel: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Profiled {
    /// Sums over the nodes.
    pub totals: Totals,
    /// The nodes, in the order they run.
    pub nodes: Vec<Node>,
    /// What the timings are of; absent if nothing was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The whole model on an accelerator; absent if none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accel: Option<Modelled>,
}

/// Sums over the nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Parameters.
    pub params: u64,
    /// Parameters that are not zero.
    pub params_nonzero: u64,
    /// Multiply-accumulates of Conv, MatMul and Gemm, as published model sizes count them.
    pub macs: u64,
    /// Those with weights that are not zero.
    pub macs_effective: u64,
    /// Everything else that multiplies and adds, by kind.
    pub macs_separate: BTreeMap<&'static str, u64>,
    /// Bytes of all operands.
    pub bytes_read: u64,
    /// Bytes of all results.
    pub bytes_written: u64,
    /// Milliseconds of all nodes together, where they were timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

/// A node of the model.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name; that of its first output where it has none.
    pub name: String,
    /// Its operator.
    pub op: &'static str,
    /// Parameters it reads.
    pub params: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Share of its weights that are not zero, where it has weights.
    pub density: Option<f64>,
    /// Median of the timed runs; `null` where the node was folded or fused into another, or not measured.
    pub ms: Option<f64>,
    /// What computed it, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Why that kernel, where there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// On the accelerator; `null` where the host computes it, absent if none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accel: Option<Option<OnAccelerator>>,
}

/// A node on an accelerator, modelled.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OnAccelerator {
    /// Cycles of all its layers.
    pub cycles: f64,
    /// Joules of all its layers.
    pub energy_j: f64,
}

/// What the timings are of.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Timed runs of which the median counts.
    pub runs: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Instruction set.
    pub isa: &'static str,
    /// How times are known.
    pub source: &'static str,
    /// `files` or `noise`.
    pub inputs: &'static str,
    /// Nodes that only the reference interpreter can run, slowly.
    pub interpreted_nodes: Vec<String>,
    /// Parts that the batch is run in; absent where it is run whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
}

/// Counts a model and, if asked, runs it and maps it.
pub fn profile(options: &ProfileOptions, env: &Env, observer: &mut dyn Observer) -> Result<Profiled> {
    let model = models::load(&options.model)?;
    let feeds = models::read_feeds(&options.inputs)?;
    let model = models::bind(&model, &options.inputs, &feeds)?;
    let costs = costs(&model.graph, &model.parameters)?;
    let sums = totals(&costs);
    let mut timed = Timed::default();
    let mut measured = None;
    if options.measure {
        let feeds = models::made_up(&model, &feeds)?;
        timed = measure(&model, &feeds, env)?;
        measured = Some(Measured {
            runs: RUNS,
            threads: env.cpu.threads.count(),
            isa: env.cpu.isa.name(),
            source: "measured:monotonic clock around each step",
            inputs: if options.inputs.iter().any(|i| matches!(i.1, InputText::File(_))) {
                "files"
            } else {
                "noise"
            },
            interpreted_nodes: std::mem::take(&mut timed.interpreted),
            parts: timed.parts,
        });
    }
    let mapped = match &options.accel {
        Some(name) => {
            let arch = accel::architecture(name).map_err(|e| e.of("accel"))?;
            let workload =
                Workload::from_model(&model).map_err(|e| JobError::at(options.model.display(), e))?;
            Some(accel::estimated(&arch, &workload, Objective::default(), env, observer)?)
        }
        None => None,
    };
    let mut separate = BTreeMap::new();
    for (kind, macs) in &sums.other_macs {
        separate.insert(kind_name(*kind), *macs);
    }
    let mut nodes = vec![];
    for cost in &costs {
        let node = model.graph.node(cost.node);
        let name = if node.name.is_empty() { model.graph.label(node.outputs[0]) } else { node.name.clone() };
        let ms = timed.ms.remove(&name);
        let (op, params, macs) = (node.op.name(), cost.parameters, cost.work.macs);
        let (kernel, why) = timed.kernels.remove(&name).unzip();
        let accel = mapped.as_ref().map(|estimate| on_accelerator(estimate, &name));
        let (density, why) = (cost.density(), why.flatten());
        nodes.push(Node { name, op, params, macs, density, ms, kernel, why, accel });
    }
    let total_ms = options
        .measure
        .then(|| nodes.iter().filter_map(|n| n.ms).sum::<f64>() + timed.ms.values().sum::<f64>());
    let totals = Totals {
        params: sums.parameters,
        params_nonzero: sums.nonzero_parameters,
        macs: sums.macs,
        macs_effective: sums.effective_macs,
        macs_separate: separate,
        bytes_read: sums.bytes_read,
        bytes_written: sums.bytes_written,
        ms: total_ms,
    };
    let accel = mapped.map(|e| {
        Modelled::of(&e, "densities of weights: counted in the model; of activations: assumed dense")
    });
    Ok(Profiled { totals, nodes, measured, accel })
}

/// The layers of a node: its own name, or that and the part of it.
fn on_accelerator(estimate: &Estimate, node: &str) -> Option<OnAccelerator> {
    let is_part =
        |name: &str| name.strip_prefix(node).is_some_and(|rest| matches!(rest, "" | ".scores" | ".values"));
    let of_node: Vec<_> = estimate.layers.iter().filter(|l| is_part(&l.name)).collect();
    (!of_node.is_empty()).then(|| OnAccelerator {
        cycles: of_node.iter().map(|l| l.mapped.cost.cycles.total()).sum(),
        energy_j: of_node.iter().map(|l| l.mapped.cost.energy.total()).sum::<f64>() * 1e-12,
    })
}

fn kind_name(kind: MacKind) -> &'static str {
    match kind {
        MacKind::Standard => "standard",
        MacKind::TransposedConv => "conv_transpose",
        MacKind::Recurrent => "recurrent",
        MacKind::Gradient => "gradient",
    }
}

/// The kernel of a node and why it was chosen.
type Chosen = (String, Option<String>);

/// What timed runs tell of the nodes, by their names.
#[derive(Default)]
struct Timed {
    /// Median milliseconds.
    ms: BTreeMap<String, f64>,
    kernels: BTreeMap<String, Chosen>,
    interpreted: Vec<String>,
    /// Parts that the batch was run in, where it was not run whole.
    parts: Option<usize>,
}

fn measure(model: &Model, feeds: &BTreeMap<String, wattle_graph::Tensor>, env: &Env) -> Result<Timed> {
    let store = Store::new(&model.parameters);
    let plan = timings::compile(&model.graph, &store, env.plan_options())?;
    let interpreted = plan.interpreted().into_iter().map(String::from).collect();
    let parts = Some(plan.parts()).filter(|parts| *parts > 1);
    let mut session = Session::new(plan, &store)?;
    for (name, tensor) in feeds {
        session.set_input(name, tensor)?;
    }
    let (mut ms, mut kernels) = (BTreeMap::new(), BTreeMap::new());
    for step in node_times::measure(&mut session, RUNS)? {
        *ms.entry(step.name.clone()).or_insert(0.0) += step.seconds * 1e3;
        if step.node.is_some() {
            kernels.insert(step.name, (step.kernel, step.why));
        }
    }
    Ok(Timed { ms, kernels, interpreted, parts })
}
