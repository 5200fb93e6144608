//! Products with sparse weights that cost what their non-zeros cost.
//!
//! [`SparseWeights`] holds a matrix cut for the caches and the threads; [`product`](fn@product) multiplies it with
//! dense activations, [`SparseConv`] runs convolutions on the same kernels, [`SparseRows`] and [`SparseLookup`] serve
//! single vectors; for training, [`sampled_product`] gives the gradient of the kept weights and [`Transposed`] that of
//! the input. Sums run over columns in order, whatever the number of threads.

mod conv;
mod conv_gradient;
mod lookup;
mod micro;
mod n_of_m;
mod panel;
mod product;
mod sampled;
#[cfg(test)]
mod tests;
mod transposed;
mod vector;
mod weights;

pub use conv::SparseConv;
pub use conv_gradient::SparseConvInputGradient;
pub use lookup::SparseLookup;
pub use n_of_m::NOfM;
pub use panel::STRIP;
pub use product::{Activations, Product, product, product_scratch_len};
pub use sampled::{sampled_product, sampled_product_scratch_len};
pub use transposed::Transposed;
pub use vector::SparseRows;
pub use weights::{BLOCK_COLUMNS, Cut, HEIGHT, SparseWeights};
