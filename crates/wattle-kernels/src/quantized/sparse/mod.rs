//! Products of bytes by sparse weights: the non-zeros of an output are taken in groups, as many as one instruction sums.
//!
//! A strip of rows of A is turned into a panel, `[k][row]`, so that what a non-zero is multiplied with is whole vectors.
//! With VNNI groups are of four (`vnni`), elsewhere of two (`pairs`). Both are exact, so both give the same bits.

mod pairs;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
use super::vnni::Vnni;
use super::{Bytes, Rows, Target};
use crate::Cpu;
use crate::igemm::OUTSIDE;
use crate::threads::Shared;

/// Side of the blocks of bytes that are transposed in registers.
const SQUARE: usize = 16;
/// Bytes of a line of the caches.
const LINE: usize = 64;
/// Groups of non-zeros that beginning and ending an output costs as much as.
const OUTPUT_COST: usize = 3;

/// Weights `[k, n]` by their non-zeros.
pub(super) struct SparseBytes {
    pub k: usize,
    pub n: usize,
    /// First group of each output, and the end of the last.
    starts: Vec<u32>,
    /// The rows of the panel for each group; what fills up an output's last group names row 0.
    indices: Vec<u16>,
    /// The weights of a group, the first in the lowest bits; what fills up is 0.
    values: Vec<i32>,
    /// Sum of each output's weights.
    sums: Vec<i32>,
    threads: usize,
    kind: Kind,
}

/// Which instructions sum a group.
#[derive(Clone, Copy)]
enum Kind {
    /// Two weights of 16 bits.
    Pairs,
    /// Four weights of 8 bits. Holding the proof is what makes the product safe to call.
    #[cfg(target_arch = "x86_64")]
    Fours(Vnni),
}

impl Kind {
    /// The fastest of this processor.
    fn of(cpu: &Cpu) -> Kind {
        #[cfg(target_arch = "x86_64")]
        if let (crate::Isa::Avx512(_), Some(proof)) = (cpu.isa, Vnni::detect()) {
            return Kind::Fours(proof);
        }
        let _ = cpu;
        Kind::Pairs
    }

    /// Weights of a group.
    fn group(self) -> usize {
        match self {
            Kind::Pairs => 2,
            #[cfg(target_arch = "x86_64")]
            Kind::Fours(_) => 4,
        }
    }

    /// Rows of A of a strip.
    fn strip(self) -> usize {
        match self {
            Kind::Pairs => pairs::STRIP,
            #[cfg(target_arch = "x86_64")]
            Kind::Fours(_) => vnni::STRIP,
        }
    }
}

/// As [`super::group`].
pub(super) fn group(cpu: &Cpu) -> usize {
    Kind::of(cpu).group()
}

impl SparseBytes {
    /// `at(k, n)` is an element less its zero point; `None` where k exceeds 16-bit indices.
    pub fn new(cpu: &Cpu, k: usize, n: usize, at: impl Fn(usize, usize) -> i16) -> Option<SparseBytes> {
        let kind = Kind::of(cpu);
        let bytes = i16::from(i8::MIN)..=i16::from(i8::MAX);
        let are_bytes = || (0..n).all(|j| (0..k).all(|i| bytes.contains(&at(i, j))));
        let kind = if kind.group() == 4 && !are_bytes() { Kind::Pairs } else { kind };
        SparseBytes::of_kind(cpu, kind, k, n, at)
    }

    fn of_kind(
        cpu: &Cpu,
        kind: Kind,
        k: usize,
        n: usize,
        at: impl Fn(usize, usize) -> i16,
    ) -> Option<SparseBytes> {
        if k == 0 || k > 1 << 16 {
            return None;
        }
        let (group, bits) = (kind.group(), 32 / kind.group());
        let mask = u32::MAX >> (32 - bits);
        let (mut starts, mut indices, mut values, mut sums) = (vec![0], vec![], vec![], vec![]);
        for column in 0..n {
            let mut kept = vec![];
            for row in 0..k {
                let value = at(row, column);
                if value != 0 {
                    indices.push(row as u16);
                    kept.push(value);
                }
            }
            sums.push(kept.iter().map(|x| i32::from(*x)).sum());
            indices.resize(indices.len().next_multiple_of(group), 0);
            values.extend(kept.chunks(group).map(|group| {
                let parts = group.iter().enumerate();
                parts.fold(0, |all, (i, x)| all | (*x as u32 & mask) << (i * bits)) as i32
            }));
            starts.push(values.len() as u32);
        }
        let threads = cpu.threads.count();
        Some(SparseBytes { k, n, starts, indices, values, sums, threads, kind })
    }

