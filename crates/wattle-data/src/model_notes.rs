//! What a model's file says of the samples it was trained on: what its inputs were normalised with, and its classes.
//!
//! Kept in the metadata of an ONNX file under keys that start with `wattle.`; `docs/reference/model-metadata.md` has the
//! format.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::normalisation::Normalisation;

/// Version of the format.
const VERSION: &str = "1";

const VERSION_KEY: &str = "wattle.version";
const NORMALISATION_KEY: &str = "wattle.normalisation";
const CLASSES_KEY: &str = "wattle.classes";

/// What a model's file says of its samples. Nothing of it is needed to run the model; a model without notes takes its
/// inputs as they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelNotes {
    /// What each input was normalised with, by its name.
    pub normalisation: BTreeMap<String, Normalisation>,
    /// Names of the classes, in the order of the outputs; empty if it does not tell classes apart.
    pub classes: Vec<String>,
}

impl ModelNotes {
    /// Reads the notes among a model's metadata; no notes if there are none.
    ///
    /// # Errors
    /// When they are of a later version, or damaged.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<ModelNotes> {
        if let Some(version) = metadata.get(VERSION_KEY).filter(|version| *version != VERSION) {
            return Err(fault(VERSION_KEY, format_args!("version `{version}`"))
                .expected(format_args!("version {VERSION}"))
                .remedy("use a newer wattle, or remove the keys that start with `wattle.` from the file"));
        }
        let mut notes = ModelNotes::default();
        if let Some(text) = metadata.get(NORMALISATION_KEY) {
            let inputs: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|error| fault(NORMALISATION_KEY, error))?;
            for (input, constants) in inputs {
                let found = Normalisation::from_json(&constants.to_string())
                    .map_err(|error| fault(NORMALISATION_KEY, format_args!("input `{input}`: {error}")))?;
                notes.normalisation.insert(input, found);
            }
        }
        if let Some(text) = metadata.get(CLASSES_KEY) {
            notes.classes = serde_json::from_str(text).map_err(|error| fault(CLASSES_KEY, error))?;
        }
        Ok(notes)
    }

    /// Puts the notes among a model's metadata, in the place of any before them; other metadata stay.
    pub fn write(&self, metadata: &mut BTreeMap<String, String>) {
        for key in [VERSION_KEY, NORMALISATION_KEY, CLASSES_KEY] {
            metadata.remove(key);
        }
        if *self == ModelNotes::default() {
            return;
        }
        metadata.insert(VERSION_KEY.into(), VERSION.into());
        if !self.normalisation.is_empty() {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            let inputs =
                self.normalisation.iter().map(|(name, n)| format!("{}:{}", quoted(name), n.to_json()));
            let inputs = inputs.collect::<Vec<_>>().join(",");
            metadata.insert(NORMALISATION_KEY.into(), format!("{{{inputs}}}"));
        }
        if !self.classes.is_empty() {
            metadata.insert(CLASSES_KEY.into(), serde_json::Value::from(self.classes.clone()).to_string());
        }
    }
}

fn fault(key: &str, found: impl std::fmt::Display) -> Error {
    Error::input(format_args!("the model's metadata, `{key}`"), found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ModelNotes {
        let image = Normalisation { mean: vec![0.1, 1.0 / 3.0], std: vec![0.25, 2.0], divisor: Some(255.0) };
        let row = Normalisation { mean: vec![-7.5], std: vec![1e-3], divisor: None };
        ModelNotes {
            normalisation: [("pixels \"x\"".to_string(), image), ("row".to_string(), row)].into(),
            classes: vec!["cat".into(), "1, \"two\"".into()],
        }
    }

    #[test]
    fn notes_survive_the_metadata_to_the_bit_and_leave_other_keys_alone() {
        let mut metadata = BTreeMap::from([("author".to_string(), "me".to_string())]);
        example().write(&mut metadata);
        assert_eq!(ModelNotes::read(&metadata).unwrap(), example());
        ModelNotes::default().write(&mut metadata);
        assert_eq!(metadata, BTreeMap::from([("author".to_string(), "me".to_string())]));
        assert_eq!(ModelNotes::read(&metadata).unwrap(), ModelNotes::default());
    }

    #[test]
    fn damaged_notes_and_those_of_the_future_are_refused_by_key() {
        for (key, text) in [
            (VERSION_KEY, "2"),
            (NORMALISATION_KEY, "{"),
            (NORMALISATION_KEY, r#"{"x":{"mean":[1],"std":[0]}}"#),
            (NORMALISATION_KEY, r#"{"x":{"mean":[1,2],"std":[1]}}"#),
            (CLASSES_KEY, "{}"),
        ] {
            let mut metadata = BTreeMap::new();
            example().write(&mut metadata);
            metadata.insert(key.into(), text.into());
            let error = ModelNotes::read(&metadata).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
