//! NumPy's `.npy` arrays (NEP 1, format versions 1 to 3). Pickled objects are refused, never run.

use std::io::{self, Write};
use std::path::Path;

use wattle_graph::{DType, Data, Tensor};

use crate::bounded;
use crate::error::{Error, Result};

/// What every file begins with.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

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
    parse_stored(path, bytes.to_vec())?.into_array(path)
}

/// Reads a file as a tensor of its own type; halves become f32, column-major arrays are turned.
///
/// # Errors
/// When it cannot be read, is no plain file, or is not a whole array of numbers.
pub fn read_tensor(path: &Path) -> Result<Tensor> {
    let Stored { dtype, shape, bytes } = parse_stored(path, bounded::read(path)?)?;
    macro_rules! tensor {
        ($($kind:ident: $t:ty),*) => {
            match dtype {
                DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
                $(DType::$kind => {
                    Data::$kind(bytes.as_chunks().0.iter().map(|b| <$t>::from_ne_bytes(*b)).collect())
                })*
            }
        };
    }
    let data = tensor!(
        F32: f32, F64: f64, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64
    );
    Tensor::new(shape, data)
        .ok_or_else(|| told(path, ("a shape that its elements do not fill".into(), WRITE_AGAIN)))
}

/// Writes a tensor as NumPy does: format version 1, little-endian, row-major.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_tensor(out: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let dtype = tensor.dtype();
    let kind = match dtype {
        DType::Bool => 'b',
        _ if dtype.is_float() => 'f',
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => 'u',
        _ => 'i',
    };
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let shape: String = tensor.shape().iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!(
        "{{'descr': '{order}{kind}{}', 'fortran_order': False, 'shape': ({}), }}",
        dtype.size(),
        if tensor.shape().len() == 1 { shape.trim_end() } else { shape.trim_end_matches(", ") }
    );
    // The elements begin at a multiple of 64 bytes; a line break ends the header.
    let before = MAGIC.len() + 4;
    let padding = (before + header.len() + 1).next_multiple_of(64) - (before + header.len() + 1);
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(&tensor.to_le_bytes())
}

/// An array of any number type, row-major, in this machine's byte order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Takes the bytes of one `.npy` file without widening anything but halves, which become f32. What is stored as this
/// machine would store it is not copied: arrays may be half as large as the memory.
pub(crate) fn parse_stored(path: &Path, mut bytes: Vec<u8>) -> Result<Stored> {
    let read = || {
        let header = Header::parse(&bytes)?;
        let elements = header.elements()?;
        let data = &bytes[header.start..];
        if elements.checked_mul(header.element.size()) != Some(data.len()) {
            return Err((format!("{} bytes of data, which do not fill its shape", data.len()), WRITE_AGAIN));
        }
        if header.element.is_native() && !header.fortran {
            bytes.drain(..header.start);
            return Ok(Stored { dtype: header.element.dtype, shape: header.shape, bytes });
        }
        let mut native = vec![0; elements * header.element.dtype.size()];
        if header.fortran {
            header.element.decode(&row_major(data, &header.shape, header.element.size()), &mut native);
        } else {
            header.element.decode(data, &mut native);
        }
        Ok(Stored { dtype: header.element.dtype, shape: header.shape, bytes: native })
    };
    read().map_err(|fault| told(path, fault))
}

fn told(path: &Path, (found, remedy): Fault) -> Error {
    Error::input(path.display(), found).expected("a complete .npy array of numbers").remedy(remedy)
}

impl Stored {
    /// The array as the kinds that training tells apart.
    pub(crate) fn into_array(self, path: &Path) -> Result<Array> {
        let values = self.widened().map_err(|fault| told(path, fault))?;
        Ok(Array { shape: self.shape, values })
    }

