//! AVX2 with FMA: eight lanes.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if this CPU has the instructions.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

/// Sliding a window over this table gives the mask whose first `n` lanes are set.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn mask(n: usize) -> __m256i {
    debug_assert!(n <= 8);
    // SAFETY: 8 - n is in 0..=8, so eight elements remain in the table; AVX is proven by the caller's token.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

/// # Safety
/// The CPU must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn compiled<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
    kernel.run(token)
}

/// The vector itself, of whose origin the compiler then knows nothing: it would read the elements of a load anew.
///
/// # Safety
/// The CPU must have the features of [`Avx2`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn kept(mut x: __m256) -> __m256 {
    // SAFETY: no instruction is executed.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

macro_rules! proven {
    ($e:expr) => {{
        // SAFETY: `self` proves that the CPU has AVX2 and FMA; pointers are the caller's promise.
        unsafe { $e }
    }};
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type F = __m256;
    type M = __m256;

    #[inline]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        proven!(compiled(self, kernel))
    }
    #[inline(always)]
    fn zero(self) -> Self::F {
        proven!(_mm256_setzero_ps())
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        proven!(_mm256_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn load_four(self, p: *const f32) -> Self::F {
        proven!(kept(_mm256_broadcast_ps(&p.cast::<__m128>().read_unaligned())))
    }
    #[inline(always)]
    fn one_of_four(self, four: Self::F, i: usize) -> Self::F {
        proven!(match i {
            0 => _mm256_permute_ps::<0x00>(four),
            1 => _mm256_permute_ps::<0x55>(four),
            2 => _mm256_permute_ps::<0xaa>(four),
            _ => _mm256_permute_ps::<0xff>(four),
        })
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F {
        proven!(_mm256_maskload_ps(p, mask(n)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        proven!(_mm256_storeu_ps(p, x))
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, x: Self::F) {
        proven!(_mm256_maskstore_ps(p, mask(n), x))
    }
    #[inline(always)]
    unsafe fn gather(self, base: *const f32, indices: *const u16) -> Self::F {
        proven!({
            let i = _mm256_cvtepu16_epi32(_mm_loadu_si128(indices.cast()));
            _mm256_i32gather_ps::<4>(base, i)
        })
    }
    #[inline(always)]
    unsafe fn lookup(self, table: *const f32, indices: *const u8) -> Self::F {
        proven!({
            let i = _mm256_cvtepu8_epi32(_mm_loadl_epi64(indices.cast()));
            _mm256_i32gather_ps::<4>(table, i)
        })
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        proven!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        proven!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
        proven!({
            let sign = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
        })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        proven!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn floor(self, a: Self::F) -> Self::F {
        proven!(_mm256_floor_ps(a))
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm256_cmp_ps::<_CMP_LE_OQ>(a, b))
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        proven!(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b))
    }
    #[inline(always)]
    fn select(self, m: Self::M, yes: Self::F, no: Self::F) -> Self::F {
        proven!(_mm256_blendv_ps(no, yes, m))
    }
    #[inline(always)]
    fn exp2_whole(self, a: Self::F) -> Self::F {
        proven!({
            let i = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(i))
        })
    }
    #[inline(always)]
    fn split_exponent(self, a: Self::F) -> (Self::F, Self::F) {
        proven!({
            let bits = _mm256_castps_si256(a);
            let e = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            let m = _mm256_or_si256(
                _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff)),
                _mm256_set1_epi32(0x3f80_0000),
            );
            (_mm256_cvtepi32_ps(e), _mm256_castsi256_ps(m))
        })
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        proven!({
            let x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        })
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        proven!({
            // Within 128-bit lanes first: the four sums side by side in each.
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let lanes = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
            let x = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), x);
            sums
        })
    }
    #[inline(always)]
    fn maximum(self, a: Self::F) -> f32 {
        proven!({
            let x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        })
    }
    #[inline(always)]
    fn minimum(self, a: Self::F) -> f32 {
        proven!({
            let x = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_min_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_min_ss(x, _mm_movehdup_ps(x)))
        })
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        proven!({
            let mut r = [_mm256_setzero_ps(); 8];
            for (n, r) in r.iter_mut().enumerate() {
                *r = _mm256_loadu_ps(from.add(n * from_step));
            }
            // Pairs of rows, then fours, within 128-bit lanes; then lanes between halves.
            let mut u = [_mm256_setzero_ps(); 8];
            for i in 0..2 {
                let (a, b) = (
                    _mm256_unpacklo_ps(r[4 * i], r[4 * i + 1]),
                    _mm256_unpacklo_ps(r[4 * i + 2], r[4 * i + 3]),
                );
                let (c, d) = (
                    _mm256_unpackhi_ps(r[4 * i], r[4 * i + 1]),
                    _mm256_unpackhi_ps(r[4 * i + 2], r[4 * i + 3]),
                );
                u[4 * i] = _mm256_shuffle_ps::<0x44>(a, b);
                u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, b);
                u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(c, d);
                u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(c, d);
            }
            for j in 0..4 {
                _mm256_storeu_ps(to.add(j * to_step), _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]));
                _mm256_storeu_ps(to.add((4 + j) * to_step), _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]));
            }
        })
    }
}
