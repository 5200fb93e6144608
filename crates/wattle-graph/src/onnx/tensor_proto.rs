//! Tensors of ONNX files: typed fields, raw bytes, other files, sparse lists; and back.

use std::path::Path;

use prost::Message;

use super::proto::{EXTERNAL, SparseTensorProto, TensorProto};
use super::{Limits, OnnxError, external};
use crate::tensor::{DType, Data, Tensor, element_count};

/// ONNX numbers of element types (`TensorProto.DataType`).
const TYPES: &[(i32, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
];

/// Most axes of a tensor.
pub(super) const MAX_RANK: usize = 16;

/// Largest product of extents that is counted with, those of 0 left out.
pub(super) const MAX_SPREAD: usize = 1 << 40;

/// Elements of a sparse tensor written out, for each that is stored, that a file may ask for without limit: a small file
/// must not fill the memory.
const MAX_DILUTION: usize = 1000;

const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;
/// Two elements a byte, the first in its lower half; read as elements of a byte each.
const UINT4: i32 = 21;
const INT4: i32 = 22;

/// The element type with this ONNX number, or why there is none.
pub(crate) fn dtype(number: i32) -> Result<DType, String> {
    let found = TYPES.iter().find(|(n, _)| *n == number).map(|(_, t)| *t);
    found.ok_or_else(|| {
        let name = match number {
            0 => "undefined".to_string(),
            8 => "string".into(),
            FLOAT16 => "float16".into(),
            BFLOAT16 => "bfloat16".into(),
            14 | 15 => "complex".into(),
            17..=20 => "float8".into(),
            UINT4 => "uint4".into(),
            INT4 => "int4".into(),
            other => format!("number {other}"),
        };
        format!("element type {name} is not supported (known: f32, f64, 8 to 64-bit integers, bool)")
    })
}

/// Whether tensors of the element type with this ONNX number are read.
pub(super) fn is_read(number: i32) -> bool {
    dtype(number).is_ok() || matches!(number, FLOAT16 | BFLOAT16 | UINT4 | INT4)
}

/// Bytes of an element as files store it.
pub(super) fn stored_size(number: i32) -> Result<usize, String> {
    if matches!(number, FLOAT16 | BFLOAT16) { Ok(2) } else { Ok(dtype(number)?.size()) }
}

/// The ONNX number of an element type.
pub(crate) fn number(dtype: DType) -> i32 {
    TYPES.iter().find(|(_, t)| *t == dtype).map_or(0, |(n, _)| *n)
}

/// The shape of a tensor, checked against the limits.
pub(super) fn shape(dims: &[i64], limits: &Limits) -> Result<Vec<usize>, String> {
    if dims.len() > MAX_RANK {
        return Err(format!("it has {} axes, more than {MAX_RANK}", dims.len()));
    }
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| format!("shape {dims:?} has a negative extent"))?;
    // Of an empty tensor the other extents count too: strides are products of them.
    let spread: Vec<usize> = shape.iter().map(|&n| n.max(1)).collect();
    match (element_count(&shape), element_count(&spread)) {
        (Some(n), Some(spread)) if n <= limits.max_tensor_elements && spread <= MAX_SPREAD => Ok(shape),
        _ => Err(format!("shape {dims:?} has more than {} elements", limits.max_tensor_elements)),
    }
}

