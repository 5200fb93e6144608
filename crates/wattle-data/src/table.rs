//! Samples at random access: what every kind of file is read as.

use std::fmt::Debug;
use std::sync::Arc;

use crate::column::ColumnInfo;
use crate::dataset::SourceParts;
use crate::error::Result;

/// The class of every sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes<'a> {
    /// One a sample, each below `names.len()`.
    pub labels: &'a [u32],
    /// The classes, in the order of their numbers.
    pub names: &'a [String],
}

/// A column that is a picture: crops and flips move it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    /// Rows: the last axis but one.
    pub height: usize,
    /// Columns: the last axis.
    pub width: usize,
    /// The number that is shifted in from outside: black in an image, the ignored class in a mask.
    pub border: f64,
}

/// Samples of one form, each to be had by its number. Inputs and targets are both columns.
pub trait Table: Send + Sync + Debug {
    /// What it is called in messages and receipts.
    fn name(&self) -> &str;

    /// What each sample has: inputs first, then targets.
    fn columns(&self) -> &[ColumnInfo];

    /// How many of the columns, from the first on, are inputs; the rest are targets.
    fn inputs(&self) -> usize {
        1
    }

    /// The number of samples; at least 1.
    fn count(&self) -> usize;

    /// The parts its source came in.
    fn parts(&self) -> &SourceParts;

    /// Writes a column of a sample into `out`, which has exactly [`ColumnInfo::bytes`] bytes, in this machine's byte
    /// order.
    ///
    /// # Errors
    /// When a file cannot be read, or changed since the table was made.
    ///
    /// # Panics
    /// If there is no such sample or column.
    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()>;

    /// The number that stands for 1 in a column: 255 where the numbers are the bytes of photographs, 16 for the digits,
    /// 1 where the numbers mean themselves.
    fn full_scale(&self, _column: usize) -> f32 {
        1.0
    }

    /// Whether the numbers of a column are measurements, stored as floats or as the bytes of pictures. Integers and truth
    /// values (tokens, masks, categories) are not, even where a model takes them as floats: nobody normalises them unasked.
    fn is_measured(&self, column: usize) -> bool {
        self.columns()[column].dtype.is_float() || self.full_scale(column) != 1.0
    }

    /// What crops and flips do to a column; `None` where they leave it alone.
    fn picture(&self, _column: usize) -> Option<Picture> {
        None
    }

    /// The smallest and the largest label of a target of integers, whatever its extents, without the ignored one; `None`
    /// where it is not known.
    fn label_range(&self, _column: usize) -> Option<(i64, i64)> {
        None
    }

    /// What a column is called in the data, where it has another name here: targets do.
    fn own_name(&self, column: usize) -> &str {
        &self.columns()[column].name
    }

    /// The label that does not count, where the targets have one: what padding is labelled with, or what was stated.
    fn ignored(&self) -> Option<i64> {
        None
    }

    /// How many places of a sample's sequences are real; the rest is padding. `None` where samples are no sequences.
    fn length(&self, _sample: usize) -> Option<usize> {
        None
    }

    /// Whether the first axis of a column runs along the sequence that [`Table::length`] measures.
    fn is_sequence(&self, _column: usize) -> bool {
        false
    }

    /// The class of each sample, where the target is a class: parts are drawn so that classes keep their shares.
    fn classes(&self) -> Option<Classes<'_>> {
        None
    }

    /// What a user should know although nothing is refused: classes without samples, columns that were converted.
    fn remarks(&self) -> &[String] {
        &[]
    }

    /// A hash of everything that training sees: names, types and bytes of all columns, and the parts.
    fn fingerprint(&self) -> String;
}

impl<T: Table + ?Sized> Table for Arc<T> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn columns(&self) -> &[ColumnInfo] {
        (**self).columns()
    }

    fn inputs(&self) -> usize {
        (**self).inputs()
    }

    fn count(&self) -> usize {
        (**self).count()
    }

    fn parts(&self) -> &SourceParts {
        (**self).parts()
    }

    fn read(&self, sample: usize, column: usize, out: &mut [u8]) -> Result<()> {
        (**self).read(sample, column, out)
    }

    fn full_scale(&self, column: usize) -> f32 {
        (**self).full_scale(column)
    }

    fn is_measured(&self, column: usize) -> bool {
        (**self).is_measured(column)
    }

    fn picture(&self, column: usize) -> Option<Picture> {
        (**self).picture(column)
    }

    fn label_range(&self, column: usize) -> Option<(i64, i64)> {
        (**self).label_range(column)
    }

    fn own_name(&self, column: usize) -> &str {
        (**self).own_name(column)
    }

    fn ignored(&self) -> Option<i64> {
        (**self).ignored()
    }

    fn length(&self, sample: usize) -> Option<usize> {
        (**self).length(sample)
    }

    fn is_sequence(&self, column: usize) -> bool {
        (**self).is_sequence(column)
    }

    fn classes(&self) -> Option<Classes<'_>> {
        (**self).classes()
    }

    fn remarks(&self) -> &[String] {
        (**self).remarks()
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }
}
