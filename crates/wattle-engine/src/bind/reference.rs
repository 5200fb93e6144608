//! The fallback of every operator: its own definition, run by the reference interpreter's rules.

use wattle_graph::{DType, Op, Tensor, Tensors};

use crate::bytes;
use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Runs [`wattle_graph::Operator::evaluate`]; correct for every operator, slow, and allocates.
struct Reference {
    op: Op,
    inputs: Vec<Option<(DType, Vec<usize>)>>,
}

/// Binds any node.
pub(crate) fn bind(site: &Site<'_>) -> Bound {
    let inputs = site.inputs.iter().map(|i| i.as_ref().map(|i| (i.dtype, i.extents.clone()))).collect();
    Bound::row_major(site, Reference { op: site.node.op.clone(), inputs })
}

impl Kernel for Reference {
    fn name(&self) -> String {
        format!("reference-{}", self.op.name())
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let mut operands: Vec<Option<Tensor>> = vec![];
        for (index, input) in self.inputs.iter().enumerate() {
            operands.push(match input {
                Some((dtype, extents)) => Some(bytes::tensor(*dtype, extents, io.input::<u8>(index)?)),
                None => None,
            });
        }
        let borrowed: Vec<_> = operands.iter().map(Option::as_ref).collect();
        let results =
            self.op.evaluate(Tensors::new(&borrowed)).map_err(|e| EngineError::failed(e.to_string()))?;
        for (index, result) in results.iter().enumerate() {
            let (to, from) = (io.output::<u8>(index)?, bytes::of(result, Layout::RowMajor));
            if to.len() != from.len() {
                return Err(EngineError::failed(format!(
                    "result {index} has the shape {:?}, not the one planned",
                    result.shape()
                )));
            }
            to.copy_from_slice(&from);
        }
        Ok(())
    }
}
