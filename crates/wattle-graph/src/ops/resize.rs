//! Resize: images under other extents, along each axis in turn.

use super::concrete::result_shapes;
use super::resampling::{Change, Coordinates, Interpolation, Resampled, Taps, along};
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// What becomes of the aspect ratio when extents are stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// It follows the extents.
    Stretch,
    /// It is kept, with the largest result no larger than stated.
    NotLarger,
    /// It is kept, with the smallest result no smaller than stated.
    NotSmaller,
}

/// `(x, roi?, scales?, sizes?) -> y`, with either scales (f32) or sizes (i64), one for each axis or for each of
/// `axes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How values are made up.
    pub interpolation: Interpolation,
    /// Where they are taken from.
    pub coordinates: Coordinates,
    /// The axes that roi, scales and sizes speak of; `None` for all.
    pub axes: Option<Vec<i64>>,
    /// What becomes of the aspect ratio.
    pub aspect: Aspect,
}

/// `dx` from `(dy, roi?, scales?, sizes?)`; every Resize is linear.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeGradient {
    /// The forward operator.
    pub forward: Resize,
    /// Extents of its operand.
    pub input_shape: Vec<usize>,
}

/// Longest axis that is resized: positions beyond are not exact in f32, and tables of taps stay small.
const MAX_EXTENT: usize = 1 << 24;

impl Resize {
    /// The axes that change, in the order in which to change them, of an operand of extents `x`; `inputs` are the
    /// node's operands, the first of which does not matter. `None` where elements come from outside the operand.
    ///
    /// # Errors
    /// As evaluation: scales or sizes that do not fit.
    pub fn resampled(&self, x: &[usize], inputs: Tensors<'_>) -> Result<Option<Vec<Resampled>>, OpError> {
        let of = |change: &Change| {
            let taps: Option<Vec<_>> = self.taps(change).into_iter().collect();
            Some(Resampled { axis: change.axis, from: change.from, taps: taps? })
        };
        Ok(self.changes(x, inputs)?.iter().map(of).collect())
    }

    fn taps(&self, change: &Change) -> Taps {
        change.taps(self.interpolation, self.coordinates)
    }

    fn is_nearest(&self) -> bool {
        !matches!(self.interpolation, Interpolation::Linear | Interpolation::Cubic { .. })
    }

    fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let Some(list) = &self.axes else { return Ok((0..rank).collect()) };
        let axes: Vec<usize> = list.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
        let distinct: std::collections::BTreeSet<_> = axes.iter().collect();
        if distinct.len() != axes.len() {
            return Err(OpError::mismatch("axes", format!("{list:?}"), "each axis once"));
        }
        Ok(axes)
    }

    /// Scale and new extent of each axis in `axes`; an extent is `None` while it is not known.
    fn targets(
        &self,
        x: &[Option<usize>],
        axes: &[usize],
        scales: Option<&Tensor>,
        sizes: Option<&Tensor>,
    ) -> Result<Vec<(f64, Option<usize>)>, OpError> {
        let count = |n: usize| {
            OpError::mismatch("scales or sizes", format!("{n} numbers"), format!("{}", axes.len()))
        };
        if let Some(scales) = scales {
            if scales.len() != axes.len() {
                return Err(count(scales.len()));
            }
            let target = |(&axis, &scale): (&usize, &f64)| {
                if !(scale > 0.0 && scale.is_finite()) {
                    return Err(OpError::mismatch("scales", scale, "positive numbers"));
                }
                // The product is taken in f32, as the extents in files were.
                let extent = |n: usize| (n as f32 * scale as f32).floor() as usize;
                Ok((scale, x[axis].map(extent)))
            };
            return axes.iter().zip(scales.to_f64().iter()).map(target).collect();
        }
        let sizes = sizes.ok_or(OpError::MissingOperand { index: 3, name: "scales or sizes" })?.to_i64();
        if sizes.len() != axes.len() {
            return Err(count(sizes.len()));
        }
        if let Some(bad) = sizes.iter().find(|&&n| n < 1) {
            return Err(OpError::mismatch("sizes", bad, "positive numbers"));
        }
        let ratio = |axis: usize, size: i64| x[axis].map_or(1.0, |n| size as f64 / n as f64);
        if self.aspect == Aspect::Stretch {
            let target = |(&axis, &size): (&usize, &i64)| (ratio(axis, size), Some(size as usize));
            return Ok(axes.iter().zip(sizes.iter()).map(target).collect());
        }
        let ratios = axes.iter().zip(sizes.iter()).map(|(&axis, &size)| ratio(axis, size));
        let scale = match self.aspect {
            Aspect::NotLarger => ratios.fold(f64::INFINITY, f64::min),
            _ => ratios.fold(0.0, f64::max),
        };
        let known = axes.iter().all(|&axis| x[axis].is_some());
        let extent = |n: usize| (n as f64 * scale + 0.5).floor() as usize;
        Ok(axes.iter().map(|&axis| (scale, x[axis].filter(|_| known).map(extent))).collect())
    }

    /// The axes that change, those that shrink first, so that nothing on the way is larger than both ends.
    fn changes(&self, x: &[usize], inputs: Tensors<'_>) -> Result<Vec<Change>, OpError> {
        let axes = self.axes(x.len())?;
        let present = |index: usize| inputs.optional(index).filter(|t| !t.is_empty());
        let extents: Vec<Option<usize>> = x.iter().map(|&n| Some(n)).collect();
        let targets = self.targets(&extents, &axes, present(2), present(3))?;
        let cropped = matches!(self.coordinates, Coordinates::TfCropAndResize { .. });
        let roi = if cropped { inputs.optional(1).map(Tensor::to_f64) } else { None };
        if cropped && roi.as_ref().is_none_or(|r| r.len() != 2 * axes.len()) {
            return Err(OpError::mismatch("roi", "another length", format!("{} numbers", 2 * axes.len())));
        }
        let mut changes = vec![];
        for (index, (&axis, &(scale, to))) in axes.iter().zip(&targets).enumerate() {
            let (from, to) = (x[axis], to.unwrap_or(0));
            let region = roi.as_ref().map_or((0.0, 1.0), |r| (r[index], r[axes.len() + index]));
            if from == to && scale == 1.0 && region == (0.0, 1.0) {
                continue;
            }
            if from == 0 || from.max(to) > MAX_EXTENT {
                return Err(OpError::mismatch("extent", from.max(to), format!("1 to {MAX_EXTENT}")));
            }
            changes.push(Change { axis, from, to, scale, region });
        }
        changes.sort_by_key(|c| c.to > c.from);
        Ok(changes)
    }

    fn result(&self, x: Option<&[Dim]>, inputs: Operands<'_>) -> Result<Shape, OpError> {
        let Some(x) = x else { return Ok(Shape::Unknown) };
        let axes = self.axes(x.len())?;
        let present = |i: usize| {
            let operand = inputs.optional(i)?;
            (operand.ty.shape != Shape::known(&[0])).then_some(operand.constant)
        };
        let (scales, sizes) = (present(2), present(3));
        if scales.is_none() && sizes.is_none() {
            return Err(OpError::MissingOperand { index: 2, name: "scales or sizes" });
        }
        let mut dims = x.to_vec();
        if scales == Some(None) || (scales.is_none() && sizes == Some(None)) {
            axes.into_iter().for_each(|axis| dims[axis] = Dim::symbol(format!("resized{axis}")));
            return Ok(dims.into());
        }
        let known: Vec<Option<usize>> = x.iter().map(Dim::known).collect();
        let targets = self.targets(&known, &axes, scales.flatten(), sizes.flatten())?;
        for (axis, (scale, to)) in axes.into_iter().zip(targets) {
            dims[axis] = match to {
                Some(to) => Dim::Known(to),
                None if scales.is_some() && scale == 1.0 => continue,
                None if scales.is_some() => x[axis].map(&format!("floor({{}}*{scale})"), |n| n),
                None => Dim::symbol(format!("resized{axis}")),
            };
        }
        Ok(dims.into())
    }
}

