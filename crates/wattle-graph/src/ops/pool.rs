//! Pooling: the maximum, mean or p-norm of every window of the spatial axes.

use super::concrete::result_shapes;
use super::*;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, each_index, strides};

/// What becomes of the elements of a window; shared with global pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest.
    Max,
    /// The mean.
    Average,
    /// `(sum |x|^p)^(1/p)`.
    Lp {
        /// p, at least 1.
        p: u32,
    },
}

/// `x [N, C, spatial..] -> y [N, C, windows..]`, and with `indices` also where in x (flat, row-major) each
/// maximum was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What becomes of a window.
    pub kind: PoolKind,
    /// Extents of a window.
    pub kernel: Vec<usize>,
    /// How the window slides.
    pub sliding: Sliding,
    /// A last window that only partly fits counts, provided it starts inside the operand or the padding before
    /// it.
    pub ceil_mode: bool,
    /// Average: divide by all taps inside the padded operand, not just those inside the operand.
    pub count_include_pad: bool,
    /// Max: give the positions of the maxima (i64) as a second result.
    pub indices: bool,
    /// Max: the positions count columns first over the spatial axes (ONNX `storage_order = 1`).
    pub column_major: bool,
}

/// `dx` from `(dy, x?, y?)`: the mean needs dy alone, the others both x and the result y. Of equal maxima the
/// first gets the gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolGradient {
    /// The forward operator.
    pub pool: Pool,
    /// Extents of its operand.
    pub input_shape: Vec<usize>,
}

impl Pool {
    /// Pooling without ceil mode, counted padding or indices.
    pub fn new(kind: PoolKind, kernel: &[usize], sliding: Sliding) -> Pool {
        Pool {
            kind,
            kernel: kernel.to_vec(),
            sliding,
            ceil_mode: false,
            count_include_pad: false,
            indices: false,
            column_major: false,
        }
    }

    /// Number of windows along spatial axis `axis`.
    fn windows(&self, axis: usize, extent: &Dim) -> Result<Dim, OpError> {
        let (taps, stride) = (self.kernel[axis], self.sliding.strides[axis]);
        let floor = self.sliding.windows(axis, extent, taps)?;
        let Padding::Explicit(pads) = &self.sliding.padding else { return Ok(floor) };
        let ((before, after), reach) = (pads[axis], self.sliding.reach(axis, taps));
        if before.max(after) >= reach {
            let wanted = format!("less than the window's reach of {reach}");
            return Err(OpError::mismatch("padding", before.max(after), wanted));
        }
        if !self.ceil_mode || stride == 1 {
            return Ok(floor);
        }
        let Dim::Known(extent) = extent else {
            return Ok(extent.map(&format!("windows({{}},{reach},{before},{after},{stride})"), |n| n));
        };
        let room = extent.saturating_add(before).saturating_add(after) - reach;
        let ceil = room.div_ceil(stride) + 1;
        let starts_inside = (ceil - 1).saturating_mul(stride) < extent.saturating_add(before);
        Ok(Dim::Known(if starts_inside { ceil } else { ceil - 1 }))
    }

    fn result(&self, x: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let axes = self.kernel.len();
        if x.len() != axes + 2 {
            return Err(OpError::mismatch("x", format!("{} axes", x.len()), format!("{} axes", axes + 2)));
        }
        let mut dims = x[..2].to_vec();
        for axis in 0..axes {
            dims.push(self.windows(axis, &x[axis + 2])?);
        }
        Ok(dims)
    }

    fn expect_consistent(&self) -> Result<(), OpError> {
        let axes = self.kernel.len();
        let pads = match &self.sliding.padding {
            Padding::Explicit(pads) => pads.len(),
            _ => axes,
        };
        if [self.sliding.strides.len(), self.sliding.dilations.len(), pads] != [axes; 3] {
            return Err(OpError::mismatch(
                "strides, dilations, pads",
                "other lengths",
                format!("{axes} each"),
            ));
        }
        if self.kernel.contains(&0) || self.kind == (PoolKind::Lp { p: 0 }) {
            return Err(OpError::mismatch("kernel_shape and p", 0, "at least 1"));
        }
        Ok(())
    }

