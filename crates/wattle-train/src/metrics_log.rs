//! What a run writes down as it goes: a line of JSON at a time, consistent with its checkpoints.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::output_file::open_or_create;
use wattle_data::error::{Error, Result};

/// `metrics.jsonl`: one JSON object a line, each with the `step` it was taken after.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a run that continues after the step of its `checkpoint`: later lines and a torn last line are
    /// dropped, for those steps will be run, and logged, again. Without a checkpoint everything is.
    pub fn open(path: &Path, checkpoint: Option<u64>) -> Result<Self> {
        let writing = |error| Error::writing(path, &error);
        let mut file = open_or_create(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Error::reading(path, &error))?;
        let kept = checkpoint.map_or(0, |step| length_through(&bytes, step));
        file.set_len(kept as u64).map_err(writing)?;
        file.seek(SeekFrom::End(0)).map_err(writing)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a record; `record` must serialise to a JSON object and gains the field `step`.
    pub fn append(&mut self, step: u64, record: &impl Serialize) -> Result<()> {
        let misfit = |found: String| Error::input(self.path.display(), found).expected("a JSON object");
        let value = serde_json::to_value(record).map_err(|error| misfit(error.to_string()))?;
        let serde_json::Value::Object(fields) = value else {
            return Err(misfit(format!("a record of another kind: {value}")));
        };
        let mut line = format!("{{\"step\":{step}");
        for (name, value) in fields.iter().filter(|(name, _)| *name != "step") {
            line += &format!(",{}:{value}", serde_json::Value::from(name.as_str()));
        }
        line += "}\n";
        self.file.write_all(line.as_bytes()).map_err(|error| Error::writing(&self.path, &error))
    }

    /// Forces what was appended to disk. Call it before writing a checkpoint, so that a checkpoint never outlives the
    /// metrics that led to it.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::writing(&self.path, &error))
    }
}

/// The length of the longest run of whole lines that are JSON objects with a `step` of at most `step`.
fn length_through(bytes: &[u8], step: u64) -> usize {
    let mut length = 0;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let value: Option<serde_json::Value> =
            line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok());
        let at = value.as_ref().and_then(|value| value.get("step")).and_then(serde_json::Value::as_u64);
        if at.is_none_or(|at| at > step) {
            break;
        }
        length += line.len();
    }
    length
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn metrics_continue_after_the_resumed_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, None).unwrap();
        for step in [1, 2, 3] {
            log.append(step, &serde_json::json!({"loss": 1.0 / step as f64, "step": 99})).unwrap();
        }
        log.sync().unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"step\":4,\"lo")).unwrap();
        drop(MetricsLog::open(&path, Some(9)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), whole, "only the torn line goes");

        let mut log = MetricsLog::open(&path, Some(2)).unwrap();
        log.append(3, &serde_json::json!({"loss": 1.0 / 3.0})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole, "step 3 was run and logged again");
    }
}
