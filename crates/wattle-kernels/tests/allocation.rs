//! A run of a training step allocates nothing. The test is here, and not beside the engine, since counting
//! allocations takes an allocator, and only this crate may use `unsafe`.

#[path = "../../wattle-engine/tests/networks/mod.rs"]
#[allow(dead_code, reason = "each test builds some of the networks")]
mod networks;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use networks::prefixes::{View, within};
use networks::step::{Optimizer, SGD, training_step};
use networks::{fresh, inference, lenet, mlp, resnet};
use wattle_engine::{Cpu, Freeze, Plan, PlanOptions, Session, Store};
use wattle_graph::{Example, Graph, Parameters, Tensor};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of ten runs after a warm-up.
fn allocations((graph, parameters): (Graph, Parameters), x: &[usize], threads: usize) -> usize {
    let options = PlanOptions::new(Arc::new(Cpu::new(threads).unwrap()));
    let store = Store::new(&parameters);
    let mut session = Session::new(Plan::compile(&graph, &store, &options).unwrap(), &store).unwrap();
    assert!(session.plan().interpreted().is_empty(), "{:?}", session.plan().interpreted());
    session.set_input("x", &Example::noise(x, 1)).unwrap();
    session.set_input("labels", &Tensor::ints(&vec![3; x[0]])).unwrap();
    session.set_input("rate", &Tensor::f32([], vec![0.01])).unwrap();
    if graph.find("step").is_some() {
        session.set_input("step", &Tensor::f32([], vec![1.0])).unwrap();
    }
    session.run().unwrap();
    session.run().unwrap();
    let before = COUNT.load(Ordering::Relaxed);
    for _ in 0..10 {
        session.run().unwrap();
    }
    COUNT.load(Ordering::Relaxed) - before
}

/// Allocations of ten turns of a training step of a sub-network and of the network that acts on the same store.
fn allocations_of_turns() -> usize {
    let options = PlanOptions { freeze: Freeze::None, ..PlanOptions::new(Arc::new(Cpu::new(1).unwrap())) };
    let mut largest = fresh("mlp");
    let logits = mlp(&mut largest, 4, &[16; 7]).unwrap();
    let parameters = training_step(largest, logits, SGD).1.parameters;
    let store = Store::new(&parameters);
    let mut part = within(&parameters, View::Windows);
    let logits = mlp(&mut part, 4, &[8, 16, 12, 4, 16, 8, 8]).unwrap();
    let step = training_step(part, logits, SGD).0;
    // One observation reads weights as they lie; so many that products pack them have them packed by the store.
    let [one, many] = [1, 130].map(|batch| {
        let mut acting = within(&parameters, View::Windows);
        let logits = mlp(&mut acting, batch, &[16; 7]).unwrap();
        inference(acting, logits).0
    });
    let mut sessions = [&step, &one, &many]
        .map(|graph| Session::new(Plan::compile(graph, &store, &options).unwrap(), &store).unwrap());
    let mut turn = || sessions.iter_mut().for_each(|session| session.run().unwrap());
    (0..2).for_each(|_| turn());
    let before = COUNT.load(Ordering::Relaxed);
    (0..10).for_each(|_| turn());
    COUNT.load(Ordering::Relaxed) - before
}

/// One test, since tests that run at the same time would count each other's allocations.
#[test]
fn a_training_step_allocates_nothing() {
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-4 };
    let adam = Optimizer::Adam { weight_decay: 0.01, decoupled: true };
    assert_eq!(allocations(lenet(8, adam), &[8, 784], 1), 0, "LeNet");
    assert_eq!(allocations(resnet(4, 8, &[8, 16], 1, sgd), &[4, 3, 8, 8], 1), 0, "ResNet");
    assert_eq!(allocations_of_turns(), 0, "a policy that learns");
    // The queues of the thread pool take a block of memory for every few dozen tasks handed over.
    let threaded = allocations(resnet(4, 8, &[8, 16], 1, sgd), &[4, 3, 8, 8], 2);
    assert!(threaded <= 20, "{threaded} allocations in ten runs on two threads");
}
