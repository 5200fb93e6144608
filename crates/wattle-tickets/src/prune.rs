//! One round of magnitude pruning: which weights may go, and exactly how many do.

use serde::{Deserialize, Serialize};
use wattle_data::random::{Purpose, Stream};
use wattle_graph::ops::Op;
use wattle_graph::{Graph, Mask, Parameters, Role};

/// Whether weights compete within their layer or across the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One ranking of all weights.
    Global,
    /// A ranking for each layer.
    LayerWise,
}

/// Share of the remaining weights pruned in one round, by kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fractions {
    /// Convolutions.
    pub conv: f64,
    /// Dense layers before the last.
    pub dense: f64,
    /// The last layer; 0 leaves it whole.
    pub output: f64,
}

/// A weight tensor that may be pruned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prunable {
    /// Name of the parameter tensor.
    pub tensor: String,
    /// Share of its remaining weights pruned in one round (layer-wise), or whether it takes part (global: not 0).
    pub fraction: f64,
}

/// The weights of convolutions and matrix products, in the order the network applies them. Biases, norms and
/// embeddings are never pruned.
pub fn prunable(graph: &Graph, fractions: Fractions) -> Vec<Prunable> {
    let mut layers: Vec<Prunable> = vec![];
    for node in graph.nodes() {
        let fraction = match &node.op {
            Op::Conv(_) | Op::ConvTranspose(_) => fractions.conv,
            Op::Gemm(_) | Op::MatMul(_) => fractions.dense,
            _ => continue,
        };
        for input in node.inputs.iter().take(2).flatten() {
            let Some(parameter) = graph.parameter_of(*input) else { continue };
            let seen = layers.iter().any(|l| l.tensor == parameter.tensor);
            if parameter.role == Role::Trainable && !seen {
                layers.push(Prunable { tensor: parameter.tensor.clone(), fraction });
            }
        }
    }
    if let Some(last) = layers.last_mut() {
        last.fraction = fractions.output;
    }
    layers.retain(|l| l.fraction > 0.0);
    layers
}

/// Magnitude, layer and index of a weight.
type Ranked = (f32, usize, usize);

/// The masks after one more round: of the `n` weights still alive in a ranking, exactly `ceil(fraction n)` of the
/// smallest magnitude go, ties in the order of layers and then of indices.
///
/// `trained` holds the weights that are ranked and the masks so far. With [`Scope::Global`] the fraction is that
/// of the first layer that takes part.
pub fn prune(trained: &Parameters, layers: &[Prunable], scope: Scope) -> Vec<(String, Mask)> {
    let masks = |layer: &Prunable| {
        let len = trained.get(&layer.tensor).map_or(0, |t| t.len());
        trained.mask(&layer.tensor).cloned().unwrap_or_else(|| Mask::full(len))
    };
    let mut all: Vec<(String, Mask)> = layers.iter().map(|l| (l.tensor.clone(), masks(l))).collect();
    let ranked = |index: usize, mask: &Mask| -> Vec<Ranked> {
        let tensor = trained.get(&layers[index].tensor);
        let values = tensor.and_then(|t| t.as_f32()).unwrap_or(&[]);
        let alive = values.iter().enumerate().filter(|(i, _)| mask.get(*i));
        alive.map(|(i, x)| (x.abs(), index, i)).collect()
    };
    let groups: Vec<(f64, Vec<Ranked>)> = match scope {
        Scope::LayerWise => (0..layers.len()).map(|i| (layers[i].fraction, ranked(i, &all[i].1))).collect(),
        Scope::Global => {
            let weights = (0..layers.len()).flat_map(|i| ranked(i, &all[i].1)).collect();
            vec![(layers.first().map_or(0.0, |l| l.fraction), weights)]
        }
    };
    for (fraction, mut weights) in groups {
        let count = exact_count(fraction, weights.len());
        // Unstable sorting is exact here: no two entries are equal, since index pairs are unique.
        weights.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        for &(_, layer, index) in &weights[..count] {
            all[layer].1.set(index, false);
        }
    }
    all
}

