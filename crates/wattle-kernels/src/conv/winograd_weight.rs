//! Gradient of the weights of 3 x 3 convolutions of stride 1 with 2.25 times fewer multiplications: the transpose of
//! F(2 x 2, 3 x 3), see [`super::winograd`].
//!
//! With transformed tiles, the result of weights g and an input tile d is `A' [(G g G') * (B' d B)] A`. Its gradient by
//! g is `G' [sum over tiles of (B' d B) * (A e A')] G`, e being the tile's gradient of the result: at each of 16
//! positions a sum of outer products. Tiles fall into chunks by the shape alone, each with sums of its own, which are
//! added in order: the bits do not depend on the number of threads.

use super::ConvShape;
use super::weight_gradient::to_order_of_weights;
use super::winograd::{POSITIONS, applies, inputs_of};
use crate::Cpu;
use crate::igemm::{MAX_K, ZEROS};
use crate::outer::{self, Outer, Segment};
use crate::simd::{Isa, Kernel, Simd, prefetch, unrolled};
use crate::threads::Shared;
use std::ops::Range;

/// Bytes of a block of transformed tiles, at most: most of a second-level cache of 1 MiB, for the sums, which each block
/// reads and writes, cost more than what does not fit.
const BLOCK: usize = 832 * 1024;
/// Tiles of a block: few add to the sums in memory too often, many leave the first-level cache.
const TILES: [usize; 2] = [24, 96];
/// Tiles of a chunk, at least.
const FEWEST: usize = 48;
/// Channels that one task multiplies.
const STRIP: usize = 64;
/// Positions lie this much further apart than they need, or their lines would compete for one set of the cache.
const APART: usize = 16;
/// Elements of a cache line.
const CACHE_LINE: usize = 16;
/// Elements that one task sums.
const PIECE: usize = 1024;

/// The gradient of a convolution's weights, planned.
pub(super) struct WeightGradient {
    shape: ConvShape,
    /// Height and width of the result.
    out: [usize; 2],
    /// Channels of a task, and tasks that share the channels.
    strip: usize,
    strips: usize,
    chunks: usize,
}

/// Where one run reads and writes.
struct Run<'a> {
    plan: &'a WeightGradient,
    isa: Isa,
    x: &'a [f32],
    dy: &'a [f32],
}

impl WeightGradient {
    /// Where it pays: with few channels the transforms cost more than the products save.
    pub(super) fn new(shape: &ConvShape) -> Option<WeightGradient> {
        let (fewer, more) = (shape.channels.min(shape.filters), shape.channels.max(shape.filters));
        if !applies(shape) || fewer < 16 || !(32..=MAX_K).contains(&more) {
            return None;
        }
        let strips = shape.channels.div_ceil(STRIP);
        let strip = shape.channels.div_ceil(strips);
        let most = match shape.channels * shape.filters {
            0..=4096 => 8,
            4097..=16_384 => 4,
            _ => 2,
        };
        let mut plan = WeightGradient { shape: *shape, out: shape.output(), strip, strips, chunks: 1 };
        plan.chunks = (plan.tiles() / FEWEST).min(most);
        (plan.chunks > 0).then_some(plan)
    }

    fn grid(&self) -> [usize; 2] {
        self.out.map(|size| size.div_ceil(2))
    }

    fn tiles(&self) -> usize {
        let [rows, columns] = self.grid();
        self.shape.batch * rows * columns
    }

    /// Tiles of a block.
    fn block(&self) -> usize {
        (BLOCK / (4 * POSITIONS * (self.strip + self.shape.filters))).clamp(TILES[0], TILES[1])
    }

    /// Elements from a position to the next, of transformed inputs and of gradients.
    fn steps(&self) -> [usize; 2] {
        [self.strip, self.shape.filters].map(|n| (self.block() * n).next_multiple_of(16) + APART)
    }

    /// Elements of the sums of one chunk.
    fn sums_len(&self) -> usize {
        POSITIONS * self.shape.channels * self.shape.filters
    }

    /// Scratch elements that [`WeightGradient::run`] needs.
    pub(super) fn scratch_len(&self, cpu: &Cpu) -> usize {
        let place: usize = self.steps().iter().sum();
        self.chunks * self.sums_len() + cpu.threads.count() * POSITIONS * place
    }

