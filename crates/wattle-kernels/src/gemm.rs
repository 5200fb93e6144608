//! Matrix products: `C = activation(op(A) op(B) + bias + residual)`, row-major, with either operand transposed.

use crate::igemm::{self, Igemm, LayoutOfB, RowsOfA, RowsOfC, panel_vectors};
use crate::outer::{self, Outer, Segment};
use crate::pack::{self, Packed, PackedShape, Source};
use crate::threads::Shared;
use crate::{Activation, Cpu};

/// The shape of a product: C is `[m, n]`; A is `[m, k]`, or `[k, m]` if transposed; B is `[k, n]`, or `[n, k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// The length of each dot product.
    pub k: usize,
    /// A is stored `[k, m]`.
    pub transpose_a: bool,
    /// B is stored `[n, k]`.
    pub transpose_b: bool,
}

/// What happens to a product on its way to memory: `C = activation([C +] product + bias + residual)`.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One value a column.
    pub bias: Option<&'a [f32]>,
    /// A tensor of C's shape.
    pub residual: Option<&'a [f32]>,
    /// Adds to what C holds.
    pub accumulate: bool,
    /// Applied last.
    pub activation: Activation,
}

/// Below this many rows of C, packing B costs more than it saves.
const PACK_ROWS: usize = 128;
/// Elements of B above which a sum of outer products, which reads B once for each strip of C and a row of it at a time,
/// waits for the outer caches: 1 MiB. A is transposed and B packed instead.
const OUTER_ELEMENTS: usize = 1 << 18;
/// A product whose A is copied in transposed order copies this many rows of it at a time.
const TRANSPOSE_ROWS: usize = 64;

impl Gemm {
    fn packed_shape(&self, cpu: &Cpu) -> PackedShape {
        PackedShape::new(cpu.isa, 1, self.k, self.n)
    }

    fn packs(&self) -> bool {
        self.transpose_b || self.m >= PACK_ROWS
    }

    /// Whether C is a sum of outer products of rows of A and B as they lie.
    fn is_outer(&self) -> bool {
        self.transpose_a && !self.transpose_b && (self.m < PACK_ROWS || self.k * self.n <= OUTER_ELEMENTS)
    }

    /// Elements from a row of a transposed copy of A to the next: never so many that rows fall on the same cache sets.
    fn copied_row(&self) -> usize {
        self.k.next_multiple_of(16) + 16
    }

    /// Scratch elements that [`gemm`] needs.
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        if self.is_outer() {
            return 0;
        }
        let packed = if self.packs() { self.packed_shape(cpu).len() } else { 0 };
        packed + if self.transpose_a { self.m * self.copied_row() } else { 0 }
    }
}

/// The general product. `scratch` has at least [`Gemm::scratch_len`] elements; its contents do not matter.
pub fn gemm(cpu: &Cpu, shape: &Gemm, a: &[f32], b: &[f32], e: Epilogue, c: &mut [f32], scratch: &mut [f32]) {
    let Gemm { m, n, k, .. } = *shape;
    assert_eq!(a.len(), m * k, "A of {shape:?}");
    assert_eq!(b.len(), k * n, "B of {shape:?}");
    if shape.is_outer() {
        return sum_of_outer_products(cpu, m, n, k, a, b, e, c);
    }
    let (a, a_row, scratch) = if shape.transpose_a {
        let row = shape.copied_row();
        let (copy, rest) = scratch.split_at_mut(m * row);
        transpose(cpu, k, m, row, a, copy);
        (&*copy, row, rest)
    } else {
        (a, k, scratch)
    };
    let a = Rows { data: a, step: a_row };
    if shape.packs() {
        let packed = shape.packed_shape(cpu);
        pack::pack(cpu.isa, &cpu.threads, &packed, &Source::matrix(k, n, shape.transpose_b, b), scratch);
        return product(cpu, m, n, k, a, scratch, packed.layout(), e, c);
    }
    let width = panel_vectors(cpu.isa, n).min(2) * cpu.isa.lanes();
    let b_layout = LayoutOfB { width, panel: width, tap: 0, row: n, tail_row: n, tail_tap: 0, padded: false };
    product(cpu, m, n, k, a, b, b_layout, e, c);
}

