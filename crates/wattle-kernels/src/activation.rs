//! Activations that a product can apply as it stores its result.

use crate::elementwise::{self, Unary};
use crate::simd::{Isa, vectorised};

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
    /// `factor f(x) + shift`, applied like [`Activation::Unary`].
    Scaled {
        /// f.
        function: Unary,
        /// Factor of the function's value.
        factor: f32,
        /// Added after.
        shift: f32,
    },
}

impl Activation {
    /// Whether bounds alone describe it, so that the micro-kernel applies it in registers.
    pub(crate) fn is_clamp(&self) -> bool {
        !matches!(self, Activation::Unary(_) | Activation::Scaled { .. })
    }

    pub(crate) fn clamp(&self) -> (f32, f32) {
        match *self {
            Activation::None | Activation::Unary(_) | Activation::Scaled { .. } => {
                (f32::NEG_INFINITY, f32::INFINITY)
            }
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { low, high } => (low, high),
        }
    }

    /// Applies a function that is not a clamp, in place.
    pub(crate) fn apply(&self, isa: Isa, row: &mut [f32]) {
        match *self {
            Activation::Unary(f) => elementwise::unary_in_place_on(isa, f, row),
            Activation::Scaled { function, factor, shift } => {
                elementwise::unary_in_place_on(isa, function, row);
                scale(isa, factor, shift, row);
            }
            Activation::None | Activation::Relu | Activation::Clip { .. } => {}
        }
    }
}

vectorised! {
    fn scale<'a>(s; factor: f32, shift: f32, row: &'a mut [f32]) {
        for x in row {
            *x = *x * factor + shift;
        }
    }
}
