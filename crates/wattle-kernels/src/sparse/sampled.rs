//! The sampled product: `dW = dY X^T` at the kept elements only, the gradient of sparse weights.

use super::panel::{Pack, STRIP, Source};
use super::product::{Activations, Product};
use super::weights::{Group, SparseWeights};
use crate::Cpu;
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// Scratch elements that [`sampled_product`] needs.
pub fn sampled_product_scratch_len(weights: &SparseWeights, shape: &Product) -> usize {
    let strips = shape.images * shape.positions.div_ceil(STRIP);
    strips * (weights.used.len() + weights.padded_rows()) * STRIP
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
    let (rows, columns) = (weights.rows, weights.columns);
    assert_eq!(x.len(), images * columns * positions, "activations of {shape:?}");
    assert_eq!(dy.len(), images * rows * positions, "gradients of {shape:?}");
    assert_eq!(dw.len(), weights.values.len(), "one gradient for each stored value");
    assert!(scratch.len() >= sampled_product_scratch_len(weights, shape), "scratch of {shape:?}");
    let per_image = positions.div_ceil(STRIP);
    let strips = images * per_image;
    let (x_len, dy_len) = (weights.used.len() * STRIP, weights.padded_rows() * STRIP);
    let (x_panels, rest) = scratch.split_at_mut(strips * x_len);
    let dy_panels = &mut rest[..strips * dy_len];
    let pack = |arrangement: Activations,
                data: &[f32],
                features: usize,
                listed: &[u32],
                strip: usize,
                out: &mut [f32]| {
        let (image, first) = (strip / per_image, strip % per_image * STRIP);
        let data = &data[image * features * positions..][..features * positions];
        let source = match arrangement {
            Activations::Rows => Source::Rows { x: data, step: features },
            Activations::Columns => Source::Columns { x: data, step: positions },
        };
        let width = STRIP.min(positions - first);
        cpu.isa.run(Pack {
            source,
            columns: listed,
            first,
            width,
            stride: STRIP,
            out: &mut out[..listed.len() * STRIP],
        });
        out[listed.len() * STRIP..].fill(0.0);
    };
    if x_len > 0 {
        cpu.threads
            .for_each_piece(x_panels, x_len, |i, out| pack(shape.x, x, columns, &weights.used, i, out));
    }
    if dy_len > 0 {
        cpu.threads.for_each_piece(dy_panels, dy_len, |i, out| {
            pack(shape.y, dy, rows, &weights.row_numbers, i, out)
        });
    }
    let (x_panels, dy_panels, dw) = (&*x_panels, &*dy_panels, Shared::new(dw));
    cpu.threads.for_each(weights.tiles.len(), |i| {
        let (tile, block) = (&weights.tiles[i], i / weights.parts);
        let end = weights.tiles.get(i + 1).map_or(weights.indices.len(), |t| t.element);
        // SAFETY: tiles follow each other in the lists of elements; this task alone has this one.
        let dw = unsafe { dw.slice(tile.element * weights.height, (end - tile.element) * weights.height) };
        if !accumulate {
            dw.fill(0.0);
        }
        for strip in 0..strips {
            let first_column = (block * weights.block).min(weights.used.len());
            cpu.isa.run(Sample {
                height: weights.height,
                groups: &weights.groups[tile.groups.clone()],
                rows: &weights.row_list[tile.row..],
                indices: &weights.indices[tile.element..end],
                x: &x_panels[strip * x_len + first_column * STRIP..(strip + 1) * x_len],
                dy: &dy_panels[strip * dy_len..][..dy_len],
                dw,
            });
        }
    });
}

/// One tile's dot products over one strip.
struct Sample<'a> {
    height: usize,
    groups: &'a [Group],
    rows: &'a [u32],
    indices: &'a [u16],
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'a mut [f32],
}

impl Kernel for Sample<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (mut row, mut element) = (0, 0);
        for group in self.groups {
            for _ in 0..group.rows {
                let elements = group.elements as usize;
                let indices = &self.indices[element..element + elements];
                for r in 0..self.height {
                    let dy = &self.dy[(self.rows[row] as usize * self.height + r) * STRIP..][..STRIP];
                    let mut at = 0;
                    // Four at a time: their sums do not wait for each other.
                    while at + 4 <= elements {
                        let sums = dots::<S, 4>(s, dy, self.x, &indices[at..at + 4]);
                        for (j, sum) in sums.into_iter().enumerate() {
                            self.dw[(element + at + j) * self.height + r] += sum;
                        }
                        at += 4;
                    }
                    while at < elements {
                        let [sum] = dots::<S, 1>(s, dy, self.x, &indices[at..at + 1]);
                        self.dw[(element + at) * self.height + r] += sum;
                        at += 1;
                    }
                }
                row += 1;
                element += elements;
            }
        }
    }
}

#[inline(always)]
fn dots<S: Simd, const N: usize>(s: S, dy: &[f32], x: &[f32], indices: &[u16]) -> [f32; N] {
    let mut acc = [s.zero(); N];
    let mut columns = [&dy[..0]; N];
    for n in 0..N {
        columns[n] = &x[indices[n] as usize * STRIP..][..STRIP];
    }
    for v in (0..STRIP).step_by(S::LANES) {
        let d = s.read(&dy[v..v + S::LANES]);
        for n in 0..N {
            acc[n] = s.fma(d, s.read(&columns[n][v..v + S::LANES]), acc[n]);
        }
    }
    let mut sums = [0.0; N];
    for n in 0..N {
        sums[n] = s.sum(acc[n]);
    }
    sums
}
