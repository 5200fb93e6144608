//! NumPy's `.npy` arrays (NEP 1, format versions 1 to 3). Pickled objects are refused, never run.

use std::path::Path;

use crate::error::{Error, Result};

/// An array as it was stored, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Values,
}

/// Elements, widened to the kinds that training tells apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Unsigned bytes and truth values.
    Bytes(Vec<u8>),
    /// Every other integer type.
    Integers(Vec<i64>),
    /// Every floating-point type, rounded to 32 bits.
    Floats(Vec<f32>),
}

impl Array {
    /// The elements as 32-bit floats; bytes are not scaled.
    pub fn into_floats(self) -> Vec<f32> {
        match self.values {
            Values::Bytes(values) => values.into_iter().map(f32::from).collect(),
            Values::Integers(values) => values.into_iter().map(|v| v as f32).collect(),
            Values::Floats(values) => values,
        }
    }
}

/// Reads the bytes of one `.npy` file; `path` is for messages only.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Array> {
    parse_array(bytes).map_err(|(found, remedy)| {
        Error::input(path.display(), found)
            .expected("a complete .npy array of numbers in C order")
            .remedy(remedy)
    })
}

type Fault = (String, &'static str);

const WRITE_AGAIN: &str = "write it again with numpy.save";

fn parse_array(bytes: &[u8]) -> std::result::Result<Array, Fault> {
    let fault = |found: &str| (found.to_owned(), WRITE_AGAIN);
    let (header, data) = split_header(bytes).ok_or_else(|| fault("no .npy header"))?;
    let header = std::str::from_utf8(header).map_err(|_| fault("a header that is not text"))?;
    let descr = header_value(header, "descr").ok_or_else(|| fault("a header without `descr`"))?;
    let order =
        header_value(header, "fortran_order").ok_or_else(|| fault("a header without `fortran_order`"))?;
    let shape = header_value(header, "shape").ok_or_else(|| fault("a header without `shape`"))?;
    let shape = parse_shape(shape).ok_or_else(|| fault("a shape that cannot be read"))?;
    if order.starts_with("True") && shape.len() > 1 {
        return Err(("an array in Fortran order".into(), "save numpy.ascontiguousarray(array) instead"));
    }
    let descr = descr.strip_prefix(['\'', '"']).and_then(|rest| rest.get(..3)).unwrap_or("");
    let elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    let elements = elements.ok_or_else(|| fault("a shape with too many elements"))?;
    let values = convert(descr, elements, data)?;
    Ok(Array { shape, values })
}

fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    match *rest {
        [1, _, a, b, ..] => rest[4..].split_at_checked(usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => rest[6..].split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize),
        _ => None,
    }
}

/// The text after `'key':` in the header, which is a Python dictionary of known form.
fn header_value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let after = quoted.iter().find_map(|key| header.split_once(key.as_str()))?.1;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let mut extents: Vec<&str> = inside.split(',').map(str::trim).collect();
    if extents.last() == Some(&"") {
        extents.pop();
    }
    if extents.len() > 32 {
        return None;
    }
    extents.into_iter().map(|extent| extent.parse().ok()).collect()
}

