//! Tensors that are mostly one value, kept small: what differs from it, and where that lies.

use crate::mask::Mask;
use crate::tensor::{DType, Tensor, element_count};

/// Bytes that the compact form may cost beside values and index: names, shapes and, in an ONNX file, the nodes that
/// rebuild the tensor. A tensor that would save less stays as it is.
pub(crate) const OVERHEAD: usize = 1024;

/// A tensor as the elements that differ from `fill`, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Compact {
    /// Extents of the whole tensor.
    pub shape: Vec<usize>,
    /// What every element is that `index` does not name: one element, of the type of `values`.
    pub fill: Tensor,
    /// The elements that `index` names (rank 1).
    pub values: Tensor,
    /// Where the values lie.
    pub index: Index,
}

/// Row-major positions of the values of a [`Compact`] tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Index {
    /// One byte a value: how far it lies behind the value before it; the first, how far behind element 0. Where
    /// values lie further apart than 255, some equal to the fill bridge the gap.
    Gaps(Vec<u8>),
    /// One bit an element, least significant first; spare bits are zero.
    Bits(Vec<u8>),
}

/// Why the parts of a [`Compact`] tensor do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// The extents cannot be counted with.
    #[error("shape {0:?} has more elements than can be counted")]
    Shape(Vec<usize>),
    /// A position that is not after the one before it, or outside.
    #[error("gap {at} leads to element {position}, expected one after its predecessor among {elements}")]
    Gap {
        /// Which gap.
        at: usize,
        /// Where it leads.
        position: usize,
        /// Elements of the tensor.
        elements: usize,
    },
    /// Too few or too many bits.
    #[error("{bytes} bytes of bits for {elements} elements, expected as many as they fill, spare bits zero")]
    Bits {
        /// Bytes found.
        bytes: usize,
        /// Elements of the tensor.
        elements: usize,
    },
    /// Values and positions differ in number.
    #[error("{values} values for {positions} positions")]
    Values {
        /// Values found.
        values: usize,
        /// Positions that the index names.
        positions: usize,
    },
    /// The fill is not one element of the values' type.
    #[error("the fill is not one element of the type of the values")]
    Fill,
}

impl Compact {
    /// The smaller of the two forms of a tensor of weights (floats, 8-bit integers); `None` when it is smallest as it
    /// is. Elements are compared by their bits: a negative zero is a value.
    pub fn of(tensor: &Tensor) -> Option<Compact> {
        let (elements, size) = (tensor.len(), tensor.dtype().size());
        // Positions are 32-bit integers where other programs rebuild the tensor.
        if elements * size <= OVERHEAD || i32::try_from(elements).is_err() {
            return None;
        }
        let bytes = tensor.to_le_bytes();
        let fill = match tensor.dtype() {
            DType::F32 | DType::F64 => vec![0; size],
            DType::I8 | DType::U8 => vec![most_frequent(&bytes)],
            _ => return None,
        };
        let values: Vec<usize> =
            bytes.chunks_exact(size).enumerate().filter(|(_, x)| *x != fill).map(|(at, _)| at).collect();
        let (gaps, stops) = gaps_to(&values);
        let as_gaps = stops.len() * (size + 1);
        let as_bits = values.len() * size + elements.div_ceil(8);
        if as_gaps.min(as_bits) + OVERHEAD > elements * size {
            return None;
        }
        let (index, positions) = if as_gaps <= as_bits {
            (Index::Gaps(gaps), stops)
        } else {
            let mut mask = Mask::from_bools((0..elements).map(|_| false));
            values.iter().for_each(|&at| mask.set(at, true));
            (Index::Bits(mask.to_bytes()), values)
        };
        let source: Vec<_> = positions.iter().copied().map(Some).collect();
        let fill = Tensor::from_le_bytes(tensor.dtype(), [1], &fill)?;
        let values = tensor.take([positions.len()], &source);
        Some(Compact { shape: tensor.shape().to_vec(), fill, values, index })
    }

