//! Products of bytes four at a time: `vpdpbusd` adds four products of an unsigned and a signed byte to a 32-bit sum.
//!
//! A row of A is read as unsigned bytes, B is packed as signed ones, `[panel][k / 4][column][4]`, with zero point 0. The
//! sums of `(a - za) b` are then the sums of `a b` less `za` times the sum of each column of b.

use std::arch::x86_64::*;

use super::{Bytes, Rows, Target};
use crate::Cpu;
use crate::igemm::OUTSIDE;
use crate::pages::HugeVec;
use crate::simd::unrolled;
use crate::threads::Shared;

/// Columns of a panel: two vectors of sums.
const PANEL: usize = 32;
const LANES: usize = 16;
/// Rows of a tile: 16 registers hold sums and 8 the rows' bytes, which the compiler fetches all at once.
const ROWS: usize = 8;
/// Tiles of one task.
const TILES: usize = 12;

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vnni(());

impl Vnni {
    pub fn detect() -> Option<Vnni> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Vnni(()))
    }
}

/// B packed for this instruction.
pub(super) struct Packed {
    /// Holding one is what makes the product safe to call.
    _proof: Vnni,
    pub k: usize,
    pub n: usize,
    data: HugeVec<i8>,
    /// Sum of each column, whole panels.
    sums: Vec<i32>,
    /// Zero point of the packed bytes.
    zero: i32,
}

/// Bytes that a product needs beside its operands: A with its signs turned or its rows made whole fours, and a row of
/// zero points.
pub(super) fn scratch_len(m: usize, k: usize, a_len: usize) -> usize {
    a_len.max(m * k.next_multiple_of(4)) + k + 4
}

impl Packed {
    /// `at(k, n)` is an element less its zero point.
    pub fn new(proof: Vnni, k: usize, n: usize, at: impl Fn(usize, usize) -> i8) -> Packed {
        let groups = k.div_ceil(4);
        let columns = n.next_multiple_of(PANEL);
        let (mut data, mut sums) = (HugeVec::zeroed(columns * groups * 4), vec![0; columns]);
        for column in 0..n {
            for row in 0..k {
                let value = at(row, column);
                sums[column] += i32::from(value);
                let place = ((column / PANEL * groups + row / 4) * PANEL + column % PANEL) * 4 + row % 4;
                data[place] = value;
            }
        }
        Packed { _proof: proof, k, n, data, sums, zero: 0 }
    }

    /// As [`super::QuantizedWeights::refill`].
    pub fn refill(&mut self, b: Bytes<'_>) {
        // Unsigned bytes around 128 are signed bytes around 0.
        let (flip, zero) = if b.signed { (0, b.zero) } else { (0x80, b.zero - 128) };
        self.zero = zero;
        self.sums.fill(0);
        // SAFETY: a `Packed` proves the instructions.
        unsafe { self.interleave(b.data, flip) };
    }

