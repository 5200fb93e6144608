//! T3: Eyeriss of ISCA 2016 (Fig. 10): the energies of the blocking that costs least, found among nests of this crate.
//!
//! The rules of the search are those that nn_dataflow states for its row-stationary mapping (`MapStrategyEyeriss`,
//! read; its test holds the published values): filter rows run down the array and output rows across it, folded into
//! spare rows or repeated for more filters or channels; loops over channels, filters and images are blocked at the
//! PE, the buffer and external memory; AlexNet is two halves up to its fifth layer. That search counts sums of a pass
//! as free at the buffer; the accesses of the blocking it finds are counted by this crate's model.

use wattle_accel::{
    Architecture, Dim, EnergyTable, Format, Group, Halo, Layer, LevelLoops, Mapping, ORDERS, Order, PeKind,
    evaluate,
};

use crate::published::Row;

const SIDE: usize = 16;
const BATCH: usize = 16;
/// Words of 16 bits: 512 B a PE, 128 kB of buffer, each for all tensors together.
const PE_WORDS: usize = 256;
const BUFFER_BYTES: f64 = 131072.0;

/// Name; halves; ALU, register-file and DRAM energy, 1e9 MAC units, 16 images; the layer's half.
const PUBLISHED: [(&str, f64, f64, f64, f64); 8] = [
    ("conv1", 2.0, 1.69, 6.75, 2.46),
    ("conv2", 2.0, 3.58, 14.33, 2.27),
    ("conv3", 2.0, 2.39, 9.57, 2.02),
    ("conv4", 2.0, 1.79, 7.18, 1.57),
    ("conv5", 2.0, 1.20, 4.78, 1.05),
    ("fc1", 1.0, 0.60, 2.42, 7.78),
    ("fc2", 1.0, 0.27, 1.07, 3.39),
    ("fc3", 1.0, 0.07, 0.26, 0.84),
];

/// Input maps as large as the windows reach: padding is fetched like other values.
fn halves() -> [Layer; 8] {
    let layer = |c, m, map, taps, stride| {
        let mut layer = Layer::conv("half", 1, c, m, map, taps, stride);
        layer.bounds[0] = BATCH;
        layer
    };
    [
        layer(3, 48, 55, 11, 4),
        layer(48, 128, 27, 5, 1),
        layer(256, 192, 13, 3, 1),
        layer(192, 192, 13, 3, 1),
        layer(192, 128, 13, 3, 1),
        layer(256, 4096, 1, 6, 1),
        layer(4096, 4096, 1, 1, 1),
        layer(4096, 1000, 1, 1, 1),
    ]
}

fn architecture() -> Architecture {
    let mut arch = Architecture::named("eyeriss-v1").expect("it is shipped");
    arch.energy = "eyeriss-65nm-16b-relative".to_string();
    arch.calibration = None;
    (arch.bits.iact, arch.bits.weight, arch.bits.psum, arch.bits.output) = (16.0, 16.0, 16.0, 16.0);
    arch.buffers[0].shared_bytes = Some(BUFFER_BYTES);
    arch.buffers[0].outputs_bypass = false;
    arch.halo = Halo::Reuse;
    arch.pe.kind = PeKind::Dense;
    (arch.pe.iact_words, arch.pe.weight_words, arch.pe.psum_words) = (PE_WORDS, PE_WORDS, PE_WORDS);
    for (axis, dims) in arch.axes.iter_mut().zip(["RPMC", "PM"]) {
        (axis.size, axis.dims) = (SIDE, dims.to_string());
    }
    arch
}

/// Ways to write `n` as a product of three factors.
fn triples(n: usize) -> Vec<[usize; 3]> {
    let of = |n: usize| (1..=n).filter(move |d| n.is_multiple_of(*d));
    of(n).flat_map(|a| of(n / a).map(move |b| [n / a / b, b, a])).collect()
}

/// Loops over each axis of the array.
type Spread = Vec<Vec<(Dim, usize)>>;

/// Spreads of the array, and strips of output rows that it works through one after the other.
fn arrays(layer: &Layer) -> Vec<(Spread, usize)> {
    let (taps, rows) = (layer.bound(Dim::R), layer.bound(Dim::P));
    let folds = rows.div_ceil(SIDE);
    let (down, across) = (SIDE / taps, (SIDE / rows).max(1));
    let stacked = folds.min(down);
    let strips = folds.div_ceil(stacked);
    let spare = down / stacked;
    let column = vec![(Dim::P, rows.div_ceil(folds)), (Dim::M, across)];
    let spread = |channels: usize, filters: usize| {
        vec![vec![(Dim::R, taps), (Dim::P, stacked), (Dim::C, channels), (Dim::M, filters)], column.clone()]
    };
    // Spare rows repeat the set for channels or filters, whichever leaves the fewest passes.
    let passes = |channels: usize| {
        let filters = spare / channels * across;
        layer.bound(Dim::C).div_ceil(channels) * layer.bound(Dim::M).div_ceil(filters)
    };
    let ways: Vec<usize> = (1..=spare).filter(|c| spare.is_multiple_of(*c)).collect();
    let least = ways.iter().map(|&c| passes(c)).min().unwrap_or(0);
    let best = ways.into_iter().filter(|&c| passes(c) == least);
    best.map(|channels| (spread(channels, spare / channels), strips)).collect()
}

/// Blocking of the loops over channels, filters and images: trips at external memory, at the buffer, in the PE.
struct Blocking {
    trips: [[usize; 3]; 3],
    /// Order at external memory and at the buffer, from the innermost out.
    orders: [Order; 2],
}

