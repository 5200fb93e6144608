//! `MatMulNBits`: a product with weights of 4 or 8 bits in blocks, which become floats.

use super::{ForeignNode, ImportError, ValueId};
use crate::ops::{Binary, BinaryFunction, MatMul, Reshape, Slice};
use crate::tensor::{DType, Tensor};

/// `(x [.., K], packed [N, blocks, bytes], scales, zero points?, order?, bias?) -> x W^T + bias`.
///
/// Weight `(n, k)` is `(q - zero) scale`; q is packed from the lowest bits, and a block of `block_size` along K has one
/// scale and one zero point, half of the range unless given.
pub fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
    let (inputs, outputs) = (positive(node, "K")?, positive(node, "N")?);
    let (bits, block) = (node.int("bits", 4)?, positive(node, "block_size")?);
    // How exactly other runtimes multiply.
    node.attribute("accuracy_level");
    if !matches!(bits, 4 | 8) {
        return Err(node.refuse(format!("weights of {bits} bits; 4 and 8 are read")));
    }
    if node.optional_input(4).is_some() {
        return Err(node.refuse("an order of the inputs (g_idx) is not read"));
    }
    let per_byte = (8 / bits) as usize;
    let blocks = inputs.div_ceil(block);
    let missing =
        |node: &ForeignNode<'_>, what: &str| node.refuse(format!("{what} are computed at run time"));
    let packed = node.constant_input(1)?.ok_or_else(|| missing(node, "its weights"))?;
    let of_block = block.div_ceil(per_byte);
    let expected = outputs.checked_mul(blocks).and_then(|n| n.checked_mul(of_block));
    if packed.dtype() != DType::U8 || Some(packed.len()) != expected {
        let found = packed.len();
        return Err(node.refuse(format!(
            "{found} bytes of weights; expected {outputs} x {blocks} blocks of {of_block} bytes"
        )));
    }
    let unpacked = move |bytes: &[u8], at: usize| {
        let byte = bytes[at / per_byte];
        f64::from(if per_byte == 1 { byte } else { (byte >> (4 * (at % 2))) & 15 })
    };
    let rows_of = |tensor: &Tensor, bytes: usize, count: usize| -> Vec<f64> {
        let packed = tensor.to_le_bytes();
        packed.chunks_exact(bytes).flat_map(|row| (0..count).map(move |at| unpacked(row, at))).collect()
    };
    let x = node.input(0)?;
    let dtype = node.graph().value(x).ty.dtype;
    let whole = rows_of(&packed, of_block, block);
    let mut weights = node.constant(Tensor::from_f64(dtype, [outputs, blocks, block], whole));
    // One number a block, to be broadcast over it.
    let each = node.constant(Tensor::ints(&[outputs as i64, blocks as i64, 1]));
    let binary = |function| Binary { function };
    let zeros = match node.optional_input(3) {
        None => node.constant(Tensor::from_f64(dtype, [], vec![f64::from(1u8 << (bits - 1))])),
        Some(zeros) if node.graph().value(zeros).ty.dtype.is_float() => {
            node.apply(Reshape { allow_zero: false }, &[zeros, each])?
        }
        Some(_) => {
            let zeros = node.constant_input(3)?.ok_or_else(|| missing(node, "its zero points"))?;
            let of_row = blocks.div_ceil(per_byte);
            if zeros.dtype() != DType::U8 || zeros.len() != outputs * of_row {
                let found = zeros.len();
                return Err(
                    node.refuse(format!("{found} bytes of zero points; expected {outputs} x {of_row}"))
                );
            }
            let whole = rows_of(&zeros, of_row, blocks);
            node.constant(Tensor::from_f64(dtype, [outputs, blocks, 1], whole))
        }
    };
    weights = node.apply(binary(BinaryFunction::Sub), &[weights, zeros])?;
    let scales = node.input(2)?;
    let scales = node.apply(Reshape { allow_zero: false }, &[scales, each])?;
    weights = node.apply(binary(BinaryFunction::Mul), &[weights, scales])?;
    let rows = node.constant(Tensor::ints(&[outputs as i64, -1]));
    weights = node.apply(Reshape { allow_zero: false }, &[weights, rows])?;
    if blocks * block > inputs {
        // The last block is filled up.
        let bounds = [0, inputs as i64, 1].map(|n| node.constant(Tensor::ints(&[n])));
        weights = node.apply(Slice, &[weights, bounds[0], bounds[1], bounds[2]])?;
    }
    let y = node.apply(MatMul { transpose_a: false, transpose_b: true }, &[x, weights])?;
    match node.optional_input(5) {
        Some(bias) => Ok(vec![node.apply(binary(BinaryFunction::Add), &[y, bias])?]),
        None => Ok(vec![y]),
    }
}

/// An attribute that must be given and at least 1.
fn positive(node: &mut ForeignNode<'_>, name: &str) -> Result<usize, ImportError> {
    let value = node.int(name, 0)?;
    // An extent beyond this has no memory anywhere.
    match usize::try_from(value) {
        Ok(value) if (1..1 << 32).contains(&value) => Ok(value),
        _ => Err(node.refuse(format!("attribute `{name}` is {value}; expected at least 1"))),
    }
}