    /// Packs rows of n bytes, sixteen columns of four rows at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn interleave(&mut self, data: &[u8], flip: u8) {
        const HALF: usize = PANEL / 2;
        let (n, groups) = (self.n, self.k.div_ceil(4));
        let (flip, ones) = (_mm_set1_epi8(flip as i8), _mm512_set1_epi8(1));
        for (group, rows) in data.chunks(4 * n.max(1)).enumerate() {
            for column in (0..n).step_by(HALF) {
                let mask = ((1u32 << HALF.min(n - column)) - 1) as __mmask16;
                // Rows that fill up the last four are zero.
                let mut from = [_mm_setzero_si128(); 4];
                for (x, row) in from.iter_mut().zip(rows.chunks_exact(n)) {
                    // SAFETY: the mask keeps the load to the row.
                    let bytes = unsafe { _mm_maskz_loadu_epi8(mask, row.as_ptr().add(column).cast()) };
                    *x = _mm_xor_si128(bytes, flip);
                }
                let [a, b, c, d] = from;
                let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
                let (other_low, other_high) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
                let fours = [
                    _mm_unpacklo_epi16(low, other_low),
                    _mm_unpackhi_epi16(low, other_low),
                    _mm_unpacklo_epi16(high, other_high),
                    _mm_unpackhi_epi16(high, other_high),
                ];
                let place = ((column / PANEL * groups + group) * PANEL + column % PANEL) * 4;
                let (to, sums) = (&mut self.data[place..][..4 * HALF], &mut self.sums[column..][..HALF]);
                // SAFETY: both slices are a vector long, and panels have whole vectors.
                unsafe {
                    for (i, four) in fours.iter().enumerate() {
                        _mm_storeu_si128(to.as_mut_ptr().add(16 * i).cast(), *four);
                    }
                    let sum = _mm512_loadu_si512(sums.as_ptr().cast());
                    let sum = _mm512_dpbusd_epi32(sum, ones, _mm512_loadu_si512(to.as_ptr().cast()));
                    _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
                }
            }
        }
    }

    /// The product; `scratch` has [`scratch_len`] bytes.
    pub fn product(
        &self,
        cpu: &Cpu,
        m: usize,
        a: Bytes<'_>,
        rows: Rows<'_>,
        target: Target<'_>,
        scratch: &mut [u8],
    ) {
        let (k, n) = (self.k, self.n);
        if m * n == 0 {
            return;
        }
        let width = k.next_multiple_of(4);
        // Signed bytes become unsigned ones by 128 more.
        let (flip, zero) = if a.signed { (0x80, a.zero + 128) } else { (0, a.zero) };
        let (copy, rest) = scratch.split_at_mut(a.data.len().max(m * width));
        let outside = &mut rest[..k + 4];
        outside.fill(zero as u8);
        let data: &[u8] = match rows {
            Rows::Following if flip == 0 && width == k => a.data,
            Rows::Following => {
                let copy = &mut copy[..m * width];
                cpu.threads.for_each_piece(copy, width.max(1), |i, to| {
                    to[k..].fill(0);
                    to.iter_mut().zip(&a.data[i * k..][..k]).for_each(|(to, from)| *to = from ^ flip);
                });
                copy
            }
            Rows::Taps { .. } if flip == 0 => a.data,
            Rows::Taps { .. } => {
                const PIECE: usize = 1 << 14;
                let copy = &mut copy[..a.data.len()];
                cpu.threads.for_each_piece(copy, PIECE, |i, to| {
                    to.iter_mut().zip(&a.data[i * PIECE..]).for_each(|(to, from)| *to = from ^ flip);
                });
                copy
            }
        };
        let to = match target {
            Target::Sums(c) => To::Sums(Shared::new(c)),
            Target::Bytes { y, bias, factors, zero, signed } => {
                let (low, high) = if signed { (-128, 127) } else { (0, 255) };
                To::Bytes { y: Shared::new(y), bias, factors, zero, low: low - zero, high: high - zero }
            }
        };
        // `sum (a - za) (b - zb)` is `sum (a - za) b` less zb times the sum of the row of A.
        assert!(
            self.zero == 0 || matches!(rows, Rows::Following),
            "rows of a computed product follow each other"
        );
        let job = Job { packed: self, m, zero, data, width, rows, outside, to };
        let (panels, blocks) = (n.div_ceil(PANEL), m.div_ceil(ROWS * TILES));
        let strips = match cpu.threads.count() {
            1 => 1,
            threads => panels.min((4 * threads).div_ceil(blocks)),
        };
        let strip = panels.div_ceil(strips);
        cpu.threads.for_each(blocks * strips, |task| {
            let (block, first) = (task / strips, task % strips * strip);
            for panel in first..panels.min(first + strip) {
                job.panel(block * ROWS * TILES, panel);
            }
        });
    }
}

/// Where sums go.
enum To<'a> {
    Sums(Shared<'a, i32>),
    Bytes { y: Shared<'a, u8>, bias: Option<&'a [i32]>, factors: &'a [f32], zero: i32, low: i32, high: i32 },
}

/// A product with its operands located; lengths are those that [`super::quantized_product`] has checked.
struct Job<'a> {
    packed: &'a Packed,
    m: usize,
    /// Zero point of A as unsigned bytes.
    zero: i32,
    data: &'a [u8],
    /// Bytes of a row of A where rows follow each other.
    width: usize,
    rows: Rows<'a>,
    /// What taps outside the image read.
    outside: &'a [u8],
    to: To<'a>,
}

