//! LeNet (LeCun et al. 1998), dense and convolutional, and a smaller convolutional network.

use crate::graph::ValueId;
use crate::layers::{Built, Filters, Layers, ParameterSource};

/// Dense layers `fc1`, `fc2`, .. of these widths with ReLU, and `fc` of the outputs.
pub fn mlp<S: ParameterSource>(
    layers: &mut Layers<S>,
    x: ValueId,
    widths: &[usize],
    outputs: usize,
) -> Built {
    let mut x = x;
    for (layer, &width) in widths.iter().enumerate() {
        x = layers.dense(&format!("fc{}", layer + 1), x, width)?;
        x = layers.relu(x)?;
    }
    layers.dense("fc", x, outputs)
}

/// Two hidden layers of 300 and 100, over rows or images.
pub fn lenet_300_100<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    let axes = layers.graph.value(x).ty.shape.dims().map_or(0, <[_]>::len);
    let x = if axes > 2 { layers.flatten(x)? } else { x };
    mlp(layers, x, &[300, 100], outputs)
}

/// Two convolutions of 6 and 16 and three dense layers, with ReLU and max pooling, over images.
pub fn lenet_5<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    let mut x = x;
    for (name, count) in [("conv1", 6), ("conv2", 16)] {
        x = layers.conv(name, x, Filters::new(count, 5).biased())?;
        x = layers.relu(x)?;
        x = layers.max_pool(x, 2, 2)?;
    }
    let x = layers.flatten(x)?;
    mlp(layers, x, &[120, 84], outputs)
}

/// Two convolutions of 16 and 32 and one dense layer of 64, over images.
pub fn small_conv<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    let mut x = x;
    for (name, count) in [("conv1", 16), ("conv2", 32)] {
        x = layers.conv(name, x, Filters::new(count, 3).biased())?;
        x = layers.relu(x)?;
    }
    x = layers.max_pool(x, 2, 2)?;
    x = layers.flatten(x)?;
    mlp(layers, x, &[64], outputs)
}
