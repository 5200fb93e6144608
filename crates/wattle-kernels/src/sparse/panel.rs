//! Panels: a strip of activations as the inner loops read it, `[column][strip]`, and results on their way back.

use crate::simd::{Kernel, Simd};

/// Activations side by side in a panel: what 4 registers of 16 lanes hold.
pub const STRIP: usize = 64;
/// The widest vector, for square blocks on the stack.
const WIDEST: usize = 16;

/// Where the activations of one strip are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// `x[position * step + column]`.
    Rows { x: &'a [f32], step: usize },
    /// `x[column * step + position]`.
    Columns { x: &'a [f32], step: usize },
    /// `x[starts[column] + position]`.
    Table { x: &'a [f32], starts: &'a [u32] },
}

/// Copies `width` activations of each listed column; lanes beyond them, up to `stride`, become zero.
pub(super) struct Pack<'a> {
    pub source: Source<'a>,
    pub columns: &'a [u32],
    pub first: usize,
    pub width: usize,
    pub stride: usize,
    pub out: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pack { source, columns, first, width, stride, out } = self;
        let out = &mut out[..columns.len() * stride];
        match source {
            Source::Columns { x, step } => {
                for (&c, out) in columns.iter().zip(out.chunks_exact_mut(stride)) {
                    copy_row(s, &x[c as usize * step + first..][..width], out);
                }
            }
            Source::Table { x, starts } => {
                for (&c, out) in columns.iter().zip(out.chunks_exact_mut(stride)) {
                    copy_row(s, &x[starts[c as usize] as usize + first..][..width], out);
                }
            }
            Source::Rows { x, step } => transpose_rows(s, x, step, columns, first, width, stride, out),
        }
    }
}

/// Copies a row and fills it up with zeros to whole vectors.
#[inline(always)]
fn copy_row<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let whole = from.len() / S::LANES * S::LANES;
    assert!(from.len() <= to.len());
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: both have `whole` elements.
        unsafe { s.store(to.as_mut_ptr().add(at), s.load(from.as_ptr().add(at))) };
    }
    for at in (whole..to.len()).step_by(S::LANES) {
        let x = s.read(&from[at.min(from.len())..]);
        s.write(&mut to[at..], x);
    }
}

/// Square blocks of neighbouring columns; where only some of a block's columns are listed, it is turned aside first.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transpose_rows<S: Simd>(
    s: S,
    x: &[f32],
    step: usize,
    columns: &[u32],
    first: usize,
    width: usize,
    stride: usize,
    out: &mut [f32],
) {
    let lanes = S::LANES;
    let (mut from, mut to) = ([0.0f32; WIDEST * WIDEST], [0.0f32; WIDEST * WIDEST]);
    let mut j = 0;
    while j < columns.len() {
        let start = columns[j] as usize;
        let end = start + lanes;
        let count = columns[j..].iter().take(lanes).take_while(|&&c| (c as usize) < end).count();
        // A whole block of the panel is written directly.
        let dense = count == lanes;
        for n in (0..stride).step_by(lanes) {
            let positions = width.saturating_sub(n).min(lanes);
            let base = (first + n) * step + start;
            let whole = positions == lanes && base + (lanes - 1) * step + lanes <= x.len();
            // SAFETY: a whole block lies in x as just checked; otherwise the block on the stack is read. The panel has
            // `stride` elements, a multiple of the lanes, for each of `columns`, so that j + LANES of them are there
            // when the block is dense.
            unsafe {
                let (source, source_step) = if whole {
                    (x.as_ptr().add(base), step)
                } else {
                    from.fill(0.0);
                    for p in 0..positions {
                        let row = &x[base + p * step..];
                        let len = row.len().min(lanes);
                        from[p * lanes..][..len].copy_from_slice(&row[..len]);
                    }
                    (from.as_ptr(), lanes)
                };
                if dense {
                    debug_assert!((j + lanes - 1) * stride + n + lanes <= out.len());
                    s.transpose(source, source_step, out.as_mut_ptr().add(j * stride + n), stride);
                } else {
                    s.transpose(source, source_step, to.as_mut_ptr(), lanes);
                    for (i, &c) in columns[j..j + count].iter().enumerate() {
                        let row = &to[(c as usize - start) * lanes..][..lanes];
                        out[(j + i) * stride + n..][..lanes].copy_from_slice(row);
                    }
                }
            }
        }
        j += count;
    }
}

/// Moves results `[row][stride]` of a strip to `y[position * step + row]`; where there is a residual, adds it and clamps.
pub(super) struct Unpack<'a> {
    pub panel: &'a [f32],
    pub stride: usize,
    pub rows: usize,
    pub width: usize,
    pub residual: Option<&'a [f32]>,
    pub clamp: (f32, f32),
    pub y: *mut f32,
    pub step: usize,
}

impl Unpack<'_> {
    /// # Safety
    /// y must be writable at `position * step + row` for `width` positions and `rows` rows; a residual must be as long
    /// as that reaches.
    pub(super) unsafe fn run(self, isa: crate::Isa) {
        isa.run(self);
    }
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = S::LANES;
        let (low, high) = (s.splat(self.clamp.0), s.splat(self.clamp.1));
        let (mut from, mut block) = ([0.0f32; WIDEST * WIDEST], [0.0f32; WIDEST * WIDEST]);
        for p in (0..self.width).step_by(lanes) {
            let positions = lanes.min(self.width - p);
            for row in (0..self.rows).step_by(lanes) {
                let rows = lanes.min(self.rows - row);
                let base = row * self.stride + p;
                let whole = rows == lanes && base + (lanes - 1) * self.stride + lanes <= self.panel.len();
                // SAFETY: blocks are read in place only where the panel has all of them. Results are written where the
                // caller promised.
                unsafe {
                    let (source, source_step) = if whole {
                        (self.panel.as_ptr().add(base), self.stride)
                    } else {
                        for r in 0..rows {
                            from[r * lanes..][..positions]
                                .copy_from_slice(&self.panel[base + r * self.stride..][..positions]);
                        }
                        (from.as_ptr(), lanes)
                    };
                    if self.residual.is_none() && rows == lanes && positions == lanes {
                        s.transpose(source, source_step, self.y.add(p * self.step + row), self.step);
                        continue;
                    }
                    s.transpose(source, source_step, block.as_mut_ptr(), lanes);
                    for i in 0..positions {
                        let at = (p + i) * self.step + row;
                        let mut x = s.load(block.as_ptr().add(i * lanes));
                        if let Some(residual) = self.residual {
                            x = s.add(x, s.read(&residual[at..at + rows]));
                            x = s.min(high, s.max(low, x));
                        }
                        if rows == lanes {
                            s.store(self.y.add(at), x);
                        } else {
                            s.store_partial(self.y.add(at), rows, x);
                        }
                    }
                }
            }
        }
    }
}
