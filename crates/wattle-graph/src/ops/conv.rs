//! Conv: cross-correlation over any number of spatial axes, with groups, strides, dilation and padding.

use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{each_index, strides};

/// How a window slides over spatial axes; shared by convolutions and pooling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sliding {
    /// Steps between windows, one per spatial axis.
    pub strides: Vec<usize>,
    /// Steps between taps of one window.
    pub dilations: Vec<usize>,
    /// Zeros added before and after each spatial axis.
    pub padding: Padding,
}

/// Zeros (or, for pooling, nothing) around the spatial axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Stated, before and after each axis.
    Explicit(Vec<(usize, usize)>),
    /// Enough that the result has `ceil(extent / stride)` windows; an odd zero goes after (ONNX SAME_UPPER).
    SameUpper,
    /// The same with the odd zero before.
    SameLower,
}

impl Sliding {
    /// Stride 1, dilation 1, and the same explicit padding on both sides of every axis.
    pub fn padded(axes: usize, pad: usize) -> Sliding {
        Sliding::strided(axes, pad, 1)
    }

    /// One stride and padding for every axis.
    pub fn strided(axes: usize, pad: usize, stride: usize) -> Sliding {
        let padding = Padding::Explicit(vec![(pad, pad); axes]);
        Sliding { strides: vec![stride; axes], dilations: vec![1; axes], padding }
    }

    /// Reads `strides`, `dilations`, `pads` and `auto_pad` for `axes` spatial axes.
    pub fn import(node: &mut ForeignNode<'_>, axes: usize) -> Result<Sliding, ImportError> {
        let positive = |node: &mut ForeignNode<'_>, name: &str, floor: i64, default: Vec<i64>| {
            let list = node.ints(name, &default)?;
            if list.len() != default.len() || list.iter().any(|&n| n < floor || n > 1 << 20) {
                let wanted = format!("{} integers from {floor} to 2^20", default.len());
                return Err(node.refuse(format!("{name} = {list:?}; expected {wanted}")));
            }
            Ok(list.into_iter().map(|n| n as usize).collect::<Vec<_>>())
        };
        let strides = positive(node, "strides", 1, vec![1; axes])?;
        let dilations = positive(node, "dilations", 1, vec![1; axes])?;
        let pads = positive(node, "pads", 0, vec![0; 2 * axes])?;
        let padding = match node.text("auto_pad", "NOTSET")?.as_str() {
            "SAME_UPPER" => Padding::SameUpper,
            "SAME_LOWER" => Padding::SameLower,
            "VALID" => Padding::Explicit(vec![(0, 0); axes]),
            "NOTSET" | "" => Padding::Explicit((0..axes).map(|i| (pads[i], pads[axes + i])).collect()),
            other => return Err(node.refuse(format!("auto_pad = `{other}`"))),
        };
        Ok(Sliding { strides, dilations, padding })
    }

    /// The attributes under their ONNX names.
    pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let ints = |list: &[usize]| Attribute::Ints(list.iter().map(|&n| n as i64).collect());
        let mut attributes = vec![("strides", ints(&self.strides)), ("dilations", ints(&self.dilations))];
        attributes.push(match &self.padding {
            Padding::Explicit(pads) => {
                let (before, after): (Vec<usize>, Vec<usize>) = pads.iter().copied().unzip();
                ("pads", ints(&[before, after].concat()))
            }
            Padding::SameUpper => ("auto_pad", Attribute::Text("SAME_UPPER".into())),
            Padding::SameLower => ("auto_pad", Attribute::Text("SAME_LOWER".into())),
        });
        attributes
    }

    /// Extent covered by a kernel of `taps` taps along `axis`.
    pub fn reach(&self, axis: usize, taps: usize) -> usize {
        (taps.max(1) - 1).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Padding before and after `axis` for an operand of that extent.
    pub fn pads(&self, axis: usize, extent: usize, taps: usize) -> (usize, usize) {
        let same = || {
            let windows = extent.div_ceil(self.strides[axis]);
            let covered = (windows.max(1) - 1) * self.strides[axis] + self.reach(axis, taps);
            covered.saturating_sub(extent)
        };
        match &self.padding {
            Padding::Explicit(pads) => pads[axis],
            Padding::SameUpper => (same() / 2, same() - same() / 2),
            Padding::SameLower => (same() - same() / 2, same() / 2),
        }
    }

    /// Number of windows along `axis`, rounding down; an error when the kernel is larger than the padded
    /// operand.
    pub fn windows(&self, axis: usize, extent: &Dim, taps: usize) -> Result<Dim, OpError> {
        let stride = self.strides[axis];
        let Dim::Known(n) = extent else {
            let text = match &self.padding {
                Padding::Explicit(pads) => {
                    let shift = (pads[axis].0 + pads[axis].1) as i64 - self.reach(axis, taps) as i64;
                    match (shift, stride) {
                        (-1, 1) => return Ok(extent.clone()),
                        (_, 1) => format!("({{}}{:+})", shift + 1),
                        _ => format!("(floor(({{}}{shift:+})/{stride})+1)"),
                    }
                }
                _ if stride == 1 => return Ok(extent.clone()),
                _ => format!("ceil({{}}/{stride})"),
            };
            return Ok(extent.map(&text, |n| n));
        };
        let (before, after) = self.pads(axis, *n, taps);
        let padded = n.saturating_add(before).saturating_add(after);
        match padded.checked_sub(self.reach(axis, taps)) {
            Some(room) => Ok(Dim::Known(room / stride + 1)),
            None => {
                let wanted = format!("at most the padded operand's {padded}");
                Err(OpError::mismatch("kernel extent", self.reach(axis, taps), wanted))
            }
        }
    }

    /// Where tap `tap` of window `window` reads along `axis`; `None` in the padding.
    pub fn position(&self, axis: usize, window: usize, tap: usize, before: usize, extent: usize) -> Option<usize> {
        let at = (window * self.strides[axis] + tap * self.dilations[axis]).checked_sub(before)?;
        (at < extent).then_some(at)
    }
}

