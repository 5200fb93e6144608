//! Numbers of one type as numbers of another, if they stay the same numbers.

use wattle_graph::DType;

/// Whether every number of one type is a number of the other.
pub(crate) fn is_lossless(from: DType, to: DType) -> bool {
    /// The bits of magnitude that a type holds exactly, and whether it has a sign.
    fn exact(dtype: DType) -> (u32, bool) {
        match dtype {
            DType::Bool => (1, false),
            DType::U8 => (8, false),
            DType::U16 => (16, false),
            DType::U32 => (32, false),
            DType::U64 => (64, false),
            DType::I8 => (7, true),
            DType::I16 => (15, true),
            DType::I32 => (31, true),
            DType::I64 => (63, true),
            DType::F32 => (24, true),
            DType::F64 => (53, true),
        }
    }
    if from == to || (from, to) == (DType::F32, DType::F64) {
        return true;
    }
    if from.is_float() || to == DType::Bool {
        return false;
    }
    let ((bits, signed), (room, may_be_negative)) = (exact(from), exact(to));
    bits <= room && (may_be_negative || !signed)
}

/// Converts elements; the first that would change is the error: its place and its value.
pub(crate) fn cast(from: DType, bytes: &[u8], to: DType, out: &mut [u8]) -> Result<(), (usize, String)> {
    let (size, width) = (from.size(), to.size());
    for (place, (element, out)) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(width)).enumerate() {
        let number = read(from, element);
        if !write(number, to, out) {
            let value = match number {
                Number::Whole(value) => value.to_string(),
                Number::Real(value) => value.to_string(),
            };
            return Err((place, value));
        }
    }
    Ok(())
}

/// NumPy's name of a type.
pub(crate) fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float32",
        DType::F64 => "float64",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::I64 => "int64",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::U32 => "uint32",
        DType::U64 => "uint64",
        DType::Bool => "bool",
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(i128),
    Real(f64),
}

fn read(dtype: DType, element: &[u8]) -> Number {
    macro_rules! whole {
        ($t:ty) => {
            Number::Whole(i128::from(<$t>::from_ne_bytes(array(element))))
        };
    }
    match dtype {
        DType::F32 => Number::Real(f64::from(f32::from_ne_bytes(array(element)))),
        DType::F64 => Number::Real(f64::from_ne_bytes(array(element))),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::U8 => whole!(u8),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::Bool => Number::Whole(i128::from(element[0] != 0)),
    }
}

fn array<const N: usize>(element: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(element);
    bytes
}

/// Writes a number if the type has it.
fn write(number: Number, dtype: DType, out: &mut [u8]) -> bool {
    macro_rules! whole {
        ($t:ty) => {{
            let value = match number {
                Number::Whole(value) => value,
                // Beyond 2^100 no integer type has it, and the conversion below would saturate.
                Number::Real(value) if value.fract() == 0.0 && value.abs() < 1e30 => value as i128,
                Number::Real(_) => return false,
            };
            match <$t>::try_from(value) {
                Ok(value) => out.copy_from_slice(&value.to_ne_bytes()),
                Err(_) => return false,
            }
        }};
    }
    macro_rules! real {
        ($t:ty) => {{
            let (value, same) = match number {
                Number::Whole(whole) => (whole as $t, (whole as $t) as i128 == whole),
                Number::Real(real) => (real as $t, f64::from(real as $t) == real || real.is_nan()),
            };
            out.copy_from_slice(&value.to_ne_bytes());
            return same;
        }};
    }
    match dtype {
        DType::F32 => real!(f32),
        DType::F64 => real!(f64),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::U8 => whole!(u8),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::Bool => match number {
            Number::Whole(0) | Number::Real(0.0) => out[0] = 0,
            Number::Whole(1) | Number::Real(1.0) => out[0] = 1,
            _ => return false,
        },
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [DType; 11] = [
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ];

    proptest! {
        #[test]
        fn what_is_converted_comes_back_and_lossless_types_never_refuse(
            bytes: [u8; 8], from in 0usize..11, to in 0usize..11
        ) {
            let (from, to) = (ALL[from], ALL[to]);
            let mut element = bytes[..from.size()].to_vec();
            if from == DType::Bool {
                element[0] &= 1;
            }
            let mut out = vec![0; to.size()];
            let converted = cast(from, &element, to, &mut out).is_ok();
            prop_assert!(converted || !is_lossless(from, to), "{from} {to} {element:?}");
            let nan = matches!(read(from, &element), Number::Real(x) if x.is_nan());
            if converted && !nan {
                let mut back = vec![0; from.size()];
                prop_assert!(cast(to, &out, from, &mut back).is_ok());
                let minus_zero = read(from, &element) == Number::Real(0.0);
                prop_assert!(back == element || minus_zero, "{from} {to} {element:?}");
            }
        }
    }

    #[test]
    fn whole_floats_become_integers_and_fractions_do_not() {
        let mut out = [0; 8];
        cast(DType::F64, &7f64.to_ne_bytes(), DType::I64, &mut out).unwrap();
        assert_eq!(i64::from_ne_bytes(out), 7);
        for value in [0.5, f64::NAN, f64::INFINITY, 1e19] {
            assert!(cast(DType::F64, &value.to_ne_bytes(), DType::I64, &mut out).is_err(), "{value}");
        }
        let mut out = [0; 4];
        assert!(cast(DType::F64, &0.1f64.to_ne_bytes(), DType::F32, &mut out).is_err());
        assert!(cast(DType::F64, &0.5f64.to_ne_bytes(), DType::F32, &mut out).is_ok());
        assert!(cast(DType::I64, &((1i64 << 24) + 1).to_ne_bytes(), DType::F32, &mut out).is_err());
    }
}
