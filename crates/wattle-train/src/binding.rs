//! Binding: which column of a batch feeds which input of a model, and the shapes that follow from it.

use wattle_data::error::{Error, Result};
use wattle_data::{Column, ColumnInfo};
use wattle_graph::ops::Transpose;
use wattle_graph::rewrite::rebatch_inputs;
use wattle_graph::{DType, Dim, Graph, GraphError, Model, ValueId};

/// Names that exporters give to the extent of the batch.
const BATCH_SYMBOLS: [&str; 6] = ["batch", "batch_size", "N", "n", "B", "b"];

/// A model whose shapes are those of batches, and what feeds its inputs.
#[derive(Clone, Debug)]
pub struct Bound {
    /// All shapes known; the batch is the first axis of every output.
    pub model: Model,
    /// For each input, in order.
    pub feeds: Vec<Feed>,
}

/// What feeds an input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Name of the input.
    pub input: String,
    /// Name of the column.
    pub column: String,
    /// Where the input has the batch; columns have it first.
    pub axis: usize,
}

/// Binds a model to batches of `batch` samples with these columns.
///
/// An input is fed by the column of its name; the only input of a model that no column is named after, by the first
/// column. The batch lies on the axis whose extent has one of the names of batches in the file (`batch`, `batch_size`,
/// `N`), else on the first; a network that takes rows is fed images as rows, and the other way round.
///
/// # Errors
/// When an input has no column, or a column does not fit its input.
pub fn bind(model: &Model, columns: &[ColumnInfo], batch: usize) -> std::result::Result<Bound, GraphError> {
    let graph = &model.graph;
    let mut feeds = vec![];
    let mut shapes = vec![];
    for &id in graph.inputs() {
        let value = graph.value(id);
        let name = graph.label(id);
        let column = column_of(graph, &name, columns).and_then(|place| columns.get(place));
        let column = column.ok_or_else(|| {
            let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            let text = format!("no column feeds input `{name}`; the columns are: {}", names.join(", "));
            GraphError::Invalid(text)
        })?;
        let axis = batch_axis(graph, id);
        let dims = value.ty.shape.dims();
        let candidates = [column.extents.clone(), vec![column.elements()]].map(|mut shape| {
            shape.insert(axis.min(shape.len()), batch);
            shape
        });
        let fits = |shape: &&Vec<usize>| {
            dims.is_none_or(|dims| {
                let fixed = |(at, (dim, n)): (usize, (&Dim, &usize))| {
                    at == axis || dim.known().is_none_or(|known| known == *n)
                };
                dims.len() == shape.len() && dims.iter().zip(*shape).enumerate().all(fixed)
            })
        };
        let shape = candidates.iter().find(fits).ok_or_else(|| {
            let ColumnInfo { name: column, extents, .. } = column;
            let text =
                format!("input `{name}` is {}; a sample of column `{column}` is {extents:?}", value.ty);
            GraphError::Invalid(text)
        })?;
        shapes.push((name.clone(), shape.clone(), axis));
        feeds.push(Feed { input: name, column: column.name.clone(), axis });
    }
    let axes: Vec<usize> = graph.outputs().iter().map(|&id| batch_axis(graph, id)).collect();
    let borrowed: Vec<(&str, &[usize], usize)> =
        shapes.iter().map(|(name, shape, axis)| (name.as_str(), &shape[..], *axis)).collect();
    let mut bound = rebatch_inputs(graph, &borrowed)?;
    let mut outputs = bound.outputs().to_vec();
    for (output, axis) in outputs.iter_mut().zip(axes) {
        *output = batch_first(&mut bound, *output, axis)?;
    }
    bound.set_outputs(outputs);
    Ok(Bound { model: Model { graph: bound, ..model.clone() }, feeds })
}

/// The place of the column that feeds an input: the one of its name; the first, if it is the only input and no column has
/// its name.
pub fn column_of(graph: &Graph, input: &str, columns: &[ColumnInfo]) -> Option<usize> {
    let by_name = columns.iter().position(|column| column.name == input);
    by_name.or((graph.inputs().len() == 1 && !columns.is_empty()).then_some(0))
}

/// A graph whose inputs, by name, have these shapes, the batch first.
///
/// # Errors
/// As [`rebatch_inputs`].
pub fn bind_inputs(graph: &Graph, shapes: &[(String, Vec<usize>)]) -> std::result::Result<Graph, GraphError> {
    let shapes: Vec<(&str, &[usize], usize)> =
        shapes.iter().map(|(name, shape)| (name.as_str(), &shape[..], 0)).collect();
    rebatch_inputs(graph, &shapes)
}

/// The axis of the batch, by the name of its extent; the first where none has such a name.
fn batch_axis(graph: &Graph, id: ValueId) -> usize {
    let dims = graph.value(id).ty.shape.dims().unwrap_or(&[]);
    let named = |dim: &Dim| matches!(dim, Dim::Symbol(name) if BATCH_SYMBOLS.contains(&&**name));
    dims.iter().position(named).unwrap_or(0)
}

