//! Dense tensors on the host: the values of constants, parameters and the reference interpreter.

use std::borrow::Cow;
use std::fmt;

/// Element types wattle computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Truth value, one byte each.
    Bool,
}

impl DType {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether this is a floating-point type, the only kind gradients flow through.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
        })
    }
}

/// The elements of a [`Tensor`], row-major.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the element types, documented at `DType`")]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Runs `$body` with `$v` bound to the typed vector, whatever its type.
macro_rules! each_type {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::I8($v) => $body,
            Data::I16($v) => $body,
            Data::I32($v) => $body,
            Data::I64($v) => $body,
            Data::U8($v) => $body,
            Data::U16($v) => $body,
            Data::U32($v) => $body,
            Data::U64($v) => $body,
            Data::Bool($v) => $body,
        }
    };
}

/// A dense row-major array. Invariant: `data` holds exactly the product of `shape` elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of the given shape; `None` when the number of elements does not match it.
    pub fn new(shape: Vec<usize>, data: Data) -> Option<Tensor> {
        let count = element_count(&shape)?;
        (each_type!(&data, v => v.len()) == count).then_some(Tensor { shape, data })
    }

    /// An f32 tensor.
    ///
    /// # Panics
    /// When the number of elements is not the product of `shape`; meant for data whose shape the caller made.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Tensor {
        Tensor::new(shape.into(), Data::F32(data)).expect("element count matches the shape")
    }

    /// An f64 tensor; panics like [`Tensor::f32`].
    pub fn f64(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Tensor {
        Tensor::new(shape.into(), Data::F64(data)).expect("element count matches the shape")
    }

    /// An i64 tensor; panics like [`Tensor::f32`].
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Tensor {
        Tensor::new(shape.into(), Data::I64(data)).expect("element count matches the shape")
    }

    /// A rank-1 i64 tensor, the form of ONNX shape and axes operands.
    pub fn ints(data: &[i64]) -> Tensor {
        Tensor::i64([data.len()], data.to_vec())
    }

    /// A rank-0 f32 tensor.
    pub fn scalar(value: f32) -> Tensor {
        Tensor::f32([], vec![value])
    }

    /// All zeros (or `false`).
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let n = shape.iter().product();
        let data = match dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F64 => Data::F64(vec![0.0; n]),
            DType::I8 => Data::I8(vec![0; n]),
            DType::I16 => Data::I16(vec![0; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::I64 => Data::I64(vec![0; n]),
            DType::U8 => Data::U8(vec![0; n]),
            DType::U16 => Data::U16(vec![0; n]),
            DType::U32 => Data::U32(vec![0; n]),
            DType::U64 => Data::U64(vec![0; n]),
            DType::Bool => Data::Bool(vec![false; n]),
        };
        Tensor { shape, data }
    }

    /// Rounds `values` to `dtype`: floats to nearest, integers by truncation and saturation, bool by `!= 0`.
    ///
    /// # Panics
    /// When the number of elements is not the product of `shape`.
    pub fn from_f64(dtype: DType, shape: impl Into<Vec<usize>>, values: Vec<f64>) -> Tensor {
        let data = match dtype {
            DType::F32 => Data::F32(values.into_iter().map(|x| x as f32).collect()),
            DType::F64 => Data::F64(values),
            DType::I8 => Data::I8(values.into_iter().map(|x| x as i8).collect()),
            DType::I16 => Data::I16(values.into_iter().map(|x| x as i16).collect()),
            DType::I32 => Data::I32(values.into_iter().map(|x| x as i32).collect()),
            DType::I64 => Data::I64(values.into_iter().map(|x| x as i64).collect()),
            DType::U8 => Data::U8(values.into_iter().map(|x| x as u8).collect()),
            DType::U16 => Data::U16(values.into_iter().map(|x| x as u16).collect()),
            DType::U32 => Data::U32(values.into_iter().map(|x| x as u32).collect()),
            DType::U64 => Data::U64(values.into_iter().map(|x| x as u64).collect()),
            DType::Bool => Data::Bool(values.into_iter().map(|x| x != 0.0).collect()),
        };
        Tensor::new(shape.into(), data).expect("element count matches the shape")
    }

    /// Converts integers to `dtype` by wrapping, as ONNX integer arithmetic does; floats to nearest.
    ///
    /// # Panics
    /// When the number of elements is not the product of `shape`.
    pub fn from_i64(dtype: DType, shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Tensor {
        let data = match dtype {
            DType::F32 => Data::F32(values.into_iter().map(|x| x as f32).collect()),
            DType::F64 => Data::F64(values.into_iter().map(|x| x as f64).collect()),
            DType::I8 => Data::I8(values.into_iter().map(|x| x as i8).collect()),
            DType::I16 => Data::I16(values.into_iter().map(|x| x as i16).collect()),
            DType::I32 => Data::I32(values.into_iter().map(|x| x as i32).collect()),
            DType::I64 => Data::I64(values),
            DType::U8 => Data::U8(values.into_iter().map(|x| x as u8).collect()),
            DType::U16 => Data::U16(values.into_iter().map(|x| x as u16).collect()),
            DType::U32 => Data::U32(values.into_iter().map(|x| x as u32).collect()),
            DType::U64 => Data::U64(values.into_iter().map(|x| x as u64).collect()),
            DType::Bool => Data::Bool(values.into_iter().map(|x| x != 0).collect()),
        };
        Tensor::new(shape.into(), data).expect("element count matches the shape")
    }

    /// A tensor from the bytes of its elements, little-endian; any byte but 0 is `true`. `None` when they are not as
    /// many as `shape` needs.
    pub fn from_le_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Option<Tensor> {
        if !bytes.len().is_multiple_of(dtype.size()) {
            return None;
        }
        macro_rules! read {
            ($t:ty) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|c| <$t>::from_le_bytes(c.try_into().unwrap_or_default()))
                    .collect()
            };
        }
        let data = match dtype {
            DType::F32 => Data::F32(read!(f32)),
            DType::F64 => Data::F64(read!(f64)),
            DType::I8 => Data::I8(bytes.iter().map(|&b| b as i8).collect()),
            DType::I16 => Data::I16(read!(i16)),
            DType::I32 => Data::I32(read!(i32)),
            DType::I64 => Data::I64(read!(i64)),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::U16 => Data::U16(read!(u16)),
            DType::U32 => Data::U32(read!(u32)),
            DType::U64 => Data::U64(read!(u64)),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Tensor::new(shape.into(), data)
    }

    /// The bytes of the elements, little-endian; a truth value is one byte, 0 or 1.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        macro_rules! raw {
            ($v:expr) => {
                $v.iter().flat_map(|x| x.to_le_bytes()).collect()
            };
        }
        match &self.data {
            Data::F32(v) => raw!(v),
            Data::F64(v) => raw!(v),
            Data::I8(v) => raw!(v),
            Data::I16(v) => raw!(v),
            Data::I32(v) => raw!(v),
            Data::I64(v) => raw!(v),
            Data::U8(v) => v.clone(),
            Data::U16(v) => raw!(v),
            Data::U32(v) => raw!(v),
            Data::U64(v) => raw!(v),
            Data::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
        }
    }

    /// Extents of each axis; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, row-major, for writing in place.
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I8(_) => DType::I8,
            Data::I16(_) => DType::I16,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::U8(_) => DType::U8,
            Data::U16(_) => DType::U16,
            Data::U32(_) => DType::U32,
            Data::U64(_) => DType::U64,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each_type!(&self.data, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f32, if that is their type.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements as f64, exact for every type but large 64-bit integers.
    pub fn to_f64(&self) -> Cow<'_, [f64]> {
        match &self.data {
            Data::F64(v) => Cow::Borrowed(v),
            Data::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I8(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I16(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U8(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U16(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| x as u8 as f64).collect(),
        }
    }

    /// The elements as i64: exact for integers and bools (u64 wraps), truncated for floats.
    pub fn to_i64(&self) -> Cow<'_, [i64]> {
        match &self.data {
            Data::I64(v) => Cow::Borrowed(v),
            Data::F32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::F64(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I8(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I16(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U8(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U16(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::U64(v) => v.iter().map(|&x| x as i64).collect(),
            Data::Bool(v) => v.iter().map(|&x| x as i64).collect(),
        }
    }

    /// The same elements under another shape of equal size; `None` when the sizes differ.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Option<Tensor> {
        Tensor::new(shape.into(), self.data)
    }

    /// A tensor of `shape` whose element `i` is element `source[i]` of this one, or zero where that is `None`.
    ///
    /// All data-movement operators (transpose, slice, gather, pad, ...) are this with their own index map.
    ///
    /// # Panics
    /// When `source` has not one entry per element of `shape` or points outside this tensor.
    pub fn take(&self, shape: impl Into<Vec<usize>>, source: &[Option<usize>]) -> Tensor {
        fn pick<T: Copy + Default>(v: &[T], source: &[Option<usize>]) -> Vec<T> {
            source.iter().map(|s| s.map_or(T::default(), |i| v[i])).collect()
        }
        let data = match &self.data {
            Data::F32(v) => Data::F32(pick(v, source)),
            Data::F64(v) => Data::F64(pick(v, source)),
            Data::I8(v) => Data::I8(pick(v, source)),
            Data::I16(v) => Data::I16(pick(v, source)),
            Data::I32(v) => Data::I32(pick(v, source)),
            Data::I64(v) => Data::I64(pick(v, source)),
            Data::U8(v) => Data::U8(pick(v, source)),
            Data::U16(v) => Data::U16(pick(v, source)),
            Data::U32(v) => Data::U32(pick(v, source)),
            Data::U64(v) => Data::U64(pick(v, source)),
            Data::Bool(v) => Data::Bool(pick(v, source)),
        };
        Tensor::new(shape.into(), data).expect("one source entry per element")
    }

    /// Replaces element `positions[i]` by element `i` of `values`.
    ///
    /// # Panics
    /// When a position lies outside, there are fewer values than positions, or their element type is another.
    pub fn put(&mut self, positions: &[usize], values: &Tensor) {
        fn set<T: Copy>(to: &mut [T], positions: &[usize], from: &[T]) {
            positions.iter().enumerate().for_each(|(i, &at)| to[at] = from[i]);
        }
        match (&mut self.data, &values.data) {
            (Data::F32(to), Data::F32(from)) => set(to, positions, from),
            (Data::F64(to), Data::F64(from)) => set(to, positions, from),
            (Data::I8(to), Data::I8(from)) => set(to, positions, from),
            (Data::I16(to), Data::I16(from)) => set(to, positions, from),
            (Data::I32(to), Data::I32(from)) => set(to, positions, from),
            (Data::I64(to), Data::I64(from)) => set(to, positions, from),
            (Data::U8(to), Data::U8(from)) => set(to, positions, from),
            (Data::U16(to), Data::U16(from)) => set(to, positions, from),
            (Data::U32(to), Data::U32(from)) => set(to, positions, from),
            (Data::U64(to), Data::U64(from)) => set(to, positions, from),
            (Data::Bool(to), Data::Bool(from)) => set(to, positions, from),
            _ => panic!("{} elements put into a tensor of {}", values.dtype(), self.dtype()),
        }
    }

    /// A tensor of `shape` that repeats the only element of this one.
    ///
    /// # Panics
    /// When this tensor has not one element, or `shape` more than can be counted.
    pub fn filling(&self, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        assert_eq!(self.len(), 1, "one element fills a tensor");
        let count = element_count(&shape).expect("a number of elements");
        let data = match &self.data {
            Data::F32(v) => Data::F32(vec![v[0]; count]),
            Data::F64(v) => Data::F64(vec![v[0]; count]),
            Data::I8(v) => Data::I8(vec![v[0]; count]),
            Data::I16(v) => Data::I16(vec![v[0]; count]),
            Data::I32(v) => Data::I32(vec![v[0]; count]),
            Data::I64(v) => Data::I64(vec![v[0]; count]),
            Data::U8(v) => Data::U8(vec![v[0]; count]),
            Data::U16(v) => Data::U16(vec![v[0]; count]),
            Data::U32(v) => Data::U32(vec![v[0]; count]),
            Data::U64(v) => Data::U64(vec![v[0]; count]),
            Data::Bool(v) => Data::Bool(vec![v[0]; count]),
        };
        Tensor { shape, data }
    }

    /// Converts to another element type: to floats exactly or to nearest, to integers by truncation
    /// (from floats) or wrapping (from integers), to bool by `!= 0`. ONNX `Cast` semantics.
    pub fn cast(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype() {
            self.clone()
        } else if self.dtype().is_float() {
            // Out-of-range floats saturate here; ONNX leaves them undefined.
            Tensor::from_f64(dtype, self.shape.clone(), self.to_f64().into_owned())
        } else {
            Tensor::from_i64(dtype, self.shape.clone(), self.to_i64().into_owned())
        }
    }

    /// Fraction of elements that are not exactly zero, in 0..=1; 1 for an empty tensor.
    pub fn density(&self) -> f64 {
        if self.is_empty() {
            return 1.0;
        }
        let nonzero = match &self.data {
            Data::F32(v) => v.iter().filter(|&&x| x != 0.0).count(),
            _ => self.to_f64().iter().filter(|&&x| x != 0.0).count(),
        };
        nonzero as f64 / self.len() as f64
    }
}

/// Product of `shape`, or `None` on overflow.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Row-major strides of `shape`, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Calls `visit` with every index of `shape`, row-major.
pub fn each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        visit(&index);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_refuses_a_shape_that_does_not_fit() {
        assert!(Tensor::new(vec![2, 3], Data::F32(vec![0.0; 5])).is_none());
        assert!(Tensor::new(vec![usize::MAX, 2], Data::F32(vec![])).is_none());
    }

    #[test]
    fn take_moves_any_type_and_fills_gaps_with_zero() {
        let t = Tensor::i64([3], vec![7, 8, 9]);
        assert_eq!(t.take([2, 2], &[Some(2), None, Some(0), Some(0)]).to_i64().as_ref(), &[9, 0, 7, 7]);
    }

    #[test]
    fn integer_casts_wrap_and_float_casts_saturate() {
        assert_eq!(Tensor::ints(&[300]).cast(DType::U8).to_i64()[0], 44);
        assert_eq!(Tensor::scalar(300.0).cast(DType::U8).to_i64()[0], 255);
    }

    #[test]
    fn each_index_visits_a_scalar_once_and_an_empty_shape_never() {
        let count = |shape: &[usize]| {
            let mut n = 0;
            each_index(shape, |_| n += 1);
            n
        };
        assert_eq!((count(&[]), count(&[2, 3]), count(&[2, 0])), (1, 6, 0));
    }
}
