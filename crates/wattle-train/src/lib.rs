//! Data sets, optimisers, schedules, checkpoints, the training loop, run directories.
//!
//! Everything random is a pure function of a seed, a purpose and counters ([`random::Stream`]), everything written is
//! written atomically, and a run's directory is named by what produced it: kill a run at any moment, run the same
//! command again, and the result is the same to the last bit.
//!
//! ```
//! use std::sync::Arc;
//! use wattle_train::data::{Augmentation, DataSpec, LoadOptions, Loader, LoaderOptions, Normalisation, SplitOptions, Splits};
//!
//! let digits = Arc::new(DataSpec::parse("digits")?.load(&LoadOptions::default())?);
//! let splits = Splits::new(&digits, &SplitOptions::default())?;
//! let normalisation = Normalisation::measure(&digits, splits.train())?;
//! let options = LoaderOptions::training(32, 7, Augmentation::NONE, normalisation);
//! let mut loader = Loader::new(digits, splits.train(), options)?;
//! let batch = loader.next_batch()?;
//! assert_eq!((batch.inputs.len(), batch.labels.len()), (32 * 8 * 8, 32));
//! # Ok::<(), wattle_train::Error>(())
//! ```

pub mod atomic_file;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod fit;
pub mod loss;
pub mod network;
pub mod optimizer;
pub mod random;
pub mod run_directory;
pub mod schedule;
pub mod step;
pub mod trainer;
pub mod training_graph;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
