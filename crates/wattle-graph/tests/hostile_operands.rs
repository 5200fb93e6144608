//! Operators on operands that nobody would give them: refused or computed, never a panic, and never another shape
//! than was inferred.
//!
//! Every operator's examples are mutated (types, extents, contents, operands left out or added), the same way in
//! every run. Two promises are tested: `evaluate` on operands that `infer` accepted with every extent known, and
//! `Op::evaluate_checked` on operands that were accepted while extents were still symbols.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wattle_graph::ops::{ALL, Op};
use wattle_graph::{DType, Dim, OpError, Operand, Operands, Shape, Tensor, TensorType, Tensors};

/// Mutations for each operator, some seconds' worth in all, unless `WATTLE_FUZZ_OPERANDS` says otherwise.
const ROUNDS: usize = 5000;

/// Results above this size are refused here instead of being computed.
const MAX_ELEMENTS: usize = 1 << 16;

const TYPES: [DType; 11] = [
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

/// Xorshift (Marsaglia 2003, triple 13/7/17): small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn shape(&mut self) -> Vec<usize> {
        (0..self.below(5)).map(|_| self.below(5)).collect()
    }

    fn tensor(&mut self, dtype: DType, shape: Vec<usize>) -> Tensor {
        let count: usize = shape.iter().product();
        let wild = self.one_in(4);
        if dtype.is_float() {
            let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e30, 0.0];
            let value = |dice: &mut Dice| match dice.below(14) {
                i if i < special.len() && wild => special[i],
                i => i as f64 - 6.5,
            };
            Tensor::from_f64(dtype, shape, (0..count).map(|_| value(self)).collect())
        } else {
            let special = [i64::MAX, i64::MIN, 1 << 40, -(1 << 33), 1 << 31];
            let value = |dice: &mut Dice| match dice.below(14) {
                i if i < special.len() && wild => special[i],
                i => i as i64 % 8 - 3,
            };
            Tensor::from_i64(dtype, shape, (0..count).map(|_| value(self)).collect())
        }
    }

    fn mutate(&mut self, operands: &mut Vec<Option<Tensor>>) {
        let gentle = self.one_in(3);
        for operand in operands.iter_mut() {
            if gentle && self.one_in(2) {
                continue;
            }
            let dtype = match operand {
                Some(tensor) if !self.one_in(8) => tensor.dtype(),
                _ => TYPES[self.below(TYPES.len())],
            };
            let shape = match operand {
                Some(tensor) if !self.one_in(3) => {
                    let mut shape = tensor.shape().to_vec();
                    if !shape.is_empty() && self.one_in(2) {
                        let axis = self.below(shape.len());
                        shape[axis] = self.below(5);
                    }
                    shape
                }
                _ => self.shape(),
            };
            *operand = if self.one_in(12) { None } else { Some(self.tensor(dtype, shape)) };
        }
        if self.one_in(10) {
            operands.pop();
        }
        if self.one_in(20) {
            let shape = self.shape();
            operands.push(Some(self.tensor(DType::I64, shape)));
        }
    }

    /// The type with some extents, or all, forgotten.
    fn blurred(&mut self, ty: &TensorType) -> TensorType {
        let mut ty = ty.clone();
        if self.one_in(4) {
            ty.shape = Shape::Unknown;
        } else if let Shape::Ranked(dims) = &mut ty.shape {
            for dim in dims {
                if self.one_in(3) {
                    *dim = Dim::symbol("N");
                }
            }
        }
        ty
    }
}

fn infer(
    op: &Op,
    types: &[Option<TensorType>],
    constants: &[Option<&Tensor>],
) -> Result<Vec<TensorType>, OpError> {
    let pairs = types.iter().zip(constants);
    let operands: Vec<_> =
        pairs.map(|(ty, constant)| ty.as_ref().map(|ty| Operand { ty, constant: *constant })).collect();
    op.infer(Operands::new(&operands))
}

fn small(types: &[TensorType]) -> bool {
    let count = |ty: &TensorType| {
        let extents = ty.shape.extents().unwrap_or_default();
        extents.iter().fold(1usize, |n, &e| n.saturating_mul(e))
    };
    types.iter().all(|ty| count(ty) <= MAX_ELEMENTS)
}

/// Whether a result is of the inferred type, as far as that is known.
fn agrees(ty: &TensorType, result: &Tensor) -> bool {
    let fits = |dims: &[Dim]| {
        dims.len() == result.shape().len()
            && dims.iter().zip(result.shape()).all(|(d, n)| d.known().is_none_or(|k| k == *n))
    };
    ty.dtype == result.dtype() && ty.shape.dims().is_none_or(fits)
}

/// One mutated application; says whether something was computed.
fn apply(op: &Op, operands: &[Option<Tensor>], blurred: &[Option<TensorType>]) -> Result<bool, String> {
    let tensors: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    let exact: Vec<Option<TensorType>> =
        tensors.iter().map(|t| t.map(|t| TensorType::new(t.dtype(), Shape::known(t.shape())))).collect();
    let none = vec![None; tensors.len()];
    let known = infer(op, &exact, &tensors);
    let symbolic = infer(op, blurred, &none);
    let mut computed = false;
    if let Ok(types) = &known
        && small(types)
        && let Ok(results) = op.evaluate(Tensors::new(&tensors))
    {
        computed = true;
        if let Some((ty, y)) = types.iter().zip(&results).find(|(ty, y)| !agrees(ty, y)) {
            return Err(format!("inferred {ty}, computed {}{:?}", y.dtype(), y.shape()));
        }
    }
    if let (Ok(types), true) = (&symbolic, known.as_ref().map_or(true, |types| small(types)))
        && let Ok(results) = op.evaluate_checked(Tensors::new(&tensors))
        && let Some((ty, y)) = types.iter().zip(&results).find(|(ty, y)| !agrees(ty, y))
    {
        return Err(format!("inferred {ty} of symbols, computed {}{:?}", y.dtype(), y.shape()));
    }
    Ok(computed)
}

#[test]
fn no_operand_makes_an_operator_panic_or_break_its_word() {
    let rounds = std::env::var("WATTLE_FUZZ_OPERANDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut dice = Dice(88_172_645_463_325_252);
    let mut failures = vec![];
    for operator in ALL {
        let examples = (operator.examples)();
        let (mut computed, mut failed) = (0, None);
        for round in 0..rounds {
            let example = &examples[round % examples.len()];
            let mut operands = example.inputs.clone();
            dice.mutate(&mut operands);
            let blurred: Vec<_> = operands
                .iter()
                .map(|t| t.as_ref().map(|t| TensorType::new(t.dtype(), Shape::known(t.shape()))))
                .map(|ty| ty.map(|ty| dice.blurred(&ty)))
                .collect();
            match catch_unwind(AssertUnwindSafe(|| apply(&example.op, &operands, &blurred))) {
                Ok(Ok(done)) => computed += usize::from(done),
                Ok(Err(reason)) => failed = failed.or(Some((reason, example, operands))),
                Err(_) => failed = failed.or(Some(("it panics".to_string(), example, operands))),
            }
        }
        if computed == 0 {
            failures.push(format!("{}: no mutation is ever computed, so nothing is tested", operator.name));
        }
        if let Some((reason, example, operands)) = failed {
            let mut text = format!("{}: {reason}: {:?} on {operands:?}", operator.name, example.op);
            text.truncate(text.char_indices().nth(700).map_or(text.len(), |(at, _)| at));
            failures.push(text);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
