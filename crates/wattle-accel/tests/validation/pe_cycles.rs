//! T1: cycles of one PE lane on sparse MobileNet, exact by counts and by masks.

use wattle_accel::{Layer, pe};
use wattle_graph::Mask;

use crate::published::{LANE_CYCLES, channel_counts, mobilenet, with_counts};

#[test]
fn counts_give_the_published_cycles_exactly() {
    for (name, layer) in channel_counts() {
        assert_eq!(pe::cycles_from_counts(&name, &layer.nnz_iact, &layer.nnz_weight), Ok(layer.cycles), "{name}");
    }
}

/// The masks themselves are not public; any masks with these counts must give the same cycles.
#[test]
fn masks_with_these_counts_give_the_published_cycles_exactly() {
    for (name, counts) in channel_counts() {
        let positions = counts.E * counts.F;
        let layer = Layer::conv(&name, 1, counts.C, counts.M, counts.E, 1, 1);
        let mut weight = Mask::from_bools(std::iter::repeat_n(false, counts.C * counts.M));
        let mut iact = Mask::from_bools(std::iter::repeat_n(false, counts.C * positions));
        for c in 0..counts.C {
            // 37 is coprime to all sizes, which are powers of two: a walk that meets every place once.
            for k in 0..counts.nnz_iact[c] as usize {
                iact.set(c * positions + (k * 37 + c) % positions, true);
            }
            for k in 0..counts.nnz_weight[c] as usize {
                weight.set((k * 37 + 5 * c) % counts.M * counts.C + c, true);
            }
        }
        assert_eq!(pe::cycles_from_masks(&layer, &iact, &weight), Ok(counts.cycles), "{name}");
    }
}

#[test]
fn densities_of_channels_give_the_cycles_within_half_a_percent_and_one_density_does_not() {
    let layers = mobilenet();
    let mut worst = 0.0f64;
    for (name, counts) in channel_counts() {
        let layer = layers.iter().find(|l| l.name == name).expect("the five are among the 28").clone();
        let layer = with_counts(layer, &counts);
        let error = layer.effective_macs() / counts.cycles as f64 - 1.0;
        assert!(error.abs() < 0.005, "{name}: {error}");
        let uniform = layer.macs() * layer.iact.density * layer.weight.density;
        worst = worst.max((uniform / counts.cycles as f64 - 1.0).abs());
    }
    assert!((0.06..0.07).contains(&worst), "one density is off by up to {worst}");
}

#[test]
fn layers_without_zeros_follow_from_their_shape() {
    let layers = mobilenet();
    assert_eq!(layers.iter().map(Layer::macs).sum::<f64>(), 49_160_192.0);
    for (number, cycles, _) in LANE_CYCLES {
        let layer = &layers[number - 1];
        let dense = [1, 12, 14, 16, 20, 22, 24, 26].contains(&number);
        let macs = layer.macs() as u64;
        assert!(if dense { macs == cycles } else { macs > cycles }, "{}: {macs} against {cycles}", layer.name);
    }
}
