//! From a node of a graph to loop nests: which convolutions and products it is, and where their operands lie.

use wattle_graph::ops::{Conv, ConvTranspose};
use wattle_graph::{GraphError, Model, Node, Op, Source, ValueId};

use crate::layer::Layer;

/// One nest of a node, with the tensors of the graph behind its two operands.
#[derive(Clone, Debug)]
pub(crate) struct Nest {
    /// The layer; its zeros are not known yet.
    pub layer: Layer,
    /// What streams through the array. A product inside an operator has none that the graph knows.
    pub iact: Option<Factor>,
    /// What stays in the PEs.
    pub weight: Option<Factor>,
}

/// An operand of a nest as a tensor of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    /// The tensor.
    pub value: ValueId,
    /// What stands for zero in a quantised tensor.
    pub zero: Option<ValueId>,
    /// How its elements lie.
    pub layout: Layout,
}

/// How the elements of a tensor fall onto the channels (and filters) of a nest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Layout {
    /// Maps `[N, channels, spatial..]`; a channel is met by `repeat` channels of the nest, one after the other.
    Maps {
        /// Taps along an axis that the nest has no loop for.
        repeat: usize,
    },
    /// Filters `[G M, C, taps..]`, as a mask has them.
    Filters,
    /// Matrices `[batch.., rows, columns]`, the inner extent along one of the last two axes.
    Matrices {
        /// Position of the inner axis, counted from the last (0 or 1).
        inner: usize,
        /// For each matrix, the groups of the nest that read it.
        groups: Vec<Vec<usize>>,
    },
}

impl Nest {
    /// Multiply-accumulates, exact.
    pub fn macs(&self) -> u64 {
        self.layer.bounds.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64))
    }
}

/// The nests of a node: none for what has none, two for attention.
pub(crate) fn nests(model: &Model, node: &Node, name: &str) -> Result<Vec<Nest>, GraphError> {
    let op = match &node.op {
        Op::Fused(fused) => &*fused.body,
        other => other,
    };
    let at = Operands { model, node };
    let found = match op {
        Op::Conv(conv) => at.convolution(conv, name, 0, 1, [None; 2])?,
        Op::ConvInteger(op) => at.convolution(&op.conv, name, 0, 1, [Some(2), Some(3)])?,
        Op::QLinearConv(op) => at.convolution(&op.conv, name, 0, 3, [Some(2), Some(5)])?,
        Op::ConvTranspose(op) => at.transposed(op, name)?,
        Op::Gemm(op) => at.product(name, [0, 1], [None; 2], [op.transpose_a, op.transpose_b])?,
        Op::MatMul(op) => at.product(name, [0, 1], [None; 2], [op.transpose_a, op.transpose_b])?,
        Op::MatMulInteger(_) => at.product(name, [0, 1], [Some(2), Some(3)], [false; 2])?,
        Op::QLinearMatMul(_) => at.product(name, [0, 3], [Some(2), Some(5)], [false; 2])?,
        Op::Attention(_) => return at.attention(name),
        _ => None,
    };
    Ok(found.into_iter().collect())
}

/// The operands of a node.
struct Operands<'a> {
    model: &'a Model,
    node: &'a Node,
}

/// One side of a matrix product.
struct Side {
    value: ValueId,
    zero: Option<ValueId>,
    extents: Vec<usize>,
    /// Position of the inner axis, counted from the last.
    inner: usize,
}

impl Side {
    /// Extents without the matrix.
    fn batch(&self) -> &[usize] {
        &self.extents[..self.extents.len().saturating_sub(2)]
    }

    /// Rows of the left or columns of the right matrix; a vector has one.
    fn outer(&self) -> usize {
        match self.extents.len() {
            0 | 1 => 1,
            n => self.extents[n - 2 + self.inner],
        }
    }

    fn inner(&self) -> usize {
        self.extents.len().checked_sub(1 + self.inner).map_or(1, |axis| self.extents[axis])
    }
}