    /// Name of the instructions it was made for.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Pairs => "sparse-pairs",
            #[cfg(target_arch = "x86_64")]
            Kind::Fours(_) => "sparse-vnni",
        }
    }

    /// Bytes of a thread's panel, with room for the square that its last rows end in, and of its results.
    fn slot(&self) -> [usize; 2] {
        let (k, n) = (self.k + SQUARE, self.n.next_multiple_of(SQUARE));
        match self.kind {
            Kind::Pairs => [k * pairs::STRIP * size_of::<i16>(), 0],
            #[cfg(target_arch = "x86_64")]
            Kind::Fours(_) => [k * vnni::STRIP, n.max(4 * SQUARE) * vnni::STRIP],
        }
    }

    /// Scratch bytes that [`SparseBytes::product`] needs.
    pub fn scratch_len(&self) -> usize {
        self.threads * self.slot().iter().sum::<usize>() + LINE + self.k
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
        let (outside, scratch) = scratch.split_at_mut(self.k);
        outside.fill(a.zero as u8);
        let skip = scratch.as_ptr().align_offset(LINE).min(LINE);
        let scratch = Shared::new(&mut scratch[skip..]);
        let width = self.kind.strip();
        let strips = m.div_ceil(width);
        let threads = cpu.threads.count();
        let parts = if strips >= 2 * threads { 1 } else { threads.div_ceil(strips) };
        let ends = self.ends(parts);
        let job = Job { weights: self, isa: cpu.isa, m, a, rows, outside, to: To::of(target) };
        let [panel, results] = self.slot();
        cpu.threads.for_each_slot(strips * parts, |slot, task| {
            let (strip, part) = (task / parts, task % parts);
            let outputs = if part == 0 { 0 } else { ends[part - 1] }..ends[part];
            // SAFETY: a slot's scratch belongs to the thread that runs it.
            let own = unsafe { scratch.slice(slot * (panel + results), panel + results) };
            #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
            let (panel, results) = own.split_at_mut(panel);
            // SAFETY: the kind proves the instructions; tasks write disjoint rows and columns.
            unsafe {
                match self.kind {
                    Kind::Pairs => {
                        job.strip_of_pairs(strip * width, outputs, bytemuck::cast_slice_mut(panel))
                    }
                    #[cfg(target_arch = "x86_64")]
                    Kind::Fours(_) => job.strip_of_fours(strip * width, outputs, panel, results),
                }
            }
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

    /// The weights of an output's groups and the rows of the panel they are for.
    fn output(&self, j: usize) -> (&[i32], &[u16]) {
        let (start, end, group) = (self.starts[j] as usize, self.starts[j + 1] as usize, self.kind.group());
        (&self.values[start..end], &self.indices[group * start..group * end])
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
    isa: crate::Isa,
    m: usize,
    a: Bytes<'a>,
    rows: Rows<'a>,
    /// What taps outside the image read.
    outside: &'a [u8],
    to: To<'a>,
}

impl Job<'_> {
    /// Taps of a row of A and bytes of each.
    fn taps(&self) -> [usize; 2] {
        match self.rows {
            Rows::Following => [1, self.weights.k],
            Rows::Taps { channels, .. } => [self.weights.k / channels, channels],
        }
    }

    /// The bytes of a tap of a row of A.
    fn row(&self, m: usize, tap: usize) -> &[u8] {
        match self.rows {
            Rows::Following => &self.a.data[m * self.weights.k..][..self.weights.k],
            Rows::Taps { offsets, pixels, image, channels } => match offsets[tap * pixels + m % pixels] {
                OUTSIDE => &self.outside[..channels],
                offset => &self.a.data[m / pixels * image + offset as usize..][..channels],
            },
        }
    }

    /// The bytes of a tap of as many rows of A as a square has, the last again where there are fewer.
    fn rows_from(&self, first: usize, tap: usize) -> [&[u8]; SQUARE] {
        std::array::from_fn(|i| self.row((first + i).min(self.m - 1), tap))
    }

    /// Bits that make a byte of A unsigned, and its zero point as such a byte.
    fn unsigned(&self) -> (u8, i32) {
        if self.a.signed { (0x80, self.a.zero + 0x80) } else { (0, self.a.zero) }
    }
}

/// A square of bytes with rows and columns exchanged.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn transposed(mut square: [std::arch::x86_64::__m128i; SQUARE]) -> [std::arch::x86_64::__m128i; SQUARE] {
    use std::arch::x86_64::{_mm_unpackhi_epi8, _mm_unpacklo_epi8};
    // Each round is a perfect shuffle of the 256 bytes; four of them exchange the halves of their addresses.
    crate::simd::unrolled!(_round < 4 => {
        let from = square;
        crate::simd::unrolled!(i < 8 => {
            square[2 * i] = _mm_unpacklo_epi8(from[i], from[i + 8]);
            square[2 * i + 1] = _mm_unpackhi_epi8(from[i], from[i + 8]);
        });
    });
    square
}
