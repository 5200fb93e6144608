//! ConvTranspose: the transpose of a convolution as a layer, which spreads every element over a window.

use super::concrete::result_shapes;
use super::conv::{each_product, import_kernel};
use super::*;
use crate::shape::{Dim, Shape};

/// `(x [N, C, spatial..], w [C, M/groups, kernel..], bias? [M]) -> [N, M, out..]` with
/// `out = stride (extent - 1) + output_padding + reach - padding`.
///
/// It is the gradient by its input of the convolution with the same sliding, groups and weight, plus a bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// How the kernel of that convolution slides; its padding, always explicit, is cut off the result here.
    pub sliding: Sliding,
    /// Number of independent channel groups.
    pub groups: usize,
    /// Elements added after each spatial axis of the result, each less than the stride: they choose among the
    /// extents that the convolution maps to the same one.
    pub output_padding: Vec<usize>,
}

impl ConvTranspose {
    /// The convolution that this is the transpose of.
    pub fn conv(&self) -> Conv {
        Conv { sliding: self.sliding.clone(), groups: self.groups }
    }

    fn result(&self, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let (axes, s) = (self.output_padding.len(), &self.sliding);
        let Padding::Explicit(pads) = &s.padding else {
            return Err(OpError::mismatch("padding", "automatic", "explicit; ONNX import resolves it"));
        };
        if [s.strides.len(), s.dilations.len(), pads.len()] != [axes; 3] {
            return Err(OpError::mismatch(
                "strides, dilations, pads",
                "other lengths",
                format!("{axes} each"),
            ));
        }
        if x.len() != axes + 2 || w.len() != axes + 2 {
            let found = format!("{} and {} axes", x.len(), w.len());
            return Err(OpError::mismatch("x and w", found, format!("{} axes each", axes + 2)));
        }
        if let (Dim::Known(c), Dim::Known(k)) = (&x[1], &w[0])
            && (c != k || self.groups == 0 || c % self.groups != 0)
        {
            let wanted = format!("{k} as in w, a multiple of {} groups", self.groups);
            return Err(OpError::mismatch("channels of x", c, wanted));
        }
        let mut dims = vec![x[0].clone(), w[1].times(&Dim::Known(self.groups))];
        for axis in 0..axes {
            let taps = w[axis + 2].known().ok_or(OpError::Unbound("the kernel's extents"))?;
            let (stride, extra, (before, after)) = (s.strides[axis], self.output_padding[axis], pads[axis]);
            if extra >= stride {
                return Err(OpError::mismatch(
                    "output_padding",
                    extra,
                    format!("less than the stride {stride}"),
                ));
            }
            let (grown, cut) = (s.reach(axis, taps).saturating_add(extra), before.saturating_add(after));
            let Dim::Known(n) = x[axis + 2] else {
                let shift = grown as i128 - stride as i128 - cut as i128;
                let text = if stride == 1 { String::from("{}") } else { format!("{stride}*{{}}") };
                let text = if shift == 0 { text } else { format!("({text}{shift:+})") };
                dims.push(x[axis + 2].map(&text, |n| n));
                continue;
            };
            let full = n.saturating_sub(1).saturating_mul(stride).saturating_add(grown);
            match full.checked_sub(cut) {
                Some(out) if out > 0 && n > 0 => dims.push(Dim::Known(out)),
                _ => {
                    return Err(OpError::mismatch(
                        "padding",
                        cut,
                        format!("less than the full extent {full}"),
                    ));
                }
            }
        }
        Ok(dims)
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.conv().attributes();
        if self.output_padding.iter().any(|&n| n > 0) {
            let list = self.output_padding.iter().map(|&n| n as i64).collect();
            attributes.push(("output_padding", Attribute::Ints(list)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        inputs.expect_dtype(1, "w", &[dtype])?;
        let w = inputs.dims(1, "w")?.ok_or(OpError::Unbound("the kernel's shape"))?;
        if inputs.optional(2).is_some() {
            inputs.expect_rank(2, "bias", 1)?;
            inputs.expect_dtype(2, "bias", &[dtype])?;
            if let (Some([Dim::Known(n)]), Some(Dim::Known(m))) = (inputs.dims(2, "bias")?, w.get(1))
                && *n != m.saturating_mul(self.groups)
            {
                let wanted = format!("one per output channel, {m} x {} groups", self.groups);
                return Err(OpError::mismatch("bias", n, wanted));
            }
        }
        let shape = match inputs.dims(0, "x")? {
            Some(x) => Shape::Ranked(self.result(x, w)?),
            None => Shape::Unknown,
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let (x, w) = (inputs.get(0)?, inputs.get(1)?);
        let (xs, ws) = (x.to_f64(), w.to_f64());
        let mut y = vec![0.0; shape.iter().product()];
        if let (Some(bias), false) = (inputs.optional(2), y.is_empty()) {
            let bias = bias.to_f64();
            let plane: usize = shape[2..].iter().product();
            y.iter_mut().enumerate().for_each(|(i, v)| *v = bias[i / plane % shape[1]]);
        }
        each_product(&self.conv(), &shape, w.shape(), x.shape(), |from, to, weight| {
            y[to] += xs[from] * ws[weight];
        });
        Ok(vec![Tensor::from_f64(x.dtype(), shape, y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (x, w, dy) = (g.input(0), g.input(1), g.gradient());
        let (mut dx, mut dw, mut db) = (None, None, None);
        if g.wants(0) {
            dx = Some(g.apply(self.conv(), &[dy, w])?);
        }
        if g.wants(1) {
            // The roles of operand and result are exchanged.
            let op = ConvWeightGradient { conv: self.conv(), weight_shape: g.extents(w)? };
            dw = Some(g.apply(op, &[dy, x])?);
        }
        if g.wants(2) {
            db = Some(super::batch_norm::sum_to_channels(g, dy)?);
        }
        Ok(Gradient::Inputs(vec![dx, dw, db]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let spread: u64 = shapes.input(1).iter().skip(1).map(|&n| n as u64).product();
        let macs = shapes.input_len(0).saturating_mul(spread);
        Work::macs(MacKind::TransposedConv, macs, shapes.density(1))
    }
}

impl Described for ConvTranspose {
    const ONNX: &'static [&'static str] = &["ConvTranspose"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (mut sliding, groups, taps) = import_kernel(node, 1)?;
        let axes = taps.len();
        let list = node.ints("output_padding", &vec![0; axes])?;
        if list.len() != axes || list.iter().any(|n| !(0..=1 << 20).contains(n)) {
            return Err(
                node.refuse(format!("output_padding = {list:?}; expected {axes} integers from 0 to 2^20"))
            );
        }
        let mut output_padding: Vec<usize> = list.into_iter().map(|n| n as usize).collect();
        let outputs = node.optional_ints("output_shape")?.unwrap_or_default();
        let x = node.input(0)?;
        let extents =
            node.graph().value(x).ty.shape.dims().map(|d| d.iter().skip(2).map(Dim::known).collect());
        let extents: Vec<Option<usize>> = extents.unwrap_or_default();
        let automatic = !matches!(sliding.padding, Padding::Explicit(_));
        if automatic || !outputs.is_empty() {
            let upper = sliding.padding == Padding::SameUpper;
            // `output_shape` may name all axes of the result or only the spatial ones.
            let outputs = &outputs[outputs.len().saturating_sub(axes)..];
            if !outputs.is_empty() && outputs.len() != axes {
                return Err(node.refuse(format!("output_shape = {outputs:?}; expected {axes} extents")));
            }
            let mut pads = vec![];
            for axis in 0..axes {
                let stride = sliding.strides[axis];
                let grown = sliding.reach(axis, taps[axis]) + output_padding[axis];
                let total = match outputs.get(axis) {
                    // The result has the operand's extent times the stride.
                    None => grown.saturating_sub(stride) as i64,
                    Some(&out) => {
                        let Some(Some(n)) = extents.get(axis) else {
                            return Err(node.refuse("output_shape needs known spatial extents"));
                        };
                        let full = n.saturating_sub(1).saturating_mul(stride).saturating_add(grown);
                        i64::try_from(full).unwrap_or(i64::MAX).saturating_sub(out)
                    }
                };
                output_padding[axis] += total.min(0).unsigned_abs() as usize;
                let total = total.max(0) as usize;
                pads.push(if upper {
                    (total / 2, total - total / 2)
                } else {
                    (total - total / 2, total / 2)
                });
            }
            sliding.padding = Padding::Explicit(pads);
        }
        node.finish(ConvTranspose { sliding, groups, output_padding })
    }

    fn examples() -> Vec<Example> {
        let of = |op: ConvTranspose, x: &[usize], w: &[usize], bias: usize, macs| {
            let mut inputs = vec![Example::noise(x, 1), Example::noise(w, 2)];
            if bias > 0 {
                inputs.push(Example::noise(&[bias], 3));
            }
            Example::new(op, inputs).macs(macs)
        };
        let op = |sliding: Sliding, groups, extra: &[usize]| ConvTranspose {
            sliding,
            groups,
            output_padding: extra.to_vec(),
        };
        let uneven = Sliding {
            strides: vec![3, 1],
            dilations: vec![1, 2],
            padding: Padding::Explicit(vec![(0, 1), (2, 0)]),
        };
        vec![
            of(op(Sliding::strided(2, 1, 2), 1, &[1, 1]), &[2, 3, 3, 2], &[3, 4, 3, 3], 4, 36 * 36),
            of(op(Sliding::padded(2, 0), 2, &[0, 0]), &[1, 4, 2, 3], &[4, 1, 2, 2], 0, 24 * 4),
            of(op(uneven, 1, &[2, 0]), &[1, 2, 2, 4], &[2, 3, 2, 2], 3, 16 * 12),
            of(op(Sliding::strided(1, 0, 2), 3, &[1]), &[2, 3, 4], &[3, 2, 1], 6, 24 * 2),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(attributes: &[(&str, Attribute)]) -> Vec<f64> {
        let mut graph = crate::graph::Graph::new("up");
        let x = graph.constant(Tensor::f32([1, 1, 2], vec![1.0, 1.0]));
        let w = graph.constant(Tensor::f32([1, 1, 3], vec![1.0, 2.0, 4.0]));
        let stride = [("strides", Attribute::Ints(vec![2]))];
        let attributes = stride.iter().chain(attributes).map(|(k, v)| (k.to_string(), v.clone())).collect();
        let inputs = vec![Some(x), Some(w)];
        let mut node = ForeignNode::new(
            &mut graph,
            "ConvTranspose",
            "",
            20,
            inputs,
            vec!["y".into()],
            attributes,
            Default::default(),
        );
        let y = ConvTranspose::import(&mut node).unwrap()[0];
        graph.set_outputs(vec![y]);
        let results = crate::interpret::interpret(&graph, &mut Default::default(), &Default::default());
        results.unwrap()[0].to_f64().into_owned()
    }

    #[test]
    fn automatic_padding_and_output_shape_agree_with_onnxruntime() {
        let auto = |text: &str| ("auto_pad", Attribute::Text(text.into()));
        let extent = |n| ("output_shape", Attribute::Ints(vec![n]));
        assert_eq!(import(&[]), [1.0, 2.0, 5.0, 2.0, 4.0]);
        assert_eq!(import(&[auto("SAME_UPPER")]), [1.0, 2.0, 5.0, 2.0]);
        assert_eq!(import(&[auto("SAME_LOWER")]), [2.0, 5.0, 2.0, 4.0]);
        assert_eq!(import(&[extent(4)]), [2.0, 5.0, 2.0, 4.0]);
        assert_eq!(import(&[extent(4), auto("SAME_UPPER")]), [1.0, 2.0, 5.0, 2.0]);
        assert_eq!(import(&[extent(6)]), [1.0, 2.0, 5.0, 2.0, 4.0, 0.0]);
    }
}
