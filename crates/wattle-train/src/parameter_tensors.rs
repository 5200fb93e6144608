//! Parameters and masks as the named tensors of a file, and back.
//!
//! A parameter keeps its name and its element type. The mask of `w` is the tensor `mask/w`: packed bits as bytes. A
//! parameter whose own name starts with `mask/` or a backslash has a backslash put in front of it, so that neither is
//! taken for the other.

use std::path::Path;

use wattle_graph::{Mask, Parameters};

use crate::tensor_file::{Dtype, NamedTensor};
use wattle_data::error::{Error, Result};

/// Starts the name of a mask.
const MASK: &str = "mask/";
/// Starts the name of a parameter that would else be taken for a mask, or for a name that is escaped.
const ESCAPE: char = '\\';

/// Parameters and masks as the tensors of a file.
pub fn to_tensors(parameters: &Parameters) -> Vec<NamedTensor> {
    let named = parameters.iter().map(|(name, tensor)| NamedTensor::of(escaped(name), tensor));
    let masks = parameters.masks().map(|(name, mask)| {
        let bytes = mask.to_bytes();
        NamedTensor { name: format!("{MASK}{name}"), dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    });
    named.chain(masks).collect()
}

/// Parameters and masks from the tensors of a file at `place`.
///
/// # Errors
/// When a tensor has an element type that wattle does not compute with, or a mask does not fit its parameter.
pub fn from_tensors(place: &Path, tensors: &[NamedTensor]) -> Result<Parameters> {
    let refuse = |tensor: &NamedTensor, found: &dyn std::fmt::Display| {
        Error::input(place.display(), format_args!("tensor `{}`: {found}", tensor.name))
    };
    let mut parameters = Parameters::new();
    for tensor in tensors.iter().filter(|t| !t.name.starts_with(MASK)) {
        let made = tensor.to_tensor().ok_or_else(|| {
            refuse(tensor, &format_args!("{:?}", tensor.dtype))
                .expected("floats of 32 or 64 bits, integers or truth values")
        })?;
        parameters.insert(tensor.name.strip_prefix(ESCAPE).unwrap_or(&tensor.name), made);
    }
    for tensor in tensors {
        let Some(name) = tensor.name.strip_prefix(MASK) else { continue };
        let len = parameters.get(name).map_or(0, |t| t.len());
        let mask = Mask::from_bytes(len, &tensor.bytes);
        if !mask.is_some_and(|mask| parameters.set_mask(name, mask)) {
            let bytes = tensor.bytes.len();
            return Err(refuse(tensor, &format_args!("{bytes} bytes do not mask {len} elements")));
        }
    }
    Ok(parameters)
}

fn escaped(name: &str) -> String {
    if name.starts_with(MASK) || name.starts_with(ESCAPE) { format!("{ESCAPE}{name}") } else { name.into() }
}

#[cfg(test)]
mod tests {
    use wattle_graph::{DType, Tensor};

    use super::*;

    fn round_trip(parameters: &Parameters) -> Parameters {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        crate::tensor_file::write_tensors(&path, &to_tensors(parameters), &Default::default()).unwrap();
        from_tensors(&path, &crate::tensor_file::read_tensors(&path).unwrap().0).unwrap()
    }

    #[test]
    fn every_element_type_is_kept_to_the_bit() {
        let mut parameters = Parameters::new();
        parameters.insert("third", Tensor::f64([2], vec![1.0 / 3.0, f64::MIN_POSITIVE]));
        parameters.insert("count", Tensor::i64([], vec![(1 << 53) + 1]));
        parameters.insert("on", Tensor::from_f64(DType::Bool, [2], vec![0.0, 1.0]));
        parameters.insert("byte", Tensor::from_f64(DType::I8, [1], vec![-128.0]));
        assert_eq!(round_trip(&parameters), parameters);
    }

    #[test]
    fn a_parameter_with_the_name_of_a_mask_is_not_one() {
        let mut parameters = Parameters::new();
        for name in ["w", "mask/w", "mask/mask/w", "\\w", "\\mask/w", "mask/"] {
            parameters.insert(name, Tensor::f32([9], vec![1.5; 9]));
            parameters.set_mask(name, Mask::from_bools((0..9).map(|i| i % 3 == 0)));
        }
        assert_eq!(round_trip(&parameters), parameters);
    }

    #[test]
    fn files_of_before_are_read() {
        let tensors = [
            NamedTensor::f32("fc.weight", &[2], &[1.0, 0.0]),
            NamedTensor { name: "mask/fc.weight".into(), dtype: Dtype::U8, shape: vec![1], bytes: vec![1] },
        ];
        let found = from_tensors(Path::new("old"), &tensors).unwrap();
        assert_eq!(found.mask("fc.weight"), Some(&Mask::from_bools([true, false])));
    }

    #[test]
    fn a_mask_of_another_length_is_refused() {
        let tensors =
            [NamedTensor { name: "mask/w".into(), dtype: Dtype::U8, shape: vec![1], bytes: vec![1] }];
        let error = from_tensors(Path::new("bad"), &tensors).unwrap_err().to_string();
        assert!(error.contains("`mask/w`: 1 bytes do not mask 0 elements"), "{error}");
    }
}
