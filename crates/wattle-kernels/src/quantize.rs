//! Between f32 and 8-bit integers: quantisation, its inverse, and integer sums made 8-bit again.
//!
//! Elements are handled as raw bytes; `signed` says whether a byte is an i8 or a u8. Every result is exact: the formulas
//! and their roundings are those of ONNX, in f32.

use crate::Cpu;
use crate::conv::ConvShape;
use crate::simd::vectorised;

/// Elements of one task, at least.
const PIECE: usize = 16 * 1024;

/// Scales and zero points of 8-bit elements: one of each, or one for each index of an axis.
#[derive(Clone, Copy)]
pub struct Grid<'a> {
    /// One step in real numbers.
    pub scales: &'a [f32],
    /// The byte that stands for 0, as many as scales; all 0 if absent.
    pub zeros: Option<&'a [u8]>,
    /// Bytes are i8.
    pub signed: bool,
}

impl Grid<'_> {
    fn zero(&self, index: usize) -> i32 {
        self.zeros.map_or(0, |zeros| value(zeros[index], self.signed))
    }

    fn check(&self, axis: usize) {
        assert!([1, axis].contains(&self.scales.len()), "{} scales for an axis of {axis}", self.scales.len());
        assert!(self.zeros.is_none_or(|z| z.len() == self.scales.len()), "a zero point for each scale");
    }
}

/// The number that a byte stands for.
pub fn value(byte: u8, signed: bool) -> i32 {
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Zero points that are taken: those of bytes, with room.
const ZEROS: std::ops::Range<i32> = -1024..1024;

pub(crate) fn bounds(signed: bool) -> (i32, i32) {
    if signed { (-128, 127) } else { (0, 255) }
}

/// `y = saturate(round(x / scale) + zero)`, halves to even, of x `[outer, axis, inner]`; NaN becomes 0.
pub fn quantize(cpu: &Cpu, [outer, axis, inner]: [usize; 3], grid: Grid, x: &[f32], y: &mut [u8]) {
    assert!(x.len() == outer * axis * inner && y.len() == x.len(), "quantising {outer} x {axis} x {inner}");
    grid.check(axis);
    if y.is_empty() {
        return;
    }
    if grid.scales.len() == 1 {
        return cpu.threads.for_each_piece(y, PIECE, |i, y| {
            let x = &x[i * PIECE..][..y.len()];
            quantize_run(cpu.isa, x, grid.scales[0], grid.zero(0), bounds(grid.signed), y);
        });
    }
    let rows = (PIECE / inner).max(1);
    cpu.threads.for_each_piece(y, rows * inner, |i, y| {
        for (j, y) in y.chunks_exact_mut(inner).enumerate() {
            let (row, at) = (i * rows + j, (i * rows + j) % axis);
            let x = &x[row * inner..][..inner];
            quantize_run(cpu.isa, x, grid.scales[at], grid.zero(at), bounds(grid.signed), y);
        }
    });
}

vectorised! {
    fn quantize_run<'a>(s; x: &'a [f32], scale: f32, zero: i32, bounds: (i32, i32), y: &'a mut [u8]) {
        let (low, high) = ((bounds.0 - zero) as f32, (bounds.1 - zero) as f32);
        for (y, x) in y.iter_mut().zip(x) {
            let level = (x / scale).round_ties_even();
            *y = saturated(level, low, high, zero);
        }
    }
}

/// The byte of a whole level between two bounds, which are a byte's less `zero`; 0 for NaN, as a cast gives it.
#[inline(always)]
pub(crate) fn saturated(level: f32, low: f32, high: f32, zero: i32) -> u8 {
    let inside = if level < low {
        low
    } else if level > high {
        high
    } else {
        level
    };
    let number = if inside.is_nan() { -zero as f32 } else { inside };
    // A cast that saturates would be made number by number.
    // SAFETY: not NaN, and the bounds are far inside those of an i32, as zero points are checked.
    let whole = unsafe { number.to_int_unchecked::<i32>() };
    whole.wrapping_add(zero) as u8
}

