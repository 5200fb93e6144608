//! Optimisers: what is read from a command line, and the nodes that update a parameter.

use serde::{Deserialize, Serialize};
use wattle_graph::ops::{AdamUpdate, SgdUpdate};
use wattle_graph::{Graph, GraphError, Parameter, Parameters, Tensor, ValueId};

/// How parameters follow their gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent; see [`SgdUpdate`] for the formula.
    Sgd {
        /// Fraction of the last step that is repeated.
        momentum: f64,
        /// Look ahead along the momentum.
        nesterov: bool,
        /// Added to the gradient, times the parameter.
        weight_decay: f64,
    },
    /// Adam; see [`AdamUpdate`] for the formula. Moments decay by 0.9 and 0.999.
    Adam {
        /// Added to the gradient, times the parameter.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay.
    AdamW {
        /// Moves the parameter itself, times the learning rate.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// The same without weight decay.
    fn undecayed(self) -> Optimizer {
        match self {
            Optimizer::Sgd { momentum, nesterov, .. } => {
                Optimizer::Sgd { momentum, nesterov, weight_decay: 0.0 }
            }
            Optimizer::Adam { .. } => Optimizer::Adam { weight_decay: 0.0 },
            Optimizer::AdamW { .. } => Optimizer::AdamW { weight_decay: 0.0 },
        }
    }

    /// Adds the nodes that update `target` by `gradient` and the assignments that make it last; new state tensors
    /// go into `parameters`, as zeros, under the same mask. Returns the next value of `target`.
    ///
    /// `rate` and `step` are scalars: the learning rate, and the number of updates so far plus one.
    pub(crate) fn attach(
        &self,
        graph: &mut Graph,
        parameters: &mut Parameters,
        target: ValueId,
        gradient: ValueId,
        [rate, step]: [ValueId; 2],
        decays: bool,
    ) -> Result<ValueId, GraphError> {
        let mut zeros =
            |graph: &mut Graph, suffix: &str| state(graph, parameters, target, suffix, Initial::Zeros);
        match if decays { *self } else { self.undecayed() } {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                let op = SgdUpdate { momentum, nesterov, weight_decay };
                let velocity = if momentum != 0.0 { Some(zeros(graph, "velocity")?) } else { None };
                let operands = [Some(target), Some(gradient), velocity, Some(rate)];
                let next = graph.apply_all(op, &operands, "update")?;
                graph.assign(target, next[0])?;
                if let Some(velocity) = velocity {
                    graph.assign(velocity, next[1])?;
                }
                Ok(next[0])
            }
            Optimizer::Adam { weight_decay } | Optimizer::AdamW { weight_decay } => {
                let decoupled = matches!(self, Optimizer::AdamW { .. });
                let op = AdamUpdate { weight_decay, decoupled, ..AdamUpdate::default() };
                let (first, second) = (zeros(graph, "first_moment")?, zeros(graph, "second_moment")?);
                let operands = [target, gradient, first, second, rate, step].map(Some);
                let next = graph.apply_all(op, &operands, "update")?;
                for (to, value) in [target, first, second].into_iter().zip(&next) {
                    graph.assign(to, *value)?;
                }
                Ok(next[0])
            }
        }
    }
}

/// What a state tensor holds before the first update.
pub(crate) enum Initial {
    /// Nothing yet.
    Zeros,
    /// What its owner holds.
    Owner,
}

/// Adds the state tensor `suffix` of the parameter behind `target`: of the whole tensor's shape, seen through the same
/// window, under the same mask.
pub(crate) fn state(
    graph: &mut Graph,
    parameters: &mut Parameters,
    target: ValueId,
    suffix: &str,
    initial: Initial,
) -> Result<ValueId, GraphError> {
    let missing = || GraphError::Invalid(format!("`{}` is updated but is no parameter", graph.label(target)));
    let owner = graph.parameter_of(target).cloned().ok_or_else(missing)?;
    let tensor = parameters.get(&owner.tensor).cloned().ok_or_else(missing)?;
    let name = format!("{}.{suffix}", owner.tensor);
    let is_taken =
        |id: ValueId| graph.parameter_of(id).is_some_and(|p| p.tensor == name && p.window == owner.window);
    if graph.parameters().any(is_taken) {
        let text = format!("the model has a parameter `{name}`, which is the name of the optimiser's state");
        return Err(GraphError::Invalid(text));
    }
    if parameters.get(&name).is_none() {
        match initial {
            Initial::Zeros => parameters.insert(name.clone(), Tensor::zeros(tensor.dtype(), tensor.shape())),
            Initial::Owner => parameters.insert(name.clone(), tensor.clone()),
        }
    }
    if let Some(mask) = parameters.mask(&owner.tensor).cloned() {
        parameters.set_mask(&name, mask);
    }
    let parameter = Parameter { window: owner.window.clone(), ..Parameter::state(name) };
    Ok(graph.parameter(parameter, tensor.dtype(), tensor.shape()))
}
