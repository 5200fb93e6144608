//! Where batches come from.

use crate::column::{Batch, ColumnInfo};
use crate::error::Result;

/// A source of batches without end: after the last of an epoch comes the first of the next.
///
/// The batch of a step is a function of the source and the step alone: the same bits whenever, wherever and in whatever
/// order batches are asked for. A [`Loader`](crate::Loader) can therefore start anywhere, and a run that is resumed sees
/// exactly the batches it would have seen.
pub trait Source: Send + Sync {
    /// What every batch holds: names, element types and extents of one sample.
    fn columns(&self) -> &[ColumnInfo];

    /// Batches in one epoch; at least 1.
    fn epoch_len(&self) -> u64;

    /// Makes the batch of a step, counted from 0 over the whole run. Every batch has the extents that
    /// [`Source::columns`] states, but those of [`Buckets`](crate::Buckets), which may be shorter. What `batch` held before
    /// does not matter; its memory is used again.
    ///
    /// # Errors
    /// When something cannot be read, or does not hold what it held when the source was made.
    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()>;

    /// A hash of everything that decides what the batches contain: data, their division, options and seeds.
    fn fingerprint(&self) -> String;
}
