//! The tutorial, from the operator to the served network; and the page says what the code here says.

use std::sync::Arc;

use wattle_data::{Batch, Source};
use wattle_engine::suite::Conformance;
use wattle_engine::{Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::onnx::{Limits, decode_model, encode_model};
use wattle_graph::{Example, Model, Op, Tensor};
use wattle_tickets::{Fractions, Scope, prunable, prune};
use wattle_train::experiment::Experiment;
use wattle_train::fit::fit;
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::options::TrainOptions;
use wattle_tutorial::{Houses, Pinball, Snake, SnakeGradient, kernels, network};

type Anyhow = Result<(), Box<dyn std::error::Error>>;

#[test]
fn the_operator_passes_the_suite() -> Anyhow {
    let suite = Conformance::new(kernels());
    let x = Example::noise(&[5, 7], 1);
    let found =
        suite.check(&Example::new(Op::Custom(Arc::new(Snake { frequency: 2.0 })), vec![x.clone()]))?;
    assert_eq!((found.kernel.as_str(), found.gradients, found.onnx), ("tutorial-snake-f32", 1, true));
    let gradient = Op::Custom(Arc::new(SnakeGradient { frequency: 2.0 }));
    suite.check(&Example::new(gradient, vec![Example::noise(&[5, 7], 2), x]))?;
    Ok(())
}

/// How often the truth stays below the answer, on days that nobody trained on.
fn coverage(model: &Model, plan: &PlanOptions) -> Result<f64, Box<dyn std::error::Error>> {
    let days = Houses::new(512, 99);
    let mut batch = Batch::default();
    days.fill(0, &mut batch)?;
    let bound = model.bind(&[("history", &[512, 24]), ("weather", &[512, 4])])?;
    let store = Store::new(&bound.parameters);
    let mut session = Session::new(Plan::compile(&bound.graph, &store, plan)?, &store)?;
    for name in ["history", "weather"] {
        let column = batch.column(name).ok_or("a column")?;
        let values = column.to_f32().ok_or("floats")?;
        session.set_input(name, &Tensor::f32(column.extents.clone(), values))?;
    }
    session.run()?;
    let truth = batch.column("demand_tomorrow").and_then(|c| c.to_f32()).ok_or("floats")?;
    let below =
        session.output::<f32>(0)?.iter().zip(&truth).filter(|(answer, truth)| truth <= answer).count();
    Ok(below as f64 / truth.len() as f64)
}

#[test]
fn a_network_of_two_inputs_is_trained_pruned_and_served() -> Anyhow {
    // Train.
    let plan = PlanOptions { kernels: kernels(), ..PlanOptions::new(Arc::new(Cpu::new(2)?)) };
    let loss = Loss::Custom(Arc::new(Pinball { quantile: 0.9 }));
    let options = TrainOptions {
        batch: 64,
        length: "400it".parse()?,
        learning_rate: 3e-3,
        optimizer: Optimizer::Adam { weight_decay: 0.0 },
        ..TrainOptions::new(loss)
    };
    let model = network(32, 1)?;
    let data = Arc::new(Houses::new(64, 7));
    let experiment = Experiment::new(model.clone(), data, options, plan.clone());
    let fitted = fit(&experiment, &mut |_| {})?;
    let trained = Model { parameters: fitted.parameters, ..model };
    let before = coverage(&trained, &plan)?;
    assert!((0.8..0.97).contains(&before), "the truth is below the answer in {before} of all days");

    // Prune: three quarters of the weights go, the rest learn again.
    let fractions = Fractions { conv: 0.75, dense: 0.75, output: 0.0 };
    let mut pruned = trained.clone();
    for (tensor, mask) in prune(&trained.parameters, &prunable(&trained.graph, fractions), Scope::Global) {
        pruned.parameters.set_mask(&tensor, mask);
    }
    let fitted = fit(&Experiment { model: pruned.clone(), ..experiment }, &mut |_| {})?;
    let lean = Model { parameters: fitted.parameters, ..pruned };
    let after = coverage(&lean, &plan)?;
    assert!((0.8..0.97).contains(&after), "the truth is below the answer in {after} of all days");
    let density = lean.parameters.get("both.weight").ok_or("a weight")?.density();
    assert!(density < 0.5, "{density} of the weights are left");

    // Serve, one day at a time, without the interpreter.
    let bound = lean.bind(&[("history", &[1, 24]), ("weather", &[1, 4])])?;
    let store = Store::new(&bound.parameters);
    let served = Plan::compile(&bound.graph, &store, &plan)?;
    assert!(served.interpreted().is_empty());
    let mut session = Session::new(served, &store)?;
    session.set_input("history", &Example::noise(&[1, 24], 1))?;
    session.set_input("weather", &Example::noise(&[1, 4], 2))?;
    session.run()?;
    let answer = session.output::<f32>(0)?[0];

    // Any other program can serve it too: Snake leaves as standard operators.
    let file = encode_model(&lean)?;
    let read = decode_model(&file, None, &Limits::default())?;
    assert_eq!(read.graph.inputs().len(), 2);
    assert!(answer.is_finite());
    Ok(())
}

#[test]
fn the_page_quotes_this_crate() {
    let page = include_str!("../../../docs/guide/tutorial.md");
    let sources = [
        include_str!("../src/snake.rs"),
        include_str!("../src/pinball.rs"),
        include_str!("../src/houses.rs"),
        include_str!("../src/network.rs"),
        include_str!("tutorial.rs"),
    ];
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect()
    };
    let sources: Vec<Vec<String>> = sources.into_iter().map(lines).collect();
    let blocks: Vec<&str> =
        page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 6, "{} blocks", blocks.len());
    for block in blocks {
        let block = lines(block);
        let quoted = sources.iter().any(|source| source.windows(block.len()).any(|part| part == block));
        assert!(quoted, "not in the sources:\n{}", block.join("\n"));
    }
}