    /// Calls `window(to, from, counted)` for each window: the flat index of its result, those of the elements in
    /// it, and the number of taps that the mean divides by.
    fn each_window(&self, x: &[usize], y: &[usize], mut window: impl FnMut(usize, &[usize], usize)) {
        let x_strides = strides(x);
        let axes = self.kernel.len();
        let pads: Vec<_> = (0..axes).map(|a| self.sliding.pads(a, x[a + 2], self.kernel[a])).collect();
        let (mut to, mut from) = (0, vec![]);
        each_index(y, |out| {
            let start = out[0] * x_strides[0] + out[1] * x_strides[1];
            // Taps inside the operand, as (distance from `start`), and taps inside the padding too, axis by axis.
            from.clear();
            from.push(start);
            let mut counted = 1;
            for axis in 0..axes {
                let extent = x[axis + 2];
                let padded = extent.saturating_add(pads[axis].0).saturating_add(pads[axis].1);
                let first = out[axis + 2] * self.sliding.strides[axis];
                let inside = padded.saturating_sub(first).div_ceil(self.sliding.dilations[axis]);
                let taps = self.kernel[axis].min(inside);
                counted *= taps;
                let positions: Vec<usize> = (0..taps)
                    .filter_map(|tap| self.sliding.position(axis, out[axis + 2], tap, pads[axis].0, extent))
                    .collect();
                let step = x_strides[axis + 2];
                from = from.iter().flat_map(|&f| positions.iter().map(move |p| f + p * step)).collect();
            }
            window(to, &from, if self.count_include_pad { counted } else { from.len() });
            to += 1;
        });
    }

    /// `index` as ONNX counts it with `storage_order = 1`: the last spatial axis slowest.
    fn columns_first(&self, index: usize, x: &[usize]) -> usize {
        let plane: usize = x[2..].iter().product();
        let (mut rest, mut within, mut step) = (index % plane, 0, plane);
        for &extent in x[2..].iter().rev() {
            step /= extent;
            within += rest % extent * step;
            rest /= extent;
        }
        index - index % plane + within
    }
}

/// The value of a window, from its elements and the number that the mean divides by.
pub(super) fn pooled(kind: PoolKind, elements: impl Iterator<Item = f64>, counted: usize) -> f64 {
    match kind {
        PoolKind::Max => elements.fold(f64::NEG_INFINITY, |m, x| if x > m || x.is_nan() { x } else { m }),
        PoolKind::Average => elements.sum::<f64>() / counted as f64,
        PoolKind::Lp { p: 1 } => elements.map(f64::abs).sum(),
        PoolKind::Lp { p: 2 } => elements.map(|x| x * x).sum::<f64>().sqrt(),
        PoolKind::Lp { p } => {
            elements.map(|x| x.abs().powf(f64::from(p))).sum::<f64>().powf(1.0 / f64::from(p))
        }
    }
}

/// Adds the gradient of one window's value `y` to `dx`, where the window has the elements `from` of `x`.
pub(super) fn add_pooled_gradient(
    kind: PoolKind,
    dx: &mut [f64],
    from: &[usize],
    (dy, x, y): (f64, &[f64], f64),
    counted: usize,
) {
    match kind {
        PoolKind::Average => from.iter().for_each(|&i| dx[i] += dy / counted as f64),
        PoolKind::Max => {
            if let Some(&i) = from.iter().find(|&&i| x[i] == y) {
                dx[i] += dy;
            }
        }
        // d y / d x = sign(x) (|x| / y)^(p - 1), and 0 where all elements are.
        PoolKind::Lp { p } => {
            for &i in from.iter().filter(|_| y > 0.0) {
                dx[i] += dy * x[i].signum() * (x[i].abs() / y).powi(p as i32 - 1);
            }
        }
    }
}