impl Operands<'_> {
    fn id(&self, index: usize) -> Option<ValueId> {
        self.node.inputs.get(index).copied().flatten()
    }

    fn extents(&self, index: usize) -> Result<Vec<usize>, GraphError> {
        self.id(index).map_or(Ok(vec![]), |id| self.model.graph.extents(id))
    }

    fn output(&self) -> Result<Vec<usize>, GraphError> {
        self.model.graph.extents(self.node.outputs[0])
    }

    fn zero(&self, index: Option<usize>) -> Option<ValueId> {
        index.and_then(|i| self.id(i))
    }

    /// A convolution over one, two or three axes. The nest has loops for two: output planes along a third are
    /// images of their own, taps along it are channels, so activations shared by planes count for each.
    fn convolution(
        &self,
        conv: &Conv,
        name: &str,
        input: usize,
        weight: usize,
        zeros: [Option<usize>; 2],
    ) -> Result<Option<Nest>, GraphError> {
        let (Some(x_id), Some(w_id)) = (self.id(input), self.id(weight)) else { return Ok(None) };
        let (x, w) = (self.extents(input)?, self.extents(weight)?);
        let y = self.whole_output(conv, &x, &w)?;
        if !(3..=5).contains(&x.len()) || conv.groups == 0 {
            return Ok(None);
        }
        let deep = x.len() == 5;
        let (planes, taps) = if deep { (y[2], w[2]) } else { (1, 1) };
        let (axes, skipped) = if deep { (2, 1) } else { (x.len() - 2, 0) };
        let mut layer = Layer::conv(name, conv.groups, x[1] * taps, y[1], 1, 1, 1);
        layer.bounds[0] = x[0] * planes;
        for axis in 0..axes {
            let (to, from) = (2 - axes + axis, skipped + axis);
            layer.bounds[4 + to] = y[2 + from];
            layer.bounds[6 + to] = w[2 + from];
            layer.stride[to] = conv.sliding.strides[from];
            layer.dilation[to] = conv.sliding.dilations[from];
            layer.pad[to] = conv.sliding.pads(from, x[2 + from], w[2 + from]).0;
            layer.input[to] = x[2 + from];
        }
        let iact = Factor { value: x_id, zero: self.zero(zeros[0]), layout: Layout::Maps { repeat: taps } };
        let weight = Factor { value: w_id, zero: self.zero(zeros[1]), layout: Layout::Filters };
        Ok(Some(Nest { layer, iact: Some(iact), weight: Some(weight) }))
    }

    /// The output of the convolution itself: a fused pooling shrinks what the node gives.
    fn whole_output(&self, conv: &Conv, x: &[usize], w: &[usize]) -> Result<Vec<usize>, GraphError> {
        let y = self.output()?;
        if !matches!(&self.node.op, Op::Fused(fused) if fused.pool.is_some()) {
            return Ok(y);
        }
        let s = &conv.sliding;
        let extent = |axis: usize| {
            let (before, after) = s.pads(axis, x[2 + axis], w[2 + axis]);
            let room = (x[2 + axis] + before + after).saturating_sub(s.reach(axis, w[2 + axis]));
            room / s.strides[axis].max(1) + 1
        };
        Ok([x[0], w[0]].into_iter().chain((0..x.len().saturating_sub(2)).map(extent)).collect())
    }

    /// A transposed convolution: every activation meets all taps, so it is a 1x1 layer with a filter for each tap.
    /// Where windows overlap, their sums are added when they have left the array.
    fn transposed(&self, op: &ConvTranspose, name: &str) -> Result<Option<Nest>, GraphError> {
        let (Some(x_id), Some(w_id)) = (self.id(0), self.id(1)) else { return Ok(None) };
        let (x, w) = (self.extents(0)?, self.extents(1)?);
        if !(3..=4).contains(&x.len()) || op.groups == 0 {
            return Ok(None);
        }
        let filters: usize = w[1..].iter().product();
        let mut layer = Layer::conv(name, op.groups, x[1], filters * op.groups, 1, 1, 1);
        layer.bounds[0] = x[0];
        for axis in 0..x.len() - 2 {
            let to = 4 - x.len() + axis;
            layer.bounds[4 + to] = x[2 + axis];
            layer.input[to] = x[2 + axis];
        }
        let iact = Factor { value: x_id, zero: None, layout: Layout::Maps { repeat: 1 } };
        // [G C, M, taps..]: for each group a matrix of channels by filters.
        let groups = (0..op.groups).map(|g| vec![g]).collect();
        let weight = Factor { value: w_id, zero: None, layout: Layout::Matrices { inner: 1, groups } };
        Ok(Some(Nest { layer, iact: Some(iact), weight: Some(weight) }))
    }

    /// A matrix product. The side that is constant stays in the PEs, the right one if none or both are; batches of
    /// the other become rows, batches of both become groups.
    fn product(
        &self,
        name: &str,
        at: [usize; 2],
        zeros: [Option<usize>; 2],
        transposed: [bool; 2],
    ) -> Result<Option<Nest>, GraphError> {
        let mut sides = vec![];
        for side in 0..2 {
            let Some(value) = self.id(at[side]) else { return Ok(None) };
            let extents = self.extents(at[side])?;
            // The inner axis is the last of the left matrix and the last but one of the right.
            let inner = usize::from((side == 1) != transposed[side] && extents.len() > 1);
            sides.push(Side { value, zero: self.zero(zeros[side]), extents, inner });
        }
        let swap = is_constant(self.model, sides[0].value) && !is_constant(self.model, sides[1].value);
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return Ok(None) };
        let (stream, stays) = if swap { (right, left) } else { (left, right) };
        let results: usize = self.output()?.iter().product();
        Ok(matrices(name, results, &stream, &stays))
    }

    /// Scores `q k^T` and their product with v; the graph does not know the scores.
    fn attention(&self, name: &str) -> Result<Vec<Nest>, GraphError> {
        let side = |index: usize, inner: usize| -> Result<Option<Side>, GraphError> {
            let extents = self.extents(index)?;
            Ok(self.id(index).filter(|_| extents.len() == 4).map(|value| Side {
                value,
                zero: None,
                extents,
                inner,
            }))
        };
        let (Some(q), Some(k), Some(v)) = (side(0, 0)?, side(1, 0)?, side(2, 1)?) else {
            return Ok(vec![]);
        };
        let pairs = q.extents[..3].iter().product::<usize>() * k.outer();
        let scores = matrices(&format!("{name}.scores"), pairs, &q, &k);
        let weights = Side { extents: [&q.extents[..3], &[k.outer()]].concat(), ..q };
        let results = weights.extents[..3].iter().product::<usize>() * v.outer();
        let values = matrices(&format!("{name}.values"), results, &weights, &v);
        let values = values.map(|nest| Nest { iact: None, ..nest });
        Ok(scores.into_iter().chain(values).collect())
    }
}