/// `Conv(x [N, C, spatial..], w [M, C/groups, kernel..], bias? [M]) -> [N, M, windows..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// How the kernel slides.
    pub sliding: Sliding,
    /// Number of independent channel groups; C for depthwise.
    pub groups: usize,
}

/// Calls `visit(y, x, w)` with flat indices for every multiply-accumulate of a convolution, in the order that
/// sums each output completely before the next. The one loop nest that forward and gradients are defined by.
pub(super) fn each_product(
    conv: &Conv,
    x: &[usize],
    w: &[usize],
    y: &[usize],
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (x_strides, w_strides, y_strides) = (strides(x), strides(w), strides(y));
    let pads: Vec<_> = (2..x.len()).map(|a| conv.sliding.pads(a - 2, x[a], w[a]).0).collect();
    let group_outputs = w[0] / conv.groups;
    each_index(y, |out| {
        let to: usize = out.iter().zip(&y_strides).map(|(i, s)| i * s).sum();
        let first_channel = out[1] / group_outputs * w[1];
        each_index(&w[1..], |tap| {
            let mut from = out[0] * x_strides[0] + (first_channel + tap[0]) * x_strides[1];
            let mut weight = out[1] * w_strides[0] + tap[0] * w_strides[1];
            for axis in 2..x.len() {
                let at = conv.sliding.position(axis - 2, out[axis], tap[axis - 1], pads[axis - 2], x[axis]);
                let Some(at) = at else { return };
                from += at * x_strides[axis];
                weight += tap[axis - 1] * w_strides[axis];
            }
            visit(to, from, weight);
        });
    });
}

