//! Depthwise convolution of bytes, channels last, where the CPU has VNNI: two taps of 32 channels in one instruction, and
//! the sums made bytes before they leave their registers.

use std::arch::x86_64::*;

use super::vnni::Vnni;
use crate::Cpu;
use crate::conv::ConvShape;
use crate::simd::unrolled;
use crate::threads::Shared;

/// Channels of a block: a vector of 16-bit numbers.
const BLOCK: usize = 32;
/// Pairs of taps whose weights stay in registers: a 3 x 3 kernel has 5.
const PAIRS: usize = 5;

/// Weights of a depthwise convolution prepared for [`Depthwise::run`].
pub struct Depthwise {
    /// Holding one is what makes the kernel safe to call.
    _proof: Vnni,
    shape: ConvShape,
    /// `[block][pair][half][channel][2]`: a half has channels 0..4, 8..12, 16..20, 24..28 of its block, or the others.
    weights: Vec<i16>,
    /// Sum of the weights of each channel.
    sums: Vec<i32>,
}

/// What becomes of the sums: `y = saturate(round((sum + bias) factor) + zero)`.
#[derive(Clone, Copy)]
pub struct Levels<'a> {
    /// One for each channel.
    pub bias: Option<&'a [i32]>,
    /// One, or one for each channel.
    pub factors: &'a [f32],
    /// Zero point of the result.
    pub zero: i32,
    /// The result is i8.
    pub signed: bool,
}

/// Which channel of its block stands at place `i` of half `half`.
fn channel(half: usize, i: usize) -> usize {
    i / 4 * 8 + half * 4 + i % 4
}

impl Depthwise {
    /// Packs weights `[taps, channels]` less their zero points; `None` without VNNI, and for kernels other than 3 x 3 or
    /// channels that are not a multiple of 32.
    pub fn new(cpu: &Cpu, shape: &ConvShape, weights: &[i16]) -> Option<Depthwise> {
        let channels = shape.channels;
        let taps = shape.kernel[0] * shape.kernel[1];
        let fits = taps == 9 && shape.kernel[0] == 3 && channels.is_multiple_of(BLOCK) && channels > 0;
        let is_depthwise = shape.groups == channels && shape.filters == channels;
        if !fits
            || !is_depthwise
            || weights.len() != taps * channels
            || !matches!(cpu.isa, crate::Isa::Avx512(_))
        {
            return None;
        }
        let proof = Vnni::detect()?;
        let mut packed = vec![0; channels * 2 * PAIRS];
        for (at, to) in packed.iter_mut().enumerate() {
            let (tap, i, half) = (at / 64 % PAIRS * 2 + at % 2, at / 2 % 16, at / 32 % 2);
            let c = at / (64 * PAIRS) * BLOCK + channel(half, i);
            *to = if tap < taps { weights[tap * channels + c] } else { 0 };
        }
        let sums =
            (0..channels).map(|c| (0..taps).map(|t| i32::from(weights[t * channels + c])).sum()).collect();
        Some(Depthwise { _proof: proof, shape: *shape, weights: packed, sums })
    }

    /// Scratch elements of 4 bytes that [`Depthwise::run`] needs.
    pub fn scratch_len(&self) -> usize {
        2 * self.shape.channels + self.shape.channels.div_ceil(4)
    }

