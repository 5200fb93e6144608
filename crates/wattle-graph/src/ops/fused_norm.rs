//! Batch normalisation of a training step together with the residual addition and ReLU after it, and its gradient.

use super::*;

/// `y = relu(norm(x) [+ residual])`: the operands and results of the training form of [`BatchNormalization`], with
/// the residual, of x's shape, after the operands.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedBatchNorm {
    /// Its training form.
    pub norm: BatchNormalization,
    /// Whether a residual follows the operands.
    pub residual: bool,
}

/// `(x, scale, saved_mean, saved_inv_std, dy, y) -> (dx, dscale, dbias, dresidual?)`: the gradient of
/// [`FusedBatchNorm`], where y is its result. The gradient of the residual is dy where y is above 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedBatchNormGradient {
    /// Whether the gradient of the residual is a result.
    pub residual: bool,
}

const RELU: Unary = Unary { function: Function::Relu };

impl Operator for FusedBatchNorm {
    fn name(&self) -> &'static str {
        "FusedBatchNorm"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let residual = self.residual.then_some(("residual", Attribute::Int(1)));
        self.norm.attributes().into_iter().chain(residual).collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        if !self.norm.training {
            return Err(OpError::Unsupported("the inference form is folded, not fused".into()));
        }
        let results = self.norm.infer(inputs.first(5))?;
        if self.residual && inputs.ty(5, "residual")? != &results[0] {
            return Err(OpError::mismatch("residual", inputs.ty(5, "residual")?, &results[0]));
        }
        Ok(results)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let mut results = self.norm.evaluate(inputs.first(5))?;
        if self.residual {
            let add = Binary { function: BinaryFunction::Add };
            results[0] =
                add.evaluate(Tensors::new(&[Some(&results[0]), Some(inputs.get(5)?)]))?.swap_remove(0);
        }
        results[0] = RELU.evaluate(Tensors::new(&[Some(&results[0])]))?.swap_remove(0);
        Ok(results)
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("fused operators are made after differentiation"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let norm = self.norm.work(shapes);
        let extra = (1 + u64::from(self.residual)) * shapes.input_len(0);
        Work { element_ops: norm.element_ops + extra, ..norm }
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("fused operators are made for running, after the point of export".into()))
    }
}

impl Described for FusedBatchNorm {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no FusedBatchNorm"))
    }

    fn examples() -> Vec<Example> {
        let norm = BatchNormalization { epsilon: 1e-3, momentum: 0.8, training: true };
        let operands = |shape: &[usize]| {
            let channels = [2, 3, 4].map(|seed| Example::noise(&[shape[1]], seed));
            let variance = Tensor::f32([shape[1]], vec![0.7; shape[1]]);
            [vec![Example::noise(shape, 1)], channels.to_vec(), vec![variance]].concat()
        };
        let plain = FusedBatchNorm { norm: norm.clone(), residual: false };
        let added = FusedBatchNorm { norm, residual: true };
        let residual = vec![Example::noise(&[3, 17, 2, 5], 6)];
        vec![
            Example::new(plain, operands(&[4, 3, 5])),
            Example::new(added, [operands(&[3, 17, 2, 5]), residual].concat()),
        ]
    }
}

impl Operator for FusedBatchNormGradient {
    fn name(&self) -> &'static str {
        "FusedBatchNormGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.residual.then_some(("residual", Attribute::Int(1))).into_iter().collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let mut results = BatchNormalizationGradient.infer(inputs.first(5))?;
        let (x, y) = (inputs.ty(0, "x")?.clone(), inputs.ty(5, "y")?);
        if *y != x {
            return Err(OpError::mismatch("y", y, &x));
        }
        results.extend(self.residual.then_some(x));
        Ok(results)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let (dy, y) = (inputs.get(4)?, inputs.get(5)?);
        let relu = UnaryGradient { function: Function::Relu };
        let masked = relu.evaluate(Tensors::new(&[Some(y), Some(y), Some(dy)]))?.swap_remove(0);
        let operands = [inputs.get(0)?, inputs.get(1)?, inputs.get(2)?, inputs.get(3)?, &masked].map(Some);
        let mut results = BatchNormalizationGradient.evaluate(Tensors::new(&operands))?;
        results.extend(self.residual.then_some(masked));
        Ok(results)
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("fused operators are made after differentiation"))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let norm = BatchNormalizationGradient.work(shapes);
        Work { element_ops: norm.element_ops + shapes.input_len(0), ..norm }
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("fused operators are made for running, after the point of export".into()))
    }
}

impl Described for FusedBatchNormGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let of = |residual: bool, shape: &[usize]| {
            let c = shape[1];
            let [scale, mean] = [2, 3].map(|seed| Example::noise(&[c], seed));
            let inv_std = Tensor::f32([c], vec![1.3; c]);
            let [x, dy, y] = [1, 5, 6].map(|seed| Example::noise(shape, seed));
            Example::new(FusedBatchNormGradient { residual }, vec![x, scale, mean, inv_std, dy, y])
        };
        vec![of(false, &[2, 3, 4]), of(true, &[3, 17, 2, 5])]
    }
}
