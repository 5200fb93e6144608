//! A part of a batch: the same graph for fewer images at a time, where no operator looks at two images at once.

use crate::error::GraphError;
use crate::graph::{Graph, Node, ValueId};
use crate::ops::{Fused, Op};
use crate::shape::{Shape, normalize_axis};
use crate::tensor::Tensor;

use super::Rebuild;

/// The graph for one of `parts` equal parts of its batch, node for node; or why there is none.
///
/// The batch is the first extent of every input. Part i of each value is the i-th of `parts` runs of its elements: every
/// operator must make part i of its results from part i of its operands and from constants. Operators are known one by
/// one, and those not listed here are refused.
///
/// # Errors
/// As [`Graph::apply`], when an operator refuses its smaller operands.
pub fn part_of_batch(graph: &Graph, parts: usize) -> Result<Result<Graph, String>, GraphError> {
    let Some(batch) = batch_of(graph) else {
        return Ok(Err("inputs have no known first extent in common".into()));
    };
    if parts == 0 || !batch.is_multiple_of(parts) {
        return Ok(Err(format!("a batch of {batch} has no {parts} equal parts")));
    }
    let mut cut = vec![false; graph.values().len()];
    for input in graph.inputs() {
        cut[input.index()] = true;
    }
    for node in graph.nodes() {
        let view = View { graph, node, cut: &cut, batch };
        if !view.keeps_images_apart() {
            return Ok(Err(format!("{} `{}` may mix images", node.op.name(), node.name)));
        }
        for output in &node.outputs {
            cut[output.index()] = true;
        }
    }
    if let Some(&id) = graph.outputs().iter().find(|o| !cut[o.index()]) {
        return Ok(Err(format!("output `{}` is a constant", graph.label(id))));
    }
    rebuilt(graph, parts)
}

/// The first extent that all inputs have, at least 2.
fn batch_of(graph: &Graph) -> Option<usize> {
    let mut firsts = graph.inputs().iter().map(|&i| graph.extents(i).ok()?.first().copied());
    let first = firsts.next()??;
    (first >= 2 && firsts.all(|f| f == Some(first))).then_some(first)
}

fn rebuilt(graph: &Graph, parts: usize) -> Result<Result<Graph, String>, GraphError> {
    let smaller = |id: ValueId| -> Result<Vec<usize>, GraphError> {
        let mut extents = graph.extents(id)?;
        extents[0] /= parts;
        Ok(extents)
    };
    let mut shapes = vec![];
    for &id in graph.inputs() {
        shapes.push(smaller(id)?);
    }
    let mut shapes = shapes.into_iter();
    let mut rebuild = Rebuild::with_inputs(graph, |to, id| {
        let value = graph.value(id);
        to.input(value.name.clone(), value.ty.dtype, Shape::known(&shapes.next().unwrap_or_default()))
    });
    for node in graph.nodes() {
        let mut operands = rebuild.operands(node);
        if let Op::Reshape(_) = node.op {
            let shape: Vec<i64> = smaller(node.outputs[0])?.iter().map(|&n| n as i64).collect();
            operands[1] = Some(rebuild.to.constant(Tensor::ints(&shape)));
        }
        let outputs = rebuild.to.apply_all(node.op.clone(), &operands, &node.name)?;
        for (&old, new) in node.outputs.iter().zip(outputs) {
            if rebuild.to.value(new).ty.shape != Shape::known(&smaller(old)?) {
                return Ok(Err(format!("{} `{}` does not shrink with its batch", node.op.name(), node.name)));
            }
            rebuild.take_name(old, new);
        }
    }
    Ok(Ok(rebuild.finish()?))
}

/// A node whose operands are cut into parts, or constant.
struct View<'a> {
    graph: &'a Graph,
    node: &'a Node,
    cut: &'a [bool],
    batch: usize,
}

