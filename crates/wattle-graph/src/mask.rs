//! Bit-packed masks: which elements of a parameter are alive.

use crate::tensor::{Data, Tensor};

/// One bit an element, row-major. Invariant: bits beyond `len` are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    len: usize,
    words: Vec<u64>,
}

impl Mask {
    /// A mask with every element alive.
    pub fn full(len: usize) -> Mask {
        Mask::from_bools((0..len).map(|_| true))
    }

    /// A mask from one truth value an element.
    pub fn from_bools(bits: impl IntoIterator<Item = bool>) -> Mask {
        let mut mask = Mask { len: 0, words: Vec::new() };
        for bit in bits {
            if mask.len.is_multiple_of(64) {
                mask.words.push(0);
            }
            if bit {
                mask.words[mask.len / 64] |= 1 << (mask.len % 64);
            }
            mask.len += 1;
        }
        mask
    }

    /// A mask from packed bytes, least significant bit first; `None` unless there are exactly enough bytes and
    /// the spare bits are zero.
    pub fn from_bytes(len: usize, bytes: &[u8]) -> Option<Mask> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let mask = Mask::from_bools((0..len).map(|i| bytes[i / 8] >> (i % 8) & 1 == 1));
        (mask.to_bytes() == bytes).then_some(mask)
    }

    /// Packed bytes, least significant bit first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|w| w.to_le_bytes());
        bytes.take(self.len.div_ceil(8)).collect()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether element `index` is alive.
    ///
    /// # Panics
    /// When `index` is not below [`Mask::len`].
    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "index {index} of a mask of {}", self.len);
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets element `index`; panics like [`Mask::get`].
    pub fn set(&mut self, index: usize, alive: bool) {
        assert!(index < self.len, "index {index} of a mask of {}", self.len);
        let bit = 1 << (index % 64);
        if alive { self.words[index / 64] |= bit } else { self.words[index / 64] &= !bit }
    }

    /// Number of elements alive.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Fraction of elements alive, in 0..=1; 1 for an empty mask.
    pub fn density(&self) -> f64 {
        if self.len == 0 { 1.0 } else { self.count() as f64 / self.len as f64 }
    }

    /// Makes the elements of a float tensor exactly +0 where the mask is off.
    ///
    /// # Panics
    /// When the sizes differ or the tensor is not of a float type.
    pub fn apply(&self, tensor: &mut Tensor) {
        assert_eq!(tensor.len(), self.len, "a mask fits its tensor");
        match tensor.data_mut() {
            Data::F32(v) => self.zero_dead(v, 0.0),
            Data::F64(v) => self.zero_dead(v, 0.0),
            other => panic!("masks apply to float tensors, not {other:?}"),
        }
    }

    fn zero_dead<T: Copy>(&self, values: &mut [T], zero: T) {
        for (i, x) in values.iter_mut().enumerate() {
            if !self.get(i) {
                *x = zero;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips_at_every_tail() {
        for len in 0..70 {
            let mask = Mask::from_bools((0..len).map(|i| i % 3 == 0));
            assert_eq!(Mask::from_bytes(len, &mask.to_bytes()), Some(mask.clone()));
            assert_eq!(mask.count(), len.div_ceil(3));
        }
    }

    #[test]
    fn wrong_sizes_and_spare_bits_are_refused() {
        assert_eq!(Mask::from_bytes(9, &[0xff]), None);
        assert_eq!(Mask::from_bytes(4, &[0xff]), None);
    }

    #[test]
    fn dead_elements_become_positive_zero() {
        let mut t = Tensor::f32([2], vec![-1.0, -2.0]);
        Mask::from_bools([false, true]).apply(&mut t);
        assert_eq!(t.as_f32().unwrap()[0].to_bits(), 0);
        assert_eq!(t.as_f32().unwrap()[1], -2.0);
    }
}