/// The product of A `[m, k]` with weights packed by [`crate::pack::PackedWeights::matrix`].
pub fn gemm_packed(cpu: &Cpu, m: usize, a: &[f32], weights: Packed, e: Epilogue, c: &mut [f32]) {
    let PackedShape { taps, k, n, .. } = weights.shape;
    assert_eq!(taps, 1, "weights of a convolution given to a matrix product");
    assert_eq!(
        weights.shape,
        PackedShape::new(cpu.isa, 1, k, n),
        "weights packed for another instruction set"
    );
    product(cpu, m, n, k, Rows { data: a, step: k }, weights.data, weights.shape.layout(), e, c);
}

/// Matrices at a constant distance from each other.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// All of them.
    pub data: &'a [f32],
    /// Elements from one to the next; 0 repeats the first.
    pub step: usize,
}

/// Scratch elements that [`gemm_batched`] needs.
pub fn gemm_batched_scratch_len(cpu: &Cpu, shape: &Gemm) -> usize {
    cpu.threads.count() * shape.scratch_len(cpu)
}

/// One product for each matrix of `c`, which holds `[m, n]` results one after the other. The bias is shared; a
/// residual has the shape of `c`.
pub fn gemm_batched(
    cpu: &Cpu,
    shape: &Gemm,
    a: Batch,
    b: Batch,
    e: Epilogue,
    c: &mut [f32],
    scratch: &mut [f32],
) {
    let Gemm { m, n, k, .. } = *shape;
    let len = m * n;
    if len == 0 {
        return;
    }
    assert!(c.len().is_multiple_of(len), "results of {shape:?} one after the other");
    let batch = c.len() / len;
    assert!(e.residual.is_none_or(|r| r.len() == c.len()), "a residual has the shape of the result");
    if batch > 0 && b.step == 0 && a.step == m * k && !shape.transpose_a {
        let all = Gemm { m: m * batch, ..*shape };
        let enough = all.scratch_len(cpu) <= scratch.len();
        if enough {
            return gemm(cpu, &all, &a.data[..m * k * batch], &b.data[..k * n], e, c, scratch);
        }
    }
    let one = Cpu { isa: cpu.isa, threads: crate::Threads::single() };
    let scratch_len = shape.scratch_len(cpu);
    assert!(scratch.len() >= gemm_batched_scratch_len(cpu, shape), "scratch of a batch of {shape:?}");
    let (c, scratch) = (Shared::new(c), Shared::new(scratch));
    cpu.threads.for_each_slot(batch, |slot, i| {
        // SAFETY: result i belongs to this task, and the slot's scratch to the thread that runs it.
        let (c, scratch) = unsafe { (c.slice(i * len, len), scratch.slice(slot * scratch_len, scratch_len)) };
        let e = Epilogue { residual: e.residual.map(|r| &r[i * len..][..len]), ..e };
        gemm(&one, shape, &a.data[i * a.step..][..m * k], &b.data[i * b.step..][..k * n], e, c, scratch);
    });
}

/// Rows of A, `step` elements apart.
struct Rows<'a> {
    data: &'a [f32],
    step: usize,
}

#[allow(clippy::too_many_arguments)]
fn product(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: Rows,
    b: &[f32],
    b_layout: LayoutOfB,
    e: Epilogue,
    c: &mut [f32],
) {
    assert_eq!(a.data.len(), m * a.step, "A of a product {m} x {n} x {k}");
    assert_eq!(c.len(), m * n, "C of a product {m} x {n} x {k}");
    e.check(m, n);
    let op = Igemm {
        m,
        n,
        k,
        taps: 1,
        a: a.data.as_ptr(),
        a_rows: RowsOfA::Affine { stride: a.step },
        b: b.as_ptr(),
        b_layout,
        c: c.as_mut_ptr(),
        c_rows: RowsOfC::Affine { stride: n },
        bias: e.bias,
        residual: e.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        accumulate: e.accumulate,
        activation: e.activation,
    };
    // SAFETY: A, C, bias and residual have the lengths asserted above, B the length of its layout; C is borrowed
    // mutably, so it overlaps none of them.
    unsafe { igemm::run(cpu.isa, &cpu.threads, &op) };
}

impl Epilogue<'_> {
    pub(crate) fn check(&self, m: usize, n: usize) {
        assert!(self.bias.is_none_or(|b| b.len() == n), "a bias has one value for each of {n} columns");
        assert!(self.residual.is_none_or(|r| r.len() == m * n), "a residual has the shape of C, {m} x {n}");
    }
}

