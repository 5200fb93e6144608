//! Which layers run on sparse kernels, and that they compute what dense kernels compute.

use std::sync::Arc;

use wattle_engine::{Cpu, Plan, PlanOptions, Session, Sparse, Store, Timings};
use wattle_graph::ops::{Binary, BinaryFunction, Conv, Function, MatMul, MatMulInteger, Sliding, Unary};
use wattle_graph::{DType, Example, Graph, Op, Shape, Tensor};

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
    let plan = Plan::compile(graph, &Store::default(), &options).expect("a plan");
    let step = plan.steps().find(|s| s.node.is_some()).expect("one node").clone();
    let x = graph.extents(graph.inputs()[0]).expect("known");
    let mut session = Session::new(plan, &Store::default()).expect("a session");
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
        graph(Conv { sliding: Sliding::padded(2, 1), groups: 4 }, &[1, 128, 14, 14], &[128, 32, 3, 3], true),
        graph(Conv { sliding: Sliding::padded(2, 0), groups: 2 }, &[1, 256, 14, 14], &[256, 128, 1, 1], true),
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
fn a_block_with_groups_agrees_with_dense_kernels() {
    // As ResNeXt has them: 1 x 1 down, 3 x 3 in groups, 1 x 1 up, added to what came in.
    let mut graph = Graph::new("block");
    let x = graph.input("x", DType::F32, Shape::known(&[2, 64, 9, 10]));
    let mut y = x;
    for (w, kernel, groups) in [([32, 64, 1, 1], 1, 1), ([32, 4, 3, 3], 3, 8), ([64, 32, 1, 1], 1, 1)] {
        let w = graph.constant(weights(&w, true));
        let sliding = Sliding::padded(2, kernel / 2);
        y = graph.apply(Conv { sliding, groups }, &[y, w]).expect("operands fit");
        if kernel == 3 {
            y = graph.apply(Unary { function: Function::Relu }, &[y]).expect("operands fit");
        }
    }
    y = graph.apply(Binary { function: BinaryFunction::Add }, &[y, x]).expect("operands fit");
    graph.set_outputs(vec![y]);
    let (_, _, want) = run(&graph, Sparse::Never, 1);
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for threads in [1, 2] {
        let (_, _, got) = run(&graph, Sparse::Always, threads);
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * scale), "{threads} threads");
    }
    let plan = Plan::compile(
        &graph,
        &Store::default(),
        &PlanOptions { sparse: Sparse::Always, ..PlanOptions::new(Arc::new(Cpu::new(1).expect("a thread"))) },
    );
    let plan = plan.expect("a plan");
    assert_eq!(plan.steps().filter(|s| s.kernel.starts_with("conv-sparse")).count(), 3);
}

#[test]
fn many_small_groups_run_as_one_sparse_matrix_even_without_zeros() {
    let groups = Conv { sliding: Sliding::padded(2, 1), groups: 32 };
    let layer = graph(groups, &[1, 128, 28, 28], &[128, 4, 3, 3], false);
    let (kernel, why, got) = run(&layer, Sparse::Auto, 1);
    assert!(kernel.starts_with("conv-sparse-4x1"), "{kernel}: {why:?}");
    let (_, _, want) = run(&layer, Sparse::Never, 1);
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * scale));
}

#[test]
fn two_of_four_channels_of_a_3x3_convolution_are_stored_as_such() {
    let w = Tensor::from_f64(
        DType::F32,
        [64, 64, 3, 3],
        (0..64 * 64 * 9)
            .map(|i| {
                let (f, c, tap) = (i / 576, i / 9 % 64, i % 9);
                if (c + tap * f + f) % 4 < 2 { 0.1 + (i % 17) as f64 } else { 0.0 }
            })
            .collect(),
    );
    let mut graph = Graph::new("layer");
    let x = graph.input("x", DType::F32, Shape::known(&[1, 64, 15, 14]));
    let w = graph.constant(w);
    let y = graph.apply(convolution(), &[x, w]).expect("operands fit");
    graph.set_outputs(vec![y]);
    let (kernel, _, got) = run(&graph, Sparse::Always, 1);
    let (_, _, want) = run(&graph, Sparse::Never, 1);
    assert!(kernel.starts_with("conv-sparse-2:4"), "{kernel}");
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * scale));
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
    let plan = Plan::compile(graph, &Store::default(), &options).expect("a plan");
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
fn a_plan_for_one_run_takes_the_kernels_that_were_timed_before_and_times_none() {
    let layer = graph(MatMul::default(), &[16, 256], &[256, 300], true);
    let nothing = Arc::new(Timings::known(Default::default()));
    let cpu = Arc::new(Cpu::new(1).expect("threads start"));
    let modelled = Plan::compile(&layer, &Store::default(), &PlanOptions::new(cpu)).expect("a plan");
    let modelled = modelled.steps().find(|s| s.node.is_some()).expect("one node");
    let (kernel, why) = planned(&layer, &nothing);
    assert_eq!((&kernel, Some(&why)), (&modelled.kernel, modelled.why.as_ref()));
    assert!(!nothing.has_grown());
    let timings = Arc::new(Timings::default());
    let timed = planned(&layer, &timings);
    assert_eq!(planned(&layer, &Arc::new(Timings::known(timings.all()))), timed);
}

#[test]
fn what_the_model_does_not_doubt_is_not_timed() {
    let timings = Arc::new(Timings::default());
    let layer = graph(MatMul::default(), &[512, 16], &[16, 2], true);
    let (kernel, why) = planned(&layer, &timings);
    assert!(!kernel.contains("sparse") && !why.contains("timed"), "{kernel}: {why}");
    assert!(!timings.has_grown());
}

/// The kernels that a layer gets when one form after the other is said to be fastest.
fn forced(layer: &Graph, forms: &[&str]) -> Vec<String> {
    let timings = Arc::new(Timings::default());
    let (_, why) = planned(layer, &timings);
    assert!(timings.has_grown() && why.contains("timed, "), "{why}");
    let kernel = |form: &&str| {
        let mut known = timings.all();
        for times in known.values_mut() {
            *times.get_mut(*form).expect("one of those in doubt") = 1e-9;
        }
        planned(layer, &Arc::new(Timings::new(known))).0
    };
    forms.iter().map(kernel).collect()
}

#[test]
fn transformed_tiles_and_direct_sums_are_told_apart_by_their_times() {
    let same = Conv { sliding: Sliding::padded(2, 1), groups: 1 };
    let layer = graph(same, &[1, 64, 14, 14], &[64, 64, 3, 3], false);
    let kernels = forced(&layer, &["dense", "direct"]);
    assert!(kernels[0].starts_with("conv-transformed-nhwc"), "{kernels:?}");
    assert!(kernels[1].starts_with("conv-nhwc"), "{kernels:?}");
}

#[test]
fn sparse_and_dense_bytes_are_told_apart_by_their_times() {
    let mut layer = Graph::new("layer");
    let x = layer.input("x", DType::U8, Shape::known(&[128, 256]));
    // A quarter is kept, anywhere.
    let kept = |i: usize| if i * 7 % 16 < 4 { (i % 251) as f64 - 125.0 } else { 0.0 };
    let w: Vec<f64> = (0..256 * 256).map(kept).collect();
    let w = layer.constant(Tensor::from_f64(DType::I8, [256, 256], w));
    let y = layer.apply(MatMulInteger, &[x, w]).expect("operands fit");
    layer.set_outputs(vec![y]);
    let kernels = forced(&layer, &["dense", "csr"]);
    assert!(!kernels[0].contains("sparse") && kernels[1].contains("sparse"), "{kernels:?}");
}