impl Conv {
    /// The result's shape; also checks groups and channels.
    pub(super) fn result(&self, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let axes = self.sliding.strides.len();
        if x.len() != axes + 2 || w.len() != axes + 2 {
            let found = format!("{} and {} axes", x.len(), w.len());
            return Err(OpError::mismatch("x and w", found, format!("{} axes each", axes + 2)));
        }
        if let (Dim::Known(c), Dim::Known(per_group)) = (&x[1], &w[1])
            && *c != per_group * self.groups
        {
            let wanted = format!("{per_group} per group x {} groups", self.groups);
            return Err(OpError::mismatch("channels of x", c, wanted));
        }
        if let Dim::Known(m) = &w[0]
            && m % self.groups != 0
        {
            return Err(OpError::mismatch("channels of w", m, format!("a multiple of {} groups", self.groups)));
        }
        let mut dims = vec![x[0].clone(), w[0].clone()];
        for axis in 0..axes {
            let taps = w[axis + 2].known().ok_or(OpError::Unbound("the kernel's extents"))?;
            dims.push(self.sliding.windows(axis, &x[axis + 2], taps)?);
        }
        Ok(dims)
    }

    /// Multiply-accumulates for a result of `outputs` elements.
    pub(super) fn macs(&self, outputs: u64, w: &[usize]) -> u64 {
        outputs * w.iter().skip(1).map(|&n| n as u64).product::<u64>()
    }
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.sliding.attributes();
        if self.groups != 1 {
            attributes.push(("group", Attribute::Int(self.groups as i64)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        inputs.expect_dtype(1, "w", &[dtype])?;
        let Some(w) = inputs.dims(1, "w")? else { return Err(OpError::Unbound("the kernel's shape")) };
        if inputs.optional(2).is_some() {
            inputs.expect_rank(2, "bias", 1)?;
            inputs.expect_dtype(2, "bias", &[dtype])?;
            if let (Some([n]), Some(m)) = (inputs.dims(2, "bias")?, w.first())
                && n != m
            {
                return Err(OpError::mismatch("bias", n, format!("one per output channel, {m}")));
            }
        }
        let shape = match inputs.dims(0, "x")? {
            Some(x) => Shape::Ranked(self.result(x, w)?),
            None => Shape::Unknown,
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, w) = (inputs.get(0)?, inputs.get(1)?);
        let dims = |t: &Tensor| t.shape().iter().map(|&n| n.into()).collect::<Vec<Dim>>();
        let shape: Vec<usize> = self.result(&dims(x), &dims(w))?.iter().filter_map(Dim::known).collect();
        let (xs, ws) = (x.to_f64(), w.to_f64());
        let mut y = vec![0.0; shape.iter().product()];
        if let Some(bias) = inputs.optional(2) {
            let bias = bias.to_f64();
            let window: usize = shape[2..].iter().product();
            y.iter_mut().enumerate().for_each(|(i, v)| *v = bias[i / window % shape[1]]);
        }
        each_product(self, x.shape(), w.shape(), &shape, |to, from, weight| y[to] += xs[from] * ws[weight]);
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (x, w, dy) = (g.input(0), g.input(1), g.gradient());
        let (mut dx, mut dw, mut db) = (None, None, None);
        if g.wants(0) {
            let op = ConvInputGradient { conv: self.clone(), input_shape: g.extents(x)? };
            dx = Some(g.apply(op, &[dy, w])?);
        }
        if g.wants(1) {
            let op = ConvWeightGradient { conv: self.clone(), weight_shape: g.extents(w)? };
            dw = Some(g.apply(op, &[x, dy])?);
        }
        if g.wants(2) {
            let shape = g.extents(dy)?;
            let mut per_channel = vec![1; shape.len() - 1];
            per_channel[0] = shape[1];
            let sum = g.apply(SumTo { shape: per_channel }, &[dy])?;
            let flat = g.constant(Tensor::ints(&[-1]));
            db = Some(g.apply(Reshape { allow_zero: false }, &[sum, flat])?);
        }
        Ok(Gradient::Inputs(vec![dx, dw, db]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let macs = self.macs(shapes.output_len(0), shapes.input(1));
        Work::macs(MacKind::Standard, macs, shapes.density(1))
    }
}

impl Described for Conv {
    const ONNX: &'static [&'static str] = &["Conv"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (sliding, groups, _) = import_kernel(node, 1)?;
        node.finish(Conv { sliding, groups })
    }

    fn examples() -> Vec<Example> {
        let of = |sliding: Sliding, groups, x: &[usize], w: &[usize], bias: bool, macs| {
            let mut inputs = vec![Some(Example::noise(x, 1)), Some(Example::noise(w, 2))];
            if bias {
                inputs.push(Some(Example::noise(&w[..1], 3)));
            }
            Example::optional(Conv { sliding, groups }, inputs).macs(macs)
        };
        let same = Sliding { padding: Padding::SameUpper, ..Sliding::strided(2, 0, 2) };
        let uneven = Sliding {
            strides: vec![2, 1],
            dilations: vec![1, 2],
            padding: Padding::Explicit(vec![(0, 1), (2, 1)]),
        };
        vec![
            of(Sliding::padded(2, 1), 1, &[2, 3, 5, 4], &[4, 3, 3, 3], true, 2 * 4 * 20 * 27),
            of(Sliding::padded(2, 0), 1, &[1, 3, 2, 2], &[5, 3, 1, 1], false, 5 * 4 * 3),
            of(Sliding::strided(2, 1, 2), 2, &[1, 4, 5, 5], &[6, 2, 3, 3], true, 6 * 9 * 18),
            of(Sliding::padded(2, 1), 4, &[1, 4, 4, 4], &[4, 1, 3, 3], false, 4 * 16 * 9),
            of(same, 1, &[1, 2, 5, 6], &[3, 2, 2, 3], false, 3 * 9 * 12),
            of(uneven, 1, &[1, 2, 6, 7], &[3, 2, 3, 3], true, 3 * 3 * 6 * 18),
            of(Sliding::strided(1, 1, 2), 1, &[2, 3, 9], &[4, 3, 4], true, 2 * 4 * 4 * 12),
            of(Sliding::padded(3, 0), 1, &[1, 2, 3, 3, 3], &[2, 2, 2, 2, 2], false, 2 * 8 * 16),
        ]
    }
}

/// Reads what all convolutions share: sliding, groups and the spatial extents of the kernel, operand `operand`,
/// which must agree
/// with `kernel_shape` where that is given.
pub(super) fn import_kernel(
    node: &mut ForeignNode<'_>,
    operand: usize,
) -> Result<(Sliding, usize, Vec<usize>), ImportError> {
    let w = node.input(operand)?;
    let kernel: Option<Vec<usize>> = node.graph().value(w).ty.shape.extents();
    let Some(kernel) = kernel.filter(|k| k.len() >= 3) else {
        return Err(node.refuse("the kernel's shape must be known and have at least three axes"));
    };
    let taps: Vec<i64> = kernel[2..].iter().map(|&n| n as i64).collect();
    let stated = node.ints("kernel_shape", &taps)?;
    if stated != taps {
        return Err(node.refuse(format!("kernel_shape = {stated:?}, but the kernel's extents are {taps:?}")));
    }
    let groups = node.int("group", 1)?;
    if !(1..=1 << 20).contains(&groups) {
        return Err(node.refuse(format!("group = {groups}; expected 1 to 2^20")));
    }
    Ok((Sliding::import(node, taps.len())?, groups as usize, kernel[2..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_extents_keep_their_name_when_padding_makes_up_for_the_kernel() {
        let conv = Conv { sliding: Sliding::padded(2, 1), groups: 1 };
        let x = [Dim::symbol("N"), 3.into(), Dim::symbol("H"), Dim::symbol("W")];
        let w: Vec<Dim> = [8, 3, 3, 3].map(Dim::Known).to_vec();
        assert_eq!(Shape::Ranked(conv.result(&x, &w).unwrap()).to_string(), "[N, 8, H, W]");
        let conv = Conv { sliding: Sliding::strided(2, 1, 2), groups: 1 };
        let shape = Shape::Ranked(conv.result(&x, &w).unwrap()).to_string();
        assert_eq!(shape, "[N, 8, (floor((H-1)/2)+1), (floor((W-1)/2)+1)]");
    }

    #[test]
    fn a_kernel_larger_than_its_operand_is_refused() {
        let conv = Conv { sliding: Sliding::padded(1, 0), groups: 1 };
        assert!(conv.result(&[1.into(), 1.into(), 2.into()], &[1.into(), 1.into(), 3.into()]).is_err());
    }
}
