//! Shortcuts that look right: one test for each that no other file here catches.

use std::sync::Arc;

use wattle_accel::{
    Effort, Estimate, Format, Kind, Layer, Objective, Sparsity, csc, evaluate, map_best_format, pe,
};
use wattle_graph::Mask;

use crate::chip::{calibrated, held_out, named, on};
use crate::published::{channel_counts, mobilenet, sparse_mobilenet, with_counts};

/// A mask of `rows` x `columns` (column fastest) with these counts a column, placed by a fixed generator.
fn scattered(rows: usize, counts: &[u64]) -> Vec<Vec<bool>> {
    let mut state = 5u64;
    let columns: Vec<Vec<bool>> = counts
        .iter()
        .map(|&count| {
            let mut alive = vec![false; rows];
            let mut left = count;
            while left > 0 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let row = (state >> 33) as usize % rows;
                left -= u64::from(!std::mem::replace(&mut alive[row], true));
            }
            alive
        })
        .collect();
    columns
}

/// Idle lanes: an odd rest of a column leaves one, the more often the shorter the columns are. The ranges are those of
/// the published masks [D], 0.84 to 0.93, 0.91 to 0.96, 0.95 to 0.98, and 0.01 more: only counts are known here.
#[test]
fn lanes_are_used_as_well_as_on_the_published_masks() {
    for (tile, range) in [(8, 0.83..0.94), (16, 0.90..0.97), (32, 0.94..0.99)] {
        for (name, counts) in channel_counts() {
            let columns = scattered(counts.M, &counts.nnz_weight);
            let layer = Layer::conv(&name, 1, counts.C, counts.M, counts.E, 1, 1);
            let weight =
                Mask::from_bools((0..counts.M * counts.C).map(|i| columns[i % counts.C][i / counts.C]));
            let positions = counts.E * counts.F;
            let iact = Mask::from_bools(
                (0..counts.C * positions).map(|i| ((i % positions) as u64) < counts.nnz_iact[i / positions]),
            );
            let slots =
                pe::simd_cycles_from_masks(&layer, &iact, &weight, tile, 2).expect("masks of its size");
            let used = counts.cycles as f64 / (2 * slots) as f64;
            assert!(range.contains(&used), "{name}, {tile} filters: {used:.3}");
        }
    }
}

/// Cycles of a mask read with the channel slowest are plausible and wrong: on L07 1587648, not 1702140.
#[test]
fn densities_of_channels_in_another_order_are_told_from_the_right_ones() {
    let counts = &channel_counts()["L07"];
    let mut shuffled = counts.nnz_weight.clone();
    shuffled.rotate_left(1);
    let wrong = pe::cycles_from_counts("L07", &counts.nnz_iact, &shuffled).expect("as many");
    assert_ne!(wrong, counts.cycles);
    assert!((wrong as f64 / counts.cycles as f64 - 1.0).abs() < 0.1, "plausible: {wrong}");
}

/// Compressed weights over dense ones at 32 filters a column, as on the published masks [D].
#[test]
fn compressing_dense_weights_makes_them_larger() {
    let published = [("L09", 1.28), ("L13", 1.02), ("L21", 0.95), ("L07", 0.84), ("L27", 0.50)];
    for (name, ratio) in published {
        let counts = &channel_counts()[name];
        let columns = counts.nnz_weight.len() as f64;
        let bits: f64 = counts
            .nnz_weight
            .iter()
            .map(|&n| csc::expected_weight_bits(32, n as f64 / counts.M as f64) / 8.0)
            .sum();
        assert!((bits / columns / ratio - 1.0).abs() < 0.06, "{name}: {} against {ratio}", bits / columns);
    }
}

#[test]
fn the_chosen_format_costs_no_more_than_always_compressing() {
    let arch = named("eyeriss-v2");
    let table = arch.table().expect("it is shipped");
    for layer in sparse_mobilenet().iter().filter(|l| ["L09", "L13", "L27"].contains(&l.name.as_str())) {
        let chosen =
            map_best_format(&arch, layer, &table, Objective::Energy, Effort::default()).expect("it fits");
        let compressed = Format { iact: true, weight: true };
        let always =
            wattle_accel::map(&arch, layer, &table, compressed, Objective::Energy, Effort::default())
                .expect("it fits");
        assert!(chosen.value <= always.value * (1.0 + 1e-9), "{}", layer.name);
    }
}

