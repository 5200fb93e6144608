//! A loss that the model itself computes.

use wattle_data::error::{Error, Result};
use wattle_graph::ops::{Reduce, Reduction};
use wattle_graph::{Graph, GraphError, ValueId};

use super::{Attached, Objective, before, chosen};

/// A float output of the model, as the loss: a single number, or one for each sample, whose mean is taken. What it is a
/// loss of are inputs of the model like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOutput {
    /// The output's name.
    pub name: String,
}

impl ModelOutput {
    /// The output of this name.
    pub fn new(name: &str) -> Result<ModelOutput> {
        if name.is_empty() {
            return Err(Error::input("loss `output:`", "no name").expected("output:NAME"));
        }
        Ok(ModelOutput { name: name.to_string() })
    }
}

impl Objective for ModelOutput {
    fn attach(&self, graph: &mut Graph, outputs: &[ValueId]) -> std::result::Result<Attached, GraphError> {
        let output = chosen(graph, outputs, Some(&self.name))?;
        before(graph, output, |_| false)?;
        match &graph.extents(output)?[..] {
            [] => Ok(Attached::loss(output)),
            [_] | [_, 1] => {
                let mean = Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false };
                Ok(Attached::loss(graph.apply(mean, &[output])?))
            }
            _ => {
                let found = &graph.value(output).ty;
                let text = format!(
                    "output `{}` is {found}; a loss is one number, or one for each sample",
                    self.name
                );
                Err(GraphError::Invalid(text))
            }
        }
    }

    fn text(&self) -> String {
        format!("output:{}", self.name)
    }
}