    /// The convolution of x, whose byte `zero` (a number of the type `signed`) stands for 0.
    ///
    /// # Panics
    /// If lengths contradict the shape.
    pub fn run(&self, cpu: &Cpu, x: super::Bytes<'_>, levels: Levels<'_>, y: &mut [u8], scratch: &mut [u32]) {
        let (shape, channels) = (&self.shape, self.shape.channels);
        assert!(x.data.len() == shape.input_len() && y.len() == shape.output_len(), "{shape:?}");
        assert!([1, channels].contains(&levels.factors.len()), "factors for {channels} channels");
        assert!(levels.bias.is_none_or(|b| b.len() == channels), "a bias for each of {channels} channels");
        let (flip, zero) = if x.signed { (0x80u8, x.zero + 128) } else { (0, x.zero) };
        let (bias, rest) = scratch[..self.scratch_len()].split_at_mut(channels);
        let (factors, outside) = rest.split_at_mut(channels);
        let outside: &mut [u8] = &mut bytemuck::cast_slice_mut(outside)[..channels];
        outside.fill(zero as u8 ^ flip);
        // In the order of the halves, and with the zero point of x taken off.
        for at in 0..channels {
            let c = at / BLOCK * BLOCK + channel(at / 16 % 2, at % 16);
            let sum = self.sums[c].wrapping_mul(zero);
            bias[at] = levels.bias.map_or(0, |b| b[c]).wrapping_sub(sum) as u32;
            factors[at] = levels.factors[if levels.factors.len() == 1 { 0 } else { c }].to_bits();
        }
        let (low, high) = if levels.signed { (-128, 127) } else { (0, 255) };
        let [height, width] = shape.output();
        let job = Job {
            depthwise: self,
            x: x.data,
            flip,
            bias,
            factors,
            outside,
            zero: levels.zero,
            low: (low - levels.zero) as f32,
            high: (high - levels.zero) as f32,
            y: Shared::new(y),
        };
        cpu.threads.for_each(shape.batch * height, |i| {
            if width > 0 {
                // SAFETY: a `Depthwise` proves the instructions; lengths are checked above, and tasks write disjoint rows.
                unsafe { job.row(i / height, i % height) }
            }
        });
    }
}

struct Job<'a> {
    depthwise: &'a Depthwise,
    x: &'a [u8],
    /// Bits that make a byte of x unsigned.
    flip: u8,
    bias: &'a [u32],
    factors: &'a [u32],
    /// A pixel outside of the image.
    outside: &'a [u8],
    zero: i32,
    low: f32,
    high: f32,
    y: Shared<'a, u8>,
}

