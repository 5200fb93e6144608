//! Whole training steps: the same bits on any number of threads and with or without rewrites' memory sharing, exact
//! zeros under masks, running statistics that follow the batch.

#[allow(dead_code, reason = "each test builds some of the networks")]
mod networks;

use std::sync::Arc;

use networks::step::{Optimizer, SGD};
use networks::{lenet, resnet, weights};
use wattle_engine::{Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::{Example, Graph, Mask, Parameters, Tensor, interpret};

fn session(graph: &Graph, store: &Store, threads: usize) -> Session {
    let options = PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()));
    Session::new(Plan::compile(graph, store, &options).unwrap(), store).unwrap()
}

/// Runs steps on noise and returns the parameters after them.
fn train(graph: &Graph, parameters: &Parameters, x: &[usize], threads: usize, steps: u32) -> Parameters {
    let store = Store::new(parameters);
    let mut session = session(graph, &store, threads);
    for step in 1..=steps {
        let labels: Vec<i64> = (0..x[0] as i64).map(|i| (i + i64::from(step)) % 10).collect();
        session.set_input("x", &Example::noise(x, step)).unwrap();
        session.set_input("labels", &Tensor::ints(&labels)).unwrap();
        session.set_input("rate", &Tensor::f32([], vec![0.01])).unwrap();
        if graph.find("step").is_some() {
            session.set_input("step", &Tensor::f32([], vec![step as f32])).unwrap();
        }
        session.run().unwrap();
    }
    store.parameters()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.as_f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_training_step_gives_the_same_bits_on_any_number_of_threads() {
    let (graph, parameters) = resnet(6, 8, &[5, 16], 1, SGD);
    let one = train(&graph, &parameters, &[6, 3, 8, 8], 1, 3);
    for threads in [2, 7] {
        let more = train(&graph, &parameters, &[6, 3, 8, 8], threads, 3);
        for ((name, a), (_, b)) in one.iter().zip(more.iter()) {
            assert_eq!(bits(a), bits(b), "{name} on {threads} threads");
        }
    }
    let moved = one.iter().zip(parameters.iter()).filter(|((_, a), (_, b))| bits(a) != bits(b)).count();
    assert_eq!(moved, parameters.iter().count(), "every parameter and state moves");
}

#[test]
fn a_training_step_agrees_with_the_definition_of_its_operators() {
    let (graph, parameters) = resnet(4, 6, &[3, 4], 1, SGD);
    let got = train(&graph, &parameters, &[4, 3, 6, 6], 2, 1);
    let feeds = [
        ("x", Example::noise(&[4, 3, 6, 6], 1)),
        ("labels", Tensor::ints(&[1, 2, 3, 4])),
        ("rate", Tensor::f32([], vec![0.01])),
    ];
    let mut expected = parameters.clone();
    interpret(&graph, &mut expected, &feeds.map(|(n, t)| (n.to_string(), t)).into()).unwrap();
    for ((name, e), (_, g)) in expected.iter().zip(got.iter()) {
        let scale = e.to_f64().iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        for (x, y) in e.to_f64().iter().zip(g.to_f64().iter()) {
            assert!((x - y).abs() <= 1e-4 * scale, "{name}: {y}, expected {x}");
        }
    }
}

#[test]
fn masked_weights_and_their_optimiser_state_stay_positive_zero() {
    let sgd = |nesterov, weight_decay| Optimizer::Sgd { momentum: 0.9, nesterov, weight_decay };
    let adam = |weight_decay, decoupled| Optimizer::Adam { weight_decay, decoupled };
    for optimizer in [sgd(false, 0.0), sgd(true, 1e-2), adam(0.0, false), adam(1e-2, false), adam(1e-2, true)]
    {
        let (graph, mut parameters) = lenet(8, optimizer);
        let names: Vec<String> = parameters.iter().map(|(n, _)| n.to_string()).collect();
        let weights = weights(&parameters);
        for name in &weights {
            let len = parameters.get(name).unwrap().len();
            assert!(parameters.set_mask(name, Mask::from_bools((0..len).map(|i| i % 3 == 0))));
        }
        let after = train(&graph, &parameters, &[8, 784], 2, 20);
        for name in names.iter().filter(|n| weights.iter().any(|w| n.starts_with(w.as_str()))) {
            for (i, x) in after.get(name).unwrap().as_f32().unwrap().iter().enumerate() {
                assert!(i % 3 == 0 || x.to_bits() == 0, "{optimizer:?}: {name}[{i}] is {x:e}");
            }
        }
        let weight = after.get(&weights[0]).unwrap();
        assert_ne!(bits(weight), bits(parameters.get(&weights[0]).unwrap()), "the other weights move");
    }
}

#[test]
fn running_statistics_keep_nine_tenths_of_what_they_were() {
    let (graph, parameters) = resnet(4, 6, &[3], 1, SGD);
    let after = train(&graph, &parameters, &[4, 3, 6, 6], 1, 1);
    for (name, tensor) in after.iter().filter(|(n, _)| n.ends_with("running_var")) {
        // It starts at 1, and the batch's variance is positive.
        assert!(tensor.to_f64().iter().all(|&v| v > 0.9 && v != 1.0), "{name}: {tensor:?}");
    }
}
