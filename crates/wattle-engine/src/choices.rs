//! What whoever makes a plan may leave to it or decide: memory, rewrites, what is frozen, sparse kernels, batches in parts.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use wattle_graph::Graph;
use wattle_kernels::Cpu;

use crate::registry::Registry;
use crate::timings::Timings;

/// What a plan is made for.
#[derive(Clone)]
pub struct PlanOptions {
    /// Instruction set and threads.
    pub cpu: Arc<Cpu>,
    /// Whether rewrites (folding, fusion) may change the graph; off, every node runs as written.
    pub rewrite: bool,
    /// Which parameters become part of the plan.
    pub freeze: Freeze,
    /// Largest arena in bytes; parameters that a plan reads from its store are not counted.
    pub memory_limit: usize,
    /// Whether layers whose weights are mostly zero may run on sparse kernels.
    pub sparse: Sparse,
    /// Times of kernels on this machine, to decide what the cost model leaves in doubt; what is missing is timed while
    /// planning. Without it the model alone decides, and a plan is the same wherever it is made.
    pub timings: Option<Arc<Timings>>,
    /// Whether a batch may be run part by part.
    pub batch: BatchSplit,
    /// Kernels of custom operators.
    pub kernels: Registry,
}

impl PlanOptions {
    /// The best instruction set of this machine, all rewrites, everything frozen that can be, an arena of at most 16 GiB.
    pub fn new(cpu: Arc<Cpu>) -> PlanOptions {
        let (freeze, sparse, batch) = (Freeze::All, Sparse::Auto, BatchSplit::Auto);
        let kernels = Registry::new();
        PlanOptions {
            cpu,
            rewrite: true,
            freeze,
            memory_limit: 16 << 30,
            sparse,
            timings: None,
            batch,
            kernels,
        }
    }
}

/// Which parameters become constants of a plan: folded, packed, and no longer read from the store. What a graph assigns to
/// is never frozen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Freeze {
    /// Every parameter: a network that is trained no more.
    #[default]
    All,
    /// None: every run sees what the store holds, such as a policy that acts between updates.
    None,
    /// All but those of the named tensors.
    Except(BTreeSet<String>),
}

impl Freeze {
    /// The tensors whose parameters become constants of a plan of `graph`.
    pub fn frozen<'g>(&self, graph: &'g Graph) -> BTreeSet<&'g str> {
        if *self == Freeze::None {
            return BTreeSet::new();
        }
        let tensor = |id| graph.parameter_of(id).map(|p| p.tensor.as_str());
        let assigned: HashSet<&str> = graph.assignments().iter().filter_map(|a| tensor(a.target)).collect();
        let excepted = |name: &str| matches!(self, Freeze::Except(names) if names.contains(name));
        let names = graph.parameters().filter_map(tensor);
        names.filter(|name| !assigned.contains(name) && !excepted(name)).collect()
    }
}

/// How a network for inference runs a batch whose images no operator mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BatchSplit {
    /// In parts that stay in the caches, where that saves more than reading the weights for each part costs.
    #[default]
    Auto,
    /// Layer by layer, all images at once.
    Whole,
    /// In so many parts, if the batch can be divided by them: for tests and comparisons.
    Parts(usize),
}

/// When a layer runs on a sparse kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Sparse {
    /// Where the cost model finds it faster.
    #[default]
    Auto,
    /// Nowhere: for comparisons.
    Never,
    /// Wherever a sparse kernel exists: for tests.
    Always,
}
