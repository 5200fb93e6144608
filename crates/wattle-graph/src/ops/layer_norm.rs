//! LayerNormalization: every sample shifted and scaled by its own statistics over the last axes.

use super::batch_norm::{inv_std_slope, statistics_gradient};
use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};

/// `y = scale (x - mean) / sqrt(var + epsilon) + bias` with the statistics taken over `axis` and all axes after
/// it (Ba et al. 2016, equation 4).
///
/// `(x, scale, bias?) -> (y, mean, inv_std)`; scale and bias have the extents of the axes normalised over, mean
/// and inv_std those of x with these axes reduced to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    /// First axis normalised over; negative counts from the end.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `(x, scale, mean, inv_std, dy) -> (dx, dscale, dbias)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerNormalizationGradient {
    /// First axis normalised over; negative counts from the end.
    pub axis: i64,
}

/// Checks x and the operands that have the extents of its last axes; gives the first normalised axis.
fn expect_layers(
    inputs: Operands<'_>,
    axis: i64,
    last: &[(usize, &'static str)],
) -> Result<Option<usize>, OpError> {
    let dtype = inputs.expect_float(0, "x")?;
    let x = inputs.dims(0, "x")?;
    let axis = x.map(|x| axis_of(axis, x.len())).transpose()?;
    for &(index, name) in last {
        inputs.expect_dtype(index, name, &[dtype])?;
        let (Some(x), Some(axis), Some(found)) = (x, axis, inputs.dims(index, name)?) else { continue };
        let agree = |(a, b): (&Dim, &Dim)| a == b || a.known().is_none() || b.known().is_none();
        if found.len() != x.len() - axis || !found.iter().zip(&x[axis..]).all(agree) {
            let wanted = Shape::from(x[axis..].to_vec());
            return Err(OpError::mismatch(name, inputs.ty(index, name)?, wanted));
        }
    }
    Ok(axis)
}

/// Extents of the statistics.
fn reduced(x: &Shape, axis: Option<usize>) -> Shape {
    match (x.dims(), axis) {
        (Some(x), Some(axis)) => {
            let mut dims = vec![Dim::Known(1); x.len()];
            dims[..axis].clone_from_slice(&x[..axis]);
            dims.into()
        }
        _ => Shape::Unknown,
    }
}

impl Operator for LayerNormalization {
    fn name(&self) -> &'static str {
        "LayerNormalization"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axis = (self.axis != -1).then_some(("axis", Attribute::Int(self.axis)));
        let epsilon = (self.epsilon != 1e-5).then_some(("epsilon", Attribute::Float(self.epsilon)));
        [axis, epsilon].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let last = [(1, "scale"), (2, "bias")];
        let count = if inputs.optional(2).is_some() { 2 } else { 1 };
        let axis = expect_layers(inputs, self.axis, &last[..count])?;
        let x = inputs.ty(0, "x")?;
        let statistics = TensorType::new(x.dtype, reduced(&x.shape, axis));
        Ok(vec![x.clone(), statistics.clone(), statistics])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shapes = result_shapes(self, inputs)?;
        let (x, scale) = (inputs.get(0)?, inputs.get(1)?.to_f64());
        let (xs, bias) = (x.to_f64(), inputs.optional(2).map(Tensor::to_f64));
        let size = scale.len();
        let (mut y, mut means, mut inv_stds) = (vec![0.0; x.len()], vec![], vec![]);
        for row in 0..shapes[1].iter().product() {
            let row = row * size..(row + 1) * size;
            let mean = xs[row.clone()].iter().sum::<f64>() / size as f64;
            let var = xs[row.clone()].iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / size as f64;
            let inv_std = 1.0 / (var + f64::from(self.epsilon)).sqrt();
            for (k, i) in row.enumerate() {
                y[i] = (xs[i] - mean) * inv_std * scale[k] + bias.as_ref().map_or(0.0, |b| b[k]);
            }
            means.push(mean);
            inv_stds.push(inv_std);
        }
        let of = |shape: &[usize], v| Tensor::from_f64(x.dtype(), shape, v);
        Ok(vec![of(x.shape(), y), of(&shapes[1], means), of(&shapes[1], inv_stds)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut gradients = vec![None; 3];
        let (x, mean, inv_std) = (g.input(0), g.output(1), g.output(2));
        if let Some(dy) = g.output_gradient(0) {
            let operands = [x, g.input(1), mean, inv_std, dy].map(Some);
            let parts = g.apply_all(LayerNormalizationGradient { axis: self.axis }, &operands)?;
            parts.into_iter().enumerate().for_each(|(i, part)| gradients[i] = Some(part));
        }
        let mut dvar = None;
        if let Some(d) = g.output_gradient(2) {
            let slope = inv_std_slope(g, inv_std)?;
            dvar = Some(g.apply(Binary { function: BinaryFunction::Mul }, &[d, slope])?);
        }
        let dmean = g.output_gradient(1);
        if let Some(share) = statistics_gradient(g, x, mean, dmean, dvar)? {
            gradients[0] = Some(match gradients[0] {
                None => share,
                Some(dx) => g.apply(Binary { function: BinaryFunction::Add }, &[dx, share])?,
            });
        }
        Ok(Gradient::Inputs(gradients))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Mean 1, variance 3, normalisation 2, scale and bias 2.
        Work::elementwise(8 * shapes.input_len(0))
    }
}

impl Described for LayerNormalization {
    const ONNX: &'static [&'static str] = &["LayerNormalization", "MeanVarianceNormalization"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        if node.op_type() == "MeanVarianceNormalization" {
            return import_mean_variance(node);
        }
        // The statistics are computed in f64 here and at least in f32 elsewhere, whatever the stash type.
        node.attribute("stash_type");
        let op = LayerNormalization { axis: node.int("axis", -1)?, epsilon: node.float("epsilon", 1e-5)? };
        let mut operands = node.inputs().to_vec();
        for operand in operands.iter_mut().skip(1).flatten() {
            *operand = as_layers(node, *operand, op.axis)?;
        }
        node.apply_all(op, &operands)
    }

    fn examples() -> Vec<Example> {
        let of = |axis, epsilon, scale: &[usize], bias: bool| {
            let mut inputs = vec![Example::noise(&[2, 3, 4], 1), Example::noise(scale, 2)];
            if bias {
                inputs.push(Example::noise(scale, 3));
            }
            Example::new(LayerNormalization { axis, epsilon }, inputs)
        };
        vec![of(-1, 1e-5, &[4], true), of(1, 1e-2, &[3, 4], true), of(2, 1e-5, &[4], false)]
    }
}

/// A scale or bias with the extents of the axes normalised over; files may give one that only broadcasts to them.
fn as_layers(node: &mut ForeignNode<'_>, value: ValueId, axis: i64) -> Result<ValueId, ImportError> {
    let x = node.graph().value(node.input(0)?).ty.shape.clone();
    let first = x.rank().and_then(|rank| crate::shape::normalize_axis(axis, rank));
    let (Some(dims), Some(first)) = (x.dims(), first) else { return Ok(value) };
    let wanted: Option<Vec<i64>> = dims[first..].iter().map(|d| d.known().map(|n| n as i64)).collect();
    let found = node.graph().value(value).ty.shape.extents();
    let (Some(wanted), Some(found)) = (wanted, found) else { return Ok(value) };
    let same = found.iter().map(|&n| n as i64).eq(wanted.iter().copied());
    if same || found.len() > wanted.len() {
        return Ok(value);
    }
    let shape = node.constant(Tensor::ints(&wanted));
    node.apply(Expand, &[value, shape])
}

/// `(x - mean(x)) / (sqrt(mean(x^2) - mean(x)^2) + 1e-9)` over any axes, as the specification writes it; the
/// variance is taken as the mean square of `x - mean(x)`, which cannot become negative.
fn import_mean_variance(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let axes = node.ints("axes", &[0, 2, 3])?;
    let x = node.input(0)?;
    let dtype = node.graph().value(x).ty.dtype;
    let mean = Reduce { kind: Reduction::Mean, axes, keep_dims: true };
    let binary = |function| Binary { function };
    let average = node.apply(mean.clone(), &[x])?;
    let centred = node.apply(binary(BinaryFunction::Sub), &[x, average])?;
    let square = node.apply(binary(BinaryFunction::Mul), &[centred, centred])?;
    let variance = node.apply(mean, &[square])?;
    let deviation = node.apply(Unary { function: Function::Sqrt }, &[variance])?;
    let small = node.constant(Tensor::from_f64(dtype, [], vec![1e-9]));
    let divisor = node.apply(binary(BinaryFunction::Add), &[deviation, small])?;
    Ok(vec![node.apply(binary(BinaryFunction::Div), &[centred, divisor])?])
}

impl Operator for LayerNormalizationGradient {
    fn name(&self) -> &'static str {
        "LayerNormalizationGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let axis = expect_layers(inputs, self.axis, &[(1, "scale")])?;
        let (x, scale, dy) = (inputs.ty(0, "x")?, inputs.ty(1, "scale")?, inputs.ty(4, "dy")?);
        if x != dy {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        let statistics = TensorType::new(x.dtype, reduced(&x.shape, axis));
        for (index, name) in [(2, "mean"), (3, "inv_std")] {
            if *inputs.ty(index, name)? != statistics {
                return Err(OpError::mismatch(name, inputs.ty(index, name)?, statistics));
            }
        }
        Ok(vec![x.clone(), scale.clone(), scale.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, scale_tensor) = (inputs.get(0)?, inputs.get(1)?);
        let (xs, scale, dys) = (x.to_f64(), scale_tensor.to_f64(), inputs.get(4)?.to_f64());
        let (means, inv_stds) = (inputs.get(2)?.to_f64(), inputs.get(3)?.to_f64());
        let size = scale.len();
        let (mut dx, mut dscale, mut dbias) = (vec![0.0; x.len()], vec![0.0; size], vec![0.0; size]);
        for (row, (mean, inv_std)) in means.iter().zip(inv_stds.iter()).enumerate() {
            let at = |k: usize| row * size + k;
            let normal = |k: usize| (xs[at(k)] - mean) * inv_std;
            let (mut level, mut along) = (0.0, 0.0);
            for k in 0..size {
                let dy = dys[at(k)];
                dscale[k] += dy * normal(k);
                dbias[k] += dy;
                level += dy * scale[k] / size as f64;
                along += dy * scale[k] * normal(k) / size as f64;
            }
            for k in 0..size {
                dx[at(k)] = inv_std * (dys[at(k)] * scale[k] - level - normal(k) * along);
            }
        }
        let of = |like: &Tensor, v| Tensor::from_f64(x.dtype(), like.shape(), v);
        Ok(vec![of(x, dx), of(scale_tensor, dscale), of(scale_tensor, dbias)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of LayerNormalization are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(13 * shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for LayerNormalizationGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let shapes: [&[usize]; 5] = [&[2, 3], &[3], &[2, 1], &[2, 1], &[2, 3]];
        let inputs = shapes.iter().enumerate().map(|(i, s)| Example::noise(s, i as u32)).collect();
        vec![Example::new(LayerNormalizationGradient { axis: -1 }, inputs)]
    }
}
