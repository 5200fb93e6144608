//! Two non-zeros at a time: operands of 16 bits less their zero point, whose products are summed in pairs. Any zero
//! points, any instruction set.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;

use super::{Job, SQUARE, To};
use crate::Isa;
use crate::quantize::{bounds, saturated};
use crate::simd::{unrolled, vectorised};

/// Rows of A side by side in a panel: a line of the caches for each of k.
pub(super) const STRIP: usize = 32;

/// Sums of a square's outputs.
type Sums = [[i32; STRIP]; SQUARE];

impl Job<'_> {
    /// Some outputs of up to 32 rows from `first`.
    ///
    /// # Safety
    /// `panel` must have the length of a slot's; these rows and columns of the target must be this call's alone.
    pub(super) unsafe fn strip_of_pairs(&self, first: usize, outputs: Range<usize>, panel: &mut [i16]) {
        let n = self.weights.n;
        let width = STRIP.min(self.m - first);
        match self.isa {
            Isa::Scalar(_) => self.pack_plainly(first, panel),
            // SAFETY: either token proves AVX2.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) | Isa::Avx512(_) => unsafe { self.pack(first, panel) },
        }
        for j in outputs.clone().step_by(SQUARE) {
            let columns = SQUARE.min(outputs.end - j);
            let mut sums = [[0; STRIP]; SQUARE];
            for (i, sums) in sums[..columns].iter_mut().enumerate() {
                match self.isa {
                    Isa::Scalar(_) => self.sum_plainly(panel, j + i, sums),
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2(_) | Isa::Avx512(_) => unsafe { self.sum(panel, j + i, sums) },
                }
            }
            match &self.to {
                To::Sums(c) => {
                    for p in 0..width {
                        // SAFETY: the caller's promise.
                        let c = unsafe { c.slice((first + p) * n + j, columns) };
                        c.iter_mut().zip(&sums).for_each(|(c, sums)| *c = sums[p]);
                    }
                }
                To::Bytes { y, bias, factors, zero, signed } => {
                    let mut of_square = ([0; SQUARE], [0.0; SQUARE]);
                    for i in 0..columns {
                        of_square.0[i] = bias.map_or(0, |b| b[j + i]);
                        of_square.1[i] = factors[if factors.len() == 1 { 0 } else { j + i }];
                    }
                    let mut bytes = [[0; SQUARE]; STRIP];
                    levels(self.isa, &sums, &of_square, (*zero, *signed), &mut bytes);
                    for (p, bytes) in bytes[..width].iter().enumerate() {
                        // SAFETY: the caller's promise.
                        let y = unsafe { y.slice((first + p) * n + j, columns) };
                        match <&mut [u8; SQUARE]>::try_from(&mut *y) {
                            Ok(whole) => *whole = *bytes,
                            Err(_) => y.copy_from_slice(&bytes[..columns]),
                        }
                    }
                }
            }
        }
    }

    /// Turns 32 rows of A into a panel; rows beyond the last repeat it.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn pack(&self, first: usize, panel: &mut [i16]) {
        let [taps, channels] = self.taps();
        let (flip, zero) = self.unsigned();
        let (flip, zero) = (_mm_set1_epi8(flip as i8), _mm256_set1_epi16(zero as i16));
        for tap in 0..taps {
            for p in (0..STRIP).step_by(SQUARE) {
                let rows = self.rows_from(first + p, tap);
                for c in (0..channels).step_by(SQUARE) {
                    let count = SQUARE.min(channels - c);
                    let mut square = [_mm_setzero_si128(); SQUARE];
                    for (to, from) in square.iter_mut().zip(&rows) {
                        let from = &from[c..c + count];
                        let mut whole = [0; SQUARE];
                        let from = match from.len() {
                            SQUARE => from,
                            _ => {
                                whole[..count].copy_from_slice(from);
                                &whole
                            }
                        };
                        // SAFETY: the slice has sixteen bytes.
                        *to = _mm_xor_si128(unsafe { _mm_loadu_si128(from.as_ptr().cast()) }, flip);
                    }
                    // What a square has beyond the channels is overwritten by the next tap, or lies in the room at the end.
                    let to = &mut panel[(tap * channels + c) * STRIP + p..][..(SQUARE - 1) * STRIP + SQUARE];
                    for (i, row) in super::transposed(square).iter().enumerate() {
                        let wide = _mm256_sub_epi16(_mm256_cvtepu8_epi16(*row), zero);
                        // SAFETY: the slice has sixteen rows of sixteen numbers.
                        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(i * STRIP).cast(), wide) };
                    }
                }
            }
        }
    }

    /// The same without vectors.
    fn pack_plainly(&self, first: usize, panel: &mut [i16]) {
        let [taps, channels] = self.taps();
        let (flip, zero) = self.unsigned();
        for tap in 0..taps {
            for p in 0..STRIP {
                for (c, byte) in self.row((first + p).min(self.m - 1), tap).iter().enumerate() {
                    panel[(tap * channels + c) * STRIP + p] = i16::from(byte ^ flip) - zero as i16;
                }
            }
        }
    }

    /// Sums of an output. The largest is `k * 255 * 255`, as it would be by any other way.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn sum(&self, panel: &[i16], j: usize, sums: &mut [i32; STRIP]) {
        let (values, indices) = self.weights.output(j);
        assert!(panel.len() >= self.weights.k * STRIP);
        // A vector of 16 rows becomes, interleaved with another, rows 0 to 3 and 8 to 11, and rows 4 to 7 and 12 to 15.
        let mut acc = [_mm256_setzero_si256(); 4];
        for (value, at) in values.iter().zip(indices.chunks_exact(2)) {
            let value = _mm256_set1_epi32(*value);
            // SAFETY: indices are less than k, and the panel has two vectors for each of k.
            let [a, b] = [0, 1].map(|i| unsafe { panel.as_ptr().add(usize::from(at[i]) * STRIP) });
            unrolled!(v < 2 => {
                // SAFETY: as above.
                let (a, b) = unsafe {
                    (_mm256_loadu_si256(a.cast::<__m256i>().add(v)), _mm256_loadu_si256(b.cast::<__m256i>().add(v)))
                };
                let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), value);
                let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), value);
                acc[2 * v] = _mm256_add_epi32(acc[2 * v], low);
                acc[2 * v + 1] = _mm256_add_epi32(acc[2 * v + 1], high);
            });
        }
        unrolled!(v < 2 => {
            let (low, high) = (acc[2 * v], acc[2 * v + 1]);
            let [left, right] =
                [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            let to = &mut sums[v * 16..][..16];
            // SAFETY: the slice has sixteen numbers.
            unsafe {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), left);
                _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), right);
            }
        });
    }

    /// The same without vectors.
    fn sum_plainly(&self, panel: &[i16], j: usize, sums: &mut [i32; STRIP]) {
        let (values, indices) = self.weights.output(j);
        for (value, at) in values.iter().zip(indices.chunks_exact(2)) {
            let weights = [*value as i16, (*value >> 16) as i16];
            for (weight, at) in weights.iter().zip(at) {
                let row = &panel[usize::from(*at) * STRIP..][..STRIP];
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(i32::from(*weight) * i32::from(*x));
                }
            }
        }
    }
}

