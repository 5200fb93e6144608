//! How elements of any type are ordered, for the operators that sort or select.

use std::cmp::Ordering;

use crate::tensor::{Data, Tensor};

/// Compares elements of `x` by position, exactly for every type; NaN is above every number, as NumPy sorts.
pub(super) fn ordering(x: &Tensor) -> Box<dyn Fn(usize, usize) -> Ordering + '_> {
    if let Data::U64(values) = x.data() {
        return Box::new(|i, j| values[i].cmp(&values[j]));
    }
    if !x.dtype().is_float() {
        let values = x.to_i64();
        return Box::new(move |i, j| values[i].cmp(&values[j]));
    }
    let values = x.to_f64();
    Box::new(move |i, j| {
        let (a, b) = (values[i], values[j]);
        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_above_all_and_large_unsigned_numbers_are_not_negative() {
        let x = Tensor::f32([3], vec![f32::NAN, f32::INFINITY, -1.0]);
        assert_eq!(ordering(&x)(0, 1), Ordering::Greater);
        assert_eq!(ordering(&x)(0, 0), Ordering::Equal);
        let x = Tensor::new(vec![2], Data::U64(vec![u64::MAX, 1])).unwrap();
        assert_eq!(ordering(&x)(0, 1), Ordering::Greater);
    }
}
