//! Integer products: 8-bit by 8-bit with zero points, summed exactly in 32 bits.
//!
//! Where the CPU has VNNI and the weights' zero points are 0, bytes are multiplied as they are (`vnni`); elsewhere they
//! are widened to 16-bit pairs (`pairs`). Both are exact, so both give the same bits.

#[cfg(target_arch = "x86_64")]
mod depthwise;
mod pairs;
mod sparse;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::Cpu;
use crate::conv::ConvShape;
use crate::quantize::requantize;
#[cfg(target_arch = "x86_64")]
pub use depthwise::{Depthwise, Levels};
pub use pairs::Byte;
use pairs::PairedWeights;

/// Constant weights `[k, n]` prepared for [`quantized_product`].
pub struct QuantizedWeights(Form);

enum Form {
    Pairs(PairedWeights),
    #[cfg(target_arch = "x86_64")]
    Vnni(vnni::Packed),
    Sparse(sparse::SparseBytes),
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

    /// The non-zeros of a matrix, for [`quantized_product`] to compute alone: as [`QuantizedWeights::new`], or `None` where
    /// k is 0 or more than 65 536. What equals its zero point counts as zero.
    pub fn sparse<T: Byte>(
        cpu: &Cpu,
        k: usize,
        n: usize,
        weights: &[T],
        zero: &[T],
        at: impl Fn(usize, usize) -> usize,
    ) -> Option<Self> {
        assert!(zero.len() == 1 || zero.len() == n, "one zero point, or one for each of {n} columns");
        let zero = |n: usize| zero[if zero.len() == 1 { 0 } else { n }].widen();
        let at = |k, n| weights[at(k, n)].widen() - zero(n);
        Some(QuantizedWeights(Form::Sparse(sparse::SparseBytes::new(cpu, k, n, at)?)))
    }

    /// Packs another matrix of the same extents, computed this time: `[k, n]`, row-major, one zero point. Where its zero
    /// point is not the centre of its type, rows of A are summed too.
    ///
    /// # Panics
    /// If the matrix has another size, or the weights are sparse.
    pub fn refill(&mut self, weights: Bytes<'_>) {
        let [k, n] = self.size();
        assert_eq!(weights.data.len(), k * n, "a matrix {k} x {n}");
        match &mut self.0 {
            Form::Pairs(packed) => packed.refill(weights),
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(packed) => packed.refill(weights),
            Form::Sparse(_) => panic!("a computed matrix is dense"),
        }
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
            Form::Sparse(ref w) => w.name(),
        }
    }

    /// Scratch bytes, at a multiple of 4, that [`quantized_product`] needs for m rows out of `a_len` bytes.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn scratch_len(&self, m: usize, a_len: usize) -> usize {
        match &self.0 {
            Form::Pairs(w) => 2 * pairs::scratch_len(m, w.k) + 4 * m * w.n,
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(w) => vnni::scratch_len(m, w.k, a_len),
            Form::Sparse(w) => w.scratch_len(),
        }
        .next_multiple_of(4)
    }

    fn size(&self) -> [usize; 2] {
        match &self.0 {
            Form::Pairs(w) => [w.k, w.n],
            #[cfg(target_arch = "x86_64")]
            Form::Vnni(w) => [w.k, w.n],
            Form::Sparse(w) => [w.k, w.n],
        }
    }
}

