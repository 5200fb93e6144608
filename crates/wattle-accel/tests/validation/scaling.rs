//! Fig. 14 of the Eyeriss v2 paper: speed from 256 to 16384 PEs, dense, one MAC a PE, clusters of 4 x 4, batch 1.

use wattle_accel::{Architecture, Effort, Layer, Objective, Workload, estimate};

use crate::chip::named;
use crate::published::{Row, alexnet, googlenet, mobilenet_224};

/// The hierarchical mesh of v1.5 with `side` x `side` clusters of 4 x 4 PEs; storage grows with the PEs.
fn mesh(side: usize) -> Architecture {
    let mut arch = named("eyeriss-v1.5");
    let grown = (16 * side * side) as f64 / arch.pes() as f64;
    // Fewer loops an axis than the chip allows: the search over them all is too long for a test.
    for (axis, (size, dims)) in
        arch.axes.iter_mut().zip([(side, "CMPG"), (side, "MQG"), (4, "RC"), (4, "MQ")])
    {
        (axis.size, axis.dims) = (size, dims.to_string());
    }
    // One router of 24 b an iact bank; four banks and four rows a cluster.
    arch.ports.iact_bits = 96.0;
    arch.buffers[0].iact_bytes *= grown;
    arch.buffers[0].psum_bytes *= grown;
    arch
}

/// Eyeriss v1 as an array of as many PEs: its one network does not grow with them.
fn flat(side: usize) -> Architecture {
    let mut arch = named("eyeriss-v1");
    let grown = (16 * side * side) as f64 / arch.pes() as f64;
    for (axis, dims) in arch.axes.iter_mut().zip(["RC", "PM"]) {
        (axis.size, axis.dims) = (4 * side, dims.to_string());
    }
    arch.buffers[0].iact_bytes *= grown;
    arch.buffers[0].psum_bytes *= grown;
    arch
}

/// Cycles of a network mapped for speed.
fn cycles(arch: &Architecture, layers: &[Layer]) -> f64 {
    let workload = Workload { name: String::new(), layers: layers.to_vec(), host: vec![] };
    let effort = Effort { evaluations: 500_000, ..Effort::default() };
    estimate(arch, &workload, Objective::Delay, effort, 2, &|| {})
        .expect("every layer has a mapping")
        .cycles()
}

/// Speed over that of 256 PEs. Published: 1024 PEs scale linearly, 16384 by more than 85 % of that, v1 hardly.
pub fn rows() -> Vec<Row> {
    let networks =
        [("AlexNet", alexnet(1)), ("GoogLeNet", googlenet()), ("MobileNet-1.0-224", mobilenet_224())];
    let of = |(name, layers): (&str, Vec<Layer>)| {
        let [few, more, most] = [4, 8, 32].map(|side| cycles(&mesh(side), &layers));
        let [flat_few, flat_most] = [4, 32].map(|side| cycles(&flat(side), &layers));
        [
            Row::within(&format!("{name}, mesh, 1024 PEs"), 4.0, few / more, 0.10),
            Row::at_least(&format!("{name}, mesh, 16384 PEs"), 0.85 * 64.0, few / most),
            Row::at_most(&format!("{name}, flat network, 16384 PEs"), 2.0, flat_few / flat_most),
        ]
    };
    networks.into_iter().flat_map(of).collect()
}

#[test]
fn networks_have_as_many_multiplications_as_are_known_of_them() {
    let macs = |layers: &[Layer]| layers.iter().map(Layer::macs).sum::<f64>();
    assert_eq!((mobilenet_224().len(), macs(&mobilenet_224())), (28, 568_740_352.0));
    assert_eq!((googlenet().len(), (macs(&googlenet()) / 1e5).round()), (58, 15827.0));
}
