use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::objective::Loss;
use wattle_engine::{Cpu, Freeze, Plan, PlanOptions, Session, Store};
use wattle_graph::ops::{Gemm, Unary};
use wattle_graph::{Example, Mask, interpret};

/// Two dense layers: `a` and `b` with biases, ReLU between them; batches of 4 of 3 numbers, 2 outputs.
fn network() -> Model {
    let mut graph = Graph::new("mlp");
    let mut parameters = Parameters::new();
    let mut x = graph.input("x", DType::F32, Shape::known(&[4, 3]));
    for (name, inputs, outputs, seed) in [("a", 3, 5, 1), ("b", 5, 2, 2)] {
        let mut parameter = |part: &str, shape: &[usize]| {
            let tensor = format!("{name}.{part}");
            parameters.insert(tensor.clone(), Example::noise(shape, seed));
            graph.parameter(Parameter::trainable(tensor), DType::F32, shape)
        };
        let (w, b) = (parameter("weight", &[outputs, inputs]), parameter("bias", &[outputs]));
        let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
        x = graph.apply_all(op, &[Some(x), Some(w), Some(b)], name).unwrap()[0];
        if name == "a" {
            x = graph.apply(Unary { function: Function::Tanh }, &[x]).unwrap();
        }
    }
    graph.rename(x, "y");
    graph.output(x);
    Model::new(graph, parameters)
}

fn loss(text: &str) -> Loss {
    text.parse().unwrap()
}

fn feeds(step: u64) -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        ("x".to_string(), Example::noise(&[4, 3], 10 + step as u32)),
        ("targets".to_string(), Example::noise(&[4, 2], 20 + step as u32)),
        ("learning_rate".to_string(), Tensor::scalar(0.1)),
        ("step".to_string(), Tensor::scalar((step + 1) as f32)),
    ])
}

/// Runs a face on what it asks for of `feeds`, in the engine; returns its outputs.
fn run(face: &Face, parameters: &mut Parameters, feeds: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    for (name, tensor) in face.parameters.iter() {
        if parameters.get(name).is_none() {
            parameters.insert(name, tensor.clone());
        }
    }
    let plan = PlanOptions { freeze: Freeze::None, ..PlanOptions::new(Arc::new(Cpu::new(1).unwrap())) };
    let store = Store::new(parameters);
    let compiled = Plan::compile(&face.graph, &store, &plan).unwrap();
    let mut session = Session::new(compiled, &store).unwrap();
    for &input in face.graph.inputs() {
        let name = face.graph.label(input);
        session.set_input(&name, &feeds[&name]).unwrap();
    }
    session.run().unwrap();
    *parameters = store.parameters();
    session.outputs().unwrap().into_iter().map(|(_, tensor)| tensor).collect()
}

fn options(optimizer: Optimizer) -> StepOptions {
    StepOptions::new(optimizer)
}

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-2 };
const ADAM: Optimizer = Optimizer::AdamW { weight_decay: 1e-2 };

#[test]
fn fused_is_gradients_and_update_to_the_bit() {
    for optimizer in [SGD, ADAM] {
        for clip in [None, Some(0.05)] {
            let options = StepOptions { clip, average: Some(0.9), norm: true, ..options(optimizer) };
            let step = StepGraph::new(&network(), &loss("mse"), &options).unwrap();
            let (fused, gradients, update) =
                (step.fused().unwrap(), step.gradients().unwrap(), step.update().unwrap());
            let (mut one, mut two) = (Parameters::new(), Parameters::new());
            for at in 0..3 {
                let mut fed = feeds(at);
                let told = run(&fused, &mut one, &fed);
                let found = run(&gradients, &mut two, &fed);
                let names = step.facts().trained.iter().map(|name| format!("gradient:{name}"));
                fed.extend(names.zip(gradients.outputs.gradients.iter().map(|&i| found[i].clone())));
                let norm = run(&update, &mut two, &fed);
                assert_eq!(told[fused.outputs.loss.unwrap()], found[gradients.outputs.loss.unwrap()]);
                assert_eq!(told[fused.outputs.norm.unwrap()], norm[update.outputs.norm.unwrap()]);
                assert_eq!(one, two, "{optimizer:?} {clip:?} step {at}");
            }
        }
    }
}

#[test]
fn gradients_longer_than_allowed_are_shortened_and_their_norm_is_told() {
    let step = |clip| {
        let plain = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
        let options = StepOptions { clip, norm: true, ..options(plain) };
        let face = StepGraph::new(&network(), &loss("mse"), &options).unwrap().fused().unwrap();
        let mut parameters = face.parameters.clone();
        let told = interpret(&face.graph, &mut parameters, &feeds(0)).unwrap();
        (parameters, told[face.outputs.norm.unwrap()].to_f64()[0])
    };
    let before = network().parameters;
    // What plain descent moves is the gradient times the rate.
    let length = |after: &Parameters| {
        let moved = before.iter().flat_map(|(name, tensor)| {
            let after = after.get(name).unwrap().to_f64().into_owned();
            tensor.to_f64().iter().zip(after).map(|(b, a)| ((b - a) / 0.1).powi(2)).collect::<Vec<_>>()
        });
        moved.sum::<f64>().sqrt()
    };
    let (free, norm) = step(None);
    assert!((length(&free) - norm).abs() < 1e-5 * norm, "{} {norm}", length(&free));
    let (short, same) = step(Some(0.25 * norm));
    assert_eq!(norm, same, "the norm is told before it is shortened");
    assert!((length(&short) - 0.25 * norm).abs() < 1e-4 * norm, "{} {norm}", length(&short));
    let (long, _) = step(Some(4.0 * norm));
    assert_eq!(long, free);
}