    /// The whole tensor.
    ///
    /// # Errors
    /// When the parts, as read from a file, do not fit together. The memory this takes follows from `shape`, which
    /// the caller bounds.
    pub fn expand(&self) -> Result<Tensor, CompactError> {
        let elements = element_count(&self.shape).ok_or_else(|| CompactError::Shape(self.shape.clone()))?;
        let positions = match &self.index {
            Index::Gaps(gaps) => positions_of(gaps, elements)?,
            Index::Bits(bits) => {
                let mask = Mask::from_bytes(elements, bits);
                let mask = mask.ok_or(CompactError::Bits { bytes: bits.len(), elements })?;
                (0..elements).filter(|&at| mask.get(at)).collect()
            }
        };
        if positions.len() != self.values.len() {
            return Err(CompactError::Values { values: self.values.len(), positions: positions.len() });
        }
        if self.fill.len() != 1 || self.fill.dtype() != self.values.dtype() {
            return Err(CompactError::Fill);
        }
        let mut tensor = self.fill.filling(self.shape.clone());
        tensor.put(&positions, &self.values);
        Ok(tensor)
    }

    /// Bytes of values and index.
    pub fn bytes(&self) -> usize {
        let index = match &self.index {
            Index::Gaps(bytes) | Index::Bits(bytes) => bytes.len(),
        };
        self.values.len() * self.values.dtype().size() + index
    }
}

fn most_frequent(bytes: &[u8]) -> u8 {
    let mut counts = [0usize; 256];
    bytes.iter().for_each(|&b| counts[usize::from(b)] += 1);
    // Zero where it is as frequent as any other.
    (0..=u8::MAX).rev().max_by_key(|&b| counts[usize::from(b)]).unwrap_or(0)
}

/// The gaps that lead to each of `positions` (ascending), and where each of them leads: to the positions, and to the
/// stops on the way to those that are far. There is at least one, for not every runtime takes an empty list.
fn gaps_to(positions: &[usize]) -> (Vec<u8>, Vec<usize>) {
    const FAR: usize = u8::MAX as usize;
    let (mut gaps, mut stops, mut at) = (vec![], vec![], 0);
    for &position in positions {
        while position - at > FAR {
            at += FAR;
            gaps.push(u8::MAX);
            stops.push(at);
        }
        gaps.push((position - at) as u8);
        stops.push(position);
        at = position;
    }
    if positions.is_empty() { (vec![0], vec![0]) } else { (gaps, stops) }
}