    /// `dw = [dw +] gradient`; the lengths were checked by the caller.
    pub(super) fn run(
        &self,
        cpu: &Cpu,
        x: &[f32],
        dy: &[f32],
        accumulate: bool,
        dw: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (channels, filters) = (self.shape.channels, self.shape.filters);
        let sums_len = self.sums_len();
        let (sums, places) = scratch.split_at_mut(self.chunks * sums_len);
        let place_len = POSITIONS * self.steps().iter().sum::<usize>();
        assert!(places.len() >= cpu.threads.count() * place_len, "scratch of {:?}", self.shape);
        let run = Run { plan: self, isa: cpu.isa, x, dy };
        {
            let (sums, places) = (Shared::new(sums), Shared::new(places));
            cpu.threads.for_each_slot(self.chunks * self.strips, |slot, task| {
                let (chunk, strip) = (task / self.strips, task % self.strips);
                let first = strip * self.strip;
                let inputs = first..channels.min(first + self.strip);
                // SAFETY: a slot's place belongs to the thread that runs it.
                let place = unsafe { places.slice(slot * place_len, place_len) };
                // SAFETY: this task alone writes these channels of the chunk's sums.
                unsafe { run.chunk(chunk, inputs, place, sums.pointer(chunk * sums_len, sums_len)) };
            });
        }
        let (sum, rest) = sums.split_at_mut(sums_len);
        let shared = Shared::new(sum);
        let len = channels * filters;
        cpu.threads.for_each(len.div_ceil(PIECE), |piece| {
            let elements = piece * PIECE..len.min((piece + 1) * PIECE);
            cpu.isa.run(TransformSums { sum: &shared, rest, len, elements });
        });
        to_order_of_weights(cpu, &self.shape, sum, accumulate, dw, |_, channel, tap| {
            tap * channels + channel
        });
    }
}

impl Run<'_> {
    /// The sums over a chunk's tiles for some channels.
    ///
    /// # Safety
    /// `sums` must be writable for those channels at every position, which nobody else touches.
    unsafe fn chunk(&self, chunk: usize, inputs: Range<usize>, place: &mut [f32], sums: *mut f32) {
        let plan = self.plan;
        let (channels, filters) = (plan.shape.channels, plan.shape.filters);
        let [step_x, step_dy] = plan.steps();
        let (of_x, of_dy) = place.split_at_mut(POSITIONS * step_x);
        let all = plan.tiles();
        let tiles = all * chunk / plan.chunks..all * (chunk + 1) / plan.chunks;
        let (count, block) = (inputs.len(), plan.block());
        let mut first = tiles.start;
        while first < tiles.end {
            let now = first..tiles.end.min(first + block);
            self.isa.run(Transform { run: self, tiles: now.clone(), inputs: inputs.clone(), of_x, of_dy });
            let segments = [Segment { a: 0, b: 0, len: now.len() }];
            let next = now.end..tiles.end.min(now.end + block);
            for position in 0..POSITIONS {
                self.ask(&next, position);
                let op = Outer {
                    rows: count,
                    columns: filters,
                    a: of_x[position * step_x..].as_ptr(),
                    a_step: count,
                    b: of_dy[position * step_dy..].as_ptr(),
                    b_step: filters,
                    segments: &segments,
                    c: sums.wrapping_add((position * channels + inputs.start) * filters),
                    c_stride: filters,
                    accumulate: first != tiles.start,
                };
                // SAFETY: a place has room for a block's tiles at each position; the sums are the caller's promise.
                unsafe { outer::run(self.isa, &op) };
            }
            first = now.end;
        }
    }
}

impl Run<'_> {
    /// Asks for a part of what the next block of tiles reads, which often comes from memory: tiles follow each other as
    /// pixels do, by and large.
    fn ask(&self, next: &Range<usize>, part: usize) {
        let all = self.plan.tiles();
        for from in [self.x, self.dy] {
            let at = |tile: usize| from.len() * tile / all;
            let (start, len) = (at(next.start), at(next.end) - at(next.start));
            let lines = start + len * part / POSITIONS..start + len * (part + 1) / POSITIONS;
            for line in lines.step_by(CACHE_LINE) {
                prefetch(from.as_ptr().wrapping_add(line));
            }
        }
    }
}

