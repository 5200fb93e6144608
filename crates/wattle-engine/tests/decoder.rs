//! A decoder with a cache of keys and values in the store: one token after another, the same logits as all at once.

#[allow(dead_code, reason = "each test builds some of the networks")]
mod networks;

use std::sync::Arc;

use networks::decoder::Decoder;
use wattle_engine::{Cpu, Freeze, Plan, PlanOptions, Session, Store};
use wattle_graph::networks::Heads;
use wattle_graph::{Graph, Tensor};

const SIZE: Decoder = Decoder { layers: 2, heads: Heads { count: 4, width: 8 }, tokens: 17, length: 24 };

fn tokens(seed: i64) -> Vec<i64> {
    (0..SIZE.length as i64).map(|i| (i * i + seed * 5 + 3) % SIZE.tokens as i64).collect()
}

fn session(graph: &Graph, store: &Store, freeze: Freeze) -> Session {
    let options = PlanOptions { freeze, ..PlanOptions::new(Arc::new(Cpu::new(1).expect("one thread"))) };
    let plan = Plan::compile(graph, store, &options).expect("a plan");
    assert!(plan.interpreted().is_empty(), "{:?}", plan.interpreted());
    Session::new(plan, store).expect("a session")
}

#[test]
fn one_token_after_another_gives_the_logits_of_the_whole_text() {
    let (graph, parameters) = SIZE.step();
    let store = Store::new(&parameters);
    for freeze in [Freeze::All, Freeze::None] {
        let mut whole = session(&SIZE.whole().0, &store, freeze.clone());
        let mut step = session(&graph, &store, freeze);
        // The second text overwrites what the first has left in the cache.
        for text in [tokens(0), tokens(1)] {
            whole.set_input("tokens", &Tensor::i64([1, SIZE.length], text.clone())).expect("it fits");
            whole.run().expect("it runs");
            let expected = whole.output::<f32>(0).expect("logits").to_vec();
            let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (place, (&token, expected)) in text.iter().zip(expected.chunks(SIZE.tokens)).enumerate() {
                step.set_input("tokens", &Tensor::i64([1, 1], vec![token])).expect("it fits");
                step.set_input("place", &Tensor::ints(&[place as i64])).expect("it fits");
                step.run().expect("it runs");
                for (a, b) in step.output::<f32>(0).expect("logits").iter().zip(expected) {
                    assert!((a - b).abs() <= 1e-5 * scale, "token {place}: {a}, expected {b}");
                }
            }
        }
    }
}

#[test]
fn the_cache_is_written_in_place() {
    let (graph, parameters) = SIZE.step();
    let store = Store::new(&parameters);
    let step = session(&graph, &store, Freeze::None);
    let whole = SIZE.length * SIZE.heads.inner() * size_of::<f32>();
    assert!(step.plan().arena_bytes() < whole, "the arena holds a copy of a cache");
}

#[test]
fn a_place_beyond_the_cache_is_refused() {
    let (graph, parameters) = SIZE.step();
    let store = Store::new(&parameters);
    let mut step = session(&graph, &store, Freeze::All);
    step.set_input("place", &Tensor::ints(&[SIZE.length as i64])).expect("it fits");
    assert!(step.run().is_err());
}
