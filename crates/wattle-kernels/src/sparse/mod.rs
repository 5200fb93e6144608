//! Products with sparse weights that cost what their non-zeros cost.
//!
//! [`SparseWeights`] holds a matrix cut for the caches and the threads; [`product`](fn@product) multiplies it with
//! dense activations, [`conv`] runs convolutions on the same kernels, [`vector`] serves single vectors, [`sampled`]
//! gives the gradient of the kept weights. Sums run over columns in order, whatever the number of threads.

mod micro;
mod panel;
mod product;
mod weights;

pub use product::{Activations, Product, product, product_scratch_len};
pub use weights::{BLOCK_COLUMNS, Cut, HEIGHT, SparseWeights};