/// Masks that keep a random share `density` (0 to 1) of each layer's weights, rounded to the nearest count: what a
/// ticket is compared with, and what speed is measured on before there is one.
pub fn random_masks(
    parameters: &Parameters,
    layers: &[Prunable],
    density: f64,
    seed: u64,
) -> Vec<(String, Mask)> {
    let masks = layers.iter().enumerate().map(|(index, layer)| {
        let len = parameters.get(&layer.tensor).map_or(0, |t| t.len());
        let mut order: Vec<usize> = (0..len).collect();
        Stream::new(seed, Purpose::Ties, &[index as u64]).shuffle(&mut order);
        let mut mask = Mask::from_bools((0..len).map(|_| false));
        let kept = ((density * len as f64).round() as usize).min(len);
        order[..kept].iter().for_each(|&i| mask.set(i, true));
        (layer.tensor.clone(), mask)
    });
    masks.collect()
}

/// `ceil(fraction n)`, at most `n`; a product that is whole but for rounding is not rounded up once more.
fn exact_count(fraction: f64, n: usize) -> usize {
    ((fraction * n as f64 - 1e-9).ceil().max(0.0) as usize).min(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_graph::Tensor;

    fn parameters(layers: &[(&str, &[f32])]) -> Parameters {
        let mut parameters = Parameters::new();
        for (name, values) in layers {
            parameters.insert(*name, Tensor::f32([values.len()], values.to_vec()));
        }
        parameters
    }

    fn layers(fractions: &[(&str, f64)]) -> Vec<Prunable> {
        fractions
            .iter()
            .map(|(tensor, fraction)| Prunable { tensor: tensor.to_string(), fraction: *fraction })
            .collect()
    }

    #[test]
    fn exactly_the_ceiling_goes_and_ties_fall_by_index() {
        let equal = parameters(&[("a", &[1.0; 7])]);
        let masks = prune(&equal, &layers(&[("a", 0.2)]), Scope::Global);
        let alive: Vec<bool> = (0..7).map(|i| masks[0].1.get(i)).collect();
        assert_eq!(alive, [false, false, true, true, true, true, true]);
        assert_eq!((exact_count(0.2, 10), exact_count(0.2, 11), exact_count(0.1, 30)), (2, 3, 3));
    }

    #[test]
    fn magnitudes_rank_not_signs_and_dead_weights_are_not_counted_again() {
        let mut weights = parameters(&[("a", &[-5.0, 0.1, 3.0, -0.2, 4.0])]);
        let rules = layers(&[("a", 0.4)]);
        for (name, mask) in prune(&weights, &rules, Scope::LayerWise) {
            weights.set_mask(&name, mask);
        }
        assert_eq!(weights.get("a").unwrap().as_f32().unwrap(), [-5.0, 0.0, 3.0, 0.0, 4.0]);
        let masks = prune(&weights, &rules, Scope::LayerWise);
        assert_eq!(masks[0].1.count(), 1, "ceil(0.4 * 3) = 2 of the 3 alive go");
        assert!(masks[0].1.get(0));
    }

    #[test]
    fn random_masks_keep_the_count_asked_for_and_follow_the_seed() {
        let weights = parameters(&[("a", &[1.0; 40]), ("b", &[1.0; 40])]);
        let rules = layers(&[("a", 1.0), ("b", 1.0)]);
        let masks = |seed| random_masks(&weights, &rules, 0.05, seed);
        assert_eq!(masks(1).iter().map(|(_, m)| m.count()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(masks(1), masks(1));
        assert!((2..9).any(|seed| masks(seed)[0].1 != masks(1)[0].1));
        assert_ne!(masks(1)[0].1, masks(1)[1].1, "layers draw apart");
    }

    #[test]
    fn global_and_layer_wise_rankings_differ() {
        let weights = parameters(&[("a", &[1.0, 2.0, 3.0, 4.0]), ("b", &[10.0, 20.0, 30.0, 40.0])]);
        let rules = layers(&[("a", 0.5), ("b", 0.5)]);
        let counts =
            |scope| prune(&weights, &rules, scope).iter().map(|(_, m)| m.count()).collect::<Vec<_>>();
        assert_eq!(counts(Scope::Global), [0, 4]);
        assert_eq!(counts(Scope::LayerWise), [2, 2]);
    }
}