/// Reads a tensor. Half-precision floats become f32, exactly. `folder` is where files it refers to must be.
pub(crate) fn decode(proto: &TensorProto, folder: Option<&Path>, limits: &Limits) -> Result<Tensor, String> {
    let shape = shape(&proto.dims, limits)?;
    let count = element_count(&shape).unwrap_or(0);
    if proto.data_location == EXTERNAL {
        let bytes = external::read(proto, count, folder)?;
        return from_bytes(proto.data_type, shape, count, &bytes);
    }
    if matches!(proto.data_type, UINT4 | INT4) {
        let whole = proto.int32_data.iter().map(|&x| x as u8).collect();
        let bytes = if proto.raw_data.is_empty() { whole } else { proto.raw_data.clone() };
        return quarters(proto.data_type, shape, count, &bytes);
    }
    if !matches!(proto.data_type, FLOAT16 | BFLOAT16) {
        dtype(proto.data_type)?;
    }
    if !proto.raw_data.is_empty() {
        return from_bytes(proto.data_type, shape, count, &proto.raw_data);
    }
    let ints =
        |dtype| Tensor::from_i64(dtype, shape.clone(), proto.int32_data.iter().map(|&x| x.into()).collect());
    let length = match proto.data_type {
        1 => proto.float_data.len(),
        7 => proto.int64_data.len(),
        11 => proto.double_data.len(),
        12 | 13 => proto.uint64_data.len(),
        _ => proto.int32_data.len(),
    };
    if length != count {
        return Err(format!("shape {shape:?} needs {count} elements, the file has {length}"));
    }
    Ok(match proto.data_type {
        1 => Tensor::f32(shape, proto.float_data.clone()),
        7 => Tensor::i64(shape, proto.int64_data.clone()),
        11 => Tensor::f64(shape, proto.double_data.clone()),
        12 | 13 => {
            let values = proto.uint64_data.iter().map(|&x| x as i64).collect();
            Tensor::from_i64(dtype(proto.data_type)?, shape, values)
        }
        FLOAT16 => Tensor::f32(shape, proto.int32_data.iter().map(|&x| half(x as u16)).collect()),
        BFLOAT16 => Tensor::f32(shape, proto.int32_data.iter().map(|&x| brain(x as u16)).collect()),
        other => ints(dtype(other)?),
    })
}

/// Reads a tensor written on its own, as the ONNX test data are (`input_0.pb`).
pub fn decode_tensor(bytes: &[u8], limits: &Limits) -> Result<Tensor, OnnxError> {
    let proto = TensorProto::decode(bytes).map_err(|e| OnnxError::Malformed(e.to_string()))?;
    decode(&proto, None, limits).map_err(OnnxError::Malformed)
}

/// A tensor from little-endian bytes.
fn from_bytes(data_type: i32, shape: Vec<usize>, count: usize, bytes: &[u8]) -> Result<Tensor, String> {
    let size = if matches!(data_type, FLOAT16 | BFLOAT16) { 2 } else { dtype(data_type)?.size() };
    if Some(bytes.len()) != count.checked_mul(size) {
        return Err(format!(
            "shape {shape:?} needs {count} elements of {size} bytes, the file has {} bytes",
            bytes.len()
        ));
    }
    let halves = || bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let made = match data_type {
        FLOAT16 => Tensor::new(shape, Data::F32(halves().map(half).collect())),
        BFLOAT16 => Tensor::new(shape, Data::F32(halves().map(brain).collect())),
        other => Tensor::from_le_bytes(dtype(other)?, shape, bytes),
    };
    made.ok_or_else(|| "the number of elements does not match the shape".into())
}

/// Integers of 4 bits as integers of 8.
fn quarters(data_type: i32, shape: Vec<usize>, count: usize, bytes: &[u8]) -> Result<Tensor, String> {
    if bytes.len() != count.div_ceil(2) {
        let found = bytes.len();
        return Err(format!("shape {shape:?} needs {count} elements of 4 bits, the file has {found} bytes"));
    }
    let halves = bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(count);
    Ok(match data_type {
        INT4 => {
            let signed = |h: u8| if h > 7 { i64::from(h) - 16 } else { i64::from(h) };
            Tensor::from_i64(DType::I8, shape, halves.map(signed).collect())
        }
        _ => Tensor::from_i64(DType::U8, shape, halves.map(i64::from).collect()),
    })
}

/// IEEE 754 half precision to single, exact.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        e => sign * (1.0 + fraction / 1024.0) * 2f32.powi(e - 15),
    }
}

/// bfloat16 to single: the upper half of its bits.
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Whether a sparse tensor may be written out: what goes beyond [`MAX_DILUTION`] is taken from `budget`.
pub(super) fn check_dilution(elements: usize, stored: usize, budget: &mut usize) -> Result<(), String> {
    let beyond = elements.saturating_sub(MAX_DILUTION.saturating_mul(stored + 64));
    if beyond > *budget {
        return Err(format!("{stored} of {elements} elements are stored: too sparse to write out"));
    }
    *budget -= beyond;
    Ok(())
}

