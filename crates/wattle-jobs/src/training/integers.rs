//! Integers of the data against what the model knows: ids that have a row in its tables, labels that are one of its classes.

use std::ops::Range;

use wattle_data::error::Error;
use wattle_data::{Column, Table};
use wattle_graph::ops::Op;
use wattle_graph::{DType, Graph, Model, ValueId, normalize_axis};
use wattle_train::binding::{bind, column_of};
use wattle_train::objective::{CrossEntropy, Loss};

use crate::error::{JobError, Result};

/// What the integers of a column may be.
struct Allowed {
    /// Place of the column in the table.
    column: usize,
    range: Range<i64>,
    /// A number that is meant otherwise.
    ignored: Option<i64>,
    /// What the range is, for a sentence.
    what: String,
}

/// Refuses ids and labels that the model does not know, before anything is computed.
///
/// # Errors
/// If one is outside, by its column, sample and element; if the model does not fit the columns.
pub fn check_integers(model: &Model, table: &dyn Table, loss: &Loss) -> Result<()> {
    let bound = bind(model, table.columns(), 1).map_err(|error| JobError::at("the model", error))?;
    let graph = &bound.model.graph;
    let mut allowed = ids(graph, table);
    if let Loss::CrossEntropy(loss) = loss {
        allowed.extend(labels(graph, table, loss));
    }
    allowed.iter().try_for_each(|allowed| look(table, allowed))
}

/// Of each input of integers that chooses rows of a table, the rows there are; of several tables, those of the smallest.
fn ids(graph: &Graph, table: &dyn Table) -> Vec<Allowed> {
    let of_input = |&input: &ValueId| {
        let column = column_of(graph, &graph.label(input), table.columns())?;
        let rows = |id: ValueId| Some((rows(graph, id, input)?, graph.label(id)));
        let tables = graph.nodes().iter().filter_map(|node| match (&node.op, &node.inputs[..]) {
            (Op::Gather(gather), [Some(of), Some(by)]) if gather.axis == 0 && is_cast(graph, *by, input) => {
                rows(*of)
            }
            _ => None,
        });
        let (count, name) = tables.min()?;
        let range = 0..i64::try_from(count).ok()?;
        Some(Allowed { column, range, ignored: None, what: format!("a row of `{name}`, which has {count}") })
    };
    graph.inputs().iter().filter_map(of_input).collect()
}

/// Rows of a tensor that is chosen from, unless it depends on the samples.
fn rows(graph: &Graph, id: ValueId, input: ValueId) -> Option<usize> {
    let is_fed = id == input || graph.inputs().contains(&id);
    let dims = graph.value(id).ty.shape.dims()?;
    (!is_fed).then(|| dims.first()?.known())?
}

/// Whether a value is the input, perhaps as another type.
fn is_cast(graph: &Graph, id: ValueId, input: ValueId) -> bool {
    let cast = |node: &wattle_graph::Node| {
        matches!(node.op, Op::Cast(_)) && node.outputs.contains(&id) && node.inputs.contains(&Some(input))
    };
    id == input || graph.nodes().iter().any(cast)
}

/// The labels that the output which is judged has classes for.
fn labels(graph: &Graph, table: &dyn Table, loss: &CrossEntropy) -> Option<Allowed> {
    let column = (table.inputs()..table.columns().len()).find(|&c| table.columns()[c].name == loss.target)?;
    let outputs = graph.outputs();
    let output = match &loss.output {
        None => outputs.first(),
        Some(name) => outputs.iter().find(|&&id| graph.label(id) == *name),
    };
    let extents = graph.extents(*output?).ok()?;
    let usual = if extents.len() == 3 { 2 } else { 1 };
    let classes = *extents.get(normalize_axis(loss.axis.unwrap_or(usual), extents.len())?)?;
    // Labels below 0 are refused where they are read, unless they mark what is ignored.
    let range = i64::MIN..i64::try_from(classes).ok()?;
    Some(Allowed {
        column,
        range,
        ignored: loss.ignored,
        what: format!("one of the model's {classes} classes"),
    })
}

/// Reads a column once.
fn look(table: &dyn Table, allowed: &Allowed) -> Result<()> {
    let info = &table.columns()[allowed.column];
    if info.dtype.is_float() || info.dtype == DType::Bool {
        return Ok(());
    }
    let mut column =
        Column { name: info.name.clone(), dtype: info.dtype, extents: vec![], bytes: vec![0; info.bytes()] };
    for sample in 0..table.count() {
        table.read(sample, allowed.column, &mut column.bytes)?;
        let values = column.to_i64().unwrap_or_default();
        let is_known = |value: &i64| allowed.range.contains(value) || Some(*value) == allowed.ignored;
        let Some(element) = values.iter().position(|value| !is_known(value)) else { continue };
        let (value, last) = (values[element], allowed.range.end - 1);
        let place = format!("{}, `{}`, sample {sample}, element {element}", table.name(), info.name);
        let mut error = Error::input(place, format_args!("the number {value}"))
            .expected(format_args!("0 to {last}: {}", allowed.what));
        if allowed.column >= table.inputs() {
            error = error.remedy(format_args!(
                "give the model an output for each class, or state that positions of {value} do not count: option \
                 `ignore-index={value}`"
            ));
        }
        return Err(error.into());
    }
    Ok(())
}
