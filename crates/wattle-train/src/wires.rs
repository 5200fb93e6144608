//! Wires: which bytes of a batch go into which input of a session.

use wattle_data::error::{Error, Result};
use wattle_data::{Batch, ColumnInfo};
use wattle_engine::Session;
use wattle_graph::{DType, Graph, GraphError};

use crate::binding::{Feed, write_column};
use crate::objective::Port;
use crate::refusal::of_engine;

/// One input and the column that feeds it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    input: usize,
    column: usize,
    dtype: DType,
    extents: Vec<usize>,
    axis: usize,
}

/// Extents without those of 1, which say nothing.
fn squeezed(extents: &[usize]) -> Vec<usize> {
    extents.iter().copied().filter(|&n| n != 1).collect()
}

/// The wires of a graph's inputs: those that `feeds` and `ports` name; others are not fed by batches.
///
/// # Errors
/// When a column is missing or of another shape than its input.
pub(crate) fn wires(
    graph: &Graph,
    feeds: &[Feed],
    ports: &[Port],
    columns: &[ColumnInfo],
) -> std::result::Result<Vec<Wire>, GraphError> {
    let mut wires = vec![];
    for (input, &id) in graph.inputs().iter().enumerate() {
        let name = graph.label(id);
        let feed = feeds.iter().find(|feed| feed.input == name);
        let port = ports.iter().find(|port| port.input == name);
        let (column, axis) = match (feed, port) {
            (Some(feed), _) => (&feed.column, feed.axis),
            (None, Some(port)) => (&port.column, 0),
            (None, None) => continue,
        };
        let Some(place) = columns.iter().position(|c| c.name == *column) else {
            let names: Vec<_> = columns.iter().map(|c| c.name.as_str()).collect();
            let text = format!(
                "there is no column `{column}`; the columns are: {}; a loss names the one that it reads, as `mse:target=NAME`",
                names.join(", ")
            );
            return Err(GraphError::Invalid(text));
        };
        let (ty, info) = (&graph.value(id).ty, &columns[place]);
        let extents = graph.extents(id)?;
        let mut sample = extents.clone();
        if axis < sample.len() {
            sample.remove(axis);
        }
        let is_flat = feed.is_some() && sample.iter().product::<usize>() == info.elements();
        if squeezed(&sample) != squeezed(&info.extents) && !is_flat {
            let text = format!(
                "column `{column}` has {:?} a sample, but {sample:?} is judged: the shape of the output{}",
                info.extents,
                if ty.dtype.is_float() { "" } else { " without the axis of the classes" }
            );
            return Err(GraphError::Invalid(text));
        }
        wires.push(Wire { input, column: place, dtype: ty.dtype, extents, axis });
    }
    Ok(wires)
}

/// Writes the first `samples` samples of a batch into a session.
pub(crate) fn feed(session: &mut Session, wires: &[Wire], batch: &Batch, samples: usize) -> Result<()> {
    for wire in wires {
        let place = (wire.axis, &wire.extents[..]);
        let column = batch.columns.get(wire.column).ok_or_else(|| {
            Error::machine("the source", format_args!("a batch of {} columns", batch.columns.len()))
                .expected("the columns that it named")
        })?;
        let to = bytes_mut(session, wire.input, wire.dtype)?;
        write_column(column, wire.dtype, samples, place, to)?;
    }
    Ok(())
}

/// The memory of an input.
fn bytes_mut(session: &mut Session, input: usize, dtype: DType) -> Result<&mut [u8]> {
    macro_rules! of {
        ($t:ty) => {
            bytemuck::cast_slice_mut(session.input_mut::<$t>(input).map_err(of_engine("training"))?)
        };
    }
    Ok(match dtype {
        DType::F32 => of!(f32),
        DType::F64 => of!(f64),
        DType::I8 => of!(i8),
        DType::I16 => of!(i16),
        DType::I32 => of!(i32),
        DType::I64 => of!(i64),
        DType::U8 | DType::Bool => of!(u8),
        DType::U16 => of!(u16),
        DType::U32 => of!(u32),
        DType::U64 => of!(u64),
    })
}
