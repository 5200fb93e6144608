//! Products of bytes by sparse weights, where the CPU has VNNI: `vpdpbusd` takes any four non-zeros of an output at once.
//!
//! A strip of 64 rows of A is turned into a panel, `[k][64]`, so that the bytes a non-zero is multiplied with are one
//! vector. Four such vectors are interleaved byte by byte, which puts the four operands of each sum side by side; the
//! order this leaves the sums in is undone by the two instructions that make bytes of them.

use std::arch::x86_64::*;

use super::vnni::Vnni;
use super::{Bytes, Rows, Target};
use crate::Cpu;
use crate::igemm::OUTSIDE;
use crate::simd::unrolled;
use crate::threads::Shared;

/// Rows of A side by side in a panel.
const STRIP: usize = 64;
/// Side of the blocks that are transposed in registers.
const SQUARE: usize = 16;
/// Fours of non-zeros that beginning and ending an output costs as much as.
const OUTPUT_COST: usize = 3;

/// Weights `[k, n]` by their non-zeros.
pub(super) struct SparseBytes {
    /// Holding one is what makes the product safe to call.
    _proof: Vnni,
    pub k: usize,
    pub n: usize,
    /// First four of each output, and the end of the last.
    starts: Vec<u32>,
    /// Four rows of the panel for each four; what fills up an output's last four names row 0.
    indices: Vec<u16>,
    /// Four weights, the first in the lowest byte; what fills up is 0.
    values: Vec<i32>,
    /// Sum of each output's weights.
    sums: Vec<i32>,
    threads: usize,
}

