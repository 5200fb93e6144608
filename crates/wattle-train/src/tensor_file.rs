//! One safetensors file: named tensors and metadata.
//!
//! Files are written here rather than by the `safetensors` crate, because equal runs must give equal bytes and its
//! metadata map has no fixed order. Reading goes through that crate's validation.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use safetensors::SafeTensors;
use serde::Serialize;
use wattle_graph::{DType, Tensor};

pub use safetensors::Dtype;

use crate::atomic_file::write_atomically_with;
use wattle_data::bounded;
use wattle_data::error::{Error, Result};

/// Our element types, as the format calls them.
const TYPES: [(DType, Dtype); 11] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::I8, Dtype::I8),
    (DType::I16, Dtype::I16),
    (DType::I32, Dtype::I32),
    (DType::I64, Dtype::I64),
    (DType::U8, Dtype::U8),
    (DType::U16, Dtype::U16),
    (DType::U32, Dtype::U32),
    (DType::U64, Dtype::U64),
    (DType::Bool, Dtype::BOOL),
];

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

    /// A tensor with its element type as it is.
    ///
    /// # Panics
    /// Never: each of our element types has one in the format.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Self {
        let named = TYPES.iter().find(|(ours, _)| *ours == tensor.dtype());
        let (_, dtype) = named.expect("every element type is in the table");
        Self { name: name.into(), dtype: *dtype, shape: tensor.shape().to_vec(), bytes: tensor.to_le_bytes() }
    }

    /// The tensor; `None` if we have no such element type (halves, eighths), or its bytes do not fill its shape.
    pub fn to_tensor(&self) -> Option<Tensor> {
        let (dtype, _) = TYPES.iter().find(|(_, theirs)| *theirs == self.dtype)?;
        Tensor::from_le_bytes(*dtype, self.shape.clone(), &self.bytes)
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
    let mut bytes = vec![];
    bounded::open_file(path)?.read_to_end(&mut bytes).map_err(|error| Error::reading(path, &error))?;
    parse_tensors(&bytes).map_err(|problem| {
        Error::input(path.display(), problem)
            .expected("a complete safetensors file")
            .remedy("the file is damaged or of another kind; write it again or name another")
    })
}

pub(crate) fn parse_tensors(
    bytes: &[u8],
) -> std::result::Result<(Vec<NamedTensor>, BTreeMap<String, String>), String> {
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
pub(crate) fn in_file_order(tensors: &[NamedTensor]) -> Vec<&NamedTensor> {
    let mut ordered: Vec<&NamedTensor> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    ordered
}

fn describe(signature: &Signature) -> String {
    format!("`{}` {:?} {:?}", signature.name, signature.dtype, signature.shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_from_the_model_are_all_listed() {
        let signature = |name: &str, dtype, shape: &[usize]| Signature {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        let tensors = [
            NamedTensor::f32("layer.weight", &[2, 3], &[1.0, -2.0, 3.5, 0.0, f32::MIN_POSITIVE, -0.0]),
            NamedTensor { name: "mask".into(), dtype: Dtype::U8, shape: vec![3], bytes: vec![1, 0, 1] },
            NamedTensor { name: "clock".into(), dtype: Dtype::I64, shape: vec![], bytes: vec![7; 8] },
        ];
        let expected = [
            signature("layer.weight", Dtype::F32, &[3, 2]),
            signature("layer.bias", Dtype::F32, &[2]),
            signature("mask", Dtype::U8, &[3]),
        ];
        let error = check_signatures(Path::new("c"), &tensors, &expected).unwrap_err().to_string();
        for part in
            ["missing `layer.bias` F32 [2]", "`layer.weight` F32 [2, 3] where", "unexpected `clock` I64 []"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("mask"));
    }

    #[test]
    fn every_element_type_comes_back_as_it_was() {
        for (ours, _) in TYPES {
            let tensor = Tensor::from_f64(ours, [2, 2], vec![0.0, 1.0, 1.0, 0.0]);
            assert_eq!(NamedTensor::of("t", &tensor).to_tensor(), Some(tensor));
        }
    }
}