/// The operands that the gradient of each kind needs besides dy.
pub(super) fn gradient_operands(kind: PoolKind, g: &Backward<'_>) -> Vec<Option<ValueId>> {
    let dy = g.output_gradient(0);
    if kind == PoolKind::Average { vec![dy] } else { vec![dy, Some(g.input(0)), Some(g.output(0))] }
}

/// Checks the operands of a pooling gradient: dy of the forward result's shape, and x and y where `kind` needs
/// them.
pub(super) fn expect_gradient_operands(
    kind: PoolKind,
    inputs: Operands<'_>,
    x: &[usize],
    y: &Shape,
) -> Result<TensorType, OpError> {
    let dtype = inputs.expect_float(0, "dy")?;
    let expect = |index, name, shape: &Shape| {
        let (found, wanted) = (inputs.ty(index, name)?, TensorType::new(dtype, shape.clone()));
        if *found == wanted { Ok(()) } else { Err(OpError::mismatch(name, found, wanted)) }
    };
    expect(0, "dy", y)?;
    if kind != PoolKind::Average {
        expect(1, "x", &Shape::known(x))?;
        expect(2, "y", y)?;
    }
    Ok(TensorType::new(dtype, Shape::known(x)))
}

/// Element types that a kind of pooling accepts.
pub(super) fn pool_types(kind: PoolKind) -> &'static [DType] {
    match kind {
        PoolKind::Max => &[DType::F32, DType::F64, DType::I8, DType::U8],
        _ => &[DType::F32, DType::F64],
    }
}

impl Operator for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average => "AveragePool",
            PoolKind::Lp { .. } => "LpPool",
        }
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let kernel = Attribute::Ints(self.kernel.iter().map(|&n| n as i64).collect());
        let mut attributes = vec![("kernel_shape", kernel)];
        attributes.extend(self.sliding.attributes());
        if let PoolKind::Lp { p } = self.kind {
            attributes.push(("p", Attribute::Int(i64::from(p))));
        }
        let flags = [
            (self.ceil_mode, "ceil_mode"),
            (self.count_include_pad, "count_include_pad"),
            (self.column_major, "storage_order"),
        ];
        attributes.extend(flags.into_iter().filter(|f| f.0).map(|f| (f.1, Attribute::Int(1))));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_dtype(0, "x", pool_types(self.kind))?;
        self.expect_consistent()?;
        let shape = match inputs.dims(0, "x")? {
            Some(x) => Shape::Ranked(self.result(x)?),
            None => Shape::Unknown,
        };
        let mut results = vec![TensorType::new(dtype, shape.clone())];
        if self.indices {
            results.push(TensorType::new(DType::I64, shape));
        }
        Ok(results)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let shape = result_shapes(self, inputs)?.remove(0);
        let values = x.to_f64();
        let (mut y, mut indices) = (vec![], vec![]);
        self.each_window(x.shape(), &shape, |_, from, counted| {
            let value = pooled(self.kind, from.iter().map(|&i| values[i]), counted);
            y.push(value);
            if self.indices {
                let first = from.iter().copied().find(|&i| values[i] == value).unwrap_or(0);
                let index = if self.column_major { self.columns_first(first, x.shape()) } else { first };
                indices.push(index as i64);
            }
        });
        let mut results = vec![Tensor::from_f64(x.dtype(), shape.clone(), y)];
        if self.indices {
            results.push(Tensor::i64(shape, indices));
        }
        Ok(results)
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = gradient_operands(self.kind, g);
        let op = PoolGradient { pool: self.clone(), input_shape: g.extents(g.input(0))? };
        Ok(Gradient::Inputs(vec![Some(g.apply_all(op, &operands)?[0])]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let taps = self.kernel.iter().fold(1u64, |n, &k| n.saturating_mul(k as u64));
        Work::elementwise(shapes.output_len(0).saturating_mul(taps))
    }

    fn agreement(&self) -> Agreement {
        if self.kind == PoolKind::Max { Agreement::Exact } else { Agreement::Relative(1e-5) }
    }
}

