//! Finding the small network inside the large one.
//!
//! A *ticket* is a mask over a network and the weights the network had after some steps of training, such that
//! the masked network, trained on from there, does what the whole one would have done (Frankle & Carbin 2019;
//! Frankle et al. 2020 for the rewinding). [`find`] finds one by iterative magnitude pruning; [`prune`] is one
//! round of it; [`Criterion`] says which network is better; [`Preset`] names the settings that published code disagrees about.

mod criterion;
mod find;
mod preset;
mod prune;

pub use criterion::Criterion;
pub use find::{FindOptions, Follower, Level, check, find, level_directory};
pub use preset::{PRESETS, Preset, preset};
pub use prune::{Fractions, Prunable, Scope, prunable, prune, random_masks};
