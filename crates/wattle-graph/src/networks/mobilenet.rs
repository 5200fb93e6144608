//! MobileNetV1 (Howard et al. 2017, table 1).

use crate::graph::ValueId;
use crate::layers::{Built, Filters, Layers, ParameterSource};

/// Thirteen pairs of depthwise and 1 x 1 convolutions, batch normalisation folded into their biases.
pub fn mobilenet_v1<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    let mut conv = |name: &str, x, filters: Filters| {
        let x = layers.conv(name, x, filters.biased())?;
        layers.relu(x)
    };
    let mut x = conv("conv", x, Filters::new(32, 3).strided(2))?;
    let mut channels = 32;
    let pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)];
    let pairs = pairs.into_iter().chain([(512, 1); 5]).chain([(1024, 2), (1024, 1)]);
    for (pair, (width, stride)) in pairs.enumerate() {
        let depthwise = Filters::new(channels, 3).strided(stride).depthwise();
        x = conv(&format!("pairs.{pair}.depthwise"), x, depthwise)?;
        x = conv(&format!("pairs.{pair}.pointwise"), x, Filters::new(width, 1))?;
        channels = width;
    }
    let x = layers.channel_means(x)?;
    layers.dense("fc", x, outputs)
}