/// The value with `axis` moved to the front; it keeps its name.
fn batch_first(graph: &mut Graph, id: ValueId, axis: usize) -> std::result::Result<ValueId, GraphError> {
    if axis == 0 {
        return Ok(id);
    }
    let rank = graph.extents(id)?.len();
    let permutation = [axis].into_iter().chain((0..rank).filter(|&a| a != axis)).collect();
    let moved = graph.apply(Transpose { permutation }, &[id])?;
    let name = graph.label(id);
    graph.rename(id, format!("{name}:exported"));
    graph.rename(moved, name);
    Ok(moved)
}

/// Writes a column into an input: of the input's element type, with the batch on the input's axis.
///
/// Integers and truth values become another type only where each number stays itself; floats of double precision are
/// rounded to single where the input is single. `samples` are the first of the column that the input has room for.
///
/// # Errors
/// When a number does not survive the cast, or the sizes differ: both named.
pub fn write_column(
    column: &Column,
    dtype: DType,
    samples: usize,
    axis_extents: (usize, &[usize]),
    to: &mut [u8],
) -> Result<()> {
    let width =
        column.bytes.len() / column.dtype.size().max(1) / column.extents.first().copied().unwrap_or(1).max(1);
    let part = &column.bytes[..(samples * width * column.dtype.size()).min(column.bytes.len())];
    if part.len() / column.dtype.size() * dtype.size() != to.len() {
        let found = format!("{} numbers for {samples} samples of {width}", to.len() / dtype.size());
        return Err(Error::machine(format_args!("column `{}`", column.name), found));
    }
    if column.dtype == dtype {
        to.copy_from_slice(part);
    } else {
        cast(column, part, dtype, to)?;
    }
    let (axis, extents) = axis_extents;
    if axis > 0 {
        let outer: usize = extents[..axis].iter().product();
        let inner = extents[axis + 1..].iter().product::<usize>() * dtype.size();
        let from = to.to_vec();
        for sample in 0..samples {
            for o in 0..outer {
                let piece = &from[(sample * outer + o) * inner..][..inner];
                to[(o * samples + sample) * inner..][..inner].copy_from_slice(piece);
            }
        }
    }
    Ok(())
}

