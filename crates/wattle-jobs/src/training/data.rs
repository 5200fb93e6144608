//! Which data, which of its columns, how it is divided, and how its inputs are asked to be normalised.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use wattle_data::{
    ColumnMap, DataSpec, Dataset, LoadOptions, Missing, NormalisationChoice, SplitOptions, Table,
    TableOptions, Task, TextOptions, Wanted,
};
use wattle_graph::{DType, Model};
use wattle_train::objective::Loss;

use crate::error::{JobError, Result};

/// Which data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataOptions {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    pub data: String,
    /// Share of the training samples kept aside for choosing; 0.2 if left out.
    #[serde(serialize_with = "unless_usual")]
    pub validation: Option<f64>,
    /// Which columns of the data feed which input, where names differ.
    #[serde(serialize_with = "as_text")]
    pub columns: ColumnMap,
    /// The columns that are to be learnt; by their usual names if empty.
    pub targets: Vec<String>,
    /// What to do about cells without a value.
    #[serde(serialize_with = "as_text")]
    pub missing: Missing,
    /// How text becomes tokens.
    pub tokenizer: Option<PathBuf>,
    /// How float inputs are normalised; if left out, as the model's file says, else as the training part measures.
    pub normalise: Option<NormalisationChoice>,
}

fn as_text<S: Serializer>(value: &impl fmt::Display, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// The usual share names the run that it names where it is left out.
fn unless_usual<S: Serializer>(share: &Option<f64>, to: S) -> std::result::Result<S::Ok, S::Error> {
    share.filter(|&share| share != wattle_data::split::VALIDATION).serialize(to)
}

impl DataOptions {
    /// The whole of some data, as it is found.
    pub fn of(data: impl Into<String>) -> DataOptions {
        DataOptions {
            data: data.into(),
            validation: None,
            columns: ColumnMap::default(),
            targets: vec![],
            missing: Missing::Refuse,
            tokenizer: None,
            normalise: None,
        }
    }

    /// How the samples are divided.
    pub fn split(&self) -> SplitOptions {
        let validation = self.validation.unwrap_or(wattle_data::split::VALIDATION);
        SplitOptions { validation, ..SplitOptions::default() }
    }

    /// Whether numbers of floats are what a model takes unless somebody says otherwise: those of named arrays, which were
    /// written for it. Bytes of pictures are not, nor is a table of measurements.
    ///
    /// # Errors
    /// If the text names no data.
    pub(super) fn floats_are_final(&self) -> Result<bool> {
        Ok(matches!(DataSpec::parse(&self.data)?, DataSpec::Npz(_)))
    }

    /// Whether columns are chosen by name.
    fn names_columns(&self) -> bool {
        !self.targets.is_empty() || self.columns != ColumnMap::default()
    }

    /// The first option that chooses among columns, or what is done with them: a network by name takes them as they are.
    pub(super) fn chosen_column(&self) -> Option<&'static str> {
        match self {
            _ if !self.targets.is_empty() => Some("target"),
            _ if self.columns != ColumnMap::default() => Some("columns"),
            _ if self.missing != Missing::Refuse => Some("missing"),
            _ if self.tokenizer.is_some() => Some("tokenizer"),
            _ => None,
        }
    }

    /// Whether one array of numbers and one target a sample are all there is to read for a model.
    fn is_plain(&self, spec: &DataSpec, wanted: &[Wanted]) -> bool {
        let one_array = matches!(wanted, [one] if one.dtype == DType::F32);
        let named = matches!(spec, DataSpec::Jsonl(_) | DataSpec::Text(_) | DataSpec::Masks(_));
        one_array && !named && !self.names_columns() && self.missing == Missing::Refuse
    }
}

/// What a model asks of its inputs, the batch being their first axis.
fn wanted(model: &Model) -> Vec<Wanted> {
    let of = |&id: &wattle_graph::ValueId| {
        let ty = &model.graph.value(id).ty;
        let dims = ty.shape.dims().unwrap_or(&[]);
        let extents: Vec<Option<usize>> = dims.iter().skip(1).map(|dim| dim.known()).collect();
        Wanted::new(model.graph.label(id), ty.dtype, extents)
    };
    model.graph.inputs().iter().map(of).collect()
}

