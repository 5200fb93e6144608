//! Between real numbers and small integers: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

use super::*;
use crate::shape::Shape;
use crate::tensor::{DType, each_index, strides};

/// Integers that tensors are quantised to.
const QUANTIZED: &[DType] = &[DType::U8, DType::I8, DType::U16, DType::I16];

/// Scales and zero points as operands: of rank 0 (or one element) for the whole tensor, of rank 1 for each index
/// of `axis`, or (blocked) of the tensor's rank with one element per `block` indices of `axis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The axis that scales differ along; negative from the end.
    pub axis: i64,
    /// Indices of the axis that share a scale; 0 when not blocked.
    pub block: usize,
}

impl Quantization {
    fn import(node: &mut ForeignNode<'_>) -> Result<Quantization, ImportError> {
        let axis = node.int("axis", 1)?;
        match node.int("block_size", 0)? {
            block @ 0..=0x7fff_ffff => Ok(Quantization { axis, block: block as usize }),
            other => Err(node.refuse(format!("block_size = {other}; expected 0 to 2^31"))),
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axis = (self.axis != 1).then_some(("axis", Attribute::Int(self.axis)));
        let block = (self.block != 0).then_some(("block_size", Attribute::Int(self.block as i64)));
        axis.into_iter().chain(block).collect()
    }

    /// For each element of a tensor of extents `x`, the scale (of extents `scale`) that belongs to it.
    fn indices(&self, x: &[usize], scale: &[usize]) -> Result<Vec<usize>, OpError> {
        let count: usize = x.iter().product();
        if self.block == 0 && scale.iter().product::<usize>() == 1 {
            return Ok(vec![0; count]);
        }
        let axis = axis_of(self.axis, x.len())?;
        let expected = match self.block {
            0 => vec![x[axis]],
            block => {
                x.iter().enumerate().map(|(a, &n)| if a == axis { n.div_ceil(block) } else { n }).collect()
            }
        };
        if scale != expected {
            return Err(OpError::mismatch("scale", format!("{scale:?}"), format!("{expected:?}")));
        }
        let strides = strides(scale);
        let mut indices = Vec::with_capacity(count);
        each_index(x, |index| {
            indices.push(match self.block {
                0 => index[axis],
                block => {
                    let along = |(a, &i): (usize, &usize)| if a == axis { i / block } else { i } * strides[a];
                    index.iter().enumerate().map(along).sum()
                }
            });
        });
        Ok(indices)
    }
}

/// Checks that a zero point has the shape of its scale, or one element, wherever both are known.
fn expect_zero_point(inputs: Operands<'_>, index: usize) -> Result<(), OpError> {
    let (Some(zero), Some(scale)) = (inputs.optional(index), inputs.optional(index - 1)) else {
        return Ok(());
    };
    match (zero.ty.shape.extents(), scale.ty.shape.extents()) {
        (Some(z), Some(s)) if z != s && z.iter().product::<usize>() != s.iter().product() => {
            Err(OpError::mismatch("zero point", zero, format!("the shape of the scale, {scale}")))
        }
        _ => Ok(()),
    }
}

/// Smallest and largest value of an integer type.
pub(super) fn range(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        _ => (f64::from(i32::MIN), f64::from(i32::MAX)),
    }
}

/// `round(x) + zero` clamped to `dtype`; halves round to even.
pub(super) fn saturated(x: f64, zero: i64, dtype: DType) -> f64 {
    let (low, high) = range(dtype);
    (x.round_ties_even() + zero as f64).clamp(low, high)
}

/// `x / scale` in the arithmetic of `dtype`: quantised results are compared bit for bit.
fn quotient(x: f64, scale: f64, dtype: DType) -> f64 {
    if dtype == DType::F64 { x / scale } else { f64::from(x as f32 / scale as f32) }
}

/// `q = saturate(round(x / scale) + zero)` of `(x, scale, zero?)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeLinear {
    /// Which scale belongs to which element.
    pub quantization: Quantization,
    /// Type of the result.
    pub to: DType,
}

/// `x = (q - zero) * scale` of `(q, scale, zero?)`, in the type of the scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DequantizeLinear {
    /// Which scale belongs to which element.
    pub quantization: Quantization,
}

/// `(q, scale, zero)` of `x`, with q in u8 and the scale covering the range of x and 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicQuantizeLinear;

