//! One layer as a loop nest of eight bounds, with what is known of its zeros.

use std::sync::Arc;

use wattle_graph::Mask;

use crate::error::AccelError;

/// A loop of the nest, named as in Chen et al. 2019 (Eyeriss v2, Table I) with the output map P x Q (there E x F).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Batch.
    N,
    /// Channel groups; the channels of a depth-wise convolution.
    G,
    /// Output channels of a group.
    M,
    /// Input channels of a group.
    C,
    /// Rows of the output map.
    P,
    /// Columns of the output map.
    Q,
    /// Rows of the filter.
    R,
    /// Columns of the filter.
    S,
}

impl Dim {
    /// All dimensions, in the order of [`Layer::bounds`].
    pub const ALL: [Dim; 8] = [Dim::N, Dim::G, Dim::M, Dim::C, Dim::P, Dim::Q, Dim::R, Dim::S];

    /// One letter.
    pub fn letter(self) -> char {
        ['N', 'G', 'M', 'C', 'P', 'Q', 'R', 'S'][self as usize]
    }

    /// The dimension of a letter.
    pub fn from_letter(letter: &str) -> Option<Dim> {
        Dim::ALL.into_iter().find(|d| letter.len() == 1 && letter.starts_with(d.letter()))
    }
}

/// An operand or result of the nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Input activations, indexed by N, G, C, P with R, Q with S.
    Iact,
    /// Weights, indexed by G, M, C, R, S.
    Weight,
    /// Partial sums and outputs, indexed by N, G, M, P, Q.
    Psum,
}

impl Operand {
    /// All three.
    pub const ALL: [Operand; 3] = [Operand::Iact, Operand::Weight, Operand::Psum];

    /// Whether the tensor changes when the loop over `dim` steps.
    pub fn depends_on(self, dim: Dim) -> bool {
        match self {
            Operand::Iact => dim != Dim::M,
            Operand::Weight => !matches!(dim, Dim::N | Dim::P | Dim::Q),
            Operand::Psum => !matches!(dim, Dim::C | Dim::R | Dim::S),
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        ["iact", "weight", "psum"][self as usize]
    }
}

/// What kind of layer a nest is; it decides the mesh modes and whether a sparse PE can skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Convolution with several input channels a group.
    Conv,
    /// Convolution with one input and one output channel a group.
    Depthwise,
    /// Matrix product; Q counts rows, C is the inner extent, G the batch of products.
    Gemm,
}

impl Kind {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Conv => "conv",
            Kind::Depthwise => "depthwise",
            Kind::Gemm => "gemm",
        }
    }
}

/// What is known of the zeros of a tensor: one number, a number a channel, or every position.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparsity {
    /// Fraction of non-zero elements, 0..=1.
    pub density: f64,
    /// The same for each input channel, over all groups (`g C + c`).
    pub per_channel: Option<Vec<f64>>,
    /// Every position: weights as `[G M, C, R, S]`, activations as `[N, G C, H, W]`, row-major.
    pub mask: Option<Arc<Mask>>,
}

impl Sparsity {
    /// No zeros.
    pub fn dense() -> Sparsity {
        Sparsity::uniform(1.0)
    }

    /// One density for the tensor; clamped to 0..=1.
    pub fn uniform(density: f64) -> Sparsity {
        Sparsity { density: density.clamp(0.0, 1.0), per_channel: None, mask: None }
    }

    /// A density for each input channel, all channels of one size.
    pub fn per_channel(densities: Vec<f64>) -> Sparsity {
        let density = densities.iter().sum::<f64>() / densities.len().max(1) as f64;
        Sparsity { density, per_channel: Some(densities), mask: None }
    }

    /// Every zero of an operand of a layer, from a mask in the layout of [`Sparsity::mask`]; one density where
    /// the mask has another size.
    pub fn of_mask(layer: &Layer, operand: Operand, mask: Mask) -> Sparsity {
        let [_, g, m, c, _, _, r, s] = layer.bounds;
        let (taps, plane) = (r * s, layer.input[0] * layer.input[1]);
        if mask.is_empty() || mask.len() != layer.elements(operand) as usize || operand == Operand::Psum {
            return Sparsity::uniform(mask.density());
        }
        let channel = |index: usize| match operand {
            Operand::Iact => index / plane % (g * c),
            _ => index / (c * taps) / m * c + index / taps % c,
        };
        let mut alive = vec![0usize; g * c];
        (0..mask.len()).filter(|&i| mask.get(i)).for_each(|i| alive[channel(i)] += 1);
        let of = mask.len() as f64 / (g * c) as f64;
        let per_channel = Some(alive.into_iter().map(|n| n as f64 / of).collect());
        Sparsity { density: mask.density(), per_channel, mask: Some(Arc::new(mask)) }
    }

    /// Density of input channel `channel`.
    pub fn of_channel(&self, channel: usize) -> f64 {
        self.per_channel.as_ref().and_then(|d| d.get(channel).copied()).unwrap_or(self.density)
    }
}

