//! Elementary functions on vectors, accurate to a few units in the last place.
//!
//! The polynomials interpolate the function at Chebyshev nodes of the stated interval (fitted for this file).

// Fitted coefficients: digits as the fit gave them, resemblance to constants of mathematics is no accident.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use crate::simd::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has few bits, so that its multiples by whole numbers are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut y = s.splat(coefficients[N - 1]);
    for c in coefficients.iter().rev().skip(1) {
        y = s.fma(y, x, s.splat(*c));
    }
    y
}

/// e^x; 0 below -104, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    // (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2].
    let q = polynomial(s, r, [0.5, 0.166_665_76, 0.041_666_553, 0.008_363_346, 0.001_392_639_2]);
    let y = s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0));
    // 2^n in two factors, since n reaches beyond the exponents of normal numbers.
    let half = s.floor(s.mul(n, s.splat(0.5)));
    s.mul(s.mul(y, s.exp2_whole(half)), s.exp2_whole(s.sub(n, half)))
}

/// ln x; -infinity for 0, NaN below 0.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let scaled = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let (e, m) = s.split_exponent(scaled);
    let e = s.select(tiny, s.sub(e, s.splat(23.0)), e);
    let large = s.lt(s.splat(std::f32::consts::SQRT_2), m);
    let m = s.select(large, s.mul(m, s.splat(0.5)), m);
    let e = s.select(large, s.add(e, s.splat(1.0)), e);
    let one = s.splat(1.0);
    let f = s.sub(m, one);
    let t = s.div(f, s.add(m, one));
    let z = s.mul(t, t);
    // (2 atanh t - 2 t) / t^3 in t^2, for m in [sqrt 1/2, sqrt 2].
    let r = polynomial(s, z, [0.666_666_67, 0.400_001_22, 0.285_508_2, 0.233_304_68]);
    // 2 t = f - t f, which keeps the rounding error of the quotient small.
    let tail = s.fma(e, s.splat(LN2_LOW), s.mul(t, s.sub(s.mul(z, r), f)));
    let y = s.fma(e, s.splat(LN2_HIGH), s.add(f, tail));
    let y = s.select(s.eq(x, s.splat(f32::INFINITY)), x, y);
    let y = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), y);
    s.select(s.le(s.zero(), x), y, s.splat(f32::NAN))
}

/// tanh x.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let z = s.mul(x, x);
    // (tanh x - x) / x^3 in x^2, for |x| <= 0.625.
    let p = polynomial(
        s,
        z,
        [-0.333_333_33, 0.133_333_04, -0.053_959_26, 0.021_768_919, -0.008_343_946, 0.002_292_745],
    );
    let small = s.fma(s.mul(x, z), p, x);
    let one = s.splat(1.0);
    let e = exp(s, s.add(a, a));
    let large = s.copysign(s.sub(one, s.div(s.splat(2.0), s.add(e, one))), x);
    s.select(s.lt(s.splat(0.625), a), large, small)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.neg(x))))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    // erf x / x in x^2, for |x| <= 1.
    let z = s.mul(x, x);
    let small = s.mul(
        x,
        polynomial(
            s,
            z,
            [
                1.128_379_2,
                -0.376_126_27,
                0.112_835_95,
                -0.026_854_212,
                0.005_189_087_4,
                -8.016_864e-4,
                7.875_875e-5,
            ],
        ),
    );
    // -ln erfc x on [1, 4]; beyond, erf rounds to 1.
    let a = s.abs(x);
    let q = polynomial(
        s,
        s.min(s.splat(4.0), a),
        [
            -3.201_380_5e-4,
            1.130_233_4,
            0.631_826_05,
            0.110_080_08,
            -0.026_421_136,
            0.004_759_596_3,
            -5.968_056_3e-4,
            4.605_804_3e-5,
            -1.637_151_4e-6,
        ],
    );
    let one = s.splat(1.0);
    let large = s.copysign(s.sub(one, exp(s, s.neg(q))), x);
    s.select(s.lt(one, a), large, small)
}

#[cfg(test)]
mod tests {
    use crate::elementwise::{Unary, unary_in_place_on};
    use crate::simd::Isa;

    fn worst(f: Unary, low: f32, high: f32, oracle: impl Fn(f64) -> f64) -> f64 {
        let xs: Vec<f32> = (0..40_001).map(|i| low + (high - low) * (i as f32 / 40_000.0)).collect();
        let mut worst: f64 = 0.0;
        for isa in Isa::available() {
            let mut ys = xs.clone();
            unary_in_place_on(isa, f, &mut ys);
            for (&x, &y) in xs.iter().zip(&ys) {
                let want = oracle(x as f64);
                let scale = want.abs().max(f32::MIN_POSITIVE as f64) * f32::EPSILON as f64;
                worst = worst.max((y as f64 - want).abs() / scale);
            }
        }
        worst
    }

    #[test]
    fn functions_are_within_a_few_ulps() {
        assert!(worst(Unary::Exp, -87.0, 88.5, f64::exp) < 2.0);
        assert!(worst(Unary::Log, 1e-3, 4.0, f64::ln) < 2.0);
        assert!(worst(Unary::Log, 1.0, 1e30, f64::ln) < 2.0);
        assert!(worst(Unary::Tanh, -10.0, 10.0, f64::tanh) < 3.0);
        assert!(worst(Unary::Sigmoid, -80.0, 80.0, |x| 1.0 / (1.0 + (-x).exp())) < 3.0);
    }

    /// erf by its Maclaurin series, good to 1e-12 for |x| <= 4.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_is_within_a_few_ulps() {
        assert!(worst(Unary::Erf, -3.9, 3.9, erf) < 3.0);
    }

    #[test]
    fn limits_are_exact() {
        for isa in Isa::available() {
            let mut x = [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::NAN, 100.0, -200.0];
            unary_in_place_on(isa, Unary::Exp, &mut x);
            assert_eq!(x[..3], [f32::INFINITY, 0.0, 1.0]);
            assert!(x[3].is_nan());
            assert_eq!(x[4..], [f32::INFINITY, 0.0]);
            let mut x = [0.0, f32::INFINITY, -1.0, 1.0, 1e-40];
            unary_in_place_on(isa, Unary::Log, &mut x);
            assert_eq!(x[..2], [f32::NEG_INFINITY, f32::INFINITY]);
            assert!(x[2].is_nan());
            assert_eq!(x[3], 0.0);
            assert!((x[4] as f64 - (1e-40f32 as f64).ln()).abs() < 1e-5);
            let mut x = [f32::INFINITY, f32::NEG_INFINITY, 0.0];
            unary_in_place_on(isa, Unary::Tanh, &mut x);
            assert_eq!(x, [1.0, -1.0, 0.0]);
        }
    }
}
