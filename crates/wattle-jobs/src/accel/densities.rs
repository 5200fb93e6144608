//! Densities from a file: by name of layer, or as an estimate printed them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use wattle_accel::{Densities, Density};
use wattle_graph::Mask;

use crate::error::{JobError, Result};
use crate::given_file;
use crate::npy;

/// What may be said of one operand.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Fraction(f64),
    Channels(Vec<f64>),
    /// A .npy file whose elements that are not zero are alive; relative to the file that names it.
    Mask(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    iact: Option<Value>,
    weight: Option<Value>,
}

/// `wattle accel estimate --json`, of which only densities are read.
#[derive(Deserialize)]
struct Estimate {
    layers: Vec<Estimated>,
}

#[derive(Deserialize)]
struct Estimated {
    name: String,
    density: Given,
    /// In place of the former, where channels differ.
    channel_density: Given,
}

/// Reads a density file.
pub(super) fn read(path: &Path) -> Result<Densities> {
    let place = path.display().to_string();
    let text = given_file::text(path).map_err(|e| explained(path, e))?;
    let wanted =
        "expected {\"layer\": {\"iact\": 0.6, \"weight\": 0.3}}, with fractions, lists or .npy masks";
    let document: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| JobError::at(&place, format!("{e}; {wanted}")))?;
    let mut densities = Densities::new();
    let mut set = |name: String, given: Given| -> Result<()> {
        let value = |v: Option<Value>| v.map(|v| density(v, path)).transpose();
        densities.insert(name, (value(given.iact)?, value(given.weight)?));
        Ok(())
    };
    if document.get("layers").is_some_and(serde_json::Value::is_array) {
        let estimate: Estimate =
            serde_json::from_value(document).map_err(|e| JobError::at(&place, format!("{e}; {wanted}")))?;
        for layer in estimate.layers {
            let iact = layer.channel_density.iact.or(layer.density.iact);
            let weight = layer.channel_density.weight.or(layer.density.weight);
            set(layer.name, Given { iact, weight })?;
        }
        return Ok(densities);
    }
    let layers: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(document).map_err(|e| JobError::at(&place, format!("{e}; {wanted}")))?;
    for (name, value) in layers {
        let given: Given = serde_json::from_value(value)
            .map_err(|e| JobError::at(&place, format!("layer `{name}`: {e}; {wanted}")))?;
        set(name, given)?;
    }
    Ok(densities)
}

/// A word that is no file may have been meant as one of the other sources.
fn explained(path: &Path, error: JobError) -> JobError {
    if path.extension().is_some() {
        return error;
    }
    JobError::input(format_args!("{error}; densities come from `weights`, `calibration:DATA` or a JSON file"))
}

fn density(value: Value, from: &Path) -> Result<Density> {
    Ok(match value {
        Value::Fraction(fraction) => Density::Uniform(fraction),
        Value::Channels(list) => Density::PerChannel(list),
        Value::Mask(file) => {
            let tensor = npy::read(&from.parent().unwrap_or(Path::new("")).join(file))?;
            Density::Mask(Mask::from_bools(tensor.to_f64().iter().map(|&x| x != 0.0)))
        }
    })
}
