//! What many networks over shared parameters cost: planning a sampled sub-network beside its training step, a policy that acts
//! between updates beside a frozen one, a decoder's token beside how many came before it, and the branch that is not taken.
//!
//! Arguments: a number of threads (default 1); `write` to put the table into `docs/results/shared-parameters.md`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/networks/mod.rs"]
#[allow(dead_code, reason = "each bench builds some of the networks")]
mod networks;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use networks::decoder::Decoder;
use networks::prefixes::{View, within};
use networks::step::{Home, SGD, training_step};
use networks::{Noise, Transformer, fresh, inference};
use wattle_engine::{Cpu, EngineError, Freeze, Isa, Plan, PlanCache, PlanOptions, Session, Store};
use wattle_graph::layers::{Built, Initially, Layers};
use wattle_graph::networks::Heads;
use wattle_graph::onnx::{Limits, read_model};
use wattle_graph::ops::Gemm;
use wattle_graph::{DType, Example, Graph, NodeId, Op, Role, Shape, Tensor, ValueId};
use wattle_meter::Machine;
use wattle_meter::bystanders::Watch;
use wattle_meter::timing::{Times, Turns, in_turns, listed, once, repeated};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The page with the table, and what is around the table there.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/results/shared-parameters.md");
const TABLE: [&str; 2] = ["<!-- table: begin -->\n", "<!-- table: end -->\n"];

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(1);
    let cpu = Arc::new(match std::env::var("WATTLE_ISA") {
        Ok(name) => Cpu::with_isa(Isa::named(&name)?, threads)?,
        Err(_) => Cpu::new(threads)?,
    });
    let options = |freeze| PlanOptions { freeze, ..PlanOptions::new(cpu.clone()) };
    let watch = Watch::begin(&[]);
    let mut rows = vec![];
    rows.extend(supernet(&options(Freeze::None))?);
    rows.extend(policy(&[options(Freeze::All), options(Freeze::None)])?);
    rows.extend(decode(&options(Freeze::All))?);
    rows.extend(branches(&options(Freeze::All))?);
    let state = match watch.warning() {
        Some(warning) => format!("busy ({warning})"),
        None => "quiet".into(),
    };
    let processor = Machine::identify().cpu_model.unwrap_or_else(|| "a processor without a name".into());
    let mut table = format!(
        "measured: {processor}, {threads} thread(s), {}; {state}.\n\n| what | measured | limit | |\n|---|---|---|---|\n",
        cpu.isa.name()
    );
    rows.iter().for_each(|row| table.push_str(&row.to_string()));
    println!("{table}");
    if arguments.iter().any(|a| a == "write") {
        let page = std::fs::read_to_string(PAGE)?;
        let [begin, end] = TABLE;
        let (before, rest) = page.split_once(begin).ok_or("the page has no place for the table")?;
        let (_, after) = rest.split_once(end).ok_or("the page has no place for the table")?;
        std::fs::write(PAGE, format!("{before}{begin}{table}{end}{after}"))?;
    }
    Ok(())
}

/// One line of the table.
struct Row {
    what: String,
    measured: String,
    /// The value that is limited and what it may be at most, in one unit.
    limit: Option<(f64, f64, &'static str)>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (limit, held) = match self.limit {
            Some((value, most, unit)) => {
                (format!("{most}{unit}"), if value <= most { "held" } else { "missed" })
            }
            None => (String::new(), ""),
        };
        writeln!(f, "| {} | {} | {limit} | {held} |", self.what, self.measured)
    }
}

