//! Masked parameters of a training step that are stored by their kept elements alone.
//!
//! A mask is constant while a plan lives, so the plan can hold a vector of the kept values where the graph says a
//! whole tensor: for the parameter, its gradient, its optimiser state, and what the update makes of them. Kernels that
//! know the pattern read the vector; for all others it is scattered to the whole tensor, which the session also
//! shows to whoever reads or writes parameters.

use std::collections::HashMap;
use std::sync::Arc;

use wattle_graph::ops::Conv;
use wattle_graph::{DType, Graph, Mask, Node, Op, Source, ValueId};
use wattle_kernels::Cpu;
use wattle_kernels::sparse::{Cut, SparseWeights};

use crate::bind;
use crate::choices::Sparse;
use crate::error::EngineError;
use crate::kernel::{Io, Kernel};
use crate::sparse_cost::{Layer, Training};
use crate::store::Facts;

/// The kept elements of a tensor, read as a matrix of its first axis by all others.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The pattern, without values; its order is that of the stored vectors.
    pub pattern: SparseWeights,
    /// Estimates behind the choice.
    pub why: String,
}

impl Kept {
    /// Kept elements.
    pub fn len(&self) -> usize {
        self.pattern.positions().len()
    }

    /// Whether both patterns keep the same elements in the same order.
    pub fn alike(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || self.pattern.positions() == other.pattern.positions()
    }

    /// Kept elements of all, 0 to 1.
    pub fn density(&self) -> f64 {
        self.len() as f64 / (self.pattern.rows() * self.pattern.columns()).max(1) as f64
    }

    /// The kept elements of a whole tensor.
    pub fn gather<T: Copy>(&self, whole: &[T], kept: &mut [T]) {
        for (to, &from) in kept.iter_mut().zip(self.pattern.positions()) {
            *to = whole[from as usize];
        }
    }

    /// The whole tensor, zero where nothing is kept.
    pub fn scatter<T: Copy + Default>(&self, kept: &[T], whole: &mut [T]) {
        whole.fill(T::default());
        for (&from, &to) in kept.iter().zip(self.pattern.positions()) {
            whole[to as usize] = from;
        }
    }
}

/// The values of a training graph that are stored by kept elements, and the pattern of each.
///
/// A masked parameter is stored so where the three products of its layer are modelled faster on non-zeros (or
/// wherever they can be, with [`Sparse::Always`]), and nothing but these products and its update reads it.
pub(crate) fn find(graph: &Graph, facts: &Facts, cpu: &Cpu, sparse: Sparse) -> HashMap<ValueId, Arc<Kept>> {
    let mut found = HashMap::new();
    if sparse == Sparse::Never {
        return found;
    }
    for assignment in graph.assignments() {
        let Some(update) = producer(graph, assignment.value) else { continue };
        let updates = matches!(update.op, Op::SgdUpdate(_) | Op::AdamUpdate(_));
        if !updates || update.inputs[0] != Some(assignment.target) {
            continue;
        }
        let Some(kept) = worth_keeping(graph, facts, cpu, sparse, assignment.target, update) else {
            continue;
        };
        let kept = Arc::new(kept);
        let ty = &graph.value(assignment.target).ty;
        let alike = update.inputs.iter().flatten().filter(|&&id| graph.value(id).ty == *ty);
        for &id in alike.chain(&update.outputs) {
            found.insert(id, kept.clone());
        }
    }
    found
}

fn producer(graph: &Graph, id: ValueId) -> Option<&Node> {
    match graph.value(id).source {
        Source::Node { node, .. } => Some(graph.node(node)),
        _ => None,
    }
}

fn readers(graph: &Graph, id: ValueId) -> impl Iterator<Item = &Node> {
    graph.nodes().iter().filter(move |n| n.inputs.contains(&Some(id)))
}

