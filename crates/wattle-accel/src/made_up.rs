//! Values for layers whose tensors are not at hand, with the zeros that the layer says.

use crate::layer::{Layer, Operand};

/// Values with the zeros of the layer's masks, or of its densities where there are none, for layers whose tensors are
/// not at hand: ones, or small integers drawn by a fixed generator, channel by channel. Returns activations and weights.
pub fn made_up(layer: &Layer, seed: u64) -> (Vec<i8>, Vec<i8>) {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut draw = move |density: f64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let alive = ((state >> 40) as f64) < density * (1u64 << 24) as f64;
        if alive { ((state >> 33) % 15) as i8 + 1 } else { 0 }
    };
    let [_, g, m, c, _, _, r, s] = layer.bounds;
    let plane = layer.input[0] * layer.input[1];
    let iacts = (0..layer.elements(Operand::Iact) as usize)
        .map(|i| match &layer.iact.mask {
            Some(mask) if mask.len() as f64 == layer.elements(Operand::Iact) => i8::from(mask.get(i)),
            _ => draw(layer.iact.of_channel(i / plane % (g * c))),
        })
        .collect();
    let weights = (0..g * m * c * r * s)
        .map(|i| match &layer.weight.mask {
            Some(mask) if mask.len() == g * m * c * r * s => i8::from(mask.get(i)),
            _ => draw(layer.weight.of_channel(i / (m * c * r * s) * c + i / (r * s) % c)),
        })
        .collect();
    (iacts, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Sparsity;
    use wattle_graph::Mask;

    #[test]
    fn values_have_the_zeros_of_the_masks_of_both_operands() {
        let layer = Layer::conv("l", 1, 2, 3, 4, 1, 1);
        let bits = |n: usize| (0..n).map(|i| i % 3 == 1).collect::<Vec<bool>>();
        let mask = |operand| Mask::from_bools(bits(layer.elements(operand) as usize));
        let [iact, weight] = [Operand::Iact, Operand::Weight].map(|o| Sparsity::of_mask(&layer, o, mask(o)));
        let (iacts, weights) = made_up(&layer.clone().with_sparsity(iact, weight), 1);
        assert_eq!(iacts.iter().map(|&v| v != 0).collect::<Vec<_>>(), bits(32));
        assert_eq!(weights.iter().map(|&v| v != 0).collect::<Vec<_>>(), bits(6));
    }
}
