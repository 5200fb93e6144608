//! Products with sparse weights that cost what their non-zeros cost.
//!
//! [`SparseWeights`] holds a matrix cut for the caches and the threads; [`product`](fn@product) multiplies it with
//! dense activations, [`SparseConv`] runs convolutions on the same kernels, [`SparseRows`] serves single
//! vectors. Sums run over columns in order, whatever the number of threads.

mod conv;
mod micro;
mod panel;
mod product;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

pub use conv::SparseConv;
pub use product::{Activations, Product, product, product_scratch_len};
pub use vector::SparseRows;
pub use weights::{BLOCK_COLUMNS, Cut, HEIGHT, SparseWeights};
