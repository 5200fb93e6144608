//! Normalisation: over the batch (channels last) and over rows.

use wattle_graph::{DType, ops};
use wattle_kernels::Activation;
use wattle_kernels::norm::{self, BatchNorm, BatchNormSaved, RowNorm, Statistics};

use crate::error::EngineError;
use crate::kernel::{Bound, Io, Kernel, Site};
use crate::layout::Layout;

/// Training form: batch statistics, next running statistics, and what the gradient needs.
struct Training {
    norm: BatchNorm,
    /// Weight of the old running statistics.
    momentum: f32,
    /// Whether operand 5 is added before the ReLU.
    residual: bool,
}

/// Inference form: a scale and a shift per channel.
struct Inference {
    channels: usize,
    epsilon: f32,
}

pub(super) fn batch_norm(site: &Site<'_>, op: &ops::BatchNormalization) -> Option<Bound> {
    if !site.all(DType::F32) || site.input(0).extents.len() < 2 {
        return None;
    }
    let channels = site.input(0).extents[1];
    if op.training {
        return Some(training(site, op, false, false));
    }
    let scratch = norm::batch_norm_scratch_len(channels) + 2 * channels;
    let kernel = Inference { channels, epsilon: op.epsilon };
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch);
    bound.input_layouts[1..].fill(Layout::RowMajor);
    Some(bound)
}

pub(super) fn fused_batch_norm(site: &Site<'_>, op: &ops::FusedBatchNorm) -> Option<Bound> {
    let fits = site.all(DType::F32) && site.input(0).extents.len() >= 2;
    fits.then(|| training(site, &op.norm, op.residual, true))
}

fn training(site: &Site<'_>, op: &ops::BatchNormalization, residual: bool, relu: bool) -> Bound {
    let channels = site.input(0).extents[1];
    let norm = BatchNorm { channels, epsilon: op.epsilon, relu };
    let kernel = Training { norm, momentum: op.momentum, residual };
    let scratch = norm::batch_norm_scratch_len(channels) + channels;
    let mut bound = Bound::uniform(site, Layout::ChannelsLast, kernel).scratch(scratch);
    bound.input_layouts[1..5].fill(Layout::RowMajor);
    bound.output_layouts[1..].fill(Layout::RowMajor);
    bound
}

impl Kernel for Training {
    fn name(&self) -> String {
        let text = |on: bool, text: &'static str| if on { text } else { "" };
        format!("batch_norm_train{}{}-nhwc-f32", text(self.residual, "_add"), text(self.norm.relu, "_relu"))
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, scale, bias) = (io.input::<f32>(0)?, io.input(1)?, io.input(2)?);
        let (old_mean, old_variance) = (io.input::<f32>(3)?, io.input::<f32>(4)?);
        let y = io.output::<f32>(0)?;
        let (next_mean, next_variance) = (io.output::<f32>(1)?, io.output::<f32>(2)?);
        let (mean, inverse) = (io.output::<f32>(3)?, io.output::<f32>(4)?);
        let (variance, scratch) = io.scratch()?.split_at_mut(self.norm.channels);
        let statistics = Statistics { mean, variance };
        let residual = if self.residual { Some(io.input(5)?) } else { None };
        norm::batch_norm_train(io.cpu, self.norm, x, scale, bias, residual, statistics, y, scratch);
        let keep = self.momentum;
        for c in 0..self.norm.channels {
            next_mean[c] = keep * old_mean[c] + (1.0 - keep) * mean[c];
            next_variance[c] = keep * old_variance[c] + (1.0 - keep) * variance[c];
            inverse[c] = 1.0 / (variance[c] + self.norm.epsilon).sqrt();
        }
        Ok(())
    }
}

impl Kernel for Inference {
    fn name(&self) -> String {
        "batch_norm-nhwc-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let [scale, bias, mean, variance]: [&[f32]; 4] =
            [io.input(1)?, io.input(2)?, io.input(3)?, io.input(4)?];
        let (factor, rest) = io.scratch()?.split_at_mut(self.channels);
        let (shift, scratch) = rest.split_at_mut(self.channels);
        for c in 0..self.channels {
            factor[c] = scale[c] / (variance[c] + self.epsilon).sqrt();
            shift[c] = bias[c] - mean[c] * factor[c];
        }
        norm::scale_shift(
            io.cpu,
            io.input(0)?,
            factor,
            shift,
            None,
            Activation::None,
            io.output(0)?,
            scratch,
        );
        Ok(())
    }
}

struct BatchGradient {
    channels: usize,
    /// Whether the norm ends in a ReLU, whose result is operand 5.
    relu: bool,
}

