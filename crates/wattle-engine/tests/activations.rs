//! Activations and their gradients on kernels, where they saturate, bend and leave the finite numbers: equal to the
//! definition, which `wattle-graph` compares with finite differences at the same places.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle_engine::{Cpu, Isa, Plan, PlanOptions, Session, Store};
use wattle_graph::ops::{Binary, BinaryFunction, Clip, Function, Op, SumTo, Unary};
use wattle_graph::{DType, Graph, Parameters, Shape, Tensor, ValueId, differentiate, interpret};

use Function::*;

/// Every function that networks use as an activation.
const ACTIVATIONS: &[Function] = &[
    Abs,
    Celu { alpha: 0.7 },
    Elu { alpha: 0.7 },
    Erf,
    Exp,
    Gelu,
    GeluTanh,
    HardSigmoid { alpha: 0.2, beta: 0.5 },
    HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
    HardSwish,
    LeakyRelu { alpha: 0.01 },
    LeakyRelu { alpha: -0.5 },
    Mish,
    Neg,
    Relu,
    Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu { alpha: 1.0 },
];

/// Kinks and saturated ranges of all of them on both sides of 0, and what is not finite.
fn places() -> Vec<f32> {
    let sizes = [
        0.0, 1e-30, 1e-4, 0.3, 0.7, 1.0, 1.2, 2.0, 2.49, 2.51, 2.99, 3.01, 3.5, 5.0, 6.0, 9.0, 12.0, 20.0,
        50.0, 87.0, 1e4, 1e18, 1e20, 1e30,
    ];
    let mut places: Vec<f32> = sizes.iter().flat_map(|&x| [x, -x]).collect();
    places.extend([2.5, -2.5, 3.0, -3.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    places
}

/// `f(x)` and the gradient of `sum(f(x) d)` by x.
fn graph_of(op: &dyn Fn(&mut Graph, ValueId) -> ValueId, count: usize) -> Graph {
    let mut graph = Graph::new("activation");
    let x = graph.input("x", DType::F32, Shape::known(&[count]));
    let d = graph.input("d", DType::F32, Shape::known(&[count]));
    let y = op(&mut graph, x);
    let product = graph.apply(Binary { function: BinaryFunction::Mul }, &[y, d]).unwrap();
    let loss = graph.apply(SumTo { shape: vec![] }, &[product]).unwrap();
    let found = differentiate(&graph, loss, &[x]).unwrap();
    let mut graph = found.graph;
    graph.set_outputs(vec![y, found.gradients[0].unwrap()]);
    graph
}

/// Where kernel and definition differ, for values and slopes on every instruction set.
fn differences(name: &str, op: &dyn Fn(&mut Graph, ValueId) -> ValueId) -> Vec<String> {
    let x = places();
    let d: Vec<f32> = (0..x.len()).map(|i| [1.0, -0.5, 2.0][i % 3]).collect();
    let graph = graph_of(op, x.len());
    let feeds = BTreeMap::from([
        ("x".to_string(), Tensor::f32([x.len()], x.clone())),
        ("d".to_string(), Tensor::f32([x.len()], d)),
    ]);
    let expected = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
    let mut wrong = vec![];
    for isa in Isa::available() {
        let options = PlanOptions::new(Arc::new(Cpu::with_isa(isa, 1).unwrap()));
        let store = Store::default();
        let plan = Plan::compile(&graph, &store, &options).unwrap();
        for step in plan.interpreted() {
            wrong.push(format!("{name}: {step} has no kernel"));
        }
        let mut session = Session::new(plan, &store).unwrap();
        for (input, tensor) in &feeds {
            session.set_input(input, tensor).unwrap();
        }
        session.run().unwrap();
        let found = session.outputs().unwrap();
        for (what, (e, (_, f))) in ["value", "gradient"].iter().zip(expected.iter().zip(&found)) {
            for (i, (e, f)) in e.to_f64().iter().zip(f.to_f64().iter()).enumerate() {
                let same = e == f || e.is_nan() && f.is_nan() || (e - f).abs() <= 2e-6 * e.abs().max(1.0);
                if !same {
                    wrong.push(format!("{name} on {}: {what} at {} is {f}, expected {e}", isa.name(), x[i]));
                }
            }
        }
    }
    wrong
}

#[test]
fn kernels_of_activations_and_their_gradients_agree_with_the_definition_everywhere() {
    let mut wrong = vec![];
    for &function in ACTIVATIONS {
        let op = |graph: &mut Graph, x| graph.apply(Unary { function }, &[x]).unwrap();
        wrong.extend(differences(&format!("{function:?}"), &op));
    }
    for (low, high) in
        [(Some(0.0), Some(6.0)), (Some(-1.0), Some(1.0)), (None, Some(2.5)), (Some(-3.0), None)]
    {
        let op = |graph: &mut Graph, x| {
            let [low, high] = [low, high].map(|b: Option<f32>| b.map(|b| graph.constant(Tensor::scalar(b))));
            graph.apply_all(Op::from(Clip), &[Some(x), low, high], "").unwrap()[0]
        };
        wrong.extend(differences(&format!("Clip {low:?}..{high:?}"), &op));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
