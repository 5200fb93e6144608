//! If: one of two graphs, chosen by a condition that is known only when the graph runs.

use std::collections::BTreeMap;
use std::ops::Range;

use super::nested::{merged, output_types};
use super::*;
use crate::graph::Graph;
use crate::interpret::interpret;
use crate::parameter::Parameters;
use crate::rewrite;
use crate::shape::Shape;
use crate::splice::may_be;
use crate::tensor::DType;

/// `If(condition, then captures.., else captures..)`: the outputs of the branch that is taken.
///
/// The inputs of a branch stand for values of the enclosing graph, its captures, in order. A condition that is
/// constant once shapes are bound is decided by [`crate::rewrite::bind`], which puts the branch in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct If {
    /// Runs when the condition holds.
    pub then_graph: Box<Graph>,
    /// Runs when it does not.
    pub else_graph: Box<Graph>,
}

impl If {
    /// Which operands feed the inputs of a branch: those of the else-branch when `condition` is false.
    pub fn captures(&self, condition: bool) -> Range<usize> {
        let then = self.then_graph.inputs().len();
        if condition { 1..1 + then } else { 1 + then..1 + then + self.else_graph.inputs().len() }
    }

    /// The branch that runs under a condition.
    pub fn branch(&self, condition: bool) -> &Graph {
        if condition { &self.then_graph } else { &self.else_graph }
    }

    /// The branch with more multiply-accumulates on operands of these shapes, with all types inferred, and their
    /// sum; nothing when neither branch fits.
    pub fn counted(&self, shapes: &Shapes<'_>) -> (Option<Graph>, Work) {
        let of = |condition| {
            let branch = self.branch(condition);
            let types = branch.inputs().iter().zip(self.captures(condition)).map(|(&input, operand)| {
                TensorType::new(branch.value(input).ty.dtype, Shape::known(shapes.input(operand)))
            });
            nested::counted(branch, &types.collect::<Vec<_>>())
        };
        let (a, b) = (of(true), of(false));
        if (b.1.macs, b.1.element_ops) > (a.1.macs, a.1.element_ops) { b } else { a }
    }

    /// The branch as it is on these operands, all types inferred again and all that is constant folded. Inputs that are
    /// constant are gone; the others keep their names and order.
    ///
    /// # Errors
    /// When the operands do not fit what the branch declares, or an operator in it refuses them.
    pub fn specialised(&self, condition: bool, inputs: Operands<'_>) -> Result<Graph, OpError> {
        rewrite::specialised(self.branch(condition), &self.captured(condition, inputs)?)
            .map_err(|e| refused(condition, e))
    }

    /// The branch as it is on these operands, with all types inferred again.
    fn retyped(&self, condition: bool, inputs: Operands<'_>) -> Result<Graph, OpError> {
        rewrite::retyped(self.branch(condition), &self.captured(condition, inputs)?)
            .map_err(|e| refused(condition, e))
    }

    /// The operands that a branch captures, which are what it declares.
    fn captured<'a>(&self, condition: bool, inputs: Operands<'a>) -> Result<Vec<Option<Operand<'a>>>, OpError> {
        let branch = self.branch(condition);
        let mut operands = vec![];
        for (&input, index) in branch.inputs().iter().zip(self.captures(condition)) {
            let operand = inputs.get(index, "capture")?;
            let declared = &branch.value(input).ty;
            if !may_be(operand.ty, declared) {
                return Err(OpError::mismatch("capture", operand, format!("{declared}, as the branch declares")));
            }
            operands.push(Some(operand));
        }
        Ok(operands)
    }
}

fn refused(condition: bool, cause: GraphError) -> OpError {
    let branch = if condition { "then-branch" } else { "else-branch" };
    OpError::mismatch(branch, cause, "a branch that fits its operands")
}

impl Operator for If {
    fn name(&self) -> &'static str {
        "If"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("then_branch", Attribute::Graph(self.then_graph.clone())),
            ("else_branch", Attribute::Graph(self.else_graph.clone())),
        ]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_dtype(0, "condition", &[DType::Bool])?;
        let wanted = self.captures(false).end;
        if inputs.len() != wanted {
            return Err(OpError::mismatch("operands", inputs.len(), wanted));
        }
        let counts = [&self.then_graph, &self.else_graph].map(|g| g.outputs().len());
        if counts[0] != counts[1] {
            return Err(OpError::mismatch("outputs of the branches", format!("{counts:?}"), "equal numbers"));
        }
        // A branch that does not fit its operands is never taken in a correct graph: its shapes do not count,
        // and evaluating it is the error.
        match [true, false].map(|condition| self.retyped(condition, inputs)) {
            [Ok(a), Ok(b)] => {
                output_types(&a).iter().zip(&output_types(&b)).map(|(a, b)| merged(a, b)).collect()
            }
            [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(output_types(&one)),
            [Err(cause), Err(_)] => Err(cause),
        }
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let condition = inputs.get(0)?;
        if condition.len() != 1 {
            return Err(OpError::mismatch("condition", format!("{:?}", condition.shape()), "one element"));
        }
        let condition = condition.to_i64()[0] != 0;
        let branch = self.branch(condition);
        let mut feeds = BTreeMap::new();
        for (&input, operand) in branch.inputs().iter().zip(self.captures(condition)) {
            feeds.insert(branch.value(input).name.clone(), inputs.get(operand)?.clone());
        }
        interpret(branch, &mut Parameters::new(), &feeds).map_err(|e| refused(condition, e))
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("which branch runs is known only when the graph runs"))
    }

    /// That of the branch with more multiply-accumulates.
    fn work(&self, shapes: &Shapes<'_>) -> Work {
        self.counted(shapes).1
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let mut attributes = vec![];
        for (name, condition) in [("then_branch", true), ("else_branch", false)] {
            // In ONNX a branch reads the values of the enclosing graph by name.
            let mut branch = self.branch(condition).clone();
            for (input, operand) in branch.inputs().to_vec().into_iter().zip(self.captures(condition)) {
                branch.rename(input, node.input(operand));
            }
            attributes.push((name, Attribute::Graph(Box::new(branch))));
        }
        node.emit_final("If", &[node.input(0)], attributes);
        Ok(())
    }
}