fn supernet(options: &PlanOptions) -> Outcome<Vec<Row>> {
    fn step<S: Home>(mut layers: Layers<S>, own: &Transformer) -> Outcome<(Graph, S)> {
        let logits = own.build(&mut layers, [32, 64], 1000)?;
        Ok(training_step(layers, logits, SGD))
    }
    let sized = |layers, width, heads, hidden| {
        let heads = Heads { count: heads, width: 32 };
        Transformer { layers, width, heads, hidden }
    };
    let most = sized(4, 256, 8, 1024);
    let largest = step(fresh("supernet"), &most)?.1.parameters;
    let store = Store::new(&largest);
    let cache = PlanCache::new(64 << 20);
    let mut held: Option<Session> = None;
    let mut rows = vec![];
    for own in [most, sized(4, 224, 6, 896), sized(3, 192, 4, 512), sized(1, 64, 2, 128)] {
        let graph = step(within(&largest, View::Windows), &own)?.0;
        let cold = repeated(&Turns::exactly(5), || Plan::compile(&graph, &store, options).map(drop))?;
        let plan = cache.get(&graph, &store, options)?;
        let warm = repeated(&Turns::exactly(50), || cache.get(&graph, &store, options).map(drop))?;
        // A graph that was built anew has to be read before it is known to be the same.
        let first = graph.value_ids().next().ok_or("a graph of nothing")?;
        let mut again = graph.clone();
        let anew = in_turns(&Turns::exactly(50), 1, |_| {
            again.rename(first, again.label(first));
            once(|| cache.get(&again, &store, options).map(drop))
        })?;
        let session = match &mut held {
            Some(session) => session,
            none => none.insert(Session::new(plan.clone(), &store)?),
        };
        session.replan(plan)?;
        let tokens: Vec<i64> = (0..2048).map(|i| i * 7 % 1000).collect();
        session.set_input("x", &Tensor::i64([32, 64], tokens.clone()))?;
        session.set_input("labels", &Tensor::ints(&tokens))?;
        session.set_input("rate", &Tensor::f32([], vec![1e-3]))?;
        let step = repeated(&Turns::exactly(5), || session.run())?.least();
        let share = |times: &Times| 100.0 * times.least() / step;
        let Transformer { layers, width, heads: Heads { count, .. }, hidden } = own;
        let what = format!("Transformer {layers} x {width}, {count} heads, {hidden} hidden, 32 x 64 tokens");
        rows.push(Row {
            what: format!("{what}: planning, cold"),
            measured: format!(
                "{:.2} ms of a step of {:.1} ms: {:.2} %",
                1e3 * cold.least(),
                1e3 * step,
                share(&cold)
            ),
            limit: Some((share(&cold), 5.0, " %")),
        });
        rows.push(Row {
            what: format!("{what}: planning, warm"),
            measured: format!(
                "{:.1} us: {:.3} %; {:.1} us: {:.3} % for a graph built anew",
                1e6 * warm.least(),
                share(&warm),
                1e6 * anew[0].least(),
                share(&anew[0])
            ),
            limit: Some((share(&warm), 0.1, " %")),
        });
    }
    Ok(rows)
}

/// 128-128-16 over one observation, or over `batch` of them.
fn actor(layers: &mut Layers<Noise>, batch: usize, transpose_b: bool) -> Built {
    let mut x = layers.graph.input("x", DType::F32, Shape::known(&[batch, 128]));
    for (layer, [inputs, outputs]) in [[128, 128], [128, 128], [128, 16]].into_iter().enumerate() {
        let extents = if transpose_b { [outputs, inputs] } else { [inputs, outputs] };
        let drawn = Initially::Drawn { fan_in: inputs, fan_out: outputs };
        let w = layers.parameter(&format!("w{layer}"), &extents, Role::Trainable, drawn)?;
        let b = layers.vector(&format!("b{layer}"), outputs, 0.0)?;
        x = layers.apply(Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b }, &[x, w, b])?;
        x = if layer < 2 { layers.relu(x)? } else { x };
    }
    Ok(x)
}

fn policy(options: &[PlanOptions; 2]) -> Outcome<Vec<Row>> {
    let mut rows = vec![];
    for (batch, transpose_b) in [(1, false), (1, true), (16, true)] {
        let mut acting = fresh("policy");
        let y = actor(&mut acting, batch, transpose_b)?;
        let acting = inference(acting, y).0;
        let mut learning = fresh("policy");
        let logits = actor(&mut learning, 32, transpose_b)?;
        let (learning, source) = training_step(learning, logits, SGD);
        let store = Store::new(&source.parameters);
        let open = |graph: &Graph, options: &PlanOptions| {
            Session::new(Plan::compile(graph, &store, options)?, &store)
        };
        let mut learn = open(&learning, &options[1])?;
        learn.set_input("x", &Example::noise(&[32, 128], 7))?;
        learn.set_input("labels", &Tensor::ints(&[3; 32]))?;
        learn.set_input("rate", &Tensor::f32([], vec![1e-3]))?;
        let mut sessions = [open(&acting, &options[0])?, open(&acting, &options[1])?];
        for session in &mut sessions {
            session.set_input("x", &Example::noise(&[batch, 128], 1))?;
        }
        // The run right after an update finds other things in the caches than the ones after it, whatever it runs on.
        let mut after = [vec![], vec![]];
        let later = in_turns(&Turns::exactly(300), 2, |contender| {
            learn.run()?;
            let session = &mut sessions[contender];
            after[contender].push(once(|| session.run())?.as_secs_f64());
            let runs = repeated(&Turns::exactly(9).warmed(0), || session.run())?;
            Ok::<_, Box<dyn Error>>(Duration::from_secs_f64(runs.median()))
        })?;
        let [frozen, moving] = [&later[0], &later[1]].map(|times| 1e6 * times.median());
        let [frozen_after, moving_after] =
            after.map(|times| 1e6 * Times::of(times).map_or(f64::NAN, |times| times.median()));
        let name = if transpose_b { "[out, in]" } else { "[in, out]" };
        let single = (batch == 1).then_some(());
        for (when, frozen, moving) in
            [("between updates", frozen, moving), ("first run after each", frozen_after, moving_after)]
        {
            let ratio = moving / frozen;
            rows.push(Row {
                what: format!("policy 128-128, batch {batch}, weights `{name}`: {when}"),
                measured: format!("{moving:.2} us, frozen {frozen:.2} us: {ratio:.2}"),
                limit: single.map(|()| (ratio, 1.3, "")),
            });
        }
    }
    Ok(rows)
}

