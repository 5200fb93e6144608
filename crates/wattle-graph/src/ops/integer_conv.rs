//! Convolution of quantised tensors: ConvInteger, whose sums stay i32, and QLinearConv, which quantises them.

use super::conv::{each_product, import_kernel};
use super::quantize::saturated;
use super::*;
use crate::shape::Shape;
use crate::tensor::DType;

const BYTES: &[DType] = &[DType::U8, DType::I8];

/// `ConvInteger(x, w, x zero?, w zero?) -> i32`: Conv of `x - x zero` and `w - w zero`; padding adds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvInteger {
    /// The convolution.
    pub conv: Conv,
}

/// `QLinearConv(x, x scale, x zero, w, w scale, w zero, y scale, y zero, bias?)`: Conv on 8-bit operands, its
/// i32 sums scaled by `x scale * w scale / y scale` and rounded to the type of `y zero`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QLinearConv {
    /// The convolution.
    pub conv: Conv,
}

impl ConvInteger {
    fn result(&self, x: &TensorType, w: &TensorType) -> Result<Shape, OpError> {
        let w = w.shape.dims().ok_or(OpError::Unbound("the kernel's shape"))?;
        x.shape.dims().map_or(Ok(Shape::Unknown), |x| self.conv.result(x, w).map(Shape::Ranked))
    }

    /// The sums, in the order of the result; they wrap, as i32 accumulators do.
    fn sums(
        &self,
        x: &Tensor,
        w: &Tensor,
        zeros: [Option<&Tensor>; 2],
    ) -> Result<(Vec<usize>, Vec<i32>), OpError> {
        let types = [x, w].map(|t| TensorType::new(t.dtype(), Shape::known(t.shape())));
        let shape = self.result(&types[0], &types[1])?.extents().ok_or(OpError::Unbound("the operands"))?;
        let x_zero = zeros[0].map_or(0, |z| z.to_i64().first().copied().unwrap_or(0));
        let w_zeros = zeros[1].map_or(vec![0], |z| z.to_i64().into_owned());
        let per_channel = per_channel("zero point of w", w_zeros.len(), shape[1])?;
        let kernel: usize = w.shape()[1..].iter().product();
        let xs: Vec<i32> = x.to_i64().iter().map(|&v| (v - x_zero) as i32).collect();
        let w_zero = |i: usize| w_zeros[if per_channel { i / kernel.max(1) } else { 0 }];
        let ws: Vec<i32> = w.to_i64().iter().enumerate().map(|(i, &v)| (v - w_zero(i)) as i32).collect();
        let mut sums = vec![0i32; shape.iter().product()];
        each_product(&self.conv, x.shape(), w.shape(), &shape, |to, from, weight| {
            sums[to] = sums[to].wrapping_add(xs[from].wrapping_mul(ws[weight]));
        });
        Ok((shape, sums))
    }
}

/// Whether a list has one element for each channel (else it has one for all).
fn per_channel(what: &'static str, len: usize, channels: usize) -> Result<bool, OpError> {
    match len {
        1 => Ok(false),
        n if n == channels => Ok(true),
        n => {
            Err(OpError::mismatch(what, format!("{n} elements"), format!("1 or one per channel, {channels}")))
        }
    }
}

/// Requires operand `index`, where its extents are known, to have one element.
pub(super) fn expect_one(inputs: Operands<'_>, index: usize, name: &'static str) -> Result<(), OpError> {
    match inputs.optional(index).and_then(|o| o.ty.shape.extents()) {
        Some(extents) if extents.iter().product::<usize>() != 1 => {
            Err(OpError::mismatch(name, format!("{extents:?}"), "one element"))
        }
        _ => Ok(()),
    }
}

