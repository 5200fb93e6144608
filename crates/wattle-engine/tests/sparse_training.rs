//! Training on the kept elements of masked weights: the same network as masked-dense training, on any number of
//! threads, with less memory.

#[allow(dead_code, reason = "each test builds some of the networks")]
mod networks;

use std::sync::Arc;

use networks::step::{Optimizer, SGD};
use networks::{lenet, resnet, weights};
use wattle_engine::{Cpu, Plan, PlanOptions, Session, Sparse, Store};
use wattle_graph::{Example, Graph, Mask, Parameters, Role, Tensor};

/// Masks all weights, of which every twentieth or so stays; one row keeps nothing and one everything.
fn masked(parameters: &mut Parameters) {
    for name in &weights(parameters) {
        let shape = parameters.get(name).expect("listed").shape().to_vec();
        let row: usize = shape[1..].iter().product();
        let kept = |i: usize| match i / row {
            1 => false,
            2 => true,
            _ => i * 7919 % 20 == 3,
        };
        let len = shape.iter().product();
        assert!(parameters.set_mask(name, Mask::from_bools((0..len).map(kept))));
    }
}

fn plan(graph: &Graph, parameters: &Parameters, sparse: Sparse, threads: usize) -> Plan {
    let cpu = Arc::new(Cpu::new(threads).expect("threads start"));
    Plan::compile(graph, &Store::new(parameters), &PlanOptions { sparse, ..PlanOptions::new(cpu) })
        .expect("a plan")
}

/// Runs steps on noise; returns the parameters after them and the last loss.
fn train(plan: Plan, parameters: &Parameters, x: &[usize], steps: u32) -> (Parameters, f32) {
    let store = Store::new(parameters);
    let mut session = Session::new(plan, &store).expect("a session");
    for step in 1..=steps {
        let labels: Vec<i64> = (0..x[0] as i64).map(|i| (i + i64::from(step)) % 10).collect();
        session.set_input("x", &Example::noise(x, step % 7)).expect("fits");
        session.set_input("labels", &Tensor::ints(&labels)).expect("fits");
        session.set_input("rate", &Tensor::f32([], vec![0.001])).expect("fits");
        if session.plan().graph().find("step").is_some() {
            session.set_input("step", &Tensor::f32([], vec![step as f32])).expect("fits");
        }
        session.run().expect("runs");
    }
    let loss = session.output::<f32>(0).expect("a loss")[0];
    (store.parameters(), loss)
}

