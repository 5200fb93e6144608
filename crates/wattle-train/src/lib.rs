//! How a network learns: steps, objectives, optimisers, schedules, checkpoints, run directories.
//!
//! An [`experiment::Experiment`] holds everything that decides a training; [`fit::fit`] runs it. A step is a graph
//! ([`step_graph::StepGraph`]): a network in training mode, what an [`objective::Objective`] adds to it, gradients, updates.
//! Which network learns at which step is a [`policy::StepPolicy`]'s choice.
//!
//! Everything random is a pure function of a seed, a purpose and counters ([`wattle_data::random::Stream`]), everything
//! written is written atomically, and a run's directory is named by what produced it: kill a run at any moment, run the
//! same command again, and the result is the same to the last bit.

pub mod atomic_file;
pub mod binding;
pub mod checkpoint;
pub mod early_stop;
pub mod evaluation;
pub mod experiment;
pub mod fingerprint;
pub mod fit;
pub mod groups;
pub mod initial_weights;
pub mod lease;
pub mod metric;
pub mod metrics_log;
pub mod moment;
pub mod network;
mod networks;
pub mod normalised;
pub mod objective;
pub mod optimizer;
pub mod options;
pub mod output_file;
pub mod parameter_tensors;
pub mod policy;
mod refusal;
pub mod run_directory;
pub mod schedule;
pub mod step_graph;
pub mod tally;
pub mod tensor_file;
mod text;
pub mod trainer;
pub mod training_data;
pub mod training_graph;
pub mod weights;
mod wires;
