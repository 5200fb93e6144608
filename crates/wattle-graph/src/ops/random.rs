//! Random: numbers drawn anew in every step, each a function of seed, stream, step and position alone.

use super::concrete::result_shapes;
use super::*;
use crate::shape::Shape;
use crate::tensor::DType;

/// `(seed [] i64, step [] i64 or float, like?) -> y`: independent draws, as many as `shape` says, or as `like` has elements.
///
/// Nothing but seed, [`Random::stream`], step and position decides a number, so any number of threads and any order of work
/// draw the same, and drawing again (in a gradient, in a resumed run) gives what was drawn. The generator is Philox4x32-10
/// (Salmon, Moraes, Dror & Shaw 2011). A float `step` holds a whole number, as the step count of training does.
///
/// ONNX's random operators draw otherwise in every run. Imported ones have a constant seed (theirs, or 0) and the constant
/// step 0, which gives the same numbers in every run; [`crate::rewrite::random_inputs`] makes inputs of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// What is drawn.
    pub kind: RandomKind,
    /// Element type of the result, f32 or f64.
    pub dtype: DType,
    /// Extents of the result; `None` for those of operand `like`.
    pub shape: Option<Vec<usize>>,
    /// Keeps apart what nodes of one seed draw: nodes of one stream draw the same numbers.
    pub stream: u64,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RandomKind {
    /// `low + u (high - low)` with u one of 2^24 equally spaced numbers in [0, 1).
    Uniform {
        /// Smallest value.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// Normal, by the transform of Box & Muller (1958): elements 2k and 2k + 1 are made from two uniform numbers.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        deviation: f32,
    },
    /// Standard Gumbel, `-ln(-ln u)`: the largest of `logits + Gumbel` is a sample of their softmax (Gumbel 1954).
    Gumbel,
    /// 1 with this probability, else 0.
    Bernoulli {
        /// In 0..=1, rounded to a multiple of 2^-24.
        probability: f32,
    },
}

impl RandomKind {
    /// 1 is drawn where the top 24 bits of a word are below this.
    pub fn threshold(probability: f32) -> u32 {
        (f64::from(probability) * f64::from(1 << 24)).round() as u32
    }

    /// What the words of elements 4k to 4k + 3 become.
    fn drawn(self, words: [u32; 4]) -> [f64; 4] {
        let half_open = |w: u32| f64::from(w >> 8) / f64::from(1 << 24);
        let open = |w: u32| (f64::from(w >> 9) + 0.5) / f64::from(1 << 23);
        match self {
            RandomKind::Uniform { low, high } => {
                words.map(|w| f64::from(low) + half_open(w) * f64::from(high - low))
            }
            RandomKind::Normal { mean, deviation } => {
                let pair = |a, b| {
                    let radius = (-2.0 * open(a).ln()).sqrt() * f64::from(deviation);
                    let angle = std::f64::consts::TAU * half_open(b);
                    [f64::from(mean) + radius * angle.cos(), f64::from(mean) + radius * angle.sin()]
                };
                let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
                [a, b, c, d]
            }
            RandomKind::Gumbel => words.map(|w| -(-open(w).ln()).ln()),
            RandomKind::Bernoulli { probability } => {
                words.map(|w| f64::from(u8::from(w >> 8 < RandomKind::threshold(probability))))
            }
        }
    }

