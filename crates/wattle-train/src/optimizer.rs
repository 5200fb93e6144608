//! Optimisers: what is read from a command line, and the nodes that update a parameter.

use serde::{Deserialize, Serialize};
use wattle_graph::ops::{AdamUpdate, SgdUpdate};
use wattle_graph::{DType, Graph, GraphError, Parameter, Parameters, Role, Tensor, ValueId};

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
    /// Adds the nodes that update `target` by `gradient` and the assignments that make it last; new state tensors
    /// go into `parameters`, as zeros, under the same mask.
    ///
    /// `rate` and `step` are scalars: the learning rate, and the number of updates so far plus one.
    pub(crate) fn attach(
        &self,
        graph: &mut Graph,
        parameters: &mut Parameters,
        target: ValueId,
        gradient: ValueId,
        [rate, step]: [ValueId; 2],
    ) -> Result<(), GraphError> {
        let mut state = |graph: &mut Graph, suffix: &str| -> Result<ValueId, GraphError> {
            let owner = graph.parameter_of(target).cloned().ok_or_else(|| {
                GraphError::Invalid(format!("`{}` is updated but is no parameter", graph.label(target)))
            })?;
            // As large as the whole tensor, whatever part of it this graph sees: other graphs see other parts.
            let full = match parameters.get(&owner.tensor) {
                Some(tensor) => tensor.shape().to_vec(),
                None if owner.window.is_full() => graph.extents(target)?,
                None => {
                    let name = owner.tensor;
                    return Err(GraphError::Invalid(format!(
                        "`{name}` is a window of a tensor that is not there"
                    )));
                }
            };
            let name = format!("{}.{suffix}", owner.tensor);
            if parameters.get(&name).is_none() {
                parameters.insert(name.clone(), Tensor::zeros(DType::F32, full.clone()));
            }
            if let Some(mask) = parameters.mask(&owner.tensor).cloned() {
                parameters.set_mask(&name, mask);
            }
            let state = Parameter { tensor: name, role: Role::State, ..owner };
            Ok(graph.parameter(state, DType::F32, &full))
        };
        match *self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                let op = SgdUpdate { momentum, nesterov, weight_decay };
                let velocity = if momentum != 0.0 { Some(state(graph, "velocity")?) } else { None };
                let operands = [Some(target), Some(gradient), velocity, Some(rate)];
                let next = graph.apply_all(op, &operands, "update")?;
                graph.assign(target, next[0])?;
                if let Some(velocity) = velocity {
                    graph.assign(velocity, next[1])?;
                }
            }
            Optimizer::Adam { weight_decay } | Optimizer::AdamW { weight_decay } => {
                let decoupled = matches!(self, Optimizer::AdamW { .. });
                let op = AdamUpdate { weight_decay, decoupled, ..AdamUpdate::default() };
                let (first, second) = (state(graph, "first_moment")?, state(graph, "second_moment")?);
                let operands = [target, gradient, first, second, rate, step].map(Some);
                let next = graph.apply_all(op, &operands, "update")?;
                for (to, value) in [target, first, second].into_iter().zip(next) {
                    graph.assign(to, value)?;
                }
            }
        }
        Ok(())
    }
}
