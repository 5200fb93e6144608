//! Unique: the different elements or slices of a tensor, where they first occur, and how often.

use std::cmp::Ordering;

use super::ordering::ordering;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// `Unique(x) -> (y, first, inverse, counts)`: the different slices along an axis, then for each its first
/// position, for each slice of `x` its position in `y`, and how often each occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The axis whose slices are compared, or all elements in one row when `None`.
    pub axis: Option<i64>,
    /// Sort the slices, else keep the order in which they first occur.
    pub sorted: bool,
}

/// What there is to know about the slices of one tensor.
#[derive(Debug, Default)]
struct Classes {
    first: Vec<usize>,
    inverse: Vec<usize>,
    counts: Vec<i64>,
}

impl Unique {
    /// Positions of the elements of each slice, in row-major order.
    fn slices(&self, shape: &[usize]) -> Result<Vec<Vec<usize>>, OpError> {
        let Some(axis) = self.axis else {
            return Ok((0..shape.iter().product()).map(|i| vec![i]).collect());
        };
        let axis = axis_of(axis, shape.len())?;
        let mut slices = vec![vec![]; shape[axis]];
        let mut at = 0;
        each_index(shape, |index| {
            slices[index[axis]].push(at);
            at += 1;
        });
        Ok(slices)
    }

    fn classes(&self, x: &Tensor) -> Result<Classes, OpError> {
        let slices = self.slices(x.shape())?;
        let compare = ordering(x);
        let order = |a: usize, b: usize| {
            let pairs = slices[a].iter().zip(&slices[b]);
            pairs.map(|(&i, &j)| compare(i, j)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        };
        let mut sorted: Vec<usize> = (0..slices.len()).collect();
        // A stable sort has the first of equal slices first.
        sorted.sort_by(|&a, &b| order(a, b));
        let mut groups: Vec<Vec<usize>> = vec![];
        for slice in sorted {
            match groups.last_mut() {
                Some(group) if order(group[0], slice).is_eq() => group.push(slice),
                _ => groups.push(vec![slice]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }
        let mut classes = Classes { inverse: vec![0; slices.len()], ..Classes::default() };
        for (class, group) in groups.iter().enumerate() {
            classes.first.push(group[0]);
            classes.counts.push(group.len() as i64);
            group.iter().for_each(|&slice| classes.inverse[slice] = class);
        }
        Ok(classes)
    }
}

impl Operator for Unique {
    fn name(&self) -> &'static str {
        "Unique"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axis = self.axis.map(|axis| ("axis", Attribute::Int(axis)));
        let unsorted = (!self.sorted).then_some(("sorted", Attribute::Int(0)));
        axis.into_iter().chain(unsorted).collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.get(0, "x")?;
        let count = match x.constant {
            Some(tensor) => Dim::Known(self.classes(tensor)?.first.len()),
            None => Dim::symbol("unique"),
        };
        let (shape, slices) = match (self.axis, x.ty.shape.dims()) {
            (None, dims) => {
                let product = |dims: &[Dim]| dims.iter().fold(Dim::Known(1), |a, b| a.times(b));
                (vec![count.clone()].into(), dims.map_or_else(|| Dim::symbol("elements"), product))
            }
            (Some(_), None) => (Shape::Unknown, Dim::symbol("slices")),
            (Some(axis), Some(dims)) => {
                let axis = axis_of(axis, dims.len())?;
                let mut result = dims.to_vec();
                result[axis] = count.clone();
                (result.into(), dims[axis].clone())
            }
        };
        let list = |dim: Dim| TensorType::new(DType::I64, vec![dim]);
        Ok(vec![TensorType::new(x.ty.dtype, shape), list(count.clone()), list(slices), list(count)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let classes = self.classes(x)?;
        let mut shape = vec![classes.first.len()];
        let mut source = vec![];
        if let Some(axis) = self.axis {
            let axis = axis_of(axis, x.shape().len())?;
            let from = strides(x.shape());
            shape = x.shape().to_vec();
            shape[axis] = classes.first.len();
            each_index(&shape, |index| {
                let at = |a: usize| if a == axis { classes.first[index[a]] } else { index[a] };
                source.push(Some((0..index.len()).map(|a| at(a) * from[a]).sum()));
            });
        } else {
            source.extend(classes.first.iter().copied().map(Some));
        }
        let ints = |list: &[usize]| Tensor::ints(&list.iter().map(|&n| n as i64).collect::<Vec<_>>());
        let (first, inverse) = (ints(&classes.first), ints(&classes.inverse));
        Ok(vec![x.take(shape, &source), first, inverse, Tensor::ints(&classes.counts)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        // The elements are those gathered where they first occur.
        let (x, dy, first) = (g.input(0), g.gradient(), g.output(1));
        let extents = g.extents(x)?;
        let (axis, shape) = match self.axis {
            Some(axis) => (axis, extents),
            None => (0, vec![extents.iter().product()]),
        };
        let op = MovementGradient { forward: Box::new(Gather { axis }.into()), input_shape: shape };
        let dx = g.apply(op, &[dy, first])?;
        Ok(Gradient::Inputs(vec![Some(g.reshape_to(dx, x)?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Unique {
    const ONNX: &'static [&'static str] = &["Unique"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = match node.attribute("axis") {
            None => None,
            Some(Attribute::Int(axis)) => Some(axis),
            Some(other) => return Err(node.refuse(format!("axis = {other}; expected an integer"))),
        };
        let sorted = node.int("sorted", 1)? != 0;
        node.finish(Unique { axis, sorted })
    }

    fn examples() -> Vec<Example> {
        let rows = || Tensor::f32([3, 2], vec![3.0, 4.0, 1.0, 0.0, 3.0, 4.0]);
        let of = |axis, sorted, x| Example::new(Unique { axis, sorted }, vec![x]).constants(&[0]);
        vec![
            of(None, true, rows()),
            of(None, false, Tensor::ints(&[5, 1, 5, 2, 1])),
            of(Some(0), true, rows()),
            of(Some(-1), false, rows()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_counts_describe_the_operand() {
        let x = Tensor::ints(&[5, 1, 5, 2, 1]);
        let run = |sorted| Unique { axis: None, sorted }.evaluate(Tensors::new(&[Some(&x)])).unwrap();
        let sorted = [&[1, 2, 5][..], &[1, 3, 0], &[2, 0, 2, 1, 0], &[2, 1, 2]];
        let as_met = [&[5, 1, 2][..], &[0, 1, 3], &[0, 1, 0, 2, 1], &[2, 2, 1]];
        for (results, expected) in [(run(true), sorted), (run(false), as_met)] {
            for (result, expected) in results.iter().zip(expected) {
                assert_eq!(result.to_i64().as_ref(), expected);
            }
        }
    }
}
