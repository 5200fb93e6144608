//! T4: Timeloop's Eyeriss-like example, whose mapping and energy table are published: counts, cycles, energy.

use wattle_accel::{Architecture, Dim, EnergyTable, Format, Group, Layer, LevelLoops, Mapping, evaluate};

use crate::published::Row;

/// The published layer, mapping and result (timeloop-accelergy-exercises, v4; read).
pub fn rows() -> Vec<Row> {
    let layer = Layer { input: [225, 225], ..Layer::conv("conv", 1, 3, 32, 112, 3, 2) };
    let mut arch = Architecture::named("eyeriss-like-45nm").expect("it is shipped");
    arch.energy = "timeloop-eyeriss-like-65nm".to_string();
    let table = EnergyTable::named(&arch.energy).expect("it is shipped");
    let mapping = Mapping {
        spatial: vec![vec![(Dim::Q, 14)], vec![(Dim::C, 3), (Dim::S, 3)]],
        pe: [1, 1, 8, 1, 1, 1, 3, 1],
        levels: vec![
            LevelLoops::new([1, 1, 4, 1, 8, 2, 1, 1], [Group::Filters, Group::Positions, Group::Reduction]),
            LevelLoops::new([1, 1, 1, 1, 14, 4, 1, 1], [Group::Positions, Group::Reduction, Group::Filters]),
        ],
    };
    let cost = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("the mapping fits");
    let c = cost.counts;
    let macs = layer.macs();
    let sum = |a: &[wattle_accel::Accesses; 3]| a.iter().map(|x| x.total()).sum::<f64>();
    // The example packs two 8-bit values in a word of the first two pads and eight in one of the buffer.
    let per_mac = |pj: f64| pj / macs * 1e3;
    vec![
        Row::exact("psum SPad accesses", 18063360.0, c.pe[2].total()),
        Row::exact("weight SPad accesses", 11031552.0, c.pe[1].total()),
        Row::exact("ifmap SPad accesses", 12192768.0, c.pe[0].total()),
        Row::exact("buffer accesses", 1913456.0, sum(&c.buffers[0])),
        Row::exact("DRAM accesses", 572528.0, sum(&c.dram)),
        Row::exact("cycles", 86016.0, cost.cycles.compute),
        Row::exact("utilisation, %", 75.0, 100.0 * macs / cost.cycles.compute / 168.0),
        Row::within("MAC, fJ a product", 207.69, per_mac(cost.energy.mac), 0.002),
        Row::within("SPads, fJ a product", 386.77 + 1006.69 + 112.37, per_mac(cost.energy.pe), 0.002),
        Row::within("buffer, fJ a product", 375.27, per_mac(cost.energy.buffers[0]), 0.002),
        Row::within("DRAM, fJ a product", 3380.86, per_mac(cost.energy.dram), 0.002),
        Row::within("energy, µJ", 59.28, cost.energy.total() * 1e-6, 0.002),
    ]
}

#[test]
fn the_given_mapping_has_the_published_counts_cycles_and_energy() {
    for row in rows() {
        assert!(row.met(), "{row:?}");
    }
}
