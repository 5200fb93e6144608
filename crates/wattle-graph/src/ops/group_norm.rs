//! GroupNormalization and InstanceNormalization: groups of channels of each sample, or every channel alone,
//! shifted and scaled by their own statistics.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Dim;

/// `y = scale (x - mean) / sqrt(var + epsilon) + bias`: `(x [N, C, d..], scale [C], bias [C]) -> y`, with the
/// statistics over each group of channels and all d (Wu & He 2018, equations 1 to 6; Ulyanov et al. 2016 with
/// one channel a group).
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNormalization {
    /// Number of groups, which divides C; `None` for one channel a group (InstanceNormalization).
    pub groups: Option<usize>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `(x, scale, dy) -> (dx, dscale, dbias)`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNormalizationGradient {
    /// The forward operator.
    pub forward: GroupNormalization,
}

impl GroupNormalization {
    fn expect(&self, inputs: Operands<'_>, last: &[(usize, &'static str)]) -> Result<TensorType, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        let channels = match inputs.dims(0, "x")? {
            Some([_, c, ..]) => c.known(),
            Some(_) => return Err(OpError::mismatch("x", inputs.ty(0, "x")?, "at least the axes [N, C]")),
            None => None,
        };
        if let (Some(groups), Some(c)) = (self.groups, channels)
            && (groups == 0 || c % groups != 0)
        {
            return Err(OpError::mismatch("num_groups", groups, format!("a divisor of {c} channels")));
        }
        for &(index, name) in last {
            inputs.expect_dtype(index, name, &[dtype])?;
            inputs.expect_rank(index, name, 1)?;
            if let (Some(c), Some([Dim::Known(n)])) = (channels, inputs.dims(index, name)?)
                && *n != c
            {
                return Err(OpError::mismatch(name, n, format!("one per channel, {c}")));
            }
        }
        Ok(inputs.ty(0, "x")?.clone())
    }

    /// Calls `group(first, len, channel)` for each group: its flat range in x, its number of elements, and a
    /// function from an offset in it to the channel.
    fn each_group(&self, shape: &[usize], mut group: impl FnMut(usize, usize, &dyn Fn(usize) -> usize)) {
        if shape.contains(&0) {
            return;
        }
        let groups = self.groups.unwrap_or(shape[1]);
        let plane: usize = shape[2..].iter().product();
        let (per_group, len) = (shape[1] / groups, shape[1] / groups * plane);
        for index in 0..shape[0] * groups {
            let first_channel = index % groups * per_group;
            group(index * len, len, &|offset| first_channel + offset / plane);
        }
    }

    /// Mean and `1 / sqrt(var + epsilon)`.
    fn statistics(&self, values: &[f64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let var = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
        (mean, 1.0 / (var + f64::from(self.epsilon)).sqrt())
    }
}