impl Described for Pool {
    const ONNX: &'static [&'static str] = &["AveragePool", "LpPool", "MaxPool"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let kernel = node.ints("kernel_shape", &[])?;
        if kernel.is_empty() || kernel.len() > 8 || kernel.iter().any(|k| !(1..=1 << 20).contains(k)) {
            return Err(
                node.refuse(format!("kernel_shape = {kernel:?}; expected 1 to 8 integers from 1 to 2^20"))
            );
        }
        let sliding = Sliding::import(node, kernel.len())?;
        let kernel: Vec<usize> = kernel.into_iter().map(|k| k as usize).collect();
        let kind = match node.op_type() {
            "MaxPool" => PoolKind::Max,
            "AveragePool" => PoolKind::Average,
            _ => PoolKind::Lp { p: import_p(node)? },
        };
        let op = Pool {
            ceil_mode: node.int("ceil_mode", 0)? != 0,
            count_include_pad: node.int("count_include_pad", 0)? != 0,
            indices: node.wants_output(1),
            column_major: node.int("storage_order", 0)? != 0,
            ..Pool::new(kind, &kernel, sliding)
        };
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let mut examples = vec![];
        let uneven = Sliding {
            strides: vec![2, 1],
            dilations: vec![1, 2],
            padding: Padding::Explicit(vec![(0, 1), (1, 1)]),
        };
        let same = |padding| Sliding { padding, ..Sliding::strided(2, 0, 2) };
        for kind in [PoolKind::Max, PoolKind::Average, PoolKind::Lp { p: 2 }, PoolKind::Lp { p: 3 }] {
            let of = |pool: Pool, shape: &[usize]| Example::new(pool, vec![Example::noise(shape, 1)]);
            examples.extend([
                of(Pool::new(kind, &[2, 2], Sliding::strided(2, 0, 2)), &[2, 3, 4, 4]),
                of(Pool::new(kind, &[3, 2], uneven.clone()), &[1, 2, 5, 6]),
                of(Pool::new(kind, &[3, 3], same(Padding::SameLower)), &[1, 2, 5, 4]),
                of(Pool { ceil_mode: true, ..Pool::new(kind, &[3], Sliding::strided(1, 1, 2)) }, &[1, 2, 6]),
                of(Pool::new(kind, &[2, 2, 2], Sliding::padded(3, 0)), &[1, 1, 3, 3, 3]),
            ]);
        }
        let counted = Pool::new(PoolKind::Average, &[3, 3], Sliding::strided(2, 1, 2));
        let counted = Pool { count_include_pad: true, ceil_mode: true, ..counted };
        examples.push(Example::new(counted, vec![Example::noise(&[1, 2, 6, 5], 1)]));
        let found = Pool { indices: true, ..Pool::new(PoolKind::Max, &[2, 2], Sliding::padded(2, 0)) };
        examples.push(Example::new(found, vec![Example::noise(&[2, 1, 3, 4], 1)]));
        let bytes = Tensor::ints(&[5, 200, 17, 90]).cast(DType::U8).reshaped([1, 1, 4]).expect("4 elements");
        examples.push(Example::new(Pool::new(PoolKind::Max, &[2], Sliding::padded(1, 0)), vec![bytes]));
        examples
    }
}

/// Reads the p of a p-norm.
pub(super) fn import_p(node: &mut ForeignNode<'_>) -> Result<u32, ImportError> {
    match node.int("p", 2)? {
        p @ 1..=1024 => Ok(p as u32),
        p => Err(node.refuse(format!("p = {p}; expected 1 to 1024"))),
    }
}

