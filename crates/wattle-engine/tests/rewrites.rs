//! Random small graphs, rewritten and planned, give what the interpreter says: those of `wattle-graph`'s tests of
//! rewrites, a part of them, on kernels.

use std::sync::Arc;

use wattle_engine::{Cpu, Plan, PlanOptions, Session, Sparse, Store};
use wattle_graph::suite::{Drawn, LEVEL_STEP, Purpose, RandomGraph, difference};
use wattle_graph::{Tensor, interpret};

/// Kernels compute in f32.
const TOLERANCE: f64 = 5e-4;

fn run(drawn: &Drawn, options: &PlanOptions) -> Result<Vec<Tensor>, String> {
    let store = Store::new(&drawn.parameters);
    let plan = Plan::compile(&drawn.graph, &store, options).map_err(|e| e.to_string())?;
    let mut session = Session::new(plan, &store).map_err(|e| e.to_string())?;
    for (name, tensor) in &drawn.feeds {
        session.set_input(name, tensor).map_err(|e| e.to_string())?;
    }
    session.run().map_err(|e| e.to_string())?;
    Ok(session.outputs().map_err(|e| e.to_string())?.into_iter().map(|(_, tensor)| tensor).collect())
}

fn agrees(random: &RandomGraph, options: &PlanOptions) -> Result<(), String> {
    let Ok(drawn) = random.draw() else { return Ok(()) };
    let expected =
        interpret(&drawn.graph, &mut drawn.parameters.clone(), &drawn.feeds).map_err(|e| e.to_string())?;
    let steps = if random.purpose == Purpose::Quantised { 1.01 * f64::from(LEVEL_STEP) } else { 0.0 };
    difference(&expected, &run(&drawn, options)?, TOLERANCE, steps).map_or(Ok(()), Err)
}

fn each(purpose: Purpose, count: u64, sparse: Sparse) {
    let options = PlanOptions { sparse, ..PlanOptions::new(Arc::new(Cpu::new(1).unwrap())) };
    for seed in 0..count {
        let random = RandomGraph::new(purpose, seed);
        if agrees(&random, &options).is_ok() {
            continue;
        }
        let smallest = random.shrunk(|smaller| agrees(smaller, &options).is_err());
        let reason = agrees(&smallest, &options).err().unwrap_or_default();
        panic!("{purpose:?} graph {seed}: {reason}\n{}", smallest.draw().unwrap().graph);
    }
}

#[test]
fn random_networks_run_as_they_are_defined() {
    each(Purpose::Inference, 600, Sparse::Auto);
    each(Purpose::Inference, 200, Sparse::Always);
}

#[test]
fn gradients_of_random_networks_run_as_they_are_defined() {
    each(Purpose::Training, 400, Sparse::Auto);
}

#[test]
fn random_arithmetic_in_bytes_runs_as_it_is_defined() {
    each(Purpose::Quantised, 200, Sparse::Auto);
}
