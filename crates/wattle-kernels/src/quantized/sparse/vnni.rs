//! Four non-zeros at a time, where the CPU has VNNI: `vpdpbusd` takes any four non-zeros of an output at once.
//!
//! Operands are unsigned bytes, so that those of a non-zero are one vector of 64. Four such vectors are interleaved byte
//! by byte, which puts the four operands of each sum side by side; the order this leaves the sums in is undone by the two
//! instructions that make bytes of them.

use std::arch::x86_64::*;

use super::{Job, SQUARE, To, transposed};
use crate::simd::unrolled;

/// Rows of A side by side in a panel.
pub(super) const STRIP: usize = 64;

impl Job<'_> {
    /// Some outputs of up to 64 rows from `first`.
    ///
    /// # Safety
    /// The CPU must have the instructions; `panel` and `results` must have the lengths of a slot and start on a line; these
    /// rows and columns of the target must be this call's alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn strip_of_fours(
        &self,
        first: usize,
        outputs: std::ops::Range<usize>,
        panel: &mut [u8],
        results: &mut [u8],
    ) {
        let n = self.weights.n;
        let width = STRIP.min(self.m - first);
        let (_, zero_of_a) = self.unsigned();
        self.pack_bytes(first, panel);
        match &self.to {
            To::Bytes { y, bias, factors, zero, signed } => {
                let (low, high) = if *signed { (-128, 127) } else { (0, 255) };
                let (low, high) = (_mm512_set1_ps((low - zero) as f32), _mm512_set1_ps((high - zero) as f32));
                for j in outputs.clone() {
                    let sums = self.sums(panel, j);
                    let shift =
                        bias.map_or(0, |b| b[j]).wrapping_sub(self.weights.sums[j].wrapping_mul(zero_of_a));
                    let shift = _mm512_set1_epi32(shift);
                    let factor = _mm512_set1_ps(factors[if factors.len() == 1 { 0 } else { j }]);
                    let mut whole = sums;
                    unrolled!(i < 4 => {
                        let level = _mm512_cvtepi32_ps(_mm512_add_epi32(sums[i], shift));
                        let level = _mm512_mul_ps(level, factor);
                        // Clamped as a float; the conversion rounds, halves to even.
                        let level = _mm512_min_ps(_mm512_max_ps(level, low), high);
                        whole[i] = _mm512_add_epi32(_mm512_cvtps_epi32(level), _mm512_set1_epi32(*zero));
                    });
                    let halves =
                        [_mm512_packs_epi32(whole[0], whole[1]), _mm512_packs_epi32(whole[2], whole[3])];
                    let bytes = if *signed {
                        _mm512_packs_epi16(halves[0], halves[1])
                    } else {
                        _mm512_packus_epi16(halves[0], halves[1])
                    };
                    let to = &mut results[(j - outputs.start) * STRIP..][..STRIP];
                    // SAFETY: a strip of bytes is a vector.
                    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes) };
                }
                for j in outputs.clone().step_by(SQUARE) {
                    let columns = SQUARE.min(outputs.end - j);
                    let mask = ((1u32 << columns) - 1) as __mmask16;
                    for p in (0..width).step_by(SQUARE) {
                        let from =
                            &results[(j - outputs.start) * STRIP + p..][..(SQUARE - 1) * STRIP + SQUARE];
                        let mut square = [_mm_setzero_si128(); SQUARE];
                        // SAFETY: the slice has 16 rows of 16 bytes; y has the positions and columns that are written.
                        unsafe {
                            for (i, row) in square.iter_mut().enumerate() {
                                *row = _mm_loadu_si128(from.as_ptr().add(i * STRIP).cast());
                            }
                            let square = transposed(square);
                            for (i, row) in square.iter().enumerate().take(width - p) {
                                let to = y.slice((first + p + i) * n + j, columns);
                                _mm_mask_storeu_epi8(to.as_mut_ptr().cast(), mask, *row);
                            }
                        }
                    }
                }
            }
            To::Sums(c) => {
                for j in outputs {
                    let shift = self.weights.sums[j].wrapping_mul(zero_of_a);
                    let sums = self.sums(panel, j);
                    for (i, sums) in sums.iter().enumerate() {
                        let mut list = [0i32; 16];
                        // SAFETY: the list has sixteen elements.
                        unsafe { _mm512_storeu_si512(list.as_mut_ptr().cast(), *sums) };
                        for (at, sum) in list.iter().enumerate() {
                            let p = at / 4 * 16 + 4 * i + at % 4;
                            if p < width {
                                // SAFETY: the caller's promise.
                                unsafe { c.slice((first + p) * n + j, 1)[0] = sum.wrapping_sub(shift) };
                            }
                        }
                    }
                }
            }
        }
    }

    /// Turns 64 rows of A into a panel of unsigned bytes; rows beyond the last repeat it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn pack_bytes(&self, first: usize, panel: &mut [u8]) {
        let [taps, channels] = self.taps();
        let flip = _mm_set1_epi8(self.unsigned().0 as i8);
        for tap in 0..taps {
            for p in (0..STRIP).step_by(SQUARE) {
                let rows = self.rows_from(first + p, tap);
                for c in (0..channels).step_by(SQUARE) {
                    let count = SQUARE.min(channels - c);
                    let mask = ((1u32 << count) - 1) as __mmask16;
                    let mut square = [_mm_setzero_si128(); SQUARE];
                    // What a square has beyond the channels is overwritten by the next tap, or lies in the room at the end.
                    let to = &mut panel[(tap * channels + c) * STRIP + p..][..(SQUARE - 1) * STRIP + SQUARE];
                    // SAFETY: masks keep loads to the bytes of a row; the slice has 16 rows of 16 bytes.
                    unsafe {
                        for (row, from) in square.iter_mut().zip(&rows) {
                            let x = _mm_maskz_loadu_epi8(mask, from.as_ptr().add(c).cast());
                            *row = _mm_xor_si128(x, flip);
                        }
                        for (i, row) in transposed(square).iter().enumerate() {
                            _mm_storeu_si128(to.as_mut_ptr().add(i * STRIP).cast(), *row);
                        }
                    }
                }
            }
        }
    }

    /// Sums of an output: vector i has the rows 4 i to 4 i + 3 of each 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn sums(&self, panel: &[u8], j: usize) -> [__m512i; 4] {
        let (values, indices) = self.weights.output(j);
        assert!(panel.len() >= (self.weights.k + SQUARE) * STRIP);
        let mut acc = [_mm512_setzero_si512(); 4];
        for (value, at) in values.iter().zip(indices.chunks_exact(4)) {
            // SAFETY: indices are less than k, and the panel has a vector for each of k.
            let [a, b, c, d] = unsafe {
                let x = |i: usize| panel.as_ptr().add(usize::from(at[i]) * STRIP).cast();
                [
                    _mm512_loadu_si512(x(0)),
                    _mm512_loadu_si512(x(1)),
                    _mm512_loadu_si512(x(2)),
                    _mm512_loadu_si512(x(3)),
                ]
            };
            let value = _mm512_set1_epi32(*value);
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (other_low, other_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_unpacklo_epi16(low, other_low), value);
            acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_unpackhi_epi16(low, other_low), value);
            acc[2] = _mm512_dpbusd_epi32(acc[2], _mm512_unpacklo_epi16(high, other_high), value);
            acc[3] = _mm512_dpbusd_epi32(acc[3], _mm512_unpackhi_epi16(high, other_high), value);
        }
        acc
    }
}
