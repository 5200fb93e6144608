//! Operators of other crates: what they answer beyond what every operator does.

use std::any::Any;

use crate::graph::Graph;
use crate::operator::Operator;
use crate::ops::Op;

/// An operator defined by another crate. It enters a graph as [`Op::Custom`].
///
/// [`Operator::export`] is called for [`OnnxForm::Decomposed`] alone. A kernel for it is registered with the engine by its
/// type; without one its definition, [`Operator::evaluate`], runs.
pub trait CustomOperator: Operator + Any + Send + Sync {
    /// Names the operator and everything that decides what it computes: `acme.Swirl turns=3`.
    ///
    /// Two operators of one key are one operator: equal nodes are merged, and caches, fingerprints of graphs and keys of
    /// runs hold the key. An attribute that changes a result and is not in the key gives wrong results.
    fn key(&self) -> String;

    /// Whether the results follow from the operands alone, and nothing else happens. Nodes of operators that are not pure
    /// are never merged, removed, computed while planning, or run in parts of a batch.
    fn is_pure(&self) -> bool {
        true
    }

    /// What it becomes in an ONNX file.
    fn onnx(&self) -> OnnxForm {
        OnnxForm::Refused("its crate states no ONNX form")
    }
}

/// What a custom operator becomes in an ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxForm {
    /// One node with the operands, results and attributes as they are.
    Node {
        /// Domain of the operator, such as `com.acme`.
        domain: &'static str,
        /// Name in the domain.
        name: &'static str,
        /// Version of the domain's operator set.
        version: i64,
    },
    /// The standard nodes that [`Operator::export`] emits.
    Decomposed,
    /// None, for the stated reason; writing a graph that contains it is an error that names the node.
    Refused(&'static str),
}

impl Op {
    /// Whether its results follow from its operands alone, and nothing else happens.
    pub fn is_pure(&self) -> bool {
        match self {
            Op::Custom(op) => op.is_pure(),
            op => op.graphs().iter().all(|graph| graph.nodes().iter().all(|n| n.op.is_pure())),
        }
    }

    /// The graphs inside it: the branches of an `If`, the body of a `Loop`.
    pub fn graphs(&self) -> Vec<&Graph> {
        match self {
            Op::If(op) => vec![&op.then_graph, &op.else_graph],
            Op::Loop(op) => vec![&op.body],
            _ => vec![],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use crate::error::{GraphError, OpError};
    use crate::graph::{Graph, TensorType};
    use crate::model::Model;
    use crate::onnx::{ExportNode, encode_model};
    use crate::operator::*;
    use crate::ops::{Binary, BinaryFunction, Op};
    use crate::parameter::{Parameter, Parameters};
    use crate::rewrite::{COMMON_SUBEXPRESSIONS, FOLD_CONSTANTS, run_passes};
    use crate::shape::Shape;
    use crate::tensor::{DType, Tensor};
    use crate::{CustomOperator, OnnxForm, differentiate};

    /// `y = factor x`, with an optional state `count` that its gradient counts up.
    #[derive(Debug)]
    pub(crate) struct Times {
        pub factor: f32,
        pub pure: bool,
        pub form: OnnxForm,
    }

    impl Times {
        pub fn by(factor: f32) -> Times {
            Times { factor, pure: true, form: OnnxForm::Refused("a test") }
        }
    }

    impl Operator for Times {
        fn name(&self) -> &'static str {
            "test.Times"
        }

        fn attributes(&self) -> Vec<(&'static str, Attribute)> {
            vec![("factor", Attribute::Float(self.factor))]
        }

        fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
            Ok(vec![inputs.ty(0, "x")?.clone()])
        }

        fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
            let x = inputs.get(0)?;
            let y = x.to_f64().iter().map(|x| x * f64::from(self.factor)).collect();
            Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
        }

        fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
            if let Some(count) = g.optional_input(1) {
                let one = g.constant(Tensor::scalar(1.0));
                let next = g.apply(Binary { function: BinaryFunction::Add }, &[count, one])?;
                g.update(1, next)?;
            }
            let dx = g.apply(Op::Custom(Arc::new(Times::by(self.factor))), &[g.gradient()])?;
            Ok(Gradient::Inputs(vec![Some(dx), None]))
        }

        fn work(&self, shapes: &Shapes<'_>) -> Work {
            Work::elementwise(shapes.output_len(0))
        }

        fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
            let factor = node.constant(Tensor::scalar(self.factor));
            node.emit_final("Mul", &[node.input(0), factor], vec![]);
            Ok(())
        }
    }

    impl CustomOperator for Times {
        fn key(&self) -> String {
            format!("test.Times factor={}", self.factor)
        }

        fn is_pure(&self) -> bool {
            self.pure
        }

        fn onnx(&self) -> OnnxForm {
            self.form
        }
    }

    /// Two equal nodes whose results are added, and a third that nothing reads, all on a constant.
    fn thrice(pure: bool) -> Graph {
        let mut graph = Graph::new("thrice");
        let x = graph.constant(Tensor::f32([2], vec![1.0, 2.0]));
        let mut apply = || graph.apply(Op::Custom(Arc::new(Times { pure, ..Times::by(2.0) })), &[x]).unwrap();
        let (a, b, _) = (apply(), apply(), apply());
        let sum = graph.apply(Binary { function: BinaryFunction::Add }, &[a, b]).unwrap();
        graph.output(sum);
        graph
    }

    #[test]
    fn equal_keys_are_one_operator_and_other_keys_are_not() {
        let op = |factor| Op::Custom(Arc::new(Times::by(factor)));
        assert!(op(2.0) == op(2.0) && op(2.0) != op(3.0));
    }

    #[test]
    fn nodes_that_are_not_pure_are_neither_merged_nor_removed_nor_folded() {
        for (pure, passes, left) in [
            (true, &[COMMON_SUBEXPRESSIONS][..], 1),
            (true, &[FOLD_CONSTANTS][..], 0),
            (false, &[COMMON_SUBEXPRESSIONS, FOLD_CONSTANTS][..], 3),
        ] {
            let (graph, _) = run_passes(&thrice(pure), passes, None).unwrap();
            let count = graph.nodes().iter().filter(|n| matches!(n.op, Op::Custom(_))).count();
            assert_eq!(count, left, "pure: {pure}, {passes:?}");
        }
    }

    #[test]
    fn a_gradient_rule_may_update_state_and_nothing_else() {
        let mut graph = Graph::new("counted");
        let x = graph.input("x", DType::F32, Shape::known(&[]));
        let count = graph.parameter(Parameter::state("count"), DType::F32, &[]);
        let y = graph.apply(Op::Custom(Arc::new(Times::by(3.0))), &[x, count]).unwrap();
        let d = differentiate(&graph, y, &[x]).unwrap();
        assert_eq!(d.graph.assignments().len(), 1);
        let mut parameters = Parameters::new();
        parameters.insert("count", Tensor::scalar(4.0));
        let feeds = std::collections::BTreeMap::from([("x".to_string(), Tensor::scalar(1.0))]);
        crate::interpret(&d.graph, &mut parameters, &feeds).unwrap();
        assert_eq!(parameters.get("count").unwrap().to_f64()[0], 5.0);

        let weight = graph.parameter(Parameter::trainable("weight"), DType::F32, &[]);
        let y = graph.apply(Op::Custom(Arc::new(Times::by(3.0))), &[x, weight]).unwrap();
        let error = differentiate(&graph, y, &[x]).unwrap_err().to_string();
        assert!(error.contains("`weight`") && error.contains("state"), "{error}");
    }

    #[test]
    fn it_leaves_as_a_node_of_its_domain_or_as_standard_nodes_or_not_at_all() {
        let written = |form| {
            let mut graph = Graph::new("one");
            let x = graph.input("x", DType::F32, Shape::known(&[2]));
            let y = graph.apply(Op::Custom(Arc::new(Times { form, ..Times::by(2.0) })), &[x]).unwrap();
            graph.rename(y, "y");
            graph.output(y);
            encode_model(&Model { graph, ..Model::default() })
        };
        let node = written(OnnxForm::Node { domain: "com.acme", name: "Scale", version: 3 }).unwrap();
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has(&node, "com.acme") && has(&node, "Scale") && has(&node, "factor"));
        let standard = written(OnnxForm::Decomposed).unwrap();
        assert!(has(&standard, "Mul") && !has(&standard, "com.acme"));
        let refused = written(OnnxForm::Refused("it spins")).unwrap_err().to_string();
        assert!(refused.contains("test.Times") && refused.contains("it spins"), "{refused}");
    }
}
