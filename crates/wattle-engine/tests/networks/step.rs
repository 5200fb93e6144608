//! A training step around a network that yields logits.

use wattle_graph::layers::{Fresh, Initially, Layers, ParameterSource};
use wattle_graph::ops::{AdamUpdate, SgdUpdate, SoftmaxCrossEntropy};
use wattle_graph::{DType, Graph, Role, Shape, ValueId, differentiate};

/// How parameters move.
#[derive(Clone, Copy, Debug)]
pub enum Optimizer {
    Sgd { momentum: f64, nesterov: bool, weight_decay: f64 },
    Adam { weight_decay: f64, decoupled: bool },
}

/// Stochastic gradients with momentum.
pub const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-3 };

/// Where parameters come from and go to.
pub trait Home: ParameterSource {
    /// Gives the parameter `name`, seen as `value`, the value `next` after a run.
    fn assign(&mut self, graph: &mut Graph, _name: &str, value: ValueId, next: ValueId) {
        graph.assign(value, next).expect("types agree");
    }
}

impl<D> Home for Fresh<D> where Fresh<D>: ParameterSource {}

/// Cross entropy of `logits` by `labels`, gradients, and updates at `rate` (for Adam the `step`-th); the loss is the output.
pub fn training_step<S: Home>(mut layers: Layers<S>, logits: ValueId, optimizer: Optimizer) -> (Graph, S) {
    let rows = layers.graph.extents(logits).expect("known")[0];
    let labels = layers.graph.input("labels", DType::I64, Shape::known(&[rows]));
    let rate = layers.graph.input("rate", DType::F32, Shape::known(&[]));
    let step = match optimizer {
        Optimizer::Adam { .. } => Some(layers.graph.input("step", DType::F32, Shape::known(&[]))),
        Optimizer::Sgd { .. } => None,
    };
    let operands = [Some(logits), Some(labels)];
    let loss =
        layers.graph.apply_all(SoftmaxCrossEntropy::plain(), &operands, "loss").expect("operands fit")[0];
    let trained = std::mem::take(&mut layers.trained);
    let wrt: Vec<ValueId> = trained.iter().map(|(_, value)| *value).collect();
    let differentiated = differentiate(&layers.graph, loss, &wrt).expect("differentiable");
    layers.graph = differentiated.graph;
    for ((name, w), gradient) in trained.into_iter().zip(differentiated.gradients) {
        let gradient = gradient.expect("every parameter is used");
        let extents = layers.graph.extents(w).expect("known");
        let mut state = |part: &str| {
            let name = format!("{name}.{part}");
            let value = layers.parameter(&name, &extents, Role::State, Initially::Filled(0.0));
            (name, value.expect("it is there"))
        };
        let (states, op, more): (Vec<_>, wattle_graph::Op, _) = match optimizer {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                (vec![state("velocity")], SgdUpdate { momentum, nesterov, weight_decay }.into(), None)
            }
            Optimizer::Adam { weight_decay, decoupled } => {
                let op = AdamUpdate { weight_decay, decoupled, ..AdamUpdate::default() };
                (vec![state("first"), state("second")], op.into(), step)
            }
        };
        let mut operands = vec![Some(w), Some(gradient)];
        operands.extend(states.iter().map(|(_, value)| Some(*value)).chain([Some(rate)]));
        operands.extend(more.map(Some));
        let next = layers.graph.apply_all(op, &operands, "").expect("operands fit");
        for ((name, value), next) in [(name, w)].into_iter().chain(states).zip(next) {
            layers.source.assign(&mut layers.graph, &name, value, next);
        }
    }
    for (value, next) in std::mem::take(&mut layers.statistics) {
        layers.graph.assign(value, next).expect("types agree");
    }
    layers.graph.set_outputs(vec![loss]);
    (layers.graph, layers.source)
}
