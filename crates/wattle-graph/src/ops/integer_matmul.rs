//! Products of quantised matrices: MatMulInteger, whose sums stay i32, and QLinearMatMul, which quantises them.

use super::binary::broadcast_indices;
use super::integer_conv::{bytes, expect_quantized, requantized};
use super::quantize::saturated;
use super::*;
use crate::shape::Shape;
use crate::tensor::DType;

/// `MatMulInteger(a, b, a zero?, b zero?) -> i32`: MatMul of `a - a zero` and `b - b zero`. Zero points are of
/// one element, one per row of a or column of b, or of a's or b's rank with extent 1 along the inner axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatMulInteger;

/// `QLinearMatMul(a, a scale, a zero, b, b scale, b zero, y scale, y zero, bias?)`: MatMul on 8-bit operands, its i32
/// sums, to which an i32 bias for each column is added, scaled by `a scale * b scale / y scale` and rounded to the type
/// of `y zero`. ONNX has no bias here; onnxruntime's QGemm has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QLinearMatMul;

/// Extents of a scale or zero point once it is laid out to broadcast: those of a belong to rows.
fn laid_out(extents: &[usize], left: bool) -> Vec<usize> {
    match extents {
        [1] => vec![],
        [rows] if left => vec![*rows, 1],
        other => other.to_vec(),
    }
}

/// For each element of a tensor of extents `to`, the element of a scale or zero point that belongs to it.
fn spread(of: &Tensor, left: bool, to: &[usize]) -> Result<Vec<usize>, OpError> {
    let from = laid_out(of.shape(), left);
    let fits = from.len() <= to.len()
        && from.iter().rev().zip(to.iter().rev()).all(|(&f, &t)| f == 1 || f == t)
        // Broadcasting may not repeat elements of an empty operand.
        && !of.is_empty();
    if !fits {
        let wanted = format!("one element, or broadcastable to {to:?}");
        return Err(OpError::mismatch("scale or zero point", format!("{:?}", of.shape()), wanted));
    }
    Ok(broadcast_indices(&from, to))
}

/// `t - zero`.
fn centred(t: &Tensor, zero: Option<&Tensor>, left: bool) -> Result<Vec<i32>, OpError> {
    let values = t.to_i64();
    let Some(zero) = zero else { return Ok(values.iter().map(|&v| v as i32).collect()) };
    let (at, zeros) = (spread(zero, left, t.shape())?, zero.to_i64());
    Ok(values.iter().zip(at).map(|(&v, i)| (v - zeros[i]) as i32).collect())
}

/// Shape and sums of `(a - a zero)(b - b zero)`; the sums wrap, as i32 accumulators do.
fn sums(a: &Tensor, b: &Tensor, zeros: [Option<&Tensor>; 2]) -> Result<(Vec<usize>, Vec<i32>), OpError> {
    let s = MatMul::default().sizes(a.shape(), b.shape())?;
    let (x, y) = (centred(a, zeros[0], true)?, centred(b, zeros[1], false)?);
    let mut sums = Vec::with_capacity(s.shape.iter().product());
    let (a_at, b_at) = (broadcast_indices(&s.a_batch, &s.batch), broadcast_indices(&s.b_batch, &s.batch));
    for (a_index, b_index) in a_at.into_iter().zip(b_at) {
        let (x, y) = (&x[a_index * s.m * s.k..], &y[b_index * s.k * s.n..]);
        for i in 0..s.m {
            for j in 0..s.n {
                let products = (0..s.k).map(|p| x[i * s.k + p].wrapping_mul(y[p * s.n + j]));
                sums.push(products.fold(0i32, i32::wrapping_add));
            }
        }
    }
    Ok((s.shape, sums))
}

fn result(a: &TensorType, b: &TensorType) -> Result<Shape, OpError> {
    match (a.shape.dims(), b.shape.dims()) {
        (Some(a), Some(b)) => MatMul::default().result(a, b).map(Shape::Ranked),
        _ => Ok(Shape::Unknown),
    }
}