/// Samples as a model of a file takes them.
///
/// # Errors
/// If something cannot be read, or the columns do not fit the model's inputs.
pub fn table_for(
    options: &DataOptions,
    model: &Model,
    loss: Option<&Loss>,
    ignore_index: Option<i64>,
) -> Result<Arc<dyn Table>> {
    let spec = DataSpec::parse(&options.data)?;
    let wanted = wanted(model);
    if options.is_plain(&spec, &wanted) {
        match dataset(options, loss) {
            // Arrays may have the model's own names.
            Err(_) if matches!(spec, DataSpec::Npz(_)) => {}
            read => return Ok(Arc::new(read?)),
        }
    }
    Ok(spec.table(&wanted, &table_options(options, loss, ignore_index))?)
}

fn table_options(options: &DataOptions, loss: Option<&Loss>, ignore_index: Option<i64>) -> TableOptions {
    TableOptions {
        columns: options.columns.clone(),
        targets: options.targets.clone(),
        ignore_index,
        missing: options.missing,
        split: options.split(),
        load: LoadOptions { image_shape: None, task: task(loss) },
        text: TextOptions { tokenizer: options.tokenizer.clone(), length: None },
        in_memory: None,
    }
}

/// Samples as they are found, for no model: images, rows, arrays under the usual names; tokens of text, one input of all
/// columns of a table.
///
/// # Errors
/// If the files are not what the text says, or only a model can say which of their columns are inputs.
pub fn table_alone(options: &DataOptions) -> Result<Arc<dyn Table>> {
    let spec = DataSpec::parse(&options.data)?;
    let wanted = match &spec {
        DataSpec::Jsonl(path) => {
            return Err(JobError::at(
                path.display(),
                "which fields are inputs, a model says; name the one that will learn: option `model=model.onnx`",
            ));
        }
        DataSpec::Text(_) => Wanted::new("input_ids", DType::I64, [None]),
        DataSpec::Masks(_) => Wanted::new("image", DType::F32, [None; 3]),
        DataSpec::Csv(_) if options.chosen_column().is_some() => Wanted::new("x", DType::F32, [None]),
        _ => {
            if let Some(option) = options.chosen_column() {
                let found = "which columns feed what, a model says; name the one that will learn: option `model=model.onnx`";
                return Err(JobError::option(option, found));
            }
            return Ok(Arc::new(dataset(options, None).map_err(|error| match &spec {
                DataSpec::Npz(_) if error.text().contains("rename the arrays") => JobError::input(format_args!(
                    "{error}; arrays under names of their own are read for the model that will learn: option `model=model.onnx`"
                )),
                _ => error,
            })?));
        }
    };
    Ok(spec.table(&[wanted], &table_options(options, None, None))?)
}

/// Samples of one array with one target each, for a network that is made for them. A loss of numbers reads targets as
/// numbers.
///
/// # Errors
/// If the files are not what the text says.
pub fn dataset(options: &DataOptions, loss: Option<&Loss>) -> Result<Dataset> {
    let load = LoadOptions { image_shape: None, task: task(loss) };
    Ok(DataSpec::parse(&options.data)?.load(&load)?)
}

/// What a loss wants targets to be, where the data leave it open.
fn task(loss: Option<&Loss>) -> Option<Task> {
    matches!(loss, Some(Loss::Difference(_) | Loss::Binary(_))).then_some(Task::Values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_data_is_part_of_a_key() {
        let base = || DataOptions::of("digits");
        // A new field does not compile until it is varied below.
        let DataOptions {
            data: _,
            validation: _,
            columns: _,
            targets: _,
            missing: _,
            tokenizer: _,
            normalise: _,
        } = base();
        let keys: Vec<String> = [
            base(),
            DataOptions::of("csv:a.csv"),
            DataOptions { validation: Some(0.3), ..base() },
            DataOptions { columns: "x=a".parse().unwrap(), ..base() },
            DataOptions { targets: vec!["y".into()], ..base() },
            DataOptions { missing: Missing::Drop, ..base() },
            DataOptions { tokenizer: Some("t.json".into()), ..base() },
            DataOptions { normalise: Some("unit".parse().unwrap()), ..base() },
        ]
        .iter()
        .map(|options| crate::kept::config("train", options).unwrap().hash())
        .collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "variation {i} has the key of another");
        }
        let usual = DataOptions { validation: Some(0.2), ..base() };
        assert_eq!(crate::kept::config("train", &usual).unwrap().hash(), keys[0]);
    }
}