impl Job<'_> {
    /// One row of the output of an image.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the row be this call's alone.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn row(&self, image: usize, oy: usize) {
        let shape = &self.depthwise.shape;
        let (channels, [height, width]) = (shape.channels, shape.output());
        let row = |ky: usize| {
            let y = (oy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
            (y < shape.height).then(|| &self.x[(image * shape.height + y) * shape.width * channels..])
        };
        let rows = [row(0), row(1), row(2)];
        let first = (image * height + oy) * width * channels;
        // SAFETY: the caller's promise.
        let out = unsafe { self.y.slice(first, width * channels) };
        let flip = _mm256_set1_epi8(self.flip as i8);
        let (low, high) = (_mm512_set1_ps(self.low), _mm512_set1_ps(self.high));
        let zero = _mm512_set1_epi32(self.zero);
        for c in (0..channels).step_by(BLOCK) {
            let mut w = [[_mm512_setzero_si512(); 2]; PAIRS];
            let weights = &self.depthwise.weights[c * 2 * PAIRS..][..64 * PAIRS];
            let (bias, factors) = (&self.bias[c..][..BLOCK], &self.factors[c..][..BLOCK]);
            // SAFETY: the slices have as many elements as are loaded.
            let (bias, factors) = unsafe {
                unrolled!(p < PAIRS => {
                    w[p][0] = _mm512_loadu_si512(weights.as_ptr().add(64 * p).cast());
                    w[p][1] = _mm512_loadu_si512(weights.as_ptr().add(64 * p + 32).cast());
                });
                let (b, f) = (bias.as_ptr(), factors.as_ptr().cast::<f32>());
                let bias = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())];
                (bias, [_mm512_loadu_ps(f), _mm512_loadu_ps(f.add(16))])
            };
            for ox in 0..width {
                let mut taps = [self.outside[c..].as_ptr(); 10];
                let left = (ox * shape.stride[1]).wrapping_sub(shape.pads[1]);
                for (ky, row) in rows.iter().enumerate() {
                    let Some(row) = row else { continue };
                    for kx in 0..3 {
                        let x = left.wrapping_add(kx * shape.dilation[1]);
                        if x < shape.width {
                            taps[3 * ky + kx] = row[x * channels + c..][..BLOCK].as_ptr();
                        }
                    }
                }
                let mut acc = bias;
                // SAFETY: every tap, also the tenth that has no weight, has 32 bytes; the pixel's 32 results are in `out`.
                unsafe {
                    unrolled!(p < PAIRS => {
                        let a = _mm256_xor_si256(_mm256_loadu_si256(taps[2 * p].cast()), flip);
                        let b = _mm256_xor_si256(_mm256_loadu_si256(taps[2 * p + 1].cast()), flip);
                        let (a, b) = (_mm512_cvtepu8_epi16(a), _mm512_cvtepu8_epi16(b));
                        acc[0] = _mm512_dpwssd_epi32(acc[0], _mm512_unpacklo_epi16(a, b), w[p][0]);
                        acc[1] = _mm512_dpwssd_epi32(acc[1], _mm512_unpackhi_epi16(a, b), w[p][1]);
                    });
                    let mut whole = acc;
                    unrolled!(h < 2 => {
                        let level = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[h]), factors[h]);
                        // Clamped as a float; the conversion rounds, halves to even.
                        let level = _mm512_min_ps(_mm512_max_ps(level, low), high);
                        whole[h] = _mm512_add_epi32(_mm512_cvtps_epi32(level), zero);
                    });
                    // Packing undoes the order of the halves.
                    let bytes = _mm512_cvtepi16_epi8(_mm512_packs_epi32(whole[0], whole[1]));
                    _mm256_storeu_si256(out[ox * channels + c..][..BLOCK].as_mut_ptr().cast(), bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::{depthwise_sums, requantize};
    use crate::testing::{Numbers, cpus};

    #[test]
    fn bytes_equal_those_of_sums_that_are_requantised() {
        let numbers = &mut Numbers::new(6);
        for (size, stride, dilation, pads) in
            [([7, 9], 1, 1, [1; 4]), ([8, 5], 2, 1, [0, 1, 1, 0]), ([6, 6], 1, 2, [2; 4])]
        {
            let channels = 96;
            let shape = ConvShape {
                batch: 2,
                height: size[0],
                width: size[1],
                channels,
                filters: channels,
                kernel: [3, 3],
                stride: [stride, stride],
                dilation: [dilation, dilation],
                pads,
                groups: channels,
            };
            let x: Vec<u8> = (0..shape.input_len()).map(|_| numbers.next() as u8).collect();
            let weights: Vec<i16> = (0..9 * channels).map(|_| (numbers.next() % 511) as i16 - 255).collect();
            let bias: Vec<i32> = (0..channels).map(|i| 5000 - 77 * i as i32).collect();
            let factors: Vec<f32> = (0..channels).map(|i| 0.0007 + 0.00003 * i as f32).collect();
            for (signed, zero, bias, factors) in
                [(false, 7, Some(&bias[..]), &factors[..]), (true, -100, None, &factors[..1])]
            {
                let mut sums = vec![0; shape.output_len()];
                let mut want = vec![0; sums.len()];
                let plain = Cpu { isa: crate::Isa::scalar(), threads: crate::Threads::single() };
                depthwise_sums(&plain, &shape, &x, zero, signed, &weights, &mut sums);
                requantize(&plain, channels, &sums, bias, factors, 11, signed, &mut want);
                for cpu in cpus().iter().flatten() {
                    let Some(depthwise) = Depthwise::new(cpu, &shape, &weights) else { continue };
                    let mut y = vec![1; want.len()];
                    let mut scratch = vec![0; depthwise.scratch_len()];
                    let levels = Levels { bias, factors, zero: 11, signed };
                    let x = super::super::Bytes { data: &x, signed, zero };
                    depthwise.run(cpu, x, levels, &mut y, &mut scratch);
                    assert_eq!(y, want, "{shape:?}");
                }
            }
        }
    }
}
