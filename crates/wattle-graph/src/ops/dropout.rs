//! Dropout: a random part of the elements becomes zero, by a function of seed, counter and position alone.

use super::concrete::result_shapes;
use super::*;
use crate::tensor::DType;

/// `(x, counter [] i64) -> y`: each element is 0 with probability `ratio`, else `x / (1 - ratio)`
/// (Srivastava et al. 2014, section 10, "inverted").
///
/// Which elements are kept is a pure function of seed, counter and position, see [`Dropout::keeps`]: the same
/// for any number of threads, and repeated by the gradient without saving a mask. The caller advances the
/// counter every step. Only training graphs contain it; ONNX nodes in inference mode import as Identity, and
/// it exports as such a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of an element to become zero, in 0..1.
    pub ratio: f32,
    /// Names the stream of random numbers; a different one for each Dropout of a graph.
    pub seed: u64,
}

/// The increment of SplitMix64, the odd integer nearest to 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea & Flood 2014, figure 16, with Stafford's variant 13).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout {
    /// The starting state of the stream of one step; positions count from it.
    pub fn key(&self, counter: i64) -> u64 {
        mix(self.seed.wrapping_add(GOLDEN) ^ mix((counter as u64).wrapping_add(GOLDEN)))
    }

    /// Elements whose top 24 random bits are below this are dropped.
    pub fn threshold(&self) -> u64 {
        (f64::from(self.ratio) * f64::from(1 << 24)).round() as u64
    }

    /// Whether the element at flat position `index` is kept: SplitMix64's number `index` from `key` on, whose
    /// top 24 bits reach `threshold`.
    pub fn keeps(key: u64, threshold: u64, index: usize) -> bool {
        mix(key.wrapping_add((index as u64).wrapping_add(1).wrapping_mul(GOLDEN))) >> 40 >= threshold
    }
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("ratio", Attribute::Float(self.ratio)), ("seed", Attribute::Int(self.seed as i64))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        inputs.expect_dtype(1, "counter", &[DType::I64])?;
        inputs.expect_rank(1, "counter", 0)?;
        if !(0.0..1.0).contains(&self.ratio) {
            return Err(OpError::mismatch("ratio", self.ratio, "at least 0 and less than 1"));
        }
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (key, threshold) = (self.key(inputs.get(1)?.to_i64()[0]), self.threshold());
        let scale = 1.0 / (1.0 - f64::from(self.ratio));
        let kept = |(i, &v): (usize, &f64)| if Dropout::keeps(key, threshold, i) { v * scale } else { 0.0 };
        let y = x.to_f64().iter().enumerate().map(kept).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.gradient(), g.input(1)];
        Ok(Gradient::Inputs(vec![Some(g.apply(self.clone(), &operands)?), None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // The hash counts as one function evaluation, then a comparison and a product.
        Work::elementwise(3 * shapes.output_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let ratio = node.constant(Tensor::scalar(self.ratio));
        node.emit_final("Dropout", &[node.input(0), ratio], vec![]);
        Ok(())
    }
}

impl Described for Dropout {
    const ONNX: &'static [&'static str] = &["Dropout"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        // A seed only matters in training; the ratio too.
        node.attribute("seed");
        node.attribute("ratio");
        let training = node.constant_input(2)?.is_some_and(|t| t.to_i64().first() == Some(&1));
        let idle = training && node.constant_input(1)?.is_some_and(|t| t.to_f64().first() == Some(&0.0));
        if training && !idle {
            return Err(node.refuse("training_mode = true; only inference graphs are read"));
        }
        let x = node.input(0)?;
        let mut results = vec![node.apply(Identity, &[x])?];
        if node.wants_output(1) {
            let shape = node.graph().value(x).ty.shape.clone();
            let extents = shape.extents().filter(|e| e.iter().product::<usize>() <= 1 << 28);
            let Some(extents) = extents else {
                return Err(node.refuse(format!("the mask of an operand of shape {shape}; it must be known")));
            };
            let kept = Tensor::from_i64(DType::Bool, extents.clone(), vec![1; extents.iter().product()]);
            results.push(node.constant(kept));
        }
        Ok(results)
    }

    fn examples() -> Vec<Example> {
        let of = |ratio, counter| {
            let operands = vec![Example::noise(&[4, 5], 1), Tensor::i64([], vec![counter])];
            Example::new(Dropout { ratio, seed: 7 }, operands)
        };
        vec![of(0.5, 0), of(0.1, -3), of(0.0, 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_fraction_is_dropped_and_steps_differ() {
        let op = Dropout { ratio: 0.25, seed: 1 };
        let kept = |counter| -> Vec<bool> {
            (0..20_000).map(|i| Dropout::keeps(op.key(counter), op.threshold(), i)).collect()
        };
        let (a, b) = (kept(0), kept(1));
        let fraction = |v: &[bool]| v.iter().filter(|k| **k).count() as f64 / v.len() as f64;
        // Four standard deviations of 20000 trials.
        assert!((fraction(&a) - 0.75).abs() < 0.0123 && (fraction(&b) - 0.75).abs() < 0.0123);
        let both: Vec<bool> = a.iter().zip(&b).map(|(x, y)| *x && *y).collect();
        assert!((fraction(&both) - 0.5625).abs() < 0.0141);
    }

    #[test]
    fn the_mask_is_part_of_the_format_and_never_changes() {
        // The published first number of SplitMix64 from seed 1234567.
        assert_eq!(mix(1_234_567u64.wrapping_add(GOLDEN)), 6_457_827_717_110_365_317);
        let op = Dropout { ratio: 0.5, seed: 42 };
        let bits =
            (0..64).fold(0u64, |b, i| b << 1 | u64::from(Dropout::keeps(op.key(3), op.threshold(), i)));
        assert_eq!(bits, 0x1bb790ef3b2aa518);
    }
}