/// The pad holds 192 pairs. 32 filters of 16 activations are 512 weights; they fit when they are sparse enough in
/// every PE, and one dense corner is enough to refuse them.
#[test]
fn thirty_two_filters_fit_if_the_fullest_pe_holds_them() {
    let arch = named("eyeriss-v2");
    let table = arch.table().expect("it is shipped");
    let base = Layer::conv("conv", 1, 64, 64, 8, 1, 1);
    let with = |alive: &dyn Fn(usize, usize) -> bool| {
        let mask = Mask::from_bools((0..64 * 64).map(|i| alive(i / 64, i % 64)));
        let weight = Sparsity { density: mask.density(), per_channel: None, mask: Some(Arc::new(mask)) };
        base.clone().with_sparsity(Sparsity::uniform(0.5), weight)
    };
    let format = Format { iact: true, weight: true };
    let found = wattle_accel::map(&arch, &base, &table, Format::default(), Objective::Edp, Effort::default());
    let mut mapping = found.expect("it fits").mapping;
    mapping.spatial = vec![vec![]; 4];
    mapping.pe = [1, 1, 32, 16, 1, 1, 1, 1];
    mapping.levels[1].bounds = [1, 1, 2, 4, 8, 8, 1, 1];
    mapping.levels[0].bounds = [1; 8];
    // Twelve weights of each column of 32: 16 x 12 pairs are 192.
    let fits = with(&|filter, channel| (filter + channel) % 32 < 12);
    evaluate(&arch, &fits, &table, format, &mapping).expect("192 pairs fit");
    let dense = base.clone().with_sparsity(Sparsity::uniform(0.5), Sparsity::dense());
    assert!(evaluate(&arch, &dense, &table, Format::default(), &mapping).is_err(), "512 weights do not");
    // Far sparser on average, with one PE of 13 weights a column.
    let corner = with(&|filter, channel| filter < 13 && channel < 16);
    assert!(corner.weight.density < fits.weight.density / 4.0);
    let refused = evaluate(&arch, &corner, &table, format, &mapping).expect_err("208 pairs do not fit");
    assert!(refused.to_string().contains("224"), "14 of 13 in whole words, 16 columns: {refused}");
}

/// 2560.3 inferences/J are 251.7 GOPS/W because the paper counts the products with zeros too.
#[test]
fn operations_are_counted_with_zeros() {
    let macs: f64 = mobilenet().iter().map(Layer::macs).sum();
    assert!((2560.3 * 2.0 * macs / 1e9 - 251.7).abs() < 0.1);
}

fn v2() -> Estimate {
    on(&named("eyeriss-v2"), sparse_mobilenet())
}

#[test]
fn effective_products_over_all_multipliers_would_be_far_too_fast() {
    let products: f64 = sparse_mobilenet().iter().map(Layer::effective_macs).sum();
    let naive = 200e6 / (products / 384.0);
    assert!(naive > 1.5 * 1470.6, "{naive}");
    assert!(1.0 / v2().latency_s() < 0.75 * naive);
}

/// Modes follow from loops: a fully connected layer broadcasts activations and sends every cluster weights of its own; a
/// depth-wise one sends activations to one cluster each.
#[test]
fn mesh_modes_are_those_of_the_paper_where_reuse_leaves_no_choice() {
    let estimate = v2();
    for layer in &estimate.layers {
        match layer.kind {
            Kind::Depthwise => {
                assert!(layer.mode.starts_with("iact unicast"), "{}: {}", layer.name, layer.mode)
            }
            Kind::Gemm => assert_eq!(layer.mode, "iact broadcast, weight unicast", "{}", layer.name),
            Kind::Conv => (),
        }
    }
}

#[test]
fn every_published_value_says_how_it_is_known() {
    for row in calibrated().into_iter().chain(held_out()) {
        assert!(["[V]", "[D]", "[M]"].iter().any(|mark| row.what.ends_with(mark)), "{}", row.what);
    }
    assert!(calibrated().len() <= 2, "at most two values set the energy");
}

#[test]
fn what_the_press_said_of_v1_is_said_of_v1() {
    let page = include_str!("../../../../docs/results/accelerator-validation.md");
    let line = page.lines().find(|l| l.contains("10x less energy")).expect("it is on the page");
    assert!(line.contains("Eyeriss v1 (2016), never of v2"), "{line}");
}

/// Counts of channels, not one density, feed the five layers that have them.
#[test]
fn the_whole_chip_runs_on_the_published_counts() {
    let counts = channel_counts();
    for layer in sparse_mobilenet().iter().filter(|l| counts.contains_key(&l.name)) {
        let exact = with_counts(layer.clone(), &counts[&layer.name]);
        assert_eq!(layer.effective_macs(), exact.effective_macs(), "{}", layer.name);
    }
}
