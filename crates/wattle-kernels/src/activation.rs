//! Activations that a product can apply as it stores its result.

use crate::elementwise::{self, Unary};
use crate::simd::Isa;

/// The function applied to `product + bias + residual`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, low), high); ReLU6 is `Clip { low: 0.0, high: 6.0 }`.
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Any other function, applied to the block just computed while it is in cache.
    Unary(Unary),
}

impl Activation {
    /// Whether bounds alone describe it, so that the micro-kernel applies it in registers.
    pub(crate) fn is_clamp(&self) -> bool {
        !matches!(self, Activation::Unary(_))
    }

    pub(crate) fn clamp(&self) -> (f32, f32) {
        match *self {
            Activation::None | Activation::Unary(_) => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { low, high } => (low, high),
        }
    }

    /// Applies a function that is not a clamp, in place.
    pub(crate) fn apply(&self, isa: Isa, row: &mut [f32]) {
        if let Activation::Unary(f) = *self {
            elementwise::unary_in_place_on(isa, f, row);
        }
    }
}
