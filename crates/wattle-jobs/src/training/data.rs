//! Which data, how it is divided, and what its inputs are normalised with.

use std::sync::Arc;

use serde::Serialize;
use wattle_data::{DataSpec, LoadOptions, Normalisation, SplitOptions, Splits, Task};
use wattle_train::objective::Loss;
use wattle_train::training_data::TrainingData;

use crate::error::Result;

/// Which data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataOptions {
    /// `digits`, a directory, a file, or `idx:DIR`, `cifar:DIR`, `folder:DIR`, `npz:FILE`, `csv:FILE`.
    pub data: String,
    /// Share of the training samples kept aside for choosing; 0.2 if left out.
    pub validation: Option<f64>,
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
    let task = match loss {
        Some(Loss::Difference(_) | Loss::Binary(_)) => Some(Task::Values),
        _ => None,
    };
    let dataset = Arc::new(DataSpec::parse(&options.data)?.load(&LoadOptions { image_shape: None, task })?);
    let validation = options.validation.unwrap_or(wattle_data::split::VALIDATION);
    let splits = Splits::new(&dataset, &SplitOptions { validation, ..SplitOptions::default() })?;
    let normalisation = Normalisation::measure(&dataset, splits.train())?;
    let indices = splits.train().to_vec();
    Ok(Prepared { training: TrainingData { dataset, indices, normalisation }, splits })
}
