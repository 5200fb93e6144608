//! Element-wise arithmetic of two operands, with NumPy broadcasting.

use super::*;
use crate::shape::broadcast;
use crate::tensor::{DType, each_index, strides};

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are ONNX operators")]
pub enum BinaryFunction {
    Add,
    Div,
    Max,
    Min,
    /// Remainder with the sign of the divisor (integers) or, with `fmod`, of the dividend.
    Mod { fmod: bool },
    Mul,
    Pow,
    /// `x` where positive, else `x` times the second operand.
    PRelu,
    Sub,
}

use BinaryFunction::*;

impl BinaryFunction {
    /// The function on floats.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Add => a + b,
            Div => a / b,
            Max => if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) },
            Min => if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) },
            Mod { fmod: true } => a % b,
            Mod { fmod: false } => a - b * (a / b).floor(),
            Mul => a * b,
            Pow => a.powf(b),
            PRelu => if a < 0.0 { a * b } else { a },
            Sub => a - b,
        }
    }

    /// The function on integers: wrapping, division towards zero; division by zero gives 0.
    fn integer(self, a: i64, b: i64) -> i64 {
        match self {
            Add => a.wrapping_add(b),
            Div => a.checked_div(b).unwrap_or(0),
            Max => a.max(b),
            Min => a.min(b),
            Mod { fmod: true } => a.checked_rem(b).unwrap_or(0),
            Mod { fmod: false } => {
                let r = a.checked_rem(b).unwrap_or(0);
                if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
            }
            Mul => a.wrapping_mul(b),
            Pow => (a as f64).powf(b as f64) as i64,
            PRelu => if a < 0 { a.wrapping_mul(b) } else { a },
            Sub => a.wrapping_sub(b),
        }
    }
}

/// `z = f(a, b)` with broadcasting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// f.
    pub function: BinaryFunction,
}

/// Flat index into an operand of shape `from` for each element of the broadcast shape `to`.
pub fn broadcast_indices(from: &[usize], to: &[usize]) -> Vec<usize> {
    let lead = to.len() - from.len();
    let mut steps = vec![0; to.len()];
    for (axis, (&n, stride)) in from.iter().zip(strides(from)).enumerate() {
        if n != 1 {
            steps[lead + axis] = stride;
        }
    }
    let mut indices = Vec::with_capacity(to.iter().product());
    each_index(to, |index| indices.push(index.iter().zip(&steps).map(|(i, s)| i * s).sum()));
    indices
}

