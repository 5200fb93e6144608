//! Tensors as `.npy` files.

use std::path::Path;

use wattle_graph::{DType, Tensor};
use wattle_train::atomic_file::write_atomically_with;

use crate::error::Result;

/// Reads a tensor of any numeric type; half precision becomes single, complex numbers are refused.
pub fn read(path: &Path) -> Result<Tensor> {
    Ok(wattle_data::npy::read_tensor(path)?)
}

/// Writes a tensor; the file appears whole or not at all.
pub fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    Ok(write_atomically_with(path, |out| wattle_data::npy::write_tensor(out, tensor))?)
}

/// Converts to the type an input wants where that loses nothing: integers to wider ones, f64 to f32 rounds.
pub fn fitted(tensor: Tensor, dtype: DType) -> Option<Tensor> {
    let from = tensor.dtype();
    let widens = !from.is_float() && !dtype.is_float() && tensor.cast(dtype).to_i64() == tensor.to_i64();
    (from == dtype || from.is_float() && dtype.is_float() || widens).then(|| tensor.cast(dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_file() {
        let folder = std::env::temp_dir().join(format!("wattle-npy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for dtype in [DType::F32, DType::F64, DType::I8, DType::I64, DType::U8, DType::Bool] {
            let tensor = Tensor::from_i64(dtype, [2, 3], vec![0, 1, 0, 1, 1, 0]);
            let path = folder.join(format!("{dtype}.npy"));
            write(&path, &tensor).unwrap();
            assert_eq!(read(&path).unwrap(), tensor);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_conversions_that_keep_the_value_are_made() {
        assert!(fitted(Tensor::ints(&[1, 2]), DType::I32).is_some());
        assert!(fitted(Tensor::ints(&[300]), DType::U8).is_none());
        assert!(fitted(Tensor::scalar(0.5), DType::I32).is_none());
    }
}
