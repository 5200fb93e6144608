//! Which Rust types hold the elements of which tensors.

use bytemuck::Pod;
use wattle_graph::DType;

/// A type of elements in memory. A bool is one byte, 0 or 1.
pub trait Element: Pod + private::Sealed {
    /// The element types that it stands for.
    const DTYPES: &'static [DType];
}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($of:ty: $($dtype:ident),+;)+) => {$(
        impl private::Sealed for $of {}
        impl Element for $of {
            const DTYPES: &'static [DType] = &[$(DType::$dtype),+];
        }
    )+};
}

elements! {
    f32: F32;
    f64: F64;
    i8: I8;
    i16: I16;
    i32: I32;
    i64: I64;
    u8: U8, Bool;
    u16: U16;
    u32: U32;
    u64: U64;
}
