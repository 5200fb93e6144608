//! Integer products: 8-bit by 8-bit with zero points, summed exactly in 32 bits.
//!
//! Where the CPU has VNNI and the weights' zero points are 0, bytes are multiplied as they are (`vnni`); elsewhere they
//! are widened to 16-bit pairs (`pairs`). Both are exact, so both give the same bits.

mod pairs;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::Cpu;
use crate::quantize::requantize;
pub use pairs::Byte;
use pairs::PairedWeights;

/// Constant weights `[k, n]` prepared for [`quantized_product`].
pub struct QuantizedWeights(Form);

enum Form {
    Pairs(PairedWeights),
    #[cfg(target_arch = "x86_64")]
    Vnni(vnni::Packed),
}

impl QuantizedWeights {
    /// Packs a matrix `[k, n]`; one zero point for all columns or one for each. `at(k, n)` is the element's index in
    /// `weights`, so that any layout can be packed.
    pub fn new<T: Byte>(
        cpu: &Cpu,
        k: usize,
        n: usize,
        weights: &[T],
        zero: &[T],
        at: impl Fn(usize, usize) -> usize,
    ) -> Self {
        assert!(zero.len() == 1 || zero.len() == n, "one zero point, or one for each of {n} columns");
        #[cfg(target_arch = "x86_64")]
        if let (crate::Isa::Avx512(_), Some(proof)) = (cpu.isa, vnni::Vnni::detect()) {
            // Unsigned bytes around 128 are signed bytes around 0.
            let centred = |x: T| x.widen() - T::CENTRE;
            if zero.iter().all(|z| centred(*z) == 0) {
                let at = |k, n| centred(weights[at(k, n)]) as i8;
                return QuantizedWeights(Form::Vnni(vnni::Packed::new(proof, k, n, at)));
            }
        }
        let _ = cpu;
        QuantizedWeights(Form::Pairs(PairedWeights::new(k, n, weights, zero, at)))
    }

    /// Whether rows may be read tap by tap ([`Rows::Taps`]) and results be made bytes in the same pass.
    pub fn is_direct(&self) -> bool {
        !matches!(self.0, Form::Pairs(_))
    }

    /// Name of the instructions it was packed for.
    pub fn kind(&self) -> &'static str {
        match self.0 {
            Form::Pairs(_) => "pairs",
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(_) => "vnni",
        }
    }

    /// Scratch bytes, at a multiple of 4, that [`quantized_product`] needs for m rows out of `a_len` bytes.
    pub fn scratch_len(&self, m: usize, a_len: usize) -> usize {
        match &self.0 {
            Form::Pairs(w) => 2 * pairs::scratch_len(m, w.k) + 4 * m * w.n,
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(w) => vnni::scratch_len(m, w.k, a_len),
        }
        .next_multiple_of(4)
    }

    fn size(&self) -> [usize; 2] {
        match &self.0 {
            Form::Pairs(w) => [w.k, w.n],
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(w) => [w.k, w.n],
        }
    }
}

/// 8-bit operands: raw bytes, what they mean, and the byte that stands for 0.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Bytes are i8.
    pub signed: bool,
    /// The number whose difference is taken.
    pub zero: i32,
}

/// Where the rows of A are.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// One after the other, k bytes each.
    Following,
    /// A row is read tap by tap, `channels` bytes (a multiple of 4) at each: a convolution, channels last. Weights are
    /// ordered `[tap, channel]`.
    Taps {
        /// `[tap][pixel]`: first byte within an image, or -1 outside of it.
        offsets: &'a [i32],
        /// Output pixels of an image.
        pixels: usize,
        /// Bytes of an image.
        image: usize,
        /// Bytes of a tap.
        channels: usize,
    },
}

/// What becomes of the sums.
pub enum Target<'a> {
    /// They are the result.
    Sums(&'a mut [i32]),
    /// `y = saturate(round((sum + bias) factor) + zero)`, as [`requantize`] does it.
    Bytes {
        /// The result.
        y: &'a mut [u8],
        /// One for each column.
        bias: Option<&'a [i32]>,
        /// One, or one for each column.
        factors: &'a [f32],
        /// Zero point of y.
        zero: i32,
        /// y is i8.
        signed: bool,
    },
}

