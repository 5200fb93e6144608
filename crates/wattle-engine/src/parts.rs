//! Batches in parts: a whole network for a few images, then for the next few, so that activations stay in the caches.

use wattle_graph::{Graph, GraphError, NodeId, Tensor, ValueId, rewrite};
use wattle_kernels::arena::Span;

use crate::choices::BatchSplit;
use crate::plan::{Plan, Port};

/// What a step may read and write before a batch is worth cutting, and half of which one part's may take: the second-level
/// cache of a core, as a number, since the cut decides the bits of results.
const CACHE: usize = 1 << 20;
/// Weights with fewer non-zeros than this are stored by them, at [`SPARSE_BYTES`] each.
const SPARSE: f64 = 0.3;
const SPARSE_BYTES: usize = 6;

/// A plan that runs part by part: its steps and constants, and the arena that they are in, belong to one part.
pub(crate) struct Parts {
    /// How many parts a batch has.
    pub count: usize,
    /// Where the inputs and outputs of a part are, in the arena of the part.
    pub inputs: Vec<Span>,
    pub outputs: Vec<Span>,
    /// Size of the arena that holds the inputs and outputs of the whole batch.
    pub border_bytes: usize,
}

/// The graph of one part and how many there are, where that is wanted and possible.
pub(crate) fn choose(graph: &Graph, batch: BatchSplit) -> Result<Option<(usize, Graph)>, GraphError> {
    let count = match batch {
        BatchSplit::Whole => return Ok(None),
        BatchSplit::Parts(count) => count,
        // Where shapes are not known, planning says so itself.
        BatchSplit::Auto => wanted(graph).unwrap_or(1),
    };
    if count < 2 {
        return Ok(None);
    }
    Ok(rewrite::part_of_batch(graph, count)?.ok().map(|part| (count, part)))
}

/// How many parts would be best: the fewest that let every step stay in the second-level cache, or one for each image, unless
/// reading the weights once for every part is more than is saved.
fn wanted(graph: &Graph) -> Result<usize, GraphError> {
    let first = graph.inputs().first().map(|&i| graph.extents(i)).transpose()?;
    let batch = first.and_then(|extents| extents.first().copied()).unwrap_or(1);
    let (mut largest, mut moved, mut weights) = (0, 0, 0);
    for (id, _) in graph.node_ids() {
        let (activations, constants) = traffic(graph, id)?;
        largest = activations.max(largest);
        moved += activations;
        weights += constants;
    }
    if batch < 2 || largest <= CACHE {
        return Ok(1);
    }
    let fits = |parts: &usize| batch.is_multiple_of(*parts) && largest / parts <= CACHE / 2;
    let parts = (2..batch).find(fits).unwrap_or(batch);
    Ok(if weights * (parts - 1) < moved { parts } else { 1 })
}

/// Bytes of activations that a node reads and writes, and of the constants it reads.
fn traffic(graph: &Graph, id: NodeId) -> Result<(usize, usize), GraphError> {
    let node = graph.node(id);
    let bytes = |value: ValueId| -> Result<usize, GraphError> {
        Ok(graph.extents(value)?.iter().product::<usize>() * graph.value(value).ty.dtype.size())
    };
    let (mut activations, mut weights) = (0, 0);
    for &value in node.inputs.iter().flatten() {
        match graph.constant_of(value) {
            Some(tensor) => weights += stored(tensor, bytes(value)?),
            None => activations += bytes(value)?,
        }
    }
    for &value in &node.outputs {
        activations += bytes(value)?;
    }
    Ok((activations, weights))
}

/// Bytes that a constant takes as kernels store it.
fn stored(tensor: &Tensor, bytes: usize) -> usize {
    match tensor.as_f32() {
        Some(values) => {
            let kept = values.iter().filter(|x| **x != 0.0).count();
            if (kept as f64) < SPARSE * values.len() as f64 { kept * SPARSE_BYTES } else { bytes }
        }
        None => bytes,
    }
}

impl Plan {
    /// Makes a plan for a part the plan of a whole batch.
    pub(crate) fn of_parts(mut self, graph: Graph, count: usize) -> Plan {
        let mut border_bytes = 0;
        let mut border = |ports: &mut Vec<Port>| -> Vec<Span> {
            let spans = ports.iter_mut().map(|port| {
                let whole = Span::in_arena(border_bytes, port.span.bytes * count);
                port.extents[0] *= count;
                border_bytes = whole.end().next_multiple_of(crate::memory::ALIGNMENT);
                std::mem::replace(&mut port.span, whole)
            });
            spans.collect()
        };
        let (inputs, outputs) = (border(&mut self.inputs), border(&mut self.outputs));
        for step in &mut self.steps {
            // Nodes without a name are called by a value's number, which the whole graph may count otherwise.
            let unnamed = step.info.node.map(|id| graph.node(id)).filter(|node| node.name.is_empty());
            if let Some(node) = unnamed {
                step.info.name = graph.label(node.outputs[0]);
            }
        }
        self.parts = Some(Parts { count, inputs, outputs, border_bytes });
        self.graph = graph;
        self
    }

    /// How many parts the batch is run in, one after the other or each on a thread of its own; 1 where it is run whole.
    pub fn parts(&self) -> usize {
        self.parts.as_ref().map_or(1, |parts| parts.count)
    }

    /// How many parts run at the same time, each on one thread and with an arena of its own.
    pub(crate) fn lanes(&self) -> usize {
        let threads = self.cpu.threads.count();
        if self.parts() >= threads { threads } else { 1 }
    }
}
