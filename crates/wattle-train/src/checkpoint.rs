//! Checkpoints: the parameters of a run, and where in the run they were taken.

use std::collections::BTreeMap;
use std::path::Path;

use wattle_graph::Parameters;

use crate::parameter_tensors::{from_tensors, to_tensors};
use crate::tensor_file::{NamedTensor, in_file_order, read_tensors, write_tensors};
use wattle_data::error::{Error, Result};

const FORMAT: &str = "wattle checkpoint 1";

/// Where in a run a checkpoint was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Batches done since the start of the run.
    pub step: u64,
    /// Epochs begun and completed.
    pub epoch: u64,
    /// The hash of the run's canonical configuration, see [`crate::run_directory::Config::hash`].
    pub config: String,
}

/// The state of a run at one position, with free text metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where it was taken.
    pub position: Position,
    /// Parameters, optimiser state, running statistics, masks; in any order.
    pub tensors: Vec<NamedTensor>,
    /// Anything else worth keeping, as text.
    pub notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The parameters of a run at this position: every element type as it is, masks included.
    pub fn of(parameters: &Parameters, position: Position) -> Self {
        Self { position, tensors: to_tensors(parameters), notes: BTreeMap::new() }
    }

    /// The parameters and masks that it holds; `path` is where it was read from, for the error.
    pub fn parameters(&self, path: &Path) -> Result<Parameters> {
        from_tensors(path, &self.tensors)
    }

    /// Writes the file in one instant; equal checkpoints give equal bytes.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut metadata = self.notes.clone();
        metadata.insert("format".into(), FORMAT.into());
        metadata.insert("step".into(), self.position.step.to_string());
        metadata.insert("epoch".into(), self.position.epoch.to_string());
        metadata.insert("config".into(), self.position.config.clone());
        metadata.insert("blake3".into(), digest(&self.tensors));
        write_tensors(path, &self.tensors, &metadata)
    }

    /// Reads a file written by [`Checkpoint::write`] and checks its digest.
    pub fn read(path: &Path) -> Result<Self> {
        let (tensors, mut notes) = read_tensors(path)?;
        let mut take = |key: &str| {
            notes.remove(key).ok_or_else(|| {
                Error::input(path.display(), format_args!("the metadata has no `{key}`"))
                    .expected("a checkpoint written by wattle")
                    .remedy("weights from elsewhere can start a run, but a run cannot be resumed from them")
            })
        };
        let format = take("format")?;
        if format != FORMAT {
            return Err(Error::input(path.display(), format_args!("format `{format}`"))
                .expected(format_args!("`{FORMAT}`"))
                .remedy("use the version of wattle that wrote it, or start the run afresh"));
        }
        let (step, epoch, config, stored) = (take("step")?, take("epoch")?, take("config")?, take("blake3")?);
        let number = |key: &str, text: &str| {
            text.parse::<u64>().map_err(|_| {
                Error::input(path.display(), format_args!("`{key}` is `{text}`")).expected("a whole number")
            })
        };
        let position = Position { step: number("step", &step)?, epoch: number("epoch", &epoch)?, config };
        if digest(&tensors) != stored {
            return Err(Error::input(path.display(), "its bytes do not match their digest").remedy(
                "the file was damaged after it was written; delete it to resume from an earlier checkpoint",
            ));
        }
        Ok(Self { position, tensors, notes })
    }

    /// Like [`Checkpoint::read`], to go on with the run of this configuration.
    ///
    /// # Errors
    /// Also when it was taken in a run of another configuration: its weights would pass for this one's.
    pub fn resume(path: &Path, config: &str) -> Result<Self> {
        let found = Self::read(path)?;
        if found.position.config != config {
            let of = &found.position.config;
            return Err(Error::input(path.display(), format_args!("a checkpoint of the run {of}"))
                .expected(format_args!("one of this run, {config}"))
                .remedy("delete the file to train afresh, or choose another output directory"));
        }
        Ok(found)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn digest(tensors: &[NamedTensor]) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in in_file_order(tensors) {
        hasher.update(&(tensor.name.len() as u64).to_le_bytes());
        hasher.update(tensor.name.as_bytes());
        hasher.update(&(tensor.bytes.len() as u64).to_le_bytes());
        hasher.update(&tensor.bytes);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tensor_file::{Dtype, parse_tensors};
    use proptest::prelude::*;

    fn example() -> Checkpoint {
        Checkpoint {
            position: Position { step: 120, epoch: 3, config: "0123456789abcdef".into() },
            tensors: vec![
                NamedTensor::f32("layer.weight", &[2, 3], &[1.0, -2.0, 3.5, 0.0, f32::MIN_POSITIVE, -0.0]),
                NamedTensor { name: "mask".into(), dtype: Dtype::U8, shape: vec![3], bytes: vec![1, 0, 1] },
                NamedTensor {
                    name: "clock".into(),
                    dtype: Dtype::I64,
                    shape: vec![],
                    bytes: vec![7, 0, 0, 0, 0, 0, 0, 0],
                },
            ],
            notes: BTreeMap::from([("normalisation".into(), "0.286/0.353".into())]),
        }
    }

    fn written() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("step-120.safetensors");
        example().write(&path).unwrap();
        (directory, path)
    }

    #[test]
    fn a_checkpoint_survives_a_round_trip() {
        let (_directory, path) = written();
        let read = Checkpoint::read(&path).unwrap();
        assert_eq!(read.position, example().position);
        assert_eq!(read.notes, example().notes);
        for tensor in example().tensors {
            assert_eq!(read.tensor(&tensor.name), Some(&tensor));
        }
        assert_eq!(read.tensor("layer.weight").unwrap().to_f32().unwrap()[2], 3.5);
    }

    #[test]
    fn equal_checkpoints_give_equal_bytes() {
        let (_a, first) = written();
        let (_b, second) = written();
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }

    #[test]
    fn only_the_run_that_took_it_goes_on_from_a_checkpoint() {
        let (_directory, path) = written();
        assert_eq!(Checkpoint::resume(&path, "0123456789abcdef").unwrap().position.step, 120);
        let error = Checkpoint::resume(&path, "fedcba9876543210").unwrap_err().to_string();
        assert!(error.contains("run 0123456789abcdef") && error.contains("run, fedcba9876543210"), "{error}");
    }

    #[test]
    fn a_tensor_whose_bytes_do_not_fill_its_shape_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bad.safetensors");
        let mut bad = example();
        bad.tensors[0].shape = vec![2, 2];
        assert!(bad.write(&path).is_err() && !path.exists());
    }

    #[test]
    fn foreign_weights_load_but_cannot_resume() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("foreign.safetensors");
        write_tensors(&path, &example().tensors, &BTreeMap::new()).unwrap();
        assert_eq!(read_tensors(&path).unwrap().0.len(), 3);
        assert!(Checkpoint::read(&path).unwrap_err().to_string().contains("`format`"));
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(at in 0usize..4096, xor in 1u8..=255, cut in 0usize..4096) {
            static WRITTEN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = WRITTEN.get_or_init(|| {
                let (_directory, path) = written();
                fs::read(path).unwrap()
            }).clone();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("damaged.safetensors");
            let length = bytes.len();
            bytes[at % length] ^= xor;
            let _ = parse_tensors(&bytes);
            prop_assert!(parse_tensors(&bytes[..cut % length]).is_err());
            fs::write(&path, &bytes).unwrap();
            if let Ok(read) = Checkpoint::read(&path) {
                // Only header fields outside the digest (names of notes, positions) may have changed unnoticed.
                prop_assert_eq!(read.tensors.len(), 3);
            }
        }
    }
}