/// `sum over k of (a - zero) b` for m rows of A and weights less their zero points; `scratch` has
/// [`QuantizedWeights::scratch_len`] bytes and is aligned to 4.
///
/// # Panics
/// If lengths contradict the shape, or rows are read tap by tap with weights that are not [direct](QuantizedWeights::is_direct).
pub fn quantized_product(
    cpu: &Cpu,
    m: usize,
    a: Bytes<'_>,
    rows: Rows<'_>,
    weights: &QuantizedWeights,
    target: Target<'_>,
    scratch: &mut [u8],
) {
    let [k, n] = weights.size();
    match rows {
        Rows::Following => assert_eq!(a.data.len(), m * k, "A of a product {m} x {n} x {k}"),
        Rows::Taps { offsets, pixels, image, channels } => {
            assert!(
                channels > 0 && channels.is_multiple_of(4) && k.is_multiple_of(channels),
                "{channels} channels"
            );
            assert_eq!(offsets.len(), k / channels * pixels, "offsets of {} taps", k / channels);
            assert!(
                pixels > 0 && m.is_multiple_of(pixels) && a.data.len() == m / pixels * image,
                "images of {image}"
            );
        }
    }
    match &target {
        Target::Sums(c) => assert_eq!(c.len(), m * n, "sums of a product {m} x {n} x {k}"),
        Target::Bytes { y, bias, factors, .. } => {
            assert!(
                y.len() == m * n && [1, n].contains(&factors.len()),
                "bytes of a product {m} x {n} x {k}"
            );
            assert!(bias.is_none_or(|b| b.len() == n), "a bias for each of {n} columns");
        }
    }
    let scratch = &mut scratch[..weights.scratch_len(m, a.data.len())];
    match &weights.0 {
        #[cfg(target_arch = "x86_64")]
        Form::Vnni(packed) => packed.product(cpu, m, a, rows, target, scratch),
        Form::Pairs(packed) => {
            assert!(matches!(rows, Rows::Following), "these weights need whole rows");
            let (wide, sums) = scratch.split_at_mut(2 * pairs::scratch_len(m, k));
            let wide = bytemuck::cast_slice_mut(wide);
            match target {
                Target::Sums(c) => packed.product(cpu, m, a, c, wide),
                Target::Bytes { y, bias, factors, zero, signed } => {
                    let sums = &mut bytemuck::cast_slice_mut(sums)[..m * n];
                    packed.product(cpu, m, a, sums, wide);
                    requantize(cpu, n, sums, bias, factors, zero, signed, y);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, cpus};

    /// Bytes and what they stand for.
    fn bytes(numbers: &mut Numbers, len: usize) -> Vec<u8> {
        (0..len).map(|_| numbers.next() as u8).collect()
    }

    fn value(byte: u8, signed: bool) -> i32 {
        crate::quantize::value(byte, signed)
    }

    #[test]
    fn products_are_exact_and_their_bytes_are_those_of_requantising_on_every_instruction_set() {
        let numbers = &mut Numbers::new(1);
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (9, 70, 130), (14, 32, 64), (3, 2, 0), (101, 47, 36)] {
            for (signed, shifted) in [(false, false), (true, false), (false, true), (true, true)] {
                let (a, b) = (bytes(numbers, m * k), bytes(numbers, k * n));
                let zero = value(numbers.next() as u8, signed);
                let b_zero: Vec<i8> =
                    (0..n).map(|_| if shifted { numbers.next() as i8 } else { 0 }).collect();
                let b: &[i8] = bytemuck::cast_slice(&b);
                let mut want = vec![0i32; m * n];
                for (i, want) in want.iter_mut().enumerate() {
                    let (row, column) = (i / n, i % n);
                    for p in 0..k {
                        let w = i32::from(b[p * n + column]) - i32::from(b_zero[column]);
                        *want += (value(a[row * k + p], signed) - zero) * w;
                    }
                }
                let bias: Vec<i32> = (0..n as i32).map(|i| 1000 - 77 * i).collect();
                let factors: Vec<f32> = (0..n).map(|i| 0.001 + 0.0003 * i as f32).collect();
                for cpu in cpus().iter().flatten() {
                    let weights = QuantizedWeights::new(cpu, k, n, b, &b_zero, |i, j| i * n + j);
                    let a = Bytes { data: &a, signed, zero };
                    let mut scratch = vec![0u32; weights.scratch_len(m, m * k) / 4];
                    let scratch: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
                    let mut c = vec![-1; m * n];
                    quantized_product(cpu, m, a, Rows::Following, &weights, Target::Sums(&mut c), scratch);
                    assert_eq!(c, want, "{m} x {n} x {k} {}", weights.kind());
                    if k == 0 {
                        continue;
                    }
                    let (mut y, mut expected) = (vec![1; m * n], vec![2; m * n]);
                    requantize(cpu, n, &want, Some(&bias), &factors, 3, signed, &mut expected);
                    let target =
                        Target::Bytes { y: &mut y, bias: Some(&bias), factors: &factors, zero: 3, signed };
                    quantized_product(cpu, m, a, Rows::Following, &weights, target, scratch);
                    assert_eq!(y, expected, "{m} x {n} x {k} {}", weights.kind());
                }
            }
        }
    }

    #[test]
    fn rows_read_tap_by_tap_equal_rows_copied_together() {
        let numbers = &mut Numbers::new(5);
        let (images, pixels, channels, taps, n) = (2, 10, 8, 3, 21);
        let image = 12 * channels;
        let x = bytes(numbers, images * image);
        let offsets: Vec<i32> = (0..taps * pixels)
            .map(|i| if i % 7 == 3 { -1 } else { ((i * 5) % 12 * channels) as i32 })
            .collect();
        let b: Vec<i8> = bytes(numbers, taps * channels * n).into_iter().map(|x| x as i8).collect();
        let (m, k) = (images * pixels, taps * channels);
        for signed in [false, true] {
            let zero = 17;
            let mut together = vec![];
            for row in 0..m {
                for tap in 0..taps {
                    match offsets[tap * pixels + row % pixels] {
                        -1 => together.extend([zero as u8; 8]),
                        o => together.extend(&x[row / pixels * image + o as usize..][..channels]),
                    }
                }
            }
            for cpu in cpus().iter().flatten() {
                let weights = QuantizedWeights::new(cpu, k, n, &b, &[0], |i, j| i * n + j);
                if !weights.is_direct() {
                    continue;
                }
                let mut scratch = vec![0; weights.scratch_len(m, x.len().max(m * k))];
                let (mut c, mut want) = (vec![0; m * n], vec![1; m * n]);
                let rows = Rows::Taps { offsets: &offsets, pixels, image, channels };
                let a = Bytes { data: &x, signed, zero };
                quantized_product(cpu, m, a, rows, &weights, Target::Sums(&mut c), &mut scratch);
                let a = Bytes { data: &together, signed, zero };
                quantized_product(
                    cpu,
                    m,
                    a,
                    Rows::Following,
                    &weights,
                    Target::Sums(&mut want),
                    &mut scratch,
                );
                assert_eq!(c, want);
            }
        }
    }
}