fn decode(options: &PlanOptions) -> Outcome<Vec<Row>> {
    let mut rows = vec![];
    let mut most = 1.0f64;
    for (length, places) in [(512, &[16, 64, 256, 511][..]), (4096, &[16, 4095])] {
        let size = Decoder { layers: 4, heads: Heads { count: 8, width: 32 }, tokens: 1000, length };
        let (graph, parameters) = size.step();
        let store = Store::new(&parameters);
        let mut session = Session::new(Plan::compile(&graph, &store, options)?, &store)?;
        let attends: Vec<bool> =
            session.plan().steps().map(|step| attends(session.plan().graph(), step.node, length)).collect();
        // All places take turns; of each, the steps of attention and all others.
        let times = listed(&Turns::exactly(100), 2 * places.len(), |times| {
            for (parts, &place) in times.chunks_exact_mut(2).zip(places) {
                session.set_input("place", &Tensor::ints(&[place]))?;
                session.run_timed()?;
                parts.fill(Duration::ZERO);
                for (time, attends) in session.step_times().iter().zip(&attends) {
                    parts[usize::from(!attends)] += *time;
                }
            }
            Ok::<(), EngineError>(())
        })?;
        let first = times[1].least();
        for (parts, place) in times.chunks_exact(2).zip(places) {
            let [attention, rest] = [&parts[0], &parts[1]].map(Times::least);
            let change = rest / first;
            most = most.max(change);
            rows.push(Row {
                what: format!("decoder 4 x 256, token {place} of at most {length}"),
                measured: format!(
                    "attention {:.0} us, the rest {:.0} us, {change:.2} times the first",
                    1e6 * attention,
                    1e6 * rest
                ),
                limit: None,
            });
        }
    }
    rows.push(Row {
        what: "decoder: time but for attention, longest over that of the first place".into(),
        measured: format!("{most:.2}"),
        limit: Some((most, 1.1, "")),
    });
    Ok(rows)
}

/// Whether a step computes attention: it has to do with a value as long as the longest text, and is not what looks a position
/// up or writes a key or a value.
fn attends(graph: &Graph, node: Option<NodeId>, length: usize) -> bool {
    let Some(node) = node.map(|node| graph.node(node)) else { return false };
    let long = |&id: &ValueId| graph.extents(id).is_ok_and(|extents| extents.contains(&length));
    let values = node.inputs.iter().flatten().chain(&node.outputs);
    !matches!(node.op, Op::Gather(_) | Op::ScatterNd(_)) && values.into_iter().any(long)
}

fn branches(options: &PlanOptions) -> Outcome<Vec<Row>> {
    let target = std::env::var("CARGO_TARGET_DIR")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").into());
    let path = Path::new(&target).join("models/silero-vad/silero_vad.onnx");
    let what = "`If` of silero_vad.onnx";
    if !path.exists() {
        let measured = "not measured: the file is not here (`.ci/fetch-test-data`)".into();
        return Ok(vec![Row { what: what.into(), measured, limit: None }]);
    }
    let model = read_model(&path, &Limits::default())?;
    let bound = model.bind(&[("input", &[1, 576]), ("state", &[2, 1, 128]), ("sr", &[])])?;
    let store = Store::new(&bound.parameters);
    let mut session = Session::new(Plan::compile(&bound.graph, &store, options)?, &store)?;
    session.set_input("input", &Example::noise(&[1, 576], 3))?;
    session.set_input("state", &Example::noise(&[2, 1, 128], 4))?;
    session.set_input("sr", &Tensor::i64([], vec![16_000]))?;
    session.run()?;
    let mut calls = vec![];
    for (_, inside) in session.plan().inside() {
        calls.push(inside.runs * inside.plan.steps().count() as u64);
    }
    let taken: u64 = calls.iter().copied().max().unwrap_or(0);
    let other = calls.iter().sum::<u64>() - taken;
    Ok(vec![Row {
        what: what.into(),
        measured: format!(
            "{taken} kernel calls in the branch taken, {other} in others ({} planned at this size); nodes on the interpreter: {}",
            calls.len() - 1,
            session.plan().interpreted().len()
        ),
        limit: Some((other as f64, 0.0, " calls")),
    }])
}
