//! Vector instruction sets behind one trait, so that a kernel is written once and compiled for each of them.
//!
//! [`Isa`] is the run-time choice. Its variants carry proof tokens that only detection can make, so holding one means
//! that the CPU has the instructions. A kernel is a struct implementing `Kernel`; `Isa::run` compiles its body
//! under the matching `#[target_feature]`. Everything in such a body must be `#[inline(always)]` (and must not be a
//! closure), otherwise it is compiled without the features.

/// Runs a block for each index below a constant bound (at most 24), unrolled by the macro itself: the compiler gives up
/// unrolling long loops, and then keeps the accumulators in memory. Nested in each other, they state the numbers that
/// may come: `i < bound, of 0 1 2`.
macro_rules! unrolled {
    ($i:ident < $bound:expr => $body:block) => {
        $crate::simd::unrolled!(@ $i, $bound, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23)
    };
    ($i:ident < $bound:expr, of $($n:literal)* => $body:block) => {
        $crate::simd::unrolled!(@ $i, $bound, $body, $($n)*)
    };
    (@ $i:ident, $bound:expr, $body:block, $($n:literal)*) => {
        $(if const { $n < $bound } {
            let $i: usize = $n;
            $body
        })*
    };
}
pub(crate) use unrolled;

/// Defines a function that is compiled for every instruction set. Plain loops in its body are vectorised by the
/// compiler; `$s` is the token for explicit vectors.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident<$lt:lifetime>($s:ident; $($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        fn $name<$lt>(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $out)? {
            struct Body<$lt> {
                $($arg: $ty,)*
                lifetime: std::marker::PhantomData<&$lt ()>,
            }
            impl<$lt> $crate::simd::Kernel for Body<$lt> {
                type Output = $crate::simd::vectorised!(@ $($out)?);
                #[inline(always)]
                #[allow(unused_variables)]
                fn run<S: $crate::simd::Simd>(self, $s: S) -> Self::Output {
                    let Body { $($arg,)* .. } = self;
                    $body
                }
            }
            isa.run(Body { $($arg,)* lifetime: std::marker::PhantomData })
        }
    };
    (@ $out:ty) => { $out };
    (@) => { () };
}
pub(crate) use vectorised;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use scalar::Scalar;

/// An instruction set this CPU is proven to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code, four lanes, no fused multiply-add.
    Scalar(Scalar),
    /// AVX2 and FMA: 8 lanes, 16 registers.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F/DQ/BW/VL: 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    /// The widest instruction set of this CPU.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = Avx512::detect() {
                return Isa::Avx512(token);
            }
            if let Some(token) = Avx2::detect() {
                return Isa::Avx2(token);
            }
        }
        Isa::Scalar(Scalar::new())
    }

    /// The portable instruction set, always there.
    pub fn scalar() -> Self {
        Isa::Scalar(Scalar::new())
    }

    /// Every instruction set of this CPU, the portable one first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let all = [
            Some(Isa::scalar()),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Isa::Avx512),
        ];
        all.into_iter().flatten()
    }

    /// Its name in plans and benchmark tables: `scalar`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
        }
    }

    /// The number of `f32` lanes of one vector.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Scalar(_) => Scalar::LANES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => Avx512::LANES,
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(token) => token.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => token.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => token.run(kernel),
        }
    }
}

/// Asks for the cache line at `p` in the second-level cache. Any address will do; an unreadable one is ignored.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory that the program can see and never faults; SSE is there on all x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Elements that `Simd::lookup` chooses from: what two of the widest vectors hold.
pub(crate) const WINDOW: usize = 32;

/// Asks for the cache line at `p` in the first-level cache, to be read. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_near(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for [`prefetch`].
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line at `p`, to be written. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as for [`prefetch`].
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// A computation that can be compiled for any [`Simd`] instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, as must all it calls.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The vector operations that kernels are written in. Values are proofs that the CPU has the instructions.
///
/// Pointers given to `load*` and `store*` need no alignment. `*_partial` touch only the first `n <= LANES` elements;
/// the other lanes read as zero.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// `f32` lanes of a vector.
    const LANES: usize;
    /// Vector registers a micro-kernel may plan with.
    const REGISTERS: usize;
    type F: Copy;
    type M: Copy;

    /// Runs a kernel in a function of its own, compiled with this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn zero(self) -> Self::F;
    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `p` must be readable for `LANES` elements.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// Four elements, repeated over the lanes.
    ///
    /// # Safety
    /// `p` must be readable for four elements.
    unsafe fn load_four(self, p: *const f32) -> Self::F;
    /// Element `i` of four repeated ones in every lane.
    fn one_of_four(self, four: Self::F, i: usize) -> Self::F;
    /// # Safety
    /// `p` must be readable for `n` elements, `n <= LANES`.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F;
    /// # Safety
    /// `p` must be writable for `LANES` elements.
    unsafe fn store(self, p: *mut f32, x: Self::F);
    /// # Safety
    /// `p` must be writable for `n` elements, `n <= LANES`.
    unsafe fn store_partial(self, p: *mut f32, n: usize, x: Self::F);

    /// The elements at these distances from `base`.
    ///
    /// # Safety
    /// `indices` must be readable for `LANES` numbers, and `base` at each of them.
    unsafe fn gather(self, base: *const f32, indices: *const u16) -> Self::F;

    /// `table[i]` for each of the indices, which are below [`WINDOW`].
    ///
    /// # Safety
    /// `indices` must be readable for `LANES` numbers, each below [`WINDOW`], and `table` for [`WINDOW`] elements.
    unsafe fn lookup(self, table: *const f32, indices: *const u8) -> Self::F;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, fused where the instruction set fuses.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    fn floor(self, a: Self::F) -> Self::F;
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `yes` where the mask holds, else `no`.
    fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F;
    /// 2^a for whole numbers `a` in -126..=127.
    fn exp2_whole(self, a: Self::F) -> Self::F;
    /// `(e, m)` with `x = m * 2^e` and m in [1, 2), for positive normal `x`.
    fn split_exponent(self, a: Self::F) -> (Self::F, Self::F);
    fn sum(self, a: Self::F) -> f32;
    /// The sum of each of four vectors, for less than four times the work.
    fn sums(self, a: [Self::F; 4]) -> [f32; 4];
    fn maximum(self, a: Self::F) -> f32;
    fn minimum(self, a: Self::F) -> f32;

    /// Transposes a square block: `to[k * to_step + n] = from[n * from_step + k]` for n and k below `LANES`.
    ///
    /// # Safety
    /// Both blocks must be in bounds and apart.
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize);

    /// The first `LANES` elements of `x`, or all of them followed by zeros if it is shorter.
    #[inline(always)]
    fn read(self, x: &[f32]) -> Self::F {
        // SAFETY: as many elements are read as there are.
        unsafe {
            if x.len() >= Self::LANES {
                self.load(x.as_ptr())
            } else {
                self.load_partial(x.as_ptr(), x.len())
            }
        }
    }

    /// Writes the first `LANES` elements of `x`, or as many as it has.
    #[inline(always)]
    fn write(self, x: &mut [f32], value: Self::F) {
        // SAFETY: as many elements are written as there are.
        unsafe {
            if x.len() >= Self::LANES {
                self.store(x.as_mut_ptr(), value)
            } else {
                self.store_partial(x.as_mut_ptr(), x.len(), value)
            }
        }
    }

    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.sub(self.splat(-0.0), a)
    }
}
