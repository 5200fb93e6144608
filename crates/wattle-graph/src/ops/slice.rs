//! Slice: a range of each axis, with steps of either sign.

use super::*;
use super::movement_gradient::gradient_of;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// `Slice(x, starts, ends, axes?, steps?)`; the others are rank-1 integers, clamped as NumPy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice;

/// First index, step and number of elements taken along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    step: i64,
    count: usize,
}

/// What `start..end` by `step` takes of an axis.
fn range(start: i64, end: i64, step: i64, extent: usize) -> Result<Range, OpError> {
    if step == 0 {
        return Err(OpError::mismatch("step", 0, "a step that is not 0"));
    }
    let n = extent as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    // Backwards, an end before the first element is written as -1, which is not counted from the end here.
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let start = from_end(start).clamp(low.max(0), high.max(0));
    let end = from_end(end).clamp(low, high);
    let span = if step > 0 { end - start } else { start - end };
    let count = if extent == 0 { 0 } else { (span.max(0) as u64).div_ceil(step.unsigned_abs()) as usize };
    Ok(Range { start: start as usize, step, count })
}

/// Starts, ends, axes and steps as lists of equal length.
struct Lists {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

impl Lists {
    fn new(
        starts: Vec<i64>,
        ends: Vec<i64>,
        axes: Option<Vec<i64>>,
        steps: Option<Vec<i64>>,
    ) -> Result<Lists, OpError> {
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(OpError::mismatch("ends, axes and steps", "other lengths", format!("{} each", starts.len())));
        }
        Ok(Lists { starts, ends, axes, steps })
    }

    fn ranges(&self, extents: &[usize]) -> Result<Vec<Range>, OpError> {
        let mut ranges: Vec<_> = extents.iter().map(|&count| Range { start: 0, step: 1, count }).collect();
        for i in 0..self.starts.len() {
            let axis = axis_of(self.axes[i], extents.len())?;
            ranges[axis] = range(self.starts[i], self.ends[i], self.steps[i], extents[axis])?;
        }
        Ok(ranges)
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let x = inputs.ty(0, "x")?;
        for (index, name) in [(1, "starts"), (2, "ends")] {
            inputs.expect_dtype(index, name, &[DType::I64, DType::I32])?;
        }
        let Some(dims) = x.shape.dims() else { return Ok(vec![TensorType::new(x.dtype, Shape::Unknown)]) };
        let known = |index: usize| inputs.optional(index).is_none() || inputs.ints(index).is_some();
        let mut result = dims.to_vec();
        let (Some(starts), Some(ends), true, true) = (inputs.ints(1), inputs.ints(2), known(3), known(4)) else {
            let unknown = |(axis, dim): (usize, &Dim)| Dim::symbol(format!("slice{axis}({dim})"));
            let dims: Vec<Dim> = dims.iter().enumerate().map(unknown).collect();
            return Ok(vec![TensorType::new(x.dtype, dims)]);
        };
        let lists = Lists::new(starts, ends, inputs.ints(3), inputs.ints(4))?;
        for i in 0..lists.starts.len() {
            let axis = axis_of(lists.axes[i], dims.len())?;
            let (start, end, step) = (lists.starts[i], lists.ends[i], lists.steps[i]);
            result[axis] = match &dims[axis] {
                Dim::Known(extent) => range(start, end, step, *extent)?.count.into(),
                symbol if start == 0 && end == i64::MAX && step == 1 => symbol.clone(),
                symbol => Dim::symbol(format!("{symbol}[{start}:{end}:{step}]")),
            };
        }
        Ok(vec![TensorType::new(x.dtype, result)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let ints = |index: usize| inputs.optional(index).map(|t| t.to_i64().into_owned());
        let lists = Lists::new(
            inputs.get(1)?.to_i64().into_owned(),
            inputs.get(2)?.to_i64().into_owned(),
            ints(3),
            ints(4),
        )?;
        let ranges = lists.ranges(x.shape())?;
        let from = strides(x.shape());
        let shape: Vec<usize> = ranges.iter().map(|r| r.count).collect();
        let mut source = vec![];
        each_index(&shape, |index| {
            let at = |(axis, i): (usize, &usize)| {
                let r = ranges[axis];
                (r.start as i64 + *i as i64 * r.step) as usize * from[axis]
            };
            source.push(Some(index.iter().enumerate().map(at).sum()));
        });
        Ok(vec![x.take(shape, &source)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        gradient_of(&Op::from(Slice), g)
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::movement()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Slice {
    const ONNX: &'static [&'static str] = &["Slice"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        if node.opset() >= 10 {
            return node.finish(Slice);
        }
        let (starts, ends) = (node.optional_ints("starts")?, node.optional_ints("ends")?);
        let (Some(starts), Some(ends)) = (starts, ends) else {
            return Err(node.refuse("starts or ends are missing"));
        };
        let axes = node.ints("axes", &(0..starts.len() as i64).collect::<Vec<_>>())?;
        let mut operands = vec![node.input(0)?];
        operands.extend([starts, ends, axes].map(|list| node.constant(Tensor::ints(&list))));
        Ok(vec![node.apply(Slice, &operands)?])
    }

    fn examples() -> Vec<Example> {
        let of = |lists: [&[i64]; 4]| {
            let mut inputs = vec![Example::noise(&[4, 5], 1)];
            inputs.extend(lists.map(Tensor::ints));
            Example::new(Slice, inputs).constants(&[1, 2, 3, 4])
        };
        let two = vec![Example::noise(&[4, 5], 1), Tensor::ints(&[1]), Tensor::ints(&[3])];
        vec![
            Example::new(Slice, two).constants(&[1, 2]),
            of([&[1, 0], &[3, 1000], &[0, 1], &[1, 2]]),
            of([&[-1], &[-1000], &[1], &[-1]]),
            of([&[20], &[1], &[0], &[-2]]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_clamped_in_both_directions() {
        let count = |start, end, step, n| range(start, end, step, n).unwrap().count;
        assert_eq!(count(0, i64::MAX, 1, 5), 5);
        assert_eq!(count(-1, i64::MIN, -1, 5), 5);
        assert_eq!(count(3, 1, 1, 5), 0);
        assert_eq!(count(10, 0, -3, 5), 2);
        assert_eq!(count(0, 5, 1, 0), 0);
        assert!(range(0, 1, 0, 5).is_err());
    }
}
