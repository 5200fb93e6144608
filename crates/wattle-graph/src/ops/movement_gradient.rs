//! The gradient of every operator that only moves elements: what moved is moved back, and what met is summed.

use super::*;
use crate::shape::Shape;

/// `dx` from `(dy, other operands of the forward operator..)`.
///
/// Which element went where is found by sending the positions themselves through the forward operator.
#[derive(Clone, Debug, PartialEq)]
pub struct MovementGradient {
    /// The forward operator; its operand 0 is what moves.
    pub forward: Box<Op>,
    /// Extents of its operand 0.
    pub input_shape: Vec<usize>,
}

impl MovementGradient {
    /// For each element of the forward result, the position it came from; `None` for padding.
    ///
    /// `others` are the operands of the forward operator after the first.
    pub fn sources(&self, others: &[Option<&Tensor>]) -> Result<Vec<Option<usize>>, OpError> {
        sources(&self.forward, &self.input_shape, others)
    }
}

/// For each element of the result of a movement operator, the position in operand 0 it came from; `None` for
/// padding. `others` are the operands after the first; what padding is filled with does not matter here.
pub fn sources(forward: &Op, shape: &[usize], others: &[Option<&Tensor>]) -> Result<Vec<Option<usize>>, OpError> {
    // Positions count from one, so that zero is left for padding.
    let count: usize = shape.iter().product();
    let positions = Tensor::i64(shape, (1..=count as i64).collect());
    let mut operands = vec![Some(&positions)];
    operands.extend(others);
    if matches!(forward, Op::Pad(_)) && operands.len() > 2 {
        operands[2] = None;
    }
    let moved = forward.evaluate(Tensors::new(&operands))?.swap_remove(0);
    Ok(moved.to_i64().iter().map(|&p| (p as usize).checked_sub(1)).collect())
}

/// Emits the gradient of a movement operator: its operand 0 gets it, all others none.
pub(super) fn gradient_of(forward: &Op, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
    let op = MovementGradient { forward: Box::new(forward.clone()), input_shape: g.extents(g.input(0))? };
    let mut operands = vec![Some(g.gradient())];
    operands.extend((1..g.input_count()).map(|i| g.optional_input(i)));
    let dx = g.apply_all(op, &operands)?[0];
    let mut gradients = vec![None; g.input_count()];
    gradients[0] = Some(dx);
    Ok(Gradient::Inputs(gradients))
}

impl Operator for MovementGradient {
    fn name(&self) -> &'static str {
        "MovementGradient"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("forward", Attribute::Text(self.forward.name().into()))];
        attributes.extend(self.forward.attributes());
        attributes.push(("shape", Attribute::Ints(self.input_shape.iter().map(|&n| n as i64).collect())));
        attributes
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let dtype = inputs.expect_float(0, "dy")?;
        Ok(vec![TensorType::new(dtype, Shape::known(&self.input_shape))])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let dy = inputs.get(0)?;
        let others: Vec<_> = (1..inputs.len()).map(|i| inputs.optional(i)).collect();
        let sources = self.sources(&others)?;
        if sources.len() != dy.len() {
            return Err(OpError::mismatch("dy", dy.len(), format!("{} elements", sources.len())));
        }
        let mut dx = vec![0.0; self.input_shape.iter().product()];
        for (value, source) in dy.to_f64().iter().zip(sources) {
            if let Some(source) = source {
                dx[source] += value;
            }
        }
        Ok(vec![Tensor::from_f64(dy.dtype(), self.input_shape.clone(), dx)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        // The operator is linear, with the forward movement as its transpose.
        let mut operands = vec![Some(g.gradient())];
        operands.extend((1..g.input_count()).map(|i| g.optional_input(i)));
        let ddy = g.apply_all((*self.forward).clone(), &operands)?[0];
        let mut gradients = vec![None; g.input_count()];
        gradients[0] = Some(ddy);
        Ok(Gradient::Inputs(gradients))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        Work::elementwise(shapes.input_len(0))
    }

    fn export(&self, _: &mut ExportNode<'_>) -> Result<(), OpError> {
        Err(OpError::Unsupported("ONNX has no gradient operators".into()))
    }
}

impl Described for MovementGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no gradient operators"))
    }

    fn examples() -> Vec<Example> {
        let gather = Op::from(Gather { axis: 0 });
        let op = MovementGradient { forward: Box::new(gather), input_shape: vec![4, 3] };
        let indices = Tensor::i64([3], vec![2, 0, 2]);
        vec![Example::new(op, vec![Example::noise(&[3, 3], 1), indices]).constants(&[1])]
    }
}