/// `B' d B` of some channels of the input, `[position][tile][channel]`, and `A e A'` of the gradient.
struct Transform<'a> {
    run: &'a Run<'a>,
    tiles: Range<usize>,
    inputs: Range<usize>,
    of_x: &'a mut [f32],
    of_dy: &'a mut [f32],
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { plan, x, dy, .. } = self.run;
        let ConvShape { height, width, channels, filters, pads, .. } = plan.shape;
        let ([rows, columns], [out_height, out_width]) = (plan.grid(), plan.out);
        let ([step_x, step_dy], count) = (plan.steps(), self.inputs.len());
        assert!(self.of_x.len() >= POSITIONS * step_x && self.of_dy.len() >= POSITIONS * step_dy);
        assert!(self.tiles.len() * count <= step_x && self.tiles.len() * filters <= step_dy);
        let first = self.tiles.start;
        let (mut image, mut ty, mut tx) = (first / (rows * columns), first / columns % rows, first % columns);
        for i in 0..self.tiles.len() {
            let at = |size: [usize; 2], depth: usize, y: usize, x: usize| {
                ((image * size[0] + y) * size[1] + x) * depth
            };
            let (top, left) = ((2 * ty).wrapping_sub(pads[0]), (2 * tx).wrapping_sub(pads[1]));
            let mut pixels = [ZEROS.as_ptr(); POSITIONS];
            if top < height && left < width && top + 4 <= height && left + 4 <= width {
                // Not at an edge, as most: no pixel needs to be looked at.
                let base = x[at([height, width], channels, top, left) + self.inputs.start..].as_ptr();
                for (y, pixels) in pixels.chunks_exact_mut(4).enumerate() {
                    for (column, pixel) in pixels.iter_mut().enumerate() {
                        *pixel = base.wrapping_add((y * width + column) * channels);
                    }
                }
            } else {
                for (position, pixel) in pixels.iter_mut().enumerate() {
                    let (y, column) = (top.wrapping_add(position / 4), left.wrapping_add(position % 4));
                    if y < height && column < width {
                        let first = at([height, width], channels, y, column) + self.inputs.start;
                        *pixel = x[first..].as_ptr();
                    }
                }
            }
            let mut results = [ZEROS.as_ptr(); 4];
            for (position, result) in results.iter_mut().enumerate() {
                let (y, column) = (2 * ty + position / 2, 2 * tx + position % 2);
                if y < out_height && column < out_width {
                    *result = dy[at([out_height, out_width], filters, y, column)..].as_ptr();
                }
            }
            tx += 1;
            if tx == columns {
                (tx, ty) = (0, ty + 1);
                if ty == rows {
                    (ty, image) = (0, image + 1);
                }
            }
            let to = self.of_x.as_mut_ptr().wrapping_add(i * count);
            let mut c = 0;
            while c < count {
                let lanes = S::LANES.min(count - c);
                // SAFETY: pixels have these channels, zeros MAX_K; a place has room for the tile, as asserted.
                unsafe {
                    if lanes == S::LANES {
                        input::<S, false>(s, &pixels, c, lanes, to, step_x);
                    } else {
                        input::<S, true>(s, &pixels, c, lanes, to, step_x);
                    }
                }
                c += lanes;
            }
            let to = self.of_dy.as_mut_ptr().wrapping_add(i * filters);
            let mut c = 0;
            while c < filters {
                let lanes = S::LANES.min(filters - c);
                // SAFETY: as above, for filters.
                unsafe {
                    if lanes == S::LANES {
                        gradient::<S, false>(s, &results, c, lanes, to, step_dy);
                    } else {
                        gradient::<S, true>(s, &results, c, lanes, to, step_dy);
                    }
                }
                c += lanes;
            }
        }
    }
}

/// # Safety
/// Pixels must be readable, and the positions from `to` writable, for `lanes` elements from `c`.
#[inline(always)]
unsafe fn input<S: Simd, const PARTIAL: bool>(
    s: S,
    pixels: &[*const f32; POSITIONS],
    c: usize,
    lanes: usize,
    to: *mut f32,
    step: usize,
) {
    let mut columns = [[s.zero(); 4]; 4];
    unrolled!(x < 4, of 0 1 2 3 => {
        let mut d = [s.zero(); 4];
        unrolled!(y < 4, of 0 1 2 3 => {
            // SAFETY: the caller's promise.
            d[y] = unsafe { load::<S, PARTIAL>(s, pixels[4 * y + x].add(c), lanes) };
        });
        let t = inputs_of(s, d);
        unrolled!(y < 4, of 0 1 2 3 => { columns[y][x] = t[y]; });
    });
    unrolled!(y < 4, of 0 1 2 3 => {
        let t = inputs_of(s, columns[y]);
        unrolled!(x < 4, of 0 1 2 3 => {
            // SAFETY: the caller's promise.
            unsafe { store::<S, PARTIAL>(s, to.add((4 * y + x) * step + c), lanes, t[x]) };
        });
    });
}

