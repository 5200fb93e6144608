//! Normalisation: batch norm over the rows of `[rows, channels]` (NHWC flattened), layer norm and RMS norm over the
//! last axis.

mod batch;
mod rows;

pub use batch::{
    BatchNorm, BatchNormSaved, Statistics, batch_norm_gradient, batch_norm_scratch_len, batch_norm_train,
    scale_shift,
};
pub use rows::{RowNorm, row_norm, row_norm_gradient, row_norm_gradient_scratch_len};

/// Chunks of rows that sums over rows are gathered in, whatever the number of threads.
const CHUNKS: usize = 16;
/// Elements of one elementwise task.
const PIECE: usize = 16 * 1024;