/// Trains on kept elements and on whole tensors; parameters may differ by `rounding` of their largest.
fn agree(graph: &Graph, mut parameters: Parameters, x: &[usize], steps: u32, rounding: f64, what: &str) {
    masked(&mut parameters);
    let sparse = |threads| plan(graph, &parameters, Sparse::Always, threads);
    let kept = sparse(1).kept().count();
    assert_eq!(kept, parameters.masks().count(), "every masked weight of {what} is stored by kept elements");
    let whole = sparse(1).steps().filter(|s| s.kernel.starts_with("layout-whole")).count();
    assert_eq!(whole, 0, "no kernel of {what} reads a whole weight");
    let (one, loss) = train(sparse(1), &parameters, x, steps);
    assert_eq!(one, train(sparse(2), &parameters, x, steps).0, "{what}: threads change bits");
    let (dense, dense_loss) = train(plan(graph, &parameters, Sparse::Never, 1), &parameters, x, steps);
    assert!((loss - dense_loss).abs() <= 1e-5 * dense_loss.abs().max(1.0), "{what}: {loss}, {dense_loss}");
    for ((name, a), (_, b)) in one.iter().zip(dense.iter()) {
        let (a, b) = (a.to_f64(), b.to_f64());
        let scale = b.iter().fold(0.1f64, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(b.iter()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst <= rounding * scale, "{what}: {name} differs by {worst:e} of {scale:e}");
    }
    for (name, mask) in parameters.masks() {
        let values = one.get(name).expect("listed").to_f64().to_vec();
        assert!((0..mask.len()).all(|i| mask.get(i) || values[i] == 0.0), "{what}: {name} leaves its mask");
    }
}

#[test]
fn hundred_steps_on_kept_elements_are_hundred_masked_dense_steps() {
    let sgd = |nesterov, weight_decay| Optimizer::Sgd { momentum: 0.9, nesterov, weight_decay };
    let adam = |weight_decay, decoupled| Optimizer::Adam { weight_decay, decoupled };
    for optimizer in [sgd(false, 0.0), sgd(true, 1e-2), adam(0.0, false), adam(1e-2, false), adam(1e-2, true)]
    {
        let (graph, parameters) = lenet(60, optimizer);
        agree(&graph, parameters, &[60, 784], 100, 1e-5, &format!("LeNet {optimizer:?}"));
    }
}

#[test]
fn convolutions_of_all_strides_train_on_kept_elements() {
    for (batch, size) in [(6, 8), (3, 11)] {
        let (graph, parameters) = resnet(batch, size, &[5, 16, 20], 1, SGD);
        // Batch normalisation divides by the deviation of a few numbers, which makes a rounding larger at each step.
        agree(&graph, parameters, &[batch, 3, size, size], 30, 3e-5, &format!("ResNet on {size} x {size}"));
    }
}

#[test]
fn optimiser_state_takes_the_memory_of_what_is_kept() {
    for (optimizer, states) in [(SGD, 1), (Optimizer::Adam { weight_decay: 0.0, decoupled: false }, 2)] {
        let (graph, mut parameters) = lenet(60, optimizer);
        masked(&mut parameters);
        let state = |sparse| -> usize {
            let plan = plan(&graph, &parameters, sparse, 1);
            plan.parameter_bytes().filter(|(p, _)| p.role == Role::State).map(|(_, bytes)| bytes).sum()
        };
        let kept: usize = parameters.masks().map(|(_, mask)| mask.count()).sum();
        let (masked, biases) = (parameters.masks().map(|(_, m)| m.len()).sum::<usize>(), 300 + 100 + 10);
        assert_eq!(state(Sparse::Never), 4 * states * (masked + biases));
        assert_eq!(state(Sparse::Always), 4 * states * (kept + biases));
        assert!(state(Sparse::Auto) < state(Sparse::Never) / 8, "{}", state(Sparse::Auto));
    }
}

#[test]
fn kept_elements_of_one_session_are_whole_tensors_to_another() {
    let adam = Optimizer::Adam { weight_decay: 0.0, decoupled: false };
    let (graph, mut parameters) = lenet(60, adam);
    let len = parameters.get("fc1.weight").unwrap().len();
    assert!(parameters.set_mask("fc1.weight", Mask::from_bools((0..len).map(|i| i % 20 == 3))));
    let store = Store::new(&parameters);
    let [sparse, dense] =
        [Sparse::Always, Sparse::Never].map(|sparse| Arc::new(plan(&graph, &parameters, sparse, 1)));
    assert_eq!((sparse.kept().count(), dense.kept().count()), (1, 0));
    let alone = Store::new(&parameters);
    let mut alone_session = Session::new(dense.clone(), &alone).unwrap();
    let mut turns = [Session::new(sparse, &store).unwrap(), Session::new(dense, &store).unwrap()];
    for step in 1..=6u32 {
        for session in [&mut turns[step as usize % 2], &mut alone_session] {
            session.set_input("x", &Example::noise(&[60, 784], step)).unwrap();
            session.set_input("labels", &Tensor::ints(&[3; 60])).unwrap();
            session.set_input("rate", &Tensor::f32([], vec![0.001])).unwrap();
            session.set_input("step", &Tensor::f32([], vec![step as f32])).unwrap();
            session.run().unwrap();
        }
    }
    let (mixed, expected) = (store.parameters(), alone.parameters());
    for name in ["fc1.weight", "fc1.weight.first", "fc1.weight.second", "fc1.bias", "fc2.weight"] {
        let (a, b) = (mixed.get(name).unwrap().to_f64(), expected.get(name).unwrap().to_f64());
        let scale = b.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(b.iter()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-4 * scale, "{name} differs by {worst:e} of {scale:e}");
    }
    assert_eq!(store.version("fc1.weight"), Some(7));
}