    fn widened(&self) -> std::result::Result<Values, Fault> {
        let elements = self.bytes.len() / self.dtype.size();
        let widened = elements as u64 * if self.dtype.is_float() { 4 } else { 8 };
        if self.dtype != DType::U8 && widened > bounded::MAX_BYTES {
            let found = format!("{elements} elements, which take {widened} bytes as they are trained on");
            return Err((found, "split the array, or name it as a column, which is read as it is"));
        }
        macro_rules! integers {
            ($t:ty) => {
                Ok(Values::Integers(
                    self.bytes.as_chunks().0.iter().map(|b| i64::from(<$t>::from_ne_bytes(*b))).collect(),
                ))
            };
        }
        match self.dtype {
            DType::U8 => Ok(Values::Bytes(self.bytes.clone())),
            // They are numbers, no shades of gray.
            DType::Bool => Ok(Values::Integers(self.bytes.iter().map(|&b| i64::from(b != 0)).collect())),
            DType::I8 => integers!(i8),
            DType::I16 => integers!(i16),
            DType::I32 => integers!(i32),
            DType::I64 => integers!(i64),
            DType::U16 => integers!(u16),
            DType::U32 => integers!(u32),
            DType::U64 => {
                let values = self.bytes.as_chunks().0.iter().map(|b| i64::try_from(u64::from_ne_bytes(*b)));
                let values: std::result::Result<Vec<i64>, _> = values.collect();
                values
                    .map(Values::Integers)
                    .map_err(|_| ("an integer above 2^63 - 1".into(), "rescale the array"))
            }
            DType::F32 => {
                Ok(Values::Floats(self.bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()))
            }
            DType::F64 => Ok(Values::Floats(
                self.bytes.as_chunks().0.iter().map(|b| f64::from_ne_bytes(*b) as f32).collect(),
            )),
        }
    }
}

/// What went wrong, and what to do.
pub(crate) type Fault = (String, &'static str);

const WRITE_AGAIN: &str = "write it again with numpy.save";

/// The longest header that is read: NumPy itself writes a few hundred bytes for arrays of numbers.
pub(crate) const LONGEST_HEADER: usize = 1 << 16;

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The type it is read as.
    pub(crate) dtype: DType,
    half: bool,
    swapped: bool,
}

impl Element {
    /// Reads NumPy's name of a type: `<f4`, `|u1`, `>i2`.
    pub(crate) fn parse(descr: &str) -> std::result::Result<Self, Fault> {
        let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
        let dtype = match kind {
            "b1" => DType::Bool,
            "u1" => DType::U8,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "f2" | "f4" => DType::F32,
            "f8" => DType::F64,
            _ if descr.contains('O') => {
                return Err((
                    "pickled Python objects, which could run any program".into(),
                    "save a plain array of numbers: array.astype('float32')",
                ));
            }
            _ => {
                let shown: String = descr.chars().take(40).collect();
                return Err((
                    format!("elements of type `{shown}`"),
                    "convert it with array.astype('float32') or 'int64'",
                ));
            }
        };
        let swapped = match order {
            ">" => cfg!(target_endian = "little"),
            "<" => cfg!(target_endian = "big"),
            _ => false,
        };
        Ok(Self { dtype, half: kind == "f2", swapped })
    }

    /// Bytes of an element in the file.
    pub(crate) fn size(self) -> usize {
        if self.half { 2 } else { self.dtype.size() }
    }

    /// Whether the file's bytes are this machine's.
    pub(crate) fn is_native(self) -> bool {
        !self.half && (!self.swapped || self.size() == 1)
    }

    /// Turns stored elements into this machine's, as many as `out` takes.
    pub(crate) fn decode(self, stored: &[u8], out: &mut [u8]) {
        if self.is_native() {
            out.copy_from_slice(stored);
            return;
        }
        if self.half {
            for (from, to) in stored.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<4>().0) {
                let bits = u16::from_ne_bytes(*from);
                *to = half_to_f32(if self.swapped { bits.swap_bytes() } else { bits }).to_ne_bytes();
            }
            return;
        }
        let size = self.size();
        for (from, to) in stored.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
            to.copy_from_slice(from);
            to.reverse();
        }
    }
}

/// What stands before an array's elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    /// Whether the first axis is the one that moves fastest.
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<usize>,
    /// Where the elements begin, bytes from the start of the file.
    pub(crate) start: usize,
}