impl View<'_> {
    fn extents(&self, id: ValueId) -> Vec<usize> {
        self.graph.extents(id).unwrap_or_default()
    }

    fn input(&self, index: usize) -> Option<ValueId> {
        self.node.inputs.get(index).copied().flatten()
    }

    /// Whether operand `index` is cut into parts.
    fn is_cut(&self, index: usize) -> bool {
        self.input(index).is_some_and(|id| self.cut[id.index()])
    }

    /// Whether all operands from `first` on are constants.
    fn constant_from(&self, first: usize) -> bool {
        (first..self.node.inputs.len()).all(|i| !self.is_cut(i))
    }

    /// Whether `axis` of operand 0 is another than the first.
    fn is_inner(&self, axis: i64) -> bool {
        let rank = self.input(0).map_or(0, |id| self.extents(id).len());
        normalize_axis(axis, rank).is_some_and(|axis| axis > 0)
    }

    /// Whether operand `index` meets a result of these extents element by element: cut along the same axis, or constant
    /// and the same for every image.
    fn meets(&self, index: usize, result: &[usize]) -> bool {
        let Some(id) = self.input(index) else { return true };
        let extents = self.extents(id);
        if self.cut[id.index()] {
            extents.len() == result.len() && extents[0] == result[0]
        } else {
            extents.len() < result.len() || extents.first() == Some(&1)
        }
    }

    fn all_meet(&self) -> bool {
        let result = self.extents(self.node.outputs[0]);
        let count = self.node.inputs.len();
        (0..count).any(|i| self.is_cut(i)) && (0..count).all(|i| self.meets(i, &result))
    }

    /// Whether results have an axis to be cut along, and their parts come from parts of the same number.
    fn keeps_images_apart(&self) -> bool {
        let whole = |&o: &ValueId| self.extents(o).first().is_some_and(|n| n.is_multiple_of(self.batch));
        self.node.outputs.iter().all(whole) && self.rule()
    }

    fn rule(&self) -> bool {
        match &self.node.op {
            Op::Identity(_) | Op::Not(_) | Op::Unary(_) | Op::Cast(_) => self.is_cut(0),
            Op::Binary(_) | Op::Compare(_) | Op::Where(_) => self.all_meet(),
            Op::Clip(_) | Op::Conv(_) | Op::ConvTranspose(_) | Op::GlobalPool(_) => self.first_alone(),
            Op::Pool(_) => self.first_alone() && self.node.outputs.len() == 1,
            Op::BatchNormalization(op) => self.first_alone() && !op.training,
            Op::LayerNormalization(op) => self.first_alone() && self.is_inner(op.axis),
            Op::Softmax(op) => self.first_alone() && self.is_inner(op.axis),
            Op::Reduce(op) => {
                self.first_alone() && !op.axes.is_empty() && op.axes.iter().all(|&axis| self.is_inner(axis))
            }
            Op::Transpose(op) => {
                let rank = self.input(0).map_or(0, |id| self.extents(id).len());
                self.is_cut(0) && op.order(rank).is_ok_and(|order| order.first() == Some(&0))
            }
            // The order of elements is kept, and so are runs of them.
            Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => self.first_alone(),
            Op::Concat(op) => (0..self.node.inputs.len()).all(|i| self.is_cut(i)) && self.is_inner(op.axis),
            Op::Split(op) => self.first_alone() && self.is_inner(op.axis),
            Op::Gather(op) => !self.is_cut(0) && self.is_cut(1) && op.axis == 0,
            Op::Gemm(op) => self.first_alone() && !op.transpose_a && self.meets_result(2),
            Op::MatMul(op) => !op.transpose_a && self.is_product(),
            Op::Attention(_) => {
                (0..3).all(|i| self.is_cut(i)) && {
                    let q = self.input(0).map(|id| self.extents(id)).unwrap_or_default();
                    (1..self.node.inputs.len()).all(|i| self.meets(i, &q))
                }
            }
            Op::Fused(op) => self.is_fused(op),
            _ => false,
        }
    }

    /// Operand 0 is cut and the others are constants, which have no axis of images.
    fn first_alone(&self) -> bool {
        self.is_cut(0) && self.constant_from(1)
    }

    fn meets_result(&self, index: usize) -> bool {
        self.meets(index, &self.extents(self.node.outputs[0]))
    }

    /// A product of cut rows with one constant matrix, or of two stacks of matrices that are cut alike.
    fn is_product(&self) -> bool {
        let (Some(a), Some(b)) = (self.input(0), self.input(1)) else { return false };
        let (a, b) = (self.extents(a), self.extents(b));
        let stacked = a.len() == b.len() && a.len() > 2 && a[0] == b[0];
        self.is_cut(0) && if self.is_cut(1) { stacked } else { b.len() == 2 && a.len() >= 2 }
    }

    /// The product's own rule; a bias is the same for all images, and a residual of the result's shape is cut.
    fn is_fused(&self, op: &Fused) -> bool {
        let own = match &*op.body {
            Op::Conv(_) | Op::ConvTranspose(_) => self.is_cut(0) && (1..op.operands).all(|i| !self.is_cut(i)),
            Op::Gemm(body) => {
                let others = (1..op.operands).all(|i| !self.is_cut(i));
                self.is_cut(0) && others && !body.transpose_a && (op.operands < 3 || self.meets_result(2))
            }
            Op::MatMul(body) => !body.transpose_a && self.is_product(),
            _ => false,
        };
        own && op.bias_index().is_none_or(|i| !self.is_cut(i))
            && op.residual_index().is_none_or(|i| self.is_cut(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Example;
    use crate::ops::{
        BatchNormalization, Binary, BinaryFunction, CumSum, Identity, MatMul, Reduce, Reduction, Reshape,
        Softmax, Transpose,
    };
    use crate::tensor::DType;

    /// One node over `x [4, 6, 2]` and constants.
    fn node(op: impl Into<Op>, constants: &[Tensor]) -> Graph {
        let mut graph = Graph::new("node");
        let x = graph.input("x", DType::F32, Shape::known(&[4, 6, 2]));
        let constants: Vec<_> = constants.iter().map(|c| graph.constant(c.clone())).collect();
        let operands: Vec<_> = std::iter::once(x).chain(constants).collect();
        let y = graph.apply(op, &operands).expect("operands fit");
        graph.set_outputs(vec![y]);
        graph
    }

    fn part(graph: &Graph, parts: usize) -> Result<Graph, String> {
        part_of_batch(graph, parts).expect("operators accept their operands")
    }

    #[test]
    fn a_part_has_the_nodes_of_the_whole_and_smaller_values() {
        let add = Binary { function: BinaryFunction::Add };
        let reshape = Reshape { allow_zero: false };
        let reduce = |axis| Reduce { kind: Reduction::Mean, axes: vec![axis], keep_dims: false };
        for graph in [
            node(add.clone(), &[Example::noise(&[6, 2], 1)]),
            node(add, &[Example::noise(&[1, 6, 1], 1)]),
            node(reshape.clone(), &[Tensor::ints(&[8, 6])]),
            node(reshape, &[Tensor::ints(&[4, -1])]),
            node(reduce(2), &[]),
            node(Softmax { axis: -1, log: true }, &[]),
            node(Transpose { permutation: vec![0, 2, 1] }, &[]),
            node(MatMul::default(), &[Example::noise(&[2, 3], 1)]),
        ] {
            let whole = graph.extents(graph.outputs()[0]).unwrap();
            for parts in [2, 4] {
                let part = part(&graph, parts).unwrap();
                part.check().unwrap();
                let extents = part.extents(part.outputs()[0]).unwrap();
                assert_eq!((extents[0] * parts, &extents[1..]), (whole[0], &whole[1..]), "{graph}");
            }
        }
    }

    #[test]
    fn what_mixes_images_is_refused_by_name() {
        let add = Binary { function: BinaryFunction::Add };
        let statistics = [(); 4].map(|()| Tensor::f32([6], vec![1.0; 6]));
        let norm = |training| BatchNormalization { epsilon: 1e-5, momentum: 0.9, training };
        for graph in [
            // A constant with an axis of images.
            node(add, &[Example::noise(&[4, 6, 2], 1)]),
            node(Softmax { axis: 0, log: false }, &[]),
            node(Reduce { kind: Reduction::Sum, axes: vec![0], keep_dims: true }, &[]),
            node(Reduce { kind: Reduction::Max, axes: vec![], keep_dims: true }, &[]),
            node(Reshape { allow_zero: false }, &[Tensor::ints(&[2, 24])]),
            node(Reshape { allow_zero: false }, &[Tensor::ints(&[6, 8])]),
            node(Transpose { permutation: vec![1, 0, 2] }, &[]),
            node(norm(true), &statistics),
            node(CumSum { axis: 1, exclusive: false, reverse: false }, &[]),
        ] {
            let refusal = part(&graph, 2).unwrap_err();
            assert!(refusal.contains("may mix images"), "{refusal}");
        }
        assert!(part(&node(norm(false), &statistics), 2).is_ok());
        assert_eq!(part(&node(Identity, &[]), 3).unwrap_err(), "a batch of 4 has no 3 equal parts");
    }

    #[test]
    fn a_product_of_two_inputs_is_cut_only_where_both_are_stacks() {
        let product = |a: &[usize], b: &[usize]| {
            let mut graph = Graph::new("product");
            let a = graph.input("a", DType::F32, Shape::known(a));
            let b = graph.input("b", DType::F32, Shape::known(b));
            let y = graph.apply(MatMul::default(), &[a, b]).unwrap();
            graph.set_outputs(vec![y]);
            part(&graph, 2)
        };
        assert!(product(&[4, 3, 4], &[4, 4, 5]).is_ok());
        assert!(product(&[4, 4], &[4, 4]).is_err());
    }
}
