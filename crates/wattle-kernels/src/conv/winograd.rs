//! Convolution by 3 x 3 kernels of stride 1 with 2.25 times fewer multiplications, and its input gradient: Winograd's
//! F(2 x 2, 3 x 3) (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
//!
//! A tile of 4 x 4 input pixels, transformed, is multiplied with transformed weights at each of its 16 positions, which
//! are 16 products over channels, and transformed back to 2 x 2 output pixels. Tiles go in blocks whose transforms stay
//! in the second-level cache. The sums of a result do not depend on the number of threads.

use super::ConvShape;
use crate::gemm::Epilogue;
use crate::igemm::{self, Igemm, MAX_K, RowsOfA, RowsOfC, ZEROS};
use crate::pack::{self, PackedShape, Source, Taps};
use crate::simd::{Isa, Kernel, Simd, unrolled};
use crate::{Activation, Cpu};
use std::ops::Range;

/// Positions of a transformed tile.
pub(super) const POSITIONS: usize = 16;
/// Bytes of a block of transformed inputs, at most: half of a second-level cache of 1 MiB.
const INPUT: usize = 448 * 1024;
/// Bytes of a strip of products, at most.
const PRODUCTS: usize = 256 * 1024;
/// Tiles of a block: fewer waste registers of the product, more leave the first-level cache.
const TILES: [usize; 2] = [24, 96];
/// Tiles that weights are read for, at least.
const FEWEST: usize = 32;
/// Positions lie this much further apart than they need, or their lines would compete for one set of the cache.
const APART: usize = 16;
/// Elements that one task handles where they are independent.
const PIECE: usize = 4096;
/// Tiles that one task transforms where threads share a block.
const SHARE: usize = 4;

/// A convolution, or an input gradient seen as the convolution it is.
pub(super) struct Winograd {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    filters: usize,
    out_height: usize,
    out_width: usize,
    /// Rows above and columns left of the input.
    pads: [usize; 2],
    /// Weights are read with filters for channels, turned by half a turn.
    turned: bool,
}

/// Where one run reads and writes.
struct Run<'a> {
    plan: &'a Winograd,
    isa: Isa,
    x: *const f32,
    weights: *const f32,
    e: Epilogue<'a>,
    y: *mut f32,
    /// Transformed inputs: a place for each block, or each thread.
    inputs: *mut f32,
    /// Products of a strip: a slot for each thread.
    products: *mut f32,
    /// Elements from a position to the next, of transformed inputs and of products.
    steps: [usize; 2],
    /// Tiles of a block, columns of a strip.
    block: usize,
    strip: usize,
}

// SAFETY: tasks write disjoint tiles, or disjoint columns of them, of y and only read the rest.
unsafe impl Sync for Run<'_> {}

impl Winograd {
    /// The forward direction, where it pays.
    pub(super) fn forward(shape: &ConvShape) -> Option<Winograd> {
        let [out_height, out_width] = shape.output();
        let plan = Winograd {
            batch: shape.batch,
            height: shape.height,
            width: shape.width,
            channels: shape.channels,
            filters: shape.filters,
            out_height,
            out_width,
            pads: [shape.pads[0], shape.pads[1]],
            turned: false,
        };
        (applies(shape) && plan.pays()).then_some(plan)
    }

    /// The gradient of the input, where it pays: the convolution of the output's gradient by turned kernels.
    pub(super) fn input_gradient(shape: &ConvShape) -> Option<Winograd> {
        if !applies(shape) {
            return None;
        }
        let [out_height, out_width] = shape.output();
        let plan = Winograd {
            batch: shape.batch,
            height: out_height,
            width: out_width,
            channels: shape.filters,
            filters: shape.channels,
            out_height: shape.height,
            out_width: shape.width,
            pads: [2 - shape.pads[0], 2 - shape.pads[1]],
            turned: true,
        };
        plan.pays().then_some(plan)
    }

    /// With few channels the transforms cost more than the products save; with few tiles, the larger weights that come
    /// from beyond the caches.
    fn pays(&self) -> bool {
        self.channels.min(self.filters) >= 16
            && self.channels.max(self.filters) >= 32
            && self.channels <= MAX_K
            && self.tiles() >= FEWEST
    }

    fn tile_rows(&self) -> usize {
        self.out_height.div_ceil(2)
    }

