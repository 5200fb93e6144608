//! ScatterElements and ScatterND: a tensor with some of its elements or slices replaced or updated.

use super::concrete::result_shapes;
use super::gather_elements::{check_elements, element_positions};
use super::gather_nd::{slice_positions, slices_shape};
use super::*;
use crate::tensor::{DType, Data};

/// What becomes of an element that an update meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterReduction {
    /// The update replaces it; of several updates the last stays (ONNX leaves that open).
    Replace,
    /// Their sum, over all updates in order.
    Add,
    /// Their product.
    Mul,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

use ScatterReduction::*;

/// `ScatterElements(x, indices, updates)`: `y = x`, then `y[i, indices[i, j, k], k]` meets `updates[i, j, k]`
/// (for axis 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterElements {
    /// The axis that is indexed.
    pub axis: i64,
    /// What becomes of elements met.
    pub reduction: ScatterReduction,
}

/// `ScatterND(x, indices, updates)`: `y = x`, then the slice `y[indices[i.., :]]` meets `updates[i.., ..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterNd {
    /// What becomes of elements met.
    pub reduction: ScatterReduction,
}

impl ScatterReduction {
    fn import(node: &mut ForeignNode<'_>) -> Result<ScatterReduction, ImportError> {
        match node.text("reduction", "none")?.as_str() {
            "none" => Ok(Replace),
            "add" => Ok(Add),
            "mul" => Ok(Mul),
            "max" => Ok(Max),
            "min" => Ok(Min),
            other => Err(node.refuse(format!("reduction = `{other}`; known: none, add, mul, max, min"))),
        }
    }

    fn attribute(self) -> Option<(&'static str, Attribute)> {
        let text = match self {
            Replace => return None,
            Add => "add",
            Mul => "mul",
            Max => "max",
            Min => "min",
        };
        Some(("reduction", Attribute::Text(text.into())))
    }

    fn float(self, old: f64, update: f64) -> f64 {
        match self {
            Replace => update,
            Add => old + update,
            Mul => old * update,
            // Unlike f64::max these keep NaN.
            Max => if old > update || old.is_nan() { old } else { update },
            Min => if old < update || old.is_nan() { old } else { update },
        }
    }

    fn integer(self, old: i64, update: i64) -> i64 {
        match self {
            Replace => update,
            Add => old.wrapping_add(update),
            Mul => old.wrapping_mul(update),
            Max => old.max(update),
            Min => old.min(update),
        }
    }

    /// `x` after element `targets[i]` met `updates[i]`, for every i in order.
    fn apply(self, x: &Tensor, updates: &Tensor, targets: impl Iterator<Item = usize>) -> Tensor {
        let pairs = targets.enumerate();
        if x.dtype().is_float() {
            let (mut y, updates) = (x.to_f64().into_owned(), updates.to_f64());
            pairs.for_each(|(i, to)| y[to] = self.float(y[to], updates[i]));
            return Tensor::from_f64(x.dtype(), x.shape(), y);
        }
        let unsigned_order = matches!(x.data(), Data::U64(_)) && matches!(self, Max | Min);
        // Flipping the top bit maps the order of u64 to that of i64.
        let flip = if unsigned_order { i64::MIN } else { 0 };
        let (mut y, updates) = (x.to_i64().into_owned(), updates.to_i64());
        pairs.for_each(|(i, to)| y[to] = self.integer(y[to] ^ flip, updates[i] ^ flip) ^ flip);
        Tensor::from_i64(x.dtype(), x.shape(), y)
    }

    /// Gradients of `x` and of the updates; `gather` picks what the indices name.
    fn gradient(self, scatter: Op, gather: Op, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (indices, updates, dy) = (g.input(1), g.input(2), g.gradient());
        let (mut dx, mut du) = (None, None);
        match self {
            Add => dx = Some(dy),
            Replace if g.wants(0) => {
                // What was replaced no longer matters.
                let zeros = Tensor::zeros(g.dtype(dy), g.extents(updates)?);
                let zeros = g.constant(zeros);
                dx = Some(g.apply(scatter, &[dy, indices, zeros])?);
            }
            Replace => {}
            Mul | Max | Min => {
                return Ok(Gradient::NotDifferentiable("only plain and adding scatters have a gradient"));
            }
        }
        if g.wants(2) {
            du = Some(g.apply(gather, &[dy, indices])?);
        }
        Ok(Gradient::Inputs(vec![dx, None, du]))
    }
}

/// Checks element types common to both operators; returns that of the result.
fn check_types(inputs: Operands<'_>, indices: &[DType]) -> Result<DType, OpError> {
    let dtype = inputs.ty(0, "x")?.dtype;
    inputs.expect_dtype(1, "indices", indices)?;
    inputs.expect_dtype(2, "updates", &[dtype])
}

/// Checks that the updates have the shape `expected`, as far as both are known.
fn check_updates(inputs: Operands<'_>, expected: &crate::shape::Shape) -> Result<(), OpError> {
    let updates = &inputs.ty(2, "updates")?.shape;
    let (Some(found), Some(wanted)) = (updates.dims(), expected.dims()) else { return Ok(()) };
    let clash = |(a, b): (&crate::shape::Dim, &crate::shape::Dim)| a.known().zip(b.known()).is_some_and(|(a, b)| a != b);
    if found.len() != wanted.len() || found.iter().zip(wanted).any(clash) {
        return Err(OpError::mismatch("updates", updates, expected));
    }
    Ok(())
}

