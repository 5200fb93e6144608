//! Data: from a `--data` text to batches.
//!
//! [`DataSpec`] names a source and loads it as a [`Dataset`]; [`Splits`] divides it into training, validation and test
//! parts that never mix; [`Normalisation`] is measured on the training part; a [`Loader`] turns sample indices into
//! augmented, normalised batches, ahead of time and in an order that depends on nothing but the seed. Everything random
//! is a pure function of a seed, a purpose and counters ([`random::Stream`]).
//!
//! ```
//! use std::sync::Arc;
//! use wattle_data::{Augmentation, DataSpec, LoadOptions, Loader, LoaderOptions, Normalisation, SplitOptions, Splits};
//!
//! let digits = Arc::new(DataSpec::parse("digits")?.load(&LoadOptions::default())?);
//! let splits = Splits::new(&digits, &SplitOptions::default())?;
//! let normalisation = Normalisation::measure(&digits, splits.train())?;
//! let options = LoaderOptions::training(32, 7, Augmentation::NONE, normalisation);
//! let mut loader = Loader::new(digits, splits.train(), options)?;
//! let batch = loader.next_batch()?;
//! assert_eq!((batch.inputs.len(), batch.labels.len()), (32 * 8 * 8, 32));
//! # Ok::<(), wattle_data::Error>(())
//! ```

mod augmentation;
mod bounded;
mod cifar;
mod csv;
mod dataset;
mod digits;
pub mod error;
mod folder;
mod idx;
mod image;
mod loader;
mod model_notes;
mod normalisation;
pub mod npy;
mod npz;
pub mod random;
mod spec;
mod share;
pub mod split;

pub use augmentation::Augmentation;
pub use dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
pub use error::{Error, ErrorKind, Result};
pub use folder::ImageFiles;
pub use loader::{Batch, LastBatch, Loader, LoaderOptions};
pub use model_notes::ModelNotes;
pub use normalisation::Normalisation;
pub use share::parse_share;
pub use spec::{DataSpec, LoadOptions, Task};
pub use split::{SplitOptions, Splits, TestSet};
