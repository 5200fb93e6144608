//! Resize by interpolation and the gradient of every Resize: one axis after another, each row of a result a weighted
//! sum of rows of its operand.

use wattle_graph::ops::{Resampled, Resize, ResizeGradient};
use wattle_graph::{DType, Tensor, Tensors};
use wattle_kernels::Cpu;

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Elements of one task: rows shorter than this are taken together.
const PIECE: usize = 4096;

/// One axis: rows of `inner` elements, `from` of them before and one for each of `rows` after, over and over.
struct Axis {
    from: usize,
    inner: usize,
    /// For each row of the result, the rows it is made of and their weights.
    rows: Vec<Vec<(usize, f32)>>,
    /// Elements of the result.
    len: usize,
}

struct Resample {
    axes: Vec<Axis>,
    name: &'static str,
}

pub(super) fn resize(site: &Site<'_>, op: &Resize) -> Option<Bound> {
    let x = site.input(0).extents.clone();
    let axes = op.resampled(&x, Tensors::new(&constants(site)?)).ok()??;
    bound(site, axes, &x, "resize-f32")
}

pub(super) fn resize_gradient(site: &Site<'_>, op: &ResizeGradient) -> Option<Bound> {
    let forward = op.forward.resampled(&op.input_shape, Tensors::new(&constants(site)?)).ok()??;
    let transposed = forward.into_iter().rev().map(|axis| axis.transposed()).collect();
    let dy = site.input(0).extents.clone();
    bound(site, transposed, &dy, "resize_gradient-f32")
}

/// The operands after the first, which must be known; the first is stood in for.
fn constants<'a>(site: &'a Site<'_>) -> Option<Vec<Option<&'a Tensor>>> {
    let others = site.inputs.iter().skip(1).map(|o| match o {
        None => Some(None),
        Some(operand) => operand.constant.map(Some),
    });
    std::iter::once(Some(None)).chain(others).collect()
}

fn bound(site: &Site<'_>, axes: Vec<Resampled>, x: &[usize], name: &'static str) -> Option<Bound> {
    let floats = site.input(0).dtype == DType::F32 && site.outputs[0].1 == DType::F32;
    if !floats || axes.is_empty() || x.contains(&0) {
        return None;
    }
    // Channels last makes rows of the spatial axes long.
    let layout = if x.len() == 4 { Layout::ChannelsLast } else { Layout::RowMajor };
    let (mut extents, mut passes) = (layout.physical(x), vec![]);
    for axis in axes {
        let at = layout.position(axis.axis, x.len());
        extents[at] = axis.taps.len();
        let single = |taps: Vec<(usize, f64)>| taps.into_iter().map(|(row, w)| (row, w as f32)).collect();
        passes.push(Axis {
            from: axis.from,
            inner: extents[at + 1..].iter().product(),
            rows: axis.taps.into_iter().map(single).collect(),
            len: extents.iter().product(),
        });
    }
    let between = passes.iter().rev().skip(1).map(|pass| pass.len).sum();
    let bound = Bound::uniform(site, layout, Resample { axes: passes, name }).scratch(between);
    Some((1..site.inputs.len()).fold(bound, Bound::takes))
}

impl Axis {
    fn run(&self, cpu: &Cpu, x: &[f32], y: &mut [f32]) {
        let together = (PIECE / self.inner).max(1);
        cpu.threads.for_each_piece(y, together * self.inner, |piece, rows| {
            for (index, to) in rows.chunks_exact_mut(self.inner).enumerate() {
                let row = piece * together + index;
                let (outer, at) = (row / self.rows.len(), row % self.rows.len());
                to.fill(0.0);
                for &(from, weight) in &self.rows[at] {
                    let from = &x[(outer * self.from + from) * self.inner..][..self.inner];
                    to.iter_mut().zip(from).for_each(|(y, x)| *y += weight * x);
                }
            }
        });
    }
}

impl Kernel for Resample {
    fn name(&self) -> String {
        self.name.into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (mut x, y) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        let Some((last, before)) = self.axes.split_last() else { return Ok(()) };
        let mut rest: &mut [f32] = if before.is_empty() { &mut [] } else { io.scratch()? };
        for axis in before {
            let (to, after) = std::mem::take(&mut rest).split_at_mut(axis.len);
            axis.run(io.cpu, x, to);
            (x, rest) = (to, after);
        }
        last.run(io.cpu, x, y);
        Ok(())
    }
}
