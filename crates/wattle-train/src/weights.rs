//! Weights as a safetensors file in which sparse tensors stay small: `docs/reference/lean-files.md` has the format.

use std::collections::BTreeMap;
use std::path::Path;

use wattle_graph::{Compact, Index, Mask, Parameters, Tensor, element_count};

use crate::tensor_file::{Dtype, NamedTensor, read_tensors, write_tensors};
use wattle_data::error::{Error, Result};

/// The format's name and version, in the file's metadata under `format`.
pub const FORMAT: &str = "wattle.weights/2";

/// Most elements of a sparse tensor: so many, and 1000 for each byte of its values. A small file must not fill the
/// memory.
const MAX_ELEMENTS: usize = 1 << 26;

/// Extents of the sparse tensors by name, in the metadata under `sparse` as a JSON object.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Writes the tensors of `parameters`; those that are mostly zero as the elements that are not, and their places.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(path: &Path, parameters: &Parameters) -> Result<()> {
    let (mut tensors, mut shapes) = (vec![], Shapes::new());
    let taken = |name: &str| parameters.get(name).is_some();
    for (name, tensor) in parameters.iter() {
        let [values, gaps, bits] = ["values", "gaps", "bits"].map(|part| format!("{name}.{part}"));
        let is_free = !taken(&values) && !taken(&gaps) && !taken(&bits);
        // The format has no fill but zero.
        let compact = Compact::of(tensor).filter(|c| is_free && c.fill.density() == 0.0);
        let Some(compact) = compact else {
            tensors.push(NamedTensor::of(name, tensor));
            continue;
        };
        shapes.insert(name.to_string(), compact.shape);
        tensors.push(NamedTensor::of(values, &compact.values));
        let (part, bytes) = match compact.index {
            Index::Gaps(bytes) => (gaps, bytes),
            Index::Bits(bytes) => (bits, bytes),
        };
        tensors.push(NamedTensor { name: part, dtype: Dtype::U8, shape: vec![bytes.len()], bytes });
    }
    let shapes = serde_json::json!(shapes).to_string();
    let notes = [("format", FORMAT.to_string()), ("sparse", shapes)];
    write_tensors(path, &tensors, &notes.map(|(key, text)| (key.to_string(), text)).into())
}

