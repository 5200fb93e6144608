//! Functions of single elements, and of pairs of elements with broadcasting.

use crate::Cpu;
use crate::math;
use crate::simd::{Isa, Kernel, Simd};

/// Elements of one task: 32 KiB of `f32`, which a first-level cache holds.
const PIECE: usize = 8192;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Unary {
    Abs,
    Neg,
    Exp,
    Log,
    Sqrt,
    Square,
    Reciprocal,
    Floor,
    Ceil,
    /// Nearest integer, ties to even (ONNX Round).
    Round,
    /// -1, 0 or 1.
    Sign,
    Erf,
    Tanh,
    Sigmoid,
    Relu,
    LeakyRelu {
        alpha: f32,
    },
    /// x above 0, alpha (e^x - 1) below.
    Elu {
        alpha: f32,
    },
    Clip {
        low: f32,
        high: f32,
    },
    /// x above 0, alpha (e^(x / alpha) - 1) below.
    Celu {
        alpha: f32,
    },
    /// gamma x above 0, gamma alpha (e^x - 1) below.
    Selu {
        alpha: f32,
        gamma: f32,
    },
    /// x above alpha, 0 below.
    ThresholdedRelu {
        alpha: f32,
    },
    /// clip(alpha x + beta, 0, 1).
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// x clip(x / 6 + 1/2, 0, 1).
    HardSwish,
    /// x sigmoid(x), also called Swish.
    Silu,
    /// x (1 + erf(x / sqrt 2)) / 2.
    Gelu,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    GeluTanh,
    /// ln(1 + e^x).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// x tanh(ln(1 + e^x)).
    Mish,
}

impl Unary {
    /// Whether [`unary_gradient`] takes the output y of this function (`true`) or its input x (`false`).
    pub fn gradient_takes_output(self) -> bool {
        matches!(
            self,
            Unary::Exp
                | Unary::HardSigmoid { .. }
                | Unary::Reciprocal
                | Unary::Relu
                | Unary::Sigmoid
                | Unary::Sqrt
                | Unary::Tanh
        )
    }
}

/// sqrt(2 / pi), the constant of the tanh form of GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// The value at `x`.
#[inline(always)]
fn value<S: Simd>(s: S, f: Unary, x: S::F) -> S::F {
    let zero = s.zero();
    let one = s.splat(1.0);
    let half = s.splat(0.5);
    match f {
        Unary::Abs => s.abs(x),
        Unary::Neg => s.neg(x),
        Unary::Exp => math::exp(s, x),
        Unary::Log => math::log(s, x),
        Unary::Sqrt => s.sqrt(x),
        Unary::Square => s.mul(x, x),
        Unary::Reciprocal => s.div(one, x),
        Unary::Floor => s.floor(x),
        Unary::Ceil => s.neg(s.floor(s.neg(x))),
        Unary::Round => s.round(x),
        Unary::Sign => s.select(s.eq(x, zero), x, s.select(s.eq(x, x), s.copysign(one, x), x)),
        Unary::Erf => math::erf(s, x),
        Unary::Tanh => math::tanh(s, x),
        Unary::Sigmoid => math::sigmoid(s, x),
        Unary::Relu => s.max(zero, x),
        Unary::LeakyRelu { alpha } => s.select(s.lt(x, zero), s.mul(x, s.splat(alpha)), x),
        Unary::Elu { alpha } => {
            s.select(s.lt(x, zero), s.mul(s.splat(alpha), s.sub(math::exp(s, x), one)), x)
        }
        Unary::Celu { alpha } => {
            let below = s.mul(s.splat(alpha), s.sub(math::exp(s, s.div(x, s.splat(alpha))), one));
            s.select(s.lt(zero, x), x, below)
        }
        Unary::Selu { alpha, gamma } => {
            let below = s.mul(s.splat(alpha), s.sub(math::exp(s, x), one));
            s.mul(s.splat(gamma), s.select(s.lt(zero, x), x, below))
        }
        Unary::ThresholdedRelu { alpha } => s.select(s.lt(s.splat(alpha), x), x, zero),
        Unary::Clip { low, high } => s.min(s.splat(high), s.max(s.splat(low), x)),
        Unary::HardSigmoid { alpha, beta } => {
            s.min(one, s.max(zero, s.fma(s.splat(alpha), x, s.splat(beta))))
        }
        Unary::HardSwish => s.mul(x, s.min(one, s.max(zero, s.fma(s.splat(1.0 / 6.0), x, half)))),
        Unary::Silu => s.mul(x, math::sigmoid(s, x)),
        Unary::Gelu => {
            let e = math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
            s.mul(s.mul(half, x), s.add(one, e))
        }
        Unary::GeluTanh => s.mul(s.mul(half, x), s.add(one, math::tanh(s, gelu_inner(s, x)))),
        Unary::Softplus => {
            let e = math::exp(s, s.neg(s.abs(x)));
            s.add(s.max(zero, x), math::log(s, s.add(one, e)))
        }
        Unary::Softsign => s.div(x, s.add(one, s.abs(x))),
        Unary::Mish => {
            let n = mish_numerator(s, x);
            s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
        }
    }
}

