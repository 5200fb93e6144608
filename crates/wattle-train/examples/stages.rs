//! One small network at every stage, as `docs/how/architecture.md` shows it: `cargo run -p wattle-train --example stages`.

use std::error::Error;

use wattle_engine::{Cpu, Isa, Plan, PlanOptions, Session, Store};
use wattle_graph::ops::{Binary, BinaryFunction, Function, MatMul, Unary};
use wattle_graph::{DType, Dim, Graph, GraphError, Model, Parameter, Parameters, Tensor, rewrite};
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::step_graph::{StepGraph, StepOptions};

const BATCH: usize = 4;

/// Which of two numbers is the larger one: two inputs, three hidden units, two classes.
fn network() -> Result<Model, GraphError> {
    let (mut graph, mut parameters) = (Graph::new("larger"), Parameters::new());
    let mut weight = |graph: &mut Graph, name: &str, shape: &[usize], values: Vec<f32>| {
        parameters.insert(name, Tensor::f32(shape, values));
        graph.parameter(Parameter::trainable(name), DType::F32, shape)
    };
    let x = graph.input("x", DType::F32, vec![Dim::symbol("batch"), 2.into()]);
    let w1 = weight(&mut graph, "w1", &[2, 3], vec![0.5, -0.4, 0.1, -0.3, 0.6, 0.2]);
    let b1 = weight(&mut graph, "b1", &[3], vec![0.0; 3]);
    let w2 = weight(&mut graph, "w2", &[3, 2], vec![0.3, -0.2, -0.5, 0.4, 0.1, 0.1]);
    let product = graph.apply(MatMul::default(), &[x, w1])?;
    let sum = graph.apply(Binary { function: BinaryFunction::Add }, &[product, b1])?;
    let hidden = graph.apply(Unary { function: Function::Relu }, &[sum])?;
    let logits = graph.apply(MatMul::default(), &[hidden, w2])?;
    for (value, name) in [(product, "product"), (sum, "sum"), (hidden, "hidden"), (logits, "logits")] {
        graph.rename(value, name);
    }
    graph.output(logits);
    Ok(Model::new(graph, parameters))
}

/// The stages by name, in order.
pub fn stages() -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let model = network()?;
    let bound = Model { graph: rewrite::rebatch(&model.graph, "x", &[BATCH, 2])?, ..model.clone() };

    // One training step is a graph, too.
    let objective: Loss = "cross-entropy".parse()?;
    let optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let step = StepGraph::new(&bound, &objective, &StepOptions::new(optimizer))?.fused()?;

    // Plain code instead of vectors, so that the page is the same on every machine.
    let cpu = Cpu::with_isa(Isa::named("scalar")?, 1)?;
    let store = Store::new(&step.parameters);
    let plan = Plan::compile(&step.graph, &store, &PlanOptions::new(cpu.into()))?;
    let planned = plan.to_string();

    let mut session = Session::new(plan, &store)?;
    session.set_input("x", &Tensor::f32([BATCH, 2], vec![1.0, 0.0, 0.2, 0.9, 0.7, 0.1, 0.3, 0.8]))?;
    session.set_input(&step.ports[0].input, &Tensor::i64([BATCH], vec![0, 1, 0, 1]))?;
    session.set_input("learning_rate", &Tensor::scalar(0.5f32))?;
    let loss = step.outputs.loss.ok_or("a step tells its loss")?;
    let mut told = String::new();
    for number in 1..=30 {
        session.run()?;
        if [1, 2, 3, 30].contains(&number) {
            told += &format!("step {number:>2}: loss {:.4}\n", session.output::<f32>(loss)?[0]);
        }
    }
    let learnt = store.read("w1")?;
    told += &format!("w1 in the store: {:.2?}", learnt.as_f32().unwrap_or(&[]));
    Ok(vec![
        ("graph", model.graph.to_string()),
        ("step", step.graph.to_string()),
        ("plan", planned.trim_end().to_string()),
        ("run", told),
    ])
}

#[allow(
    dead_code,
    clippy::print_stdout,
    reason = "an example prints; the test of the page only calls `stages`"
)]
fn main() -> Result<(), Box<dyn Error>> {
    for (name, text) in stages()? {
        println!("== {name}\n{text}\n");
    }
    Ok(())
}
