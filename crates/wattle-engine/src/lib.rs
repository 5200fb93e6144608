//! How a graph is run: planning, sessions, training steps.
//!
//! [`Plan::compile`] decides everything once: rewrites, layout of every value, a kernel for every node, and one
//! arena whose spans are shared by values that never live at the same time. A [`Store`] holds parameters, for as many
//! plans as share them; a [`Session`] holds the arena of one plan and runs it; running allocates nothing, except in nodes that only the reference interpreter can compute,
//! which the plan lists. Results are the same bits for any number of threads.
//!
//! This crate does not read files, prune or choose learning rates.

mod assign;
mod bind;
mod bytes;
mod choices;
mod element;
mod error;
mod executor;
mod kept;
pub mod kernel;
mod layout;
mod memory;
mod packing;
mod parts;
mod plan;
mod plan_cache;
mod planner;
mod registry;
mod session;
mod sharing;
mod sparse_cost;
mod store;
mod strided;
pub mod suite;
pub mod timing_file;
mod timings;

pub use choices::{BatchSplit, Freeze, PlanOptions, Sparse};
pub use element::Element;
pub use error::EngineError;
pub use executor::{CpuExecutor, Executor};
pub use layout::Layout;
pub use plan::{Plan, StepInfo};
pub use plan_cache::PlanCache;
pub use registry::Registry;
pub use session::Session;
pub use store::Store;
pub use timings::{LayerTimes, Timings};
pub use wattle_kernels::{BUILD, Cpu, Isa, NoSuchIsa};