impl Job<'_> {
    /// The rows of a task from `first`, and one panel of columns.
    fn panel(&self, first: usize, panel: usize) {
        let last = self.m.min(first + ROWS * TILES);
        let mut m = first;
        while m < last {
            // SAFETY: a `Packed` proves the instructions. Rows from m up to `self.m` are in A, the panel is in B, and
            // tasks write disjoint rows and columns.
            unsafe {
                match last - m {
                    1 => self.tile::<1>(m, panel),
                    2..=4 => self.tile::<4>(m, panel),
                    _ => self.tile::<ROWS>(m, panel),
                }
            }
            m += match last - m {
                1 => 1,
                2..=4 => 4,
                _ => ROWS,
            };
        }
    }

    /// Sum of a row of A less its zero points; what fills it up to whole fours is 0.
    #[inline]
    fn row_sum(&self, m: usize) -> i32 {
        let sum: u32 = self.data[m * self.width..][..self.width].iter().map(|x| u32::from(*x)).sum();
        sum as i32 - self.zero * self.packed.k as i32
    }

    /// Where row m starts for a tap, with as many bytes as the tap has.
    fn row(&self, m: usize, tap: usize) -> *const u8 {
        match self.rows {
            Rows::Following => self.data[m * self.width..][..self.width].as_ptr(),
            Rows::Taps { offsets, pixels, image, channels } => match offsets[tap * pixels + m % pixels] {
                OUTSIDE => self.outside.as_ptr(),
                offset => self.data[m / pixels * image + offset as usize..][..channels].as_ptr(),
            },
        }
    }

    /// # Safety
    /// The CPU must have the instructions, rows from m up to `self.m` must be in A, and these rows and columns of the
    /// target be this call's alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn tile<const MR: usize>(&self, m: usize, panel: usize) {
        let packed = self.packed;
        let (taps, groups) = match self.rows {
            Rows::Following => (1, packed.k.div_ceil(4)),
            Rows::Taps { channels, .. } => (packed.k / channels, channels / 4),
        };
        let mut b = packed.data[panel * (taps * groups) * PANEL * 4..].as_ptr();
        let column = [panel * PANEL, panel * PANEL + LANES];
        let masks =
            column.map(|column| ((1u32 << packed.n.saturating_sub(column).min(LANES)) - 1) as __mmask16);
        // Sums begin with what belongs to their columns.
        let mut acc = [[_mm512_setzero_si512(); 2]; MR];
        for v in 0..2 {
            // SAFETY: column sums are whole panels; the mask keeps to the columns that there are.
            let shift = unsafe {
                let sums = _mm512_loadu_si512(packed.sums.as_ptr().add(column[v]).cast());
                let zeros = _mm512_mullo_epi32(sums, _mm512_set1_epi32(self.zero));
                let bias = match &self.to {
                    To::Bytes { bias: Some(bias), .. } => {
                        _mm512_maskz_loadu_epi32(masks[v], bias.as_ptr().wrapping_add(column[v]))
                    }
                    _ => _mm512_setzero_si512(),
                };
                _mm512_sub_epi32(bias, zeros)
            };
            unrolled!(i < MR => {
                acc[i][v] = shift;
            });
        }
        for tap in 0..taps {
            let mut a = [std::ptr::null(); MR];
            for (i, a) in a.iter_mut().enumerate() {
                *a = self.row((m + i).min(self.m - 1), tap);
            }
            for group in 0..groups {
                // SAFETY: each row has 4 * groups bytes, the panel 128 bytes for each group of each tap.
                unsafe {
                    let (left, right) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(64).cast()));
                    unrolled!(i < MR => {
                        let x = a[i].add(4 * group).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        acc[i][0] = _mm512_dpbusd_epi32(acc[i][0], x, left);
                        acc[i][1] = _mm512_dpbusd_epi32(acc[i][1], x, right);
                    });
                    b = b.add(128);
                }
            }
        }
        let rows = (self.m - m).min(MR);
        // And what belongs to their rows, where B has a zero point.
        if packed.zero != 0 {
            unrolled!(i < MR => {
                if i < rows {
                    let own = _mm512_set1_epi32(packed.zero * self.row_sum(m + i));
                    for v in 0..2 {
                        acc[i][v] = _mm512_sub_epi32(acc[i][v], own);
                    }
                }
            });
        }
        let n = packed.n;
        // SAFETY: these rows and columns are the target's and this call's alone; masks keep to the columns that there are.
        unsafe {
            match &self.to {
                To::Sums(c) => {
                    let c = c.pointer(m * n, rows * n);
                    unrolled!(i < MR => {
                        if i < rows {
                            for v in 0..2 {
                                let to = c.wrapping_add(i * n + column[v]);
                                _mm512_mask_storeu_epi32(to, masks[v], acc[i][v]);
                            }
                        }
                    });
                }
                To::Bytes { y, factors, zero, low, high, .. } => {
                    let y = y.pointer(m * n, rows * n);
                    let mut factor = [_mm512_set1_ps(factors[0]); 2];
                    if factors.len() > 1 {
                        for v in 0..2 {
                            let own = factors.as_ptr().wrapping_add(column[v]);
                            factor[v] = _mm512_maskz_loadu_ps(masks[v], own);
                        }
                    }
                    let (low, high) = (_mm512_set1_ps(*low as f32), _mm512_set1_ps(*high as f32));
                    let zero = _mm512_set1_epi32(*zero);
                    unrolled!(i < MR => {
                        if i < rows {
                            for v in 0..2 {
                                let level = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][v]), factor[v]);
                                // Clamped while still a float: the conversion, which rounds halves to even, would turn
                                // what is too large into a negative number.
                                let level = _mm512_min_ps(_mm512_max_ps(level, low), high);
                                let whole = _mm512_add_epi32(_mm512_cvtps_epi32(level), zero);
                                let bytes = _mm512_cvtepi32_epi8(whole);
                                let to = y.wrapping_add(i * n + column[v]);
                                if masks[v] == __mmask16::MAX {
                                    _mm_storeu_si128(to.cast(), bytes);
                                } else {
                                    _mm_mask_storeu_epi8(to.cast(), masks[v], bytes);
                                }
                            }
                        }
                    });
                }
            }
        }
    }
}
