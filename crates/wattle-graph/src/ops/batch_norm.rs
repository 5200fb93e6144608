//! BatchNormalization: every channel shifted and scaled by given or by the batch's own statistics.

use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};

/// `y = scale (x - mean) / sqrt(var + epsilon) + bias` for x `[N, C, d..]`, the others `[C]`
/// (Ioffe & Szegedy 2015, algorithm 1).
///
/// Inference: `(x, scale, bias, mean, var) -> y`. Training: mean and var are the running statistics, x is
/// normalised by its own, and the results are y, the next running mean and variance
/// (`momentum running + (1 - momentum) batch`, with the population variance, as in ONNX), and, saved for the
/// gradient, the batch's mean and `1 / sqrt(var + epsilon)`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Fraction of the running statistics kept; matters in training only.
    pub momentum: f32,
    /// Normalises by the batch's statistics.
    pub training: bool,
}

/// `(x, scale, saved_mean, saved_inv_std, dy) -> (dx, dscale, dbias)` of the training form (Ioffe & Szegedy 2015,
/// section 3, simplified: `dx = scale inv_std (dy - mean(dy) - xhat mean(dy xhat))`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchNormalizationGradient;

/// Checks that x has channels and that each `[C]` operand listed has one number per channel.
fn expect_channels(inputs: Operands<'_>, per_channel: &[(usize, &'static str)]) -> Result<Dim, OpError> {
    let dtype = inputs.expect_float(0, "x")?;
    let mut channels = match inputs.dims(0, "x")? {
        Some([_, c, ..]) => Some(c.clone()),
        Some(_) => return Err(OpError::mismatch("x", inputs.ty(0, "x")?, "at least the axes [N, C]")),
        None => None,
    };
    for &(index, name) in per_channel {
        inputs.expect_dtype(index, name, &[dtype])?;
        inputs.expect_rank(index, name, 1)?;
        let Some([n]) = inputs.dims(index, name)? else { continue };
        match &channels {
            Some(c) if c == n => {}
            Some(Dim::Known(c)) if n.known().is_some() => {
                return Err(OpError::mismatch(name, n, format!("one per channel, {c}")));
            }
            Some(Dim::Known(_)) => {}
            _ => channels = Some(n.clone()),
        }
    }
    Ok(channels.unwrap_or_else(|| Dim::symbol("channels")))
}

/// Positions of one channel: calls `visit(channel, flat index)` for every element, channel by channel.
fn each_of_channel(shape: &[usize], channel: usize, mut visit: impl FnMut(usize)) {
    let inner: usize = shape[2..].iter().product();
    for sample in 0..shape[0] {
        let first = (sample * shape[1] + channel) * inner;
        (first..first + inner).for_each(&mut visit);
    }
}

impl Operator for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![];
        if self.epsilon != 1e-5 {
            attributes.push(("epsilon", Attribute::Float(self.epsilon)));
        }
        if self.training {
            if self.momentum != 0.9 {
                attributes.push(("momentum", Attribute::Float(self.momentum)));
            }
            attributes.push(("training_mode", Attribute::Int(1)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let channels = expect_channels(inputs, &[(1, "scale"), (2, "bias"), (3, "mean"), (4, "var")])?;
        let x = inputs.ty(0, "x")?;
        let mut results = vec![x.clone()];
        if self.training {
            results.extend(vec![TensorType::new(x.dtype, Shape::from(vec![channels])); 4]);
        }
        Ok(results)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (shape, xs) = (x.shape(), x.to_f64());
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| inputs.get(i));
        let (scale, bias) = (scale?.to_f64(), bias?.to_f64());
        let (mut mean, mut var) = (mean?.to_f64().into_owned(), var?.to_f64().into_owned());
        let (mut next_mean, mut next_var) = (vec![], vec![]);
        if self.training && !shape.contains(&0) {
            let count = (x.len() / shape[1]) as f64;
            let momentum = f64::from(self.momentum);
            for c in 0..shape[1] {
                let (mut sum, mut squares) = (0.0, 0.0);
                each_of_channel(shape, c, |i| sum += xs[i]);
                let batch_mean = sum / count;
                each_of_channel(shape, c, |i| squares += (xs[i] - batch_mean) * (xs[i] - batch_mean));
                let batch_var = squares / count;
                next_mean.push(momentum * mean[c] + (1.0 - momentum) * batch_mean);
                next_var.push(momentum * var[c] + (1.0 - momentum) * batch_var);
                (mean[c], var[c]) = (batch_mean, batch_var);
            }
        } else if self.training {
            // No sample, no news.
            (next_mean, next_var) = (mean.clone(), var.clone());
        }
        let inv_std: Vec<f64> = var.iter().map(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt()).collect();
        let mut y = vec![0.0; x.len()];
        if !shape.contains(&0) {
            for c in 0..shape[1] {
                let factor = scale[c] * inv_std[c];
                each_of_channel(shape, c, |i| y[i] = (xs[i] - mean[c]) * factor + bias[c]);
            }
        }
        let mut results = vec![Tensor::from_f64(x.dtype(), shape, y)];
        if self.training {
            let of = |v| Tensor::from_f64(x.dtype(), [shape[1]], v);
            results.extend([next_mean, next_var, mean, inv_std].map(of));
        }
        Ok(results)
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if self.training { self.training_gradient(g) } else { self.inference_gradient(g) }
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Inference folds to one multiplication and addition; training adds two passes of two for the statistics.
        Work::elementwise(if self.training { 7 } else { 2 } * shapes.input_len(0))
    }

    /// Files are for inference: training mode is written only where the running statistics that it computes are read.
    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let inputs: Vec<String> = (0..5).map(|i| node.input(i)).collect();
        let training = self.training && (1..3).any(|i| node.is_read(i));
        let outputs = (0..if training { 3 } else { 1 }).map(|i| node.output(i)).collect();
        let attributes = BatchNormalization { training, ..self.clone() }.attributes();
        node.emit_outputs("BatchNormalization", &inputs, outputs, attributes);
        Ok(())
    }
}