#[allow(clippy::too_many_arguments)]
fn sum_of_outer_products(
    cpu: &Cpu,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    e: Epilogue,
    c: &mut [f32],
) {
    assert_eq!(c.len(), m * n);
    e.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    // Strips of rows of C; B is read once a strip, so strips are tall enough to make that cheap.
    let rows = if cpu.threads.count() == 1 { 96 } else { m.div_ceil(4 * cpu.threads.count()).clamp(12, 96) };
    let shared = Shared::new(c);
    cpu.threads.for_each(m.div_ceil(rows), |strip| {
        let first = strip * rows;
        let rows = rows.min(m - first);
        // SAFETY: strips are disjoint rows of C.
        let c = unsafe { shared.slice(first * n, rows * n) };
        let segments = [Segment { a: first, b: 0, len: k }];
        let op = Outer {
            rows,
            columns: n,
            a: a.as_ptr(),
            a_step: m,
            b: b.as_ptr(),
            b_step: n,
            segments: &segments,
            c: c.as_mut_ptr(),
            c_stride: n,
            accumulate: e.accumulate,
        };
        // SAFETY: A is [k, m] and B is [k, n] as asserted by the caller; the strip has `rows` rows of n columns.
        unsafe { outer::run(cpu.isa, &op) };
        finish(cpu, first, n, e, c);
    });
}

/// Bias, residual and activation of rows of C that were stored without them.
fn finish(cpu: &Cpu, first: usize, n: usize, e: Epilogue, c: &mut [f32]) {
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        if let Some(bias) = e.bias {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        if let Some(residual) = e.residual {
            row.iter_mut().zip(&residual[(first + i) * n..]).for_each(|(x, r)| *x += r);
        }
        if e.activation.is_clamp() {
            let (low, high) = e.activation.clamp();
            if e.activation != Activation::None {
                row.iter_mut().for_each(|x| {
                    *x = if *x < low { low } else { *x };
                    *x = if *x > high { high } else { *x };
                });
            }
        } else {
            e.activation.apply(cpu.isa, row);
        }
    }
}