vectorised! {
    /// The bytes of sums, turned: as [`crate::quantize::requantize`] makes them of a bias and a factor for each output.
    fn levels<'a>(
        s; sums: &'a Sums, of_outputs: &'a ([i32; SQUARE], [f32; SQUARE]), to: (i32, bool),
        y: &'a mut [[u8; SQUARE]; STRIP],
    ) {
        let (low, high) = bounds(to.1);
        let (low, high) = ((low - to.0) as f32, (high - to.0) as f32);
        let mut rows = [[0; STRIP]; SQUARE];
        for (i, (row, sums)) in rows.iter_mut().zip(sums).enumerate() {
            let (bias, factor) = (of_outputs.0[i], of_outputs.1[i]);
            for (y, sum) in row.iter_mut().zip(sums) {
                let level = (sum.wrapping_add(bias) as f32 * factor).round_ties_even();
                *y = saturated(level, low, high, to.0);
            }
        }
        turn(&rows, y);
    }
}

/// `y[p][i] = rows[i][p]`.
#[inline(always)]
fn turn(rows: &[[u8; STRIP]; SQUARE], y: &mut [[u8; SQUARE]; STRIP]) {
    #[cfg(target_arch = "x86_64")]
    for p in (0..STRIP).step_by(SQUARE) {
        // SAFETY: each row has sixteen bytes from p on, and each of y is sixteen bytes; SSE2 is there on all x86-64.
        unsafe {
            let mut square = [_mm_setzero_si128(); SQUARE];
            for (to, row) in square.iter_mut().zip(rows) {
                *to = _mm_loadu_si128(row.as_ptr().add(p).cast());
            }
            for (to, row) in y[p..].iter_mut().zip(super::transposed(square)) {
                _mm_storeu_si128(to.as_mut_ptr().cast(), row);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (p, y) in y.iter_mut().enumerate() {
        y.iter_mut().zip(rows).for_each(|(y, row)| *y = row[p]);
    }
}
