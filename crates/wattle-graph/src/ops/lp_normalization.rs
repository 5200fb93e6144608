//! LpNormalization: lines along one axis scaled to length 1.

use super::concrete::result_shapes;
use super::*;

/// `y = x / (sum |x|^p)^(1/p)` along one axis, with p 1 or 2; lines of zeros stay zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LpNormalization {
    /// The axis summed over; negative counts from the end.
    pub axis: i64,
    /// Euclidean length (p = 2) instead of the sum of absolute values (p = 1).
    pub euclidean: bool,
}

/// `dx` from `(x, dy)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LpNormalizationGradient {
    /// The forward operator.
    pub forward: LpNormalization,
}

impl LpNormalization {
    fn expect(&self, inputs: Operands<'_>) -> Result<TensorType, OpError> {
        inputs.expect_float(0, "x")?;
        if let Some(dims) = inputs.dims(0, "x")? {
            axis_of(self.axis, dims.len())?;
        }
        Ok(inputs.ty(0, "x")?.clone())
    }

    fn norm(&self, x: &[f64], line: &[usize]) -> f64 {
        if self.euclidean {
            line.iter().map(|&i| x[i] * x[i]).sum::<f64>().sqrt()
        } else {
            line.iter().map(|&i| x[i].abs()).sum()
        }
    }
}

impl Operator for LpNormalization {
    fn name(&self) -> &'static str {
        "LpNormalization"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let axis = (self.axis != -1).then_some(("axis", Attribute::Int(self.axis)));
        let p = (!self.euclidean).then_some(("p", Attribute::Int(1)));
        [axis, p].into_iter().flatten().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![self.expect(inputs)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let xs = x.to_f64();
        let mut y = vec![0.0; x.len()];
        super::softmax::each_line(x.shape(), axis_of(self.axis, x.shape().len())?, |line| {
            let norm = self.norm(&xs, line);
            if norm != 0.0 {
                line.iter().for_each(|&i| y[i] = xs[i] / norm);
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.input(0), g.gradient()];
        Ok(Gradient::Inputs(vec![Some(
            g.apply(LpNormalizationGradient { forward: self.clone() }, &operands)?,
        )]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(3 * shapes.output_len(0))
    }
}

impl Described for LpNormalization {
    const ONNX: &'static [&'static str] = &["LpNormalization"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let axis = node.int("axis", -1)?;
        match node.int("p", 2)? {
            p @ (1 | 2) => node.finish(LpNormalization { axis, euclidean: p == 2 }),
            p => Err(node.refuse(format!("p = {p}; expected 1 or 2"))),
        }
    }

    fn examples() -> Vec<Example> {
        let of = |axis, euclidean| {
            Example::new(LpNormalization { axis, euclidean }, vec![Example::noise(&[2, 3, 4], 1)])
        };
        vec![of(-1, true), of(1, true), of(0, false), of(-1, false)]
    }
}

impl Operator for LpNormalizationGradient {
    fn name(&self) -> &'static str {
        "LpNormalizationGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.forward.attributes()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (x, dy) = (self.forward.expect(inputs)?, inputs.ty(1, "dy")?);
        if *dy != x {
            return Err(OpError::mismatch("dy", dy, format!("the type of x, {x}")));
        }
        Ok(vec![x])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (xs, dys) = (x.to_f64(), inputs.get(1)?.to_f64());
        let mut dx = vec![0.0; x.len()];
        super::softmax::each_line(x.shape(), axis_of(self.forward.axis, x.shape().len())?, |line| {
            let norm = self.forward.norm(&xs, line);
            if norm == 0.0 {
                return;
            }
            // dx = (dy - slope(norm) (y . dy)) / norm
            let along: f64 = line.iter().map(|&i| xs[i] / norm * dys[i]).sum();
            for &i in line {
                let slope = if self.forward.euclidean { xs[i] / norm } else { xs[i].signum() };
                dx[i] = (dys[i] - slope * along) / norm;
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of LpNormalization are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(8 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for LpNormalizationGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = LpNormalization { axis: -1, euclidean: true };
        let inputs = vec![Example::noise(&[2, 4], 1), Example::noise(&[2, 4], 2)];
        vec![Example::new(LpNormalizationGradient { forward }, inputs)]
    }
}
