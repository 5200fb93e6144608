//! Sparse weights times dense activations.

use super::micro::{self, Ahead, Columns, TileRun};
use super::panel::{Pack, STRIP, Source, Unpack};
use super::weights::SparseWeights;
use crate::gemm::Epilogue;
use crate::threads::Shared;
use crate::{Activation, Cpu};
use std::ops::Range;

/// How activations and results lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// `[positions, features]`: a sample or pixel after the other (NHWC). Strips are transposed on the way.
    Rows,
    /// `[images, features, positions]`: a feature after the other (NCHW).
    Columns,
}

/// The shape of a product: `y = activation(W x + bias + residual)` for each position of each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Images; 1 for a plain matrix.
    pub images: usize,
    /// Positions (samples, pixels) of an image.
    pub positions: usize,
    /// The arrangement of x.
    pub x: Activations,
    /// The arrangement of y.
    pub y: Activations,
}

/// Parts of the rows that each strip is shared out by: several only where there are fewer strips than threads. Each then
/// packs panels of its own, since one that several read would travel between their cores.
fn parts_of(cpu: &Cpu, weights: &SparseWeights, strips: usize) -> usize {
    if strips >= cpu.threads.count() { 1 } else { weights.parts }
}

/// Scratch elements that [`product`] needs.
pub fn product_scratch_len(cpu: &Cpu, weights: &SparseWeights) -> usize {
    cpu.threads.count() * (weights.block + weights.padded_rows()) * STRIP + LINE
}

/// Elements of a cache line. A load that crosses two lines costs two, so panels start on one.
pub(super) const LINE: usize = 16;

pub(super) fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
    &mut scratch[skip..]
}

/// `y = activation(W x + bias + residual)`; the bias has a value for each row of W, a residual the shape and
/// arrangement of y. `scratch` has at least [`product_scratch_len`] elements.
///
/// # Panics
/// If lengths contradict the shape, or the epilogue accumulates.
pub fn product(
    cpu: &Cpu,
    weights: &SparseWeights,
    shape: &Product,
    x: &[f32],
    e: Epilogue,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let Product { images, positions, .. } = *shape;
    assert_eq!(x.len(), images * weights.columns * positions, "activations of {shape:?}");
    assert_eq!(y.len(), images * weights.rows * positions, "results of {shape:?}");
    let x_image = weights.columns * positions;
    let job = Job {
        weights,
        images,
        positions,
        source: &|image| match shape.x {
            Activations::Rows => Source::Rows { x: &x[image * x_image..][..x_image], step: weights.columns },
            Activations::Columns => Source::Columns { x: &x[image * x_image..][..x_image], step: positions },
        },
        sink: match shape.y {
            Activations::Rows => Sink::Rows,
            Activations::Columns => Sink::Columns,
        },
        grid: Grid { width: positions.max(1), used: positions.max(1) },
        epilogue: e,
    };
    job.run(cpu, y, scratch);
}

/// Where results go: an image after the other, in each of them `[position][row]` or `[row][position]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    Rows,
    Columns,
}

/// Positions are computed in lines of `width`, of which the first `used` are results.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub width: usize,
    pub used: usize,
}

impl Grid {
    /// Results among the first `positions`.
    fn results(&self, positions: usize) -> usize {
        positions / self.width * self.used + (positions % self.width).min(self.used)
    }

    /// Runs of results among `positions`: the first position of each, and the results before it.
    fn runs(self, positions: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let mut at = positions.start;
        std::iter::from_fn(move || {
            while at < positions.end {
                let (line, column) = (at / self.width, at % self.width);
                if column >= self.used {
                    at = (line + 1) * self.width;
                    continue;
                }
                let end = positions.end.min(line * self.width + self.used);
                let run = (at..end, line * self.used + column);
                at = end;
                return Some(run);
            }
            None
        })
    }
}

/// A product with its operands located.
pub(super) struct Job<'a> {
    pub weights: &'a SparseWeights,
    pub images: usize,
    pub positions: usize,
    pub source: &'a (dyn Fn(usize) -> Source<'a> + Sync),
    pub sink: Sink,
    pub grid: Grid,
    pub epilogue: Epilogue<'a>,
}

/// One strip of one image.
#[derive(Clone, Copy)]
struct Strip {
    image: usize,
    first: usize,
    width: usize,
    /// Elements between rows of its panels: whole vectors.
    stride: usize,
}

