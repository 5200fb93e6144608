//! How long the mapper takes for each layer of ResNet-18 on Eyeriss v2, at half density:
//! `cargo run --release -p wattle-accel --example map_resnet18`.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use wattle_accel::{Architecture, Effort, Layer, Objective, Sparsity, map_best_format};

fn main() -> Result<(), wattle_accel::AccelError> {
    let arch = Architecture::named("eyeriss-v2")?;
    let table = arch.table()?;
    // Channels, outputs, output map, taps, stride of every distinct layer.
    let layers = [
        (3, 64, 112, 7, 2),
        (64, 64, 56, 3, 1),
        (64, 128, 28, 3, 2),
        (64, 128, 28, 1, 2),
        (128, 128, 28, 3, 1),
        (128, 256, 14, 3, 2),
        (128, 256, 14, 1, 2),
        (256, 256, 14, 3, 1),
        (256, 512, 7, 3, 2),
        (256, 512, 7, 1, 2),
        (512, 512, 7, 3, 1),
    ];
    let mut all: Vec<Layer> =
        layers.map(|(c, m, map, taps, stride)| Layer::conv("conv", 1, c, m, map, taps, stride)).to_vec();
    all.push(Layer::gemm("fc", 1, 512, 1000));
    for layer in all {
        let layer = layer.with_sparsity(Sparsity::uniform(0.5), Sparsity::uniform(0.5));
        let start = Instant::now();
        let found = map_best_format(&arch, &layer, &table, Objective::Edp, Effort::default())?;
        println!(
            "{:?} {:.3} s, {} of {} branches opened, {} mappings, proven {}: {}",
            layer.bounds,
            start.elapsed().as_secs_f64(),
            found.opened,
            found.branches,
            found.evaluated,
            found.proven(),
            found.mapping
        );
    }
    Ok(())
}
