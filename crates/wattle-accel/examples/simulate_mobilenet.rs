//! How long the simulator takes for sparse MobileNet-0.5-128 on Eyeriss v2, layer by layer on one thread:
//! `cargo run --release -p wattle-accel --example simulate_mobilenet`.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use wattle_accel::{Architecture, Effort, Objective, Workload, estimate, made_up, simulate};

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/validation/published.rs"]
mod published;

fn main() -> Result<(), wattle_accel::AccelError> {
    let arch = Architecture::named("eyeriss-v2")?;
    let table = arch.table()?;
    let layers = published::sparse_mobilenet();
    let workload = Workload { name: String::new(), layers: layers.clone(), host: vec![] };
    let mapped = estimate(&arch, &workload, Objective::Edp, Effort::default(), 2, &|| {})?;
    let (mut cycles, mut products, mut seconds) = (0.0, 0, 0.0);
    for (layer, found) in layers.iter().zip(&mapped.layers) {
        let (iacts, weights) = made_up(layer, 1);
        let m = &found.mapped;
        let start = Instant::now();
        let run = simulate(&arch, layer, &table, m.format, &m.mapping, &iacts, &weights)?;
        seconds += start.elapsed().as_secs_f64();
        (cycles, products) = (cycles + run.cycles, products + run.products);
        println!("{} {:.0} cycles, an average PE waited {:?}", layer.name, run.cycles, run.waiting);
    }
    println!(
        "{} layers: {cycles:.0} cycles ({:.1} inferences/s) in {seconds:.3} s, {:.1} M products of PEs a second",
        layers.len(),
        arch.clock_hz / cycles,
        products as f64 / seconds / 1e6
    );
    Ok(())
}