/// `to[j, i] = from[i, j]` for `from` of shape `[rows, columns]`; rows of the result are `row` elements apart, the rest
/// of each zeros.
fn transpose(cpu: &Cpu, rows: usize, columns: usize, row: usize, from: &[f32], to: &mut [f32]) {
    cpu.threads.for_each_piece(to, row * TRANSPOSE_ROWS, |block, to| {
        if rows > 0 {
            let from = &from[block * TRANSPOSE_ROWS..];
            cpu.isa.run(pack::Transpose { from, from_step: columns, columns: rows, row, out: to });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, assert_close, cpus};

    fn oracle(s: &Gemm, a: &[f32], b: &[f32], e: &Epilogue, c: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; s.m * s.n];
        for i in 0..s.m {
            for j in 0..s.n {
                let mut x = if e.accumulate { c[i * s.n + j] as f64 } else { 0.0 };
                for k in 0..s.k {
                    let l = if s.transpose_a { a[k * s.m + i] } else { a[i * s.k + k] };
                    let r = if s.transpose_b { b[j * s.k + k] } else { b[k * s.n + j] };
                    x += l as f64 * r as f64;
                }
                x += e.bias.map_or(0.0, |b| b[j] as f64);
                x += e.residual.map_or(0.0, |r| r[i * s.n + j] as f64);
                out[i * s.n + j] = match e.activation {
                    Activation::Relu => x.max(0.0),
                    Activation::Clip { low, high } => x.clamp(low as f64, high as f64),
                    Activation::Unary(crate::elementwise::Unary::Tanh) => x.tanh(),
                    _ => x,
                };
            }
        }
        out
    }

    fn check(shape: Gemm, e: fn(&mut Epilogue), numbers: &mut Numbers) {
        let (a, b) = (numbers.take(shape.m * shape.k), numbers.take(shape.k * shape.n));
        let (bias, residual) = (numbers.take(shape.n), numbers.take(shape.m * shape.n));
        let start = numbers.take(shape.m * shape.n);
        let mut epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), ..Default::default() };
        e(&mut epilogue);
        let want = oracle(&shape, &a, &b, &epilogue, &start);
        for group in cpus() {
            let mut first: Option<Vec<f32>> = None;
            for cpu in &group {
                let mut c = start.clone();
                let mut scratch = vec![f32::NAN; shape.scratch_len(cpu)];
                gemm(cpu, &shape, &a, &b, epilogue, &mut c, &mut scratch);
                assert_close(&c, &want, 1e-5, &format!("{shape:?} {}", cpu.isa.name()));
                match &first {
                    None => first = Some(c),
                    Some(f) => assert_eq!(f, &c, "bits depend on the number of threads: {shape:?}"),
                }
            }
        }
    }

    #[test]
    fn products_of_odd_shapes_match_the_oracle() {
        let mut numbers = Numbers::new(1);
        let sizes = [1, 2, 3, 7, 13, 16, 17, 31, 33, 48, 49, 65, 100];
        for i in 0..60 {
            let (m, n, k) = (numbers.pick(&sizes), numbers.pick(&sizes), numbers.pick(&sizes));
            let shape = Gemm { m, n, k, transpose_a: i % 2 == 1, transpose_b: i / 2 % 2 == 1 };
            match i / 4 % 5 {
                0 => check(shape, |_| (), &mut numbers),
                1 => check(shape, |e| e.activation = Activation::Relu, &mut numbers),
                2 => check(shape, |e| (e.bias, e.accumulate) = (None, true), &mut numbers),
                3 => check(
                    shape,
                    |e| (e.residual, e.activation) = (None, Activation::Clip { low: -0.5, high: 0.5 }),
                    &mut numbers,
                ),
                _ => check(
                    shape,
                    |e| e.activation = Activation::Unary(crate::elementwise::Unary::Tanh),
                    &mut numbers,
                ),
            }
        }
    }

    #[test]
    fn long_sums_and_empty_shapes_are_right() {
        let mut numbers = Numbers::new(2);
        for (m, n, k) in [(3, 5, 5000), (50, 20, 2049), (0, 4, 3), (4, 0, 3), (4, 3, 0)] {
            check(Gemm { m, n, k, transpose_a: false, transpose_b: false }, |_| (), &mut numbers);
            check(Gemm { m, n, k, transpose_a: false, transpose_b: true }, |_| (), &mut numbers);
        }
    }

    #[test]
    fn a_transposed_and_a_large_b_match_the_oracle() {
        let shape = Gemm { m: 130, n: 141, k: 1900, transpose_a: true, transpose_b: false };
        assert!(!shape.is_outer());
        check(shape, |_| (), &mut Numbers::new(3));
    }

    #[test]
    fn a_batch_equals_its_products_one_by_one() {
        let numbers = &mut Numbers::new(9);
        for (transpose_a, transpose_b, b_step) in
            [(false, false, 1), (false, true, 1), (true, false, 1), (false, true, 0)]
        {
            let shape = Gemm { m: 5, n: 20, k: 9, transpose_a, transpose_b };
            let (a, b) = (numbers.take(6 * 45), numbers.take(6 * 180));
            let (a, b) = (Batch { data: &a, step: 45 }, Batch { data: &b, step: b_step * 180 });
            for cpu in cpus().iter().flatten() {
                let mut scratch = vec![f32::NAN; gemm_batched_scratch_len(cpu, &shape)];
                let mut c = vec![0.0; 6 * 100];
                gemm_batched(cpu, &shape, a, b, Epilogue::default(), &mut c, &mut scratch);
                for (i, c) in c.chunks(100).enumerate() {
                    let (a, b) = (&a.data[i * 45..][..45], &b.data[i * b.step..][..180]);
                    let want = oracle(&shape, a, b, &Epilogue::default(), c);
                    assert_close(c, &want, 1e-5, &format!("{shape:?}"));
                }
            }
        }
    }

    #[test]
    fn nan_survives_relu() {
        for group in cpus() {
            let shape = Gemm { m: 1, n: 1, k: 1, transpose_a: false, transpose_b: false };
            let mut c = [0.0];
            let e = Epilogue { activation: Activation::Relu, ..Default::default() };
            gemm(&group[0], &shape, &[f32::NAN], &[1.0], e, &mut c, &mut []);
            assert!(c[0].is_nan());
        }
    }
}