    fn tile_columns(&self) -> usize {
        self.out_width.div_ceil(2)
    }

    fn tiles(&self) -> usize {
        self.batch * self.tile_rows() * self.tile_columns()
    }

    /// Tiles of a block.
    fn block(&self) -> usize {
        let most = (INPUT / (4 * POSITIONS * self.channels)).clamp(TILES[0], TILES[1]);
        let tiles = self.tiles();
        tiles.div_ceil(tiles.div_ceil(most)).next_multiple_of(12)
    }

    fn packed_shape(&self, isa: Isa) -> PackedShape {
        PackedShape::new(isa, 1, self.channels, self.filters)
    }

    /// Columns of a strip: whole panels.
    fn strip(&self, isa: Isa) -> usize {
        let width = self.packed_shape(isa).layout().width;
        let most = PRODUCTS / (4 * POSITIONS * self.block());
        let panels = (most / width).clamp(1, self.filters.div_ceil(width));
        panels * width
    }

    fn steps(&self, isa: Isa) -> [usize; 2] {
        let inputs = (self.block() * self.channels).next_multiple_of(16) + APART;
        [inputs, self.block() * self.strip(isa) + APART]
    }

    fn blocks(&self) -> usize {
        self.tiles().div_ceil(self.block())
    }

    /// Whether threads take whole blocks; otherwise there are too few, and they share each.
    fn by_blocks(&self, cpu: &Cpu) -> bool {
        cpu.threads.count() == 1 || self.blocks() >= 4 * cpu.threads.count()
    }

    /// Scratch elements that [`Winograd::run`] needs.
    pub(super) fn scratch_len(&self, cpu: &Cpu) -> usize {
        let [inputs, products] = self.steps(cpu.isa).map(|step| POSITIONS * step);
        let threads = cpu.threads.count();
        let blocks = if self.by_blocks(cpu) { threads } else { self.blocks() };
        blocks * inputs + threads * products
    }

    /// Elements of transformed weights.
    pub(super) fn weights_len(&self, isa: Isa) -> usize {
        POSITIONS * self.packed_shape(isa).len()
    }

    /// Packs and transforms weights `[filters, channels, 3, 3]` of the convolution.
    pub(super) fn pack(&self, cpu: &Cpu, weights: &[f32], out: &mut [f32]) {
        let packed = self.packed_shape(cpu.isa);
        let len = packed.len();
        let out = &mut out[..POSITIONS * len];
        let (k_stride, n_stride) = if self.turned { (9 * self.filters, 9) } else { (9, 9 * self.channels) };
        // The taps lie where the last nine positions will: each element is read before it is written over.
        for tap in 0..9 {
            let from = if self.turned { 8 - tap } else { tap };
            let source = Source { data: &weights[from..], taps: Taps::Strided(0), k_stride, n_stride };
            pack::pack(cpu.isa, &cpu.threads, &packed, &source, &mut out[(POSITIONS - 9 + tap) * len..]);
        }
        let weights = Weights { start: out.as_mut_ptr(), len };
        cpu.threads.for_each(len.div_ceil(PIECE), |piece| {
            let elements = piece * PIECE..len.min((piece + 1) * PIECE);
            cpu.isa.run(TransformWeights { weights: &weights, elements });
        });
    }

