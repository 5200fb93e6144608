//! TopK: the largest or smallest elements along an axis, with their positions.

use super::concrete::result_shapes;
use super::ordering::ordering;
use super::softmax::each_line;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// `TopK(x, k [1]) -> (values, positions)`, best first; of equal elements the one with the lower position is
/// first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis searched.
    pub axis: i64,
    /// The largest elements, else the smallest.
    pub largest: bool,
    /// Whether the order is promised; it is kept in any case.
    pub sorted: bool,
}

impl Operator for TopK {
    fn name(&self) -> &'static str {
        "TopK"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("axis", Attribute::Int(self.axis))];
        if !self.largest {
            attributes.push(("largest", Attribute::Int(0)));
        }
        if !self.sorted {
            attributes.push(("sorted", Attribute::Int(0)));
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        inputs.expect_dtype(1, "k", &[DType::I64])?;
        let k = inputs.ints(1).map(|k| match k[..] {
            [k] => Ok(k),
            _ => Err(OpError::mismatch("k", format!("{} numbers", k.len()), "one")),
        });
        let k = k.transpose()?;
        let shape = match x.shape.dims() {
            None => Shape::Unknown,
            Some(dims) => {
                let axis = axis_of(self.axis, dims.len())?;
                let mut result = dims.to_vec();
                result[axis] = match k {
                    None => Dim::symbol(format!("top({})", dims[axis])),
                    Some(k) => {
                        let limit = dims[axis].known().unwrap_or(usize::MAX);
                        let fits = usize::try_from(k).ok().filter(|&k| k <= limit);
                        let extent = &dims[axis];
                        fits.ok_or_else(|| OpError::mismatch("k", k, format!("0 to the extent, {extent}")))?.into()
                    }
                };
                Shape::Ranked(result)
            }
        };
        Ok(vec![TensorType::new(x.dtype, shape.clone()), TensorType::new(DType::I64, shape)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.swap_remove(0);
        let x = inputs.get(0)?;
        let axis = axis_of(self.axis, x.shape().len())?;
        let (k, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let count = shape.iter().product();
        let (mut source, mut positions) = (vec![None; count], vec![0; count]);
        let compare = ordering(x);
        let mut lines = 0;
        each_line(x.shape(), axis, |line| {
            let mut order: Vec<usize> = (0..line.len()).collect();
            // A stable sort keeps equal elements in the order of their positions.
            order.sort_by(|&i, &j| {
                let order = compare(line[i], line[j]);
                if self.largest { order.reverse() } else { order }
            });
            let first = lines / inner * k * inner + lines % inner;
            for (rank, &at) in order[..k].iter().enumerate() {
                source[first + rank * inner] = Some(line[at]);
                positions[first + rank * inner] = at as i64;
            }
            lines += 1;
        });
        Ok(vec![x.take(shape.clone(), &source), Tensor::i64(shape, positions)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        // The values are those gathered at the positions found.
        let forward = Box::new(GatherElements { axis: self.axis }.into());
        let op = MovementGradient { forward, input_shape: g.extents(g.input(0))? };
        let (dy, positions) = (g.gradient(), g.output(1));
        Ok(Gradient::Inputs(vec![Some(g.apply(op, &[dy, positions])?), None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for TopK {
    const ONNX: &'static [&'static str] = &["TopK"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", -1)?;
        let op = TopK { axis, largest: node.int("largest", 1)? != 0, sorted: node.int("sorted", 1)? != 0 };
        if node.opset() >= 10 {
            return node.finish(op);
        }
        let k = node.int("k", -1)?;
        let (x, k) = (node.input(0)?, node.constant(Tensor::ints(&[k])));
        node.apply_all(op, &[Some(x), Some(k)])
    }

    fn examples() -> Vec<Example> {
        let of = |axis, largest, k, x| {
            Example::new(TopK { axis, largest, sorted: true }, vec![x, Tensor::ints(&[k])]).constants(&[1])
        };
        vec![
            of(-1, true, 3, Example::noise(&[3, 5], 1)),
            of(1, false, 2, Example::noise(&[2, 4, 3], 2)),
            of(0, true, 0, Example::noise(&[3], 3)),
            of(0, true, 3, Tensor::ints(&[7, 1, 7, 9])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_elements_come_in_the_order_of_their_positions() {
        let (x, k) = (Tensor::ints(&[1, 3, 3, 1]), Tensor::ints(&[3]));
        for (largest, expected) in [(true, [1, 2, 0]), (false, [0, 3, 1])] {
            let op = TopK { axis: 0, largest, sorted: true };
            let found = op.evaluate(Tensors::new(&[Some(&x), Some(&k)])).unwrap();
            assert_eq!(found[1].to_i64().as_ref(), &expected);
        }
    }
}