impl Operator for GroupNormalization {
    fn name(&self) -> &'static str {
        if self.groups.is_some() { "GroupNormalization" } else { "InstanceNormalization" }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let epsilon = (self.epsilon != 1e-5).then_some(("epsilon", Attribute::Float(self.epsilon)));
        let groups = self.groups.map(|g| ("num_groups", Attribute::Int(g as i64)));
        [epsilon, groups].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![self.expect(inputs, &[(1, "scale"), (2, "bias")])?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, scale, bias) = (inputs.get(0)?, inputs.get(1)?.to_f64(), inputs.get(2)?.to_f64());
        let xs = x.to_f64();
        let mut y = vec![0.0; x.len()];
        self.each_group(x.shape(), |first, len, channel| {
            let (mean, inv_std) = self.statistics(&xs[first..first + len]);
            for offset in 0..len {
                let c = channel(offset);
                y[first + offset] = (xs[first + offset] - mean) * inv_std * scale[c] + bias[c];
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.input(0), g.input(1), g.gradient()].map(Some);
        let parts = g.apply_all(GroupNormalizationGradient { forward: self.clone() }, &operands)?;
        Ok(Gradient::Inputs(parts.into_iter().map(Some).collect()))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Mean 1, variance 3, normalisation 2, scale and bias 2.
        Work::elementwise(8 * shapes.input_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let Some(groups) = self.groups else {
            node.same(self.name(), self.attributes());
            return Ok(());
        };
        // Before opset 21 GroupNormalization has one scale a group, not a channel: groups become instances.
        let rank = node.input_type(0).shape.rank().ok_or(OpError::Unbound("the operand's rank"))?;
        let joined = node.constant(Tensor::ints(&[0, groups as i64, -1]));
        let joined = node.emit("Reshape", &[node.input(0), joined], vec![]);
        let ones = node.constant(Tensor::f32([groups], vec![1.0; groups]));
        let zeros = node.constant(Tensor::f32([groups], vec![0.0; groups]));
        let epsilon = vec![("epsilon", Attribute::Float(self.epsilon))];
        let normal = node.emit("InstanceNormalization", &[joined, ones, zeros], epsilon);
        let shape = node.emit("Shape", &[node.input(0)], vec![]);
        let normal = node.emit("Reshape", &[normal, shape], vec![]);
        let mut channels = vec![1; rank - 1];
        channels[0] = -1;
        let channels = node.constant(Tensor::ints(&channels));
        let scale = node.emit("Reshape", &[node.input(1), channels.clone()], vec![]);
        let bias = node.emit("Reshape", &[node.input(2), channels], vec![]);
        let scaled = node.emit("Mul", &[normal, scale], vec![]);
        node.emit_final("Add", &[scaled, bias], vec![]);
        Ok(())
    }
}

/// One number a group, repeated for each of its channels.
fn per_channel(
    node: &mut ForeignNode<'_>,
    value: ValueId,
    groups: usize,
    channels: usize,
) -> Result<ValueId, ImportError> {
    let dtype = node.graph().value(value).ty.dtype;
    let column = node.constant(Tensor::ints(&[groups as i64, 1]));
    let column = node.apply(Reshape { allow_zero: false }, &[value, column])?;
    let zeros = node.constant(Tensor::zeros(dtype, [groups, channels / groups]));
    let table = node.apply(Binary { function: BinaryFunction::Add }, &[column, zeros])?;
    let flat = node.constant(Tensor::ints(&[-1]));
    node.apply(Reshape { allow_zero: false }, &[table, flat])
}

impl Described for GroupNormalization {
    const ONNX: &'static [&'static str] = &["GroupNormalization", "InstanceNormalization"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let epsilon = node.float("epsilon", 1e-5)?;
        if node.op_type() == "InstanceNormalization" {
            return node.finish(GroupNormalization { groups: None, epsilon });
        }
        node.attribute("stash_type");
        let groups = node.int("num_groups", 0)?;
        let (x, mut scale, mut bias) = (node.input(0)?, node.input(1)?, node.input(2)?);
        let channels = match node.graph().value(x).ty.shape.dims() {
            Some([_, Dim::Known(c), ..]) => *c,
            _ => return Err(node.refuse("the number of channels must be known")),
        };
        let groups = match usize::try_from(groups) {
            Ok(g) if g > 0 && channels % g == 0 && channels <= 1 << 24 => g,
            _ => {
                return Err(
                    node.refuse(format!("num_groups = {groups} of {channels} channels; it must divide them"))
                );
            }
        };
        if node.opset() < 21 {
            scale = per_channel(node, scale, groups, channels)?;
            bias = per_channel(node, bias, groups, channels)?;
        }
        Ok(vec![node.apply(GroupNormalization { groups: Some(groups), epsilon }, &[x, scale, bias])?])
    }

    fn examples() -> Vec<Example> {
        let of = |groups, epsilon, shape: &[usize]| {
            let inputs = [shape, &shape[1..2], &shape[1..2]];
            let inputs = inputs.iter().enumerate().map(|(i, s)| Example::noise(s, i as u32)).collect();
            Example::new(GroupNormalization { groups, epsilon }, inputs)
        };
        vec![
            of(Some(2), 1e-5, &[2, 4, 3]),
            of(Some(1), 1e-2, &[1, 3, 2, 2]),
            of(None, 1e-5, &[2, 3, 4]),
            of(None, 1e-2, &[1, 2, 2, 3]),
        ]
    }
}

impl Operator for GroupNormalizationGradient {
    fn name(&self) -> &'static str {
        "GroupNormalizationGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.forward.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = self.forward.expect(inputs, &[(1, "scale")])?;
        let (scale, dy) = (inputs.ty(1, "scale")?, inputs.ty(2, "dy")?);
        if *dy != x {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        Ok(vec![x, scale.clone(), scale.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, scale, dys) = (inputs.get(0)?, inputs.get(1)?.to_f64(), inputs.get(2)?.to_f64());
        let xs = x.to_f64();
        let (mut dx, mut dscale, mut dbias) =
            (vec![0.0; x.len()], vec![0.0; scale.len()], vec![0.0; scale.len()]);
        self.forward.each_group(x.shape(), |first, len, channel| {
            let (mean, inv_std) = self.forward.statistics(&xs[first..first + len]);
            let normal = |offset: usize| (xs[first + offset] - mean) * inv_std;
            let (mut level, mut along) = (0.0, 0.0);
            for offset in 0..len {
                let (c, dy) = (channel(offset), dys[first + offset]);
                dscale[c] += dy * normal(offset);
                dbias[c] += dy;
                level += dy * scale[c] / len as f64;
                along += dy * scale[c] * normal(offset) / len as f64;
            }
            for offset in 0..len {
                let d = dys[first + offset] * scale[channel(offset)];
                dx[first + offset] = inv_std * (d - level - normal(offset) * along);
            }
        });
        let of = |shape: &[usize], v| Tensor::from_f64(x.dtype(), shape, v);
        Ok(vec![of(x.shape(), dx), of(&[scale.len()], dscale), of(&[scale.len()], dbias)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of GroupNormalization are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(17 * shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for GroupNormalizationGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = GroupNormalization { groups: Some(2), epsilon: 1e-5 };
        let inputs =
            vec![Example::noise(&[2, 4, 3], 1), Example::noise(&[4], 2), Example::noise(&[2, 4, 3], 3)];
        vec![Example::new(GroupNormalizationGradient { forward }, inputs)]
    }
}