/// The loop of a group among channels, filters and images.
fn index(group: Group) -> usize {
    match group {
        Group::Reduction => 0,
        Group::Filters => 1,
        Group::Positions => 2,
    }
}

impl Blocking {
    /// How often each tensor (activations, weights, sums in both directions) crosses a level, by nn_dataflow's rule:
    /// the loop that a tensor does not depend on fetches it again unless it runs inside those that it does; a level
    /// where those do not run leaves the tensor where it is.
    fn fetches(&self, level: usize) -> [f64; 3] {
        // The loop that each tensor does not depend on.
        [1, 2, 0].map(|other| {
            let place = |loops: usize| self.orders[level].iter().position(|&g| index(g) == loops);
            let own = (0..3).filter(|&l| l != other && self.trips[l][level] > 1);
            let times = match own.min_by_key(|&l| place(l)) {
                None if level == 0 => 1,
                None => return self.fetches(level - 1)[if other == 0 { 2 } else { other - 1 }],
                Some(innermost) => {
                    let above = level + usize::from(place(other) > place(innermost));
                    self.trips[other][..above].iter().product::<usize>()
                }
            };
            (if other == 0 { 2 * times - 1 } else { times }) as f64
        })
    }
}

/// External accesses of the cheapest blocking: chosen by the rule above, counted by this crate's model.
fn external_accesses(arch: &Architecture, table: &EnergyTable, layer: &Layer) -> f64 {
    let elements = wattle_accel::Operand::ALL.map(|o| layer.elements(o));
    let [_, _, _, _, rows, width, taps, _] = layer.bounds;
    let mut best: Option<(f64, Mapping)> = None;
    for (spatial, strips) in arrays(layer) {
        let spread = |dim: Dim| -> usize {
            spatial.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| n).product()
        };
        // Strips fetch the rows between them twice. A PE takes in whole rows.
        let strip = rows as f64 / strips as f64;
        let reach = ((strip - 1.0) * layer.stride[0] as f64 + taps as f64) * strips as f64;
        let moved = [elements[0] * reach / layer.input[0] as f64, elements[1], elements[2]];
        let all_rows = (layer.bound(Dim::N) * layer.bound(Dim::C) * taps * rows) as f64;
        let delivered = [
            all_rows * layer.input[1] as f64,
            elements[1] * rows as f64,
            (layer.bound(Dim::N) * layer.bound(Dim::M) * taps * rows * width) as f64,
        ];
        let count = |dim: Dim| layer.bound(dim).div_ceil(spread(dim));
        for c in triples(count(Dim::C)) {
            for m in triples(count(Dim::M)) {
                for n in triples(layer.bound(Dim::N)) {
                    if taps * c[2] * m[2] + taps * c[2] * n[2] + m[2] * n[2] > PE_WORDS {
                        continue;
                    }
                    let mut mapping = Mapping {
                        spatial: spatial.clone(),
                        pe: [n[2], 1, m[2], c[2], 1, 1, 1, taps],
                        levels: vec![
                            LevelLoops::new([n[0], 1, m[0], c[0], strips, 1, 1, 1], ORDERS[0]),
                            LevelLoops::new([n[1], 1, m[1], c[1], 1, width, 1, 1], ORDERS[0]),
                        ],
                    };
                    if evaluate(arch, layer, table, Format::default(), &mapping).is_err() {
                        continue;
                    }
                    for (outer, inner) in ORDERS.into_iter().flat_map(|o| ORDERS.map(|i| (o, i))) {
                        let trips = [c, m, [n[0] * strips, n[1], n[2]]];
                        let blocking = Blocking { trips, orders: [outer, inner] };
                        let [dram, glb] = [0, 1].map(|level| blocking.fetches(level));
                        let cost: f64 = (0..3)
                            .map(|t| {
                                moved[t] * (200.0 * dram[t] + 6.0 * glb[t]) + 2.0 * delivered[t] * glb[t]
                            })
                            .sum();
                        if best.as_ref().is_none_or(|b| cost < b.0) {
                            (mapping.levels[0].order, mapping.levels[1].order) = (outer, inner);
                            best = Some((cost, mapping.clone()));
                        }
                    }
                }
            }
        }
    }
    let (_, mapping) = best.expect("some blocking fits");
    let cost = evaluate(arch, layer, table, Format::default(), &mapping).expect("it fits");
    cost.counts.dram.iter().map(|a| a.total()).sum()
}

/// T3 as a table. A product reads an activation, a weight and a sum and writes a sum: four accesses of cost 1.
pub fn rows() -> Vec<Row> {
    let arch = architecture();
    let table = arch.table().expect("it is shipped");
    let mut rows = vec![];
    for ((name, parts, alu, pads, dram), layer) in PUBLISHED.into_iter().zip(&halves()) {
        let macs = parts * layer.macs() / 1e9;
        rows.push(Row::absolute(&format!("{name} ALU"), alu, macs, 0.1));
        rows.push(Row::absolute(&format!("{name} registers"), pads, 4.0 * macs, 0.1));
        let moved = 200.0 * parts * external_accesses(&arch, &table, layer) / 1e9;
        rows.push(Row::absolute(&format!("{name} DRAM"), dram, moved, 0.1));
    }
    rows
}

#[test]
fn energies_of_the_cheapest_blocking_are_the_published_ones() {
    for row in rows() {
        assert!(row.met(), "{row:?}");
    }
}