/// Reads a file of [`write_weights`], or any safetensors file of floats of 32 or 64 bits, integers and truth values. Tensors that were stored
/// sparse are masked: their zeros stay zeros in training.
///
/// # Errors
/// When the file cannot be read, or is not what its metadata say.
pub fn read_weights(path: &Path) -> Result<Parameters> {
    let (tensors, notes) = read_tensors(path)?;
    let refuse = |found: String| Error::input(path.display(), found);
    let mut parts: BTreeMap<String, NamedTensor> = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
    let shapes: Shapes = match notes.get("sparse") {
        Some(text) => {
            serde_json::from_str(text).map_err(|e| refuse(format!("the metadata's `sparse`: {e}")))?
        }
        None => Shapes::new(),
    };
    let mut parameters = Parameters::new();
    for (name, shape) in shapes {
        let refuse = |found: &dyn std::fmt::Display| refuse(format!("sparse tensor `{name}`: {found}"));
        let mut part = |part: &str| parts.remove(&format!("{name}.{part}"));
        let values = part("values").ok_or_else(|| refuse(&"it has no values"))?;
        let index = match (part("gaps"), part("bits")) {
            (Some(gaps), None) if gaps.dtype == Dtype::U8 => Index::Gaps(gaps.bytes),
            (None, Some(bits)) if bits.dtype == Dtype::U8 => Index::Bits(bits.bytes),
            _ => return Err(refuse(&"it needs either gaps or bits, of U8")),
        };
        let most = MAX_ELEMENTS.saturating_add(values.bytes.len().saturating_mul(1000));
        if element_count(&shape).is_none_or(|n| n > most) {
            return Err(refuse(&format_args!(
                "shape {shape:?} is too large for its {} values",
                values.shape.len()
            )));
        }
        let values =
            values.to_tensor().ok_or_else(|| refuse(&format_args!("values of {:?}", values.dtype)))?;
        let fill = Tensor::zeros(values.dtype(), [1]);
        let tensor = Compact { shape, fill, values, index }.expand().map_err(|e| refuse(&e))?;
        let mask = Mask::from_bools(tensor.to_f64().iter().map(|&x| x != 0.0));
        let is_float = tensor.dtype().is_float();
        parameters.insert(name.clone(), tensor);
        if is_float {
            parameters.set_mask(&name, mask);
        }
    }
    for (name, tensor) in parts {
        let made = tensor.to_tensor();
        let made = made.ok_or_else(|| {
            refuse(format!("tensor `{name}`: {:?}", tensor.dtype))
                .expected("floats of 32 or 64 bits, integers or truth values")
        })?;
        if parameters.get(&name).is_some() {
            return Err(refuse(format!("tensor `{name}` is there twice, sparse and whole")));
        }
        parameters.insert(name, made);
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use wattle_graph::{DType, Example};

    use super::*;

    /// A dense bias, a tenth and a third of a matrix, and nothing of one.
    fn example() -> Parameters {
        let mut parameters = Parameters::new();
        parameters.insert("bias", Example::noise(&[7], 1));
        for (name, threshold) in [("tenth", 0.9), ("third", 0.67), ("none", 2.0)] {
            let mut tensor = Example::noise(&[300, 100], 2);
            let dice = Example::noise(&[300, 100], 3).to_f64().into_owned();
            let mask = Mask::from_bools(dice.iter().map(|d| d.abs() > threshold));
            mask.apply(&mut tensor);
            parameters.insert(name, tensor);
            parameters.set_mask(name, mask);
        }
        parameters
    }

    #[test]
    fn weights_and_masks_survive_and_take_few_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lean.safetensors");
        write_weights(&path, &example()).unwrap();
        assert_eq!(read_weights(&path).unwrap(), example());
        let alive = |name: &str| example().mask(name).unwrap().count() as u64;
        // A tenth in gaps, a third in bits, and the header.
        let expected = 5 * alive("tenth") + 4 * alive("third") + 300 * 100 / 8 + 1000;
        let found = std::fs::metadata(&path).unwrap().len();
        assert!(found <= expected, "{found} of {expected}");
    }

    #[test]
    fn eight_bit_weights_take_two_bytes_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lean.safetensors");
        let elements = (0..40_000).map(|i| if i % 10 == 3 { f64::from(i % 127 + 1) } else { 0.0 }).collect();
        let mut parameters = Parameters::new();
        parameters.insert("w", Tensor::from_f64(DType::I8, [200, 200], elements));
        write_weights(&path, &parameters).unwrap();
        assert_eq!(read_weights(&path).unwrap(), parameters);
        assert!(std::fs::metadata(&path).unwrap().len() <= 2 * 4000 + 500);
    }

    #[test]
    fn files_that_contradict_themselves_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.safetensors");
        let refused = |tensors: &[(&str, Dtype, usize)], sparse: &str, words: &str| {
            let tensor = |&(name, dtype, count): &(&str, Dtype, usize)| NamedTensor {
                name: name.into(),
                dtype,
                shape: vec![count],
                bytes: vec![1; count * dtype.bitsize() / 8],
            };
            let tensors: Vec<_> = tensors.iter().map(tensor).collect();
            write_tensors(&path, &tensors, &[("sparse".to_string(), sparse.to_string())].into()).unwrap();
            let error = read_weights(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("bad.safetensors"), "{error}");
        };
        let [values, gaps, bits] =
            [("w.values", Dtype::F32, 2), ("w.gaps", Dtype::U8, 2), ("w.bits", Dtype::U8, 1)];
        refused(&[], "[", "`sparse`");
        refused(&[gaps], r#"{"w":[9]}"#, "no values");
        refused(&[values], r#"{"w":[9]}"#, "gaps or bits");
        refused(&[values, gaps, bits], r#"{"w":[9]}"#, "gaps or bits");
        refused(&[values, gaps], r#"{"w":[2]}"#, "gap 1");
        refused(&[values, bits], r#"{"w":[8]}"#, "2 values for 1");
        refused(&[values, gaps], r#"{"w":[1099511627776]}"#, "too large");
        refused(&[values, gaps, ("w", Dtype::F32, 1)], r#"{"w":[9]}"#, "twice");
        refused(&[("w", Dtype::BF16, 2)], "{}", "BF16");
    }
}