impl Operator for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        [("axis", Attribute::Int(self.axis))].into_iter().chain(self.reduction.attribute()).collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        check_types(inputs, &[DType::I64, DType::I32])?;
        let (x, indices) = (inputs.ty(0, "x")?, inputs.ty(1, "indices")?);
        check_updates(inputs, &indices.shape)?;
        if let (Some(x), Some(indices)) = (x.shape.dims(), indices.shape.dims()) {
            check_elements(x, indices, self.axis)?;
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, indices, updates) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let targets = element_positions(x.shape(), axis_of(self.axis, x.shape().len())?, indices)?;
        Ok(vec![self.reduction.apply(x, updates, targets.into_iter())])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        self.reduction.gradient(self.clone().into(), GatherElements { axis: self.axis }.into(), g)
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let updates = if self.reduction == Replace { 0 } else { shapes.input_len(2) };
        Work::elementwise(updates)
    }
}

impl Described for ScatterElements {
    const ONNX: &'static [&'static str] = &["Scatter", "ScatterElements"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", 0)?;
        let reduction = ScatterReduction::import(node)?;
        node.finish(ScatterElements { axis, reduction })
    }

    fn examples() -> Vec<Example> {
        let of = |axis, reduction, indices: &[i64]| {
            let inputs = vec![Example::noise(&[3, 4], 1), Tensor::i64([2, 3], indices.to_vec()), Example::noise(&[2, 3], 2)];
            Example::new(ScatterElements { axis, reduction }, inputs)
        };
        let ints = vec![Tensor::ints(&[1, 2, 3]), Tensor::ints(&[-1, 0]), Tensor::ints(&[7, -2])];
        vec![
            of(1, Replace, &[1, 0, 2, -1, -2, 0]),
            of(0, Replace, &[0, 1, 2, 2, 0, -2]),
            of(0, Add, &[0, 0, 1, 0, 2, 1]),
            of(1, Add, &[0, 0, 0, 1, 3, 1]),
            of(-1, Mul, &[0, 0, 1, 2, 3, 1]),
            of(1, Max, &[0, 1, 1, 2, 3, 1]),
            of(1, Min, &[0, 1, 1, 2, 3, 1]),
            Example::new(ScatterElements { axis: 0, reduction: Max }, ints),
        ]
    }
}

impl Operator for ScatterNd {
    fn name(&self) -> &'static str {
        "ScatterND"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.reduction.attribute().into_iter().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        check_types(inputs, &[DType::I64])?;
        let (x, indices) = (inputs.ty(0, "x")?, inputs.ty(1, "indices")?);
        check_updates(inputs, &slices_shape(&x.shape, &indices.shape, 0)?)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let (x, indices, updates) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let starts = slice_positions(x.shape(), 0, indices)?;
        let slice: usize = updates.shape()[indices.shape().len() - 1..].iter().product();
        let targets = starts.into_iter().flat_map(|s| s..s + slice);
        Ok(vec![self.reduction.apply(x, updates, targets)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        self.reduction.gradient(self.clone().into(), GatherNd { batch_axes: 0 }.into(), g)
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let updates = if self.reduction == Replace { 0 } else { shapes.input_len(2) };
        Work::elementwise(updates)
    }
}

impl Described for ScatterNd {
    const ONNX: &'static [&'static str] = &["ScatterND"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let reduction = ScatterReduction::import(node)?;
        node.finish(ScatterNd { reduction })
    }

    fn examples() -> Vec<Example> {
        let of = |reduction, indices: Tensor, updates: &[usize]| {
            Example::new(ScatterNd { reduction }, vec![Example::noise(&[4, 3], 1), indices, Example::noise(updates, 2)])
        };
        let rows = || Tensor::i64([3, 1], vec![2, 0, -1]);
        let repeated = || Tensor::i64([3, 1], vec![2, 0, 2]);
        let elements = || Tensor::i64([2, 1, 2], vec![0, 1, 3, -1]);
        vec![
            of(Replace, rows(), &[3, 3]),
            of(Replace, elements(), &[2, 1]),
            of(Add, repeated(), &[3, 3]),
            of(Add, elements(), &[2, 1]),
            of(Mul, repeated(), &[3, 3]),
            of(Max, repeated(), &[3, 3]),
            of(Min, elements(), &[2, 1]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_of_one_element_meet_it_one_after_another() {
        let inputs = [Tensor::ints(&[1, 1]), Tensor::ints(&[0, 0]), Tensor::ints(&[3, 5])];
        let operands: Vec<_> = inputs.iter().map(Some).collect();
        for (reduction, expected) in [(Replace, 5), (Add, 9), (Mul, 15), (Max, 5), (Min, 1)] {
            let op = ScatterElements { axis: 0, reduction };
            let y = op.evaluate(Tensors::new(&operands)).unwrap().swap_remove(0);
            assert_eq!(y.to_i64().as_ref(), &[expected, 1], "{reduction:?}");
        }
    }

    #[test]
    fn large_unsigned_numbers_are_compared_as_such() {
        let one = |v| Tensor::new(vec![1], Data::U64(vec![v])).unwrap();
        let y = Max.apply(&one(u64::MAX), &one(1), [0].into_iter());
        assert_eq!(y, one(u64::MAX));
    }

    #[test]
    fn updates_of_another_shape_are_refused() {
        let inputs = [Tensor::ints(&[1, 1]), Tensor::ints(&[0, 0]), Tensor::ints(&[3])];
        let operands: Vec<_> = inputs.iter().map(Some).collect();
        assert!(ScatterElements { axis: 0, reduction: Add }.evaluate(Tensors::new(&operands)).is_err());
    }
}
