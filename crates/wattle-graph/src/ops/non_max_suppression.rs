//! NonMaxSuppression: of boxes that overlap, only those with the best scores.

use super::*;
use crate::shape::Dim;
use crate::tensor::DType;

/// `NonMaxSuppression(boxes [B, N, 4], scores [B, C, N], most per class?, iou limit?, score limit?)` gives i64
/// `[selected, 3]`: batch, class and box of each box kept.
///
/// In every class, boxes are taken by falling score (equal scores by rising index) unless they overlap a box taken
/// before by more than the limit; without the third operand none are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonMaxSuppression {
    /// Boxes are centre x, centre y, width, height; else two opposite corners y, x, y, x.
    pub centered: bool,
}

/// Two opposite corners, the lower one first.
#[derive(Clone, Copy, Debug)]
struct Rectangle {
    low: [f64; 2],
    high: [f64; 2],
}

impl Rectangle {
    fn of(values: &[f64], centered: bool) -> Rectangle {
        let [a, b, c, d] = [values[0], values[1], values[2], values[3]];
        if centered {
            return Rectangle { low: [a - c / 2.0, b - d / 2.0], high: [a + c / 2.0, b + d / 2.0] };
        }
        Rectangle { low: [a.min(c), b.min(d)], high: [a.max(c), b.max(d)] }
    }

    fn area(self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Area of the intersection over that of the union; 0 for boxes without area.
    fn overlap(self, other: Rectangle) -> f64 {
        let side = |a: usize| (self.high[a].min(other.high[a]) - self.low[a].max(other.low[a])).max(0.0);
        let common = side(0) * side(1);
        let union = self.area() + other.area() - common;
        if common > 0.0 && union > 0.0 { common / union } else { 0.0 }
    }
}

impl Operator for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        if self.centered { vec![("center_point_box", Attribute::Int(1))] } else { vec![] }
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        for (index, name) in [(0, "boxes"), (1, "scores")] {
            inputs.expect_float(index, name)?;
            inputs.expect_rank(index, name, 3)?;
        }
        if let (Some(boxes), Some(scores)) = (inputs.dims(0, "boxes")?, inputs.dims(1, "scores")?) {
            let clash = |a: &Dim, b: &Dim| a.known().zip(b.known()).is_some_and(|(a, b)| a != b);
            if clash(&boxes[0], &scores[0])
                || clash(&boxes[1], &scores[2])
                || clash(&boxes[2], &Dim::Known(4))
            {
                let found = format!("{} and {}", inputs.ty(0, "boxes")?, inputs.ty(1, "scores")?);
                return Err(OpError::mismatch("boxes and scores", found, "[B, N, 4] and [B, C, N]"));
            }
        }
        for index in 2..inputs.len() {
            if let Some(limit) = inputs.optional(index)
                && limit.ty.shape.extents().is_some_and(|e| e.iter().product::<usize>() != 1)
            {
                return Err(OpError::mismatch("limit", limit, "one number"));
            }
        }
        let constants: Option<Vec<Option<&Tensor>>> = (0..inputs.len())
            .map(|i| inputs.optional(i).map_or(Some(None), |o| o.constant.map(Some)))
            .collect();
        let count = match constants {
            Some(tensors) => Dim::Known(self.select(Tensors::new(&tensors))?.len()),
            None => Dim::symbol("selected"),
        };
        Ok(vec![TensorType::new(DType::I64, vec![count, Dim::Known(3)])])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let selected = self.select(inputs)?;
        Ok(vec![Tensor::i64([selected.len(), 3], selected.concat())])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("the choice of boxes is piecewise constant"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // Every score is looked at; how many overlaps are computed depends on the scores.
        Work::elementwise(shapes.input_len(1))
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl NonMaxSuppression {
    /// Batch, class and box of each box kept.
    fn select(&self, inputs: Tensors<'_>) -> Result<Vec<Vec<i64>>, OpError> {
        let (boxes, scores) = (inputs.get(0)?, inputs.get(1)?);
        let &[batches, classes, count] = scores.shape() else {
            return Err(OpError::mismatch("scores", format!("{:?}", scores.shape()), "three axes"));
        };
        if boxes.shape() != [batches, count, 4] {
            return Err(OpError::mismatch(
                "boxes",
                format!("{:?}", boxes.shape()),
                format!("[{batches}, {count}, 4]"),
            ));
        }
        let number = |index: usize| inputs.optional(index).and_then(|t| t.to_f64().first().copied());
        let most = number(2).map_or(0, |n| n.max(0.0) as usize);
        let (overlap_limit, score_limit) = (number(3).unwrap_or(0.0), number(4));
        let (corners, scores) = (boxes.to_f64(), scores.to_f64());
        let mut selected = vec![];
        if count == 0 {
            return Ok(selected);
        }
        for (row, scores) in scores.chunks(count).enumerate() {
            let (batch, class) = (row / classes, row % classes);
            let rectangle = |i: usize| Rectangle::of(&corners[(batch * count + i) * 4..][..4], self.centered);
            let mut order: Vec<usize> =
                (0..count).filter(|&i| score_limit.is_none_or(|limit| scores[i] > limit)).collect();
            order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
            let mut kept: Vec<Rectangle> = vec![];
            for i in order {
                if kept.len() >= most {
                    break;
                }
                let candidate = rectangle(i);
                if kept.iter().all(|k| candidate.overlap(*k) <= overlap_limit) {
                    kept.push(candidate);
                    selected.push(vec![batch as i64, class as i64, i as i64]);
                }
            }
        }
        Ok(selected)
    }
}

impl Described for NonMaxSuppression {
    const ONNX: &'static [&'static str] = &["NonMaxSuppression"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let centered = node.int("center_point_box", 0)? != 0;
        node.finish(NonMaxSuppression { centered })
    }

    fn examples() -> Vec<Example> {
        let corners =
            [[0.0, 0.0, 1.0, 1.0], [0.0, 0.1, 1.0, 1.1], [1.0, 1.0, 0.0, -0.1], [0.0, 10.0, 1.0, 11.0]];
        let boxes = || Tensor::f32([1, 4, 4], corners.concat());
        let scores = || Tensor::f32([1, 2, 4], vec![0.9, 0.75, 0.6, 0.95, 0.1, 0.2, 0.3, 0.4]);
        let limits = || vec![Some(Tensor::ints(&[3])), Some(Tensor::scalar(0.5)), Some(Tensor::scalar(0.15))];
        let of = |centered, limits: Vec<Option<Tensor>>| {
            let inputs = [Some(boxes()), Some(scores())].into_iter().chain(limits).collect();
            Example::optional(NonMaxSuppression { centered }, inputs).constants(&[0, 1, 2, 3, 4])
        };
        vec![of(false, limits()), of(true, limits()), of(false, vec![]), of(false, limits()[..1].to_vec())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_boxes_lose_to_the_better_score() {
        let boxes = Tensor::f32([1, 3, 4], vec![0., 0., 1., 1., 0., 0.1, 1., 1.1, 0., 5., 1., 6.]);
        let scores = Tensor::f32([1, 1, 3], vec![0.5, 0.9, 0.2]);
        let (most, limit) = (Tensor::ints(&[10]), Tensor::scalar(0.5));
        let inputs = [Some(&boxes), Some(&scores), Some(&most), Some(&limit)];
        let kept = NonMaxSuppression { centered: false }.evaluate(Tensors::new(&inputs)).unwrap();
        assert_eq!(kept[0], Tensor::i64([2, 3], vec![0, 0, 1, 0, 0, 2]));
    }
}