/// Reads a sparse tensor as a dense one; indices are linear or one row of coordinates an element. What is very sparse
/// takes from `budget`, in elements.
pub(crate) fn decode_sparse(
    proto: &SparseTensorProto,
    folder: Option<&Path>,
    limits: &Limits,
    budget: &mut usize,
) -> Result<(String, Tensor), String> {
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err("sparse tensor without values or indices".into());
    };
    let shape = shape(&proto.dims, limits)?;
    let dense = element_count(&shape).unwrap_or(0);
    let elements = decode(values, folder, limits)?;
    check_dilution(dense, elements.len(), budget)?;
    let positions = decode(indices, folder, limits)?;
    let coordinates = positions.to_i64();
    let strides = crate::tensor::strides(&shape);
    let linear: Vec<usize> = match positions.shape() {
        [n] if *n == elements.len() => coordinates.iter().map(|&i| i as usize).collect(),
        [n, rank] if *n == elements.len() && *rank == shape.len() => {
            let inside = |row: &[i64]| row.iter().zip(&shape).all(|(&i, &n)| i >= 0 && (i as usize) < n);
            let at = |row: &[i64]| -> usize { row.iter().zip(&strides).map(|(&i, s)| i as usize * s).sum() };
            coordinates.chunks((*rank).max(1)).map(|r| if inside(r) { at(r) } else { usize::MAX }).collect()
        }
        other => return Err(format!("sparse indices of shape {other:?} for {} values", elements.len())),
    };
    let mut source = vec![None; dense];
    for (element, position) in linear.into_iter().enumerate() {
        let slot = source.get_mut(position).ok_or("a sparse index lies outside the tensor")?;
        *slot = Some(element);
    }
    Ok((values.name.clone(), elements.take(shape, &source)))
}

/// Writes a tensor, its elements as raw little-endian bytes.
pub(crate) fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape().iter().map(|&n| n as i64).collect(),
        data_type: number(tensor.dtype()),
        name: name.to_string(),
        raw_data: tensor.to_le_bytes(),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_four_bits_are_read_two_a_byte() {
        let read = |data_type| {
            let proto = TensorProto {
                dims: vec![3],
                data_type,
                raw_data: vec![0x87, 0x0f],
                ..TensorProto::default()
            };
            decode(&proto, None, &Limits::default()).unwrap()
        };
        assert_eq!(read(INT4), Tensor::from_i64(DType::I8, [3], vec![7, -8, -1]));
        assert_eq!(read(UINT4), Tensor::from_i64(DType::U8, [3], vec![7, 8, 15]));
    }

    #[test]
    fn element_types_that_are_not_read_are_named() {
        let proto = TensorProto { dims: vec![2], data_type: 8, ..TensorProto::default() };
        assert!(decode(&proto, None, &Limits::default()).unwrap_err().contains("string"));
    }

    #[test]
    fn half_precision_is_exact() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
        assert_eq!(brain(0x3fc0), 1.5);
    }

    #[test]
    fn sizes_that_lie_are_refused_before_allocating() {
        let limits = Limits::default();
        let huge = TensorProto { dims: vec![1 << 40, 1 << 20], data_type: 1, ..TensorProto::default() };
        assert!(decode(&huge, None, &limits).unwrap_err().contains("elements"));
        let short =
            TensorProto { dims: vec![4], data_type: 1, raw_data: vec![0; 15], ..TensorProto::default() };
        assert!(decode(&short, None, &limits).unwrap_err().contains("15 bytes"));
        let negative = TensorProto { dims: vec![-1], data_type: 1, ..TensorProto::default() };
        assert!(decode(&negative, None, &limits).unwrap_err().contains("negative"));
    }

    #[test]
    fn external_data_must_lie_below_the_model() {
        let entry = |key: &str, value: &str| super::super::proto::StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        for location in ["../secret", "/etc/passwd", "a/../../b"] {
            let proto = TensorProto {
                dims: vec![1],
                data_type: 1,
                data_location: EXTERNAL,
                external_data: vec![entry("location", location)],
                ..TensorProto::default()
            };
            let error = decode(&proto, Some(Path::new(".")), &Limits::default()).unwrap_err();
            assert!(error.contains("outside"), "{location}: {error}");
        }
    }

    #[test]
    fn a_sparse_tensor_reads_as_dense_in_both_forms() {
        let values = encode("w", &Tensor::f32([2], vec![5.0, 7.0]));
        for indices in [Tensor::i64([2], vec![1, 3]), Tensor::i64([2, 2], vec![0, 1, 1, 1])] {
            let proto = SparseTensorProto {
                values: Some(values.clone()),
                indices: Some(encode("", &indices)),
                dims: vec![2, 2],
            };
            let (name, dense) = decode_sparse(&proto, None, &Limits::default(), &mut 0).unwrap();
            assert_eq!((name.as_str(), dense.as_f32().unwrap()), ("w", &[0.0, 5.0, 0.0, 7.0][..]));
        }
    }
}