    /// `y = activation([y +] conv(x) + bias + residual)`, channels last; `weights` from [`Winograd::pack`]. The lengths
    /// were checked by the caller.
    pub(super) fn run(
        &self,
        cpu: &Cpu,
        x: &[f32],
        weights: &[f32],
        e: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        assert_eq!(x.len(), self.batch * self.height * self.width * self.channels);
        assert_eq!(y.len(), self.batch * self.out_height * self.out_width * self.filters);
        assert!(weights.len() >= self.weights_len(cpu.isa) && scratch.len() >= self.scratch_len(cpu));
        let by_blocks = self.by_blocks(cpu);
        let (steps, strip) = (self.steps(cpu.isa), self.strip(cpu.isa));
        let kept = if by_blocks { cpu.threads.count() } else { self.blocks() };
        let (inputs, products) = scratch.split_at_mut(kept * POSITIONS * steps[0]);
        let run = Run {
            plan: self,
            isa: cpu.isa,
            x: x.as_ptr(),
            weights: weights.as_ptr(),
            // Other activations follow once all is stored.
            e: Epilogue {
                activation: if e.activation.is_clamp() { e.activation } else { Activation::None },
                ..e
            },
            y: y.as_mut_ptr(),
            inputs: inputs.as_mut_ptr(),
            products: products.as_mut_ptr(),
            steps,
            block: self.block(),
            strip,
        };
        let (blocks, strips) = (self.blocks(), self.filters.div_ceil(strip));
        if by_blocks {
            cpu.threads.for_each_slot(blocks, |slot, block| {
                let tiles = run.tiles(block);
                // SAFETY: tasks that run at the same time have different slots, and all have different tiles.
                unsafe {
                    run.transform(slot, tiles.clone(), 0);
                    (0..strips).for_each(|strip| run.strip(slot, slot, tiles.clone(), strip));
                }
            });
        } else {
            let pieces = run.block.div_ceil(SHARE);
            cpu.threads.for_each(blocks * pieces, |task| {
                let (block, first) = (task / pieces, task % pieces * SHARE);
                let tiles = run.tiles(block);
                let piece =
                    (tiles.start + first).min(tiles.end)..(tiles.start + first + SHARE).min(tiles.end);
                // SAFETY: every block has a place of its own for its transforms, and every task tiles of its own.
                unsafe { run.transform(block, piece, first) };
            });
            cpu.threads.for_each_slot(blocks * strips, |slot, task| {
                // SAFETY: tasks that run at the same time have different slots, and all have different columns or tiles;
                // transforms are only read by now.
                unsafe { run.strip(task / strips, slot, run.tiles(task / strips), task % strips) };
            });
        }
        if !e.activation.is_clamp() {
            cpu.threads.for_each_piece(y, PIECE, |_, y| e.activation.apply(cpu.isa, y));
        }
    }
}

impl Run<'_> {
    fn tiles(&self, block: usize) -> Range<usize> {
        block * self.block..((block + 1) * self.block).min(self.plan.tiles())
    }

    /// Transforms tiles into place `place`, the first of them as its tile number `at`.
    ///
    /// # Safety
    /// Nobody else may touch these tiles of the place, which must exist.
    unsafe fn transform(&self, place: usize, tiles: Range<usize>, at: usize) {
        let to = self.inputs.wrapping_add(place * POSITIONS * self.steps[0] + at * self.plan.channels);
        self.isa.run(TransformInput { run: self, tiles, to });
    }

    /// Makes a strip of columns of the result at `tiles`, whose transforms are in `place`; products go to slot `slot`.
    ///
    /// # Safety
    /// Nobody else may touch the slot or these columns of the result's tiles.
    unsafe fn strip(&self, place: usize, slot: usize, tiles: Range<usize>, strip: usize) {
        let packed = self.plan.packed_shape(self.isa);
        let layout = packed.layout();
        let column = strip * self.strip;
        let columns = (self.plan.filters - column).min(self.strip);
        let a = self.inputs.wrapping_add(place * POSITIONS * self.steps[0]);
        let c = self.products.wrapping_add(slot * POSITIONS * self.steps[1]);
        for position in 0..POSITIONS {
            let op = Igemm {
                m: tiles.len(),
                n: columns,
                k: packed.k,
                taps: 1,
                a: a.wrapping_add(position * self.steps[0]),
                a_rows: RowsOfA::Affine { stride: packed.k },
                b: self.weights.wrapping_add(position * packed.len() + column / layout.width * layout.panel),
                b_layout: layout,
                c: c.wrapping_add(position * self.steps[1]),
                c_rows: RowsOfC::Affine { stride: self.strip },
                bias: None,
                residual: std::ptr::null(),
                accumulate: false,
                activation: Activation::None,
            };
            // SAFETY: a block's transforms fit a place and its products a slot; strips are whole panels of the weights.
            unsafe { igemm::run_rows(self.isa, &op, 0..tiles.len()) };
        }
        self.isa.run(TransformProducts { run: self, tiles, from: c, column, columns });
    }
}

/// Transformed weights in the making: 16 positions of `len` elements, of which the last nine hold the taps.
struct Weights {
    start: *mut f32,
    len: usize,
}

// SAFETY: tasks read and write disjoint elements.
unsafe impl Sync for Weights {}