/// The nest of a product whose `results` are rows of `stream` by columns of `stays`, over their batches.
fn matrices(name: &str, results: usize, stream: &Side, stays: &Side) -> Option<Nest> {
    let (inner, columns) = (stays.inner(), stays.outer());
    let matrices: usize = stays.batch().iter().product();
    if matrices == 0 || columns == 0 || stream.inner() != inner {
        return None;
    }
    // One matrix that meets many is one product with all their columns.
    let shared = stream.batch().iter().product::<usize>() == 1;
    let groups = if shared { 1 } else { matrices };
    let mut layer = Layer::gemm(name, results / columns / matrices, inner, columns * matrices / groups);
    layer.bounds[1] = groups;
    let group_of = |matrix: usize| if shared { 0 } else { matrix };
    let stays_in = (0..matrices).map(|matrix| vec![group_of(matrix)]).collect();
    let streams_in = readers(stream.batch(), stays.batch(), groups);
    let factor = |side: &Side, groups: Vec<Vec<usize>>| Factor {
        value: side.value,
        zero: side.zero,
        layout: Layout::Matrices { inner: side.inner, groups },
    };
    Some(Nest { layer, iact: Some(factor(stream, streams_in)), weight: Some(factor(stays, stays_in)) })
}

/// For each matrix of a streaming batch, the matrices of the other batch that it meets when both are broadcast.
fn readers(stream: &[usize], stays: &[usize], groups: usize) -> Vec<Vec<usize>> {
    let count: usize = stream.iter().product();
    if groups == 1 {
        return vec![vec![0]; count];
    }
    let rank = stream.len().max(stays.len());
    let padded = |batch: &[usize]| [vec![1; rank - batch.len()], batch.to_vec()].concat();
    let (stream, stays) = (padded(stream), padded(stays));
    let all: Vec<usize> = stream.iter().zip(&stays).map(|(a, b)| *a.max(b)).collect();
    let mut found: Vec<Vec<usize>> = vec![vec![]; count];
    for at in 0..all.iter().product::<usize>() {
        let (mut rest, mut from, mut to) = (at, 0, 0);
        let (mut from_step, mut to_step) = (1, 1);
        for axis in (0..rank).rev() {
            let index = rest % all[axis];
            rest /= all[axis];
            from += if stream[axis] == 1 { 0 } else { index * from_step };
            to += if stays[axis] == 1 { 0 } else { index * to_step };
            from_step *= stream[axis];
            to_step *= stays[axis];
        }
        if let Some(list) = found.get_mut(from)
            && !list.contains(&to)
        {
            list.push(to);
        }
    }
    found
}