/// n, where tanh(ln(1 + e^x)) = n / (n + 2): e^x (e^x + 2). Beyond 20 the quotient is 1.
#[inline(always)]
fn mish_numerator<S: Simd>(s: S, x: S::F) -> S::F {
    let e = math::exp(s, s.min(s.splat(20.0), x));
    s.mul(e, s.add(e, s.splat(2.0)))
}

/// x, or the nearer of -`limit` and `limit` where x is beyond: there the slope has long been that of infinity, and
/// products of infinity and 0 do not arise.
#[inline(always)]
fn within<S: Simd>(s: S, x: S::F, limit: f32) -> S::F {
    s.min(s.splat(limit), s.max(s.splat(-limit), x))
}

#[inline(always)]
fn gelu_inner<S: Simd>(s: S, x: S::F) -> S::F {
    let x2 = s.mul(x, x);
    s.mul(s.mul(s.splat(SQRT_2_OVER_PI), x), s.fma(s.splat(0.044_715), x2, s.splat(1.0)))
}

/// The derivative at `x`, or at the output where [`Unary::gradient_takes_output`].
#[inline(always)]
fn slope<S: Simd>(s: S, f: Unary, x: S::F) -> S::F {
    let zero = s.zero();
    let one = s.splat(1.0);
    let half = s.splat(0.5);
    match f {
        Unary::Abs => s.select(s.lt(zero, x), one, s.select(s.lt(x, zero), s.splat(-1.0), zero)),
        Unary::Neg => s.splat(-1.0),
        Unary::Exp => x,
        Unary::Log => s.div(one, x),
        Unary::Sqrt => s.div(half, x),
        Unary::Square => s.add(x, x),
        Unary::Reciprocal => s.neg(s.mul(x, x)),
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Sign => zero,
        Unary::Erf => s.mul(s.splat(std::f32::consts::FRAC_2_SQRT_PI), math::exp(s, s.neg(s.mul(x, x)))),
        Unary::Tanh => s.sub(one, s.mul(x, x)),
        Unary::Sigmoid => s.mul(x, s.sub(one, x)),
        Unary::Relu => s.select(s.lt(zero, x), one, zero),
        Unary::LeakyRelu { alpha } => s.select(s.lt(x, zero), s.splat(alpha), one),
        Unary::Elu { alpha } => s.select(s.lt(x, zero), s.mul(s.splat(alpha), math::exp(s, x)), one),
        Unary::Celu { alpha } => s.select(s.lt(zero, x), one, math::exp(s, s.div(x, s.splat(alpha)))),
        Unary::Selu { alpha, gamma } => {
            let below = s.mul(s.splat(alpha), math::exp(s, x));
            s.mul(s.splat(gamma), s.select(s.lt(zero, x), one, below))
        }
        Unary::ThresholdedRelu { alpha } => s.select(s.lt(s.splat(alpha), x), one, zero),
        Unary::Clip { low, high } => {
            let below = s.select(s.lt(s.splat(low), x), one, zero);
            s.select(s.lt(x, s.splat(high)), below, zero)
        }
        Unary::HardSigmoid { alpha, .. } => {
            let below = s.select(s.lt(zero, x), s.splat(alpha), zero);
            s.select(s.lt(x, one), below, zero)
        }
        Unary::HardSwish => {
            let inner = s.fma(x, s.splat(1.0 / 3.0), half);
            let below = s.select(s.le(x, s.splat(-3.0)), zero, inner);
            s.select(s.le(s.splat(3.0), x), one, below)
        }
        Unary::Silu => {
            let x = within(s, x, 200.0);
            let y = math::sigmoid(s, x);
            s.mul(y, s.fma(x, s.sub(one, y), one))
        }
        Unary::Gelu => {
            let x = within(s, x, 200.0);
            let cdf =
                s.mul(half, s.add(one, math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)))));
            // 1 / sqrt(2 pi).
            let density = s.mul(s.splat(0.398_942_3), math::exp(s, s.mul(s.splat(-0.5), s.mul(x, x))));
            s.fma(x, density, cdf)
        }
        Unary::GeluTanh => {
            let x = within(s, x, 200.0);
            let t = math::tanh(s, gelu_inner(s, x));
            let inner = s.fma(s.splat(3.0 * 0.044_715), s.mul(x, x), one);
            let inner = s.mul(s.splat(SQRT_2_OVER_PI), inner);
            let sech2 = s.sub(one, s.mul(t, t));
            s.mul(half, s.fma(s.mul(x, sech2), inner, s.add(one, t)))
        }
        Unary::Softplus => math::sigmoid(s, x),
        Unary::Softsign => {
            let d = s.add(one, s.abs(x));
            s.div(one, s.mul(d, d))
        }
        // With t = tanh(ln(1 + e^x)): t + x (1 - t^2) sigmoid x, where 1 - t = 2 / (n + 2) loses no digits.
        Unary::Mish => {
            let x = within(s, x, 200.0);
            let n = mish_numerator(s, x);
            let rest = s.div(s.splat(2.0), s.add(n, s.splat(2.0)));
            let t = s.mul(s.mul(half, n), rest);
            s.fma(s.mul(x, math::sigmoid(s, x)), s.mul(rest, s.add(one, t)), t)
        }
    }
}

