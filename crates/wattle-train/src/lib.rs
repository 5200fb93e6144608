//! How a network learns: optimisers, schedules, checkpoints, the training loop, run directories.
//!
//! Everything random is a pure function of a seed, a purpose and counters ([`wattle_data::random::Stream`]), everything
//! written is written atomically, and a run's directory is named by what produced it: kill a run at any moment, run the
//! same command again, and the result is the same to the last bit.

pub mod atomic_file;
pub mod checkpoint;
pub mod fit;
pub mod lease;
pub mod loss;
pub mod metrics_log;
pub mod network;
pub mod normalised;
pub mod optimizer;
pub mod output_file;
pub mod parameter_tensors;
pub mod run_directory;
pub mod schedule;
pub mod step;
pub mod tensor_file;
pub mod trainer;
pub mod training_graph;
pub mod weights;
