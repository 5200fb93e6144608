//! Matrix products: `C = activation(op(A) op(B) + bias + residual)`, row-major, with either operand transposed.

use crate::dots;
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
/// would wait for the outer caches: 1 MiB. It goes block by block instead.
const OUTER_ELEMENTS: usize = 1 << 18;
/// Rows and columns of C, and run along k, of such a block, at most: A's and B's fill half of a second-level cache.
const OUTER_BLOCK: usize = 256;
/// Elements from a row of a copied block to the next, and of the block.
const COPIED_ROW: usize = OUTER_BLOCK + 16;
const COPIED: usize = OUTER_BLOCK * COPIED_ROW;
/// A product whose A is copied in transposed order copies this many rows of it at a time.
const TRANSPOSE_ROWS: usize = 64;

impl Gemm {
    fn packed_shape(&self, cpu: &Cpu) -> PackedShape {
        PackedShape::new(cpu.isa, 1, self.k, self.n)
    }

    /// Whether [`gemm`] packs B before it multiplies, which spares it the work where B is packed already.
    pub fn packs(&self) -> bool {
        !self.is_outer() && (self.transpose_b && !self.is_flat() || self.m >= PACK_ROWS)
    }

    /// Whether B is transposed and A has so few rows that each is multiplied with B as it lies.
    fn is_flat(&self) -> bool {
        self.transpose_b && !self.transpose_a && self.m <= dots::FEW
    }

    /// Whether each panel of B is packed by the thread that then multiplies with it, and read by no other: worth it
    /// where there are few rows of A, so that packing is much of the work, and panels for all threads.
    fn packs_panel_by_panel(&self, cpu: &Cpu) -> bool {
        let threads = cpu.threads.count();
        self.packs()
            && self.m < PACK_ROWS
            && !self.k.is_multiple_of(igemm::CONFLICT)
            && (threads == 1 || self.packed_shape(cpu).panels() >= 2 * threads)
    }

    /// Whether C is a sum of outer products of rows of A and B as they lie.
    fn is_outer(&self) -> bool {
        self.transpose_a && !self.transpose_b
    }

    /// Elements from a row of a transposed copy of A to the next: never so many that rows fall on the same cache sets.
    fn copied_row(&self) -> usize {
        self.k.next_multiple_of(16) + 16
    }

    /// Scratch elements that [`gemm`] needs.
    pub fn scratch_len(&self, cpu: &Cpu) -> usize {
        if self.is_outer() {
            return cpu.threads.count() * OuterBlocks::new(cpu, self).scratch_len();
        }
        let packed = match self.packs() {
            true if self.packs_panel_by_panel(cpu) => {
                cpu.threads.count() * self.packed_shape(cpu).panel_len()
            }
            true => self.packed_shape(cpu).len(),
            false => 0,
        };
        packed + if self.transpose_a { self.m * self.copied_row() } else { 0 }
    }
}