/// A function that the compiler knows, so that the choice is made once and not for every element.
trait Known: Copy {
    fn function(self) -> Unary;
}

/// What is done with elements, whatever the function.
trait Elements {
    fn run<S: Simd>(self, s: S, f: impl Known);
}

/// A task of one function. Each is compiled by itself: all in one make a body that takes compilers minutes.
struct Task<F, E> {
    f: F,
    elements: E,
}

impl<F: Known, E: Elements> Kernel for Task<F, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.elements.run(s, self.f);
    }
}

macro_rules! known_functions {
    ($($name:ident { $($field:ident),* })*) => {
        mod known {
            $(
                #[derive(Clone, Copy)]
                pub(super) struct $name { $(pub(super) $field: f32),* }

                impl super::Known for $name {
                    #[inline(always)]
                    fn function(self) -> super::Unary {
                        super::Unary::$name { $($field: self.$field),* }
                    }
                }
            )*
        }

        /// Runs the task of `f`.
        fn run_on(isa: Isa, f: Unary, elements: impl Elements) {
            match f {
                $(Unary::$name { $($field),* } => isa.run(Task { f: known::$name { $($field),* }, elements }),)*
            }
        }
    };
}

known_functions! {
    Abs {}
    Neg {}
    Exp {}
    Log {}
    Sqrt {}
    Square {}
    Reciprocal {}
    Floor {}
    Ceil {}
    Round {}
    Sign {}
    Erf {}
    Tanh {}
    Sigmoid {}
    Relu {}
    LeakyRelu { alpha }
    Elu { alpha }
    Celu { alpha }
    Selu { alpha, gamma }
    ThresholdedRelu { alpha }
    Clip { low, high }
    HardSigmoid { alpha, beta }
    HardSwish {}
    Silu {}
    Gelu {}
    GeluTanh {}
    Softplus {}
    Softsign {}
    Mish {}
}

