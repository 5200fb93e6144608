//! Softmax along the last axis in memory, and the cross entropy of classes.

use wattle_graph::{DType, ops};
use wattle_kernels::softmax;

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// A layout in which `axis` is last, if one of the two is.
fn layout_with_last(axis: i64, rank: usize) -> Option<Layout> {
    let axis = wattle_graph::normalize_axis(axis, rank)?;
    [Layout::RowMajor, Layout::ChannelsLast].into_iter().find(|l| l.position(axis, rank) + 1 == rank)
}

struct Softmax {
    width: usize,
    log: bool,
}

pub(super) fn softmax(site: &Site<'_>, op: &ops::Softmax) -> Option<Bound> {
    let extents = &site.input(0).extents;
    let layout = layout_with_last(op.axis, extents.len())?;
    let width = *layout.physical(extents).last()?;
    let fits = site.all(DType::F32) && width > 0;
    fits.then(|| Bound::uniform(site, layout, Softmax { width, log: op.log }).in_place(0, 0))
}

impl Kernel for Softmax {
    fn name(&self) -> String {
        if self.log { "log_softmax-f32".into() } else { "softmax-f32".into() }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let y = io.output(0)?;
        if io.shares(0, 0) {
            softmax::softmax_in_place(io.cpu, self.width, self.log, y);
        } else {
            softmax::softmax(io.cpu, self.width, self.log, io.input(0)?, y);
        }
        Ok(())
    }
}

struct SoftmaxGradient {
    width: usize,
    log: bool,
}

pub(super) fn softmax_gradient(site: &Site<'_>, op: &ops::SoftmaxGradient) -> Option<Bound> {
    let extents = &site.input(0).extents;
    let layout = layout_with_last(op.axis, extents.len())?;
    let width = *layout.physical(extents).last()?;
    let fits = site.all(DType::F32) && width > 0;
    fits.then(|| Bound::uniform(site, layout, SoftmaxGradient { width, log: op.log }))
}

impl Kernel for SoftmaxGradient {
    fn name(&self) -> String {
        "softmax_gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (y, dy, dx) = (io.input(0)?, io.input(1)?, io.output(0)?);
        softmax::softmax_gradient(io.cpu, self.width, self.log, y, dy, dx);
        Ok(())
    }
}

/// Cross entropy of logits `[positions.., classes]` in memory order.
struct CrossEntropy {
    classes: usize,
    smoothing: f32,
}

pub(super) fn cross_entropy(site: &Site<'_>, op: &ops::SoftmaxCrossEntropy) -> Option<Bound> {
    let logits = site.input(0);
    let fits = logits.dtype == DType::F32 && site.input(1).dtype == DType::I64;
    let classes = *logits.extents.get(1).filter(|&&c| c > 0 && fits)?;
    let mut bound =
        Bound::uniform(site, Layout::ChannelsLast, CrossEntropy { classes, smoothing: op.label_smoothing });
    bound.input_layouts[1] = Layout::RowMajor;
    Some(bound)
}

/// The labels of one batch, each checked against the classes.
fn labels<'a>(io: &Io<'a>, classes: usize) -> Result<&'a [i64], EngineError> {
    let labels = io.input::<i64>(1)?;
    match labels.iter().enumerate().find(|&(_, &l)| usize::try_from(l).map_or(true, |l| l >= classes)) {
        None => Ok(labels),
        Some((sample, label)) => Err(EngineError::Node {
            node: String::new(),
            op: String::new(),
            reason: format!(
                "sample {sample} has the label {label}; there are {classes} classes, counted from 0"
            ),
        }),
    }
}

impl Kernel for CrossEntropy {
    fn name(&self) -> String {
        "cross_entropy-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let labels = labels(io, self.classes)?;
        let log_probabilities = io.output::<f32>(1)?;
        softmax::softmax(io.cpu, self.classes, true, io.input(0)?, log_probabilities);
        let spread = f64::from(self.smoothing) / self.classes as f64;
        let mut loss = 0.0f64;
        for (row, &label) in log_probabilities.chunks_exact(self.classes).zip(labels) {
            loss -= (1.0 - f64::from(self.smoothing)) * f64::from(row[label as usize]);
            if spread > 0.0 {
                loss -= spread * row.iter().map(|&l| f64::from(l)).sum::<f64>();
            }
        }
        io.output::<f32>(0)?[0] = (loss / labels.len().max(1) as f64) as f32;
        Ok(())
    }
}

/// x, or 0 where it is so small that the gradients made from it would be subnormal: arithmetic on those is some hundred
/// times slower, and a network that has learnt its samples makes whole layers of them.
fn settled(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { x }
}

struct CrossEntropyGradient {
    classes: usize,
    smoothing: f32,
}

pub(super) fn cross_entropy_gradient(
    site: &Site<'_>,
    op: &ops::SoftmaxCrossEntropyGradient,
) -> Option<Bound> {
    let logits = site.input(0);
    let fits = logits.dtype == DType::F32 && site.input(1).dtype == DType::I64;
    let classes = *logits.extents.get(1).filter(|&&c| c > 0 && fits)?;
    let kernel = CrossEntropyGradient { classes, smoothing: op.label_smoothing };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel);
    bound.input_layouts[1..].fill(Layout::RowMajor);
    Some(bound)
}

impl Kernel for CrossEntropyGradient {
    fn name(&self) -> String {
        "cross_entropy_gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let labels = labels(io, self.classes)?;
        let (log_probabilities, dx) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        let scale = io.input::<f32>(2)?[0] / labels.len().max(1) as f32;
        let spread = self.smoothing / self.classes as f32;
        wattle_kernels::elementwise::unary(
            io.cpu,
            wattle_kernels::elementwise::Unary::Exp,
            log_probabilities,
            dx,
        );
        for (row, &label) in dx.chunks_exact_mut(self.classes).zip(labels) {
            row[label as usize] -= 1.0 - self.smoothing;
            row.iter_mut().for_each(|p| *p = settled((*p - spread) * scale));
        }
        Ok(())
    }
}
