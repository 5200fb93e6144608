//! The portable instruction set: four lanes in an array, left to the compiler to vectorise.

use super::{Kernel, Simd};

/// Portable code; always available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar(());

impl Scalar {
    /// The portable token needs no proof.
    pub fn new() -> Self {
        Scalar(())
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::new()
    }
}

const L: usize = 4;

#[inline(always)]
fn map(a: [f32; L], f: impl Fn(f32) -> f32) -> [f32; L] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn zip(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn test(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> bool) -> [bool; L] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Scalar {
    const LANES: usize = L;
    const REGISTERS: usize = 16;
    type F = [f32; L];
    type M = [bool; L];

    #[inline(never)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn zero(self) -> Self::F {
        [0.0; L]
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; L]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: the caller promises `LANES` readable elements; the read is unaligned.
        unsafe { p.cast::<[f32; L]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_four(self, p: *const f32) -> Self::F {
        // SAFETY: the caller promises four readable elements, which are all lanes.
        unsafe { self.load(p) }
    }
    #[inline(always)]
    fn one_of_four(self, four: Self::F, i: usize) -> Self::F {
        [four[i]; L]
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F {
        let mut out = [0.0; L];
        for (i, o) in out.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` readable elements.
            *o = unsafe { *p.add(i) };
        }
        out
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        // SAFETY: the caller promises `LANES` writable elements; the write is unaligned.
        unsafe { p.cast::<[f32; L]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, x: Self::F) {
        for (i, v) in x.iter().enumerate().take(n) {
            // SAFETY: the caller promises `n` writable elements.
            unsafe { *p.add(i) = *v };
        }
    }
    #[inline(always)]
    unsafe fn gather(self, base: *const f32, indices: *const u16) -> Self::F {
        let mut out = [0.0; L];
        for (i, o) in out.iter_mut().enumerate() {
            // SAFETY: the caller promises the indices and what they name.
            *o = unsafe { *base.add(*indices.add(i) as usize) };
        }
        out
    }
    #[inline(always)]
    unsafe fn lookup(self, table: *const f32, indices: *const u8) -> Self::F {
        let mut out = [0.0; L];
        for (i, o) in out.iter_mut().enumerate() {
            // SAFETY: the caller promises the indices and the table.
            *o = unsafe { *table.add(*indices.add(i) as usize) };
        }
        out
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        zip(zip(a, b, |x, y| x * y), c, |x, y| x + y)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    fn floor(self, a: Self::F) -> Self::F {
        map(a, f32::floor)
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        test(a, b, |x, y| x < y)
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        test(a, b, |x, y| x <= y)
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        test(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn select(self, m: Self::M, yes: Self::F, no: Self::F) -> Self::F {
        let pick = |i: usize| if m[i] { yes[i] } else { no[i] };
        [pick(0), pick(1), pick(2), pick(3)]
    }
    #[inline(always)]
    fn exp2_whole(self, a: Self::F) -> Self::F {
        map(a, |x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn split_exponent(self, a: Self::F) -> (Self::F, Self::F) {
        (
            map(a, |x| ((x.to_bits() >> 23) as i32 - 127) as f32),
            map(a, |x| f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f80_0000)),
        )
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn sums(self, a: [Self::F; 4]) -> [f32; 4] {
        a.map(|a| self.sum(a))
    }
    #[inline(always)]
    fn maximum(self, a: Self::F) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
    #[inline(always)]
    fn minimum(self, a: Self::F) -> f32 {
        a[0].min(a[1]).min(a[2].min(a[3]))
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for n in 0..L {
            for k in 0..L {
                // SAFETY: the caller promises both blocks.
                unsafe { *to.add(k * to_step + n) = *from.add(n * from_step + k) };
            }
        }
    }
}