fn convert(descr: &str, elements: usize, data: &[u8]) -> std::result::Result<Values, Fault> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    let big = order == ">";
    let reals = |values: Option<Vec<f32>>| values.map(Values::Floats);
    let integers = |values: Option<Vec<i64>>| values.map(Values::Integers);
    let values = match kind {
        "u1" | "b1" => decode(data, elements, big, |[b]: [u8; 1]| b).map(Values::Bytes),
        "i1" => integers(decode(data, elements, big, |b| i64::from(i8::from_le_bytes(b)))),
        "i2" => integers(decode(data, elements, big, |b| i64::from(i16::from_le_bytes(b)))),
        "i4" => integers(decode(data, elements, big, |b| i64::from(i32::from_le_bytes(b)))),
        "i8" => integers(decode(data, elements, big, i64::from_le_bytes)),
        "u2" => integers(decode(data, elements, big, |b| i64::from(u16::from_le_bytes(b)))),
        "u4" => integers(decode(data, elements, big, |b| i64::from(u32::from_le_bytes(b)))),
        "u8" => {
            let wide = decode(data, elements, big, u64::from_le_bytes);
            let narrow = |wide: Vec<u64>| {
                wide.into_iter().map(|v| i64::try_from(v).ok()).collect::<Option<Vec<i64>>>()
            };
            match wide.map(narrow) {
                Some(None) => return Err(("an integer above 2^63 - 1".into(), "rescale the array")),
                values => integers(values.flatten()),
            }
        }
        "f2" => reals(decode(data, elements, big, |b| half_to_f32(u16::from_le_bytes(b)))),
        "f4" => reals(decode(data, elements, big, f32::from_le_bytes)),
        "f8" => reals(decode(data, elements, big, |b| f64::from_le_bytes(b) as f32)),
        _ if descr.contains('O') => {
            return Err((
                "pickled Python objects, which could run any program".into(),
                "save a plain array of numbers: array.astype('float32')",
            ));
        }
        _ => {
            return Err((
                format!("elements of type `{descr}`"),
                "convert it with array.astype('float32') or 'int64'",
            ));
        }
    };
    let missing = || (format!("{} bytes of data, which do not fill its shape", data.len()), WRITE_AGAIN);
    values.ok_or_else(missing)
}

/// Decodes exactly `elements` elements of N bytes, or `None` if `data` is not that long.
fn decode<const N: usize, T>(
    data: &[u8],
    elements: usize,
    big_endian: bool,
    read: impl Fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    if elements.checked_mul(N) != Some(data.len()) {
        return None;
    }
    let element = |chunk: &[u8]| {
        let mut bytes = [0; N];
        bytes.copy_from_slice(chunk);
        if big_endian {
            bytes.reverse();
        }
        read(bytes)
    };
    Some(data.chunks_exact(N).map(element).collect())
}

/// IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// Encodes a little-endian array for tests here and in the npz module.
#[cfg(test)]
pub(super) fn encode(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_number_type_is_read() {
        for (descr, data, expected) in [
            ("|u1", vec![1, 255], Values::Bytes(vec![1, 255])),
            ("|i1", vec![1, 255], Values::Integers(vec![1, -1])),
            (">i2", vec![1, 0, 255, 255], Values::Integers(vec![256, -1])),
            ("<u4", vec![1, 0, 0, 0, 255, 255, 255, 255], Values::Integers(vec![1, 4294967295])),
            ("<f2", vec![0, 0x3c, 1, 0], Values::Floats(vec![1.0, 2f32.powi(-24)])),
            (">f4", [1.5f32.to_be_bytes(), (-2f32).to_be_bytes()].concat(), Values::Floats(vec![1.5, -2.0])),
            ("<f8", [1.5f64.to_le_bytes(), 0f64.to_le_bytes()].concat(), Values::Floats(vec![1.5, 0.0])),
        ] {
            let array = parse(Path::new("x"), &encode(descr, "(2,)", &data)).unwrap();
            assert_eq!(array, Array { shape: vec![2], values: expected }, "{descr}");
        }
        assert_eq!(parse(Path::new("x"), &encode("|u1", "()", &[3])).unwrap().shape, Vec::<usize>::new());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let fortran =
            String::from_utf8_lossy(&encode("|u1", "(1, 2)", &[0, 0])[10..]).replace("False", "True ");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(((fortran.len() - 2) as u16).to_le_bytes());
        bytes.extend(fortran.as_bytes());
        for (bytes, message) in [
            (bytes, "Fortran order"),
            (encode("|O", "(1,)", &[]), "pickled"),
            (encode("<c8", "(1,)", &[0; 8]), "`<c8`"),
            (encode("<f4", "(3,)", &[0; 8]), "8 bytes of data"),
            (encode("<f4", "(9999999999, 9999999999)", &[]), "too many elements"),
            (encode("<u8", "(1,)", &[255; 8]), "above 2^63"),
            (b"PK\x03\x04".to_vec(), "no .npy header"),
        ] {
            let error = parse(Path::new("x"), &bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(at in 0usize..80, byte: u8, cut in 0usize..90) {
            let mut bytes = encode("<f4", "(2, 1)", &[0; 8]);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            let _ = parse_array(&bytes);
        }
    }
}
