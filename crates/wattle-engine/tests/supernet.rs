//! Sub-networks of a supernet: prefix windows train as slices of the whole tensors do, to the last bit, and as the
//! interpreter does; what is outside a window does not change; and a sub-network can be taken out.

#[allow(dead_code, reason = "each test builds some of the networks")]
mod networks;

use std::collections::BTreeMap;
use std::sync::Arc;

use networks::prefixes::{View, within};
use networks::step::{Home, SGD, training_step};
use networks::{Transformer, fresh, inference, mlp};
use wattle_engine::{Cpu, Freeze, Plan, PlanCache, PlanOptions, Session, Store};
use wattle_graph::layers::Layers;
use wattle_graph::networks::Heads;
use wattle_graph::suite::Dice;
use wattle_graph::{Example, Graph, Parameters, Tensor, extract, interpret};

const STEPS: u32 = 200;

fn options(freeze: Freeze) -> PlanOptions {
    PlanOptions { freeze, ..PlanOptions::new(Arc::new(Cpu::new(1).expect("one thread"))) }
}

fn run(graph: &Graph, store: &Store, feeds: &BTreeMap<String, Tensor>, options: &PlanOptions) -> Vec<Tensor> {
    let plan = Plan::compile(graph, store, options).expect("a plan");
    assert!(plan.interpreted().is_empty(), "{:?}", plan.interpreted());
    let mut session = Session::new(plan, store).expect("a session");
    feeds.iter().for_each(|(name, tensor)| session.set_input(name, tensor).expect("it fits"));
    session.run().expect("it runs");
    session.outputs().expect("outputs").into_iter().map(|(_, tensor)| tensor).collect()
}

fn bits(tensor: &Tensor) -> Vec<u8> {
    tensor.to_le_bytes()
}

/// Whether each element of each tensor lies in a window that the graph assigns to.
fn written(graph: &Graph, parameters: &Parameters) -> BTreeMap<String, Vec<bool>> {
    let mut written: BTreeMap<_, _> =
        parameters.iter().map(|(name, tensor)| (name.to_string(), vec![false; tensor.len()])).collect();
    for assignment in graph.assignments() {
        let parameter = graph.parameter_of(assignment.target).expect("a parameter");
        let full = parameters.get(&parameter.tensor).expect("it is there").shape();
        let flags = written.get_mut(&parameter.tensor).expect("it is listed");
        parameter.window.positions(full).expect("it fits").into_iter().for_each(|at| flags[at] = true);
    }
    written
}

/// Trains freshly sampled sub-networks; `sample` gives the steps as windows and as slices, `x` the inputs of a step.
fn trains_alike(
    parameters: Parameters,
    mut sample: impl FnMut() -> [Graph; 2],
    x: impl Fn(u32) -> Tensor,
    rows: usize,
    classes: usize,
) {
    let (by_windows, by_slices) = (Store::new(&parameters), Store::new(&parameters));
    let mut moved = false;
    for step in 0..STEPS {
        let [windows, slices] = sample();
        let labels: Vec<i64> = (0..rows).map(|i| ((i * 7 + step as usize) % classes) as i64).collect();
        let feeds: BTreeMap<String, Tensor> = [
            ("x".to_string(), x(step)),
            ("labels".to_string(), Tensor::ints(&labels)),
            ("rate".to_string(), Tensor::f32([], vec![0.02])),
        ]
        .into();
        let before = by_windows.parameters();
        let losses = [(&windows, &by_windows), (&slices, &by_slices)]
            .map(|(graph, store)| run(graph, store, &feeds, &options(Freeze::None)));
        assert_eq!(bits(&losses[0][0]), bits(&losses[1][0]), "loss of step {step}");
        let (after, sliced) = (by_windows.parameters(), by_slices.parameters());
        let mut expected = before.clone();
        let exact = interpret(&windows, &mut expected, &feeds).expect("it runs");
        let (loss, exact) = (losses[0][0].to_f64()[0], exact[0].to_f64()[0]);
        assert!((loss - exact).abs() <= 1e-5 * exact.abs(), "loss of step {step}: {loss}, exactly {exact}");
        for (name, flags) in written(&windows, &before) {
            let [old, new, other, exact] =
                [&before, &after, &sliced, &expected].map(|p| p.get(&name).expect("it is there"));
            assert_eq!(bits(new), bits(other), "{name} after step {step}");
            let [old, new, exact] = [old, new, exact].map(|t| t.to_f64());
            let scale = exact.iter().fold(1e-2f64, |m, x| m.max(x.abs()));
            for (at, inside) in flags.into_iter().enumerate() {
                assert!((new[at] - exact[at]).abs() <= 1e-5 * scale, "{name}[{at}] after step {step}");
                assert!(inside || new[at].to_bits() == old[at].to_bits(), "{name}[{at}] is outside");
                moved |= new[at] != old[at];
            }
        }
    }
    assert!(moved);
}

const MOST: usize = 16;

/// A training step of an MLP of `widths`, of parameters of its own or within a larger one's.
fn mlp_step<S: Home>(mut layers: Layers<S>, widths: &[usize]) -> (Graph, S) {
    let logits = mlp(&mut layers, 6, widths).expect("it fits");
    training_step(layers, logits, SGD)
}

#[test]
fn windows_of_an_mlp_train_as_slices_do() {
    let (_, largest) = mlp_step(fresh("mlp"), &[MOST; 7]);
    let mut dice = Dice(1);
    let sample = || {
        let widths: Vec<usize> = (0..7).map(|_| dice.of(&[4, 8, 11, 16])).collect();
        [View::Windows, View::Slices].map(|view| mlp_step(within(&largest.parameters, view), &widths).0)
    };
    trains_alike(largest.parameters.clone(), sample, |step| Example::noise(&[6, 12], step), 6, 5);
}

