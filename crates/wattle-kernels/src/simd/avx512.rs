//! AVX-512 (F, DQ, BW, VL): sixteen lanes, thirty-two registers, broadcasts folded into the multiply-add.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, DQ, BW and VL, and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if this CPU has the instructions.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma"))
        .then_some(Avx512(()))
    }
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

/// # Safety
/// The CPU must have the features of [`Avx512`].
#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")]
#[inline(never)]
unsafe fn compiled<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

/// The vector itself, of whose origin the compiler then knows nothing: it would read the elements of a load anew.
///
/// # Safety
/// The CPU must have the features of [`Avx512`].
#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
unsafe fn kept(mut x: __m512) -> __m512 {
    // SAFETY: no instruction is executed.
    unsafe {
        std::arch::asm!("/* {0} */", inout(zmm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

macro_rules! proven {
    ($e:expr) => {{
        // SAFETY: `self` proves that the CPU has these instructions; pointers are the caller's promise.
        unsafe { $e }
    }};
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    type F = __m512;
    type M = __mmask16;

    #[inline]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        proven!(compiled(self, kernel))
    }
    #[inline(always)]
    fn zero(self) -> Self::F {
        proven!(_mm512_setzero_ps())
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        proven!(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn load_four(self, p: *const f32) -> Self::F {
        proven!(kept(_mm512_broadcast_f32x4(_mm_loadu_ps(p))))
    }
    #[inline(always)]
    fn one_of_four(self, four: Self::F, i: usize) -> Self::F {
        proven!(match i {
            0 => _mm512_permute_ps::<0x00>(four),
            1 => _mm512_permute_ps::<0x55>(four),
            2 => _mm512_permute_ps::<0xaa>(four),
            _ => _mm512_permute_ps::<0xff>(four),
        })
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F {
        proven!(_mm512_maskz_loadu_ps(mask(n), p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        proven!(_mm512_storeu_ps(p, x))
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, x: Self::F) {
        proven!(_mm512_mask_storeu_ps(p, mask(n), x))
    }
    #[inline(always)]
    unsafe fn gather(self, base: *const f32, indices: *const u16) -> Self::F {
        proven!({
            let i = _mm512_cvtepu16_epi32(_mm256_loadu_si256(indices.cast()));
            _mm512_i32gather_ps::<4>(i, base.cast())
        })
    }
    #[inline(always)]
    unsafe fn lookup(self, table: *const f32, indices: *const u8) -> Self::F {
        proven!({
            let i = _mm512_cvtepu8_epi32(_mm_loadu_si128(indices.cast()));
            _mm512_permutex2var_ps(_mm512_loadu_ps(table), i, _mm512_loadu_ps(table.add(16)))
        })
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        proven!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        proven!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
        proven!({
            let sign = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b))
        })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        proven!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn floor(self, a: Self::F) -> Self::F {
        proven!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b))
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
    }
    #[inline(always)]
    fn select(self, m: Self::M, yes: Self::F, no: Self::F) -> Self::F {
        proven!(_mm512_mask_blend_ps(m, no, yes))
    }
    #[inline(always)]
    fn exp2_whole(self, a: Self::F) -> Self::F {
        proven!({
            let i = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(i))
        })
    }
    #[inline(always)]
    fn split_exponent(self, a: Self::F) -> (Self::F, Self::F) {
        proven!({
            let bits = _mm512_castps_si512(a);
            let e = _mm512_sub_epi32(_mm512_srli_epi32::<23>(bits), _mm512_set1_epi32(127));
            let m = _mm512_or_si512(
                _mm512_and_si512(bits, _mm512_set1_epi32(0x007f_ffff)),
                _mm512_set1_epi32(0x3f80_0000),
            );
            (_mm512_cvtepi32_ps(e), _mm512_castsi512_ps(m))
        })
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        proven!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        proven!({
            // Within 128-bit lanes first: the four sums side by side in each.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let lanes = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd));
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
            let x = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), x);
            sums
        })
    }
    #[inline(always)]
    fn maximum(self, a: Self::F) -> f32 {
        proven!(_mm512_reduce_max_ps(a))
    }
    #[inline(always)]
    fn minimum(self, a: Self::F) -> f32 {
        proven!(_mm512_reduce_min_ps(a))
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        proven!({
            let mut r = [_mm512_setzero_ps(); 16];
            for (n, r) in r.iter_mut().enumerate() {
                *r = _mm512_loadu_ps(from.add(n * from_step));
            }
            // Pairs of rows, then fours, within 128-bit lanes; then the lanes of four vectors, as a 4 x 4 block.
            let mut u = [_mm512_setzero_ps(); 16];
            for i in 0..4 {
                let (a, b) = (
                    _mm512_unpacklo_ps(r[4 * i], r[4 * i + 1]),
                    _mm512_unpacklo_ps(r[4 * i + 2], r[4 * i + 3]),
                );
                let (c, d) = (
                    _mm512_unpackhi_ps(r[4 * i], r[4 * i + 1]),
                    _mm512_unpackhi_ps(r[4 * i + 2], r[4 * i + 3]),
                );
                u[4 * i] = _mm512_shuffle_ps::<0x44>(a, b);
                u[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, b);
                u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(c, d);
                u[4 * i + 3] = _mm512_shuffle_ps::<0xee>(c, d);
            }
            for j in 0..4 {
                let a = _mm512_shuffle_f32x4::<0x88>(u[j], u[4 + j]);
                let b = _mm512_shuffle_f32x4::<0xdd>(u[j], u[4 + j]);
                let c = _mm512_shuffle_f32x4::<0x88>(u[8 + j], u[12 + j]);
                let d = _mm512_shuffle_f32x4::<0xdd>(u[8 + j], u[12 + j]);
                _mm512_storeu_ps(to.add(j * to_step), _mm512_shuffle_f32x4::<0x88>(a, c));
                _mm512_storeu_ps(to.add((4 + j) * to_step), _mm512_shuffle_f32x4::<0x88>(b, d));
                _mm512_storeu_ps(to.add((8 + j) * to_step), _mm512_shuffle_f32x4::<0xdd>(a, c));
                _mm512_storeu_ps(to.add((12 + j) * to_step), _mm512_shuffle_f32x4::<0xdd>(b, d));
            }
        })
    }
}