/// Non-zeros that kernels of sparse bytes sum at once on this processor: 4 with VNNI, else 2.
pub fn group(cpu: &Cpu) -> usize {
    sparse::group(cpu)
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

/// Images of few channels, copied into frames with room for the padding and with whole fours of channels: each row of the
/// kernel is then one run of bytes, and [`Rows::Taps`] reads it as one tap.
#[derive(Clone, Debug)]
pub struct Frames {
    shape: ConvShape,
    /// Height and width of a frame.
    size: [usize; 2],
    offsets: Vec<i32>,
}

impl Frames {
    /// `None` where channels are whole fours or many, and for dilated kernels, whose rows are no runs.
    pub fn new(shape: &ConvShape) -> Option<Frames> {
        const MANY: usize = 32;
        let [height, width] = shape.output();
        if shape.channels.is_multiple_of(4)
            || shape.channels > MANY
            || shape.dilation != [1, 1]
            || height * width == 0
        {
            return None;
        }
        let size = [
            (height - 1) * shape.stride[0] + shape.kernel[0],
            (width - 1) * shape.stride[1] + shape.kernel[1],
        ];
        let mut frames = Frames { shape: *shape, size, offsets: vec![] };
        i32::try_from(frames.image()).ok()?;
        for ky in 0..shape.kernel[0] {
            for pixel in 0..height * width {
                let (y, x) = (pixel / width * shape.stride[0] + ky, pixel % width * shape.stride[1]);
                frames.offsets.push(((y * size[1] + x) * frames.channels()) as i32);
            }
        }
        Some(frames)
    }

    /// Channels of a frame.
    pub fn channels(&self) -> usize {
        self.shape.channels.next_multiple_of(4)
    }

    /// Bytes of a frame.
    fn image(&self) -> usize {
        self.size[0] * self.size[1] * self.channels()
    }

    /// Bytes of all frames.
    pub fn bytes(&self) -> usize {
        self.shape.batch * self.image()
    }

    /// The rows of the product: weights are ordered `[kernel row, kernel column, channel of a frame]`.
    pub fn rows(&self) -> Rows<'_> {
        let [height, width] = self.shape.output();
        let channels = self.shape.kernel[1] * self.channels();
        Rows::Taps { offsets: &self.offsets, pixels: height * width, image: self.image(), channels }
    }

    /// Copies images x into frames; the padding becomes `zero`, as do the channels that fill up.
    ///
    /// # Panics
    /// If lengths contradict the shape.
    pub fn fill(&self, cpu: &Cpu, x: &[u8], zero: u8, frames: &mut [u8]) {
        let (shape, channels, [height, width]) = (&self.shape, self.channels(), self.size);
        assert!(x.len() == shape.input_len() && frames.len() == self.bytes(), "frames of {shape:?}");
        let line = shape.width * shape.channels;
        // Pixels before the image, and of it, that a line of the frame has.
        let left = shape.pads[1].min(width);
        let count = shape.width.min(width - left);
        cpu.threads.for_each_piece(frames, width * channels, |i, to| {
            to.fill(zero);
            let y = (i % height).wrapping_sub(shape.pads[0]);
            if y < shape.height {
                let from = &x[(i / height * shape.height + y) * line..][..count * shape.channels];
                let to = &mut to[left * channels..][..count * channels];
                match shape.channels {
                    // Lengths that the compiler knows make this a few moves a pixel.
                    3 => widen::<3>(from, to),
                    1 => widen::<1>(from, to),
                    many => {
                        for (to, from) in to.chunks_exact_mut(channels).zip(from.chunks_exact(many)) {
                            to[..many].copy_from_slice(from);
                        }
                    }
                }
            }
        });
    }
}