/// The gradient of the training form, or, with `relu`, of [`ops::FusedBatchNorm`].
pub(super) fn batch_norm_gradient(site: &Site<'_>, relu: bool) -> Option<Bound> {
    if !site.all(DType::F32) {
        return None;
    }
    let channels = site.input(0).extents[1];
    let scratch = norm::batch_norm_scratch_len(channels) + channels;
    let mut bound =
        Bound::uniform(site, Layout::ChannelsLast, BatchGradient { channels, relu }).scratch(scratch);
    bound.input_layouts[1..4].fill(Layout::RowMajor);
    bound.output_layouts[1..3].fill(Layout::RowMajor);
    Some(bound)
}

impl Kernel for BatchGradient {
    fn name(&self) -> String {
        if self.relu {
            "batch_norm_relu_gradient-nhwc-f32".into()
        } else {
            "batch_norm_gradient-nhwc-f32".into()
        }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let inverse = io.input::<f32>(3)?;
        let (variance, scratch) = io.scratch()?.split_at_mut(self.channels);
        // The graph saves 1 / sqrt(variance + epsilon); the kernel asks for the variance, here with epsilon 0.
        for (v, i) in variance.iter_mut().zip(inverse) {
            *v = 1.0 / (i * i);
        }
        let norm = BatchNorm { channels: self.channels, epsilon: 0.0, relu: self.relu };
        let (x, scale, mean) = (io.input(0)?, io.input(1)?, io.input(2)?);
        let y = if self.relu { Some(io.input(5)?) } else { None };
        let saved = BatchNormSaved { x, y, scale, mean, variance };
        let (dx, dscale, dbias) = (io.output(0)?, io.output(1)?, io.output(2)?);
        let dresidual = if io.outputs.len() > 3 { Some(io.output(3)?) } else { None };
        norm::batch_norm_gradient(io.cpu, norm, saved, io.input(4)?, dx, dscale, dbias, dresidual, scratch);
        Ok(())
    }
}

/// Rows of the last axes: mean and inverse deviation of each row are results too.
struct Rows {
    norm: RowNorm,
    rows: usize,
}

/// Width of the rows that start at `axis`.
fn width(extents: &[usize], axis: i64) -> Option<usize> {
    let axis = wattle_graph::normalize_axis(axis, extents.len())?;
    Some(extents[axis..].iter().product())
}

pub(super) fn layer_norm(site: &Site<'_>, op: &ops::LayerNormalization) -> Option<Bound> {
    let x = site.input(0);
    let width = width(&x.extents, op.axis).filter(|&w| w > 0 && site.all(DType::F32))?;
    if site.input(1).len() != width || site.optional(2).is_some_and(|b| b.len() != width) {
        return None;
    }
    let rows = x.len() / width;
    let norm = RowNorm { width, epsilon: op.epsilon, centred: true };
    Some(Bound::row_major(site, Rows { norm, rows }).scratch(2 * rows))
}

impl Kernel for Rows {
    fn name(&self) -> String {
        "layer_norm-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (x, scale, bias) = (io.input(0)?, io.input(1)?, io.optional(2)?);
        let saved = &mut io.scratch()?[..2 * self.rows];
        norm::row_norm(io.cpu, self.norm, x, scale, bias, io.output(0)?, saved);
        let (mean, inverse) = (io.output::<f32>(1)?, io.output::<f32>(2)?);
        for (row, pair) in saved.chunks_exact(2).enumerate() {
            (mean[row], inverse[row]) = (pair[0], pair[1]);
        }
        Ok(())
    }
}

struct RowsGradient {
    norm: RowNorm,
    rows: usize,
}

pub(super) fn layer_norm_gradient(site: &Site<'_>, op: &ops::LayerNormalizationGradient) -> Option<Bound> {
    let x = site.input(0);
    let width = width(&x.extents, op.axis).filter(|&w| w > 0 && site.all(DType::F32))?;
    let rows = x.len() / width;
    let scratch = 2 * rows.next_multiple_of(8) + norm::row_norm_gradient_scratch_len(width);
    let norm = RowNorm { width, epsilon: 0.0, centred: true };
    Some(Bound::row_major(site, RowsGradient { norm, rows }).scratch(scratch))
}

impl Kernel for RowsGradient {
    fn name(&self) -> String {
        "layer_norm_gradient-f32".into()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (mean, inverse) = (io.input::<f32>(2)?, io.input::<f32>(3)?);
        let (saved, scratch) = io.scratch()?.split_at_mut(2 * self.rows.next_multiple_of(8));
        let saved = &mut saved[..2 * self.rows];
        for (row, pair) in saved.chunks_exact_mut(2).enumerate() {
            (pair[0], pair[1]) = (mean[row], inverse[row]);
        }
        let (x, scale, dy) = (io.input(0)?, io.input(1)?, io.input(4)?);
        let (dx, dscale, dbias) = (io.output(0)?, io.output(1)?, io.output(2)?);
        norm::row_norm_gradient(io.cpu, self.norm, x, scale, saved, dy, dx, dscale, Some(dbias), scratch);
        Ok(())
    }
}
