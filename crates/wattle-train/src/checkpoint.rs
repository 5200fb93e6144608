//! Checkpoints: one safetensors file holding named tensors and where in the run they were taken.
//!
//! Files are written here rather than by the `safetensors` crate, because equal runs must give equal bytes and its
//! metadata map has no fixed order. Reading goes through that crate's validation.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Serialize;

pub use safetensors::Dtype;

use crate::atomic_file::write_atomically_with;
use wattle_data::error::{Error, Result};

const FORMAT: &str = "wattle checkpoint 1";

/// One named tensor as it lies in the file: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Unique within its file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `product(shape)` elements.
    pub bytes: Vec<u8>,
}

impl NamedTensor {
    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// The values of a tensor of 32-bit floats; `None` for another element type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        (self.dtype == Dtype::F32).then(|| self.bytes.chunks_exact(4).map(value).collect())
    }

    fn signature(&self) -> Signature {
        Signature { name: self.name.clone(), dtype: self.dtype, shape: self.shape.clone() }
    }
}

/// What a reader expects of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// The tensor's name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its extents.
    pub shape: Vec<usize>,
}

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

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Checks that `tensors` are exactly those `expected` (in any order); the error lists every difference.
pub fn check_signatures(place: &Path, tensors: &[NamedTensor], expected: &[Signature]) -> Result<()> {
    let found: BTreeMap<&str, &NamedTensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let wanted: BTreeMap<&str, &Signature> = expected.iter().map(|s| (s.name.as_str(), s)).collect();
    let mut faults = Vec::new();
    for (name, signature) in &wanted {
        match found.get(name) {
            None => faults.push(format!("missing {}", describe(signature))),
            Some(tensor) if tensor.signature() != **signature => {
                let found = tensor.signature();
                faults.push(format!("{} where {} belongs", describe(&found), describe(signature)));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in &found {
        if !wanted.contains_key(name) {
            faults.push(format!("unexpected {}", describe(&tensor.signature())));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::input(place.display(), faults.join(", "))
        .expected(format_args!("the {} tensors of this model", expected.len()))
        .remedy("the file belongs to another model; name the model it was made for"))
}

/// Writes tensors and metadata as a safetensors file, in one instant and with deterministic bytes.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    #[derive(Serialize)]
    struct Entry<'a> {
        dtype: Dtype,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }
    let invalid = |tensor: &NamedTensor, what: &str| {
        Err(Error::input(format_args!("tensor `{}` for {}", tensor.name, path.display()), what))
    };
    let ordered = in_file_order(tensors);
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut offset = 0;
    for tensor in &ordered {
        let bits = tensor.shape.iter().try_fold(tensor.dtype.bitsize(), |n, &d| n.checked_mul(d));
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != tensor.bytes.len()) {
            return invalid(tensor, "its bytes do not fill its shape");
        }
        let entry = Entry {
            dtype: tensor.dtype,
            shape: &tensor.shape,
            data_offsets: [offset, offset + tensor.bytes.len()],
        };
        if header.insert(tensor.name.clone(), serde_json::json!(entry)).is_some() {
            return invalid(tensor, "the name is taken twice");
        }
        offset += tensor.bytes.len();
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The format wants tensor data aligned to 8 bytes; spaces are legal padding of its JSON header.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        ordered.iter().try_for_each(|tensor| file.write_all(&tensor.bytes))
    })
}

/// Reads any safetensors file: tensors sorted by name, and its metadata.
pub fn read_tensors(path: &Path) -> Result<(Vec<NamedTensor>, BTreeMap<String, String>)> {
    let bytes = fs::read(path).map_err(|error| Error::reading(path, &error))?;
    parse_tensors(&bytes).map_err(|problem| {
        Error::input(path.display(), problem)
            .expected("a complete safetensors file")
            .remedy("the file is damaged or of another kind; write it again or name another")
    })
}

fn parse_tensors(bytes: &[u8]) -> std::result::Result<(Vec<NamedTensor>, BTreeMap<String, String>), String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let notes = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors: Vec<NamedTensor> = file
        .iter()
        .map(|(name, view)| NamedTensor {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((tensors, notes))
}

/// Widest elements first, then by name: every tensor is then aligned to its element size.
fn in_file_order(tensors: &[NamedTensor]) -> Vec<&NamedTensor> {
    let mut ordered: Vec<&NamedTensor> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    ordered
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

fn describe(signature: &Signature) -> String {
    format!("`{}` {:?} {:?}", signature.name, signature.dtype, signature.shape)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn differences_from_the_model_are_all_listed() {
        let signature = |name: &str, dtype, shape: &[usize]| Signature {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        let expected = [
            signature("layer.weight", Dtype::F32, &[3, 2]),
            signature("layer.bias", Dtype::F32, &[2]),
            signature("mask", Dtype::U8, &[3]),
        ];
        let error = check_signatures(Path::new("c"), &example().tensors, &expected).unwrap_err().to_string();
        for part in
            ["missing `layer.bias` F32 [2]", "`layer.weight` F32 [2, 3] where", "unexpected `clock` I64 []"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("mask"));
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