impl Header {
    /// Reads the header at the start of a file, of which `bytes` may be only the beginning. Linear in its length.
    pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<Self, Fault> {
        let fault = |found: &str| (found.to_owned(), WRITE_AGAIN);
        let (start, length) = match bytes.strip_prefix(MAGIC) {
            Some(&[1, _, a, b, ..]) => (10, usize::from(u16::from_le_bytes([a, b]))),
            Some(&[2 | 3, _, a, b, c, d, ..]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            _ => return Err(fault("no .npy header")),
        };
        if length > LONGEST_HEADER {
            return Err(fault("a header of more than 65536 bytes"));
        }
        let header = bytes.get(start..start + length).ok_or_else(|| fault("no complete .npy header"))?;
        let header = std::str::from_utf8(header).map_err(|_| fault("a header that is not text"))?;
        let descr = header_value(header, "descr").ok_or_else(|| fault("a header without `descr`"))?;
        let order =
            header_value(header, "fortran_order").ok_or_else(|| fault("a header without `fortran_order`"))?;
        let shape = header_value(header, "shape").ok_or_else(|| fault("a header without `shape`"))?;
        let shape = parse_shape(shape).ok_or_else(|| fault("a shape that cannot be read"))?;
        let descr = match descr.strip_prefix(['\'', '"']) {
            Some(rest) => rest.split(['\'', '"']).next().unwrap_or_default(),
            None => return Err(Element::parse("V").err().unwrap_or_else(|| fault("records"))),
        };
        let fortran = order.starts_with("True") && shape.len() > 1;
        Ok(Self { element: Element::parse(descr)?, fortran, shape, start: start + length })
    }

    /// The number of elements.
    pub(crate) fn elements(&self) -> std::result::Result<usize, Fault> {
        let product = self.shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        product.ok_or_else(|| ("a shape with too many elements".into(), WRITE_AGAIN))
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
    let mut extents: Vec<&str> = inside.split(',').take(34).map(str::trim).collect();
    if extents.last() == Some(&"") {
        extents.pop();
    }
    if extents.len() > 32 {
        return None;
    }
    extents.into_iter().map(|extent| extent.parse().ok()).collect()
}

/// The elements of an array whose first axis moves fastest, in the order in which its last axis does.
fn row_major(stored: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = size;
    for extent in shape {
        strides.push(stride);
        stride *= extent;
    }
    let mut out = Vec::with_capacity(stored.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..stored.len() / size {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&stored[at..at + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
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
pub(crate) fn encode(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
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
    fn what_is_written_is_what_numpy_writes() {
        let written = |tensor: &Tensor| {
            let mut out = vec![];
            write_tensor(&mut out, tensor).unwrap();
            out
        };
        // numpy.save of numpy.array([1.5, -2.0], dtype='<f4')
        let one = written(&Tensor::f32([2], vec![1.5, -2.0]));
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let expected = [&MAGIC[..], &[1, 0, 118, 0], header.as_bytes()].concat();
        assert_eq!(one[..expected.len()], expected);
        assert_eq!(one[127..], [&b"\n"[..], &1.5f32.to_le_bytes(), &(-2f32).to_le_bytes()].concat());
        for shape in [vec![], vec![3], vec![0, 2], vec![2, 1, 3]] {
            for dtype in [DType::Bool, DType::I8, DType::U16, DType::I32, DType::U64, DType::F64] {
                let tensor = Tensor::zeros(dtype, shape.clone());
                let file = written(&tensor);
                assert_eq!((file.len() - tensor.len() * dtype.size()) % 64, 0);
                let read = parse_stored(Path::new("x"), file).unwrap();
                assert_eq!((read.dtype, &read.shape), (dtype, &shape));
            }
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (bytes, message) in [
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

    #[test]
    fn an_array_in_fortran_order_is_turned() {
        // numpy.asfortranarray([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])
        let stored = [1, 7, 3, 9, 5, 11, 2, 8, 4, 10, 6, 12];
        let text = encode("|u1", "(2, 3, 2)", &[]);
        let header = String::from_utf8_lossy(&text[10..]).replace("False", "True");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(stored);
        let array = parse(Path::new("x"), &bytes).unwrap();
        assert_eq!(array, Array { shape: vec![2, 3, 2], values: Values::Bytes((1..13).collect()) });
    }

    #[test]
    fn a_header_that_claims_much_costs_nothing() {
        let long = [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes(), b"{"].concat();
        assert!(parse(Path::new("x"), &long).unwrap_err().to_string().contains("65536"));
        let wide = encode("<f8", "(1000000000000,)", &[0; 8]);
        assert!(parse(Path::new("x"), &wide).unwrap_err().to_string().contains("8 bytes of data"));
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(at in 0usize..80, byte: u8, cut in 0usize..90) {
            let mut bytes = encode("<f4", "(2, 1)", &[0; 8]);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            let _ = parse(Path::new("x"), &bytes);
        }
    }
}
