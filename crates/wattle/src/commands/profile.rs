//! `wattle profile`: what a model costs, node by node, counted and, if asked, measured.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::{Estimate, Objective, Workload};
use wattle_engine::Session;
use wattle_graph::{MacKind, Model, costs, totals};
use wattle_report::{Align, Table, number};

use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::node_times;
use wattle_jobs::accel::{Modelled, request};
use wattle_jobs::models::{self, InputText};
use wattle_jobs::timings;

/// Timed runs of which the median counts.
const RUNS: usize = 7;

/// Arguments of `wattle profile`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle profile model.onnx --input x=1x3x416x416 --measure")]
pub struct Args {
    /// The ONNX model.
    model: PathBuf,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Run the model and say how long each node takes.
    #[arg(long)]
    pub measure: bool,
    /// Also what this architecture would make of it (see `wattle accel archs`), or one in a .toml or .yaml file:
    /// modelled, zeros of weights as counted, activations dense.
    #[arg(long, value_name = "ARCH")]
    accel: Option<String>,
}

#[derive(Serialize)]
struct Document {
    totals: Totals,
    nodes: Vec<Node>,
    /// What the timings are of; absent without `--measure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
    /// The whole model on an accelerator; absent without `--accel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    accel: Option<Modelled>,
}

#[derive(Serialize)]
struct Totals {
    params: u64,
    params_nonzero: u64,
    /// Conv, MatMul and Gemm, as published model sizes count them.
    macs: u64,
    macs_effective: u64,
    /// Everything else that multiplies and adds, by kind.
    macs_separate: BTreeMap<&'static str, u64>,
    bytes_read: u64,
    bytes_written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    op: &'static str,
    params: u64,
    macs: u64,
    density: Option<f64>,
    /// Median of the timed runs; `null` where the node was folded or fused into another, or not measured.
    ms: Option<f64>,
    /// What computed it, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    /// Why that kernel, where there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// On the accelerator; `null` where the host computes it, absent without `--accel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    accel: Option<Option<OnAccelerator>>,
}

/// A node on an accelerator, modelled.
#[derive(Clone, Copy, Serialize)]
struct OnAccelerator {
    cycles: f64,
    energy_j: f64,
}

#[derive(Serialize)]
struct Measured {
    runs: usize,
    threads: usize,
    isa: &'static str,
    source: &'static str,
    inputs: &'static str,
    interpreted_nodes: Vec<String>,
    /// Parts that the batch is run in; absent where it is run whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<usize>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let model = models::load(&args.model)?;
    let feeds = models::read_feeds(&args.inputs)?;
    let model = models::bind(&model, &args.inputs, &feeds)?;
    let costs = costs(&model.graph, &model.parameters)?;
    let sums = totals(&costs);
    let mut timed = Timed::default();
    let mut measured = None;
    if args.measure {
        let feeds = models::made_up(&model, &feeds)?;
        timed = measure(&model, &feeds, context)?;
        measured = Some(Measured {
            runs: RUNS,
            threads: context.cpu.threads.count(),
            isa: context.cpu.isa.name(),
            source: "measured:monotonic clock around each step",
            inputs: if args.inputs.iter().any(|i| matches!(i.1, InputText::File(_))) {
                "files"
            } else {
                "noise"
            },
            interpreted_nodes: std::mem::take(&mut timed.interpreted),
            parts: timed.parts,
        });
    }
    let mapped = match &args.accel {
        Some(name) => {
            let arch = request::architecture(name).map_err(|f| f.context("--accel"))?;
            let workload = Workload::from_model(&model).map_err(|e| Failure::at(args.model.display(), e))?;
            Some(request::estimated(&arch, &workload, Objective::default(), context, &mut Bars::default())?)
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
    let total_ms =
        args.measure.then(|| nodes.iter().filter_map(|n| n.ms).sum::<f64>() + timed.ms.values().sum::<f64>());
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
    let document = Document { totals, nodes, measured, accel };
    context.print(&document, &text(&document))
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

fn measure(
    model: &Model,
    feeds: &BTreeMap<String, wattle_graph::Tensor>,
    context: &Context,
) -> Result<Timed, Failure> {
    let plan = timings::compile(&model.graph, &model.parameters, context.plan_options())?;
    let interpreted = plan.interpreted().into_iter().map(String::from).collect();
    let parts = Some(plan.parts()).filter(|parts| *parts > 1);
    let mut session = Session::new(plan, &model.parameters)?;
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

fn text(document: &Document) -> String {
    let mut columns = vec![
        ("node", Align::Left),
        ("op", Align::Left),
        ("params", Align::Right),
        ("MACs", Align::Right),
        ("density", Align::Right),
        ("ms", Align::Right),
    ];
    if document.accel.is_some() {
        columns.extend([("cycles", Align::Right), ("energy", Align::Right)]);
    }
    let mut table = Table::new(columns);
    for node in &document.nodes {
        let mut row = vec![
            node.name.clone(),
            node.op.to_string(),
            if node.params > 0 { number::count(node.params as f64) } else { String::new() },
            if node.macs > 0 { number::count(node.macs as f64) } else { String::new() },
            node.density.map_or(String::new(), number::percent),
            node.ms.map_or(String::new(), |ms| format!("{ms:.3}")),
        ];
        if let Some(on) = node.accel.flatten() {
            row.extend([number::count(on.cycles.round()), number::si(on.energy_j, "J")]);
        }
        table.row(row);
    }
    let t = &document.totals;
    let mut text = table.to_string();
    for node in &document.nodes {
        if let (Some(kernel), Some(why)) = (&node.kernel, &node.why) {
            text += &format!("{}: {kernel}: {why}\n", node.name);
        }
    }
    text += &format!(
        "\nparameters {} ({} non-zero), MACs {} ({} effective), read {}, written {}\n",
        number::count(t.params as f64),
        number::count(t.params_nonzero as f64),
        number::count(t.macs as f64),
        number::count(t.macs_effective as f64),
        number::si(t.bytes_read as f64, "B"),
        number::si(t.bytes_written as f64, "B"),
    );
    if let Some(accel) = &document.accel {
        text += &format!("{}\n", accel.sentence());
    }
    for (kind, macs) in &t.macs_separate {
        text += &format!("counted apart: {} MACs of kind {kind}\n", number::count(*macs as f64));
    }
    if let (Some(ms), Some(m)) = (t.ms, &document.measured) {
        text += &format!(
            "measured on {}: {ms:.3} ms, median of {} runs, {} threads, {}\n",
            m.inputs, m.runs, m.threads, m.isa
        );
        if let Some(parts) = m.parts {
            text += &format!("the batch was run in {parts} parts, all layers for each in turn\n");
        }
        if !m.interpreted_nodes.is_empty() {
            text += &format!("no kernel, interpreted: {}\n", m.interpreted_nodes.join(", "));
        }
    }
    text
}
