//! Which data, how it is divided, and what its inputs are normalised with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use wattle_data::{
    BatchOptions, Batches, ColumnMap, DataSpec, INPUT, LoadOptions, Missing, Normalisation, Source,
    SplitOptions, Splits, Table, TableOptions, Task, TextOptions, Wanted,
};
use wattle_graph::{DType, Model};
use wattle_train::objective::Loss;
use wattle_train::options::TrainOptions;
use wattle_train::training_data::TrainingData;

use crate::error::{JobError, Result};

/// Most samples in a batch that is only looked at.
const EVALUATION_BATCH: usize = 256;

/// Which data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataOptions {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    pub data: String,
    /// Share of the training samples kept aside for choosing; 0.2 if left out.
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
}

fn as_text<S: Serializer>(value: &impl fmt::Display, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(value)
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
        }
    }

    fn split(&self) -> SplitOptions {
        let validation = self.validation.unwrap_or(wattle_data::split::VALIDATION);
        SplitOptions { validation, ..SplitOptions::default() }
    }

    /// Whether columns are chosen by name.
    fn names_columns(&self) -> bool {
        !self.targets.is_empty() || self.columns != ColumnMap::default()
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

/// Samples of any kind, divided, as batches of named columns.
pub struct Divided {
    table: Arc<dyn Table>,
    /// All parts; the test part is handed out once.
    pub splits: Splits,
    /// Constants of the columns that are normalised.
    normalisation: BTreeMap<String, Normalisation>,
}

impl From<Prepared> for Divided {
    fn from(prepared: Prepared) -> Divided {
        let TrainingData { dataset, normalisation, .. } = prepared.training;
        let normalisation = BTreeMap::from([(INPUT.to_string(), normalisation)]);
        Divided { table: dataset, splits: prepared.splits, normalisation }
    }
}

impl Divided {
    /// Data for a model of a file. Arrays that are chosen by name are taken as they are; what else is a float is normalised
    /// by the training part.
    ///
    /// # Errors
    /// If something cannot be read, or the columns do not fit the model's inputs.
    pub fn for_model(
        options: &DataOptions,
        model: &Model,
        loss: Option<&Loss>,
        ignore_index: Option<i64>,
    ) -> Result<Divided> {
        let spec = DataSpec::parse(&options.data)?;
        let wanted = wanted(model);
        if options.is_plain(&spec, &wanted) {
            return prepare(options, loss).map(Divided::from);
        }
        let table = spec.table(
            &wanted,
            &TableOptions {
                columns: options.columns.clone(),
                targets: options.targets.clone(),
                ignore_index,
                missing: options.missing,
                split: options.split(),
                load: LoadOptions { image_shape: None, task: task(loss) },
                text: TextOptions { tokenizer: options.tokenizer.clone(), length: None },
                in_memory: None,
            },
        )?;
        let splits = Splits::new(&table, &options.split())?;
        let mut normalisation = BTreeMap::new();
        let as_they_are = matches!(spec, DataSpec::Npz(_)) && (options.names_columns() || wanted.len() > 1);
        for (place, column) in table.columns().iter().enumerate().take(wanted.len()) {
            if column.dtype == DType::F32 && !as_they_are {
                let found = Normalisation::measure_column(&table, place, splits.train())?;
                normalisation.insert(column.name.clone(), found);
            }
        }
        Ok(Divided { table, splits, normalisation })
    }

    /// Whether what is to be learnt is a class: a whole number.
    pub fn has_classes(&self) -> bool {
        self.table.classes().is_some()
            || self.table.columns().last().is_some_and(|column| !column.dtype.is_float())
    }

    /// All samples.
    pub fn table(&self) -> &dyn Table {
        &*self.table
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.table.name()
    }

    /// What a user should know of the data.
    pub fn remarks(&self) -> &[String] {
        self.table.remarks()
    }

    /// The training part in shuffled, augmented, normalised batches.
    ///
    /// # Errors
    /// If there are too few samples for a batch.
    pub fn source(&self, options: &TrainOptions) -> Result<Arc<dyn Source>> {
        let batches = BatchOptions::training(options.batch, options.seed, options.augmentation);
        batches_of(&self.table, &self.normalisation, self.splits.train(), batches)
    }

    /// Some samples as they are, normalised, each once.
    ///
    /// # Errors
    /// If a column does not fit its constants.
    pub fn part(&self, indices: &[u32]) -> Result<Arc<dyn Source>> {
        part_of(&self.table, &self.normalisation, indices)
    }

    /// The test part, for the one look at the end: there is no other after it.
    ///
    /// # Errors
    /// If a column does not fit its constants.
    pub fn test(self) -> Result<Arc<dyn Source>> {
        part_of(&self.table, &self.normalisation, &self.splits.take_test().into_indices())
    }
}

/// Constants of columns, by their names.
type Constants = BTreeMap<String, Normalisation>;

fn part_of(table: &Arc<dyn Table>, constants: &Constants, indices: &[u32]) -> Result<Arc<dyn Source>> {
    if indices.is_empty() {
        return Err(JobError::at(table.name(), "this part of the data has no samples"));
    }
    let options = BatchOptions::evaluation(indices.len().min(EVALUATION_BATCH));
    batches_of(table, constants, indices, options)
}

fn batches_of(
    table: &Arc<dyn Table>,
    constants: &Constants,
    indices: &[u32],
    options: BatchOptions,
) -> Result<Arc<dyn Source>> {
    let options = BatchOptions { normalisation: constants.clone(), ..options };
    Ok(Arc::new(Batches::new(table.clone(), indices, options)?))
}

/// What a loss wants targets to be, where the data leave it open.
fn task(loss: Option<&Loss>) -> Option<Task> {
    matches!(loss, Some(Loss::Difference(_) | Loss::Binary(_))).then_some(Task::Values)
}

/// Loaded data, divided and measured.
pub struct Prepared {
    /// What training sees.
    pub training: TrainingData,
    /// All parts; the test part is handed out once.
    pub splits: Splits,
}

/// Loads the data, divides it, and measures it on the training part. A loss of numbers reads targets as numbers.
///
/// # Errors
/// If the files are not what the text says, or the share is none.
pub fn prepare(options: &DataOptions, loss: Option<&Loss>) -> Result<Prepared> {
    let dataset =
        Arc::new(DataSpec::parse(&options.data)?.load(&LoadOptions { image_shape: None, task: task(loss) })?);
    let splits = Splits::new(&dataset, &options.split())?;
    let normalisation = Normalisation::measure(&dataset, splits.train())?;
    let indices = splits.train().to_vec();
    Ok(Prepared { training: TrainingData { dataset, indices, normalisation }, splits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_data_is_part_of_a_key() {
        let base = || DataOptions::of("digits");
        // A new field does not compile until it is varied below.
        let DataOptions { data: _, validation: _, columns: _, targets: _, missing: _, tokenizer: _ } = base();
        let keys: Vec<String> = [
            base(),
            DataOptions::of("csv:a.csv"),
            DataOptions { validation: Some(0.2), ..base() },
            DataOptions { columns: "x=a".parse().unwrap(), ..base() },
            DataOptions { targets: vec!["y".into()], ..base() },
            DataOptions { missing: Missing::Drop, ..base() },
            DataOptions { tokenizer: Some("t.json".into()), ..base() },
        ]
        .iter()
        .map(|options| crate::kept::config("train", options).unwrap().hash())
        .collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "variation {i} has the key of another");
        }
    }
}
