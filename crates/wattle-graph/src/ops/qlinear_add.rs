//! Addition of quantised tensors, and the import of what onnxruntime's quantiser writes in its own domain.

use super::binary::broadcast_indices;
use super::concrete::result_shapes;
use super::integer_conv::{bytes, expect_one};
use super::quantize::saturated;
use super::*;
use crate::shape::broadcast;
use crate::tensor::DType;

/// `QLinearAdd(a, a scale, a zero, b, b scale, b zero, y scale, y zero)`: the sum of two 8-bit tensors, broadcast, in
/// units of y's scale and rounded to the type of y zero. Scales and zero points have one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QLinearAdd;

const BYTES: &[DType] = &[DType::U8, DType::I8];

impl Operator for QLinearAdd {
    fn name(&self) -> &'static str {
        "QLinearAdd"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        for (index, name) in [(0, "a"), (3, "b")] {
            let dtype = inputs.expect_dtype(index, name, BYTES)?;
            inputs.expect_float(index + 1, "scale")?;
            inputs.expect_dtype(index + 2, "zero point", &[dtype])?;
            expect_one(inputs, index + 1, "scale")?;
            expect_one(inputs, index + 2, "zero point")?;
        }
        inputs.expect_float(6, "scale of y")?;
        expect_one(inputs, 6, "scale of y")?;
        expect_one(inputs, 7, "zero point of y")?;
        let dtype = inputs.expect_dtype(7, "zero point of y", BYTES)?;
        let (a, b) = (inputs.ty(0, "a")?, inputs.ty(3, "b")?);
        let shape = broadcast(&a.shape, &b.shape).ok_or_else(|| OpError::mismatch("b", b, a))?;
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let term = |index: usize| -> Result<Vec<f32>, OpError> {
            let (x, scale, zero) = (inputs.get(index)?, inputs.get(index + 1)?, inputs.get(index + 2)?);
            let (scale, zero) = (scale.to_f64()[0] as f32, zero.to_i64()[0]);
            Ok(x.to_i64().iter().map(|&q| (q - zero) as f32 * scale).collect())
        };
        let (a, b) = (term(0)?, term(3)?);
        let a_at = broadcast_indices(inputs.get(0)?.shape(), &shape);
        let b_at = broadcast_indices(inputs.get(3)?.shape(), &shape);
        let (scale, zero) = (inputs.get(6)?.to_f64()[0] as f32, inputs.get(7)?);
        let y_zero = zero.to_i64()[0];
        let level = |(i, j): (usize, usize)| saturated(f64::from((a[i] + b[j]) / scale), y_zero, zero.dtype());
        let y = a_at.into_iter().zip(b_at).map(level).collect();
        Ok(vec![Tensor::from_f64(zero.dtype(), shape, y)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("rounding is constant between its steps"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0).saturating_mul(7))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let term = |node: &mut ExportNode<'_>, i: usize| {
            let inputs = [node.input(i), node.input(i + 1), node.input(i + 2)];
            node.emit("DequantizeLinear", &inputs, vec![])
        };
        let (a, b) = (term(node, 0), term(node, 3));
        let sum = node.emit("Add", &[a, b], vec![]);
        let (scale, zero) = (node.input(6), node.input(7));
        node.emit_final("QuantizeLinear", &[sum, scale, zero], vec![]);
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for QLinearAdd {
    const ONNX: &'static [&'static str] = &[
        "com.microsoft:QLinearAdd",
        "com.microsoft:QLinearGlobalAveragePool",
        "com.microsoft:QLinearMul",
        "com.microsoft:QLinearSoftmax",
    ];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        match node.op_type() {
            "QLinearAdd" => node.finish(QLinearAdd),
            "QLinearMul" => {
                let (a, b) = (real(node, 0)?, real(node, 3)?);
                let y = node.apply(Binary { function: BinaryFunction::Mul }, &[a, b])?;
                quantised(node, y, 6)
            }
            "QLinearSoftmax" => {
                let axis = node.int("axis", -1)?;
                // Before operator set 13 all axes from this one on were one.
                let last = |rank: usize| crate::shape::normalize_axis(axis, rank) == Some(rank - 1);
                let rank = node.graph().value(node.input(0)?).ty.shape.rank();
                if node.int("opset", 13)? < 13 && !rank.is_some_and(last) {
                    return Err(node.refuse(format!("axis = {axis} of operator set 12; expected the last")));
                }
                let x = real(node, 0)?;
                let y = node.apply(Softmax { axis, log: false }, &[x])?;
                quantised(node, y, 3)
            }
            _ => {
                if node.int("channels_last", 0)? != 0 {
                    return Err(node.refuse("channels_last = 1 is not supported"));
                }
                let x = real(node, 0)?;
                let y = node.apply(GlobalPool { kind: PoolKind::Average }, &[x])?;
                quantised(node, y, 3)
            }
        }
    }

    fn examples() -> Vec<Example> {
        let one = |dtype, value| Tensor::from_i64(dtype, [], vec![value]);
        let of = |a: &[usize], b: &[usize], signed: DType, y_zero| {
            let inputs = vec![
                bytes(DType::U8, a),
                Tensor::scalar(0.02),
                one(DType::U8, 100),
                bytes(signed, b),
                Tensor::scalar(0.013),
                one(signed, 3),
                Tensor::scalar(0.027),
                one(DType::U8, y_zero),
            ];
            Example::new(QLinearAdd, inputs)
        };
        vec![
            of(&[2, 3, 4, 5], &[2, 3, 4, 5], DType::U8, 0),
            of(&[2, 3, 5], &[5], DType::I8, 120),
            of(&[3, 1], &[1, 70], DType::U8, 255),
        ]
    }
}

/// The numbers that operand `index` with its scale and zero point stands for.
fn real(node: &mut ForeignNode<'_>, index: usize) -> Result<ValueId, ImportError> {
    let operands: Vec<_> = (index..index + 3).map(|i| node.optional_input(i)).collect();
    let quantization = Quantization { axis: 1, block: 0 };
    Ok(node.apply_all(DequantizeLinear { quantization }, &operands)?[0])
}

/// `y` quantised by operand `index` and the one after it.
fn quantised(node: &mut ForeignNode<'_>, y: ValueId, index: usize) -> Result<Vec<ValueId>, ImportError> {
    let zero = node.optional_input(index + 1);
    let to = zero.map_or(DType::U8, |z| node.graph().value(z).ty.dtype);
    let quantization = Quantization { axis: 1, block: 0 };
    node.apply_all(QuantizeLinear { quantization, to }, &[Some(y), node.optional_input(index), zero])
}