impl Operator for PoolGradient {
    fn name(&self) -> &'static str {
        "PoolGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.pool.attributes();
        attributes.push(("pool", Attribute::Text(self.pool.name().into())));
        attributes.push(("shape", Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        self.pool.expect_consistent()?;
        let x: Vec<Dim> = self.input_shape.iter().map(|&n| n.into()).collect();
        let y = Shape::Ranked(self.pool.result(&x)?);
        Ok(vec![expect_gradient_operands(self.pool.kind, inputs, &self.input_shape, &y)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape = result_shapes(self, inputs)?.remove(0);
        let dy = inputs.get(0)?;
        let dys = dy.to_f64();
        let (x, y) = (inputs.optional(1).map(Tensor::to_f64), inputs.optional(2).map(Tensor::to_f64));
        let mut dx = vec![0.0; shape.iter().product()];
        self.pool.each_window(&shape, dy.shape(), |to, from, counted| {
            let window = (dys[to], x.as_deref().unwrap_or(&[]), y.as_deref().map_or(0.0, |y| y[to]));
            add_pooled_gradient(self.pool.kind, &mut dx, from, window, counted);
        });
        Ok(vec![Tensor::from_f64(dy.dtype(), shape, dx)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        if self.pool.kind != PoolKind::Average {
            return Ok(Gradient::NotDifferentiable("second derivatives of this pooling are not defined"));
        }
        // The mean is linear, and so is its gradient, with the mean as its transpose.
        let ddx = g.gradient();
        Ok(Gradient::Inputs(vec![Some(g.apply(self.pool.clone(), &[ddx])?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let taps = self.pool.kernel.iter().fold(1u64, |n, &k| n.saturating_mul(k as u64));
        Work::elementwise(shapes.input_len(0).saturating_mul(taps))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for PoolGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let average = Pool::new(PoolKind::Average, &[3, 3], Sliding::strided(2, 1, 2));
        let max = Pool::new(PoolKind::Max, &[2], Sliding::strided(1, 0, 2));
        let x = Tensor::f32([1, 1, 4], vec![1.0, 3.0, 5.0, 2.0]);
        let y = Tensor::f32([1, 1, 2], vec![3.0, 5.0]);
        let dy = Example::noise(&[1, 1, 2], 2);
        vec![
            Example::new(
                PoolGradient { pool: average, input_shape: vec![1, 2, 5, 5] },
                vec![Example::noise(&[1, 2, 3, 3], 1)],
            ),
            Example::new(PoolGradient { pool: max, input_shape: vec![1, 1, 4] }, vec![dy, x, y]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_window_must_start_before_the_padding_after() {
        let pool = |stride, pads, ceil_mode| Pool {
            ceil_mode,
            ..Pool::new(
                PoolKind::Max,
                &[2],
                Sliding { padding: Padding::Explicit(vec![pads]), ..Sliding::strided(1, 0, stride) },
            )
        };
        let windows = |pool: Pool, n: usize| pool.windows(0, &n.into()).unwrap().known().unwrap();
        assert_eq!(windows(pool(2, (0, 0), false), 5), 2);
        assert_eq!(windows(pool(2, (0, 0), true), 5), 3);
        // A third window would start at 4, in the padding after.
        assert_eq!(windows(pool(2, (0, 1), true), 4), 2);
        assert_eq!(windows(pool(3, (1, 1), true), 2), 1);
    }

    #[test]
    fn column_major_positions_count_the_last_axis_slowest() {
        let pool = Pool::new(PoolKind::Max, &[1, 1], Sliding::padded(2, 0));
        let x = [2, 1, 2, 3];
        assert_eq!((0..7).map(|i| pool.columns_first(i, &x)).collect::<Vec<_>>(), [0, 2, 4, 1, 3, 5, 6]);
    }

    #[test]
    fn padding_as_large_as_the_window_is_refused() {
        let pool = Pool::new(PoolKind::Average, &[2], Sliding::padded(1, 2));
        assert!(pool.result(&[1.into(), 1.into(), 4.into()]).is_err());
    }
}
