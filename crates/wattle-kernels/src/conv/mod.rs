//! Two-dimensional convolution, NHWC, without im2col: forward, gradient of the input, gradient of the weights.
//!
//! A [`ConvPlan`] holds what depends on shapes alone (offset tables, taps). Weights stay in the ONNX order
//! `[filters, channels / groups, kernel height, kernel width]`; each kernel packs or reads them as it needs.
//! A one-dimensional convolution is one of height 1. Transposed convolution is [`input_gradient`] of the convolution
//! it transposes.

mod depthwise;
mod depthwise_3x3;
mod forward;
mod input_gradient;
mod offsets;
mod pooled;
mod stem;
mod weight_gradient;
mod winograd;
mod winograd_weight;

pub use depthwise::{
    depthwise_forward, depthwise_input_gradient, depthwise_weight_gradient,
    depthwise_weight_gradient_scratch_len, pack_depthwise,
};
pub use forward::forward;
pub use input_gradient::input_gradient;
pub use offsets::{forward as offsets, patches};
pub use pooled::{max_pooled, max_pooled_scratch_len};
pub use weight_gradient::{weight_gradient, weight_gradient_scratch_len};

use crate::pack::{self, PackedShape, Source, Taps};
use crate::{Cpu, Isa};
use input_gradient::Phase;
use std::sync::OnceLock;
use stem::Stem;
use winograd::Winograd;
use winograd_weight::WeightGradient;

/// The shape of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Input height.
    pub height: usize,
    /// Input width.
    pub width: usize,
    /// Input channels, over all groups.
    pub channels: usize,
    /// Output channels, over all groups.
    pub filters: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation, 1 for none.
    pub dilation: [usize; 2],
    /// Rows and columns of zeros: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Groups: filter f sees the channels of group `f / (filters / groups)` only.
    pub groups: usize,
}

impl ConvShape {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        let size = |input: usize, axis: usize, pads: usize| {
            let reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            (input + pads).checked_sub(reach).map_or(0, |room| room / self.stride[axis] + 1)
        };
        [size(self.height, 0, self.pads[0] + self.pads[2]), size(self.width, 1, self.pads[1] + self.pads[3])]
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        let [height, width] = self.output();
        self.batch * height * width * self.filters
    }

    /// Elements of the weights.
    pub fn weights_len(&self) -> usize {
        self.filters * self.group_channels() * self.taps()
    }

    /// Multiply-accumulates of one forward pass, padding included.
    pub fn macs(&self) -> usize {
        self.output_len() * self.group_channels() * self.taps()
    }

    /// Whether every channel is a group of its own and makes one filter: the depthwise kernels apply.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.filters == self.channels
    }

    /// Whether [`forward`] multiplies transformed tiles (3 x 3 kernels over enough channels) instead of summing directly.
    pub fn is_transformed(&self) -> bool {
        Winograd::forward(self).is_some()
    }

    /// Whether every output pixel reads the input pixel of the same number: no table of offsets is needed.
    pub(crate) fn is_plain(&self) -> bool {
        self.taps() == 1 && self.stride == [1, 1] && self.pads == [0; 4] && !self.is_depthwise()
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    pub(crate) fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    fn check(&self) {
        assert!(self.groups > 0 && self.channels.is_multiple_of(self.groups), "{self:?}");
        assert!(self.filters.is_multiple_of(self.groups), "{self:?}");
        assert!(self.kernel.iter().chain(&self.stride).chain(&self.dilation).all(|&x| x > 0), "{self:?}");
        assert!(self.is_in_reach(usize::MAX), "one image of {self:?} exceeds the reach of 32-bit offsets");
    }

    /// Whether 32-bit offsets reach every element of one image, its padding included, and the tables of a [`ConvPlan`] take
    /// at most so many bytes: what other shapes have no kernel.
    pub fn is_in_reach(&self, bytes: usize) -> bool {
        let padded = |extent: usize, pads: [usize; 2]| extent.checked_add(pads[0])?.checked_add(pads[1]);
        let image = || {
            let height = padded(self.height, [self.pads[0], self.pads[2]])?;
            let width = padded(self.width, [self.pads[1], self.pads[3]])?;
            height.checked_mul(width)
        };
        let Some(pixels) = image() else { return false };
        let largest = pixels.checked_mul(self.channels.max(self.filters).max(1));
        let tables = pixels.checked_mul(self.kernel[0]).and_then(|n| n.checked_mul(self.kernel[1] * 8));
        largest.is_some_and(|n| n < i32::MAX as usize) && tables.is_some_and(|n| n <= bytes)
    }
}

/// Everything about a convolution that its shape decides.
pub struct ConvPlan {
    shape: ConvShape,
    /// Forward with few channels.
    stem: Option<Stem>,
    /// The weights' gradient with few channels: the input is copied with its padding, and a row of the kernel is one tap.
    padded: Option<offsets::Padded>,
    /// `[tap][output pixel]`, into the input.
    offsets: Vec<i32>,
    /// Made when the input's gradient is first prepared: inference never needs it.
    phases: OnceLock<Vec<Phase>>,
    /// Forward by transformed tiles, where that is faster.
    winograd: Option<Winograd>,
    /// The input's gradient likewise.
    winograd_gradient: Option<Winograd>,
    /// The weights' gradient likewise.
    winograd_weight: Option<WeightGradient>,
}

