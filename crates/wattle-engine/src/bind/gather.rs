//! Rows of a table picked by index at run time, and gradients added back into it.

use wattle_graph::{DType, Op, ops};
use wattle_kernels::gather;

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};

struct Rows {
    width: usize,
}

fn failed(error: impl ToString) -> EngineError {
    EngineError::Node { node: String::new(), op: String::new(), reason: error.to_string() }
}

pub(super) fn rows(site: &Site<'_>, op: &ops::Gather) -> Option<Bound> {
    let (x, indices) = (site.input(0), site.input(1));
    let first = wattle_graph::normalize_axis(op.axis, x.extents.len())? == 0;
    let fits = first && x.dtype == DType::F32 && indices.dtype == DType::I64;
    fits.then(|| Bound::row_major(site, Rows { width: x.extents[1..].iter().product() }))
}

impl Kernel for Rows {
    fn name(&self) -> String {
        "gather_rows-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (table, indices, y) = (io.input::<f32>(0)?, io.input(1)?, io.output(0)?);
        gather::gather_rows(io.cpu, self.width, table, indices, y).map_err(failed)
    }
}

struct AddRows {
    width: usize,
}

pub(super) fn add_rows(site: &Site<'_>, op: &ops::MovementGradient) -> Option<Bound> {
    let Op::Gather(gather) = &*op.forward else { return None };
    let first = wattle_graph::normalize_axis(gather.axis, op.input_shape.len())? == 0;
    let fits = first && site.input(0).dtype == DType::F32 && site.input(1).dtype == DType::I64;
    fits.then(|| Bound::row_major(site, AddRows { width: op.input_shape[1..].iter().product() }))
}

impl Kernel for AddRows {
    fn name(&self) -> String {
        "scatter_add_rows-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (dy, indices, table) = (io.input(0)?, io.input(1)?, io.output::<f32>(0)?);
        table.fill(0.0);
        gather::scatter_add_rows(io.cpu, self.width, indices, dy, table).map_err(failed)
    }
}