/// `y = (x - zero) scale` of x `[outer, axis, inner]`.
pub fn dequantize(cpu: &Cpu, [outer, axis, inner]: [usize; 3], grid: Grid, x: &[u8], y: &mut [f32]) {
    assert!(x.len() == outer * axis * inner && y.len() == x.len(), "dequantising {outer} x {axis} x {inner}");
    grid.check(axis);
    if y.is_empty() {
        return;
    }
    if grid.scales.len() == 1 {
        return cpu.threads.for_each_piece(y, PIECE, |i, y| {
            dequantize_run(cpu.isa, &x[i * PIECE..][..y.len()], grid.scales[0], grid.zero(0), grid.signed, y);
        });
    }
    let rows = (PIECE / inner).max(1);
    cpu.threads.for_each_piece(y, rows * inner, |i, y| {
        for (j, y) in y.chunks_exact_mut(inner).enumerate() {
            let (row, at) = (i * rows + j, (i * rows + j) % axis);
            let x = &x[row * inner..][..inner];
            dequantize_run(cpu.isa, x, grid.scales[at], grid.zero(at), grid.signed, y);
        }
    });
}

/// Bytes, and what they stand for: `(byte - zero) scale`.
#[derive(Clone, Copy)]
pub struct Term<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Units of a step.
    pub scale: f32,
    /// The number that stands for 0.
    pub zero: i32,
    /// Bytes are i8.
    pub signed: bool,
}

/// `y = saturate(round((a + b) / scale) + zero)`; b is as long as a, or is repeated along it. `to` has the scale, the zero
/// point and the type of y.
pub fn add(cpu: &Cpu, a: Term<'_>, b: Term<'_>, to: (f32, i32, bool), y: &mut [u8]) {
    assert_eq!(a.data.len(), y.len(), "the first operand and the result");
    assert!(b.data.is_empty() == y.is_empty(), "the second operand");
    assert!([a.zero, b.zero, to.1].iter().all(|zero| ZEROS.contains(zero)), "zero points of bytes");
    if y.is_empty() {
        return;
    }
    let len = b.data.len();
    assert!(y.len().is_multiple_of(len), "{} elements in rows of {len}", y.len());
    let repeated = len < y.len();
    let piece = if repeated { (PIECE / len).max(1) * len } else { PIECE };
    cpu.threads.for_each_piece(y, piece, |i, y| {
        let first = i * piece;
        let width = if repeated { len } else { y.len() };
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            let at = if repeated { 0 } else { first };
            let a = Term { data: &a.data[first + row * width..][..width], ..a };
            add_run(cpu.isa, a, Term { data: &b.data[at..][..width], ..b }, to, y);
        }
    });
}

vectorised! {
    fn add_run<'a>(s; a: Term<'a>, b: Term<'a>, to: (f32, i32, bool), y: &'a mut [u8]) {
        let (scale, zero, signed) = to;
        let (least, most) = bounds(signed);
        let (low, high) = ((least - zero) as f32, (most - zero) as f32);
        let ((a_flip, a_less), (b_flip, b_less)) = (unbias(a.signed, a.zero), unbias(b.signed, b.zero));
        for ((y, p), q) in y.iter_mut().zip(a.data).zip(b.data) {
            let p = (i32::from(p ^ a_flip) - a_less) as f32 * a.scale;
            let q = (i32::from(q ^ b_flip) - b_less) as f32 * b.scale;
            *y = saturated(((p + q) / scale).round_ties_even(), low, high, zero);
        }
    }
}

/// Smallest and largest element of x and 0; NaN is left out.
pub fn range(cpu: &Cpu, x: &[f32]) -> (f32, f32) {
    range_run(cpu.isa, x)
}

