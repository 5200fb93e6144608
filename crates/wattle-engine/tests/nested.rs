//! Branches and loops run on kernels, and what is not taken runs nothing.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wattle_engine::{Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::onnx::{Limits, read_model};
use wattle_graph::ops::{Binary, BinaryFunction, Function, If, Loop, MatMul, Unary};
use wattle_graph::{DType, Example, Graph, Parameter, Parameters, Shape, Tensor, ValueId, interpret};

fn binary(graph: &mut Graph, function: BinaryFunction, a: ValueId, b: ValueId) -> ValueId {
    graph.apply(Binary { function }, &[a, b]).unwrap()
}

/// `tanh(x w) + bias` with a constant bias if the condition holds, else `x` itself when `inner` holds, else `relu(x) x`.
fn branching() -> Graph {
    let mut then_graph = Graph::new("then");
    let x = then_graph.input("x", DType::F32, Shape::known(&[4, 6]));
    let w = then_graph.input("w", DType::F32, Shape::known(&[6, 6]));
    let bias = then_graph.constant(Example::noise(&[6], 5));
    let y = then_graph.apply(MatMul::default(), &[x, w]).unwrap();
    let y = then_graph.apply(Unary { function: Function::Tanh }, &[y]).unwrap();
    let y = binary(&mut then_graph, BinaryFunction::Add, y, bias);
    then_graph.output(y);

    let mut same = Graph::new("same");
    let x = same.input("x", DType::F32, Shape::known(&[4, 6]));
    same.output(x);
    let mut product = Graph::new("product");
    let x = product.input("x", DType::F32, Shape::known(&[4, 6]));
    let relu = product.apply(Unary { function: Function::Relu }, &[x]).unwrap();
    let y = binary(&mut product, BinaryFunction::Mul, relu, x);
    product.output(y);
    let inner = If { then_graph: Box::new(same), else_graph: Box::new(product) };
    let mut else_graph = Graph::new("else");
    let condition = else_graph.input("inner", DType::Bool, Shape::known(&[]));
    let x = else_graph.input("x", DType::F32, Shape::known(&[4, 6]));
    let y = else_graph.apply(inner, &[condition, x, x]).unwrap();
    else_graph.output(y);

    let mut graph = Graph::new("branching");
    let condition = graph.input("outer", DType::Bool, Shape::known(&[]));
    let inner = graph.input("inner", DType::Bool, Shape::known(&[]));
    let x = graph.input("x", DType::F32, Shape::known(&[4, 6]));
    let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[6, 6]);
    let op = If { then_graph: Box::new(then_graph), else_graph: Box::new(else_graph) };
    let y = graph.apply(op, &[condition, x, w, inner, x]).unwrap();
    let y = binary(&mut graph, BinaryFunction::Add, y, x);
    graph.output(y);
    graph
}

fn options(threads: usize, rewrite: bool) -> PlanOptions {
    PlanOptions { rewrite, ..PlanOptions::new(Arc::new(Cpu::new(threads).unwrap())) }
}

fn run(session: &mut Session, feeds: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    for (name, tensor) in feeds {
        session.set_input(name, tensor).unwrap();
    }
    session.run().unwrap();
    session.outputs().unwrap().into_iter().map(|(_, tensor)| tensor).collect()
}

fn assert_close(found: &[Tensor], expected: &[Tensor], tolerance: f64) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()));
        for (a, b) in found.to_f64().iter().zip(expected.to_f64().iter()) {
            assert!((a - b).abs() <= tolerance, "{a} {b}");
        }
    }
}

fn truth(holds: bool) -> Tensor {
    Tensor::from_i64(DType::Bool, [], vec![i64::from(holds)])
}

#[test]
fn the_branch_that_is_taken_runs_on_kernels_and_the_other_not_at_all() {
    let graph = branching();
    let mut parameters = Parameters::new();
    parameters.insert("w", Example::noise(&[6, 6], 2));
    let store = Store::new(&parameters);
    for (threads, rewrite) in [(1, true), (1, false), (3, true)] {
        let plan = Plan::compile(&graph, &store, &options(threads, rewrite)).unwrap();
        assert!(plan.interpreted().is_empty(), "{:?}", plan.interpreted());
        let mut session = Session::new(plan, &store).unwrap();
        let mut taken = BTreeMap::from([("then", 0), ("else", 0)]);
        for (turn, (outer, inner)) in
            [(true, true), (false, true), (false, false), (false, false)].into_iter().enumerate()
        {
            let feeds = [
                ("outer", truth(outer)),
                ("inner", truth(inner)),
                ("x", Example::noise(&[4, 6], turn as u32)),
            ];
            let feeds = feeds.map(|(name, tensor)| (name.to_string(), tensor)).into();
            let expected = interpret(&graph, &mut parameters.clone(), &feeds).unwrap();
            assert_close(&run(&mut session, &feeds), &expected, 1e-5);
            *taken.get_mut(if outer { "then" } else { "else" }).unwrap() += 1;
            for (_, inside) in session.plan().inside() {
                assert_eq!(inside.runs, taken[inside.name], "{}", inside.name);
            }
        }
    }
}

