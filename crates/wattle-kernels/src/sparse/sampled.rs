//! The sampled product: `dW = dY X^T` at the kept elements only, the gradient of sparse weights.
//!
//! One thread works strip by strip. Several pack the gradient of the results once; then each block of columns is a task
//! (or each part of one, where blocks are few): it packs its own columns strip by strip, and every kept element adds its
//! dot product over the strip.

use super::micro::Ahead;
use super::panel::{Pack, STRIP, Source};
use super::product::{Activations, LINE, Product, aligned};
use super::weights::{Group, SparseWeights, Tile};
use crate::Cpu;
use crate::simd::{Kernel, Scalar, Simd};
use crate::threads::Shared;

/// Scratch elements that [`sampled_product`] needs.
pub fn sampled_product_scratch_len(cpu: &Cpu, weights: &SparseWeights, shape: &Product) -> usize {
    scratch_len(cpu, weights, shape.images * shape.positions.div_ceil(STRIP))
}

pub(super) fn scratch_len(cpu: &Cpu, weights: &SparseWeights, strips: usize) -> usize {
    let packed = strips * weights.padded_rows() + cpu.threads.count() * weights.block;
    packed * STRIP + LINE
}

/// `dw = [dw +] dY X^T` for each stored value of the pattern, in their order; x and dy as [`super::product()`] takes x
/// and gives y. Values that pad blocks of `4 x 1` become zero or, in rows that exist, their own gradient.
///
/// # Panics
/// If lengths contradict the shape.
#[allow(clippy::too_many_arguments)]
pub fn sampled_product(
    cpu: &Cpu,
    weights: &SparseWeights,
    shape: &Product,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    dw: &mut [f32],
    scratch: &mut [f32],
) {
    let Product { images, positions, .. } = *shape;
    assert_eq!(x.len(), images * weights.columns * positions, "activations of {shape:?}");
    assert_eq!(dy.len(), images * weights.rows * positions, "gradients of {shape:?}");
    let part = |arrangement, data, features: usize, image: usize| {
        let data: &[f32] = data;
        let data = &data[image * features * positions..][..features * positions];
        match arrangement {
            Activations::Rows => Source::Rows { x: data, step: features },
            Activations::Columns => Source::Columns { x: data, step: positions },
        }
    };
    let job = Job {
        weights,
        images,
        positions,
        x: &|image| part(shape.x, x, weights.columns, image),
        dy: &|image| part(shape.y, dy, weights.rows, image),
    };
    job.run(cpu, accumulate, dw, scratch);
}

/// A sampled product with its operands located.
pub(super) struct Job<'a> {
    pub weights: &'a SparseWeights,
    pub images: usize,
    pub positions: usize,
    pub x: &'a (dyn Fn(usize) -> Source<'a> + Sync),
    pub dy: &'a (dyn Fn(usize) -> Source<'a> + Sync),
}

