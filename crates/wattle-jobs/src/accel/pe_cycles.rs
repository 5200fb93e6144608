//! Cycles of one lane of the compressed processing element, from non-zero counts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_accel::pe::LaneCounts;

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::observer::Observer;

/// Counts of non-zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeCyclesOptions {
    /// JSON: for each 1x1 layer C, M, E, F and the lists nnz_iact and nnz_weight, one count an input channel.
    pub file: PathBuf,
}

const WANTED: &str = "expected {\"layer\": {\"C\": 2, \"M\": 3, \"E\": 1, \"F\": 4, \"nnz_iact\": [4, 3], \"nnz_weight\": [1, 3]}}";

/// Cycles of each layer.
#[derive(Clone, Debug, Serialize)]
pub struct PeCycles {
    schema: u32,
    /// Layers by name.
    pub layers: Vec<Cycles>,
    /// How the cycles are known.
    pub source: &'static str,
}

/// Cycles of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct Cycles {
    /// Its name.
    pub name: String,
    /// Its cycles.
    pub cycles: u64,
}

/// Counts the cycles of every layer of the file.
///
/// # Errors
/// If the file cannot be read, or counts contradict their shape.
pub fn pe_cycles(options: &PeCyclesOptions, _env: &Env, _observer: &mut dyn Observer) -> Result<PeCycles> {
    let place = || options.file.display();
    let text = given_file::text(&options.file)?;
    let file: BTreeMap<String, LaneCounts> =
        serde_json::from_str(&text).map_err(|e| JobError::at(place(), format_args!("{e}; {WANTED}")))?;
    let mut layers = vec![];
    for (name, counts) in file {
        let cycles = counts.cycles(&name).map_err(|e| JobError::at(place(), e))?;
        layers.push(Cycles { name, cycles });
    }
    let source = "counted: sum over channels of nnz_iact x nnz_weight, one lane, no stalls";
    Ok(PeCycles { schema: 1, layers, source })
}
