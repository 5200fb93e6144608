//! Identity: the operand itself; the result of dropping what inference does not need.

use super::*;

/// `y = x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity;

impl Operator for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.get(0)?.clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Inputs(vec![Some(backward.gradient())]))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::renaming()
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for Identity {
    const ONNX: &'static [&'static str] = &["Identity"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let x = node.input(0)?;
        Ok(vec![x])
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(Identity, vec![Example::noise(&[2, 3], 1)])]
    }
}