/// The broadcast shape of two concrete shapes.
pub fn broadcast_extents(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    use crate::shape::Shape;
    broadcast(&Shape::known(a), &Shape::known(b))
        .and_then(|s| s.extents())
        .ok_or_else(|| OpError::mismatch("shapes", format!("{a:?} and {b:?}"), "broadcastable"))
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self.function {
            Add => "Add",
            Div => "Div",
            Max => "Max",
            Min => "Min",
            Mod { .. } => "Mod",
            Mul => "Mul",
            Pow => "Pow",
            PRelu => "PRelu",
            Sub => "Sub",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.function {
            Mod { fmod: true } => vec![("fmod", Attribute::Int(1))],
            _ => vec![],
        }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (a, b) = (inputs.ty(0, "a")?, inputs.ty(1, "b")?);
        // Pow alone allows an exponent of another type.
        if a.dtype != b.dtype && self.function != Pow || a.dtype == DType::Bool {
            return Err(OpError::mismatch("b", b.dtype, format!("the type of a, {}, a number", a.dtype)));
        }
        let shape = broadcast(&a.shape, &b.shape)
            .ok_or_else(|| OpError::mismatch("shapes", format!("{} and {}", a.shape, b.shape), "broadcastable"))?;
        Ok(vec![TensorType::new(a.dtype, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let shape = broadcast_extents(a.shape(), b.shape())?;
        let pairs = broadcast_indices(a.shape(), &shape).into_iter().zip(broadcast_indices(b.shape(), &shape));
        let z = if a.dtype().is_float() || b.dtype().is_float() {
            let (x, y) = (a.to_f64(), b.to_f64());
            Tensor::from_f64(a.dtype(), shape, pairs.map(|(i, j)| self.function.value(x[i], y[j])).collect())
        } else {
            let (x, y) = (a.to_i64(), b.to_i64());
            let unsigned = a.dtype() == DType::U64;
            let f = |p: i64, q: i64| match self.function {
                Div if unsigned => (p as u64).checked_div(q as u64).unwrap_or(0) as i64,
                Max if unsigned => (p as u64).max(q as u64) as i64,
                Min if unsigned => (p as u64).min(q as u64) as i64,
                Mod { .. } if unsigned => (p as u64).checked_rem(q as u64).unwrap_or(0) as i64,
                f => f.integer(p, q),
            };
            Tensor::from_i64(a.dtype(), shape, pairs.map(|(i, j)| f(x[i], y[j])).collect())
        };
        Ok(vec![z])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (a, b, z, dz) = (g.input(0), g.input(1), g.output(0), g.gradient());
        let binary = |function| Binary { function };
        let unary = |function| Unary { function };
        let (mut da, mut db) = (None, None);
        match self.function {
            Add | Sub => {
                da = Some(dz);
                if g.wants(1) {
                    db = Some(if self.function == Add { dz } else { g.apply(unary(Function::Neg), &[dz])? });
                }
            }
            Mul => {
                if g.wants(0) {
                    da = Some(g.apply(binary(Mul), &[dz, b])?);
                }
                if g.wants(1) {
                    db = Some(g.apply(binary(Mul), &[dz, a])?);
                }
            }
            Div => {
                if g.wants(0) {
                    da = Some(g.apply(binary(Div), &[dz, b])?);
                }
                if g.wants(1) {
                    // d(a/b)/db = -z/b
                    let slope = g.apply(binary(Div), &[z, b])?;
                    let slope = g.apply(unary(Function::Neg), &[slope])?;
                    db = Some(g.apply(binary(Mul), &[dz, slope])?);
                }
            }
            Pow => {
                if g.wants(0) {
                    // d(a^b)/da = b a^(b-1)
                    let one = g.constant(Tensor::scalar(1.0).cast(g.dtype(b)));
                    let less = g.apply(binary(Sub), &[b, one])?;
                    let power = g.apply(binary(Pow), &[a, less])?;
                    let slope = g.apply(binary(Mul), &[power, b])?;
                    da = Some(g.apply(binary(Mul), &[dz, slope])?);
                }
                if g.wants(1) {
                    // d(a^b)/db = z ln a
                    let log = g.apply(unary(Function::Log), &[a])?;
                    let slope = g.apply(binary(Mul), &[z, log])?;
                    db = Some(g.apply(binary(Mul), &[dz, slope])?);
                }
            }
            PRelu => {
                let zero = g.constant(Tensor::zeros(g.dtype(a), []));
                let below = g.apply(Compare { comparison: Comparison::Less }, &[a, zero])?;
                if g.wants(0) {
                    let scaled = g.apply(binary(Mul), &[dz, b])?;
                    da = Some(g.apply(Where, &[below, scaled, dz])?);
                }
                if g.wants(1) {
                    let negative = g.apply(Where, &[below, a, zero])?;
                    db = Some(g.apply(binary(Mul), &[dz, negative])?);
                }
            }
            // Ties share the gradient, so that Max(x, x) has slope one.
            Max | Min => {
                let ask = |g: &mut Backward<'_>, comparison| g.apply(Compare { comparison }, &[a, b]);
                let (greater, less) = (ask(g, Comparison::Greater)?, ask(g, Comparison::Less)?);
                let (first, second) = if self.function == Max { (greater, less) } else { (less, greater) };
                let zero = g.constant(Tensor::zeros(g.dtype(dz), []));
                let half = g.constant(Tensor::scalar(0.5).cast(g.dtype(dz)));
                let shared = g.apply(binary(Mul), &[dz, half])?;
                let share = |g: &mut Backward<'_>, mine, other| {
                    let rest = g.apply(Where, &[other, zero, shared])?;
                    g.apply(Where, &[mine, dz, rest])
                };
                if g.wants(0) {
                    da = Some(share(g, first, second)?);
                }
                if g.wants(1) {
                    db = Some(share(g, second, first)?);
                }
            }
            Mod { .. } => {
                let rule = |first| BinaryGradient { function: self.function, first };
                if g.wants(0) {
                    da = Some(g.apply(rule(true), &[a, b, dz])?);
                }
                if g.wants(1) {
                    db = Some(g.apply(rule(false), &[a, b, dz])?);
                }
            }
        }
        if let (Some(gradient), true) = (da, g.wants(0)) {
            da = Some(g.sum_to(gradient, a)?);
        }
        if let (Some(gradient), true) = (db, g.wants(1)) {
            db = Some(g.sum_to(gradient, b)?);
        }
        Ok(Gradient::Inputs(vec![da, db]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.output_len(0))
    }
}

/// Imports an operator of any number of operands as a chain of binary ones.
fn chain(node: &mut ForeignNode<'_>, function: BinaryFunction) -> Result<Vec<ValueId>, ImportError> {
    let mut sum = node.input(0)?;
    if node.input_count() == 1 {
        return Ok(vec![node.apply(Identity, &[sum])?]);
    }
    for index in 1..node.input_count() {
        let next = node.input(index)?;
        sum = node.apply(Binary { function }, &[sum, next])?;
    }
    Ok(vec![sum])
}

impl Described for Binary {
    const ONNX: &'static [&'static str] =
        &["Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "PRelu", "Sub", "Sum"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let function = match node.op_type() {
            "Add" => Add,
            "Div" => Div,
            "Max" => return chain(node, Max),
            "Mean" => {
                let sum = chain(node, Add)?[0];
                let count = Tensor::scalar(node.input_count() as f32).cast(node.graph().value(sum).ty.dtype);
                let count = node.constant(count);
                return Ok(vec![node.apply(Binary { function: Div }, &[sum, count])?]);
            }
            "Min" => return chain(node, Min),
            "Mod" => Mod { fmod: node.int("fmod", 0)? != 0 },
            "Mul" => Mul,
            "Pow" => Pow,
            "PRelu" => PRelu,
            "Sub" => Sub,
            "Sum" => return chain(node, Add),
            other => return Err(node.refuse(format!("{other} is not element-wise arithmetic"))),
        };
        node.finish(Binary { function })
    }

    fn examples() -> Vec<Example> {
        let positive = |shape: &[usize], seed| {
            let values = Example::noise(shape, seed).to_f64().iter().map(|x| x.abs() + 0.5).collect();
            Tensor::from_f64(DType::F32, shape, values)
        };
        let mut examples = vec![];
        for function in [Add, Div, Max, Min, Mul, Pow, PRelu, Sub] {
            examples.push(Example::new(Binary { function }, vec![positive(&[2, 3, 4], 6), positive(&[3, 1], 7)]));
            if function != Pow {
                let noise = vec![Example::noise(&[4, 3], 8), Example::noise(&[4, 3], 9)];
                examples.push(Example::new(Binary { function }, noise));
            }
        }
        let dividend = Tensor::i64([4], vec![-4, 7, 5, -8]);
        let divisor = Tensor::i64([4], vec![2, -3, 8, 3]);
        for function in [Mod { fmod: false }, Mod { fmod: true }, Div, Add] {
            examples.push(Example::new(Binary { function }, vec![dividend.clone(), divisor.clone()]));
        }
        examples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_unsigned_integers_are_compared_as_what_they_are() {
        let of = |v: u64| Tensor::new(vec![], crate::tensor::Data::U64(vec![v])).unwrap();
        for (function, wanted) in [(Max, u64::MAX - 3), (Min, 5)] {
            let z = Binary { function }.evaluate(Tensors::new(&[Some(&of(u64::MAX - 3)), Some(&of(5))]));
            assert_eq!(z.unwrap()[0], of(wanted));
        }
    }

    #[test]
    fn integer_division_by_zero_does_not_trap() {
        assert_eq!(Div.integer(5, 0), 0);
        assert_eq!(Div.integer(i64::MIN, -1), 0);
        assert_eq!(Mod { fmod: false }.integer(5, 0), 0);
    }

    #[test]
    fn mod_takes_the_sign_of_the_divisor_unless_fmod() {
        assert_eq!(Mod { fmod: false }.integer(-4, 3), 2);
        assert_eq!(Mod { fmod: true }.integer(-4, 3), -1);
    }
}