/// # Safety
/// As [`input`], of the four results of a tile.
#[inline(always)]
unsafe fn gradient<S: Simd, const PARTIAL: bool>(
    s: S,
    results: &[*const f32; 4],
    c: usize,
    lanes: usize,
    to: *mut f32,
    step: usize,
) {
    let mut columns = [[s.zero(); 2]; 4];
    unrolled!(x < 2, of 0 1 => {
        // SAFETY: the caller's promise.
        let e = unsafe { [load::<S, PARTIAL>(s, results[x].add(c), lanes), load::<S, PARTIAL>(s, results[2 + x].add(c), lanes)] };
        let t = gradients_of(s, e);
        unrolled!(y < 4, of 0 1 2 3 => { columns[y][x] = t[y]; });
    });
    unrolled!(y < 4, of 0 1 2 3 => {
        let t = gradients_of(s, columns[y]);
        unrolled!(x < 4, of 0 1 2 3 => {
            // SAFETY: the caller's promise.
            unsafe { store::<S, PARTIAL>(s, to.add((4 * y + x) * step + c), lanes, t[x]) };
        });
    });
}

#[inline(always)]
fn gradients_of<S: Simd>(s: S, e: [S::F; 2]) -> [S::F; 4] {
    [e[0], s.add(e[0], e[1]), s.sub(e[0], e[1]), s.sub(s.zero(), e[1])]
}

/// # Safety
/// `lanes` elements, or a whole vector unless partial, must be readable.
#[inline(always)]
unsafe fn load<S: Simd, const PARTIAL: bool>(s: S, from: *const f32, lanes: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { if PARTIAL { s.load_partial(from, lanes) } else { s.load(from) } }
}

/// # Safety
/// `lanes` elements, or a whole vector unless partial, must be writable.
#[inline(always)]
unsafe fn store<S: Simd, const PARTIAL: bool>(s: S, to: *mut f32, lanes: usize, x: S::F) {
    // SAFETY: the caller's promise.
    unsafe { if PARTIAL { s.store_partial(to, lanes, x) } else { s.store(to, x) } }
}

/// Adds the chunks' sums, `[position][len]` each, and leaves `G' s G` in the first nine positions of the first.
struct TransformSums<'a> {
    sum: &'a Shared<'a, f32>,
    rest: &'a [f32],
    len: usize,
    elements: Range<usize>,
}

impl Kernel for TransformSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (len, half) = (self.len, s.splat(0.5));
        let mut i = self.elements.start;
        while i < self.elements.end {
            let lanes = S::LANES.min(self.elements.end - i);
            let mut columns = [[s.zero(); 4]; 3];
            for x in 0..4 {
                let mut m = [s.zero(); 4];
                for (y, m) in m.iter_mut().enumerate() {
                    let at = (4 * y + x) * len + i;
                    // SAFETY: this task alone touches these elements of all positions.
                    *m = s.read(unsafe { self.sum.slice(at, lanes) });
                    for other in self.rest.chunks_exact(POSITIONS * len) {
                        *m = s.add(*m, s.read(&other[at..at + lanes]));
                    }
                }
                let t = sums_of(s, half, m);
                for (columns, t) in columns.iter_mut().zip(t) {
                    columns[x] = t;
                }
            }
            for (y, row) in columns.iter().enumerate() {
                for (x, t) in sums_of(s, half, *row).into_iter().enumerate() {
                    // SAFETY: as above; all positions of these elements have been read.
                    s.write(unsafe { self.sum.slice((3 * y + x) * len + i, lanes) }, t);
                }
            }
            i += lanes;
        }
    }
}

#[inline(always)]
fn sums_of<S: Simd>(s: S, half: S::F, m: [S::F; 4]) -> [S::F; 3] {
    let (plus, minus) = (s.mul(s.add(m[1], m[2]), half), s.mul(s.sub(m[1], m[2]), half));
    [s.add(m[0], plus), minus, s.add(plus, m[3])]
}