impl Job<'_> {
    pub(super) fn run(&self, cpu: &Cpu, accumulate: bool, dw: &mut [f32], scratch: &mut [f32]) {
        let weights = self.weights;
        let strips = self.images * self.positions.div_ceil(STRIP);
        assert_eq!(dw.len(), weights.values.len(), "one gradient for each stored value");
        assert!(weights.pattern.is_none(), "N:M weights have no sampled product");
        assert!(scratch.len() >= scratch_len(cpu, weights, strips), "scratch of a sampled product");
        let dy_len = weights.padded_rows() * STRIP;
        if weights.indices.is_empty() || dy_len == 0 {
            return;
        }
        let height = weights.height;
        let sample =
            |columns: &[u32], tile: &Tile, x: &[f32], dy: &[f32], ahead: [Ahead; 2], dw: &mut [f32]| {
                cpu.isa.run(Sample {
                    height,
                    groups: &weights.groups[tile.groups.clone()],
                    rows: &weights.row_list[tile.row..],
                    indices: &weights.indices[tile.element..],
                    x: &x[..columns.len() * STRIP],
                    dy,
                    ahead,
                    dw,
                });
            };
        if cpu.threads.count() == 1 {
            // Each strip is packed where the caches still have it when it is read.
            let (dy, panel) = aligned(scratch).split_at_mut(dy_len);
            if !accumulate {
                dw.fill(0.0);
            }
            dy[weights.rows * STRIP..].fill(0.0);
            for strip in 0..strips {
                self.pack(cpu, self.dy, &weights.row_numbers, strip, dy);
                for (block, tiles) in weights.tiles.chunks(weights.parts).enumerate() {
                    let columns = weights.block_columns(block);
                    self.pack(cpu, self.x, columns, strip, panel);
                    let ahead = self.ahead(strip, block);
                    for tile in tiles {
                        sample(columns, tile, panel, dy, ahead, &mut dw[tile.element * height..]);
                    }
                }
            }
            return;
        }
        let (dy_panels, panels) = aligned(scratch).split_at_mut(strips * dy_len);
        cpu.threads.for_each_piece(dy_panels, dy_len, |strip, out| {
            self.pack(cpu, self.dy, &weights.row_numbers, strip, out);
            out[weights.rows * STRIP..].fill(0.0);
        });
        let (blocks, threads) = (weights.blocks(), cpu.threads.count());
        // A block's panel is packed again for each of its parts, which pays where there are too few blocks to share out.
        let parts = if threads > 1 && blocks < 8 * threads { 1 } else { weights.parts };
        let per_block = weights.parts / parts;
        let x_len = weights.block * STRIP;
        let (dy_panels, panels, dw) = (&*dy_panels, Shared::new(panels), Shared::new(dw));
        cpu.threads.for_each_slot(blocks * per_block, |slot, task| {
            let (block, first_part) = (task / per_block, task % per_block * parts);
            let tiles = block * weights.parts + first_part..block * weights.parts + first_part + parts;
            let elements = weights.tiles[tiles.start].element
                ..weights.tiles.get(tiles.end).map_or(weights.indices.len(), |t| t.element);
            // SAFETY: tiles follow each other in the lists of elements; this task alone has these.
            let dw = unsafe { dw.slice(elements.start * height, elements.len() * height) };
            // SAFETY: a slot's panel belongs to the thread that runs it.
            let panel = unsafe { panels.slice(slot * x_len, x_len) };
            if !accumulate {
                dw.fill(0.0);
            }
            let columns = weights.block_columns(block);
            for strip in 0..strips {
                self.pack(cpu, self.x, columns, strip, panel);
                for tile in &weights.tiles[tiles.clone()] {
                    let skipped = (tile.element - elements.start) * height;
                    let dy = &dy_panels[strip * dy_len..][..dy_len];
                    sample(columns, tile, panel, dy, [Ahead::NOTHING; 2], &mut dw[skipped..]);
                }
            }
        });
    }

    /// What the next strip will read: gradients are asked for in the first block, activations in the last.
    fn ahead(&self, strip: usize, block: usize) -> [Ahead; 2] {
        let (w, per_image) = (self.weights, self.positions.div_ceil(STRIP));
        let (image, first) = (strip / per_image, strip % per_image * STRIP);
        let mut ahead = [Ahead::NOTHING; 2];
        if block == 0 {
            ahead[0] = Ahead::of((self.dy)(image), first, self.positions, w.rows);
        }
        if block + 1 == w.blocks() {
            ahead[1] = Ahead::of((self.x)(image), first, self.positions, w.columns);
        }
        ahead
    }

    /// Packs one strip of the listed features, filled up with zeros.
    fn pack<'a>(
        &self,
        cpu: &Cpu,
        source: &dyn Fn(usize) -> Source<'a>,
        columns: &[u32],
        strip: usize,
        out: &mut [f32],
    ) {
        let per_image = self.positions.div_ceil(STRIP);
        let (image, first) = (strip / per_image, strip % per_image * STRIP);
        let width = STRIP.min(self.positions - first);
        cpu.isa.run(Pack { source: source(image), columns, first, width, stride: STRIP, out });
    }
}