impl Described for If {
    const ONNX: &'static [&'static str] = &["If"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (then_graph, then_captures) = node.subgraph("then_branch")?;
        let (else_graph, else_captures) = node.subgraph("else_branch")?;
        let mut inputs = vec![Some(node.input(0)?)];
        inputs.extend(then_captures.into_iter().chain(else_captures).map(Some));
        node.apply_all(If { then_graph: Box::new(then_graph), else_graph: Box::new(else_graph) }, &inputs)
    }

    fn examples() -> Vec<Example> {
        let condition = |holds: bool| Tensor::from_i64(DType::Bool, [], vec![holds as i64]);
        let (x, w) = (Example::noise(&[2, 3], 1), Example::noise(&[3, 3], 2));
        let captures = [x.clone(), w.clone(), x.clone()];
        let of = |holds: bool| [vec![condition(holds)], captures.to_vec()].concat();
        let no_captures = || {
            let mut graph = Graph::new("constant");
            let one = graph.constant(Tensor::scalar(1.0));
            graph.output(one);
            Box::new(graph)
        };
        let constants = If { then_graph: no_captures(), else_graph: no_captures() };
        let mut examples = vec![Example::new(constants, vec![condition(true)])];
        if let Ok(op) = product_or_relu() {
            examples.push(Example::new(op.clone(), of(true)).macs(2 * 3 * 3));
            examples.push(Example::new(op, of(false)).macs(2 * 3 * 3));
        }
        examples
    }
}

/// `x w` if the condition holds, else `relu(x)`.
fn product_or_relu() -> Result<If, GraphError> {
    let mut then_graph = Graph::new("then");
    let x = then_graph.input("x", DType::F32, vec![crate::shape::Dim::symbol("N"), 3.into()]);
    let w = then_graph.input("w", DType::F32, Shape::known(&[3, 3]));
    let product = then_graph.apply(MatMul::default(), &[x, w])?;
    then_graph.output(product);
    let mut else_graph = Graph::new("else");
    let x = else_graph.input("x", DType::F32, vec![crate::shape::Dim::symbol("N"), 3.into()]);
    let relu = else_graph.apply(Unary { function: Function::Relu }, &[x])?;
    else_graph.output(relu);
    Ok(If { then_graph: Box::new(then_graph), else_graph: Box::new(else_graph) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::bind;
    use crate::shape::Dim;

    /// The example's If in a graph whose condition is `rows of x > 1`.
    fn by_shape() -> Graph {
        let mut graph = Graph::new("outer");
        let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 3.into()]);
        let w = graph.input("w", DType::F32, Shape::known(&[3, 3]));
        let count = graph.apply(Size, &[x]).unwrap();
        let three = graph.constant(Tensor::i64([], vec![3]));
        let condition = graph.apply(Compare { comparison: Comparison::Greater }, &[count, three]).unwrap();
        let y = graph.apply(product_or_relu().unwrap(), &[condition, x, w, x]).unwrap();
        graph.rename(y, "y");
        graph.output(y);
        graph
    }

    #[test]
    fn a_condition_on_shapes_is_decided_when_they_are_bound() {
        let graph = by_shape();
        assert_eq!(graph.value(graph.outputs()[0]).ty.to_string(), "f32[N, 3]");
        for (rows, op) in [(1, "Relu"), (2, "MatMul")] {
            let bound = bind(&graph, &[("x", &[rows, 3])]).unwrap();
            let names: Vec<_> = bound.nodes().iter().map(|n| n.op.name()).collect();
            assert_eq!(names, [op]);
            assert_eq!(bound.label(bound.outputs()[0]), "y");
        }
    }

    #[test]
    fn captures_that_the_branches_do_not_declare_are_refused() {
        let op = product_or_relu().unwrap();
        let types = [TensorType::new(DType::Bool, Shape::known(&[])), TensorType::new(DType::F32, Shape::known(&[2, 4]))];
        let x = Tensor::zeros(DType::F32, [2, 4]);
        for constant in [None, Some(&x)] {
            let capture = Some(Operand { ty: &types[1], constant });
            let operands = [Some(Operand { ty: &types[0], constant: None }), capture, capture, capture];
            let error = op.infer(Operands::new(&operands)).unwrap_err().to_string();
            assert!(error.contains("as the branch declares"), "{error}");
        }
    }
}