fn binary(
    g: &mut Backward<'_>,
    function: BinaryFunction,
    a: ValueId,
    b: ValueId,
) -> Result<ValueId, GraphError> {
    g.apply(Binary { function }, &[a, b])
}

/// A `[C]` value under the shape `[C, 1..]`, which broadcasts over an operand of `rank` axes `[N, C, d..]`.
fn over_channels(g: &mut Backward<'_>, value: ValueId, rank: usize) -> Result<ValueId, GraphError> {
    let mut shape = vec![1; rank - 1];
    shape[0] = -1;
    let shape = g.constant(Tensor::ints(&shape));
    g.apply(Reshape { allow_zero: false }, &[value, shape])
}

/// The sum of `[N, C, d..]` over all but channels, as `[C]`.
pub(super) fn sum_to_channels(g: &mut Backward<'_>, value: ValueId) -> Result<ValueId, GraphError> {
    let extents = g.extents(value)?;
    let mut shape = vec![1; extents.len() - 1];
    shape[0] = extents[1];
    let sum = g.apply(SumTo { shape }, &[value])?;
    let flat = g.constant(Tensor::ints(&[-1]));
    g.apply(Reshape { allow_zero: false }, &[sum, flat])
}

fn scaled(g: &mut Backward<'_>, value: ValueId, factor: f64) -> Result<ValueId, GraphError> {
    let factor = g.constant(Tensor::from_f64(g.dtype(value), [], vec![factor]));
    binary(g, BinaryFunction::Mul, value, factor)
}

/// Adds up to two gradients that may be missing.
fn sum_of(
    g: &mut Backward<'_>,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>, GraphError> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(Some(binary(g, BinaryFunction::Add, a, b)?)),
        (a, b) => Ok(a.or(b)),
    }
}