fn work(shapes: &Shapes<'_>, second: usize) -> Work {
    let Ok(s) = MatMul::default().sizes(shapes.input(0), shapes.input(second)) else {
        return Work::movement();
    };
    let macs = s.batch.iter().product::<usize>() as u64 * (s.m * s.n) as u64 * s.k as u64;
    Work::macs(MacKind::Standard, macs, shapes.density(0).min(shapes.density(second)))
}

impl Operator for MatMulInteger {
    fn name(&self) -> &'static str {
        "MatMulInteger"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let a = inputs.expect_dtype(0, "a", &[DType::U8, DType::I8])?;
        let b = inputs.expect_dtype(1, "b", &[DType::U8, DType::I8])?;
        for (index, name, dtype) in [(2, "zero point of a", a), (3, "zero point of b", b)] {
            if inputs.optional(index).is_some() {
                inputs.expect_dtype(index, name, &[dtype])?;
            }
        }
        Ok(vec![TensorType::new(DType::I32, result(inputs.ty(0, "a")?, inputs.ty(1, "b")?)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let zeros = [inputs.optional(2), inputs.optional(3)];
        let (shape, sums) = sums(inputs.get(0)?, inputs.get(1)?, zeros)?;
        Ok(vec![Tensor::from_i64(DType::I32, shape, sums.into_iter().map(i64::from).collect())])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("its operands are integers"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        work(shapes, 1)
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for MatMulInteger {
    const ONNX: &'static [&'static str] = &["MatMulInteger"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(MatMulInteger)
    }

    fn examples() -> Vec<Example> {
        let zero = |dtype, shape: &[usize], values: &[i64]| Tensor::from_i64(dtype, shape, values.to_vec());
        let (a, b) = (bytes(DType::U8, &[2, 3]), bytes(DType::I8, &[3, 4]));
        let batch = bytes(DType::U8, &[2, 2, 3]);
        let per_row = zero(DType::U8, &[2], &[3, 200]);
        let per_column = zero(DType::I8, &[4], &[1, -2, 3, 0]);
        vec![
            Example::new(MatMulInteger, vec![a.clone(), b.clone()]).macs(24),
            Example::new(MatMulInteger, vec![a, b.clone(), per_row, per_column]).macs(24),
            Example::new(MatMulInteger, vec![batch, b, zero(DType::U8, &[2, 2, 1], &[1, 2, 3, 4])]).macs(48),
        ]
    }
}

impl Operator for QLinearMatMul {
    fn name(&self) -> &'static str {
        "QLinearMatMul"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = expect_quantized(inputs, 3, "b")?;
        if inputs.optional(8).is_some() {
            inputs.expect_dtype(8, "bias", &[DType::I32])?;
            inputs.expect_rank(8, "bias", 1)?;
        }
        Ok(vec![TensorType::new(dtype, result(inputs.ty(0, "a")?, inputs.ty(3, "b")?)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let zeros = [Some(inputs.get(2)?), Some(inputs.get(5)?)];
        let (shape, mut sums) = sums(inputs.get(0)?, inputs.get(3)?, zeros)?;
        if let Some(bias) = inputs.optional(8) {
            let columns = shape.last().copied().unwrap_or(0);
            if bias.len() != columns {
                return Err(OpError::mismatch("bias", bias.len(), format!("one per column, {columns}")));
            }
            let bias = bias.to_i64();
            sums.iter_mut().enumerate().for_each(|(i, s)| *s = s.wrapping_add(bias[i % columns] as i32));
        }
        let [a_scale, b_scale, y_scale] = [inputs.get(1)?, inputs.get(4)?, inputs.get(6)?];
        let (a_at, b_at) = (spread(a_scale, true, &shape)?, spread(b_scale, false, &shape)?);
        let [a_scale, b_scale, y_scale] = [a_scale, b_scale, y_scale].map(Tensor::to_f64);
        let zero = inputs.get(7)?;
        let y_zero = zero.to_i64().first().copied().unwrap_or(0);
        let one = |((sum, a), b): ((i32, usize), usize)| {
            saturated(requantized(sum, a_scale[a], b_scale[b], y_scale[0]), y_zero, zero.dtype())
        };
        let y = sums.into_iter().zip(a_at).zip(b_at).map(one).collect();
        Ok(vec![Tensor::from_f64(zero.dtype(), shape, y)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("rounding is constant between its steps"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work { element_ops: shapes.output_len(0).saturating_mul(3), ..work(shapes, 3) }
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        if node.input(8).is_empty() {
            node.same(self.name(), vec![]);
            return Ok(());
        }
        // Scales of b belong to its columns, as in `laid_out`; those of the bias are products of both scales.
        let scales = node.emit("Mul", &[node.input(1), node.input(4)], vec![]);
        let real = |node: &mut ExportNode<'_>, x: String, scale: String, zero: String, axis: i64| {
            node.emit("DequantizeLinear", &[x, scale, zero], vec![("axis", Attribute::Int(axis))])
        };
        let axis = node.input_type(3).shape.rank().map_or(1, |rank| rank as i64 - 1);
        let a = real(node, node.input(0), node.input(1), node.input(2), 1);
        let b = real(node, node.input(3), node.input(4), node.input(5), axis);
        let bias = real(node, node.input(8), scales, String::new(), 0);
        let product = node.emit("MatMul", &[a, b], vec![]);
        let sum = node.emit("Add", &[product, bias], vec![]);
        node.emit_final("QuantizeLinear", &[sum, node.input(6), node.input(7)], vec![]);
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for QLinearMatMul {
    const ONNX: &'static [&'static str] = &["QLinearMatMul", "com.microsoft:QGemm"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        if node.op_type() == "QLinearMatMul" {
            return node.finish(QLinearMatMul);
        }
        // `(a, scale, zero, b, scale, zero, bias?, y scale?, y zero?)`.
        if node.float("alpha", 1.0)? != 1.0 {
            return Err(node.refuse("alpha is not 1"));
        }
        if node.optional_input(7).is_none() || node.optional_input(8).is_none() {
            return Err(node.refuse("without a scale and a zero point of the result it is not supported"));
        }
        let turn = |node: &mut ForeignNode<'_>, index: usize, flag: &str| {
            let x = node.input(index)?;
            match node.int(flag, 0)? {
                0 => Ok(x),
                _ => node.apply(Transpose { permutation: vec![1, 0] }, &[x]),
            }
        };
        let (a, b) = (turn(node, 0, "transA")?, turn(node, 3, "transB")?);
        let given = |i| node.optional_input(i);
        let operands = [Some(a), given(1), given(2), Some(b), given(4), given(5), given(7), given(8), given(6)];
        let count = if given(6).is_some() { 9 } else { 8 };
        node.apply_all(QLinearMatMul, &operands[..count])
    }

    fn examples() -> Vec<Example> {
        let of = |a: &[usize], a_scale: Vec<f32>, b_scale: Vec<f32>| {
            let zero = |n: usize| Tensor::from_i64(DType::I8, [n], (0..n as i64).collect());
            let inputs = vec![
                bytes(DType::I8, a),
                Tensor::f32([a_scale.len()], a_scale.clone()),
                zero(a_scale.len()),
                bytes(DType::I8, &[3, 4]),
                Tensor::f32([b_scale.len()], b_scale.clone()),
                zero(b_scale.len()),
                Tensor::scalar(2.0),
                Tensor::from_i64(DType::U8, [], vec![128]),
            ];
            Example::new(QLinearMatMul, inputs).macs(a.iter().product::<usize>() as u64 * 4)
        };
        let mut biased = of(&[2, 3], vec![0.1], vec![0.1, 0.2, 0.3, 0.4]);
        biased.inputs.push(Some(Tensor::from_i64(DType::I32, [4], vec![100, -2000, 3, 40])));
        vec![
            of(&[2, 3], vec![0.1], vec![0.2]),
            of(&[2, 3], vec![0.1, 0.2], vec![0.1, 0.2, 0.3, 0.4]),
            of(&[2, 2, 3], vec![0.1], vec![0.1, 0.2, 0.3, 0.4]),
            biased,
        ]
    }
}
