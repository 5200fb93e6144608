//! How long two threads take to prove the optimum of each layer of three networks on Eyeriss v2:
//! `cargo run --release -p wattle-accel --example map_networks [energy|delay|edp]`.
//!
//! Every layer has densities of its own for each channel, drawn around 0.7, so that all four formats of the operands
//! are searched and no two channels are alike: the dearest case.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use wattle_accel::{
    Architecture, Constraints, Crew, Dim, Effort, Layer, Mapped, Objective, Search, Sparsity, each_distinct,
    map_within,
};

/// Input channels, outputs, output map, stride of MobileNet's separable blocks at width 1 and 224 x 224.
const BLOCKS: [(usize, usize, usize, usize); 13] = [
    (32, 64, 112, 1),
    (64, 128, 56, 2),
    (128, 128, 56, 1),
    (128, 256, 28, 2),
    (256, 256, 28, 1),
    (256, 512, 14, 2),
    (512, 512, 14, 1),
    (512, 512, 14, 1),
    (512, 512, 14, 1),
    (512, 512, 14, 1),
    (512, 512, 14, 1),
    (512, 1024, 7, 2),
    (1024, 1024, 7, 1),
];

/// Distinct layers of ResNet-18: channels, outputs, output map, taps, stride.
const RESNET: [(usize, usize, usize, usize, usize); 11] = [
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

/// MobileNet with all widths divided by `narrow` and all maps multiplied by `map / 224`.
fn mobilenet(narrow: usize, map: usize) -> Vec<Layer> {
    let scaled = |n: usize| n * map / 224;
    let mut layers = vec![Layer::conv("conv1", 1, 3, 32 / narrow, scaled(112), 3, 2)];
    for (at, (from, to, out, stride)) in BLOCKS.into_iter().enumerate() {
        let (from, to, out) = (from / narrow, to / narrow, scaled(out));
        layers.push(Layer::conv(&format!("dw{}", at + 1), from, from, from, out, 3, stride));
        layers.push(Layer::conv(&format!("pw{}", at + 1), 1, from, to, out, 1, 1));
    }
    layers.push(Layer::gemm("fc", 1, 1024 / narrow, 1000));
    layers
}

fn resnet() -> Vec<Layer> {
    let name = |at: usize| format!("conv{}", at + 1);
    let conv = |(at, (c, m, map, taps, stride))| Layer::conv(&name(at), 1, c, m, map, taps, stride);
    let mut layers: Vec<Layer> = RESNET.into_iter().enumerate().map(conv).collect();
    layers.push(Layer::gemm("fc", 1, 512, 1000));
    layers
}

/// Densities from 0.6 to 0.8, one a channel.
fn densities(layer: &Layer, seed: u64) -> Sparsity {
    let mut state = seed;
    let channels = layer.bound(Dim::G) * layer.bound(Dim::C);
    let draw = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        0.6 + 0.2 * ((state >> 33) % 1000) as f64 / 1000.0
    };
    Sparsity::per_channel((0..channels).map(draw).collect())
}

fn main() -> Result<(), wattle_accel::AccelError> {
    let objective = match std::env::args().nth(1).as_deref() {
        Some("energy") => Objective::Energy,
        Some("delay") => Objective::Delay,
        _ => Objective::Edp,
    };
    let arch = Architecture::named("eyeriss-v2")?;
    let table = arch.table()?;
    let networks = [
        ("MobileNet-1.0-224", mobilenet(1, 224)),
        ("MobileNet-0.5-128", mobilenet(2, 128)),
        ("ResNet-18", resnet()),
    ];
    for (name, layers) in networks {
        let layers: Vec<Layer> = layers
            .into_iter()
            .map(|l| {
                let (iact, weight) = (densities(&l, 1), densities(&l, 2));
                l.with_sparsity(iact, weight)
            })
            .collect();
        let crew = Crew::of(2);
        let search = Search {
            objective,
            effort: Effort::default(),
            constraints: &Constraints::default(),
            crew: &crew,
            watch: &|_| {},
        };
        let map = |layer: &Layer| {
            let start = Instant::now();
            let found = map_within(&arch, layer, &table, &search).map_err(|e| e.to_string());
            (start.elapsed().as_secs_f64(), found)
        };
        // One layer after the other, both threads on each; then all, the threads on layers of their own.
        let results: Vec<_> = layers.iter().map(map).collect();
        let start = Instant::now();
        each_distinct(&layers, &crew, |_, _| true, map, &|| {});
        let seconds = start.elapsed().as_secs_f64();
        let mut worst = (0.0, "");
        let (mut proven, mut opened, mut branches, mut evaluated) = (0, 0, 0, 0);
        for (layer, (seconds, found)) in layers.iter().zip(&results) {
            match found {
                Ok(Mapped { branches: b, opened: o, evaluated: e, .. }) => {
                    proven += usize::from(found.as_ref().is_ok_and(Mapped::proven));
                    (opened, branches, evaluated) = (opened + o, branches + b, evaluated + e);
                }
                Err(error) => println!("{}: {error}", layer.name),
            }
            if *seconds > worst.0 {
                worst = (*seconds, &layer.name);
            }
        }
        println!(
            "{name}, {}: {proven} of {} layers proven; slowest {} {:.3} s on 2 threads, all side by side {seconds:.3} s; \
             {opened} of {branches} branches opened, {evaluated} mappings evaluated",
            objective.name(),
            layers.len(),
            worst.1,
            worst.0
        );
    }
    Ok(())
}
