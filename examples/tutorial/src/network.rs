//! A network of two inputs.

use std::sync::Arc;

use wattle_data::random::{Purpose, Stream};
use wattle_graph::ops::{Binary, BinaryFunction, Concat, MatMul};
use wattle_graph::{DType, Dim, Graph, GraphError, Model, Op, Parameter, Parameters, Tensor, ValueId};

use crate::Snake;

/// `history` and `weather` each go through a layer of `width` with [`Snake`]; a last layer answers `demand`, one number a day.
///
/// # Errors
/// Never; operators refuse what does not fit.
pub fn network(width: usize, seed: u64) -> Result<Model, GraphError> {
    let mut graph = Graph::new("demand");
    let mut parameters = Parameters::new();
    let mut random = Stream::new(seed, Purpose::Init, &[0]);
    let mut layer = |graph: &mut Graph, name: &str, x: ValueId, from: usize, to: usize| {
        let scale = (2.0 / from as f64).sqrt();
        let weights = (0..from * to).map(|_| (scale * random.normal()) as f32).collect();
        let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
        parameters.insert(&w, Tensor::f32([from, to], weights));
        parameters.insert(&b, Tensor::f32([to], vec![0.0; to]));
        let w = graph.parameter(Parameter::trainable(w), DType::F32, &[from, to]);
        let b = graph.parameter(Parameter::trainable(b), DType::F32, &[to]);
        let product = graph.apply(MatMul::default(), &[x, w])?;
        graph.apply(Binary { function: BinaryFunction::Add }, &[product, b])
    };
    let snake = Op::Custom(Arc::new(Snake { frequency: 1.0 }));
    let mut seen = vec![];
    for (name, length) in [("history", 24), ("weather", 4)] {
        let x = graph.input(name, DType::F32, vec![Dim::symbol("batch"), length.into()]);
        let hidden = layer(&mut graph, name, x, length, width)?;
        seen.push(graph.apply(snake.clone(), &[hidden])?);
    }
    let both = graph.apply(Concat { axis: 1 }, &seen)?;
    let hidden = layer(&mut graph, "both", both, 2 * width, width)?;
    let hidden = graph.apply(snake, &[hidden])?;
    let demand = layer(&mut graph, "demand", hidden, width, 1)?;
    graph.rename(demand, "demand_expected");
    graph.output(demand);
    Ok(Model::new(graph, parameters))
}