/// A convolution or matrix product.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name of the node.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// Extents of N, G, M, C, P, Q, R, S.
    pub bounds: [usize; 8],
    /// Rows, columns between windows.
    pub stride: [usize; 2],
    /// Rows, columns between taps.
    pub dilation: [usize; 2],
    /// Zeros before the first row, column.
    pub pad: [usize; 2],
    /// Rows and columns of the input map without padding.
    pub input: [usize; 2],
    /// Zeros of the activations.
    pub iact: Sparsity,
    /// Zeros of the weights; in products of two activations, of the second.
    pub weight: Sparsity,
}

impl Layer {
    /// A dense convolution with square maps and filters: `channels -> outputs` in `groups`, an output map of
    /// `output` x `output`, filters of `taps` x `taps`.
    pub fn conv(
        name: &str,
        groups: usize,
        channels: usize,
        outputs: usize,
        output: usize,
        taps: usize,
        stride: usize,
    ) -> Layer {
        let input = (output - 1) * stride + taps;
        let kind =
            if channels == groups && outputs == groups && groups > 1 { Kind::Depthwise } else { Kind::Conv };
        Layer {
            name: name.to_string(),
            kind,
            bounds: [1, groups, outputs / groups, channels / groups, output, output, taps, taps],
            stride: [stride; 2],
            dilation: [1; 2],
            pad: [0; 2],
            input: [input; 2],
            iact: Sparsity::dense(),
            weight: Sparsity::dense(),
        }
    }

    /// A dense product of `rows` x `inner` by `inner` x `columns`.
    pub fn gemm(name: &str, rows: usize, inner: usize, columns: usize) -> Layer {
        Layer {
            name: name.to_string(),
            kind: Kind::Gemm,
            bounds: [1, 1, columns, inner, 1, rows, 1, 1],
            stride: [1; 2],
            dilation: [1; 2],
            pad: [0; 2],
            input: [1, rows],
            iact: Sparsity::dense(),
            weight: Sparsity::dense(),
        }
    }

    /// The same layer with these densities.
    #[must_use]
    pub fn with_sparsity(mut self, iact: Sparsity, weight: Sparsity) -> Layer {
        (self.iact, self.weight) = (iact, weight);
        self
    }

    /// Extent of a dimension.
    pub fn bound(&self, dim: Dim) -> usize {
        self.bounds[dim as usize]
    }

    /// Multiply-accumulates, zeros and padding included.
    pub fn macs(&self) -> f64 {
        self.bounds.iter().map(|&n| n as f64).product()
    }

    /// Elements of a tensor.
    pub fn elements(&self, operand: Operand) -> f64 {
        let of = |d: Dim| self.bound(d) as f64;
        match operand {
            Operand::Iact => of(Dim::N) * of(Dim::G) * of(Dim::C) * (self.input[0] * self.input[1]) as f64,
            Operand::Weight => of(Dim::G) * of(Dim::M) * of(Dim::C) * of(Dim::R) * of(Dim::S),
            Operand::Psum => of(Dim::N) * of(Dim::G) * of(Dim::M) * of(Dim::P) * of(Dim::Q),
        }
    }

    /// Products of two non-zero values, from the channel densities where they are known: the sum over channels
    /// of `d_i[c] d_w[c]` times the products of a channel. Exact for 1x1 layers with counts per channel.
    pub fn effective_macs(&self) -> f64 {
        let channels = self.bound(Dim::G) * self.bound(Dim::C);
        let each = self.macs() / channels.max(1) as f64;
        if self.iact.per_channel.is_none() && self.weight.per_channel.is_none() {
            return self.macs() * self.iact.density * self.weight.density;
        }
        (0..channels).map(|c| each * self.iact.of_channel(c) * self.weight.of_channel(c)).sum()
    }

    /// Refuses extents of zero and channel lists of the wrong length.
    pub fn check(&self) -> Result<(), AccelError> {
        if let Some(dim) = Dim::ALL.into_iter().find(|&d| self.bound(d) == 0) {
            let place = format!("layer `{}`", self.name);
            return Err(AccelError::invalid(
                place,
                format!("the extent {} is 0, expected at least 1", dim.letter()),
            ));
        }
        let channels = self.bound(Dim::G) * self.bound(Dim::C);
        for (what, sparsity) in [("activation densities", &self.iact), ("weight densities", &self.weight)] {
            if let Some(list) = &sparsity.per_channel
                && list.len() != channels
            {
                return Err(AccelError::Size {
                    layer: self.name.clone(),
                    what,
                    found: list.len(),
                    expected: channels,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_densities_give_the_covariance_that_one_density_misses() {
        let counts = (Sparsity::per_channel(vec![1.0, 0.0]), Sparsity::per_channel(vec![0.5, 0.1]));
        let layer = Layer::conv("l", 1, 2, 10, 4, 1, 1).with_sparsity(counts.0, counts.1);
        assert_eq!(layer.macs(), 320.0);
        assert_eq!(layer.effective_macs(), 160.0 * 0.5);
    }

    #[test]
    fn a_channel_list_of_the_wrong_length_is_refused() {
        let mut layer = Layer::gemm("l", 1, 3, 2);
        layer.weight = Sparsity::per_channel(vec![1.0; 2]);
        assert!(layer.check().unwrap_err().to_string().contains("2 entries, expected 3"));
    }
}