/// Whether a tensor is the same in every run.
pub(crate) fn is_constant(model: &Model, id: ValueId) -> bool {
    match &model.graph.value(id).source {
        Source::Parameter(_) | Source::Constant(_) => true,
        Source::Input => false,
        Source::Node { node, .. } => {
            let inputs = &model.graph.node(*node).inputs;
            // What draws numbers or counts steps has no operands.
            !inputs.is_empty() && inputs.iter().flatten().all(|&i| is_constant(model, i))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use wattle_graph::ops::{Attention, ConvInteger, MatMul, Sliding, Transpose};
    use wattle_graph::{
        Backward, CustomOperator, DType, Example, Gradient, Graph, OpError, Operator, Parameters, Shape,
        Shapes, Tensor, TensorType, Tensors, ValueId, Work, interpret,
    };

    use super::*;
    use crate::layer::Dim;
    use crate::workload::Workload;

    /// Values of which about half are zero.
    fn noise(shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed;
        let values = (0..shape.iter().product::<usize>()).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % 2 * ((state >> 40) % 5 + 1)) as f32
        });
        Tensor::f32(shape.to_vec(), values.collect())
    }

    /// A graph of one node; operands with a tensor are constant.
    fn one(op: impl Into<Op>, operands: &[(&[usize], Option<Tensor>)]) -> Model {
        let mut graph = Graph::new("one");
        let mut ids: Vec<ValueId> = vec![];
        for (i, (shape, tensor)) in operands.iter().enumerate() {
            ids.push(match tensor {
                Some(t) => graph.constant(t.clone()),
                None => graph.input(format!("x{i}"), DType::F32, Shape::known(shape)),
            });
        }
        let y = graph.apply(op, &ids).unwrap();
        graph.output(y);
        Model::new(graph, Parameters::new())
    }

    fn layers(model: &Model) -> Vec<Layer> {
        let workload = Workload::from_model(model).unwrap();
        let counted = wattle_graph::costs(&model.graph, &model.parameters).unwrap();
        let all: u64 = counted.iter().map(|c| c.work.macs).sum();
        assert_eq!(workload.macs(), all as f64, "the nests do what is counted");
        assert!(workload.host.iter().all(|h| h.macs == 0), "{:?}", workload.host);
        workload.layers
    }

    #[test]
    fn three_axes_fold_into_images_and_channels() {
        let conv = Conv { sliding: Sliding::padded(3, 1), groups: 1 };
        let w = noise(&[5, 2, 3, 3, 3], 1);
        let found = layers(&one(conv, &[(&[2, 2, 4, 6, 7], None), (&[5, 2, 3, 3, 3], Some(w.clone()))]));
        assert_eq!(found[0].bounds, [8, 1, 5, 6, 6, 7, 3, 3]);
        assert_eq!(found[0].weight.density, w.density());
    }

    #[test]
    fn a_transposed_convolution_is_a_filter_for_each_tap() {
        let sliding = Sliding::strided(2, 0, 2);
        let op = ConvTranspose { sliding, groups: 2, output_padding: vec![0, 0] };
        // Group 1, channel 0 has no weights at all.
        let mut values = vec![1.0; 4 * 3 * 4];
        values[2 * 12..3 * 12].fill(0.0);
        let w = Tensor::f32([4, 3, 2, 2], values);
        let found = layers(&one(op, &[(&[1, 4, 5, 6], None), (&[4, 3, 2, 2], Some(w))]));
        assert_eq!(found[0].bounds, [1, 2, 12, 2, 5, 6, 1, 1]);
        assert_eq!(found[0].weight.per_channel, Some(vec![1.0, 1.0, 0.0, 1.0]));
    }

    #[test]
    fn a_constant_left_matrix_stays_and_the_right_one_streams() {
        let a = Tensor::f32([2, 3], vec![1., 0., 1., 1., 0., 0.]);
        let found = layers(&one(MatMul::default(), &[(&[2, 3], Some(a)), (&[4, 3, 5], None)]));
        let layer = &found[0];
        assert_eq!((layer.bound(Dim::M), layer.bound(Dim::C), layer.bound(Dim::Q)), (2, 3, 20));
        assert_eq!(layer.weight.per_channel, Some(vec![1.0, 0.0, 0.5]));
    }

    #[test]
    fn weights_that_the_graph_computes_are_counted_too() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", DType::F32, Shape::known(&[4, 3]));
        let w = graph.constant(Tensor::f32([2, 3], vec![0., 0., 1., 0., 1., 1.]));
        let turned = graph.apply(Transpose { permutation: vec![1, 0] }, &[w]).unwrap();
        let y = graph.apply(MatMul::default(), &[x, turned]).unwrap();
        graph.output(y);
        let found = layers(&Model::new(graph, Parameters::new()));
        assert_eq!(found[0].weight.per_channel, Some(vec![0.0, 0.5, 1.0]));
    }

    #[test]
    fn zero_points_are_what_counts_as_zero() {
        let mut graph = Graph::new("g");
        let byte =
            |values: &[i64], shape: &[usize]| Tensor::from_i64(DType::U8, shape.to_vec(), values.to_vec());
        let x = graph.input("x", DType::U8, Shape::known(&[1, 1, 2, 2]));
        let w = graph.constant(byte(&[7, 7, 0, 1, 9, 0, 0, 0], &[2, 1, 2, 2]));
        let (x_zero, w_zero) = (graph.constant(byte(&[3], &[])), graph.constant(byte(&[7, 0], &[2])));
        let conv = Conv { sliding: Sliding::padded(2, 0), groups: 1 };
        let y = graph.apply(ConvInteger { conv }, &[x, w, x_zero, w_zero]).unwrap();
        graph.output(y);
        let model = Model::new(graph, Parameters::new());
        let (mut workload, mut tally) = Workload::with_tally(&model).unwrap();
        // Filter 0 has its zero point 7 twice, filter 1 its 0 three times.
        assert_eq!(workload.layers[0].weight.density, 3.0 / 8.0);
        let fed = byte(&[3, 0, 3, 255], &[1, 1, 2, 2]);
        tally.count(&model, |id| (id == x).then_some(&fed));
        tally.apply(&mut workload);
        assert_eq!(workload.layers[0].iact.density, 0.5);
    }

    /// Runs a model and counts what it did.
    fn counted(model: &Model, feeds: &[(&str, &Tensor)]) -> Workload {
        let (mut workload, mut tally) = Workload::with_tally(model).unwrap();
        let mut watched = model.clone();
        watched.graph.set_outputs(tally.values());
        let feeds: BTreeMap<String, Tensor> =
            feeds.iter().map(|(n, t)| (n.to_string(), (*t).clone())).collect();
        let results = interpret(&watched.graph, &mut Parameters::new(), &feeds).unwrap();
        let of: BTreeMap<usize, Tensor> = tally.values().iter().map(|v| v.index()).zip(results).collect();
        tally.count(model, |id| of.get(&id.index()));
        tally.apply(&mut workload);
        workload
    }

    #[test]
    fn channels_of_activations_are_those_of_the_tensors() {
        let (x, w) = (noise(&[3, 4, 5, 6], 3), noise(&[2, 4, 1, 1], 4));
        let conv = Conv { sliding: Sliding::padded(2, 0), groups: 1 };
        let model = one(conv, &[(&[3, 4, 5, 6], None), (&[2, 4, 1, 1], Some(w))]);
        let layer = &counted(&model, &[("x0", &x)]).layers[0];
        let values = x.to_f64();
        for c in 0..4 {
            let alive = (0..3 * 30).filter(|i| values[(i / 30 * 4 + c) * 30 + i % 30] != 0.0).count();
            assert_eq!(layer.iact.of_channel(c), alive as f64 / 90.0);
        }
    }

    #[test]
    fn the_products_that_densities_predict_are_those_that_happen() {
        // Both sides activations, with batches that broadcast; effective products by channel are exact.
        for (a, b, transposed) in [
            (&[2, 3, 5, 4][..], &[2, 3, 4, 6][..], false),
            (&[2, 3, 5, 4], &[3, 6, 4], true),
            (&[3, 5, 4], &[2, 1, 4, 6], false),
            (&[5, 4], &[3, 4, 6], false),
            (&[3, 1, 5, 4], &[2, 4, 6], false),
        ] {
            let op = MatMul { transpose_a: false, transpose_b: transposed };
            let model = one(op.clone(), &[(a, None), (b, None)]);
            let (x, y) = (noise(a, 5), noise(b, 6));
            let workload = counted(&model, &[("x0", &x), ("x1", &y)]);
            let ones = |t: &Tensor| {
                let values = t.to_f64().iter().map(|&v| if v == 0.0 { 0.0 } else { 1.0 }).collect();
                Tensor::f32(t.shape().to_vec(), values)
            };
            let feeds = BTreeMap::from([("x0".to_string(), ones(&x)), ("x1".to_string(), ones(&y))]);
            let pairs: f64 =
                interpret(&model.graph, &mut Parameters::new(), &feeds).unwrap()[0].to_f64().iter().sum();
            let layer = &workload.layers[0];
            // Exact when every group meets its own activations, within the luck of small samples otherwise.
            let error = layer.effective_macs() / pairs - 1.0;
            let shared =
                layer.bound(Dim::G) == 1 || a.len() == b.len() && a[..a.len() - 2] == b[..b.len() - 2];
            assert!(error.abs() < if shared { 1e-9 } else { 0.15 }, "{a:?} {b:?}: {error}");
        }
    }

    #[test]
    fn attention_is_two_products_by_heads() {
        let op = Attention { scale: 0.5, causal: false };
        let shapes: [&[usize]; 3] = [&[2, 3, 5, 4], &[2, 3, 7, 4], &[2, 3, 7, 6]];
        let found = layers(&one(op, &shapes.map(|s| (s, None))));
        assert_eq!(found[0].bounds, [1, 6, 7, 4, 1, 5, 1, 1]);
        assert_eq!(found[1].bounds, [1, 6, 6, 7, 1, 5, 1, 1]);
    }

    /// Does what nobody here knows.
    #[derive(Debug)]
    struct Strange;

    impl Operator for Strange {
        fn name(&self) -> &'static str {
            "Strange"
        }
        fn infer(&self, inputs: wattle_graph::Operands<'_>) -> Result<Vec<TensorType>, OpError> {
            Ok(vec![inputs.ty(0, "x")?.clone()])
        }
        fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
            Ok(vec![inputs.get(0)?.clone()])
        }
        fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
            Ok(Gradient::NotDifferentiable("a test"))
        }
        fn work(&self, _: &Shapes<'_>) -> Work {
            Work::movement()
        }
    }

    impl CustomOperator for Strange {
        fn key(&self) -> String {
            "test.Strange".into()
        }
    }

    #[test]
    fn custom_operators_are_host_work_even_when_nobody_counts_them() {
        let model = one(Op::Custom(Arc::new(Strange)), &[(&[2, 3], None)]);
        let host = Workload::from_model(&model).unwrap().host;
        assert_eq!((host.len(), host[0].op.as_str(), host[0].reason), (1, "Strange", "custom operator"));
    }

    /// The graph of an example; `None` where an operand must be of a kind that a graph cannot feed.
    fn of_example(example: &Example) -> Option<Model> {
        let mut graph = Graph::new("example");
        let mut ids = vec![];
        for (i, operand) in example.inputs.iter().enumerate() {
            ids.push(operand.as_ref().map(|t| {
                if example.constant.contains(&i) || i > 0 {
                    graph.constant(t.clone())
                } else {
                    graph.input("x", t.dtype(), Shape::known(t.shape()))
                }
            }));
        }
        let results = graph.apply_all(example.op.clone(), &ids, "node").ok()?;
        results.into_iter().for_each(|r| graph.output(r));
        Some(Model::new(graph, Parameters::new()))
    }

    #[test]
    fn every_operator_that_multiplies_is_a_nest_or_host_work_for_all_its_products() {
        for registration in wattle_graph::ops::ALL {
            for example in (registration.examples)() {
                let Some(model) = of_example(&example) else { continue };
                // Some results have shapes that only a run knows.
                let Ok(costs) = wattle_graph::costs(&model.graph, &model.parameters) else { continue };
                let counted: u64 = costs.iter().map(|c| c.work.macs).sum();
                let workload = Workload::from_model(&model).unwrap();
                let host: u64 = workload.host.iter().map(|h| h.macs).sum();
                assert_eq!(workload.macs() as u64 + host, counted, "{}", registration.name);
            }
        }
    }
}