/// `G g G'` of the weights, in place.
struct TransformWeights<'a> {
    weights: &'a Weights,
    elements: Range<usize>,
}

impl Kernel for TransformWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Weights { start, len } = *self.weights;
        let half = s.splat(0.5);
        for i in self.elements.step_by(S::LANES) {
            let mut columns = [[s.zero(); 3]; 4];
            for x in 0..3 {
                let mut g = [s.zero(); 3];
                for (y, g) in g.iter_mut().enumerate() {
                    // SAFETY: packed weights are whole vectors, so i + LANES <= len.
                    *g = unsafe { s.load(start.add((POSITIONS - 9 + 3 * y + x) * len + i)) };
                }
                let g = weights_of(s, half, g);
                for (y, columns) in columns.iter_mut().enumerate() {
                    columns[x] = g[y];
                }
            }
            for (y, row) in columns.iter().enumerate() {
                let g = weights_of(s, half, *row);
                for (x, g) in g.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { s.store(start.add((4 * y + x) * len + i), *g) };
                }
            }
        }
    }
}

#[inline(always)]
fn weights_of<S: Simd>(s: S, half: S::F, g: [S::F; 3]) -> [S::F; 4] {
    let (ends, middle) = (s.mul(s.add(g[0], g[2]), half), s.mul(g[1], half));
    [g[0], s.add(ends, middle), s.sub(ends, middle), g[2]]
}

/// `B' d B` of tiles of the input.
struct TransformInput<'a> {
    run: &'a Run<'a>,
    tiles: Range<usize>,
    /// The first tile's first position.
    to: *mut f32,
}

impl Kernel for TransformInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plan = self.run.plan;
        let channels = plan.channels;
        let (rows, columns) = (plan.tile_rows(), plan.tile_columns());
        for (i, tile) in self.tiles.clone().enumerate() {
            let (image, ty, tx) = (tile / (rows * columns), tile / columns % rows, tile % columns);
            let mut pixels = [ZEROS.as_ptr(); POSITIONS];
            for (at, pixel) in pixels.iter_mut().enumerate() {
                let y = (2 * ty + at / 4).wrapping_sub(plan.pads[0]);
                let x = (2 * tx + at % 4).wrapping_sub(plan.pads[1]);
                if y < plan.height && x < plan.width {
                    *pixel = self.run.x.wrapping_add(((image * plan.height + y) * plan.width + x) * channels);
                }
            }
            let to = self.to.wrapping_add(i * channels);
            let mut c = 0;
            while c + S::LANES <= channels {
                // SAFETY: pixels have all channels, zeros MAX_K; the place has room for the tile.
                unsafe { self.channels::<S, false>(s, &pixels, to, c, S::LANES) };
                c += S::LANES;
            }
            if c < channels {
                // SAFETY: as above.
                unsafe { self.channels::<S, true>(s, &pixels, to, c, channels - c) };
            }
        }
    }
}

impl TransformInput<'_> {
    /// # Safety
    /// Pixels must be readable, and the positions from `to` writable, for `lanes` channels from `c`.
    #[inline(always)]
    unsafe fn channels<S: Simd, const PARTIAL: bool>(
        &self,
        s: S,
        pixels: &[*const f32; POSITIONS],
        to: *mut f32,
        c: usize,
        lanes: usize,
    ) {
        let mut columns = [[s.zero(); 4]; 4];
        unrolled!(x < 4, of 0 1 2 3 => {
            let mut d = [s.zero(); 4];
            unrolled!(y < 4, of 0 1 2 3 => {
                // SAFETY: the caller's promise.
                d[y] = unsafe {
                    let from = pixels[4 * y + x].add(c);
                    if PARTIAL { s.load_partial(from, lanes) } else { s.load(from) }
                };
            });
            let t = inputs_of(s, d);
            unrolled!(y < 4, of 0 1 2 3 => { columns[y][x] = t[y]; });
        });
        unrolled!(y < 4, of 0 1 2 3 => {
            let t = inputs_of(s, columns[y]);
            unrolled!(x < 4, of 0 1 2 3 => {
                // SAFETY: the caller's promise.
                unsafe {
                    let to = to.add((4 * y + x) * self.run.steps[0] + c);
                    if PARTIAL { s.store_partial(to, lanes, t[x]) } else { s.store(to, t[x]) }
                }
            });
        });
    }
}

