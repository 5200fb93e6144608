//! Milliseconds of one training step: ResNet-20 (batch 128, 3x32x32, SGD with momentum) and LeNet-300-100
//! (batch 60, Adam). Arguments: threads (default 1), `profile` to list the slowest steps.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/networks/mod.rs"]
#[allow(dead_code, reason = "each bench builds some of the networks")]
mod networks;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use networks::step::Optimizer;
use networks::{lenet, resnet};
use wattle_engine::{Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::{Example, Graph, Parameters, Tensor};
use wattle_meter::timing::{Turns, repeated};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let threads = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(1);
    let profile = arguments.iter().any(|a| a == "profile");
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    let adam = Optimizer::Adam { weight_decay: 0.0, decoupled: false };
    time("LeNet-300-100 B60 Adam", lenet(60, adam), &[60, 784], threads, 300, profile)?;
    time(
        "ResNet-20 B128 SGD",
        resnet(128, 32, &[16, 32, 64], 3, sgd),
        &[128, 3, 32, 32],
        threads,
        12,
        profile,
    )
}

fn time(
    name: &str,
    (graph, parameters): (Graph, Parameters),
    shape: &[usize],
    threads: usize,
    runs: usize,
    profile: bool,
) -> Result<(), Box<dyn Error>> {
    let options = PlanOptions::new(Arc::new(Cpu::new(threads)?));
    let store = Store::new(&parameters);
    let mut session = Session::new(Plan::compile(&graph, &store, &options)?, &store)?;
    session.set_input("x", &Example::noise(shape, 7))?;
    session.set_input("labels", &Tensor::ints(&(0..shape[0] as i64).map(|i| i % 10).collect::<Vec<_>>()))?;
    session.set_input("rate", &Tensor::f32([], vec![0.01]))?;
    if graph.find("step").is_some() {
        session.set_input("step", &Tensor::f32([], vec![1.0]))?;
    }
    let times = repeated(&Turns::exactly(runs), || session.run())?;
    let (least, median) = (1e3 * times.least(), 1e3 * times.median());
    let arena = session.plan().arena_bytes() >> 20;
    println!("{name}: {threads} threads, min {least:.3} ms, median {median:.3} ms, arena {arena} MiB");
    if profile {
        list(&mut session)?;
    }
    Ok(())
}

/// Time by kernel, and the slowest single steps.
fn list(session: &mut Session) -> Result<(), Box<dyn Error>> {
    let count = session.plan().steps().count();
    let mut best = vec![Duration::MAX; count];
    for _ in 0..5 {
        session.run_timed()?;
        best.iter_mut().zip(session.step_times()).for_each(|(b, &t)| *b = t.min(*b));
    }
    let mut kernels: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
    for (step, &time) in session.plan().steps().zip(&best) {
        let entry = kernels.entry(step.kernel.clone()).or_default();
        *entry = (entry.0 + 1, entry.1 + time);
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
    for (kernel, (count, time)) in kernels {
        println!("  {:9.3} ms {count:4} x {kernel}", time.as_secs_f64() * 1e3);
    }
    let mut steps: Vec<_> = session.plan().steps().zip(&best).collect();
    steps.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
    for (step, time) in steps.iter().take(25) {
        println!("  {:9.3} ms {} `{}`", time.as_secs_f64() * 1e3, step.kernel, step.name);
    }
    Ok(())
}
