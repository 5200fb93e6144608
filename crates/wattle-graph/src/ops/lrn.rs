//! LRN: every element divided by a power of the energy of neighbouring channels.

use super::concrete::result_shapes;
use super::*;

/// `y = x / (bias + alpha / size sum x^2)^beta` for x `[N, C, d..]`, the sum over the `size` channels around each
/// (Krizhevsky et al. 2012, section 3.3, with ONNX's division of alpha by size).
#[derive(Clone, Debug, PartialEq)]
pub struct Lrn {
    /// Scale of the sum.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// Added to the sum.
    pub bias: f32,
    /// Number of channels summed over, at least 1.
    pub size: usize,
}

/// `dx` from `(x, dy)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LrnGradient {
    /// The forward operator.
    pub forward: Lrn,
}

impl Lrn {
    fn expect(&self, inputs: Operands<'_>) -> Result<TensorType, OpError> {
        inputs.expect_float(0, "x")?;
        if inputs.dims(0, "x")?.is_some_and(|d| d.len() < 2) {
            return Err(OpError::mismatch("x", inputs.ty(0, "x")?, "at least the axes [N, C]"));
        }
        if self.size == 0 {
            return Err(OpError::mismatch("size", 0, "at least 1"));
        }
        Ok(inputs.ty(0, "x")?.clone())
    }

    /// Channels that channel `c` of `channels` sums over; an even size reaches one further up than down.
    fn neighbours(&self, c: usize, channels: usize) -> std::ops::Range<usize> {
        let below = (self.size - 1) / 2;
        c.saturating_sub(below)..c.saturating_add(self.size - below).min(channels)
    }

    /// What each element of a line of channels is divided by the `beta`-th power of.
    fn energies(&self, line: &[f64]) -> Vec<f64> {
        let scale = f64::from(self.alpha) / self.size as f64;
        let energy = |c| {
            let sum: f64 = line[self.neighbours(c, line.len())].iter().map(|v| v * v).sum();
            f64::from(self.bias) + scale * sum
        };
        (0..line.len()).map(energy).collect()
    }
}

impl Operator for Lrn {
    fn name(&self) -> &'static str {
        "LRN"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let numbers = [("alpha", self.alpha, 1e-4), ("beta", self.beta, 0.75), ("bias", self.bias, 1.0)];
        let stated = numbers.into_iter().filter(|(_, value, default)| value != default);
        let mut attributes: Vec<_> = stated.map(|(name, value, _)| (name, Attribute::Float(value))).collect();
        attributes.push(("size", Attribute::Int(self.size as i64)));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![self.expect(inputs)?])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let (xs, beta) = (x.to_f64(), f64::from(self.beta));
        let mut y = vec![0.0; x.len()];
        super::softmax::each_line(x.shape(), 1, |line| {
            let values: Vec<f64> = line.iter().map(|&i| xs[i]).collect();
            for (c, energy) in self.energies(&values).into_iter().enumerate() {
                y[line[c]] = values[c] * energy.powf(-beta);
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.input(0), g.gradient()];
        Ok(Gradient::Inputs(vec![Some(g.apply(LrnGradient { forward: self.clone() }, &operands)?)]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // A square, a running sum over channels (in and out), scale and bias, a power, a product.
        Work::elementwise(7 * shapes.output_len(0))
    }
}

impl Described for Lrn {
    const ONNX: &'static [&'static str] = &["LRN"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let size = match node.int("size", 0)? {
            size @ 1..=0x10_0000 => size as usize,
            size => return Err(node.refuse(format!("size = {size}; expected 1 to 2^20"))),
        };
        let (alpha, beta) = (node.float("alpha", 1e-4)?, node.float("beta", 0.75)?);
        let op = Lrn { alpha, beta, bias: node.float("bias", 1.0)?, size };
        node.finish(op)
    }

    fn examples() -> Vec<Example> {
        let of = |alpha, size, shape: &[usize]| {
            let op = Lrn { alpha, beta: 0.75, bias: 1.5, size };
            Example::new(op, vec![Example::noise(shape, 1)])
        };
        vec![of(0.8, 3, &[2, 5, 2, 2]), of(0.5, 2, &[1, 4, 3]), of(1e-4, 9, &[2, 3])]
    }
}

impl Operator for LrnGradient {
    fn name(&self) -> &'static str {
        "LRNGradient"
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
        let op = &self.forward;
        let (beta, scale) = (f64::from(op.beta), f64::from(op.alpha) / op.size as f64);
        let mut dx = vec![0.0; x.len()];
        super::softmax::each_line(x.shape(), 1, |line| {
            let values: Vec<f64> = line.iter().map(|&i| xs[i]).collect();
            for (c, energy) in op.energies(&values).into_iter().enumerate() {
                let dy = dys[line[c]];
                dx[line[c]] += dy * energy.powf(-beta);
                let shared = -2.0 * beta * scale * dy * values[c] * energy.powf(-beta - 1.0);
                for k in op.neighbours(c, line.len()) {
                    dx[line[k]] += shared * values[k];
                }
            }
        });
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), dx)])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("second derivatives of LRN are not defined"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(16 * shapes.output_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for LrnGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let forward = Lrn { alpha: 0.1, beta: 0.75, bias: 1.0, size: 3 };
        vec![Example::new(
            LrnGradient { forward },
            vec![Example::noise(&[1, 4, 2], 1), Example::noise(&[1, 4, 2], 2)],
        )]
    }
}