/// Writes numbers of a column as another type.
fn cast(column: &Column, part: &[u8], dtype: DType, to: &mut [u8]) -> Result<()> {
    let one =
        Column { extents: vec![part.len() / column.dtype.size()], bytes: part.to_vec(), ..column.clone() };
    let lost = |index: usize, number: &dyn std::fmt::Display| {
        let from = column.dtype;
        Error::input(
            format_args!("column `{}`", column.name),
            format_args!("number {index} of a batch is {number}, which is not one of {dtype}"),
        )
        .expected(format_args!("{from} that are also {dtype}"))
        .remedy("convert the column before it is read")
    };
    macro_rules! written {
        ($t:ty, $values:expr, $back:expr) => {{
            for (index, (slot, value)) in
                to.as_chunks_mut::<{ size_of::<$t>() }>().0.iter_mut().zip($values).enumerate()
            {
                let made = value as $t;
                if !$back(made, value) {
                    return Err(lost(index, &value));
                }
                *slot = made.to_ne_bytes();
            }
        }};
    }
    macro_rules! into_type {
        ($values:expr, $wide:ty) => {{
            let values = $values;
            match dtype {
                DType::F32 => written!(f32, values, |m: f32, v: $wide| m as $wide == v),
                DType::F64 => written!(f64, values, |m: f64, v: $wide| m as $wide == v),
                DType::I8 => written!(i8, values, |m: i8, v: $wide| m as $wide == v),
                DType::I16 => written!(i16, values, |m: i16, v: $wide| m as $wide == v),
                DType::I32 => written!(i32, values, |m: i32, v: $wide| m as $wide == v),
                DType::I64 => written!(i64, values, |m: i64, v: $wide| m as $wide == v),
                DType::U8 => written!(u8, values, |m: u8, v: $wide| m as $wide == v),
                DType::U16 => written!(u16, values, |m: u16, v: $wide| m as $wide == v),
                DType::U32 => written!(u32, values, |m: u32, v: $wide| m as $wide == v),
                DType::U64 => written!(u64, values, |m: u64, v: $wide| m as $wide == v),
                DType::Bool => {
                    for (index, (slot, value)) in to.iter_mut().zip(values).enumerate() {
                        *slot = (value != 0 as $wide) as u8;
                        if *slot as $wide != value {
                            return Err(lost(index, &value));
                        }
                    }
                }
            }
        }};
    }
    match one.to_i64() {
        Some(values) => into_type!(values, i64),
        None if dtype == DType::F32 => {
            let rounded = |m: f32, v: f64| m.is_finite() || !v.is_finite();
            written!(f32, one.to_f64(), rounded);
        }
        None => into_type!(one.to_f64(), f64),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use wattle_graph::ops::{Binary, BinaryFunction};
    use wattle_graph::{Parameters, Tensor, interpret};

    fn column(name: &str, dtype: DType, extents: &[usize], bytes: Vec<u8>) -> Column {
        Column { name: name.into(), dtype, extents: extents.to_vec(), bytes }
    }

    fn ints(values: &[i64]) -> Column {
        column("c", DType::I64, &[values.len()], values.iter().flat_map(|v| v.to_ne_bytes()).collect())
    }

    #[test]
    fn two_inputs_take_the_columns_of_their_names_whatever_their_order() {
        let mut graph = Graph::new("two");
        let a = graph.input("a", DType::F32, vec![Dim::Known(1), 2.into()]);
        let b = graph.input("b", DType::F32, vec![Dim::Known(1), 2.into()]);
        let y = graph.apply(Binary { function: BinaryFunction::Sub }, &[a, b]).unwrap();
        graph.output(y);
        let model = Model::new(graph, Parameters::new());
        let info = |name| ColumnInfo::new(name, DType::F32, [2]);
        let bound = bind(&model, &[info("b"), info("targets"), info("a")], 5).unwrap();
        let columns: Vec<&str> = bound.feeds.iter().map(|f| f.column.as_str()).collect();
        assert_eq!(columns, ["a", "b"]);
        assert_eq!(bound.model.graph.extents(bound.model.graph.outputs()[0]).unwrap(), [5, 2]);
        let error = bind(&model, &[info("a"), info("x")], 5).unwrap_err().to_string();
        assert!(error.contains("no column feeds input `b`; the columns are: a, x"), "{error}");
        let error = bind(&model, &[info("a"), ColumnInfo::new("b", DType::F32, [3])], 5).unwrap_err();
        assert!(error.to_string().contains("a sample of column `b` is [3]"), "{error}");
    }

    #[test]
    fn a_batch_on_the_second_axis_is_found_by_its_name() {
        let mut graph = Graph::new("recurrent");
        let x = graph.input("x", DType::F32, vec![Dim::Known(3), Dim::symbol("batch"), 2.into()]);
        let y = graph.apply(Binary { function: BinaryFunction::Add }, &[x, x]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        let model = Model::new(graph, Parameters::new());
        let bound = bind(&model, &[ColumnInfo::new("x", DType::F32, [3, 2])], 4).unwrap();
        assert_eq!(bound.feeds[0].axis, 1);
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let whole =
            column("x", DType::F32, &[4, 3, 2], values.iter().flat_map(|v| v.to_ne_bytes()).collect());
        let mut fed = vec![0; 96];
        write_column(&whole, DType::F32, 4, (1, &[3, 4, 2]), &mut fed).unwrap();
        let fed: Vec<f32> = fed.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect();
        let feeds = BTreeMap::from([("x".to_string(), Tensor::f32([3, 4, 2], fed))]);
        let found = interpret(&bound.model.graph, &mut Parameters::new(), &feeds).unwrap().remove(0);
        let expected: Vec<f64> = values.iter().map(|v| 2.0 * f64::from(*v)).collect();
        assert_eq!((found.shape(), found.to_f64().into_owned()), (&[4, 3, 2][..], expected));
        assert_eq!(bound.model.graph.label(bound.model.graph.outputs()[0]), "y");
    }

    #[test]
    fn numbers_become_another_type_only_where_they_stay_themselves() {
        let mut to = [0; 8];
        write_column(&ints(&[7, -1]), DType::F32, 2, (0, &[]), &mut to).unwrap();
        assert_eq!(to, [7f32.to_ne_bytes(), (-1f32).to_ne_bytes()].concat()[..]);
        let error = write_column(&ints(&[7, 1 << 40]), DType::I32, 2, (0, &[]), &mut to).unwrap_err();
        assert!(error.to_string().contains("number 1 of a batch is 1099511627776"), "{error}");
        assert!(write_column(&ints(&[(1 << 24) + 1]), DType::F32, 1, (0, &[]), &mut to[..4]).is_err());
        assert!(write_column(&ints(&[2]), DType::Bool, 1, (0, &[]), &mut to[..1]).is_err());
        let floats = column("c", DType::F64, &[1], 0.1f64.to_ne_bytes().to_vec());
        write_column(&floats, DType::F32, 1, (0, &[]), &mut to[..4]).unwrap();
        assert_eq!(to[..4], 0.1f32.to_ne_bytes());
        let error = write_column(&floats, DType::I64, 1, (0, &[]), &mut to).unwrap_err().to_string();
        assert!(error.contains("0.1"), "{error}");
    }

    #[test]
    fn the_last_samples_of_a_batch_may_be_left_out() {
        let mut to = [0; 8];
        write_column(&ints(&[5, 6, 7]), DType::I64, 1, (0, &[]), &mut to).unwrap();
        assert_eq!(to, 5i64.to_ne_bytes());
    }
}