#[inline(always)]
pub(super) fn inputs_of<S: Simd>(s: S, d: [S::F; 4]) -> [S::F; 4] {
    [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[1], d[3])]
}

/// `A' m A` of the products of a strip, with the epilogue.
struct TransformProducts<'a> {
    run: &'a Run<'a>,
    tiles: Range<usize>,
    from: *const f32,
    column: usize,
    columns: usize,
}

impl Kernel for TransformProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { plan, strip, .. } = *self.run;
        let (rows, columns) = (plan.tile_rows(), plan.tile_columns());
        for (i, tile) in self.tiles.clone().enumerate() {
            let (image, ty, tx) = (tile / (rows * columns), tile / columns % rows, tile % columns);
            let first = (image * plan.out_height + 2 * ty) * plan.out_width + 2 * tx;
            let first = first * plan.filters + self.column;
            let right = 2 * tx + 1 < plan.out_width;
            let below = 2 * ty + 1 < plan.out_height;
            let from = self.from.wrapping_add(i * strip);
            let mut c = 0;
            while c + S::LANES <= self.columns {
                // SAFETY: the slot holds whole strips; pixels right and below are written only if they exist.
                unsafe { self.columns::<S, false>(s, from, first, [right, below], c, S::LANES) };
                c += S::LANES;
            }
            if c < self.columns {
                // SAFETY: as above.
                unsafe { self.columns::<S, true>(s, from, first, [right, below], c, self.columns - c) };
            }
        }
    }
}

impl TransformProducts<'_> {
    /// # Safety
    /// The positions from `from` must be readable for whole vectors, and the pixels writable for `lanes` columns from `c`.
    #[inline(always)]
    unsafe fn columns<S: Simd, const PARTIAL: bool>(
        &self,
        s: S,
        from: *const f32,
        first: usize,
        [right, below]: [bool; 2],
        c: usize,
        lanes: usize,
    ) {
        let plan = self.run.plan;
        let e = &self.run.e;
        let mut sums = [[s.zero(); 4]; 2];
        unrolled!(x < 4, of 0 1 2 3 => {
            let mut m = [s.zero(); 4];
            unrolled!(y < 4, of 0 1 2 3 => {
                // SAFETY: the caller's promise.
                m[y] = unsafe { s.load(from.add((4 * y + x) * self.run.steps[1] + c)) };
            });
            let t = products_of(s, m);
            unrolled!(y < 2, of 0 1 => { sums[y][x] = t[y]; });
        });
        let (low, high) = e.activation.clamp();
        let (low, high) = (s.splat(low), s.splat(high));
        let bias = match e.bias {
            // SAFETY: the bias has all columns.
            Some(bias) => unsafe { s.load_partial(bias.as_ptr().add(self.column + c), lanes) },
            None => s.zero(),
        };
        unrolled!(y < 2, of 0 1 => {
            let pair = products_of(s, sums[y]);
            unrolled!(x < 2, of 0 1 => {
                if (x == 0 || right) && (y == 0 || below) {
                    let at = first + (y * plan.out_width + x) * plan.filters + c;
                    // SAFETY: the caller's promise; a residual has the shape of the result.
                    unsafe {
                        let to = self.run.y.add(at);
                        let mut sum = s.add(pair[x], bias);
                        if e.accumulate {
                            sum = s.add(sum, if PARTIAL { s.load_partial(to, lanes) } else { s.load(to) });
                        }
                        if let Some(residual) = e.residual {
                            let r = residual.as_ptr().add(at);
                            sum = s.add(sum, if PARTIAL { s.load_partial(r, lanes) } else { s.load(r) });
                        }
                        let sum = s.min(high, s.max(low, sum));
                        if PARTIAL { s.store_partial(to, lanes, sum) } else { s.store(to, sum) }
                    }
                }
            });
        });
    }
}

#[inline(always)]
fn products_of<S: Simd>(s: S, m: [S::F; 4]) -> [S::F; 2] {
    [s.add(s.add(m[0], m[1]), m[2]), s.sub(s.sub(m[1], m[2]), m[3])]
}

/// Whether the direction of a convolution does not matter: a kernel of 3 x 3, moved by one pixel.
pub(super) fn applies(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && shape.groups == 1
        && shape.pads.iter().all(|&pad| pad <= 2)
}
