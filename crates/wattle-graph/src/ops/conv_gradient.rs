//! The two gradients of Conv: by its input, which is also transposed convolution, and by its weight.

use super::*;
use super::conv::each_product;
use crate::shape::{Dim, Shape};

/// `dx` from `(dy, w)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvInputGradient {
    /// The forward convolution.
    pub conv: Conv,
    /// Extents of its input.
    pub input_shape: Vec<usize>,
}

/// `dw` from `(x, dy)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvWeightGradient {
    /// The forward convolution.
    pub conv: Conv,
    /// Extents of its weight.
    pub weight_shape: Vec<usize>,
}

fn known(extents: &[usize]) -> Vec<Dim> {
    extents.iter().map(|&n| n.into()).collect()
}

/// Checks that `dy` is the shape of the forward result.
fn expect_result(conv: &Conv, x: &[Dim], w: &[Dim], dy: &Shape) -> Result<(), OpError> {
    let forward = Shape::Ranked(conv.result(x, w)?);
    if *dy == forward { Ok(()) } else { Err(OpError::mismatch("dy", dy, format!("the result's shape, {forward}"))) }
}

impl Operator for ConvInputGradient {
    fn name(&self) -> &'static str {
        "ConvInputGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.conv.attributes();
        attributes.push(("shape", Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "dy")?;
        let w = inputs.dims(1, "w")?.ok_or(OpError::Unbound("the kernel's shape"))?;
        expect_result(&self.conv, &known(&self.input_shape), w, &inputs.ty(0, "dy")?.shape)?;
        Ok(vec![TensorType::new(dtype, Shape::known(&self.input_shape))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (dy, w) = (inputs.get(0)?, inputs.get(1)?);
        let (dys, ws) = (dy.to_f64(), w.to_f64());
        let mut dx = vec![0.0; self.input_shape.iter().product()];
        each_product(&self.conv, &self.input_shape, w.shape(), dy.shape(), |to, from, weight| {
            dx[from] += dys[to] * ws[weight];
        });
        Ok(vec![Tensor::from_f64(dy.dtype(), self.input_shape.clone(), dx)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        // The operator is linear in each operand, with the forward convolution as its transpose.
        let (dy, w, ddx) = (g.input(0), g.input(1), g.gradient());
        let (mut ddy, mut dw) = (None, None);
        if g.wants(0) {
            ddy = Some(g.apply(self.conv.clone(), &[ddx, w])?);
        }
        if g.wants(1) {
            let op = ConvWeightGradient { conv: self.conv.clone(), weight_shape: g.extents(w)? };
            dw = Some(g.apply(op, &[ddx, dy])?);
        }
        Ok(Gradient::Inputs(vec![ddy, dw]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let macs = self.conv.macs(shapes.input_len(0), shapes.input(1));
        Work::macs(MacKind::Gradient, macs, shapes.density(1))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for ConvInputGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        forward_examples(|conv, x, w, y| {
            let macs = y.iter().product::<usize>() * w[1..].iter().product::<usize>();
            let op = ConvInputGradient { conv, input_shape: x.to_vec() };
            Example::new(op, vec![Example::noise(y, 4), Example::noise(w, 5)]).macs(macs as u64)
        })
    }
}

impl Operator for ConvWeightGradient {
    fn name(&self) -> &'static str {
        "ConvWeightGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = self.conv.attributes();
        attributes.push(("shape", Attribute::Ints(self.weight_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "x")?;
        let x = inputs.dims(0, "x")?.ok_or(OpError::Unbound("the shape of x"))?;
        expect_result(&self.conv, x, &known(&self.weight_shape), &inputs.ty(1, "dy")?.shape)?;
        Ok(vec![TensorType::new(dtype, Shape::known(&self.weight_shape))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, dy) = (inputs.get(0)?, inputs.get(1)?);
        let (xs, dys) = (x.to_f64(), dy.to_f64());
        let mut dw = vec![0.0; self.weight_shape.iter().product()];
        each_product(&self.conv, x.shape(), &self.weight_shape, dy.shape(), |to, from, weight| {
            dw[weight] += dys[to] * xs[from];
        });
        Ok(vec![Tensor::from_f64(x.dtype(), self.weight_shape.clone(), dw)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let (x, dy, ddw) = (g.input(0), g.input(1), g.gradient());
        let (mut dx, mut ddy) = (None, None);
        if g.wants(0) {
            let op = ConvInputGradient { conv: self.conv.clone(), input_shape: g.extents(x)? };
            dx = Some(g.apply(op, &[dy, ddw])?);
        }
        if g.wants(1) {
            ddy = Some(g.apply(self.conv.clone(), &[x, ddw])?);
        }
        Ok(Gradient::Inputs(vec![dx, ddy]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::macs(MacKind::Gradient, self.conv.macs(shapes.input_len(1), &self.weight_shape), 1.0)
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for ConvWeightGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        forward_examples(|conv, x, w, y| {
            let macs = y.iter().product::<usize>() * w[1..].iter().product::<usize>();
            let op = ConvWeightGradient { conv, weight_shape: w.to_vec() };
            Example::new(op, vec![Example::noise(x, 4), Example::noise(y, 5)]).macs(macs as u64)
        })
    }
}

/// Builds an example from each of Conv's, given its attributes and the shapes of x, w and y.
fn forward_examples(build: impl Fn(Conv, &[usize], &[usize], &[usize]) -> Example) -> Vec<Example> {
    let mut examples = vec![];
    for example in Conv::examples() {
        let (Op::Conv(conv), [Some(x), Some(w), ..]) = (&example.op, &example.inputs[..]) else { continue };
        if let Ok(y) = conv.result(&known(x.shape()), &known(w.shape())) {
            let y: Vec<usize> = y.iter().filter_map(Dim::known).collect();
            examples.push(build(conv.clone(), x.shape(), w.shape(), &y));
        }
    }
    examples
}
