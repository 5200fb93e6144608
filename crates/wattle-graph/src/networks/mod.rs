//! Published networks, each a function that adds its layers to [`Layers`](crate::layers::Layers): whoever calls it chooses the
//! extents of the input, where parameters come from, and what the outputs are for.

mod lenet;
mod mobilenet;
mod resnet;
mod transformer;

pub use lenet::{lenet_5, lenet_300_100, mlp, small_conv};
pub use mobilenet::mobilenet_v1;
pub use resnet::{resnet, resnet_18, resnet_20};
pub use transformer::{Heads, attend_within, encoder_layer, transformer_layer};
