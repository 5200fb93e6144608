//! Batches in parts: the results of the whole batch, whatever the parts and the threads.

use std::sync::Arc;

use wattle_engine::{BatchSplit, Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::ops::{
    Binary, BinaryFunction, Conv, Flatten, Function, GlobalPool, MatMul, Pool, PoolKind, Reshape, Sliding,
    Softmax, Transpose, Unary,
};
use wattle_graph::{DType, Example, Graph, GraphError, Shape, Tensor};

/// A small convolutional network: dense, depthwise and sparse layers, a residual, pooling, and heads that view it
/// otherwise; two outputs.
fn network(batch: usize, size: usize) -> Result<Graph, GraphError> {
    let mut g = Graph::new("network");
    let conv = |pad: usize, groups: usize| Conv { sliding: Sliding::padded(2, pad), groups };
    let relu = Unary { function: Function::Relu };
    let add = Binary { function: BinaryFunction::Add };
    let x = g.input("x", DType::F32, Shape::known(&[batch, 3, size, size]));
    let weights = |g: &mut Graph, shape: &[usize], seed| g.constant(Example::noise(shape, seed));
    let w = weights(&mut g, &[32, 3, 3, 3], 1);
    let y = g.apply(conv(1, 1), &[x, w])?;
    let y = g.apply(relu.clone(), &[y])?;
    let w = weights(&mut g, &[32, 1, 3, 3], 2);
    let y = g.apply(conv(1, 32), &[y, w])?;
    let w = g.constant(sparse(&[32, 32, 1, 1]));
    let z = g.apply(conv(0, 1), &[y, w])?;
    let y = g.apply(add.clone(), &[z, y])?;
    let y = g.apply(relu, &[y])?;
    let pool = Pool::new(PoolKind::Max, &[2, 2], Sliding { strides: vec![2, 2], ..Sliding::padded(2, 0) });
    let y = g.apply(pool, &[y])?;
    let map = g.apply(GlobalPool { kind: PoolKind::Average }, &[y])?;
    let flat = g.apply(Flatten { axis: 1 }, &[map])?;
    let w = weights(&mut g, &[32, 10], 4);
    let scores = g.apply(MatMul::default(), &[flat, w])?;
    let scores = g.apply(Softmax { axis: 1, log: false }, &[scores])?;
    // Pixels as tokens: rows of all images in one matrix.
    let tokens = g.apply(Transpose { permutation: vec![0, 2, 3, 1] }, &[y])?;
    let shape = g.constant(Tensor::ints(&[-1, 32]));
    let rows = g.apply(Reshape { allow_zero: false }, &[tokens, shape])?;
    let w = weights(&mut g, &[32, 5], 5);
    let rows = g.apply(MatMul::default(), &[rows, w])?;
    let shape = g.constant(Tensor::ints(&[batch as i64, -1, 5]));
    let tokens = g.apply(Reshape { allow_zero: false }, &[rows, shape])?;
    g.rename(scores, "scores");
    g.rename(tokens, "tokens");
    g.set_outputs(vec![scores, tokens]);
    Ok(g)
}

fn sparse(shape: &[usize]) -> Tensor {
    let noise = Example::noise(shape, 3);
    let values = noise.to_f64().iter().enumerate().map(|(i, x)| if i % 11 == 3 { *x } else { 0.0 }).collect();
    Tensor::from_f64(DType::F32, shape, values)
}

fn plan(graph: &Graph, batch: BatchSplit, threads: usize) -> Plan {
    let cpu = Arc::new(Cpu::new(threads).expect("threads start"));
    Plan::compile(graph, &Store::default(), &PlanOptions { batch, ..PlanOptions::new(cpu) }).expect("a plan")
}

/// Both outputs of the second of two runs on different inputs, the second timed.
fn run(graph: &Graph, batch: BatchSplit, threads: usize) -> Vec<(String, Tensor)> {
    let x = graph.extents(graph.inputs()[0]).expect("known");
    let mut session = Session::new(plan(graph, batch, threads), &Store::default()).expect("a session");
    session.set_input("x", &Example::noise(&x, 8)).expect("fits");
    session.run().expect("runs");
    session.set_input("x", &Example::noise(&x, 9)).expect("fits");
    session.run_timed().expect("runs");
    session.outputs().expect("outputs")
}

#[test]
fn parts_give_what_the_whole_batch_gives_on_any_number_of_threads() {
    for (batch, parts) in [(2, vec![2]), (3, vec![3]), (5, vec![5]), (6, vec![2, 3, 6])] {
        let graph = network(batch, 13).expect("a graph");
        let whole = run(&graph, BatchSplit::Whole, 1);
        for count in parts {
            let mut first: Option<Vec<(String, Tensor)>> = None;
            for threads in [1, 2, 3] {
                assert_eq!(plan(&graph, BatchSplit::Parts(count), threads).parts(), count);
                let got = run(&graph, BatchSplit::Parts(count), threads);
                for ((name, got), (_, want)) in got.iter().zip(&whole) {
                    assert_eq!(got.shape(), want.shape(), "{name}");
                    let (got, want) = (got.to_f64(), want.to_f64());
                    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                    let off = got.iter().zip(want.iter()).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                    assert!(off <= 1e-6 * scale, "{name}: batch {batch} in {count} parts is off by {off}");
                }
                let first = first.get_or_insert_with(|| got.clone());
                assert_eq!(*first, got, "bits depend on the number of threads");
            }
        }
    }
}

#[test]
fn steps_are_named_and_timed_and_memory_is_counted_for_every_thread() {
    let graph = network(4, 32).expect("a graph");
    let whole = plan(&graph, BatchSplit::Whole, 1);
    let [one, two] = [1, 2].map(|threads| plan(&graph, BatchSplit::Parts(4), threads));
    let nodes =
        |plan: &Plan| plan.steps().filter_map(|s| Some((s.node?, s.name.clone()))).collect::<Vec<_>>();
    assert_eq!(nodes(&whole), nodes(&one));
    assert_eq!(one.graph(), whole.graph());
    assert!(one.arena_bytes() < two.arena_bytes() && two.arena_bytes() < whole.arena_bytes());
    let mut session = Session::new(two, &Store::default()).expect("a session");
    session.run_timed().expect("runs");
    assert!(session.step_times().iter().all(|time| !time.is_zero()));
    let options = PlanOptions {
        memory_limit: one.arena_bytes() - 1,
        batch: BatchSplit::Parts(4),
        ..PlanOptions::new(Arc::new(Cpu::new(1).expect("one thread")))
    };
    assert!(Plan::compile(&graph, &Store::default(), &options).is_err());
}

#[test]
fn only_batches_that_leave_the_cache_are_cut() {
    assert_eq!(plan(&network(8, 64).expect("a graph"), BatchSplit::Auto, 1).parts(), 8);
    assert_eq!(plan(&network(8, 13).expect("a graph"), BatchSplit::Auto, 1).parts(), 1);
    assert_eq!(plan(&network(1, 64).expect("a graph"), BatchSplit::Auto, 1).parts(), 1);
    // A matrix that is large beside its activations would be read once for every part.
    let mut graph = Graph::new("layer");
    let x = graph.input("x", DType::F32, Shape::known(&[256, 1024]));
    let w = graph.constant(Example::noise(&[1024, 1024], 1));
    let y = graph.apply(MatMul::default(), &[x, w]).expect("fits");
    graph.set_outputs(vec![y]);
    assert_eq!(plan(&graph, BatchSplit::Auto, 1).parts(), 1);
}
