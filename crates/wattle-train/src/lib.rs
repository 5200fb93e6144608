//! Data sets, optimisers, schedules, checkpoints, the training loop, run directories.

pub mod atomic_file;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod random;
pub mod run_directory;
pub mod schedule;
pub mod step;

pub use error::{Error, ErrorKind, Result};
