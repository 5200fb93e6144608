//! A plan: steps in order, each with its kernel and its places in memory.

use std::fmt;
use std::sync::Arc;

use wattle_graph::rewrite::{self, LogEntry};
use wattle_graph::{DType, Graph, GraphError, NodeId, Parameter, Parameters, Role, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Home, Span};

use crate::assign::Copy;
use crate::bytes;
use crate::choices::{Freeze, PlanOptions};
use crate::error::EngineError;
use crate::kept::Kept;
use crate::kernel::{Inside, Kernel};
use crate::layout::Layout;
use crate::parts::{self, Parts};
use crate::planner::Planner;
use crate::store::{Needed, Store};

/// What a plan says of one of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// The node it computes; `None` for a change of layout.
    pub node: Option<NodeId>,
    /// Name of the node.
    pub name: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Why this kernel, where there was a choice.
    pub why: Option<String>,
}

pub(crate) struct Step {
    pub info: StepInfo,
    pub op: &'static str,
    pub kernel: Box<dyn Kernel>,
    pub inputs: Vec<Option<Span>>,
    pub outputs: Vec<Span>,
    pub scratch: Span,
    /// Whether waking other threads would take longer than they could save.
    pub alone: bool,
}

/// A tensor at the border of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub name: String,
    pub dtype: DType,
    pub extents: Vec<usize>,
    pub span: Span,
}

/// A parameter that a plan reads from its store.
pub(crate) struct Stored {
    pub parameter: Parameter,
    /// Bytes that it takes up there.
    pub bytes: usize,
    /// Where the tensor is stored by its kept elements: which those are.
    pub kept: Option<Arc<Kept>>,
}

/// A compiled graph: steps in order, each with its kernel and its places in one arena.
pub struct Plan {
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) parameters: Vec<Stored>,
    /// The stored tensors that the steps name by their place in this list.
    pub(crate) needed: Vec<Needed>,
    /// After the last step: values go to the parameters they are assigned to, and outputs that lie in the store to the arena.
    pub(crate) copies: Vec<Copy>,
    pub(crate) constants: Vec<(Span, Vec<u8>)>,
    /// Size of the arena that the steps work in.
    pub(crate) arena_bytes: usize,
    /// Where the batch is run in parts: the steps are those of one part.
    pub(crate) parts: Option<Parts>,
    pub(crate) cpu: Arc<Cpu>,
    /// The same instruction set with the calling thread alone, for steps too small to share.
    pub(crate) alone: Cpu,
    pub(crate) log: Vec<LogEntry>,
}

impl Plan {
    /// Plans `graph` for parameters that are in `store`.
    ///
    /// What [`PlanOptions::freeze`] names and the graph does not assign to becomes part of the plan as it is now: folded,
    /// packed, and blind to later writes. All other parameters are read from the store of a session whenever it runs.
    ///
    /// # Errors
    /// When a parameter is not in the store, a shape is not known, or the arena would exceed its limit.
    pub fn compile(graph: &Graph, store: &Store, options: &PlanOptions) -> Result<Plan, EngineError> {
        let graph = frozen(graph, store, &options.freeze)?;
        let trains = !graph.assignments().is_empty();
        let passes = if trains { rewrite::TRAINING_PASSES } else { rewrite::INFERENCE_PASSES };
        let (graph, log) = if options.rewrite {
            rewrite::run_passes(&graph, passes, None)?
        } else {
            (rewrite::remove_dead_code(&graph)?, vec![])
        };
        let facts = store.facts(&graph)?;
        let parts = if !trains && options.rewrite { parts::choose(&graph, options.batch)? } else { None };
        let planned = |graph, lone| Planner::new(graph, &facts, options, lone).plan(log);
        let plan = match parts {
            Some((count, part)) => {
                let lone = count >= options.cpu.threads.count();
                planned(&part, lone)?.of_parts(graph, count)
            }
            None => planned(&graph, false)?,
        };
        let needed = plan.arena_bytes();
        if needed > options.memory_limit {
            return Err(EngineError::TooLarge { needed, limit: options.memory_limit });
        }
        Ok(plan)
    }