/// The general product. `scratch` has at least [`Gemm::scratch_len`] elements; its contents do not matter.
pub fn gemm(cpu: &Cpu, shape: &Gemm, a: &[f32], b: &[f32], e: Epilogue, c: &mut [f32], scratch: &mut [f32]) {
    let Gemm { m, n, k, .. } = *shape;
    assert_eq!(a.len(), m * k, "A of {shape:?}");
    assert_eq!(b.len(), k * n, "B of {shape:?}");
    if shape.is_flat() {
        return dots::product(cpu, shape, a, b, e, c);
    }
    if shape.is_outer() {
        return sum_of_outer_products(cpu, shape, &OuterBlocks::new(cpu, shape), a, b, e, c, scratch);
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
    if shape.packs_panel_by_panel(cpu) {
        return panel_by_panel(cpu, shape, a, b, e, c, scratch);
    }
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

/// Products for each thread from which threads take whole products; fewer are shared one by one.
const EACH: usize = 4;

/// Scratch elements that [`gemm_batched`] needs for so many products.
pub fn gemm_batched_scratch_len(cpu: &Cpu, shape: &Gemm, products: usize) -> usize {
    shape.scratch_len(cpu) * if by_products(cpu, products) { cpu.threads.count() } else { 1 }
}

fn by_products(cpu: &Cpu, products: usize) -> bool {
    products >= EACH * cpu.threads.count()
}

/// A product of one shape for each of `starts`, the first elements of its A and B; results `[m, n]` follow each other in
/// `c`. The bias is shared; a residual has the shape of `c`.
#[allow(clippy::too_many_arguments)]
pub fn gemm_batched(
    cpu: &Cpu,
    shape: &Gemm,
    starts: &[[usize; 2]],
    a: &[f32],
    b: &[f32],
    e: Epilogue,
    c: &mut [f32],
    scratch: &mut [f32],
) {
    let Gemm { m, n, k, .. } = *shape;
    let len = m * n;
    assert_eq!(c.len(), starts.len() * len, "a result of {shape:?} for each of {} products", starts.len());
    assert!(e.residual.is_none_or(|r| r.len() == c.len()), "a residual has the shape of the result");
    assert!(
        scratch.len() >= gemm_batched_scratch_len(cpu, shape, starts.len()),
        "scratch of a batch of {shape:?}"
    );
    let product = |cpu: &Cpu, i: usize, c: &mut [f32], scratch: &mut [f32]| {
        let [a_start, b_start] = starts[i];
        let e = Epilogue { residual: e.residual.map(|r| &r[i * len..][..len]), ..e };
        gemm(cpu, shape, &a[a_start..][..m * k], &b[b_start..][..k * n], e, c, scratch);
    };
    if !by_products(cpu, starts.len()) {
        for i in 0..starts.len() {
            product(cpu, i, &mut c[i * len..][..len], scratch);
        }
        return;
    }
    let one = Cpu { isa: cpu.isa, threads: crate::Threads::single() };
    let scratch_len = shape.scratch_len(cpu);
    let (c, scratch) = (Shared::new(c), Shared::new(scratch));
    cpu.threads.for_each_slot(starts.len(), |slot, i| {
        // SAFETY: result i belongs to this task, and the slot's scratch to the thread that runs it.
        let (c, scratch) = unsafe { (c.slice(i * len, len), scratch.slice(slot * scratch_len, scratch_len)) };
        product(&one, i, c, scratch);
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
    let op = operation([m, n, k], a, b.as_ptr(), b_layout, e, c);
    // SAFETY: A, C, bias and residual have the lengths that `operation` asserts, B the length of its layout; C is
    // borrowed mutably, so it overlaps none of them.
    unsafe { igemm::run(cpu.isa, &cpu.threads, &op) };
}

/// The product with B `[n, k]`, of which each thread packs one panel after the other and multiplies with it while it is
/// in its own cache.
fn panel_by_panel(
    cpu: &Cpu,
    shape: &Gemm,
    a: Rows,
    b: &[f32],
    e: Epilogue,
    c: &mut [f32],
    scratch: &mut [f32],
) {
    let Gemm { m, n, k, .. } = *shape;
    let packed = shape.packed_shape(cpu);
    let source = Source::matrix(k, n, true, b);
    let op = operation([m, n, k], a, std::ptr::null(), packed.layout(), e, c);
    let (scratch, len) = (Shared::new(scratch), packed.panel_len());
    cpu.threads.for_each_slot(packed.panels(), |slot, panel| {
        // SAFETY: a slot's scratch belongs to the thread that runs it.
        let own = unsafe { scratch.slice(slot * len, len) };
        pack::pack_panel(cpu.isa, &packed, &source, panel, own);
        let op = op.with_b(own.as_ptr().wrapping_sub(panel * len));
        // SAFETY: A, C, bias and residual have the lengths that `operation` asserts, and this panel of B lies where its
        // layout says; tasks have disjoint columns of C, which is borrowed mutably, so it overlaps none of them.
        unsafe { igemm::run_panel(cpu.isa, &op, panel) };
    });
}

/// The product `[m, n, k]` as the micro-kernel takes it, its operands checked but for B.
fn operation<'a>(
    [m, n, k]: [usize; 3],
    a: Rows,
    b: *const f32,
    b_layout: LayoutOfB,
    e: Epilogue<'a>,
    c: &mut [f32],
) -> Igemm<'a> {
    assert_eq!(a.data.len(), m * a.step, "A of a product {m} x {n} x {k}");
    assert_eq!(c.len(), m * n, "C of a product {m} x {n} x {k}");
    e.check(m, n);
    Igemm {
        m,
        n,
        k,
        taps: 1,
        a: a.data.as_ptr(),
        a_rows: RowsOfA::Affine { stride: a.step },
        b,
        b_layout,
        c: c.as_mut_ptr(),
        c_rows: RowsOfC::Affine { stride: n },
        bias: e.bias,
        residual: e.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        accumulate: e.accumulate,
        activation: e.activation,
    }
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
    shape: &Gemm,
    blocks: &OuterBlocks,
    a: &[f32],
    b: &[f32],
    e: Epilogue,
    c: &mut [f32],
    scratch: &mut [f32],
) {
    let Gemm { m, n, k, .. } = *shape;
    assert_eq!(c.len(), m * n);
    e.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    let OuterBlocks { rows, columns, depth, copied } = *blocks;
    let strips = n.div_ceil(columns);
    let (c, scratch, len) = (Shared::new(c), Shared::new(scratch), blocks.scratch_len());
    cpu.threads.for_each_slot(m.div_ceil(rows) * strips, |slot, task| {
        let (row, column) = (task / strips * rows, task % strips * columns);
        let (rows, columns) = (rows.min(m - row), columns.min(n - column));
        // SAFETY: a slot's scratch belongs to the thread that runs it.
        let scratch = unsafe { scratch.slice(slot * len, len) };
        let (copy_a, copy_b) = scratch.split_at_mut(if copied[0] { COPIED } else { 0 });
        for first in (0..k.max(1)).step_by(depth) {
            let depth = depth.min(k - first);
            let a = Rows { data: &a[(first * m + row).min(a.len())..], step: m };
            let b = Rows { data: &b[(first * n + column).min(b.len())..], step: n };
            let a = if copied[0] { a.copied(depth, rows, copy_a) } else { a };
            let b = if copied[1] { b.copied(depth, columns, copy_b) } else { b };
            let op = Outer {
                rows,
                columns,
                a: a.data.as_ptr(),
                a_step: a.step,
                b: b.data.as_ptr(),
                b_step: b.step,
                segments: &[Segment { a: 0, b: 0, len: depth }],
                c: c.pointer(row * n + column, (rows - 1) * n + columns),
                c_stride: n,
                accumulate: e.accumulate || first > 0,
            };
            // SAFETY: A is [k, m] and B is [k, n] as asserted by the caller, or copies of some of it; tasks have disjoint
            // rows and columns of C.
            unsafe { outer::run(cpu.isa, &op) };
        }
        let columns = column..column + columns;
        for row in row..row + rows {
            // SAFETY: as above.
            let c = unsafe { c.slice(row * n + columns.start, columns.len()) };
            finish(cpu, row * n, columns.clone(), e, c);
        }
    });
}

/// How a sum of outer products is cut: tasks of so many rows and columns of C, each in runs of `depth` along k.
struct OuterBlocks {
    rows: usize,
    columns: usize,
    depth: usize,
    /// Whether blocks of A, and of B, are copied: their rows would compete for the same sets of a cache.
    copied: [bool; 2],
}

impl OuterBlocks {
    fn new(cpu: &Cpu, shape: &Gemm) -> OuterBlocks {
        let Gemm { m, n, k, .. } = *shape;
        let threads = cpu.threads.count();
        if m < PACK_ROWS || k * n <= OUTER_ELEMENTS {
            // Strips of rows of C; B is read once a strip, so strips are tall enough to make that cheap.
            let rows = if threads == 1 { 96 } else { m.div_ceil(4 * threads).clamp(12, 96) };
            return OuterBlocks { rows, columns: n, depth: k.max(1), copied: [false; 2] };
        }
        let strips = n.div_ceil(OUTER_BLOCK);
        let tasks = if threads == 1 { 1 } else { (4 * threads).div_ceil(strips) };
        let rows = m.div_ceil(tasks).next_multiple_of(12).min(OUTER_BLOCK);
        let copied = [m, n].map(|step| step.is_multiple_of(igemm::CONFLICT));
        OuterBlocks { rows, columns: OUTER_BLOCK, depth: OUTER_BLOCK, copied }
    }

    /// Scratch elements of a thread.
    fn scratch_len(&self) -> usize {
        self.copied.iter().filter(|copied| **copied).count() * COPIED
    }
}

impl Rows<'_> {
    /// A copy of `width` elements of each of the first `count` rows.
    fn copied<'a>(&self, count: usize, width: usize, to: &'a mut [f32]) -> Rows<'a> {
        for (row, to) in to.chunks_exact_mut(COPIED_ROW).take(count).enumerate() {
            to[..width].copy_from_slice(&self.data[row * self.step..][..width]);
        }
        Rows { data: to, step: COPIED_ROW }
    }
}

