//! Data: from a `--data` text to batches.
//!
//! [`DataSpec`] names a source and loads it as a [`Dataset`]; [`Splits`] divides it into training, validation and test
//! parts that never mix; [`Normalisation`] is measured on the training part; a [`Loader`] turns sample indices into
//! augmented, normalised batches, ahead of time and in an order that depends on nothing but the seed.

mod augmentation;
mod bounded;
mod cifar;
mod csv;
mod dataset;
mod digits;
mod folder;
mod idx;
mod image;
mod loader;
mod normalisation;
pub mod npy;
mod npz;
mod spec;
mod split;

pub use augmentation::Augmentation;
pub use dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
pub use folder::ImageFiles;
pub use loader::{Batch, LastBatch, Loader, LoaderOptions};
pub use normalisation::Normalisation;
pub use spec::{DataSpec, LoadOptions, Task};
pub use split::{SplitOptions, Splits, TestSet};
