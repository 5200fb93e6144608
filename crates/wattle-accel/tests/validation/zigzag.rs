//! T6: ZigZag's ResNet-18 on its `tpu_like`, the mappings that ZigZag chose priced by the model here.

use wattle_accel::{
    Architecture, Dim, Effort, Format, Group, Layer, LevelLoops, Mapping, Objective, evaluate, map,
};

use crate::published::Row;

/// Layers alike, channels, outputs, output map, input map, taps, stride; channels and rows and columns of the filter
/// below ZigZag's sum register; its energy in pJ and cycles for one of them. Read from what zigzag-dse 3.9.1 returns
/// by `benches/peers/mappers.py`; every other loop runs at the buffer.
type Found = (f64, [usize; 6], [usize; 3], f64, f64);

const FOUND: [Found; 12] = [
    (1.0, [3, 64, 112, 224, 7, 2], [1, 7, 7], 128899782.592, 1248163.0),
    (4.0, [64, 64, 56, 56, 3, 1], [2, 3, 3], 66996199.936, 138048.0),
    (1.0, [64, 128, 28, 56, 3, 2], [2, 3, 3], 47270885.888, 81600.0),
    (1.0, [64, 128, 28, 56, 1, 2], [2, 1, 1], 16432105.6, 18879.0),
    (3.0, [128, 128, 28, 28, 3, 1], [4, 3, 3], 57967469.312, 125504.0),
    (1.0, [128, 256, 14, 28, 3, 2], [4, 3, 3], 52822913.536, 69056.0),
    (1.0, [128, 256, 14, 28, 1, 2], [4, 1, 1], 11459105.088, 10431.0),
    (3.0, [256, 256, 14, 14, 3, 1], [8, 3, 1], 88387503.36, 123934.0),
    (1.0, [256, 512, 7, 14, 3, 2], [1, 3, 1], 127902977.472, 153135.0),
    (1.0, [256, 512, 7, 14, 1, 2], [8, 1, 1], 16507176.352, 19583.0),
    (3.0, [512, 512, 7, 7, 3, 1], [16, 1, 1], 239327692.416, 299983.0),
    (1.0, [512, 1000, 1, 1, 1, 1], [16, 1, 1], 45108639.12, 63739.0),
];

fn layers() -> impl Iterator<Item = (Layer, Mapping, Found)> {
    FOUND.into_iter().map(|found| {
        let (_, [c, m, map, input, taps, stride], [c0, r0, s0], ..) = found;
        let layer = Layer { input: [input; 2], ..Layer::conv("l", 1, c, m, map, taps, stride) };
        let (columns, rows) = (m.min(32), c.min(32));
        let rest = |extent: usize, inner: usize| extent.div_ceil(inner);
        let mapping = Mapping {
            spatial: vec![vec![(Dim::M, columns)], vec![(Dim::C, rows)]],
            pe: [1, 1, 1, c0, 1, 1, r0, s0],
            levels: vec![
                LevelLoops::NONE,
                LevelLoops::new(
                    [1, 1, rest(m, columns), rest(c, rows * c0), map, map, rest(taps, r0), rest(taps, s0)],
                    [Group::Positions, Group::Filters, Group::Reduction],
                ),
            ],
        };
        (layer, mapping, found)
    })
}

fn arch() -> Architecture {
    Architecture::parse(include_str!("../../../../examples/accel/tpu-like.toml")).expect("a committed file")
}

/// The sums over the network. ZigZag's test states 1871436380.66 pJ; the cycles are those of the package as pip
/// installs it, with its drain of the systolic array.
pub fn rows() -> Vec<Row> {
    let (arch, mut sums) = (arch(), [0.0; 4]);
    let table = arch.table().expect("it is shipped");
    for (layer, mapping, (times, .., pj, cycles)) in layers() {
        let cost = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("the mapping fits");
        let each = [pj, cycles, cost.energy.total(), cost.cycles.total()];
        sums = std::array::from_fn(|i| sums[i] + times * each[i]);
    }
    vec![
        Row::within("ResNet-18, energy, µJ", sums[0] * 1e-6, sums[2] * 1e-6, 0.05),
        Row::within("ResNet-18, cycles", sums[1], sums[3], 0.05),
    ]
}

#[test]
fn zigzags_mappings_cost_here_what_they_cost_there() {
    for row in rows() {
        assert!(row.met(), "{row:?}");
    }
}

#[test]
fn the_golden_is_the_sum_of_the_layers() {
    let sum: f64 = FOUND.iter().map(|f| f.0 * f.3).sum();
    assert!((sum / 1871436380.66 - 1.0).abs() < 1e-9, "{sum}");
}

#[test]
fn no_mapping_of_zigzag_has_a_smaller_edp_than_the_one_proven_here() {
    let arch = arch();
    let table = arch.table().expect("it is shipped");
    for (layer, theirs, _) in layers() {
        let theirs = evaluate(&arch, &layer, &table, Format::default(), &theirs).expect("the mapping fits");
        let ours = map(&arch, &layer, &table, Format::default(), Objective::Edp, Effort::default())
            .expect("it fits");
        assert!(ours.proven() && ours.value <= Objective::Edp.value(&theirs) * (1.0 + 1e-12), "{layer:?}");
    }
}