    /// The graph as rewritten.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the rewrites did, and what they would not do and why.
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// The steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &StepInfo> {
        self.steps.iter().map(|s| &s.info)
    }

    /// Size of the arena in bytes; of all arenas where parts of a batch have one each.
    pub fn arena_bytes(&self) -> usize {
        let border = self.parts.as_ref().map_or(0, |parts| parts.border_bytes);
        border + self.lanes() * self.arena_bytes
    }

    /// Tensors of trained parameters that are stored and computed by their kept elements alone, with the share that is
    /// kept (0 to 1); optimiser state is not listed.
    pub fn kept(&self) -> impl Iterator<Item = (&str, f64)> {
        let trained = self.parameters.iter().filter(|stored| stored.parameter.role == Role::Trainable);
        trained.filter_map(|s| Some((s.parameter.tensor.as_str(), s.kept.as_ref()?.density())))
    }

    /// Bytes that each parameter and each state tensor that is not frozen takes up in the store.
    pub fn parameter_bytes(&self) -> impl Iterator<Item = (&Parameter, usize)> {
        self.parameters.iter().map(|stored| (&stored.parameter, stored.bytes))
    }

    /// About how many bytes the plan takes: constants as the graph has them and as kernels store them, patterns of kept
    /// elements, and a kilobyte for each step.
    pub(crate) fn bytes(&self) -> usize {
        let constants = self.graph.value_ids().filter_map(|id| self.graph.constant_of(id));
        let in_graph: usize = constants.map(|t| t.len() * t.dtype().size()).sum();
        let kept: usize = self.needed.iter().map(Needed::pattern_len).sum();
        let inside: usize = self.inside().map(|(_, inside)| inside.plan.bytes()).sum();
        2 * in_graph + 16 * kept + 1024 * (self.steps.len() + self.copies.len() + 1) + inside
    }

    /// Whether a run writes to the store.
    pub(crate) fn writes(&self) -> bool {
        self.needed.iter().any(|needed| needed.written)
    }

    /// Names of nodes that only the reference interpreter can run, slowly and allocating; those inside branches and loops
    /// too.
    pub fn interpreted(&self) -> Vec<&str> {
        let mut names = vec![];
        for step in &self.steps {
            if step.info.kernel.starts_with("reference-") {
                names.push(&*step.info.name);
            }
            for inside in step.kernel.inside() {
                names.extend(inside.plan.interpreted());
            }
        }
        names
    }

    /// The plans inside steps, with the name of the step: branches and bodies, and how often each has run.
    pub fn inside(&self) -> impl Iterator<Item = (&str, Inside<'_>)> {
        self.steps
            .iter()
            .flat_map(|step| step.kernel.inside().into_iter().map(|inside| (&*step.info.name, inside)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan {}: {} steps, arena of {} bytes",
            self.graph.name,
            self.steps.len(),
            self.arena_bytes()
        )?;
        if let Some(parts) = &self.parts {
            writeln!(f, "  for each of {} parts of the batch:", parts.count)?;
        }
        for step in &self.steps {
            let text = |s: &Span| match s.home {
                Home::Arena => format!("{}+{}", s.offset, s.bytes),
                Home::Store(home) => {
                    let name = self.needed.get(home as usize).map_or("constant", |needed| &needed.name);
                    format!("`{name}`")
                }
            };
            let inputs: Vec<_> = step.inputs.iter().map(|i| i.as_ref().map_or("-".into(), text)).collect();
            let outputs: Vec<_> = step.outputs.iter().map(text).collect();
            writeln!(f, "  {} [{}] -> [{}]", step.info.kernel, inputs.join(", "), outputs.join(", "))?;
        }
        Ok(())
    }
}

impl Plan {
    /// The bytes of `tensor`, checked against the port it is for.
    pub(crate) fn checked(port: &Port, what: &'static str, tensor: &Tensor) -> Result<Vec<u8>, EngineError> {
        if tensor.dtype() != port.dtype || tensor.shape() != port.extents {
            return Err(EngineError::Graph(GraphError::Feed {
                what,
                name: port.name.clone(),
                found: format!("{}{:?}", tensor.dtype(), tensor.shape()),
                expected: format!("{}{:?}", port.dtype, port.extents),
            }));
        }
        Ok(bytes::of(tensor, Layout::RowMajor))
    }
}

/// The graph with constants for all parameters that are frozen and not assigned to.
fn frozen(graph: &Graph, store: &Store, freeze: &Freeze) -> Result<Graph, EngineError> {
    let mut constants = Parameters::new();
    for name in freeze.frozen(graph) {
        constants.insert(name, store.read(name)?);
    }
    Ok(rewrite::freeze(graph, &constants)?)
}