impl BatchNormalization {
    fn training_gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut gradients = vec![None; 5];
        let (x, saved_mean, inv_std) = (g.input(0), g.output(3), g.output(4));
        if let Some(dy) = g.output_gradient(0) {
            let operands = [x, g.input(1), saved_mean, inv_std, dy].map(Some);
            let parts = g.apply_all(BatchNormalizationGradient, &operands)?;
            parts.into_iter().enumerate().for_each(|(i, part)| gradients[i] = Some(part));
        }
        // The running statistics seldom reach a loss; where they do, their share is added.
        let momentum = f64::from(self.momentum);
        let [mut dmean, mut dvar] = [None; 2];
        if let Some(d) = g.output_gradient(1) {
            gradients[3] = Some(scaled(g, d, momentum)?);
            dmean = Some(scaled(g, d, 1.0 - momentum)?);
        }
        if let Some(d) = g.output_gradient(2) {
            gradients[4] = Some(scaled(g, d, momentum)?);
            dvar = Some(scaled(g, d, 1.0 - momentum)?);
        }
        dmean = sum_of(g, dmean, g.output_gradient(3))?;
        if let Some(d) = g.output_gradient(4) {
            let slope = inv_std_slope(g, inv_std)?;
            let d = binary(g, BinaryFunction::Mul, d, slope)?;
            dvar = sum_of(g, dvar, Some(d))?;
        }
        let rank = g.extents(x)?.len();
        let over =
            |g: &mut Backward<'_>, d: Option<ValueId>| d.map(|d| over_channels(g, d, rank)).transpose();
        let (mean, dmean, dvar) = (over(g, Some(saved_mean))?, over(g, dmean)?, over(g, dvar)?);
        if let Some(mean) = mean {
            let share = statistics_gradient(g, x, mean, dmean, dvar)?;
            gradients[0] = sum_of(g, gradients[0], share)?;
        }
        Ok(Gradient::Inputs(gradients))
    }

    /// The statistics are operands like any other here.
    fn inference_gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        use BinaryFunction::{Add, Mul, Sub};
        let (x, scale, mean, var, dy) = (g.input(0), g.input(1), g.input(3), g.input(4), g.gradient());
        let rank = g.extents(x)?.len();
        let epsilon = g.constant(Tensor::scalar(self.epsilon).cast(g.dtype(x)));
        let shifted = binary(g, Add, var, epsilon)?;
        let std = g.apply(Unary { function: Function::Sqrt }, &[shifted])?;
        let inv_std = g.apply(Unary { function: Function::Reciprocal }, &[std])?;
        let factor = binary(g, Mul, scale, inv_std)?;
        let mut gradients = vec![None; 5];
        if g.wants(0) {
            let factor = over_channels(g, factor, rank)?;
            gradients[0] = Some(binary(g, Mul, dy, factor)?);
        }
        if g.wants(2) || g.wants(3) {
            let dbias = sum_to_channels(g, dy)?;
            gradients[2] = Some(dbias);
            let dmean = binary(g, Mul, dbias, factor)?;
            gradients[3] = Some(g.apply(Unary { function: Function::Neg }, &[dmean])?);
        }
        if g.wants(1) || g.wants(4) {
            let mean = over_channels(g, mean, rank)?;
            let centred = binary(g, Sub, x, mean)?;
            let product = binary(g, Mul, centred, dy)?;
            let sum = sum_to_channels(g, product)?;
            gradients[1] = Some(binary(g, Mul, sum, inv_std)?);
            let slope = inv_std_slope(g, inv_std)?;
            let slope = binary(g, Mul, scale, slope)?;
            gradients[4] = Some(binary(g, Mul, sum, slope)?);
        }
        Ok(Gradient::Inputs(gradients))
    }
}

/// `d inv_std / d var = -inv_std^3 / 2`.
pub(super) fn inv_std_slope(g: &mut Backward<'_>, inv_std: ValueId) -> Result<ValueId, GraphError> {
    let square = binary(g, BinaryFunction::Mul, inv_std, inv_std)?;
    let cube = binary(g, BinaryFunction::Mul, square, inv_std)?;
    scaled(g, cube, -0.5)
}

/// What the gradients of mean and population variance add to that of x: `(dmean + 2 (x - mean) dvar) / count`.
/// All but x have extent 1 along the axes that the statistics are over.
pub(super) fn statistics_gradient(
    g: &mut Backward<'_>,
    x: ValueId,
    mean: ValueId,
    dmean: Option<ValueId>,
    dvar: Option<ValueId>,
) -> Result<Option<ValueId>, GraphError> {
    let shape = g.extents(x)?;
    let total: usize = shape.iter().product();
    let groups: usize = g.extents(mean)?.iter().product();
    let count = (total / groups.max(1)) as f64;
    let mut dx = None;
    if let Some(dvar) = dvar {
        let centred = binary(g, BinaryFunction::Sub, x, mean)?;
        let product = binary(g, BinaryFunction::Mul, centred, dvar)?;
        dx = Some(scaled(g, product, 2.0 / count)?);
    }
    if let Some(dmean) = dmean {
        let share = scaled(g, dmean, 1.0 / count)?;
        let zeros = g.constant(Tensor::zeros(g.dtype(x), shape));
        let share = binary(g, BinaryFunction::Add, share, zeros)?;
        dx = sum_of(g, dx, Some(share))?;
    }
    Ok(dx)
}