vectorised! {
    fn range_run<'a>(s; x: &'a [f32]) -> (f32, f32) {
        // As many independent extremes as hide the latency of comparing.
        const WAYS: usize = 64;
        let (mut low, mut high) = ([0.0f32; WAYS], [0.0f32; WAYS]);
        let chunks = x.chunks_exact(WAYS);
        for (i, x) in chunks.remainder().iter().enumerate() {
            low[i] = if *x < low[i] { *x } else { low[i] };
            high[i] = if *x > high[i] { *x } else { high[i] };
        }
        for x in chunks {
            for ((low, high), x) in low.iter_mut().zip(&mut high).zip(x) {
                *low = if *x < *low { *x } else { *low };
                *high = if *x > *high { *x } else { *high };
            }
        }
        (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max))
    }
}

/// Sums as floats.
pub fn floats(cpu: &Cpu, x: &[i32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "sums and floats");
    cpu.threads.for_each_piece(y, PIECE, |i, y| floats_run(cpu.isa, &x[i * PIECE..][..y.len()], y));
}

vectorised! {
    fn floats_run<'a>(s; x: &'a [i32], y: &'a mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x as f32;
        }
    }
}

/// What turns a byte into its number less `zero`: flip these bits, then subtract.
fn unbias(signed: bool, zero: i32) -> (u8, i32) {
    if signed { (0x80, zero + 0x80) } else { (0, zero) }
}

vectorised! {
    fn dequantize_run<'a>(s; x: &'a [u8], scale: f32, zero: i32, signed: bool, y: &'a mut [f32]) {
        let (flip, less) = unbias(signed, zero);
        for (y, x) in y.iter_mut().zip(x) {
            *y = (i32::from(x ^ flip) - less) as f32 * scale;
        }
    }
}

/// `y = saturate(round((sum + bias) factor) + zero)` for sums `[rows, columns]`: one factor, or one for each column; a
/// bias for each column.
#[allow(clippy::too_many_arguments, reason = "the operands of QLinearConv after its sums")]
pub fn requantize(
    cpu: &Cpu,
    columns: usize,
    sums: &[i32],
    bias: Option<&[i32]>,
    factors: &[f32],
    zero: i32,
    signed: bool,
    y: &mut [u8],
) {
    assert!(sums.len() == y.len() && [1, columns].contains(&factors.len()), "{columns} columns");
    assert!(bias.is_none_or(|b| b.len() == columns), "{columns} columns");
    assert!(ZEROS.contains(&zero), "a zero point of bytes");
    if y.is_empty() {
        return;
    }
    let rows = (PIECE / columns).max(1);
    cpu.threads.for_each_piece(y, rows * columns, |i, y| {
        let sums = &sums[i * rows * columns..][..y.len()];
        requantize_rows(cpu.isa, columns, sums, bias, factors, zero, bounds(signed), y);
    });
}

vectorised! {
    fn requantize_rows<'a>(
        s; columns: usize, sums: &'a [i32], bias: Option<&'a [i32]>, factors: &'a [f32], zero: i32, bounds: (i32, i32),
        y: &'a mut [u8],
    ) {
        let (low, high) = ((bounds.0 - zero) as f32, (bounds.1 - zero) as f32);
        for (y, sums) in y.chunks_exact_mut(columns).zip(sums.chunks_exact(columns)) {
            match (bias, factors) {
                (None, [factor]) => {
                    for (y, &sum) in y.iter_mut().zip(sums) {
                        *y = saturated((sum as f32 * factor).round_ties_even(), low, high, zero);
                    }
                }
                (Some(bias), [factor]) => {
                    for ((y, sum), bias) in y.iter_mut().zip(sums).zip(bias) {
                        let sum = sum.wrapping_add(*bias) as f32;
                        *y = saturated((sum * factor).round_ties_even(), low, high, zero);
                    }
                }
                (None, factors) => {
                    for ((y, &sum), factor) in y.iter_mut().zip(sums).zip(factors) {
                        *y = saturated((sum as f32 * factor).round_ties_even(), low, high, zero);
                    }
                }
                (Some(bias), factors) => {
                    for (((y, sum), factor), bias) in y.iter_mut().zip(sums).zip(factors).zip(bias) {
                        let sum = sum.wrapping_add(*bias) as f32;
                        *y = saturated((sum * factor).round_ties_even(), low, high, zero);
                    }
                }
            }
        }
    }
}