impl Job<'_> {
    pub(super) fn run(&self, cpu: &Cpu, y: &mut [f32], scratch: &mut [f32]) {
        let weights = self.weights;
        let e = &self.epilogue;
        assert!(
            !e.accumulate,
            "a sparse product does not accumulate; pass what is to be added as the residual"
        );
        assert!(e.bias.is_none_or(|b| b.len() == weights.rows), "one bias for each of {} rows", weights.rows);
        assert!(e.residual.is_none_or(|r| r.len() == y.len()), "a residual has the shape of the result");
        let strips = self.images * self.strips(cpu);
        assert!(scratch.len() >= product_scratch_len(cpu, weights), "scratch of a sparse product");
        assert_eq!(y.len(), self.images * self.grid.results(self.positions) * weights.rows, "results");
        if y.is_empty() {
            return;
        }
        let scratch = aligned(scratch);
        let (y, results) = (Shared::new(y), weights.padded_rows() * STRIP);
        let (panel, scratch) = (weights.block * STRIP, Shared::new(scratch));
        let parts = parts_of(cpu, weights, strips);
        let per_task = weights.parts / parts;
        cpu.threads.for_each_slot(strips * parts, |slot, task| {
            // SAFETY: a slot's scratch belongs to the thread that runs it.
            let scratch = unsafe { scratch.slice(slot * (panel + results), panel + results) };
            let (panel, results) = scratch.split_at_mut(panel);
            let (strip, first) = (self.strip(cpu, task / parts), task % parts * per_task);
            let parts = first..first + per_task;
            for block in 0..weights.blocks() {
                let direct = self.pack(cpu, &strip, block, panel);
                for part in parts.clone() {
                    let panel = direct.unwrap_or(panel.as_ptr());
                    // SAFETY: this task alone writes these rows of the strip's results.
                    unsafe { self.tile(cpu, &strip, block, part, panel, results.as_mut_ptr(), &y) };
                }
            }
            let rows = weights.part_rows(parts.start).start..weights.part_rows(parts.end - 1).end;
            let own = &results[rows.start * strip.stride..];
            // SAFETY: as above.
            unsafe { self.finish(cpu, &strip, rows, own, &y) };
        });
    }

    /// Strips of an image: as few as possible, and as many for each thread where rows are gathered in any case.
    fn strips(&self, cpu: &Cpu) -> usize {
        let (strips, threads) = (self.positions.div_ceil(STRIP), cpu.threads.count());
        let even = strips.next_multiple_of(threads);
        let shared = self.images == 1 && self.sink == Sink::Rows && strips >= threads;
        if shared && even * cpu.isa.lanes() <= self.positions { even } else { strips }
    }

    /// Strip `index`, with whole vectors shared out evenly.
    fn strip(&self, cpu: &Cpu, index: usize) -> Strip {
        let (strips, lanes) = (self.strips(cpu), cpu.isa.lanes());
        let (image, index) = (index / strips, index % strips);
        let bound =
            |index: usize| (self.positions.div_ceil(lanes) * index / strips * lanes).min(self.positions);
        let (first, width) = (bound(index), bound(index + 1) - bound(index));
        Strip { image, first, width, stride: width.next_multiple_of(lanes) }
    }

    /// The panel itself, where activations already lie as one.
    fn direct(&self, strip: &Strip, block: usize) -> Option<*const f32> {
        match (self.source)(strip.image) {
            Source::Columns { x, step }
                if x.as_ptr().align_offset(4 * LINE) == 0
                    && self.weights.uses_all_columns()
                    && step == strip.stride
                    && strip.width == step =>
            {
                Some(x[block * self.weights.block * step..].as_ptr())
            }
            _ => None,
        }
    }

    fn pack(&self, cpu: &Cpu, strip: &Strip, block: usize, out: &mut [f32]) -> Option<*const f32> {
        let direct = self.direct(strip, block);
        if direct.is_none() {
            cpu.isa.run(Pack {
                source: (self.source)(strip.image),
                columns: self.weights.block_columns(block),
                first: strip.first,
                width: strip.width,
                stride: strip.stride,
                out,
            });
        }
        direct
    }

    /// Whether tiles write to y itself. Not where several threads would keep partial sums in it side by side: what one
    /// core's prefetcher guesses ahead is then what another core is writing.
    fn in_place(&self, cpu: &Cpu, strip: &Strip) -> bool {
        let threads = cpu.threads.count();
        let apart = self.positions.div_ceil(STRIP) >= 4 * threads;
        self.sink == Sink::Columns
            && (threads == 1 || apart || self.weights.blocks() == 1)
            && self.grid.width == self.grid.used
            && strip.width == strip.stride
            && self.weights.rows == self.weights.padded_rows()
    }

    /// What the next strip of the image will read, asked for in the first block, and write, asked for in the last: where
    /// activations lie feature-first and exceed the second-level cache, each row of a strip is elsewhere in memory, which
    /// no prefetcher guesses.
    fn ahead(&self, strip: &Strip, block: usize, in_place: bool, out: *const f32) -> [Ahead; 2] {
        let w = self.weights;
        let read = match block {
            0 => Ahead::of((self.source)(strip.image), strip.first, self.positions, w.columns),
            _ => Ahead::NOTHING,
        };
        let more =
            strip.first + strip.width + STRIP <= self.positions && 4 * w.rows * self.positions > 1 << 19;
        if !in_place || block + 1 < w.blocks() || !more {
            return [read, Ahead::NOTHING];
        }
        [read, Ahead { start: out.wrapping_add(strip.width), step: self.positions, rows: w.rows }]
    }

    /// # Safety
    /// The tile's rows of the strip's results, in y or in `results`, must be this call's alone.
    #[allow(clippy::too_many_arguments)]
    unsafe fn tile(
        &self,
        cpu: &Cpu,
        strip: &Strip,
        block: usize,
        part: usize,
        panel: *const f32,
        results: *mut f32,
        y: &Shared<f32>,
    ) {
        let w = self.weights;
        let tile = &w.tiles[block * w.parts + part];
        let at = strip.image * self.positions * w.rows + strip.first;
        let in_place = self.in_place(cpu, strip);
        let (out, y_stride) = if in_place {
            let len = w.rows.saturating_sub(1) * self.positions + strip.width;
            (y.pointer(at, len), self.positions)
        } else {
            (results, strip.stride)
        };
        let residual = match self.epilogue.residual {
            Some(residual) if in_place => residual[at..].as_ptr(),
            _ => std::ptr::null(),
        };
        let done = in_place || self.epilogue.residual.is_none();
        let clamp = if done { self.epilogue.activation.clamp() } else { Activation::None.clamp() };
        let run = TileRun {
            height: w.height,
            groups: &w.groups[tile.groups.clone()],
            rows: &w.row_list[tile.row..],
            columns: match w.pattern {
                None => Columns::Listed(&w.indices[tile.element..]),
                Some(pattern) => Columns::Grouped(&w.offsets[tile.element..], pattern.shifts()),
            },
            values: &w.values[tile.element * w.height..],
            panel,
            panel_stride: strip.stride,
            y: out,
            y_stride,
            bias: self.epilogue.bias.unwrap_or(&[]),
            residual,
            residual_stride: self.positions,
            clamp,
            vectors: strip.stride / cpu.isa.lanes(),
            narrow: self.positions <= cpu.isa.lanes(),
            ahead: self.ahead(strip, block, in_place, out),
        };
        // SAFETY: a panel has `stride` elements, whole vectors, for each column of the block, and so have the results
        // for each row; y has them where tiles write in place, since the strip then has whole vectors.
        unsafe { micro::run(cpu.isa, run) };
    }

    /// Brings finished rows of a strip to y; `results` starts at the first of them.
    ///
    /// # Safety
    /// These rows of the strip's part of y must be this call's alone.
    unsafe fn finish(&self, cpu: &Cpu, strip: &Strip, rows: Range<usize>, results: &[f32], y: &Shared<f32>) {
        let e = &self.epilogue;
        let in_place = self.in_place(cpu, strip);
        if in_place && e.activation.is_clamp() {
            return;
        }
        let image = self.grid.results(self.positions);
        let base = strip.image * image * self.weights.rows;
        for (run, before) in self.grid.runs(strip.first..strip.first + strip.width) {
            let offset = run.start - strip.first;
            match self.sink {
                Sink::Rows => {
                    let at = base + before * self.weights.rows + rows.start;
                    let len = (run.len() - 1) * self.weights.rows + rows.len();
                    let unpack = Unpack {
                        panel: &results[offset..],
                        stride: strip.stride,
                        rows: rows.len(),
                        width: run.len(),
                        residual: e.residual.map(|r| &r[at..at + len]),
                        clamp: e.activation.clamp(),
                        y: y.pointer(at, len),
                        step: self.weights.rows,
                    };
                    // SAFETY: the run's positions and these rows of y are the caller's promise.
                    unsafe { unpack.run(cpu.isa) };
                    if !e.activation.is_clamp() {
                        for i in 0..run.len() {
                            // SAFETY: as above.
                            let part = unsafe { y.slice(at + i * self.weights.rows, rows.len()) };
                            e.activation.apply(cpu.isa, part);
                        }
                    }
                }
                Sink::Columns => {
                    let (low, high) = e.activation.clamp();
                    for (i, row) in rows.clone().enumerate() {
                        let at = base + row * image + before;
                        // SAFETY: this row's run of y is the caller's promise.
                        let to = unsafe { y.slice(at, run.len()) };
                        if !in_place {
                            let from = &results[i * strip.stride + offset..][..run.len()];
                            for (j, (to, &x)) in to.iter_mut().zip(from).enumerate() {
                                let x = x + e.residual.map_or(0.0, |r| r[at + j]);
                                let x = if x < low { low } else { x };
                                *to = if x > high { high } else { x };
                            }
                        }
                        e.activation.apply(cpu.isa, to);
                    }
                }
            }
        }
    }
}
