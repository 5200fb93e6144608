//! Random small graphs, rewritten and planned, give what the interpreter says: those of `wattle-graph`'s tests of
//! rewrites, a part of them, on kernels.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_engine::{Cpu, Plan, PlanOptions, Session, Sparse, Store};
use wattle_graph::ops::{Binary, BinaryFunction, Gemm};
use wattle_graph::suite::{Drawn, LEVEL_STEP, Purpose, RandomGraph, difference};
use wattle_graph::{DType, Example, Graph, Parameters, Shape, Tensor, interpret};

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

/// `x w + c` and what follows, on kernels and interpreted.
fn product_with(c: Tensor, bias: Option<Tensor>) -> (Vec<f64>, Vec<f64>) {
    let mut graph = Graph::new("product");
    let x = graph.input("x", DType::F32, Shape::known(&[3, 2]));
    let (w, c) = (graph.constant(Example::noise(&[2, 3], 2)), graph.constant(c));
    let mut y = graph.apply(Gemm::default(), &[x, w, c]).unwrap();
    if let Some(bias) = bias {
        let bias = graph.constant(bias);
        y = graph.apply(Binary { function: BinaryFunction::Add }, &[y, bias]).unwrap();
    }
    graph.output(y);
    let feeds = BTreeMap::from([("x".to_string(), Example::noise(&[3, 2], 1))]);
    let drawn = Drawn { graph, parameters: Parameters::new(), feeds };
    let expected = interpret(&drawn.graph, &mut Parameters::new(), &drawn.feeds).unwrap();
    let found = run(&drawn, &PlanOptions::new(Arc::new(Cpu::new(1).unwrap()))).unwrap();
    (found[0].to_f64().into_owned(), expected[0].to_f64().into_owned())
}

#[test]
fn every_addend_of_a_product_is_added_where_it_belongs() {
    let noise = |shape: &[usize], seed| Example::noise(shape, seed);
    let columns_and_rows: [&[usize]; 6] = [&[3, 1], &[3], &[1, 3], &[3, 3], &[1], &[]];
    for shape in columns_and_rows {
        for bias in [None, Some(noise(&[3], 4)), Some(noise(&[3, 3], 5))] {
            let (found, expected) = product_with(noise(shape, 3), bias.clone());
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
            assert!(found.iter().zip(&expected).all(close), "{shape:?} {bias:?}: {found:?} {expected:?}");
        }
    }
}
