//! Tensors as bytes of the arena, and back.

use bytemuck::cast_slice;
use wattle_graph::{DType, Data, Tensor, each_index};

use crate::layout::Layout;

/// The elements of `tensor` in the given layout; a bool is one byte, 0 or 1.
pub(crate) fn of(tensor: &Tensor, layout: Layout) -> Vec<u8> {
    if layout != Layout::RowMajor && tensor.shape().len() > 2 {
        return of(&permuted(tensor, layout), Layout::RowMajor);
    }
    match tensor.data() {
        Data::F32(v) => cast_slice(v).to_vec(),
        Data::F64(v) => cast_slice(v).to_vec(),
        Data::I8(v) => cast_slice(v).to_vec(),
        Data::I16(v) => cast_slice(v).to_vec(),
        Data::I32(v) => cast_slice(v).to_vec(),
        Data::I64(v) => cast_slice(v).to_vec(),
        Data::U8(v) => v.clone(),
        Data::U16(v) => cast_slice(v).to_vec(),
        Data::U32(v) => cast_slice(v).to_vec(),
        Data::U64(v) => cast_slice(v).to_vec(),
        Data::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
    }
}

/// The same tensor with its axes in the order of `layout`.
fn permuted(tensor: &Tensor, layout: Layout) -> Tensor {
    let from = wattle_graph::strides(tensor.shape());
    let order = layout.order(tensor.shape().len());
    let mut source = Vec::with_capacity(tensor.len());
    each_index(&layout.physical(tensor.shape()), |index| {
        source.push(Some(index.iter().zip(&order).map(|(i, &axis)| i * from[axis]).sum()));
    });
    tensor.take(layout.physical(tensor.shape()), &source)
}

/// A row-major tensor from its bytes, which are a whole number of aligned elements.
pub(crate) fn tensor(dtype: DType, extents: &[usize], bytes: &[u8]) -> Tensor {
    let data = match dtype {
        DType::F32 => Data::F32(cast_slice(bytes).to_vec()),
        DType::F64 => Data::F64(cast_slice(bytes).to_vec()),
        DType::I8 => Data::I8(cast_slice(bytes).to_vec()),
        DType::I16 => Data::I16(cast_slice(bytes).to_vec()),
        DType::I32 => Data::I32(cast_slice(bytes).to_vec()),
        DType::I64 => Data::I64(cast_slice(bytes).to_vec()),
        DType::U8 => Data::U8(bytes.to_vec()),
        DType::U16 => Data::U16(cast_slice(bytes).to_vec()),
        DType::U32 => Data::U32(cast_slice(bytes).to_vec()),
        DType::U64 => Data::U64(cast_slice(bytes).to_vec()),
        DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
    };
    Tensor::new(extents.to_vec(), data).expect("a span holds exactly its value")
}