impl Operator for QuantizeLinear {
    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.quantization.attributes();
        if self.to != DType::U8 {
            attributes.push(("to", Attribute::Text(self.to.to_string())));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(0, "x", &[DType::F32, DType::F64, DType::I32])?;
        inputs.expect_float(1, "scale")?;
        if inputs.optional(2).is_some() {
            inputs.expect_dtype(2, "zero point", &[self.to])?;
        }
        expect_zero_point(inputs, 2)?;
        Ok(vec![TensorType::new(self.to, inputs.ty(0, "x")?.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, scale) = (inputs.get(0)?, inputs.get(1)?);
        let zero = inputs.optional(2).map(|z| z.to_i64());
        let at = self.quantization.indices(x.shape(), scale.shape())?;
        let scales = scale.to_f64();
        let one = |(&x, i): (&f64, usize)| {
            let zero = zero.as_ref().map_or(0, |z| z[i % z.len()]);
            saturated(quotient(x, scales[i], scale.dtype()), zero, self.to)
        };
        let q = x.to_f64().iter().zip(at).map(one).collect();
        Ok(vec![Tensor::from_f64(self.to, x.shape(), q)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("rounding is constant between its steps"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0).saturating_mul(3))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        refuse_newer(self.to, &self.quantization)?;
        let mut inputs = [node.input(0), node.input(1), node.input(2)];
        if inputs[2].is_empty() && self.to != DType::U8 {
            let scale =
                node.input_type(1).shape.extents().ok_or(OpError::Unbound("the shape of the scale"))?;
            inputs[2] = node.constant(Tensor::zeros(self.to, scale));
        }
        node.emit_final("QuantizeLinear", &inputs, self.quantization.attributes());
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

/// 16-bit integers and blocks came with operator set 21; we write 20.
fn refuse_newer(dtype: DType, quantization: &Quantization) -> Result<(), OpError> {
    if matches!(dtype, DType::U16 | DType::I16) || quantization.block != 0 {
        return Err(OpError::Unsupported("16-bit or blocked quantisation needs ONNX operator set 21".into()));
    }
    Ok(())
}

impl Described for QuantizeLinear {
    const ONNX: &'static [&'static str] = &["QuantizeLinear"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let quantization = Quantization::import(node)?;
        // Concerns float8 only, which is refused as a type.
        node.int("saturate", 1)?;
        let stated = match node.int("output_dtype", 0)? {
            0 => None,
            2 => Some(DType::U8),
            3 => Some(DType::I8),
            4 => Some(DType::U16),
            5 => Some(DType::I16),
            other => return Err(node.refuse(format!("output_dtype = {other} is not supported"))),
        };
        let zero = node.optional_input(2).map(|z| node.graph().value(z).ty.dtype);
        let to = zero.or(stated).unwrap_or(DType::U8);
        if !QUANTIZED.contains(&to) {
            return Err(node.refuse(format!("quantisation to {to} is not supported")));
        }
        node.finish(QuantizeLinear { quantization, to })
    }

    fn examples() -> Vec<Example> {
        let of = |to, axis, block, scale: Tensor, zero: Option<Vec<i64>>| {
            let zero = zero.map(|z| Tensor::from_i64(to, scale.shape(), z));
            let op = QuantizeLinear { quantization: Quantization { axis, block }, to };
            Example::optional(op, vec![Some(Example::noise(&[2, 3, 4], 1)), Some(scale), zero])
        };
        let blocked = Tensor::f32([2, 3, 2], (1..13).map(|i| i as f32 * 0.01).collect());
        vec![
            of(DType::U8, 1, 0, Tensor::scalar(0.01), None),
            of(DType::U8, 1, 0, Tensor::f32([3], vec![0.01, 0.002, 0.1]), Some(vec![128, 0, 7])),
            of(DType::I8, -1, 0, Tensor::f32([4], vec![0.1, 0.01, 0.02, 1.0]), Some(vec![0, -3, 5, 100])),
            of(DType::I16, 1, 0, Tensor::f32([1], vec![0.001]), None),
            of(DType::I8, 2, 2, blocked, Some((0..12).collect())),
        ]
    }
}

impl Operator for DequantizeLinear {
    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.quantization.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_dtype(0, "q", &[QUANTIZED, &[DType::I32]].concat())?;
        let scale = inputs.expect_float(1, "scale")?;
        if inputs.optional(2).is_some() {
            inputs.expect_dtype(2, "zero point", &[dtype])?;
        }
        expect_zero_point(inputs, 2)?;
        Ok(vec![TensorType::new(scale, inputs.ty(0, "q")?.shape.clone())])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (q, scale) = (inputs.get(0)?, inputs.get(1)?);
        let zero = inputs.optional(2).map(|z| z.to_i64());
        let at = self.quantization.indices(q.shape(), scale.shape())?;
        let scales = scale.to_f64();
        let one = |(&q, i): (&i64, usize)| {
            let steps = q - zero.as_ref().map_or(0, |z| z[i % z.len()]);
            // f32 as in every other implementation: an i32 is rounded before it is scaled.
            if scale.dtype() == DType::F64 {
                steps as f64 * scales[i]
            } else {
                f64::from(steps as f32) * scales[i]
            }
        };
        let x = q.to_i64().iter().zip(at).map(one).collect();
        Ok(vec![Tensor::from_f64(scale.dtype(), q.shape(), x)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("scales of quantised tensors are not trained"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0).saturating_mul(2))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        refuse_newer(node.input_type(0).dtype, &self.quantization)?;
        node.same(self.name(), self.quantization.attributes());
        Ok(())
    }
}

impl Described for DequantizeLinear {
    const ONNX: &'static [&'static str] = &["DequantizeLinear"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let quantization = Quantization::import(node)?;
        match node.int("output_dtype", 0)? {
            // 0 is the type of the scale, 1 is f32.
            0 | 1 => node.finish(DequantizeLinear { quantization }),
            other => Err(node.refuse(format!("output_dtype = {other} is not supported"))),
        }
    }

    fn examples() -> Vec<Example> {
        let of = |dtype, axis, block, scale: Tensor, zero: Option<Vec<i64>>| {
            let q = Tensor::from_i64(dtype, [2, 3, 2], (0..12).map(|i| i * 21 - 100).collect());
            let zero = zero.map(|z| Tensor::from_i64(dtype, scale.shape(), z));
            let op = DequantizeLinear { quantization: Quantization { axis, block } };
            Example::optional(op, vec![Some(q), Some(scale), zero])
        };
        let blocked = Tensor::f32([2, 2, 2], (1..9).map(|i| i as f32 * 0.01).collect());
        vec![
            of(DType::I8, 1, 0, Tensor::scalar(0.5), None),
            of(DType::U8, 1, 0, Tensor::scalar(0.5), Some(vec![3])),
            of(DType::I16, -2, 0, Tensor::f32([3], vec![0.5, 1.0, 2.0]), Some(vec![3, 4, -5])),
            of(DType::I32, 0, 0, Tensor::f32([2], vec![0.5, 1.5]), None),
            of(DType::I8, 1, 2, blocked, Some((0..8).collect())),
        ]
    }
}

impl Operator for DynamicQuantizeLinear {
    fn name(&self) -> &'static str {
        "DynamicQuantizeLinear"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        Ok(vec![
            TensorType::new(DType::U8, inputs.ty(0, "x")?.shape.clone()),
            TensorType::new(dtype, Shape::known(&[])),
            TensorType::new(DType::U8, Shape::known(&[])),
        ])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let xs = x.to_f64();
        let (low, high) = xs.iter().fold((0.0f64, 0.0f64), |(low, high), &x| (low.min(x), high.max(x)));
        let rounded = |v: f64| if x.dtype() == DType::F64 { v } else { f64::from(v as f32) };
        let range = rounded(high - low);
        // The specification divides by zero for a tensor of zeros; any scale describes it.
        let scale = if range == 0.0 { 1.0 } else { rounded(range / 255.0) };
        let zero = saturated(-quotient(low, scale, x.dtype()), 0, DType::U8);
        let q =
            xs.iter().map(|&v| saturated(quotient(v, scale, x.dtype()), zero as i64, DType::U8)).collect();
        Ok(vec![
            Tensor::from_f64(DType::U8, x.shape(), q),
            Tensor::from_f64(x.dtype(), [], vec![scale]),
            Tensor::from_f64(DType::U8, [], vec![zero]),
        ])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("the scale depends on extremes, the rest on rounding"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0).saturating_mul(5))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for DynamicQuantizeLinear {
    const ONNX: &'static [&'static str] = &["DynamicQuantizeLinear"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(DynamicQuantizeLinear)
    }

    fn examples() -> Vec<Example> {
        let of =
            |values: Vec<f32>| Example::new(DynamicQuantizeLinear, vec![Tensor::f32([values.len()], values)]);
        vec![
            of(vec![0.0, 2.0, -3.0, -2.5, 1.34, 0.5]),
            of(vec![1.0, 2.1, 1.3]),
            of(vec![-1.0, -2.1]),
            of(vec![0.0]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_even_and_results_saturate() {
        let x = Tensor::f32([6], vec![0.5, 1.5, -0.5, 1000.0, -1000.0, f32::NAN]);
        let op = QuantizeLinear { quantization: Quantization { axis: 1, block: 0 }, to: DType::I8 };
        let zero = Tensor::from_i64(DType::I8, [], vec![1]);
        let q = op.evaluate(Tensors::new(&[Some(&x), Some(&Tensor::scalar(1.0)), Some(&zero)])).unwrap();
        assert_eq!(q[0].to_i64().as_ref(), &[1, 3, 1, 127, -128, 0]);
    }

    #[test]
    fn a_scale_that_fits_no_axis_is_refused() {
        let quantization = Quantization { axis: 1, block: 0 };
        assert!(quantization.indices(&[2, 3], &[2]).is_err());
        assert!(quantization.indices(&[2], &[2]).is_err());
    }
}