/// One tile's dot products over one strip.
struct Sample<'a> {
    height: usize,
    groups: &'a [Group],
    rows: &'a [u32],
    indices: &'a [u16],
    x: &'a [f32],
    dy: &'a [f32],
    ahead: [Ahead; 2],
    dw: &'a mut [f32],
}

impl Kernel for Sample<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (mut row, mut element) = (0, 0);
        for group in self.groups {
            let elements = group.elements as usize;
            for _ in 0..group.rows {
                self.ahead[0].ask(self.rows[row] as usize * self.height);
                self.ahead[1].ask(self.rows[row] as usize * self.height);
                let indices = &self.indices[element..element + elements];
                let height = if elements > 0 { self.height } else { 0 };
                for r in 0..height {
                    let dy = &self.dy[(self.rows[row] as usize * self.height + r) * STRIP..][..STRIP];
                    let dw = &mut self.dw[element * self.height..][..elements * self.height];
                    if self.height == 1 {
                        dots::<S, 1>(s, dy, self.x, indices, dw);
                    } else {
                        dots::<S, { super::HEIGHT }>(s, dy, self.x, indices, &mut dw[r..]);
                    }
                }
                row += 1;
                element += elements;
            }
        }
    }
}

/// Adds to every `H`-th of `dw` the dot product of `dy` with a listed column.
#[inline(always)]
fn dots<S: Simd, const H: usize>(s: S, dy: &[f32], x: &[f32], indices: &[u16], dw: &mut [f32]) {
    assert_eq!(dy.len(), STRIP);
    let mut vectors = [s.zero(); STRIP / Scalar::LANES];
    for v in 0..STRIP / S::LANES {
        // SAFETY: dy has STRIP elements, a multiple of the lanes.
        vectors[v] = unsafe { s.load(dy.as_ptr().add(v * S::LANES)) };
    }
    let (fours, rest) = indices.as_chunks::<4>();
    for (four, dw) in fours.iter().zip(dw.chunks_mut(4 * H)) {
        let sums = sums(s, &vectors, x, four);
        // Whole where values follow each other: four sums are then added as one vector.
        match dw.first_chunk_mut::<4>() {
            Some(dw) if H == 1 => {
                for (dw, sum) in dw.iter_mut().zip(sums) {
                    *dw += sum;
                }
            }
            _ => {
                for (j, sum) in sums.into_iter().enumerate() {
                    dw[j * H] += sum;
                }
            }
        }
    }
    let sums = match *rest {
        [a] => sums(s, &vectors, x, &[a]),
        [a, b] => sums(s, &vectors, x, &[a, b]),
        [a, b, c] => sums(s, &vectors, x, &[a, b, c]),
        _ => return,
    };
    let done = 4 * fours.len();
    for (j, sum) in sums.into_iter().take(rest.len()).enumerate() {
        dw[(done + j) * H] += sum;
    }
}

/// The dot products of N columns, whose sums do not wait for each other.
#[inline(always)]
fn sums<S: Simd, const N: usize>(
    s: S,
    dy: &[S::F; STRIP / Scalar::LANES],
    x: &[f32],
    indices: &[u16; N],
) -> [f32; 4] {
    let mut acc = [s.zero(); 4];
    for (acc, &index) in acc.iter_mut().zip(indices) {
        let column = x[index as usize * STRIP..][..STRIP].as_ptr();
        for v in 0..STRIP / S::LANES {
            // SAFETY: a column has STRIP elements, a multiple of the lanes, as sliced above.
            *acc = unsafe { s.fma(dy[v], s.load(column.add(v * S::LANES)), *acc) };
        }
    }
    s.sums(acc)
}