impl ConvPlan {
    /// Plans a convolution; its tables take about 8 bytes a tap and pixel of one image.
    pub fn new(shape: ConvShape) -> Self {
        let plan = Self::direct(shape);
        ConvPlan {
            winograd: Winograd::forward(&shape),
            winograd_gradient: Winograd::input_gradient(&shape),
            winograd_weight: WeightGradient::new(&shape),
            ..plan
        }
    }

    /// The same by direct sums alone, as [`max_pooled`] needs.
    pub fn direct(shape: ConvShape) -> Self {
        shape.check();
        let stem = Stem::new(&shape);
        let offsets = if stem.is_some() || shape.is_plain() { Vec::new() } else { offsets::forward(&shape) };
        ConvPlan {
            shape,
            stem,
            padded: offsets::Padded::new(&shape),
            offsets,
            phases: OnceLock::new(),
            winograd: None,
            winograd_gradient: None,
            winograd_weight: None,
        }
    }

    /// Whether [`forward`] multiplies transformed tiles: not where it was planned by direct sums.
    pub fn is_transformed(&self) -> bool {
        self.winograd.is_some()
    }

    fn phases(&self) -> &[Phase] {
        self.phases.get_or_init(|| input_gradient::phases(&self.shape))
    }

    /// The shape it was planned for.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// From now on [`forward`] and [`max_pooled`] read images as planes, `[batch, channels, height, width]`, if they can:
    /// with few channels. Says whether.
    pub fn read_planes(&mut self) -> bool {
        self.stem.as_mut().map(|stem| stem.planes = true).is_some()
    }

    /// Whether [`Self::read_planes`] was asked for and granted.
    pub fn reads_planes(&self) -> bool {
        self.stem.as_ref().is_some_and(|stem| stem.planes)
    }

    /// Scratch elements that [`forward`] needs: strips of an image with few channels, or transformed tiles.
    pub fn forward_scratch_len(&self, cpu: &Cpu) -> usize {
        match (&self.winograd, &self.stem) {
            (Some(winograd), _) => winograd.scratch_len(cpu),
            (None, Some(stem)) => stem.scratch_len(cpu),
            (None, None) => 0,
        }
    }

    /// Elements of the padded copy of the input, if one is made.
    fn padded_len(&self) -> usize {
        self.padded.as_ref().map_or(0, |padded| padded.len(&self.shape))
    }

    /// Scratch elements that [`input_gradient`] needs.
    pub fn input_gradient_scratch_len(&self, cpu: &Cpu) -> usize {
        self.winograd_gradient.as_ref().map_or(0, |winograd| winograd.scratch_len(cpu))
    }

    fn forward_packed_shape(&self, isa: Isa) -> PackedShape {
        PackedShape::new(isa, self.shape.taps(), self.shape.group_channels(), self.shape.group_filters())
    }

    /// Elements of weights packed for [`forward`].
    pub fn forward_weights_len(&self, isa: Isa) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.weights_len(isa);
        }
        if let Some(stem) = &self.stem {
            return stem.weights_len(isa);
        }
        self.shape.groups * self.forward_packed_shape(isa).len()
    }

    /// Packs weights for [`forward`].
    pub fn pack_forward(&self, cpu: &Cpu, weights: &[f32], out: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
        if let Some(winograd) = &self.winograd {
            return winograd.pack(cpu, weights, out);
        }
        if let Some(stem) = &self.stem {
            return stem.pack(cpu.isa, weights, out);
        }
        let packed = self.forward_packed_shape(cpu.isa);
        let (taps, channels) = (shape.taps(), shape.group_channels());
        for group in 0..shape.groups {
            let source = Source {
                data: &weights[group * shape.group_filters() * channels * taps..],
                taps: Taps::Strided(1),
                k_stride: taps,
                n_stride: channels * taps,
            };
            pack::pack(cpu.isa, &cpu.threads, &packed, &source, &mut out[group * packed.len()..]);
        }
    }

    /// Elements of weights packed for [`input_gradient`].
    pub fn input_gradient_weights_len(&self, isa: Isa) -> usize {
        if let Some(winograd) = &self.winograd_gradient {
            return winograd.weights_len(isa);
        }
        let group: usize = self.phases().iter().map(|p| p.packed_shape(&self.shape, isa).len()).sum();
        self.shape.groups * group
    }

    /// Packs weights for [`input_gradient`].
    pub fn pack_input_gradient(&self, cpu: &Cpu, weights: &[f32], out: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
        if let Some(winograd) = &self.winograd_gradient {
            return winograd.pack(cpu, weights, out);
        }
        let (taps, channels) = (shape.taps(), shape.group_channels());
        let mut at = 0;
        for group in 0..shape.groups {
            for phase in self.phases() {
                let packed = phase.packed_shape(shape, cpu.isa);
                let source = Source {
                    data: &weights[group * shape.group_filters() * channels * taps..],
                    taps: Taps::Listed(&phase.taps),
                    k_stride: channels * taps,
                    n_stride: taps,
                };
                pack::pack(cpu.isa, &cpu.threads, &packed, &source, &mut out[at..]);
                at += packed.len();
            }
        }
    }
}

#[cfg(test)]
mod tests;
