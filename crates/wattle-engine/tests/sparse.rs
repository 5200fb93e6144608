//! Which layers run on sparse kernels, and that they compute what dense kernels compute.

use std::sync::Arc;

use wattle_engine::{Cpu, Plan, PlanOptions, Session, Sparse, Timings};
use wattle_graph::ops::{Conv, MatMul, Sliding};
use wattle_graph::{DType, Example, Graph, Op, Parameters, Shape, Tensor};

/// Weights of which every tenth, or all, are kept.
fn weights(shape: &[usize], sparse: bool) -> Tensor {
    let noise = Example::noise(shape, 3);
    // A step that is prime to the extents spreads the kept ones over rows and columns.
    let kept = |i: usize| !sparse || i * 7 % 10 == 3 + i / 10 % 7;
    let values =
        noise.to_f64().iter().enumerate().map(|(i, x)| if kept(i) { x + 2.0 } else { 0.0 }).collect();
    Tensor::from_f64(DType::F32, shape, values)
}

fn graph(op: impl Into<Op>, x: &[usize], w: &[usize], sparse: bool) -> Graph {
    let mut graph = Graph::new("layer");
    let input = graph.input("x", DType::F32, Shape::known(x));
    let w = graph.constant(weights(w, sparse));
    let y = graph.apply(op, &[input, w]).expect("operands fit");
    graph.set_outputs(vec![y]);
    graph
}

fn convolution() -> Conv {
    Conv { sliding: Sliding { strides: vec![2, 2], ..Sliding::padded(2, 1) }, groups: 1 }
}

/// The kernel, why it was chosen, and the result.
fn run(graph: &Graph, sparse: Sparse, threads: usize) -> (String, Option<String>, Vec<f64>) {
    let cpu = Arc::new(Cpu::new(threads).expect("threads start"));
    let options = PlanOptions { sparse, ..PlanOptions::new(cpu) };
    let plan = Plan::compile(graph, &Parameters::new(), &options).expect("a plan");
    let step = plan.steps().find(|s| s.node.is_some()).expect("one node").clone();
    let x = graph.extents(graph.inputs()[0]).expect("known");
    let mut session = Session::new(plan, &Parameters::new()).expect("a session");
    session.set_input("x", &Example::noise(&x, 1)).expect("fits");
    session.run().expect("runs");
    let outputs = session.outputs().expect("one output");
    (step.kernel, step.why, outputs[0].1.to_f64().to_vec())
}

#[test]
fn sparse_layers_run_on_sparse_kernels_and_agree_with_dense_ones() {
    let layers = [
        graph(MatMul::default(), &[128, 256], &[256, 300], true),
        graph(MatMul::default(), &[1, 784], &[784, 300], true),
        graph(convolution(), &[2, 64, 15, 14], &[64, 64, 3, 3], true),
        graph(Conv { sliding: Sliding::padded(2, 0), groups: 1 }, &[1, 128, 14, 14], &[256, 128, 1, 1], true),
    ];
    for layer in &layers {
        let (kernel, why, got) = run(layer, Sparse::Auto, 1);
        assert!(kernel.contains("sparse"), "{kernel}: {why:?}");
        assert!(why.is_some_and(|w| w.contains("faster than dense")));
        let (dense, _, want) = run(layer, Sparse::Never, 1);
        assert!(!dense.contains("sparse"), "{dense}");
        let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * scale), "{kernel}");
        assert_eq!(got, run(layer, Sparse::Auto, 2).2, "threads change bits of {kernel}");
    }
}

#[test]
fn dense_layers_stay_dense_without_a_word() {
    let layer = graph(MatMul::default(), &[128, 256], &[256, 300], false);
    let (kernel, why, _) = run(&layer, Sparse::Auto, 1);
    assert!(!kernel.contains("sparse"), "{kernel}");
    assert_eq!(why, None);
}

#[test]
fn a_layer_that_sparse_kernels_would_slow_down_stays_dense_and_says_so() {
    // Two outputs: transposing the activations costs more than the product.
    let layer = graph(MatMul::default(), &[512, 64], &[64, 2], true);
    let (kernel, why, _) = run(&layer, Sparse::Auto, 1);
    assert!(!kernel.contains("sparse"), "{kernel}");
    assert!(why.is_some_and(|w| w.contains("best sparse kernel")));
}

/// The kernel of a plan that these timings decide, and why.
fn planned(graph: &Graph, timings: &Arc<Timings>) -> (String, String) {
    let cpu = Arc::new(Cpu::new(1).expect("threads start"));
    let options = PlanOptions { timings: Some(timings.clone()), ..PlanOptions::new(cpu) };
    let plan = Plan::compile(graph, &Parameters::new(), &options).expect("a plan");
    let step = plan.steps().find(|s| s.node.is_some()).expect("one node");
    (step.kernel.clone(), step.why.clone().expect("there was a choice"))
}

#[test]
fn what_the_model_doubts_is_timed_once_and_then_decided_by_the_times_kept() {
    // One vector of positions: blocks cost little more than single elements.
    let layer = graph(MatMul::default(), &[16, 256], &[256, 300], true);
    let timings = Arc::new(Timings::default());
    let (kernel, why) = planned(&layer, &timings);
    assert!(timings.has_grown() && why.contains("; timed, "), "{why}");
    let again = Arc::new(Timings::new(timings.all()));
    assert_eq!(planned(&layer, &again), (kernel, why));
    assert!(!again.has_grown());
    // Whichever form is said to be fastest is taken.
    for (form, name) in [("4x1", "gemm-sparse-4x1"), ("csr", "gemm-sparse-csr")] {
        let mut known = timings.all();
        for times in known.values_mut() {
            *times.get_mut(form).expect("one of those in doubt") = 1e-9;
        }
        let (kernel, _) = planned(&layer, &Arc::new(Timings::new(known)));
        assert!(kernel.starts_with(name), "{kernel}");
    }
}

#[test]
fn what_the_model_does_not_doubt_is_not_timed() {
    let timings = Arc::new(Timings::default());
    let layer = graph(MatMul::default(), &[512, 16], &[16, 2], true);
    let (kernel, why) = planned(&layer, &timings);
    assert!(!kernel.contains("sparse") && !why.contains("timed"), "{kernel}: {why}");
    assert!(!timings.has_grown());
}