impl SparseBytes {
    /// `at(k, n)` is an element less its zero point; `None` where k exceeds 16-bit indices.
    pub fn new(
        cpu: &Cpu,
        proof: Vnni,
        k: usize,
        n: usize,
        at: impl Fn(usize, usize) -> i8,
    ) -> Option<SparseBytes> {
        if k == 0 || k > 1 << 16 {
            return None;
        }
        let (mut starts, mut indices, mut values, mut sums) = (vec![0], vec![], vec![], vec![]);
        for column in 0..n {
            let mut bytes = vec![];
            for row in 0..k {
                let value = at(row, column);
                if value != 0 {
                    indices.push(row as u16);
                    bytes.push(value as u8);
                }
            }
            sums.push(bytes.iter().map(|b| i32::from(*b as i8)).sum());
            indices.resize(indices.len().next_multiple_of(4), 0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            values.extend(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            starts.push(values.len() as u32);
        }
        Some(SparseBytes { _proof: proof, k, n, starts, indices, values, sums, threads: cpu.threads.count() })
    }

    /// Bytes of a thread's panel, with room for the square that its last rows end in, and of its results.
    fn slot(&self) -> [usize; 2] {
        [(self.k + SQUARE) * STRIP, self.n.next_multiple_of(SQUARE).max(4 * SQUARE) * STRIP]
    }

    /// Scratch bytes that [`SparseBytes::product`] needs.
    pub fn scratch_len(&self) -> usize {
        self.threads * self.slot().iter().sum::<usize>() + STRIP + self.k
    }

    /// As [`super::quantized_product`], which has checked lengths.
    pub fn product(
        &self,
        cpu: &Cpu,
        m: usize,
        a: Bytes<'_>,
        rows: Rows<'_>,
        target: Target<'_>,
        scratch: &mut [u8],
    ) {
        if m * self.n == 0 {
            return;
        }
        assert!(cpu.threads.count() <= self.threads, "weights cut for {} threads", self.threads);
        let (flip, zero) = if a.signed { (0x80u8, a.zero + 128) } else { (0, a.zero) };
        let (outside, scratch) = scratch.split_at_mut(self.k);
        outside.fill(zero as u8 ^ flip);
        let skip = scratch.as_ptr().align_offset(STRIP).min(STRIP);
        let scratch = Shared::new(&mut scratch[skip..]);
        let strips = m.div_ceil(STRIP);
        let threads = cpu.threads.count();
        let parts = if strips >= 2 * threads { 1 } else { threads.div_ceil(strips) };
        let ends = self.ends(parts);
        let job = Job { weights: self, m, a: a.data, flip, zero, rows, outside, to: To::of(target) };
        let [panel, results] = self.slot();
        cpu.threads.for_each_slot(strips * parts, |slot, task| {
            let (strip, part) = (task / parts, task % parts);
            let outputs = if part == 0 { 0 } else { ends[part - 1] }..ends[part];
            // SAFETY: a slot's scratch belongs to the thread that runs it.
            let own = unsafe { scratch.slice(slot * (panel + results), panel + results) };
            let (panel, results) = own.split_at_mut(panel);
            // SAFETY: a `SparseBytes` proves the instructions; tasks write disjoint rows and columns.
            unsafe { job.strip(strip * STRIP, outputs, panel, results) };
        });
    }

    /// The ends of parts of about equal work.
    fn ends(&self, parts: usize) -> Vec<usize> {
        let cost = |outputs: usize| self.starts[outputs] as usize + OUTPUT_COST * outputs;
        let whole = cost(self.n);
        (1..=parts)
            .map(|part| {
                if part == parts {
                    self.n
                } else {
                    (0..self.n).find(|&j| cost(j) * parts >= whole * part).unwrap_or(self.n)
                }
            })
            .collect()
    }
}

/// Where sums go.
enum To<'a> {
    Sums(Shared<'a, i32>),
    Bytes { y: Shared<'a, u8>, bias: Option<&'a [i32]>, factors: &'a [f32], zero: i32, signed: bool },
}

impl<'a> To<'a> {
    fn of(target: Target<'a>) -> To<'a> {
        match target {
            Target::Sums(c) => To::Sums(Shared::new(c)),
            Target::Bytes { y, bias, factors, zero, signed } => {
                To::Bytes { y: Shared::new(y), bias, factors, zero, signed }
            }
        }
    }
}

struct Job<'a> {
    weights: &'a SparseBytes,
    m: usize,
    a: &'a [u8],
    /// Bits that make a byte of A unsigned, and its zero point as one.
    flip: u8,
    zero: i32,
    rows: Rows<'a>,
    /// What taps outside the image read.
    outside: &'a [u8],
    to: To<'a>,
}

impl Job<'_> {
    /// The bytes of a tap of a row of A.
    fn row(&self, m: usize, tap: usize) -> &[u8] {
        match self.rows {
            Rows::Following => &self.a[m * self.weights.k..][..self.weights.k],
            Rows::Taps { offsets, pixels, image, channels } => match offsets[tap * pixels + m % pixels] {
                OUTSIDE => &self.outside[..channels],
                offset => &self.a[m / pixels * image + offset as usize..][..channels],
            },
        }
    }

    /// Some outputs of up to 64 rows from `first`.
    ///
    /// # Safety
    /// The CPU must have the instructions; `panel` and `results` must have the lengths of a slot and start on a line; these
    /// rows and columns of the target must be this call's alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn strip(
        &self,
        first: usize,
        outputs: std::ops::Range<usize>,
        panel: &mut [u8],
        results: &mut [u8],
    ) {
        let n = self.weights.n;
        let width = STRIP.min(self.m - first);
        self.pack(first, panel);
        match &self.to {
            To::Bytes { y, bias, factors, zero, signed } => {
                let (low, high) = if *signed { (-128, 127) } else { (0, 255) };
                let (low, high) = (_mm512_set1_ps((low - zero) as f32), _mm512_set1_ps((high - zero) as f32));
                for j in outputs.clone() {
                    let sums = self.output(panel, j);
                    let shift =
                        bias.map_or(0, |b| b[j]).wrapping_sub(self.weights.sums[j].wrapping_mul(self.zero));
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
                    let shift = self.weights.sums[j].wrapping_mul(self.zero);
                    let sums = self.output(panel, j);
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
    fn pack(&self, first: usize, panel: &mut [u8]) {
        let (taps, channels) = match self.rows {
            Rows::Following => (1, self.weights.k),
            Rows::Taps { channels, .. } => (self.weights.k / channels, channels),
        };
        let flip = _mm_set1_epi8(self.flip as i8);
        for tap in 0..taps {
            for p in (0..STRIP).step_by(SQUARE) {
                let mut rows: [&[u8]; SQUARE] = [&[]; SQUARE];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = self.row((first + p + i).min(self.m - 1), tap);
                }
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
    fn output(&self, panel: &[u8], j: usize) -> [__m512i; 4] {
        let w = self.weights;
        let (start, end) = (w.starts[j] as usize, w.starts[j + 1] as usize);
        assert!(panel.len() >= (w.k + SQUARE) * STRIP);
        let mut acc = [_mm512_setzero_si512(); 4];
        for (value, at) in w.values[start..end].iter().zip(w.indices[4 * start..4 * end].chunks_exact(4)) {
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

/// A square of bytes with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn transposed(mut square: [__m128i; SQUARE]) -> [__m128i; SQUARE] {
    // Each round is a perfect shuffle of the 256 bytes; four of them exchange the halves of their addresses.
    unrolled!(_round < 4 => {
        let from = square;
        unrolled!(i < 8 => {
            square[2 * i] = _mm_unpacklo_epi8(from[i], from[i + 8]);
            square[2 * i + 1] = _mm_unpackhi_epi8(from[i], from[i + 8]);
        });
    });
    square
}