    fn check(self) -> Result<(), OpError> {
        match self {
            RandomKind::Bernoulli { probability } if !(0.0..=1.0).contains(&probability) => {
                Err(OpError::mismatch("probability", probability, "a number from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

/// Requires operands `first` and `first + 1` to be a seed and a step.
pub(super) fn expect_counters(inputs: Operands<'_>, first: usize) -> Result<(), OpError> {
    inputs.expect_dtype(first, "seed", &[DType::I64])?;
    inputs.expect_rank(first, "seed", 0)?;
    inputs.expect_dtype(first + 1, "step", &[DType::I64, DType::F32, DType::F64])?;
    inputs.expect_rank(first + 1, "step", 0)
}

/// The key and step that operands `first` and `first + 1` are for a stream.
pub(super) fn counters(inputs: Tensors<'_>, first: usize, stream: u64) -> Result<(u64, i64), OpError> {
    let (seed, step) = (inputs.get(first)?.to_i64()[0], inputs.get(first + 1)?);
    let step = if step.dtype() == DType::I64 { step.to_i64()[0] } else { step.to_f64()[0] as i64 };
    Ok((philox::key(seed, stream), step))
}

/// The first `len` draws.
pub(super) fn draws(kind: RandomKind, (key, step): (u64, i64), len: usize) -> Vec<f64> {
    let blocks = (0..len.div_ceil(4) as u64).flat_map(|index| kind.drawn(philox::words(key, step, index)));
    blocks.take(len).collect()
}

impl Random {
    /// The key of the generator for this node's stream of a seed.
    pub fn key(&self, seed: i64) -> u64 {
        philox::key(seed, self.stream)
    }
}

impl Operator for Random {
    fn name(&self) -> &'static str {
        match (self.kind, self.shape.is_some()) {
            (RandomKind::Uniform { .. }, true) => "RandomUniform",
            (RandomKind::Uniform { .. }, false) => "RandomUniformLike",
            (RandomKind::Normal { .. }, true) => "RandomNormal",
            (RandomKind::Normal { .. }, false) => "RandomNormalLike",
            (RandomKind::Gumbel, _) => "RandomGumbel",
            (RandomKind::Bernoulli { .. }, _) => "RandomBernoulli",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut list = match self.kind {
            RandomKind::Uniform { low, high } => {
                vec![("low", Attribute::Float(low)), ("high", Attribute::Float(high))]
            }
            RandomKind::Normal { mean, deviation } => {
                vec![("mean", Attribute::Float(mean)), ("scale", Attribute::Float(deviation))]
            }
            RandomKind::Gumbel => vec![],
            RandomKind::Bernoulli { probability } => vec![("probability", Attribute::Float(probability))],
        };
        if let Some(shape) = &self.shape {
            list.push(("shape", Attribute::Ints(shape.iter().map(|&n| n as i64).collect())));
        }
        list.push(("dtype", Attribute::Int(i64::from(crate::onnx::number_of_dtype(self.dtype)))));
        list.push(("stream", Attribute::Int(self.stream as i64)));
        list
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        expect_counters(inputs, 0)?;
        self.kind.check()?;
        if !self.dtype.is_float() {
            return Err(OpError::mismatch("dtype", self.dtype, "f32 or f64"));
        }
        let shape = match &self.shape {
            Some(extents) => Shape::known(extents),
            None => inputs.ty(2, "like")?.shape.clone(),
        };
        Ok(vec![TensorType::new(self.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shapes = result_shapes(self, inputs)?;
        let len = shapes[0].iter().product();
        let values = draws(self.kind, counters(inputs, 0, self.stream)?, len);
        Ok(vec![Tensor::from_f64(self.dtype, shapes[0].clone(), values)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("what is drawn depends on no float operand"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Ten rounds of two products for every four elements, and a function or two of each.
        Work::elementwise(8 * shapes.output_len(0))
    }

    /// Another program draws other numbers of the same distribution.
    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let operands = if self.shape.is_some() { vec![] } else { vec![node.input(2)] };
        let own = |op: &Random| op.attributes().into_iter().filter(|(name, _)| *name != "stream").collect();
        let uniform = Random { kind: RandomKind::Uniform { low: 0.0, high: 1.0 }, ..self.clone() };
        match self.kind {
            RandomKind::Uniform { .. } | RandomKind::Normal { .. } => {
                node.emit_final(self.name(), &operands, own(self));
            }
            RandomKind::Gumbel => {
                let mut x = node.emit(uniform.name(), &operands, own(&uniform));
                for op in ["Log", "Neg", "Log"] {
                    x = node.emit(op, &[x], vec![]);
                }
                node.emit_final("Neg", &[x], vec![]);
            }
            RandomKind::Bernoulli { probability } => {
                let u = node.emit(uniform.name(), &operands, own(&uniform));
                let p = node.constant(Tensor::from_f64(self.dtype, [], vec![f64::from(probability)]));
                let below = node.emit("Less", &[u, p], vec![]);
                let to = Attribute::Int(i64::from(crate::onnx::number_of_dtype(self.dtype)));
                node.emit_final("Cast", &[below], vec![("to", to)]);
            }
        }
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        match self.kind {
            RandomKind::Bernoulli { .. } => Agreement::Exact,
            _ => Agreement::Relative(1e-6),
        }
    }
}

impl Described for Random {
    const ONNX: &'static [&'static str] =
        &["Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let like = node.op_type().ends_with("Like") || node.op_type() == "Bernoulli";
        let given = match node.int("dtype", 0)? {
            0 => None,
            number => {
                let known = i32::try_from(number).ok().and_then(|n| crate::onnx::dtype_of_number(n).ok());
                Some(known.ok_or_else(|| node.refuse(format!("dtype = {number}; expected an element type")))?)
            }
        };
        let seed = match node.attribute("seed") {
            None => 0,
            Some(Attribute::Float(x)) => i64::from(x.to_bits()),
            Some(other) => return Err(node.refuse(format!("seed = {other}; expected a number"))),
        };
        let operand = if like { Some(node.input(0)?) } else { None };
        let of_operand = operand.map(|x| node.graph().value(x).ty.dtype);
        let bernoulli = node.op_type() == "Bernoulli";
        // Bernoulli draws for probabilities of the operand's type; its own result may be of any type.
        let dtype = if bernoulli { of_operand } else { given.or(of_operand) }.unwrap_or(DType::F32);
        if !dtype.is_float() {
            return Err(node.refuse(format!("draws of type {dtype}; expected f32 or f64")));
        }
        let kind = match node.op_type() {
            "RandomNormal" | "RandomNormalLike" => {
                RandomKind::Normal { mean: node.float("mean", 0.0)?, deviation: node.float("scale", 1.0)? }
            }
            "Bernoulli" => RandomKind::Uniform { low: 0.0, high: 1.0 },
            _ => RandomKind::Uniform { low: node.float("low", 0.0)?, high: node.float("high", 1.0)? },
        };
        let shape = if like {
            None
        } else {
            let shape = node.ints("shape", &[])?;
            let extents = shape.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>();
            Some(extents.ok_or_else(|| node.refuse(format!("shape = {shape:?}; expected extents of at least 0")))?)
        };
        let stream = node.graph().nodes().len() as u64;
        let (seed, step) = (node.constant(Tensor::i64([], vec![seed])), node.constant(Tensor::i64([], vec![0])));
        let operands: Vec<_> = [seed, step].into_iter().chain(operand).map(Some).collect();
        let drawn = node.apply_all(Random { kind, dtype, shape, stream }, &operands)?;
        let (true, Some(probability)) = (bernoulli, operand) else { return Ok(drawn) };
        let below = node.apply(Compare { comparison: Comparison::Less }, &[drawn[0], probability])?;
        Ok(vec![node.apply(Cast { to: given.unwrap_or(dtype) }, &[below])?])
    }

    fn examples() -> Vec<Example> {
        let of = |kind, shape: Option<Vec<usize>>, step: Tensor| {
            let like = shape.is_none().then(|| Example::noise(&[3, 7], 1));
            let operands = [Some(Tensor::i64([], vec![11])), Some(step), like].into_iter().flatten().collect();
            Example::new(Random { kind, dtype: DType::F32, shape, stream: 5 }, operands)
        };
        let step = |n| Tensor::i64([], vec![n]);
        vec![
            of(RandomKind::Uniform { low: -2.0, high: 3.0 }, Some(vec![2, 33]), step(0)),
            of(RandomKind::Normal { mean: 1.0, deviation: 0.5 }, None, step(-4)),
            // Between two whole numbers, so that its slope is 0 on both sides.
            of(RandomKind::Gumbel, Some(vec![]), Tensor::scalar(9.25)),
            of(RandomKind::Bernoulli { probability: 0.3 }, Some(vec![100]), step(1)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_part_of_the_format_and_never_change() {
        let bits = draws(RandomKind::Bernoulli { probability: 0.5 }, (philox::key(42, 3), 7), 64);
        let bits = bits.iter().fold(0u64, |b, x| b << 1 | *x as u64);
        assert_eq!(bits, 0x76be_7432_5b21_0c12);
    }

    #[test]
    fn a_float_step_draws_as_the_whole_number_it_holds() {
        let op = Random { kind: RandomKind::Gumbel, dtype: DType::F64, shape: Some(vec![9]), stream: 0 };
        let seed = Tensor::i64([], vec![1]);
        let of = |step: Tensor| op.evaluate(Tensors::new(&[Some(&seed), Some(&step)])).unwrap();
        assert_eq!(of(Tensor::scalar(5.0)), of(Tensor::i64([], vec![5])));
        assert_ne!(of(Tensor::scalar(5.0)), of(Tensor::scalar(6.0)));
    }

    #[test]
    fn impossible_probabilities_are_refused() {
        for probability in [-0.1, 1.5, f32::NAN] {
            assert!(RandomKind::Bernoulli { probability }.check().is_err(), "{probability}");
        }
    }
}
