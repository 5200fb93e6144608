//! Residual networks (He et al. 2016).

use crate::graph::ValueId;
use crate::layers::{Built, Filters, Layers, ParameterSource};

/// 20 layers of 16, 32 and 64 channels for small images (section 4.2).
pub fn resnet_20<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    resnet(layers, x, &[16, 32, 64], 3, outputs)
}

/// 18 layers of 64 to 512 channels for large images (table 1).
pub fn resnet_18<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, outputs: usize) -> Built {
    let x = stem(layers, x, Filters::new(64, 7).strided(2))?;
    let x = layers.max_pool(x, 3, 2)?;
    stages(layers, x, &[64, 128, 256, 512], 2, outputs)
}

/// A network for small images, with one stage of `blocks` blocks for each of `widths`; later stages halve the image.
pub fn resnet<S: ParameterSource>(
    layers: &mut Layers<S>,
    x: ValueId,
    widths: &[usize],
    blocks: usize,
    outputs: usize,
) -> Built {
    let first = widths.first().copied().unwrap_or(1);
    let x = stem(layers, x, Filters::new(first, 3))?;
    stages(layers, x, widths, blocks, outputs)
}

fn stem<S: ParameterSource>(layers: &mut Layers<S>, x: ValueId, filters: Filters) -> Built {
    let x = layers.conv("conv", x, filters)?;
    let x = layers.batch_norm("bn", x)?;
    layers.relu(x)
}

fn stages<S: ParameterSource>(
    layers: &mut Layers<S>,
    x: ValueId,
    widths: &[usize],
    blocks: usize,
    outputs: usize,
) -> Built {
    let mut x = x;
    for (stage, &width) in widths.iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = residual(layers, &format!("blocks.{}", blocks * stage + block), x, width, stride)?;
        }
    }
    let x = layers.channel_means(x)?;
    layers.dense("fc", x, outputs)
}

/// Two convolutions and a shortcut; where the shape changes the shortcut is a 1x1 convolution (option B).
fn residual<S: ParameterSource>(
    layers: &mut Layers<S>,
    name: &str,
    x: ValueId,
    width: usize,
    stride: usize,
) -> Built {
    let mut y = layers.conv(&format!("{name}.conv1"), x, Filters::new(width, 3).strided(stride))?;
    y = layers.batch_norm(&format!("{name}.bn1"), y)?;
    y = layers.relu(y)?;
    y = layers.conv(&format!("{name}.conv2"), y, Filters::new(width, 3))?;
    y = layers.batch_norm(&format!("{name}.bn2"), y)?;
    let shortcut = if stride != 1 || layers.extent(x, 1)? != width {
        let s = layers.conv(&format!("{name}.shortcut.0"), x, Filters::new(width, 1).strided(stride))?;
        layers.batch_norm(&format!("{name}.shortcut.1"), s)?
    } else {
        x
    };
    let sum = layers.add(y, shortcut)?;
    layers.relu(sum)
}
