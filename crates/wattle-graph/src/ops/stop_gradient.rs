//! StopGradient: a value that is read and not learnt through: targets, teachers, straight-through estimates.

use super::*;

/// `y = x`, and nothing flows back: the gradient is zero whatever x is.
///
/// It matters to [`crate::differentiate`] alone; elsewhere it is Identity, as which it is exported.
#[derive(Clone, Debug, PartialEq)]
pub struct StopGradient;

impl Operator for StopGradient {
    fn name(&self) -> &'static str {
        "StopGradient"
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.get(0)?.clone()])
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::Zero("that is what the operator is for"))
    }

    fn work(&self, _: &Shapes<'_>) -> Work {
        Work::renaming()
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        node.same("Identity", vec![]);
        Ok(())
    }

    fn agreement(&self) -> Agreement {
        Agreement::Exact
    }
}

impl Described for StopGradient {
    const ONNX: &'static [&'static str] = &[];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        Err(node.refuse("ONNX has no StopGradient"))
    }

    fn examples() -> Vec<Example> {
        vec![Example::new(StopGradient, vec![Example::noise(&[2, 3], 1)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::shape::Shape;
    use crate::tensor::DType;
    use crate::{differentiate, interpret};

    #[test]
    fn only_what_does_not_pass_through_it_is_learnt() {
        // loss = x * stop(x): its gradient is stop(x), not 2 x.
        let mut graph = Graph::new("half");
        let x = graph.input("x", DType::F64, Shape::known(&[]));
        let held = graph.apply(StopGradient, &[x]).unwrap();
        let loss = graph.apply(Binary { function: BinaryFunction::Mul }, &[x, held]).unwrap();
        let d = differentiate(&graph, loss, &[x]).unwrap();
        let mut graph = d.graph.clone();
        graph.output(d.gradients[0].unwrap());
        let feeds = [("x".to_string(), Tensor::f64([], vec![3.0]))].into();
        assert_eq!(interpret(&graph, &mut Default::default(), &feeds).unwrap()[0].to_f64()[0], 3.0);
    }

    #[test]
    fn a_loss_behind_it_does_not_depend_on_anything() {
        let mut graph = Graph::new("nothing");
        let x = graph.input("x", DType::F64, Shape::known(&[]));
        let loss = graph.apply(StopGradient, &[x]).unwrap();
        assert_eq!(differentiate(&graph, loss, &[x]).unwrap().gradients, [None]);
    }
}