/// Sums of a depthwise convolution of bytes, channels last: `weights` `[taps, channels]` are less their zero points,
/// padding adds nothing.
pub fn depthwise_sums(
    cpu: &Cpu,
    shape: &ConvShape,
    x: &[u8],
    zero: i32,
    signed: bool,
    weights: &[i16],
    sums: &mut [i32],
) {
    assert!(shape.channels == shape.filters && shape.groups == shape.channels, "{shape:?} is not depthwise");
    let taps = shape.kernel[0] * shape.kernel[1];
    assert!(x.len() == shape.input_len() && weights.len() == taps * shape.channels, "{shape:?}");
    assert_eq!(sums.len(), shape.output_len(), "{shape:?}");
    if sums.is_empty() {
        return;
    }
    let [height, width] = shape.output();
    let unbias = unbias(signed, zero);
    cpu.threads.for_each_piece(sums, width * shape.channels, |row, sums| {
        depthwise_row(cpu.isa, shape, [row / height, row % height], x, unbias, weights, sums);
    });
}

vectorised! {
    fn depthwise_row<'a>(
        s; shape: &'a ConvShape, at: [usize; 2], x: &'a [u8], unbias: (u8, i32), weights: &'a [i16], sums: &'a mut [i32],
    ) {
        let ([image, oy], channels, (flip, less)) = (at, shape.channels, unbias);
        for (ox, sums) in sums.chunks_exact_mut(channels).enumerate() {
            sums.fill(0);
            for (tap, weights) in weights.chunks_exact(channels).enumerate() {
                let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                let iy = (oy * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                let ix = (ox * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                if iy < shape.height && ix < shape.width {
                    let x = &x[((image * shape.height + iy) * shape.width + ix) * channels..][..channels];
                    for ((sum, x), w) in sums.iter_mut().zip(x).zip(weights) {
                        *sum = sum.wrapping_add((i32::from(x ^ flip) - less) * i32::from(*w));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, cpus};

    #[test]
    fn levels_round_to_even_saturate_and_come_back_on_every_instruction_set() {
        let numbers = &mut Numbers::new(1);
        let mut x = numbers.take(6 * 5 * 7);
        x[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, -1e30, 0.005]);
        let (scales, zeros) = ([0.01, 0.002, 0.5, 0.1, 0.003], [3u8, 250, 0, 128, 77]);
        for signed in [false, true] {
            let (low, high) = bounds(signed);
            for cpu in cpus().iter().flatten() {
                let grid = Grid { scales: &scales, zeros: Some(&zeros), signed };
                let (mut y, mut back) = (vec![9; x.len()], vec![9.0; x.len()]);
                quantize(cpu, [6, 5, 7], grid, &x, &mut y);
                dequantize(cpu, [6, 5, 7], grid, &y, &mut back);
                for (i, x) in x.iter().enumerate() {
                    let at = i / 7 % 5;
                    let zero = value(zeros[at], signed);
                    let level = f64::from((x / scales[at]).round_ties_even()) + f64::from(zero);
                    let want = level.clamp(f64::from(low), f64::from(high)) as i32;
                    assert_eq!(value(y[i], signed), want, "element {i}, {x}");
                    assert_eq!(back[i], (value(y[i], signed) - zero) as f32 * scales[at]);
                }
            }
        }
    }

    #[test]
    fn sums_of_bytes_are_those_of_their_numbers() {
        let numbers = &mut Numbers::new(8);
        for (len, repeated) in [(0, 0), (1, 1), (77, 77), (40_000, 40_000), (33 * 700, 33)] {
            let a: Vec<u8> = (0..len).map(|_| numbers.next() as u8).collect();
            let b: Vec<u8> = (0..repeated).map(|_| numbers.next() as u8).collect();
            for signed in [false, true] {
                let p = Term { data: &a, scale: 0.02, zero: 13, signed };
                let q = Term { data: &b, scale: 0.013, zero: -5, signed: !signed };
                let number = |t: &Term, x: u8| (value(x, t.signed) - t.zero) as f32 * t.scale;
                let (low, high) = bounds(signed);
                let want: Vec<u8> = (0..len)
                    .map(|i| (number(&p, a[i]) + number(&q, b[i % repeated])) / 0.027)
                    .map(|level| (level.round_ties_even() as i32 + 3).clamp(low, high) as u8)
                    .collect();
                for cpu in cpus().iter().flatten() {
                    let mut y = vec![1; len];
                    add(cpu, p, q, (0.027, 3, signed), &mut y);
                    assert_eq!(y, want);
                }
            }
        }
    }

    #[test]
    fn ranges_contain_zero_and_leave_nan_out() {
        let numbers = &mut Numbers::new(4);
        for len in [0, 1, 63, 64, 65, 1000] {
            let mut x: Vec<f32> = numbers.take(len).iter().map(|x| x + 0.5).collect();
            let want = x.iter().fold((0.0f32, 0.0f32), |(l, h), x| (l.min(*x), h.max(*x)));
            if len > 64 {
                x[70 % len] = f32::NAN;
            }
            let found = x.iter().fold((0.0f32, 0.0f32), |(l, h), x| (l.min(*x), h.max(*x)));
            for cpu in cpus().iter().flatten() {
                assert_eq!(range(cpu, &x), if len > 64 { found } else { want });
                let whole: Vec<i32> = (0..len as i32).map(|i| i.wrapping_mul(12_345_677)).collect();
                let mut y = vec![0.0; len];
                floats(cpu, &whole, &mut y);
                assert!(y.iter().zip(&whole).all(|(y, x)| *y == *x as f32));
            }
        }
    }

    #[test]
    fn depthwise_sums_and_their_bytes_equal_the_definition() {
        let numbers = &mut Numbers::new(2);
        let shape = ConvShape {
            batch: 2,
            height: 5,
            width: 4,
            channels: 19,
            filters: 19,
            kernel: [3, 3],
            stride: [2, 1],
            dilation: [1, 1],
            pads: [1, 1, 1, 1],
            groups: 19,
        };
        let [height, width] = shape.output();
        let x: Vec<u8> = (0..shape.input_len()).map(|_| numbers.next() as u8).collect();
        let w: Vec<i16> = (0..9 * 19).map(|_| numbers.next() as i8 as i16).collect();
        let bias: Vec<i32> = (0..19).map(|_| numbers.next() as i16 as i32).collect();
        let factors: Vec<f32> = (1..20).map(|i| 0.0007 * i as f32).collect();
        for signed in [false, true] {
            let mut want = vec![0i32; shape.output_len()];
            for (i, sum) in want.iter_mut().enumerate() {
                let (c, ox, oy) = (i % 19, i / 19 % width, i / 19 / width % height);
                let image = i / 19 / width / height;
                for (ky, kx) in (0..9).map(|t| (t / 3, t % 3)) {
                    let (y, x_at) = ((oy * 2 + ky).wrapping_sub(1), (ox + kx).wrapping_sub(1));
                    if y < 5 && x_at < 4 {
                        let x = value(x[((image * 5 + y) * 4 + x_at) * 19 + c], signed) - 7;
                        *sum += x * i32::from(w[(ky * 3 + kx) * 19 + c]);
                    }
                }
            }
            let bytes: Vec<u8> = (0..want.len())
                .map(|i| {
                    let level =
                        ((want[i] + bias[i % 19]) as f32 * factors[i % 19]).round_ties_even() as i32 - 5;
                    level.clamp(bounds(signed).0, bounds(signed).1) as u8
                })
                .collect();
            for cpu in cpus().iter().flatten() {
                let (mut sums, mut y) = (vec![-1; want.len()], vec![1; want.len()]);
                depthwise_sums(cpu, &shape, &x, 7, signed, &w, &mut sums);
                assert_eq!(sums, want);
                requantize(cpu, 19, &sums, Some(&bias), &factors, -5, signed, &mut y);
                assert_eq!(y, bytes);
            }
        }
    }
}
