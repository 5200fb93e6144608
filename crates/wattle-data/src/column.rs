//! What a batch is made of: named columns of numbers, the batch axis first.

use wattle_graph::DType;

/// What one sample has in one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// The column's name: a model's input, or a target.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// The extents of one sample, without the batch axis; empty for a single number.
    pub extents: Vec<usize>,
}

impl ColumnInfo {
    /// A column of this name, type and extents of one sample.
    pub fn new(name: impl Into<String>, dtype: DType, extents: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, extents: extents.into() }
    }

    /// Numbers in one sample.
    pub fn elements(&self) -> usize {
        self.extents.iter().product()
    }

    /// Bytes in one sample.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// One column of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Extents, the batch first.
    pub extents: Vec<usize>,
    /// The elements, row-major, in the byte order of this machine: what a session's port takes.
    pub bytes: Vec<u8>,
}

impl Column {
    /// The elements as numbers of double precision. Integers beyond 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        macro_rules! each {
            ($($dtype:ident: $t:ty),*) => {
                match self.dtype {
                    $(DType::$dtype => elements(&self.bytes, |b| <$t>::from_ne_bytes(b) as f64),)*
                    DType::Bool => self.bytes.iter().map(|&b| f64::from(b != 0)).collect(),
                }
            };
        }
        each!(F32: f32, F64: f64, I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64)
    }

    /// The elements of a column of `f32`; `None` for any other type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.dtype == DType::F32).then(|| elements(&self.bytes, f32::from_ne_bytes))
    }

    /// The elements of a column of integers or truth values; `None` for floats, and for a number above 2^63 - 1.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        macro_rules! each {
            ($($dtype:ident: $t:ty),*) => {
                match self.dtype {
                    $(DType::$dtype => Some(elements(&self.bytes, |b| i64::from(<$t>::from_ne_bytes(b)))),)*
                    DType::U64 => elements(&self.bytes, u64::from_ne_bytes)
                        .into_iter()
                        .map(|v| i64::try_from(v).ok())
                        .collect(),
                    DType::Bool => Some(self.bytes.iter().map(|&b| i64::from(b != 0)).collect()),
                    DType::F32 | DType::F64 => None,
                }
            };
        }
        each!(I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32)
    }
}

/// Some samples, side by side in every column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The step it belongs to, counted from 0 over the whole run.
    pub step: u64,
    /// The epoch it belongs to, counted from 0.
    pub epoch: u64,
    /// The columns, in the order of [`Source::columns`](crate::Source::columns).
    pub columns: Vec<Column>,
    /// How many of its samples are real; those after them are padding.
    pub real: usize,
}

impl Batch {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Gives the batch these columns for `count` samples each. Memory that is there is used again; what the bytes hold
    /// afterwards is for the caller to say.
    pub fn shape_as(&mut self, columns: &[ColumnInfo], count: usize) {
        self.columns.truncate(columns.len());
        for (place, info) in columns.iter().enumerate() {
            if place == self.columns.len() {
                let (name, extents) = (info.name.clone(), Vec::new());
                self.columns.push(Column { name, dtype: info.dtype, extents, bytes: Vec::new() });
            }
            let column = &mut self.columns[place];
            if column.name != info.name {
                column.name.clone_from(&info.name);
            }
            column.dtype = info.dtype;
            column.extents.clear();
            column.extents.push(count);
            column.extents.extend_from_slice(&info.extents);
            column.bytes.resize(count * info.bytes(), 0);
        }
    }
}

fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_as_they_were_written() {
        let column = |dtype, bytes: Vec<u8>| Column { name: "x".into(), dtype, extents: vec![2], bytes };
        let ints = column(DType::I32, [7i32, -1].iter().flat_map(|v| v.to_ne_bytes()).collect());
        assert_eq!((ints.to_i64(), ints.to_f64(), ints.to_f32()), (Some(vec![7, -1]), vec![7.0, -1.0], None));
        let floats = column(DType::F32, [0.5f32, 2.0].iter().flat_map(|v| v.to_ne_bytes()).collect());
        assert_eq!((floats.to_f32(), floats.to_i64()), (Some(vec![0.5, 2.0]), None));
        assert_eq!(column(DType::Bool, vec![0, 3]).to_i64(), Some(vec![0, 1]));
        let wide = column(DType::U64, [1u64, u64::MAX].iter().flat_map(|v| v.to_ne_bytes()).collect());
        assert_eq!(wide.to_i64(), None);
    }

    #[test]
    fn a_batch_takes_new_columns_and_keeps_its_memory() {
        let wide = [ColumnInfo::new("a", DType::F32, [3]), ColumnInfo::new("b", DType::I64, [])];
        let mut batch = Batch::default();
        batch.shape_as(&wide, 4);
        assert_eq!((batch.columns[0].extents.as_slice(), batch.columns[0].bytes.len()), (&[4, 3][..], 48));
        assert_eq!(batch.column("b").map(|c| c.bytes.len()), Some(32));
        let memory = batch.columns[0].bytes.as_ptr();
        batch.shape_as(&[ColumnInfo::new("c", DType::U8, [2, 2])], 3);
        assert_eq!((batch.columns.len(), batch.columns[0].name.as_str()), (1, "c"));
        assert_eq!(
            (batch.columns[0].extents.as_slice(), batch.columns[0].bytes.as_ptr()),
            (&[3, 2, 2][..], memory)
        );
    }
}