impl Operator for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let text = |name, value: &str| (name, Attribute::Text(value.into()));
        let mut attributes = vec![];
        let nearest = match self.interpolation {
            Interpolation::NearestRoundPreferFloor => "round_prefer_floor",
            Interpolation::NearestRoundPreferCeil => "round_prefer_ceil",
            Interpolation::NearestFloor => "floor",
            Interpolation::NearestCeil => "ceil",
            Interpolation::Linear | Interpolation::Cubic { .. } => "",
        };
        match self.interpolation {
            Interpolation::Linear => attributes.push(text("mode", "linear")),
            Interpolation::Cubic { a, exclude_outside } => {
                attributes.extend([text("mode", "cubic"), ("cubic_coeff_a", Attribute::Float(a))]);
                attributes.push(("exclude_outside", Attribute::Int(i64::from(exclude_outside))));
            }
            _ => attributes.push(text("nearest_mode", nearest)),
        }
        let coordinates = match self.coordinates {
            Coordinates::HalfPixel => "half_pixel",
            Coordinates::HalfPixelSymmetric => "half_pixel_symmetric",
            Coordinates::PytorchHalfPixel => "pytorch_half_pixel",
            Coordinates::AlignCorners => "align_corners",
            Coordinates::Asymmetric => "asymmetric",
            Coordinates::TfHalfPixelForNn => "tf_half_pixel_for_nn",
            Coordinates::TfCropAndResize { extrapolation } => {
                attributes.push(("extrapolation_value", Attribute::Float(extrapolation)));
                "tf_crop_and_resize"
            }
        };
        attributes.push(text("coordinate_transformation_mode", coordinates));
        attributes.extend(self.axes.iter().map(|axes| ("axes", Attribute::Ints(axes.clone()))));
        match self.aspect {
            Aspect::Stretch => {}
            Aspect::NotLarger => attributes.push(text("keep_aspect_ratio_policy", "not_larger")),
            Aspect::NotSmaller => attributes.push(text("keep_aspect_ratio_policy", "not_smaller")),
        }
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        if !self.is_nearest() {
            inputs.expect_float(0, "x")?;
        }
        Ok(vec![TensorType::new(inputs.ty(0, "x")?.dtype, self.result(inputs.dims(0, "x")?, inputs)?)])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let x = inputs.get(0)?;
        let changes = self.changes(x.shape(), inputs)?;
        let tables: Vec<Taps> = changes.iter().map(|c| self.taps(c)).collect();
        let outside = |index: &[usize]| {
            changes.iter().zip(&tables).any(|(change, taps)| taps[index[change.axis]].is_none())
        };
        if self.is_nearest() && tables.iter().flatten().all(Option::is_some) {
            let steps = strides(x.shape());
            let mut source = Vec::with_capacity(shape.iter().product());
            each_index(&shape, |index| {
                let mut at = index.to_vec();
                for (change, taps) in changes.iter().zip(&tables) {
                    at[change.axis] = taps[index[change.axis]].as_ref().map_or(0, |list| list[0].0);
                }
                source.push(Some(at.iter().zip(&steps).map(|(i, s)| i * s).sum()));
            });
            return Ok(vec![x.take(shape, &source)]);
        }
        let (mut values, mut at) = (x.to_f64().into_owned(), x.shape().to_vec());
        for (change, taps) in changes.iter().zip(&tables) {
            values = along(&values, &mut at, change, taps, false);
        }
        if let Coordinates::TfCropAndResize { extrapolation } = self.coordinates {
            let mut flat = 0;
            each_index(&shape, |index| {
                if outside(index) {
                    values[flat] = f64::from(extrapolation);
                }
                flat += 1;
            });
        }
        Ok(vec![Tensor::from_f64(x.dtype(), shape, values)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if g.wants(1) || g.wants(2) {
            return Ok(Gradient::NotDifferentiable("region and scales of Resize are not trained"));
        }
        let mut operands = vec![g.output_gradient(0)];
        operands.extend((1..g.input_count()).map(|i| g.optional_input(i)));
        let op = ResizeGradient { forward: self.clone(), input_shape: g.extents(g.input(0))? };
        let dx = g.apply_all(op, &operands)?[0];
        Ok(Gradient::Inputs(vec![Some(dx), None, None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let changed = shapes.input(0).iter().zip(&shapes.outputs[0]).filter(|(a, b)| a != b).count() as u64;
        let taps = match self.interpolation {
            Interpolation::Linear => 2,
            Interpolation::Cubic { .. } => 4,
            _ => return Work::movement(),
        };
        // A product and a sum for each tap of each axis that changes.
        Work::elementwise(shapes.output_len(0).saturating_mul(2 * taps * changed))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        // onnxruntime ignores axes that count from the end.
        let mut op = self.clone();
        if let (Some(_), Some(rank)) = (&self.axes, node.input_type(0).shape.rank()) {
            op.axes = Some(self.axes(rank)?.into_iter().map(|axis| axis as i64).collect());
        }
        node.same("Resize", op.attributes());
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        if self.is_nearest() { Agreement::Exact } else { Agreement::Relative(1e-5) }
    }
}

impl Described for Resize {
    const ONNX: &'static [&'static str] = &["Resize", "Upsample"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let mode = node.text("mode", "nearest")?;
        let old = node.op_type() == "Upsample" || node.opset() < 11;
        let nearest = node.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" })?;
        let (a, exclude) = (node.float("cubic_coeff_a", -0.75)?, node.int("exclude_outside", 0)?);
        let interpolation = match (mode.as_str(), nearest.as_str()) {
            ("linear" | "bilinear" | "trilinear", _) => Interpolation::Linear,
            ("cubic", _) => Interpolation::Cubic { a, exclude_outside: exclude != 0 },
            ("nearest", "round_prefer_floor") => Interpolation::NearestRoundPreferFloor,
            ("nearest", "round_prefer_ceil") => Interpolation::NearestRoundPreferCeil,
            ("nearest", "floor") => Interpolation::NearestFloor,
            ("nearest", "ceil") => Interpolation::NearestCeil,
            _ => return Err(node.refuse(format!("mode = `{mode}` with nearest_mode = `{nearest}`"))),
        };
        let extrapolation = node.float("extrapolation_value", 0.0)?;
        let default = if old { "asymmetric" } else { "half_pixel" };
        let coordinates = match node.text("coordinate_transformation_mode", default)?.as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
            "tf_crop_and_resize" => Coordinates::TfCropAndResize { extrapolation },
            other => return Err(node.refuse(format!("coordinate_transformation_mode = `{other}`"))),
        };
        let aspect = match node.text("keep_aspect_ratio_policy", "stretch")?.as_str() {
            "stretch" => Aspect::Stretch,
            "not_larger" => Aspect::NotLarger,
            "not_smaller" => Aspect::NotSmaller,
            other => return Err(node.refuse(format!("keep_aspect_ratio_policy = `{other}`"))),
        };
        if node.int("antialias", 0)? != 0 {
            return Err(node.refuse("antialias = 1 is not known"));
        }
        let axes = node.optional_ints("axes")?;
        let op = Resize { interpolation, coordinates, axes, aspect };
        let x = Some(node.input(0)?);
        if old {
            let scales = match node.attribute("scales") {
                Some(Attribute::Floats(list)) => node.constant(Tensor::f32([list.len()], list)),
                _ => node.input(1)?,
            };
            return Ok(vec![old_resize(node, op, scales)?]);
        }
        // Opset 11 marks operands that are left out by having no elements.
        let operand = |index| {
            let id = node.optional_input(index)?;
            (node.graph().value(id).ty.shape != Shape::known(&[0])).then_some(id)
        };
        let operands = [x, operand(1), operand(2), operand(3)];
        node.apply_all(op, &operands)
    }

    fn examples() -> Vec<Example> {
        let all = |interpolation, coordinates| Resize {
            interpolation,
            coordinates,
            axes: None,
            aspect: Aspect::Stretch,
        };
        let x = |shape: &[usize]| Some(Example::noise(shape, 1));
        let scaled = |op: Resize, scales: &[f32]| {
            let scales = Tensor::f32([scales.len()], scales.to_vec());
            Example::optional(op, vec![x(&[1, 2, 4, 3]), None, Some(scales)]).constants(&[2])
        };
        let sized = |op: Resize, sizes: &[i64]| {
            Example::optional(op, vec![x(&[1, 1, 4, 6]), None, None, Some(Tensor::ints(sizes))])
                .constants(&[3])
        };
        let cubic = |exclude_outside| Interpolation::Cubic { a: -0.75, exclude_outside };
        let mut examples = vec![
            scaled(all(Interpolation::NearestFloor, Coordinates::Asymmetric), &[1.0, 1.0, 2.0, 3.0]),
            scaled(all(Interpolation::Linear, Coordinates::HalfPixel), &[1.0, 1.0, 0.6, 2.0]),
            scaled(all(cubic(true), Coordinates::HalfPixelSymmetric), &[1.0, 1.0, 0.8, 1.7]),
            sized(all(cubic(false), Coordinates::AlignCorners), &[1, 1, 7, 4]),
            sized(all(Interpolation::Linear, Coordinates::PytorchHalfPixel), &[1, 1, 1, 9]),
            sized(all(Interpolation::NearestRoundPreferFloor, Coordinates::HalfPixel), &[1, 1, 7, 8]),
            sized(all(Interpolation::NearestCeil, Coordinates::TfHalfPixelForNn), &[1, 1, 3, 2]),
        ];
        for aspect in [Aspect::NotLarger, Aspect::NotSmaller] {
            let op = Resize {
                axes: Some(vec![-1, 2]),
                aspect,
                ..all(Interpolation::Linear, Coordinates::HalfPixel)
            };
            examples.push(sized(op, &[9, 7]));
        }
        let crop = all(Interpolation::Linear, Coordinates::TfCropAndResize { extrapolation: 10.0 });
        let roi = Tensor::f32([8], vec![0.0, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7]);
        let inputs = vec![x(&[1, 1, 4, 4]), Some(roi), None, Some(Tensor::ints(&[1, 1, 3, 3]))];
        examples.push(Example::optional(crop, inputs).constants(&[1, 3]));
        let volume = vec![x(&[2, 3, 4]), None, Some(Tensor::f32([3], vec![1.0, 1.0, 2.0]))];
        let linear = all(Interpolation::Linear, Coordinates::HalfPixel);
        examples.push(Example::optional(linear, volume).constants(&[2]));
        let bytes = Tensor::ints(&[1, 2, 3]).cast(DType::U8);
        let double = Tensor::f32([1], vec![2.0]);
        let op = all(Interpolation::NearestRoundPreferCeil, Coordinates::HalfPixel);
        examples.push(Example::optional(op, vec![Some(bytes), None, Some(double)]).constants(&[2]));
        examples
    }
}

/// Resize as it was before operator set 11: the nearest element is the one before where an axis grows, and the one after
/// where it shrinks, as the examples of the specification have it.
fn old_resize(node: &mut ForeignNode<'_>, op: Resize, scales: ValueId) -> Result<ValueId, ImportError> {
    let x = node.input(0)?;
    let known = node.graph().constant_of(scales).map(|t| t.to_f64().into_owned());
    let shrinks = known.as_ref().is_some_and(|list| list.iter().any(|&s| s < 1.0));
    let (true, true, Some(list)) = (op.is_nearest(), shrinks, known) else {
        return Ok(node.apply_all(op, &[Some(x), None, Some(scales)])?[0]);
    };
    let mut y = x;
    for (interpolation, kept) in [(Interpolation::NearestFloor, 1.0f64), (Interpolation::NearestCeil, 0.0)] {
        let part: Vec<f32> =
            list.iter().map(|&s| if (s >= 1.0) == (kept == 1.0) { s as f32 } else { 1.0 }).collect();
        if part.iter().any(|&s| s != 1.0) {
            let scales = node.constant(Tensor::f32([part.len()], part));
            y = node.apply_all(Resize { interpolation, ..op.clone() }, &[Some(y), None, Some(scales)])?[0];
        }
    }
    Ok(y)
}

impl Operator for ResizeGradient {
    fn name(&self) -> &'static str {
        "ResizeGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.forward.attributes();
        attributes.push(("shape", Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "dy")?;
        let x: Vec<Dim> = self.input_shape.iter().map(|&n| n.into()).collect();
        let y = self.forward.result(Some(&x), inputs)?;
        if inputs.ty(0, "dy")?.shape != y {
            return Err(OpError::mismatch("dy", inputs.ty(0, "dy")?, format!("the result's shape, {y}")));
        }
        Ok(vec![TensorType::new(dtype, Shape::from(x))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let dy = inputs.get(0)?;
        let changes = self.forward.changes(&shape, inputs)?;
        let (mut values, mut at) = (dy.to_f64().into_owned(), dy.shape().to_vec());
        for change in changes.iter().rev() {
            // An element outside along one axis takes nothing from the others either: its taps are empty.
            values = along(&values, &mut at, change, &self.forward.taps(change), true);
        }
        Ok(vec![Tensor::from_f64(dy.dtype(), shape, values)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let mut operands = vec![g.output_gradient(0)];
        operands.extend((1..g.input_count()).map(|i| g.optional_input(i)));
        if matches!(self.forward.coordinates, Coordinates::TfCropAndResize { extrapolation } if extrapolation != 0.0)
        {
            return Ok(Gradient::NotDifferentiable(
                "a Resize that extrapolates is not the transpose of its gradient",
            ));
        }
        Ok(Gradient::Inputs(vec![Some(g.apply_all(self.forward.clone(), &operands)?[0]), None, None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let taps = match self.forward.interpolation {
            Interpolation::Linear => 2,
            Interpolation::Cubic { .. } => 4,
            _ => 1,
        };
        let changed = shapes.input(0).iter().zip(&self.input_shape).filter(|(a, b)| a != b).count() as u64;
        Work::elementwise(shapes.input_len(0).saturating_mul(2 * taps * changed))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for ResizeGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = Resize {
            interpolation: Interpolation::Linear,
            coordinates: Coordinates::HalfPixel,
            axes: Some(vec![2]),
            aspect: Aspect::Stretch,
        };
        let image = |interpolation| {
            let (axes, coordinates) = (Some(vec![2, 3]), Coordinates::HalfPixel);
            let forward = Resize { interpolation, coordinates, axes, aspect: Aspect::Stretch };
            let op = ResizeGradient { forward, input_shape: vec![2, 3, 4, 3] };
            let sizes = Some(Tensor::ints(&[8, 6]));
            let inputs = vec![Some(Example::noise(&[2, 3, 8, 6], 1)), None, None, sizes];
            Example::optional(op, inputs).constants(&[3])
        };
        let op = ResizeGradient { forward, input_shape: vec![1, 2, 3] };
        let inputs = vec![Some(Example::noise(&[1, 2, 5], 1)), None, None, Some(Tensor::ints(&[5]))];
        vec![
            Example::optional(op, inputs).constants(&[3]),
            image(Interpolation::Linear),
            image(Interpolation::NearestFloor),
            image(Interpolation::Cubic { a: -0.75, exclude_outside: true }),
        ]
    }
}
