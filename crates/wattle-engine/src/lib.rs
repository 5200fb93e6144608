//! How a graph is run: planning, sessions, training steps.
//!
//! [`Plan::compile`] decides everything once: rewrites, layout of every value, a kernel for every node, and one
//! arena whose spans are shared by values that never live at the same time. A [`Session`] holds the arena and
//! runs the plan; running allocates nothing, except in nodes that only the reference interpreter can compute,
//! which the plan lists. Results are the same bits for any number of threads.
//!
//! This crate does not read files, prune or choose learning rates.

mod bind;
mod bytes;
mod choices;
mod error;
mod kept;
mod kernel;
mod layout;
mod memory;
mod parts;
mod plan;
mod session;
mod sharing;
mod sparse_cost;
pub mod timing_file;
mod timings;

pub use choices::{Batch, Sparse};
pub use error::EngineError;
pub use layout::Layout;
pub use plan::{Plan, PlanOptions, StepInfo};
pub use session::Session;
pub use timings::{LayerTimes, Timings};
pub use wattle_kernels::{Cpu, Isa, NoSuchIsa};