fn widen<const FROM: usize>(from: &[u8], to: &mut [u8]) {
    for (to, from) in to.chunks_exact_mut(4).zip(from.chunks_exact(FROM)) {
        to[..FROM].copy_from_slice(from);
    }
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
        Form::Sparse(weights) => weights.product(cpu, m, a, rows, target, scratch),
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
    fn products_of_two_computed_matrices_are_exact_for_any_zero_points() {
        let numbers = &mut Numbers::new(9);
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (9, 70, 130), (3, 64, 2)] {
            for (signed, b_signed) in [(false, false), (true, false), (false, true)] {
                let (a, b) = (bytes(numbers, m * k), bytes(numbers, k * n));
                let (zero, b_zero) = (value(77, signed), value(200, b_signed));
                let want: Vec<i32> = (0..m * n)
                    .map(|i| {
                        let (row, column) = (i / n, i % n);
                        let one = |p: usize| {
                            let w = value(b[p * n + column], b_signed) - b_zero;
                            (value(a[row * k + p], signed) - zero) * w
                        };
                        (0..k).map(one).sum()
                    })
                    .collect();
                for cpu in cpus().iter().flatten() {
                    let mut weights =
                        QuantizedWeights::new(cpu, k, n, &vec![1i8; k * n], &[0], |i, j| i * n + j);
                    let mut scratch = vec![0u32; weights.scratch_len(m, m * k) / 4];
                    let scratch: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
                    for _ in 0..2 {
                        weights.refill(Bytes { data: &b, signed: b_signed, zero: b_zero });
                        let mut c = vec![-1; m * n];
                        let a = Bytes { data: &a, signed, zero };
                        quantized_product(
                            cpu,
                            m,
                            a,
                            Rows::Following,
                            &weights,
                            Target::Sums(&mut c),
                            scratch,
                        );
                        assert_eq!(c, want, "{m} x {n} x {k} {}", weights.kind());
                    }
                }
            }
        }
    }

    #[test]
    fn frames_read_row_by_row_equal_patches() {
        let numbers = &mut Numbers::new(15);
        for (channels, kernel, stride, pads) in [
            (3, [7, 7], 2, [3; 4]),
            (1, [3, 3], 1, [1; 4]),
            (5, [2, 3], 2, [0, 1, 1, 0]),
            (3, [1, 1], 1, [0; 4]),
        ] {
            let shape = ConvShape {
                batch: 2,
                height: 9,
                width: 11,
                channels,
                filters: 18,
                kernel,
                stride: [stride, stride],
                dilation: [1, 1],
                pads,
                groups: 1,
            };
            let (taps, n) = (kernel[0] * kernel[1], 18);
            let [height, width] = shape.output();
            let (m, k) = (2 * height * width, taps * channels);
            let (x, b) = (bytes(numbers, shape.input_len()), bytes(numbers, k * n));
            let b: &[i8] = bytemuck::cast_slice(&b);
            let zero = 9;
            let frames = Frames::new(&shape).unwrap();
            let wide = frames.channels();
            for cpu in cpus().iter().flatten() {
                let narrow = QuantizedWeights::new(cpu, k, n, b, &[0], |i, j| i * n + j);
                // A row of zeros is what the channels that fill up are multiplied with.
                let padded: Vec<i8> =
                    (0..taps * wide)
                        .flat_map(|i| (0..n).map(move |j| (i, j)))
                        .map(|(i, j)| {
                            if i % wide < channels { b[(i / wide * channels + i % wide) * n + j] } else { 0 }
                        })
                        .collect();
                let weights = QuantizedWeights::new(cpu, taps * wide, n, &padded, &[0], |i, j| i * n + j);
                if !weights.is_direct() {
                    continue;
                }
                let (mut patches, mut filled) = (vec![0; m * k], vec![1; frames.bytes()]);
                crate::conv::patches(cpu, &shape, 0, &x, zero, &mut patches);
                frames.fill(cpu, &x, zero, &mut filled);
                let (mut c, mut want) = (vec![0; m * n], vec![1; m * n]);
                let mut scratch =
                    vec![0; weights.scratch_len(m, filled.len()).max(narrow.scratch_len(m, m * k))];
                let a = |data| Bytes { data, signed: false, zero: zero.into() };
                quantized_product(
                    cpu,
                    m,
                    a(&filled),
                    frames.rows(),
                    &weights,
                    Target::Sums(&mut c),
                    &mut scratch,
                );
                let sums = Target::Sums(&mut want);
                quantized_product(cpu, m, a(&patches), Rows::Following, &narrow, sums, &mut scratch);
                assert_eq!(c, want, "{shape:?}");
            }
        }
    }

    /// Signed bytes of which about one in so many is not zero; every fifth output has none, every seventh no zero.
    fn sparse(numbers: &mut Numbers, k: usize, n: usize, one_in: u64) -> Vec<i8> {
        let one = |i: usize, numbers: &mut Numbers| match (i % n % 5, i % n % 7) {
            (1, _) => 0,
            (_, 3) => (numbers.next() % 127) as i8 + 1,
            _ if numbers.next().is_multiple_of(one_in) => numbers.next() as i8,
            _ => 0,
        };
        (0..k * n).map(|i| one(i, numbers)).collect()
    }

    #[test]
    fn sparse_products_equal_dense_ones_bit_for_bit() {
        let numbers = &mut Numbers::new(12);
        for (m, n, k, one_in) in [
            (1, 1, 1, 1),
            (64, 16, 16, 3),
            (65, 40, 37, 10),
            (200, 33, 130, 20),
            (3, 70, 5, 1),
            (129, 9, 300, 1000),
        ] {
            let centred = sparse(numbers, k, n, one_in);
            // With other zero points, what is zero is what equals them.
            let zeros: Vec<i8> = (0..n).map(|j| (j * 37) as i8).collect();
            let shifted: Vec<i8> =
                centred.iter().enumerate().map(|(i, w)| w.saturating_add(zeros[i % n])).collect();
            let bias: Vec<i32> = (0..n as i32).map(|i| 1000 - 77 * i).collect();
            let factors: Vec<f32> = (0..n).map(|i| 0.001 + 0.0003 * i as f32).collect();
            for ((signed, zero), (b, zeros)) in [
                ((false, 0), (&centred, &[0][..])),
                ((false, 117), (&centred, &[0])),
                ((true, -128), (&centred, &[0])),
                ((true, 5), (&centred, &[0])),
                ((false, 117), (&shifted, &zeros)),
                ((true, 5), (&shifted, &zeros)),
            ] {
                let a = bytes(numbers, m * k);
                for cpu in cpus().iter().flatten() {
                    let at = |i: usize, j: usize| i * n + j;
                    let sparse = QuantizedWeights::sparse(cpu, k, n, b, zeros, at).unwrap();
                    let dense = QuantizedWeights::new(cpu, k, n, b, zeros, at);
                    let results = [&dense, &sparse].map(|weights| {
                        let mut scratch = vec![0u32; weights.scratch_len(m, m * k) / 4];
                        let scratch: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
                        let a = Bytes { data: &a, signed, zero };
                        let (mut c, mut y) = (vec![-1; m * n], [vec![1; m * n], vec![2; m * n]]);
                        quantized_product(cpu, m, a, Rows::Following, weights, Target::Sums(&mut c), scratch);
                        for (y, (bias, factors)) in
                            y.iter_mut().zip([(Some(&bias[..]), &factors[..]), (None, &factors[..1])])
                        {
                            let target = Target::Bytes { y, bias, factors, zero: 3, signed };
                            quantized_product(cpu, m, a, Rows::Following, weights, target, scratch);
                        }
                        (c, y)
                    });
                    assert!(results[0] == results[1], "{m} x {n} x {k}, one in {one_in}");
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
                let at = |i: usize, j: usize| i * n + j;
                let dense = QuantizedWeights::new(cpu, k, n, &b, &[0], at);
                for weights in
                    [Some(dense), QuantizedWeights::sparse(cpu, k, n, &b, &[0], at)].iter().flatten()
                {
                    if !weights.is_direct() {
                        continue;
                    }
                    let mut scratch = vec![0; weights.scratch_len(m, x.len().max(m * k))];
                    let (mut c, mut want) = (vec![0; m * n], vec![1; m * n]);
                    let rows = Rows::Taps { offsets: &offsets, pixels, image, channels };
                    let a = Bytes { data: &x, signed, zero };
                    quantized_product(cpu, m, a, rows, weights, Target::Sums(&mut c), &mut scratch);
                    let a = Bytes { data: &together, signed, zero };
                    let sums = Target::Sums(&mut want);
                    quantized_product(cpu, m, a, Rows::Following, weights, sums, &mut scratch);
                    assert_eq!(c, want);
                }
            }
        }
    }
}