struct Values {
    x: *const f32,
    y: *mut f32,
    len: usize,
}

impl Elements for Values {
    #[inline(always)]
    fn run<S: Simd>(self, s: S, f: impl Known) {
        let f = f.function();
        let mut i = 0;
        while i + S::LANES <= self.len {
            // SAFETY: x and y have `len` elements; they are equal or disjoint.
            unsafe { s.store(self.y.add(i), value(s, f, s.load(self.x.add(i)))) };
            i += S::LANES;
        }
        let rest = self.len - i;
        if rest > 0 {
            // SAFETY: `rest` elements are left.
            unsafe {
                s.store_partial(self.y.add(i), rest, value(s, f, s.load_partial(self.x.add(i), rest)));
            }
        }
    }
}

struct Slopes {
    x: *const f32,
    dy: *const f32,
    dx: *mut f32,
    len: usize,
}

impl Elements for Slopes {
    #[inline(always)]
    fn run<S: Simd>(self, s: S, f: impl Known) {
        let f = f.function();
        let mut i = 0;
        while i < self.len {
            let n = (self.len - i).min(S::LANES);
            // SAFETY: x, dy and dx have `len` elements and n of them are left; dx may be x or dy itself.
            unsafe {
                if n == S::LANES {
                    let g = slope(s, f, s.load(self.x.add(i)));
                    s.store(self.dx.add(i), s.mul(g, s.load(self.dy.add(i))));
                } else {
                    let g = slope(s, f, s.load_partial(self.x.add(i), n));
                    s.store_partial(self.dx.add(i), n, s.mul(g, s.load_partial(self.dy.add(i), n)));
                }
            }
            i += n;
        }
    }
}

/// y = f(x), on the calling thread.
pub(crate) fn unary_in_place_on(isa: Isa, f: Unary, x: &mut [f32]) {
    run_on(isa, f, Values { x: x.as_ptr(), y: x.as_mut_ptr(), len: x.len() });
}

/// y = f(x) for slices of equal length.
pub fn unary(cpu: &Cpu, f: Unary, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    cpu.threads.for_each_piece(y, PIECE, |i, y| {
        let x = &x[i * PIECE..][..y.len()];
        run_on(cpu.isa, f, Values { x: x.as_ptr(), y: y.as_mut_ptr(), len: y.len() });
    });
}

/// x = f(x).
pub fn unary_in_place(cpu: &Cpu, f: Unary, x: &mut [f32]) {
    cpu.threads.for_each_piece(x, PIECE, |_, x| unary_in_place_on(cpu.isa, f, x));
}

/// dx = f'(x) dy, where `x` is the output of f if [`Unary::gradient_takes_output`] says so, else its input.
pub fn unary_gradient(cpu: &Cpu, f: Unary, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dy.len() && x.len() == dx.len());
    cpu.threads.for_each_piece(dx, PIECE, |i, dx| {
        let (x, dy) = (&x[i * PIECE..][..dx.len()], &dy[i * PIECE..][..dx.len()]);
        let (x, dy) = (x.as_ptr(), dy.as_ptr());
        run_on(cpu.isa, f, Slopes { x, dy, dx: dx.as_mut_ptr(), len: dx.len() });
    });
}

/// dy = f'(x) dy, overwriting the incoming gradient.
pub fn unary_gradient_in_place(cpu: &Cpu, f: Unary, x: &[f32], dy: &mut [f32]) {
    assert_eq!(x.len(), dy.len());
    cpu.threads.for_each_piece(dy, PIECE, |i, dy| {
        let x = x[i * PIECE..][..dy.len()].as_ptr();
        run_on(cpu.isa, f, Slopes { x, dy: dy.as_ptr(), dx: dy.as_mut_ptr(), len: dy.len() });
    });
}