fn worth_keeping(
    graph: &Graph,
    facts: &Facts,
    cpu: &Cpu,
    sparse: Sparse,
    target: ValueId,
    update: &Node,
) -> Option<Kept> {
    let parameter = graph.parameter_of(target).filter(|p| p.window.is_full())?;
    let mask = facts.get(&parameter.tensor)?.mask.as_deref()?;
    let windows = graph.parameters().filter_map(|id| graph.parameter_of(id));
    if windows.filter(|p| p.tensor == parameter.tensor).count() != 1 {
        return None;
    }
    let gradient = update.inputs[1]?;
    let alone = readers(graph, gradient).count() == 1 && !graph.outputs().contains(&gradient);
    if graph.value(target).ty.dtype != DType::F32 || !alone || graph.outputs().contains(&target) {
        return None;
    }
    let extents = graph.extents(target).ok()?;
    if mask.len() < 2 || mask.len() > u32::MAX as usize || extents.len() < 2 {
        return None;
    }
    let mut training = Training::default();
    let made = products_of(graph, producer(graph, gradient)?, gradient)?;
    training.add_sampled(&made.keeping(mask.count()), cpu.isa.lanes());
    for reader in readers(graph, target).filter(|&node| !std::ptr::eq(node, update)) {
        if reader.inputs.iter().filter(|&&i| i == Some(target)).count() != 1 {
            return None;
        }
        training.add_product(&products_of(graph, reader, target)?.keeping(mask.count()), cpu.isa.lanes());
    }
    training.add_update(mask.len(), mask.count(), update.outputs.len());
    if sparse == Sparse::Auto && !training.is_faster() {
        return None;
    }

    Some(Kept { pattern: pattern(&extents, mask, cpu), why: training.to_string() })
}

fn pattern(extents: &[usize], mask: &Mask, cpu: &Cpu) -> SparseWeights {
    let (rows, columns) = (extents[0], extents[1..].iter().product());
    let cut = Cut::unstructured(cpu.threads.count());
    SparseWeights::pattern(rows, columns, |row, column| mask.get(row * columns + column), cut)
}

/// The size of the product that `node` does with the weight `weight`, as an operand or as its result (a gradient);
/// `None` where no kernel knows patterns.
fn products_of(graph: &Graph, node: &Node, weight: ValueId) -> Option<Layer> {
    let extents =
        |index: usize| node.inputs.get(index).copied().flatten().map(|id| graph.extents(id).ok())?;
    let result = graph.extents(node.outputs[0]).ok()?;
    let is_weight = |index: usize| node.inputs.get(index) == Some(&Some(weight));
    let is_result = node.outputs[0] == weight;
    let op = match &node.op {
        Op::Fused(fused) if fused.pool.is_none() => &*fused.body,
        other => other,
    };
    let (transpose_a, transpose_b) = match op {
        Op::Gemm(g) if g.alpha == 1.0 => (g.transpose_a, g.transpose_b),
        Op::MatMul(m) => (m.transpose_a, m.transpose_b),
        Op::Conv(op) if is_weight(1) => return convolution(op, &extents(0)?, &extents(1)?),
        Op::ConvInputGradient(op) if is_weight(1) => {
            return convolution(&op.conv, &op.input_shape, &extents(1)?);
        }
        Op::ConvWeightGradient(op) if is_result => return convolution(&op.conv, &extents(0)?, &result),
        _ => return None,
    };
    let (a, b) = (extents(0)?, extents(1)?);
    if is_result {
        let [[inner, rows], [_, columns]] =
            [<[usize; 2]>::try_from(a).ok()?, <[usize; 2]>::try_from(b).ok()?];
        let plain = transpose_a && !transpose_b && node.inputs.get(2).copied().flatten().is_none();
        return plain.then(|| Layer::of_product(inner, rows, columns));
    }
    let [first, second] = <[usize; 2]>::try_from(b).ok()?;
    let (columns, rows) = if transpose_b { (second, first) } else { (first, second) };
    let positions = a.iter().product::<usize>() / columns.max(1);
    (is_weight(1) && !transpose_a).then(|| Layer::of_product(positions, rows, columns))
}

fn convolution(op: &Conv, x: &[usize], w: &[usize]) -> Option<Layer> {
    let shape = bind::conv_shape(op, x, w)?;
    (shape.groups == 1).then(|| Layer::of_conv_shape(&shape))
}

/// The step that brings kept elements to their places in the whole tensor, or back.
pub(crate) fn spread(kept: &Arc<Kept>, whole: bool) -> Box<dyn Kernel> {
    Box::new(Spread { kept: kept.clone(), whole })
}

struct Spread {
    kept: Arc<Kept>,
    whole: bool,
}

impl Kernel for Spread {
    fn name(&self) -> String {
        if self.whole { "layout-whole".into() } else { "layout-kept".into() }
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (from, to) = (io.input::<f32>(0)?, io.output::<f32>(0)?);
        if self.whole {
            self.kept.scatter(from, to)
        } else {
            self.kept.gather(from, to)
        }
        Ok(())
    }
}