impl Operator for ConvInteger {
    fn name(&self) -> &'static str {
        "ConvInteger"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.conv.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.expect_dtype(0, "x", BYTES)?;
        let w = inputs.expect_dtype(1, "w", BYTES)?;
        for (index, name, dtype) in [(2, "zero point of x", x), (3, "zero point of w", w)] {
            if inputs.optional(index).is_some() {
                inputs.expect_dtype(index, name, &[dtype])?;
            }
        }
        expect_one(inputs, 2, "zero point of x")?;
        Ok(vec![TensorType::new(DType::I32, self.result(inputs.ty(0, "x")?, inputs.ty(1, "w")?)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let zeros = [inputs.optional(2), inputs.optional(3)];
        let (shape, sums) = self.sums(inputs.get(0)?, inputs.get(1)?, zeros)?;
        Ok(vec![Tensor::from_i64(DType::I32, shape, sums.into_iter().map(i64::from).collect())])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("its operands are integers"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let macs = self.conv.macs(shapes.output_len(0), shapes.input(1));
        Work::macs(MacKind::Standard, macs, shapes.density(1))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for ConvInteger {
    const ONNX: &'static [&'static str] = &["ConvInteger"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (sliding, groups, _) = import_kernel(node, 1)?;
        node.finish(ConvInteger { conv: Conv { sliding, groups } })
    }

    fn examples() -> Vec<Example> {
        let op = |pad, groups| ConvInteger { conv: Conv { sliding: Sliding::padded(2, pad), groups } };
        let (x, w) = (bytes(DType::U8, &[1, 2, 3, 3]), bytes(DType::I8, &[4, 2, 2, 2]));
        let grouped = bytes(DType::I8, &[4, 1, 2, 2]);
        let zero = |dtype, values: &[i64]| Tensor::from_i64(dtype, [values.len()], values.to_vec());
        let (x_zero, w_zero) = (zero(DType::U8, &[3]), zero(DType::I8, &[1, -2, 3, 0]));
        vec![
            Example::new(op(0, 1), vec![x.clone(), w.clone()]).macs(4 * 4 * 8),
            Example::new(op(1, 1), vec![x.clone(), w, x_zero.clone()]).macs(4 * 16 * 8),
            Example::new(op(1, 2), vec![x, grouped, x_zero, w_zero]).macs(4 * 16 * 4),
        ]
    }
}

/// Irregular integers.
pub(super) fn bytes(dtype: DType, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>() as i64;
    Tensor::from_i64(dtype, shape, (0..count).map(|i| i * i * 37 % 251).collect())
}

impl Operator for QLinearConv {
    fn name(&self) -> &'static str {
        "QLinearConv"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.conv.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = expect_quantized(inputs, 3, "w")?;
        expect_one(inputs, 1, "scale of x")?;
        expect_one(inputs, 2, "zero point of x")?;
        if inputs.optional(8).is_some() {
            inputs.expect_dtype(8, "bias", &[DType::I32])?;
        }
        let plain = ConvInteger { conv: self.conv.clone() };
        let shape = plain.result(inputs.ty(0, "x")?, inputs.ty(3, "w")?)?;
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let plain = ConvInteger { conv: self.conv.clone() };
        let zeros = [Some(inputs.get(2)?), Some(inputs.get(5)?)];
        let (shape, mut sums) = plain.sums(inputs.get(0)?, inputs.get(3)?, zeros)?;
        let (channels, window) = (shape[1], shape[2..].iter().product::<usize>());
        if let Some(bias) = inputs.optional(8) {
            let bias = bias.to_i64();
            if bias.len() != channels {
                return Err(OpError::mismatch("bias", bias.len(), format!("one per channel, {channels}")));
            }
            let add = |(i, v): (usize, &mut i32)| *v = v.wrapping_add(bias[i / window % channels] as i32);
            sums.iter_mut().enumerate().for_each(add);
        }
        let [x_scale, w_scale, y_scale] =
            [inputs.get(1)?, inputs.get(4)?, inputs.get(6)?].map(Tensor::to_f64);
        let per_channel = per_channel("scale of w", w_scale.len(), channels)?;
        let zero = inputs.get(7)?;
        let y_zero = zero.to_i64().first().copied().unwrap_or(0);
        let quantized = |(i, sum): (usize, i32)| {
            let w_scale = w_scale[if per_channel { i / window % channels } else { 0 }];
            saturated(requantized(sum, x_scale[0], w_scale, y_scale[0]), y_zero, zero.dtype())
        };
        let y = sums.into_iter().enumerate().map(quantized).collect();
        Ok(vec![Tensor::from_f64(zero.dtype(), shape, y)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("rounding is constant between its steps"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let macs = self.conv.macs(shapes.output_len(0), shapes.input(3));
        Work {
            element_ops: shapes.output_len(0).saturating_mul(3),
            ..Work::macs(MacKind::Standard, macs, shapes.density(3))
        }
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

/// An i32 sum in units of the result's scale, before rounding: in f32, with the factor formed first, as
/// onnxruntime does.
pub(super) fn requantized(sum: i32, a_scale: f64, b_scale: f64, y_scale: f64) -> f64 {
    f64::from(sum as f32 * (a_scale as f32 * b_scale as f32 / y_scale as f32))
}

/// Checks what QLinearConv and QLinearMatMul share: `(a, scale, zero, b, scale, zero, y scale, y zero)`, with b
/// at operand `second`; returns the type of the result.
pub(super) fn expect_quantized(
    inputs: Operands<'_>,
    second: usize,
    name: &'static str,
) -> Result<DType, OpError> {
    let a = inputs.expect_dtype(0, "x", BYTES)?;
    let b = inputs.expect_dtype(second, name, BYTES)?;
    inputs.expect_float(1, "scale of x")?;
    inputs.expect_dtype(2, "zero point of x", &[a])?;
    inputs.expect_float(second + 1, "scale of w")?;
    inputs.expect_dtype(second + 2, "zero point of w", &[b])?;
    inputs.expect_float(6, "scale of y")?;
    expect_one(inputs, 6, "scale of y")?;
    expect_one(inputs, 7, "zero point of y")?;
    inputs.expect_dtype(7, "zero point of y", BYTES)
}

impl Described for QLinearConv {
    const ONNX: &'static [&'static str] = &["QLinearConv"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (sliding, groups, _) = import_kernel(node, 3)?;
        node.finish(QLinearConv { conv: Conv { sliding, groups } })
    }

    fn examples() -> Vec<Example> {
        let op = |pad| QLinearConv { conv: Conv { sliding: Sliding::padded(2, pad), groups: 1 } };
        let int = |dtype, values: &[i64]| Tensor::from_i64(dtype, [values.len()], values.to_vec());
        let operands = |x_type, w_scale: Vec<f32>, w_zero: &[i64]| {
            vec![
                bytes(x_type, &[1, 2, 3, 3]),
                Tensor::scalar(0.01),
                int(x_type, &[7]).reshaped([]).unwrap_or_else(|| int(x_type, &[7])),
                bytes(DType::I8, &[3, 2, 2, 2]),
                Tensor::f32([w_scale.len()], w_scale),
                int(DType::I8, w_zero),
                Tensor::f32([1], vec![3.0]),
                int(x_type, &[100]),
            ]
        };
        let mut with_bias = operands(DType::I8, vec![0.1], &[0]);
        with_bias.push(int(DType::I32, &[100, -2000, 3]));
        vec![
            Example::new(op(1), operands(DType::U8, vec![0.1, 0.2, 0.3], &[0, 1, -2])).macs(3 * 16 * 8),
            Example::new(op(0), with_bias).macs(3 * 4 * 8),
        ]
    }
}