#[test]
fn a_branch_that_does_not_fit_is_an_error_only_when_it_is_taken() {
    let mut fits = Graph::new("fits");
    let x = fits.input("x", DType::F32, Shape::Unknown);
    let y = fits.apply(Unary { function: Function::Relu }, &[x]).unwrap();
    fits.output(y);
    let mut other = Graph::new("other");
    let x = other.input("x", DType::F32, Shape::Unknown);
    let w = other.constant(Example::noise(&[5, 6], 1));
    let y = other.apply(MatMul::default(), &[x, w]).unwrap();
    other.output(y);
    let mut graph = Graph::new("either");
    let condition = graph.input("c", DType::Bool, Shape::known(&[]));
    let x = graph.input("x", DType::F32, Shape::known(&[4, 6]));
    let op = If { then_graph: Box::new(fits), else_graph: Box::new(other) };
    let y = graph.apply(op, &[condition, x, x]).unwrap();
    graph.output(y);
    let store = Store::new(&Parameters::new());
    let mut session =
        Session::new(Plan::compile(&graph, &store, &options(1, true)).unwrap(), &store).unwrap();
    session.set_input("x", &Example::noise(&[4, 6], 1)).unwrap();
    session.set_input("c", &truth(true)).unwrap();
    session.run().unwrap();
    session.set_input("c", &truth(false)).unwrap();
    let error = session.run().unwrap_err().to_string();
    assert!(error.contains("else-branch does not fit"), "{error}");
}

#[test]
fn a_loop_that_exchanges_what_it_carries_and_stacks_what_it_sees_runs_on_kernels() {
    // (a, b) -> (b, a + b w), scanning a.
    let mut body = Graph::new("body");
    body.input("trip", DType::I64, Shape::known(&[]));
    let a = body.input("a", DType::F32, Shape::known(&[2, 3]));
    let b = body.input("b", DType::F32, Shape::known(&[2, 3]));
    let w = body.input("w", DType::F32, Shape::known(&[3, 3]));
    let product = body.apply(MatMul::default(), &[b, w]).unwrap();
    let sum = binary(&mut body, BinaryFunction::Add, a, product);
    body.set_outputs(vec![b, sum, a]);
    let mut graph = Graph::new("loop");
    let a = graph.input("a", DType::F32, Shape::known(&[2, 3]));
    let b = graph.input("b", DType::F32, Shape::known(&[2, 3]));
    let w = graph.constant(Example::noise(&[3, 3], 7));
    let outputs = graph
        .apply_all(Loop { body: Box::new(body), trips: 5, carried: 2 }, &[Some(a), Some(b), Some(w)], "loop")
        .unwrap();
    graph.set_outputs(outputs);
    let store = Store::new(&Parameters::new());
    let feeds = [("a", Example::noise(&[2, 3], 1)), ("b", Example::noise(&[2, 3], 2))];
    let feeds = feeds.map(|(name, tensor)| (name.to_string(), tensor)).into();
    let expected = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
    for threads in [1, 2] {
        let plan = Plan::compile(&graph, &store, &options(threads, true)).unwrap();
        assert!(plan.interpreted().is_empty());
        let mut session = Session::new(plan, &store).unwrap();
        for _ in 0..2 {
            assert_close(&run(&mut session, &feeds), &expected, 1e-5);
        }
        assert_eq!(session.plan().inside().map(|(_, inside)| inside.runs).collect::<Vec<_>>(), [10]);
    }
}

/// silero_vad.onnx (package silero-vad) chooses between two networks by its input `sr`.
#[test]
fn silero_vad_runs_without_the_interpreter_and_only_the_network_of_its_rate() {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "../../target".into());
    let path = Path::new(&target).join("models/silero-vad/silero_vad.onnx");
    if !path.exists() {
        eprintln!("skipped: 1 test: {} is missing (.ci/fetch-test-data)", path.display());
        return;
    }
    let model = read_model(&path, &Limits::default()).unwrap();
    for (rate, samples) in [(16_000, 576), (8_000, 288)] {
        let bound = model.bind(&[("input", &[1, samples]), ("state", &[2, 1, 128]), ("sr", &[])]).unwrap();
        let store = Store::new(&bound.parameters);
        let plan = Plan::compile(&bound.graph, &store, &options(1, true)).unwrap();
        assert!(plan.interpreted().is_empty(), "{rate} Hz: {:?}", plan.interpreted());
        let mut session = Session::new(plan, &store).unwrap();
        let feeds = [
            ("input", Example::noise(&[1, samples], 3)),
            ("state", Example::noise(&[2, 1, 128], 4)),
            ("sr", Tensor::i64([], vec![rate])),
        ];
        let feeds: BTreeMap<String, Tensor> = feeds.map(|(name, tensor)| (name.to_string(), tensor)).into();
        let expected = interpret(&bound.graph, &mut bound.parameters.clone(), &feeds).unwrap();
        assert_close(&run(&mut session, &feeds), &expected, 1e-4);
        let mut calls = vec![];
        for (_, inside) in session.plan().inside() {
            let kernels = inside.plan.steps().count() as u64;
            assert!(kernels > 10, "{rate} Hz: `{}` is a network of {kernels} kernels", inside.name);
            calls.push((kernels, inside.runs * kernels));
        }
        // The network of the other rate is planned only where it could run on so many samples at all.
        let taken: Vec<_> = calls.iter().filter(|(_, called)| *called > 0).collect();
        assert!(
            matches!(taken[..], [(kernels, called)] if kernels == called),
            "{rate} Hz: every kernel of one branch once, none of the other: {calls:?}"
        );
    }
}