/// Bias, residual and activation of some columns of a row of C, which starts at `row`, that were stored without them.
fn finish(cpu: &Cpu, row: usize, columns: std::ops::Range<usize>, e: Epilogue, c: &mut [f32]) {
    if let Some(bias) = e.bias {
        c.iter_mut().zip(&bias[columns.clone()]).for_each(|(x, b)| *x += b);
    }
    if let Some(residual) = e.residual {
        c.iter_mut().zip(&residual[row..][columns]).for_each(|(x, r)| *x += r);
    }
    if !e.activation.is_clamp() {
        e.activation.apply(cpu.isa, c);
    } else if e.activation != Activation::None {
        let (low, high) = e.activation.clamp();
        c.iter_mut().for_each(|x| {
            *x = if *x < low { low } else { *x };
            *x = if *x > high { high } else { *x };
        });
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
        for transpose_b in [false, true] {
            let shape = Gemm { m: 130, n: 141, k: 1900, transpose_a: true, transpose_b };
            check(shape, |_| (), &mut Numbers::new(3));
        }
    }

    #[test]
    fn blocks_of_outer_products_match_the_oracle_as_they_lie_and_copied() {
        let shape = Gemm { m: 61, n: 50, k: 45, transpose_a: true, transpose_b: false };
        let numbers = &mut Numbers::new(4);
        let (a, b, start) = (numbers.take(61 * 45), numbers.take(45 * 50), numbers.take(61 * 50));
        let (bias, residual) = (numbers.take(50), numbers.take(61 * 50));
        let activation = Activation::Relu;
        let e = Epilogue { bias: Some(&bias), residual: Some(&residual), accumulate: true, activation };
        let want = oracle(&shape, &a, &b, &e, &start);
        for copied in [[false, false], [true, false], [false, true], [true, true]] {
            let blocks = OuterBlocks { rows: 24, columns: 33, depth: 20, copied };
            for cpu in cpus().iter().flatten() {
                let mut scratch = vec![f32::NAN; cpu.threads.count() * blocks.scratch_len()];
                let mut c = start.clone();
                sum_of_outer_products(cpu, &shape, &blocks, &a, &b, e, &mut c, &mut scratch);
                assert_close(&c, &want, 1e-5, &format!("{copied:?} {}", cpu.isa.name()));
            }
        }
    }

    #[test]
    fn a_batch_equals_its_products_one_by_one() {
        let numbers = &mut Numbers::new(9);
        for (i, (transpose_a, transpose_b)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let shape = Gemm { m: 5, n: 20, k: 9, transpose_a, transpose_b };
            // Few, which all threads share one by one, and many; each A once, every B twice.
            let starts: Vec<[usize; 2]> = (0..[3, 40][i % 2]).map(|i| [i * 45, i / 2 * 180]).collect();
            let (a, b) = (numbers.take(40 * 45), numbers.take(20 * 180));
            let residual = numbers.take(starts.len() * 100);
            for cpu in cpus().iter().flatten() {
                let mut scratch = vec![f32::NAN; gemm_batched_scratch_len(cpu, &shape, starts.len())];
                let mut c = vec![0.0; starts.len() * 100];
                let e = Epilogue { residual: Some(&residual), ..Default::default() };
                gemm_batched(cpu, &shape, &starts, &a, &b, e, &mut c, &mut scratch);
                for (i, (c, [a_start, b_start])) in c.chunks(100).zip(&starts).enumerate() {
                    let e = Epilogue { residual: Some(&residual[i * 100..][..100]), ..Default::default() };
                    let want = oracle(&shape, &a[*a_start..][..45], &b[*b_start..][..180], &e, c);
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
