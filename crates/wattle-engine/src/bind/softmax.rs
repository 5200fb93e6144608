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
    op: ops::SoftmaxCrossEntropy,
    /// Whether the classes have weights of their own.
    weighted: bool,
}

impl CrossEntropy {
    /// The kernel and the layout of its logits, if it has one for this node; the weights are operand `weights`.
    fn of(site: &Site<'_>, op: &ops::SoftmaxCrossEntropy, weights: usize) -> Option<(CrossEntropy, Layout)> {
        let logits = site.input(0);
        let layout = layout_with_last(op.axis, logits.extents.len())?;
        let classes = *layout.physical(&logits.extents).last()?;
        let weighted = site.optional(weights).is_some();
        let fits = logits.dtype == DType::F32 && site.input(1).dtype == DType::I64 && classes > 0;
        fits.then(|| (CrossEntropy { classes, op: op.clone(), weighted }, layout))
    }

    /// The labels of one batch, each checked against the classes.
    fn labels<'a>(&self, io: &Io<'a>) -> Result<&'a [i64], EngineError> {
        let labels = io.input::<i64>(1)?;
        let outside =
            |l: i64| Some(l) != self.op.ignored && usize::try_from(l).map_or(true, |l| l >= self.classes);
        match labels.iter().enumerate().find(|&(_, &l)| outside(l)) {
            None => Ok(labels),
            Some((position, label)) => Err(EngineError::Node {
                node: String::new(),
                op: String::new(),
                reason: format!(
                    "position {position} has the label {label}; there are {} classes, counted from 0",
                    self.classes
                ),
            }),
        }
    }

    /// What the positions that count weigh together.
    fn total(&self, labels: &[i64], weights: Option<&[f32]>) -> f64 {
        let counted = labels.iter().filter(|&&l| Some(l) != self.op.ignored);
        match weights {
            Some(weights) => counted.map(|&l| f64::from(weights[l as usize])).sum(),
            None => counted.count() as f64,
        }
    }
}

/// `x / total`, or 0 where nothing was counted.
fn shared(x: f64, total: f64) -> f64 {
    if total == 0.0 { 0.0 } else { x / total }
}

pub(super) fn cross_entropy(site: &Site<'_>, op: &ops::SoftmaxCrossEntropy) -> Option<Bound> {
    let (kernel, layout) = CrossEntropy::of(site, op, 2)?;
    let mut bound = Bound::uniform(site, layout, kernel);
    bound.input_layouts[1..].fill(Layout::RowMajor);
    Some(bound)
}

impl Kernel for CrossEntropy {
    fn name(&self) -> String {
        "cross_entropy-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let labels = self.labels(io)?;
        let weights = if self.weighted { Some(io.input::<f32>(2)?) } else { None };
        let log_probabilities = io.output::<f32>(1)?;
        softmax::softmax(io.cpu, self.classes, true, io.input(0)?, log_probabilities);
        let smoothing = f64::from(self.op.label_smoothing);
        let spread = smoothing / self.classes as f64;
        let mut loss = 0.0f64;
        for (row, &label) in log_probabilities.chunks_exact(self.classes).zip(labels) {
            if Some(label) == self.op.ignored {
                continue;
            }
            let label = label as usize;
            let weight = weights.map_or(1.0, |w| f64::from(w[label]));
            loss -= (1.0 - smoothing) * weight * f64::from(row[label]);
            if spread > 0.0 {
                let of = |c: usize| weights.map_or(1.0, |w| f64::from(w[c]));
                loss -= spread * row.iter().enumerate().map(|(c, &l)| of(c) * f64::from(l)).sum::<f64>();
            }
        }
        io.output::<f32>(0)?[0] = shared(loss, self.total(labels, weights)) as f32;
        Ok(())
    }
}

/// x, or 0 where it is so small that the gradients made from it would be subnormal: arithmetic on those is some hundred
/// times slower, and a network that has learnt its samples makes whole layers of them.
fn settled(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { x }
}

struct CrossEntropyGradient(CrossEntropy);

pub(super) fn cross_entropy_gradient(
    site: &Site<'_>,
    op: &ops::SoftmaxCrossEntropyGradient,
) -> Option<Bound> {
    let (kernel, layout) = CrossEntropy::of(site, &op.forward, 3)?;
    let mut bound = Bound::uniform(site, layout, CrossEntropyGradient(kernel));
    bound.input_layouts[1..].fill(Layout::RowMajor);
    Some(bound)
}

impl Kernel for CrossEntropyGradient {
    fn name(&self) -> String {
        "cross_entropy_gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let Self(forward) = self;
        let labels = forward.labels(io)?;
        let weights = if forward.weighted { Some(io.input::<f32>(3)?) } else { None };
        let (log_probabilities, dx) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        let scale = shared(f64::from(io.input::<f32>(2)?[0]), forward.total(labels, weights)) as f32;
        let smoothing = forward.op.label_smoothing;
        let spread = smoothing / forward.classes as f32;
        wattle_kernels::elementwise::unary(
            io.cpu,
            wattle_kernels::elementwise::Unary::Exp,
            log_probabilities,
            dx,
        );
        for (row, &label) in dx.chunks_exact_mut(forward.classes).zip(labels) {
            if Some(label) == forward.op.ignored {
                row.fill(0.0);
                continue;
            }
            let label = label as usize;
            match weights {
                None => {
                    row[label] -= 1.0 - smoothing;
                    row.iter_mut().for_each(|p| *p = settled((*p - spread) * scale));
                }
                Some(weights) => {
                    let hit = (1.0 - smoothing) * weights[label];
                    let targets = hit + spread * weights.iter().sum::<f32>();
                    for (c, p) in row.iter_mut().enumerate() {
                        let target = spread * weights[c] + if c == label { hit } else { 0.0 };
                        *p = settled((*p * targets - target) * scale);
                    }
                }
            }
        }
        Ok(())
    }
}
