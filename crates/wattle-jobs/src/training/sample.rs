//! One sample of the data as a model takes it: what networks are counted, timed and mapped with.

use std::sync::Arc;

use wattle_data::{Batch, ColumnInfo, Source};
use wattle_graph::{Graph, Model, Tensor};
use wattle_train::binding::{self, Bound, Feed, write_column};

use crate::error::{JobError, Result};

/// A batch of one.
pub struct Sample {
    columns: Vec<ColumnInfo>,
    batch: Batch,
}

impl Sample {
    /// The first of a source of single samples.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn first(source: &Arc<dyn Source>) -> Result<Sample> {
        let mut batch = Batch::default();
        source.fill(0, &mut batch)?;
        Ok(Sample { columns: source.columns().to_vec(), batch })
    }

    /// A model that takes one sample.
    ///
    /// # Errors
    /// If a column does not fit its input.
    pub fn bind(&self, model: &Model) -> Result<Bound> {
        binding::bind(model, &self.columns, 1).map_err(|error| JobError::at("the model", error))
    }

    /// What the inputs of a bound model take.
    ///
    /// # Errors
    /// If a number is none of an input's type.
    pub fn tensors(&self, bound: &Bound) -> Result<Vec<(String, Tensor)>> {
        tensors(&self.batch, &bound.feeds, &bound.model.graph)
    }
}

/// A batch as what the inputs of a graph take, by their names.
///
/// # Errors
/// If a number is none of an input's type, or the batch is of another size.
pub fn tensors(batch: &Batch, feeds: &[Feed], graph: &Graph) -> Result<Vec<(String, Tensor)>> {
    let missing = |what: &str, name: &str| JobError::run(format_args!("there is no {what} `{name}`"));
    let mut tensors = vec![];
    for Feed { input, column, axis } in feeds {
        let id = graph.find(input).ok_or_else(|| missing("input", input))?;
        let column = batch.column(column).ok_or_else(|| missing("column", column))?;
        let (extents, dtype) = (graph.extents(id)?, graph.value(id).ty.dtype);
        let mut bytes = vec![0; extents.iter().product::<usize>() * dtype.size()];
        let samples = extents.get(*axis).copied().unwrap_or(1);
        write_column(column, dtype, samples, (*axis, &extents), &mut bytes)?;
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
        }
        let tensor = Tensor::from_le_bytes(dtype, extents, &bytes);
        tensors.push((input.clone(), tensor.ok_or_else(|| missing("room for input", input))?));
    }
    Ok(tensors)
}
