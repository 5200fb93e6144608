//! The crate of [the tutorial](../../../docs/guide/tutorial.md): how much power will a house ask for?
//!
//! Everything here belongs to a user of wattle's libraries: [`Snake`] is her operator with its kernels, [`Pinball`] her
//! objective, [`Houses`] her data, [`network`] her model of two inputs.

mod houses;
mod network;
mod pinball;
mod snake;

pub use houses::Houses;
pub use network::network;
pub use pinball::Pinball;
pub use snake::{Snake, SnakeGradient, kernels};