impl Described for BatchNormalization {
    const ONNX: &'static [&'static str] = &["BatchNormalization"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (epsilon, momentum) = (node.float("epsilon", 1e-5)?, node.float("momentum", 0.9)?);
        if node.int("spatial", 1)? != 1 {
            return Err(node.refuse("spatial = 0; only statistics per channel are known"));
        }
        // Before opset 14, asking for more than y meant training; it also offered the saved statistics.
        let training = match node.opset() {
            14.. => node.int("training_mode", 0)? != 0,
            _ => (1..node.output_count()).any(|i| node.wants_output(i)),
        };
        if training {
            node.leaves_out(
                "it was exported in training mode; it trains so, and models are written with it in inference mode",
            );
        }
        if node.wants_output(3) || node.wants_output(4) {
            return Err(node.refuse("the saved statistics are not among the results"));
        }
        let mut results = node.finish(BatchNormalization { epsilon, momentum, training })?;
        results.truncate(3);
        Ok(results)
    }

    fn examples() -> Vec<Example> {
        let of = |training, epsilon, momentum, shape: &[usize]| {
            let c = shape[1];
            let var = Example::noise(&[c], 5).to_f64().iter().map(|x| x.abs() + 0.5).collect();
            let var = Tensor::from_f64(crate::tensor::DType::F32, [c], var);
            let [scale, bias, mean] = [2, 3, 4].map(|seed| Example::noise(&[c], seed));
            let op = BatchNormalization { epsilon, momentum, training };
            Example::new(op, vec![Example::noise(shape, 1), scale, bias, mean, var])
        };
        vec![
            of(false, 1e-5, 0.9, &[2, 3, 2, 2]),
            of(false, 1e-2, 0.9, &[3, 2]),
            of(true, 1e-5, 0.9, &[2, 3, 2, 3]),
            of(true, 1e-3, 0.7, &[5, 2]),
            of(true, 1e-5, 0.9, &[2, 2, 3]),
        ]
    }
}

impl Operator for BatchNormalizationGradient {
    fn name(&self) -> &'static str {
        "BatchNormalizationGradient"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let channels = expect_channels(inputs, &[(1, "scale"), (2, "saved_mean"), (3, "saved_inv_std")])?;
        let (x, dy) = (inputs.ty(0, "x")?, inputs.ty(4, "dy")?);
        if x != dy {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        let per_channel = TensorType::new(x.dtype, Shape::from(vec![channels]));
        Ok(vec![x.clone(), per_channel.clone(), per_channel])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (shape, xs, dys) = (x.shape(), x.to_f64(), inputs.get(4)?.to_f64());
        let [scale, mean, inv_std] = [1, 2, 3].map(|i| inputs.get(i).map(Tensor::to_f64));
        let (scale, mean, inv_std) = (scale?, mean?, inv_std?);
        let (mut dx, mut dscale, mut dbias) =
            (vec![0.0; x.len()], vec![0.0; scale.len()], vec![0.0; scale.len()]);
        if !shape.contains(&0) {
            let count = (x.len() / shape[1]) as f64;
            for c in 0..shape[1] {
                let normal = |i: usize| (xs[i] - mean[c]) * inv_std[c];
                each_of_channel(shape, c, |i| {
                    dscale[c] += dys[i] * normal(i);
                    dbias[c] += dys[i];
                });
                let (along, level) = (dscale[c] / count, dbias[c] / count);
                let factor = scale[c] * inv_std[c];
                each_of_channel(shape, c, |i| dx[i] = factor * (dys[i] - level - normal(i) * along));
            }
        }
        let of = |shape: &[usize], v| Tensor::from_f64(x.dtype(), shape, v);
        Ok(vec![of(shape, dx), of(&[scale.len()], dscale), of(&[scale.len()], dbias)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of BatchNormalization are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Two sums with the normalised operand computed on the way, then the combination.
        Work::elementwise(10 * shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for BatchNormalizationGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let [scale, mean] = [2, 3].map(|seed| Example::noise(&[3], seed));
        let inv_std = Tensor::f32([3], vec![0.7, 1.3, 2.1]);
        let (x, dy) = (Example::noise(&[2, 3, 2], 1), Example::noise(&[2, 3, 2], 5));
        vec![Example::new(BatchNormalizationGradient, vec![x, scale, mean, inv_std, dy])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_statistics_keep_the_stated_fraction() {
        let op = BatchNormalization { epsilon: 0.0, momentum: 0.75, training: true };
        let x = Tensor::f64([4, 1], vec![1.0, 3.0, 5.0, 7.0]);
        let [one, zero, eight] = [1.0, 0.0, 8.0].map(|v| Tensor::f64([1], vec![v]));
        let operands = [Some(&x), Some(&one), Some(&zero), Some(&eight), Some(&one)];
        let results = op.evaluate(Tensors::new(&operands)).unwrap();
        // Batch mean 4, population variance 5.
        assert_eq!(results[1].to_f64()[0], 0.75 * 8.0 + 0.25 * 4.0);
        assert_eq!(results[2].to_f64()[0], 0.75 * 1.0 + 0.25 * 5.0);
        assert_eq!(results[3].to_f64()[0], 4.0);
        assert!((results[4].to_f64()[0] - 0.2f64.sqrt()).abs() < 1e-15);
    }
}
