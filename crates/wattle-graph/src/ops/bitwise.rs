//! Bitwise logic and shifts of integers.

use super::binary::{broadcast_extents, broadcast_indices};
use super::*;
use crate::shape::broadcast;
use crate::tensor::DType;

/// A function of the bits of two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitFunction {
    /// Bits set in both.
    And,
    /// Bits set in either.
    Or,
    /// Bits set in exactly one.
    Xor,
    /// Bits of the first moved up by the second; unsigned only.
    ShiftLeft,
    /// Bits of the first moved down by the second; unsigned only.
    ShiftRight,
}

use BitFunction::*;

/// `z = f(a, b)` with broadcasting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitwise {
    /// f.
    pub function: BitFunction,
}

/// Every bit inverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitwiseNot;

const UNSIGNED: &[DType] = &[DType::U8, DType::U16, DType::U32, DType::U64];
const INTEGERS: &[DType] =
    &[DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

impl BitFunction {
    /// On integers of 64 bits; the caller cuts results to their type.
    fn of(self, a: u64, b: u64) -> u64 {
        // Shifting by all bits or more leaves none.
        let amount = u32::try_from(b).unwrap_or(u32::MAX);
        match self {
            And => a & b,
            Or => a | b,
            Xor => a ^ b,
            ShiftLeft => a.checked_shl(amount).unwrap_or(0),
            ShiftRight => a.checked_shr(amount).unwrap_or(0),
        }
    }
}

impl Operator for Bitwise {
    fn name(&self) -> &'static str {
        match self.function {
            And => "BitwiseAnd",
            Or => "BitwiseOr",
            Xor => "BitwiseXor",
            ShiftLeft | ShiftRight => "BitShift",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.function {
            ShiftLeft => vec![("direction", Attribute::Text("LEFT".into()))],
            ShiftRight => vec![("direction", Attribute::Text("RIGHT".into()))],
            _ => vec![],
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let allowed = if matches!(self.function, ShiftLeft | ShiftRight) { UNSIGNED } else { INTEGERS };
        let dtype = inputs.expect_dtype(0, "a", allowed)?;
        inputs.expect_dtype(1, "b", &[dtype])?;
        let (a, b) = (&inputs.ty(0, "a")?.shape, &inputs.ty(1, "b")?.shape);
        let shape = broadcast(a, b)
            .ok_or_else(|| OpError::mismatch("shapes", format!("{a} and {b}"), "broadcastable"))?;
        Ok(vec![TensorType::new(dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let shape = broadcast_extents(a.shape(), b.shape())?;
        let pairs =
            broadcast_indices(a.shape(), &shape).into_iter().zip(broadcast_indices(b.shape(), &shape));
        let (x, y) = (a.to_i64(), b.to_i64());
        let values = pairs.map(|(i, j)| self.function.of(x[i] as u64, y[j] as u64) as i64).collect();
        Ok(vec![Tensor::from_i64(a.dtype(), shape, values)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("integers have no gradient"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Bitwise {
    const ONNX: &'static [&'static str] = &["BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let function = match node.op_type() {
            "BitShift" => match node.text("direction", "")?.as_str() {
                "LEFT" => ShiftLeft,
                "RIGHT" => ShiftRight,
                other => return Err(node.refuse(format!("direction = `{other}`; expected LEFT or RIGHT"))),
            },
            "BitwiseAnd" => And,
            "BitwiseOr" => Or,
            "BitwiseXor" => Xor,
            other => return Err(node.refuse(format!("{other} is not a bitwise function"))),
        };
        node.finish(Bitwise { function })
    }

    fn examples() -> Vec<Example> {
        let of = |function, dtype| {
            let inputs = [Tensor::ints(&[16, 4, 1, 200]), Tensor::i64([2, 1], vec![1, 9])];
            Example::new(Bitwise { function }, inputs.map(|t| t.cast(dtype)).into())
        };
        vec![
            of(And, DType::I32),
            of(Or, DType::U16),
            of(Xor, DType::I64),
            of(ShiftLeft, DType::U8),
            of(ShiftRight, DType::U64),
        ]
    }
}

impl Operator for BitwiseNot {
    fn name(&self) -> &'static str {
        "BitwiseNot"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(0, "a", INTEGERS)?;
        Ok(vec![inputs.ty(0, "a")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let a = inputs.get(0)?;
        Ok(vec![Tensor::from_i64(a.dtype(), a.shape(), a.to_i64().iter().map(|x| !x).collect())])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("integers have no gradient"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for BitwiseNot {
    const ONNX: &'static [&'static str] = &["BitwiseNot"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        node.finish(BitwiseNot)
    }

    fn examples() -> Vec<Example> {
        [DType::I32, DType::U8]
            .map(|to| Example::new(BitwiseNot, vec![Tensor::ints(&[0, 1, 77]).cast(to)]))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_lose_bits_at_both_ends_and_never_trap() {
        let shifted = |function, a: i64, by: i64| {
            let inputs = [Tensor::ints(&[a]), Tensor::ints(&[by])].map(|t| t.cast(DType::U8));
            let operands: Vec<_> = inputs.iter().map(Some).collect();
            Bitwise { function }.evaluate(Tensors::new(&operands)).unwrap()[0].to_i64()[0]
        };
        assert_eq!(shifted(ShiftLeft, 200, 1), 144);
        assert_eq!(shifted(ShiftRight, 200, 3), 25);
        assert_eq!((shifted(ShiftLeft, 1, 8), shifted(ShiftLeft, 1, 255)), (0, 0));
    }

    #[test]
    fn inverting_keeps_the_width_of_the_type() {
        let a = Tensor::ints(&[1]).cast(DType::U8);
        assert_eq!(BitwiseNot.evaluate(Tensors::new(&[Some(&a)])).unwrap()[0].to_i64()[0], 254);
    }
}
