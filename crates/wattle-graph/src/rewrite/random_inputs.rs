//! Random inputs: what a network draws follows from a seed and a step that each run is told.

use super::Rebuild;
use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::ops::Op;
use crate::shape::Shape;
use crate::tensor::DType;

/// The graph with seed and step of every `Random` and `Dropout` read from the scalar inputs `seed` (i64) and `step` (f32, a
/// whole number; exact up to 2^24), which are added where it has none of that name. Streams are numbered anew, so that no two
/// nodes draw the same numbers. Training does this before it differentiates; a graph that draws nothing stays as it is.
///
/// # Errors
/// When an input `seed` or `step` is of another type, or a graph inside a node draws.
pub fn random_inputs(graph: &Graph) -> Result<Graph, GraphError> {
    if !draws(graph) {
        return Ok(graph.clone());
    }
    let mut rebuild = Rebuild::new(graph);
    let seed = scalar(&mut rebuild.to, "seed", &[DType::I64])?;
    let step = scalar(&mut rebuild.to, "step", &[DType::F32, DType::I64])?;
    let mut streams = 0..;
    for node in graph.nodes() {
        let mut op = node.op.clone();
        let first = match &mut op {
            Op::Random(op) => {
                op.stream = streams.next().unwrap_or_default();
                0
            }
            Op::Dropout(op) => {
                op.stream = streams.next().unwrap_or_default();
                1
            }
            op if op.graphs().into_iter().any(draws) => {
                let text = format!(
                    "{} `{}` draws random numbers inside, where no input reaches",
                    op.name(),
                    node.name
                );
                return Err(GraphError::Invalid(text));
            }
            _ => {
                rebuild.copy(node)?;
                continue;
            }
        };
        let mut operands = rebuild.operands(node);
        operands[first..first + 2].copy_from_slice(&[Some(seed), Some(step)]);
        let outputs = rebuild.to.apply_all(op, &operands, &node.name)?;
        for (&old, new) in node.outputs.iter().zip(outputs) {
            rebuild.take_name(old, new);
        }
    }
    super::remove_dead_code(&rebuild.finish()?)
}

/// Whether a graph or a branch of it draws random numbers.
fn draws(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| match &node.op {
        Op::Random(_) | Op::Dropout(_) => true,
        op => op.graphs().into_iter().any(draws),
    })
}

/// The scalar input of this name, added where there is none.
fn scalar(graph: &mut Graph, name: &str, allowed: &[DType]) -> Result<ValueId, GraphError> {
    let Some(id) = graph.find(name) else { return Ok(graph.input(name, allowed[0], Shape::known(&[]))) };
    let ty = &graph.value(id).ty;
    if graph.inputs().contains(&id) && allowed.contains(&ty.dtype) && ty.shape == Shape::known(&[]) {
        return Ok(id);
    }
    Err(GraphError::Feed {
        what: "the value",
        name: name.to_string(),
        found: ty.to_string(),
        expected: format!("an input {}[]: it decides what the network draws", allowed[0]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Binary, BinaryFunction, Random, RandomKind};
    use crate::parameter::Parameters;
    use crate::tensor::Tensor;

    /// The difference of two draws from one stream, which is nothing.
    fn difference() -> Graph {
        let mut graph = Graph::new("draws");
        let zero = graph.constant(Tensor::i64([], vec![0]));
        let op = Random { kind: RandomKind::Gumbel, dtype: DType::F32, shape: Some(vec![5]), stream: 9 };
        let a = graph.apply(op.clone(), &[zero, zero]).unwrap();
        let b = graph.apply(op, &[zero, zero]).unwrap();
        let y = graph.apply(Binary { function: BinaryFunction::Sub }, &[a, b]).unwrap();
        graph.output(y);
        graph
    }

    fn run(graph: &Graph, seed: i64, step: f32) -> Vec<f64> {
        let feeds = [("seed", Tensor::i64([], vec![seed])), ("step", Tensor::scalar(step))];
        let feeds = feeds.map(|(name, tensor)| (name.to_string(), tensor)).into();
        crate::interpret(graph, &mut Parameters::new(), &feeds).unwrap()[0].to_f64().into_owned()
    }

    #[test]
    fn seed_and_step_decide_what_is_drawn_and_nodes_draw_apart() {
        assert_eq!(run(&difference(), 0, 0.0), [0.0; 5]);
        let graph = random_inputs(&difference()).unwrap();
        assert_eq!(graph.inputs().iter().map(|&i| graph.label(i)).collect::<Vec<_>>(), ["seed", "step"]);
        let first = run(&graph, 1, 1.0);
        assert_eq!(first, run(&graph, 1, 1.0));
        assert!(first.iter().all(|x| *x != 0.0));
        assert_ne!(first, run(&graph, 1, 2.0));
        assert_ne!(first, run(&graph, 2, 1.0));
    }

    #[test]
    fn an_input_of_that_name_and_another_type_is_refused() {
        let mut graph = difference();
        graph.input("seed", DType::F32, Shape::known(&[3]));
        assert!(
            random_inputs(&graph)
                .unwrap_err()
                .to_string()
                .contains("`seed`: found f32[3], expected an input i64[]")
        );
    }
}
