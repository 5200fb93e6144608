//! Data: from a `--data` text to batches of named columns.
//!
//! [`DataSpec`] names what to read. Whatever the file, it is read as a [`Table`]: samples at random access, each with the
//! same columns. [`Splits`] divides a table into training, validation and test parts that never mix; [`Normalisation`] is
//! measured on the training part ([`Divided`] does both); [`Batches`] turns samples into augmented, normalised batches in
//! an order that depends on nothing but the seed, and [`Buckets`] groups sequences by length. Both are a [`Source`]; a
//! [`Loader`] prepares the batches of any source ahead of time.
//! Everything random is a pure function of a seed, a purpose and counters ([`random::Stream`]).
//!
//! ```
//! use std::sync::Arc;
//! use wattle_data::{Augmentation, BatchOptions, Batches, DataSpec, LoadOptions, Loader, Normalisation};
//! use wattle_data::{SplitOptions, Splits};
//!
//! let digits = Arc::new(DataSpec::parse("digits")?.load(&LoadOptions::default())?);
//! let splits = Splits::new(&digits, &SplitOptions::default())?;
//! let normalisation = Normalisation::measure(&digits, splits.train())?;
//! let options = BatchOptions::training(32, 7, Augmentation::NONE).normalised("input", normalisation);
//! let source = Batches::new(digits, splits.train(), options)?.rename("input", "pixels")?;
//! let mut loader = Loader::new(Arc::new(source), 2);
//! let batch = loader.next_batch()?;
//! assert_eq!(batch.columns[0].name, "pixels");
//! assert_eq!(batch.columns[0].extents, [32, 1, 8, 8]);
//! assert_eq!(batch.column("targets").map(|column| column.extents.as_slice()), Some(&[32][..]));
//! # Ok::<(), wattle_data::Error>(())
//! ```

mod archive;
mod arrays;
mod asked;
mod augmentation;
mod batches;
pub mod bounded;
mod buckets;
mod cast;
mod choice;
mod cifar;
mod column;
mod columns;
mod csv;
mod dataset;
mod digits;
mod divided;
pub mod error;
mod folder;
mod idx;
mod image;
mod jsonl;
mod loader;
mod mapping;
mod masks;
mod model_notes;
mod normalisation;
pub mod npy;
mod npz;
mod options;
mod positioned;
pub mod random;
mod relabelled;
mod rows;
mod share;
mod source;
mod spec;
pub mod split;
mod table;
mod text;
mod text_form;
mod thumbnail;
mod tokens;

pub use asked::{AskOptions, Asked};
pub use augmentation::Augmentation;
pub use batches::{BatchOptions, Batches, LastBatch};
pub use buckets::{Buckets, COUNT, Capacities};
pub use choice::NormalisationChoice;
pub use column::{Batch, Column, ColumnInfo};
pub use dataset::{Dataset, INPUT, SampleShape, Samples, SourceParts, TARGETS, Targets};
pub use divided::Divided;
pub use error::{Error, ErrorKind, Result};
pub use folder::ImageFiles;
pub use image::Resize;
pub use loader::Loader;
pub use mapping::{ColumnMap, Mapped, Wanted};
pub use model_notes::ModelNotes;
pub use normalisation::Normalisation;
pub use options::{Missing, TableOptions, TextOptions};
pub use relabelled::{Relabelled, Strangers};
pub use share::parse_share;
pub use source::Source;
pub use spec::{DataSpec, LoadOptions, Task};
pub use split::{SplitOptions, Splits, TestSet};
pub use table::{Classes, Picture, Table};
pub use thumbnail::thumbnail;
