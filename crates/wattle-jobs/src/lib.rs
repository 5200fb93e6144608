//! What can be asked for: every command as a function with options in and a result out, and who runs it.
//!
//! A job is three things in one file, named like the command:
//!
//! 1. `XOptions`, plain data that decides the result. Where a job keeps a run on disk, its options are what is hashed.
//! 2. `fn x(&XOptions, &Env, &mut dyn Observer) -> Result<X..>`. Where to compute, how to meter and where to write come
//!    from [`Env`]; what happens on the way goes to the [`Observer`], which may also cancel. Nothing is printed.
//! 3. The result, a struct that serialises to the document of `--json`. Its keys are a promise to programs: they are
//!    added to and never renamed. Where the job meters itself, the receipt is a field of it.
//!
//! The command line, Python and C are faces of these functions: they turn text into options, show what an observer is
//! told, and print the result. A table for people is the face's. An option that is refused is named by its field
//! ([`JobError::option`]); the face calls it what it calls it there, such as `--max-rounds` for `max_rounds`.
//!
//! [`run()`] is the shortest example.

#[cfg(feature = "networks")]
pub mod accel;
pub mod accounting;
#[cfg(feature = "networks")]
pub mod bench;
#[cfg(feature = "networks")]
pub mod data;
pub mod env;
pub mod error;
pub mod estimate;
#[cfg(feature = "networks")]
pub mod eval;
pub mod export;
pub mod given_file;
#[cfg(feature = "networks")]
pub mod interruption;
#[cfg(feature = "networks")]
pub mod kept;
pub mod ledger;
pub mod ledger_filter;
pub mod measure;
#[cfg(feature = "networks")]
pub mod models;
#[cfg(feature = "networks")]
pub mod node_times;
#[cfg(feature = "networks")]
pub mod npy;
pub mod observer;
#[cfg(feature = "networks")]
pub mod predict;
#[cfg(feature = "networks")]
pub mod profile;
pub mod reproduce;
#[cfg(feature = "networks")]
pub mod roofline;
#[cfg(feature = "networks")]
pub mod run;
pub mod scaling;
pub mod schedule;
pub mod serve;
#[cfg(feature = "networks")]
pub mod shrink;
#[cfg(feature = "networks")]
mod shrink_costs;
#[cfg(feature = "networks")]
pub mod shrink_report;
#[cfg(feature = "networks")]
pub mod ticket;
#[cfg(feature = "networks")]
pub mod timings;
#[cfg(feature = "networks")]
pub mod train;
#[cfg(feature = "networks")]
pub mod training;

#[cfg(feature = "networks")]
pub use bench::{BenchOptions, Benched, bench};
#[cfg(feature = "networks")]
pub use data::{DescribeOptions, Described, describe};
pub use env::{Env, EnvOptions};
pub use error::{ErrorKind, JobError, Result};
#[cfg(feature = "networks")]
pub use eval::{EvalOptions, Evaluated, eval};
pub use observer::{Observer, Silent};
#[cfg(feature = "networks")]
pub use predict::{PredictOptions, Predicted, predict};
#[cfg(feature = "networks")]
pub use profile::{ProfileOptions, Profiled, profile};
#[cfg(feature = "networks")]
pub use run::{RunOptions, run};
#[cfg(feature = "networks")]
pub use shrink::{ShrinkJob, Shrunk, shrink};
#[cfg(feature = "networks")]
pub use ticket::{FindJob, Found, find_tickets};
#[cfg(feature = "networks")]
pub use train::{TrainJob, Trained, train};