#[test]
fn what_is_under_a_mask_does_not_count_in_the_norm() {
    let mut model = network();
    let options = StepOptions { norm: true, ..options(SGD) };
    let norm = |model: &Model| {
        let step = StepGraph::new(model, &loss("mse"), &options).unwrap();
        let face = step.fused().unwrap();
        let norm = interpret(&face.graph, &mut face.parameters.clone(), &feeds(0)).unwrap()
            [face.outputs.norm.unwrap()]
        .to_f64()[0];
        let face = step.gradients().unwrap();
        let found = interpret(&face.graph, &mut face.parameters.clone(), &feeds(0)).unwrap();
        let mut sum = 0.0;
        for (name, &place) in step.facts().trained.iter().zip(&face.outputs.gradients) {
            for (i, g) in found[place].to_f64().iter().enumerate() {
                sum += if model.parameters.mask(name).is_none_or(|mask| mask.get(i)) { g * g } else { 0.0 };
            }
        }
        (norm, sum.sqrt())
    };
    model.parameters.set_mask("a.weight", Mask::from_bools((0..15).map(|i| i % 3 == 0)));
    let (found, expected) = norm(&model);
    assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
    assert!(norm(&network()).0 != found);
}

#[test]
fn groups_decide_what_moves_and_how_far() {
    let plain = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.1 };
    let moved = |groups: Groups| {
        let options = StepOptions { groups, ..options(plain) };
        let step = StepGraph::new(&network(), &loss("mse"), &options).unwrap();
        let face = step.fused().unwrap();
        let mut parameters = face.parameters.clone();
        interpret(&face.graph, &mut parameters, &feeds(0)).unwrap();
        let by = |name: &str| {
            let tensors = [&network().parameters, &parameters].map(|p| p.get(name).unwrap().to_f64()[0]);
            tensors[1] - tensors[0]
        };
        (["a.weight", "a.bias", "b.weight", "b.bias"].map(by), step.facts().clone())
    };
    let (all, facts) = moved(Groups::default());
    assert_eq!((facts.trained.len(), facts.frozen.len()), (4, 0));
    let (found, facts) = moved(Groups { freeze: "a.*".parse().unwrap(), ..Groups::default() });
    assert_eq!(facts.frozen, ["a.weight", "a.bias"]);
    assert_eq!(found, [0.0, 0.0, all[2], all[3]]);
    let (found, _) = moved(Groups { rates: "b.*=0.5".parse().unwrap(), ..Groups::default() });
    assert_eq!(found[0], all[0]);
    assert!((found[2] - 0.5 * all[2]).abs() < 1e-7);
    let (found, _) = moved(Groups { no_decay: "bias".parse().unwrap(), ..Groups::default() });
    assert_eq!(found[0], all[0]);
    let bias = network().parameters.get("a.bias").unwrap().to_f64()[0];
    assert!((found[1] - (all[1] + 0.1 * 0.1 * bias)).abs() < 1e-7, "{found:?} {all:?}");
}

#[test]
fn averages_follow_the_parameters_slowly() {
    let options = StepOptions { average: Some(0.75), ..options(SGD) };
    let face = StepGraph::new(&network(), &loss("mse"), &options).unwrap().fused().unwrap();
    let mut parameters = face.parameters.clone();
    let first = |parameters: &Parameters, name: &str| parameters.get(name).unwrap().to_f64()[0];
    let mut expected = first(&network().parameters, "b.bias");
    for at in 0..4 {
        interpret(&face.graph, &mut parameters, &feeds(at)).unwrap();
        expected = 0.75 * expected + 0.25 * first(&parameters, "b.bias");
        let found = first(&parameters, "b.bias.average");
        assert!((found - expected).abs() < 1e-6, "step {at}: {found}, expected {expected}");
    }
    assert_eq!(first(&averaged(&parameters), "b.bias"), first(&parameters, "b.bias.average"));
}

#[test]
fn what_cannot_be_trained_is_said_by_name() {
    let refused = |model: &Model, groups: &str| {
        let groups = Groups { freeze: groups.parse().unwrap(), ..Groups::default() };
        let options = StepOptions { groups, ..options(SGD) };
        StepGraph::new(model, &loss("mse"), &options).unwrap_err().to_string()
    };
    assert!(
        refused(&network(), "*").contains("none of the 4 trainable parameters is trained: all are frozen")
    );
    let mut graph = Graph::new("fixed");
    let x = graph.input("x", DType::F32, Shape::known(&[4, 2]));
    graph.output(x);
    assert!(
        refused(&Model::new(graph, Parameters::new()), "").contains("`fixed` has no trainable parameter")
    );
}

#[test]
fn a_parameter_that_the_loss_does_not_reach_is_told() {
    let mut model = network();
    model.parameters.insert("unused", Tensor::f32([2], vec![0.0; 2]));
    model.graph.parameter(Parameter::trainable("unused"), DType::F32, &[2]);
    let step = StepGraph::new(&model, &loss("mse"), &options(SGD)).unwrap();
    assert_eq!(step.facts().without_gradient, ["unused"]);
}

#[test]
fn a_parameter_named_like_state_is_refused() {
    let mut model = network();
    model.parameters.insert("a.bias.velocity", Tensor::f32([5], vec![0.0; 5]));
    model.graph.parameter(Parameter::trainable("a.bias.velocity"), DType::F32, &[5]);
    let error = StepGraph::new(&model, &loss("mse"), &options(SGD)).unwrap().fused().unwrap_err();
    assert!(error.to_string().contains("`a.bias.velocity`"), "{error}");
}