fn positions_of(gaps: &[u8], elements: usize) -> Result<Vec<usize>, CompactError> {
    let (mut positions, mut position) = (Vec::with_capacity(gaps.len()), 0);
    for (at, &gap) in gaps.iter().enumerate() {
        position += usize::from(gap);
        if position >= elements || (gap == 0 && at > 0) {
            return Err(CompactError::Gap { at, position, elements });
        }
        positions.push(position);
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::operator::Example;

    /// A tensor of noise in which about `alive` of 1000 elements are not zero.
    fn sparse(shape: &[usize], alive: u32, seed: u32) -> Tensor {
        let dice = Example::noise(shape, seed + 1000).to_f64().into_owned();
        let values = Example::noise(shape, seed).to_f64().into_owned();
        let threshold = f64::from(alive) / 500.0 - 1.0;
        let keep = |(x, d): (f64, f64)| if d < threshold { x as f32 } else { 0.0 };
        Tensor::f32(shape, values.into_iter().zip(dice).map(keep).collect())
    }

    fn same_bits(a: &Tensor, b: &Tensor) -> bool {
        a.shape() == b.shape() && a.dtype() == b.dtype() && a.to_le_bytes() == b.to_le_bytes()
    }

    #[test]
    fn a_tenth_of_the_elements_takes_an_eighth_of_the_bytes() {
        for (rows, columns) in [(100, 300), (512, 512), (1000, 2000)] {
            let tensor = sparse(&[rows, columns], 100, 7);
            let alive = tensor.density() * tensor.len() as f64;
            let compact = Compact::of(&tensor).unwrap();
            assert!(matches!(compact.index, Index::Gaps(_)));
            assert!((compact.bytes() as f64) < 5.02 * alive, "{} for {alive}", compact.bytes());
            assert!(same_bits(&compact.expand().unwrap(), &tensor));
        }
    }

    #[test]
    fn the_form_follows_the_density() {
        let form = |alive| Compact::of(&sparse(&[64, 64], alive, 3)).map(|c| c.index);
        assert!(matches!(form(50), Some(Index::Gaps(_))));
        assert!(matches!(form(300), Some(Index::Bits(_))));
        assert!(form(950).is_none());
    }

    #[test]
    fn eight_bit_weights_leave_out_their_most_frequent_value() {
        let zero_point = 128;
        let elements: Vec<f64> =
            (0..9000).map(|i| if i % 9 == 4 { f64::from(i % 251) } else { f64::from(zero_point) }).collect();
        let tensor = Tensor::from_f64(DType::U8, [90, 100], elements);
        let compact = Compact::of(&tensor).unwrap();
        assert_eq!(compact.fill.to_i64().as_ref(), &[i64::from(zero_point)]);
        assert!(compact.bytes() <= 2 * 1000);
        assert_eq!(compact.expand().unwrap(), tensor);
    }

    #[test]
    fn negative_zeros_and_not_a_numbers_keep_their_bits() {
        let mut elements = vec![0.0f32; 5000];
        (elements[3], elements[4000]) = (-0.0, f32::from_bits(0x7fc0_1234));
        let tensor = Tensor::f32([50, 100], elements);
        let compact = Compact::of(&tensor).unwrap();
        assert!(same_bits(&compact.expand().unwrap(), &tensor));
    }

    #[test]
    fn a_tensor_of_zeros_is_one_value_and_small_tensors_stay_as_they_are() {
        let zeros = Compact::of(&Tensor::zeros(DType::F32, [100, 100])).unwrap();
        assert_eq!(zeros.bytes(), 5);
        assert!(zeros.expand().unwrap().to_f64().iter().all(|&x| x == 0.0));
        for shape in [&[][..], &[0], &[1], &[10, 10], &[0, 1 << 30]] {
            assert!(Compact::of(&Tensor::zeros(DType::F32, shape)).is_none(), "{shape:?}");
        }
        assert!(Compact::of(&Tensor::zeros(DType::I64, [10_000])).is_none(), "what is no weight");
    }

    #[test]
    fn parts_that_do_not_fit_are_errors() {
        let with = |index, values: usize, shape: &[usize]| {
            let values = Tensor::zeros(DType::F32, [values]);
            Compact { shape: shape.to_vec(), fill: Tensor::f32([1], vec![0.0]), values, index }.expand()
        };
        assert!(with(Index::Gaps(vec![3, 255]), 2, &[259]).is_ok());
        assert!(matches!(with(Index::Gaps(vec![3, 255]), 2, &[258]), Err(CompactError::Gap { at: 1, .. })));
        assert!(matches!(with(Index::Gaps(vec![3, 0]), 2, &[9]), Err(CompactError::Gap { at: 1, .. })));
        assert!(matches!(with(Index::Gaps(vec![0]), 1, &[3, 0]), Err(CompactError::Gap { .. })));
        assert!(matches!(with(Index::Gaps(vec![3]), 2, &[9]), Err(CompactError::Values { .. })));
        assert!(matches!(with(Index::Bits(vec![1]), 1, &[9]), Err(CompactError::Bits { .. })));
        assert!(matches!(with(Index::Bits(vec![0, 2]), 1, &[9]), Err(CompactError::Bits { .. })));
        assert!(matches!(with(Index::Bits(vec![3, 0]), 1, &[9]), Err(CompactError::Values { .. })));
        assert!(matches!(with(Index::Gaps(vec![]), 0, &[usize::MAX, 2]), Err(CompactError::Shape(_))));
        let mut unlike = Compact::of(&Tensor::zeros(DType::F32, [1000])).unwrap();
        unlike.fill = Tensor::ints(&[0]);
        assert_eq!(unlike.expand(), Err(CompactError::Fill));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_tensor_comes_back_bit_for_bit(
            shape in prop::collection::vec(0usize..14, 0..5), alive in 0u32..1000, seed in 0u32..1000,
        ) {
            let tensor = sparse(&shape, alive, seed);
            if let Some(compact) = Compact::of(&tensor) {
                prop_assert!(compact.bytes() < 4 * tensor.len());
                prop_assert!(same_bits(&compact.expand().unwrap(), &tensor));
            }
        }

        #[test]
        fn foreign_parts_never_panic(
            shape in prop::collection::vec(0usize..30, 0..3), index in prop::collection::vec(0u8..4, 0..40),
            values in 0usize..40, bits: bool,
        ) {
            let index = if bits { Index::Bits(index) } else { Index::Gaps(index) };
            let values = Tensor::zeros(DType::F32, [values]);
            let _ = Compact { shape, fill: Tensor::f32([1], vec![0.0]), values, index }.expand();
        }
    }
}