const LARGEST: Transformer =
    Transformer { layers: 4, width: 16, heads: Heads { count: 4, width: 4 }, hidden: 24 };

/// Texts and their length.
const TEXTS: [usize; 2] = [2, 5];
const TOKENS: usize = 11;

fn sub_transformer(dice: &mut Dice) -> Transformer {
    Transformer {
        layers: dice.of(&[2, 3, 4, 4]),
        width: dice.of(&[8, 12, 16]),
        heads: Heads { count: dice.of(&[1, 2, 3, 4]), width: 4 },
        hidden: dice.of(&[8, 13, 24]),
    }
}

fn transformer_step<S: Home>(mut layers: Layers<S>, own: &Transformer) -> (Graph, S) {
    let logits = own.build(&mut layers, TEXTS, TOKENS).expect("it fits");
    training_step(layers, logits, SGD)
}

#[test]
fn windows_of_a_transformer_train_as_slices_do() {
    let (_, largest) = transformer_step(fresh("transformer"), &LARGEST);
    let mut dice = Dice(2);
    let sample = || {
        let own = sub_transformer(&mut dice);
        [View::Windows, View::Slices].map(|view| transformer_step(within(&largest.parameters, view), &own).0)
    };
    let tokens = |step: u32| Tensor::i64([2, 5], (0..10).map(|i| (i * 3 + i64::from(step)) % 11).collect());
    trains_alike(largest.parameters.clone(), sample, tokens, 10, TOKENS);
}

#[test]
fn an_extracted_sub_network_gives_the_same_bits() {
    let forward = |own: &Transformer, parameters: &Parameters| {
        let mut layers = within(parameters, View::Windows);
        let logits = own.build(&mut layers, TEXTS, TOKENS).expect("it fits");
        inference(layers, logits).0
    };
    let (_, largest) = transformer_step(fresh("transformer"), &LARGEST);
    let parameters = largest.parameters;
    let store = Store::new(&parameters);
    let mut dice = Dice(3);
    let feeds = [("x".to_string(), Tensor::i64([2, 5], vec![0, 5, 3, 2, 10, 1, 1, 7, 8, 9]))].into();
    for _ in 0..5 {
        let graph = forward(&sub_transformer(&mut dice), &parameters);
        let small = extract(&graph, &parameters).expect("it can be taken out");
        let own = Store::new(&small.parameters);
        for freeze in [Freeze::None, Freeze::All] {
            let seen = run(&graph, &store, &feeds, &options(freeze.clone()));
            let taken = run(&small.graph, &own, &feeds, &options(freeze));
            assert_eq!(bits(&seen[0]), bits(&taken[0]));
        }
        let size = |p: &Parameters| p.iter().map(|(_, t)| t.len()).sum::<usize>();
        assert!(size(&small.parameters) <= size(&parameters));
    }
}

#[test]
fn a_plan_is_made_once_for_as_long_as_nothing_that_decides_it_changes() {
    let cache = PlanCache::new(1 << 20);
    let mut largest = fresh("mlp");
    mlp(&mut largest, 6, &[MOST; 7]).expect("it fits");
    let parameters = largest.source.parameters;
    let widths = |n: usize| {
        let mut layers = within(&parameters, View::Windows);
        let logits = mlp(&mut layers, 6, &[n; 7]).expect("it fits");
        inference(layers, logits).0
    };
    let store = Store::new(&parameters);
    let (none, all) = (options(Freeze::None), options(Freeze::All));
    let get =
        |n, store: &Store, options: &PlanOptions| cache.get(&widths(n), store, options).expect("a plan");
    let same = Arc::ptr_eq;
    let [moving, frozen] = [&none, &all].map(|o| get(8, &store, o));
    assert!(!same(&moving, &frozen));
    assert!(same(&moving, &get(8, &store, &none)) && same(&frozen, &get(8, &store, &all)));
    assert!(!same(&moving, &get(12, &store, &none)));
    assert!(same(&moving, &get(8, &Store::new(&parameters), &none)), "any store of such tensors will do");
    assert!(!same(&frozen, &get(8, &Store::new(&parameters), &all)), "constants are those of one store");
    store.write("fc.bias", &Tensor::f32([5], vec![1.0; 5])).expect("it fits");
    assert!(same(&moving, &get(8, &store, &none)));
    assert!(!same(&frozen, &get(8, &store, &all)), "what is frozen has changed");
    let mask = wattle_graph::Mask::from_bools((0..MOST * 5).map(|i| i % 2 == 0));
    store.set_mask("fc.weight", Some(mask)).expect("it fits");
    assert!(!same(&moving, &get(8, &store, &none)), "a plan is made for masks");
    let unrewritten = PlanOptions { rewrite: false, ..none.clone() };
    assert!(!same(&get(8, &store, &none), &get(8, &store, &unrewritten)));
    assert!(cache.bytes() > 0 && cache.bytes() <= 1 << 20);

    let small = PlanCache::new(cache.bytes() / 4);
    let first = small.get(&widths(4), &store, &none).expect("a plan");
    assert!(same(&first, &small.get(&widths(4), &store, &none).expect("a plan")));
    for n in [5, 6, 7, 8, 9, 10] {
        small.get(&widths(n), &store, &none).expect("a plan");
        assert!(small.bytes() <= cache.bytes() / 4);
    }
    assert!(!same(&first, &small.get(&widths(4), &store, &none).expect("a plan")), "the oldest has gone");
}
