//! Planning: a kernel, layouts and memory for every node, decided once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use wattle_graph::rewrite::{self, LogEntry};
use wattle_graph::{DType, Graph, GraphError, NodeId, Parameter, Parameters, Role, Source, Tensor, ValueId};
use wattle_kernels::arena::Span;
use wattle_kernels::{Cpu, Threads};

use crate::bind;
use crate::bytes;
use crate::choices::{Batch, Sparse};
use crate::error::EngineError;
use crate::kept::{self, Kept};
use crate::kernel::{Bound, Kernel, Operand, Site};
use crate::layout::Layout;
use crate::memory::{Storage, StorageId, place};
use crate::parts::{self, Parts};
use crate::registry::Registry;
use crate::sharing::{is_small, is_small_move};
use crate::timings::Timings;

/// What a plan is made for.
#[derive(Clone)]
pub struct PlanOptions {
    /// Instruction set and threads.
    pub cpu: Arc<Cpu>,
    /// Whether rewrites (folding, fusion) may change the graph; off, every node runs as written.
    pub rewrite: bool,
    /// Largest arena in bytes.
    pub memory_limit: usize,
    /// Whether layers whose weights are mostly zero may run on sparse kernels.
    pub sparse: Sparse,
    /// Times of kernels on this machine, to decide what the cost model leaves in doubt; what is missing is timed while
    /// planning. Without it the model alone decides, and a plan is the same wherever it is made.
    pub timings: Option<Arc<Timings>>,
    /// Whether a batch may be run part by part.
    pub batch: Batch,
    /// Kernels of custom operators.
    pub kernels: Registry,
}

impl PlanOptions {
    /// The best instruction set of this machine, all rewrites, an arena of at most 16 GiB.
    pub fn new(cpu: Arc<Cpu>) -> PlanOptions {
        let (sparse, batch) = (Sparse::Auto, Batch::Auto);
        let kernels = Registry::new();
        PlanOptions { cpu, rewrite: true, memory_limit: 16 << 30, sparse, timings: None, batch, kernels }
    }
}

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
    /// Where the tensor is stored by its kept elements: which those are.
    pub kept: Option<Arc<Kept>>,
}

/// A compiled graph: steps in order, each with its kernel and its places in one arena.
pub struct Plan {
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) parameters: Vec<(Parameter, Port)>,
    /// Copies after the last step, from computed values to the parameters they are assigned to.
    pub(crate) copies: Vec<(Span, Span)>,
    pub(crate) constants: Vec<(Span, Vec<u8>)>,
    /// Size of the arena that the steps work in.
    pub(crate) arena_bytes: usize,
    /// Where the batch is run in parts: the steps are those of one part.
    pub(crate) parts: Option<Parts>,
    pub(crate) cpu: Arc<Cpu>,
    /// The same instruction set with the calling thread alone, for steps too small to share.
    pub(crate) alone: Cpu,
    log: Vec<LogEntry>,
}

impl Plan {
    /// Plans `graph` with these parameters.
    ///
    /// A graph without assignments is frozen: its parameters become constants, are folded and packed, and later
    /// changes to `parameters` do not reach the plan. A training step keeps its parameters in the arena.
    pub fn compile(
        graph: &Graph,
        parameters: &Parameters,
        options: &PlanOptions,
    ) -> Result<Plan, EngineError> {
        let frozen = graph.assignments().is_empty();
        let graph = if frozen { rewrite::freeze(graph, parameters)? } else { graph.clone() };
        let passes = if frozen { rewrite::INFERENCE_PASSES } else { rewrite::TRAINING_PASSES };
        let (graph, log) = if options.rewrite {
            rewrite::run_passes(&graph, passes, None)?
        } else {
            (rewrite::remove_dead_code(&graph)?, vec![])
        };
        let parts = if frozen && options.rewrite { parts::choose(&graph, options.batch)? } else { None };
        let planned = |graph, lone| Planner::new(graph, parameters, options, lone).plan(log);
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
        let trained = self.parameters.iter().filter(|(parameter, _)| parameter.role == Role::Trainable);
        trained.filter_map(|(p, port)| Some((p.tensor.as_str(), port.kept.as_ref()?.density())))
    }

    /// Bytes that each parameter and each state tensor of a training plan takes up.
    pub fn parameter_bytes(&self) -> impl Iterator<Item = (&Parameter, usize)> {
        self.parameters.iter().map(|(parameter, port)| (parameter, port.span.bytes))
    }

    /// Names of nodes that only the reference interpreter can run, slowly and allocating.
    pub fn interpreted(&self) -> Vec<&str> {
        self.steps.iter().filter(|s| s.info.kernel.starts_with("reference-")).map(|s| &*s.info.name).collect()
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
            let text = |s: &Span| format!("{}+{}", s.offset, s.bytes);
            let inputs: Vec<_> = step.inputs.iter().map(|i| i.as_ref().map_or("-".into(), text)).collect();
            let outputs: Vec<_> = step.outputs.iter().map(text).collect();
            writeln!(f, "  {} [{}] -> [{}]", step.info.kernel, inputs.join(", "), outputs.join(", "))?;
        }
        Ok(())
    }
}

/// A step whose places are still storages.
struct Draft {
    info: StepInfo,
    op: &'static str,
    kernel: Box<dyn Kernel>,
    inputs: Vec<Option<StorageId>>,
    outputs: Vec<StorageId>,
    scratch: Option<StorageId>,
    in_place: Vec<(usize, usize)>,
    alone: bool,
}

struct Planner<'a> {
    graph: &'a Graph,
    parameters: &'a Parameters,
    cpu: &'a Arc<Cpu>,
    sparse: Sparse,
    timings: Option<&'a Timings>,
    kernels: &'a Registry,
    /// Whether every step will run on one thread.
    lone: bool,
    /// Values stored by kept elements where they are parameters, and wanted so where they are computed.
    kept: HashMap<ValueId, Arc<Kept>>,
    storages: Vec<Storage>,
    /// Where a value is, in each layout it exists in.
    places: HashMap<(ValueId, Layout), StorageId>,
    /// The layout each value is made in.
    native: Vec<Layout>,
    drafts: Vec<Draft>,
    constants: Vec<(StorageId, Vec<u8>)>,
}

impl<'a> Planner<'a> {
    fn new(
        graph: &'a Graph,
        parameters: &'a Parameters,
        options: &'a PlanOptions,
        lone: bool,
    ) -> Planner<'a> {
        let PlanOptions { cpu, sparse, timings, kernels, .. } = options;
        Planner {
            graph,
            parameters,
            cpu,
            sparse: *sparse,
            timings: timings.as_deref(),
            kernels,
            lone,
            kept: kept::find(graph, parameters, cpu, *sparse),
            storages: vec![],
            places: HashMap::new(),
            native: vec![Layout::RowMajor; graph.values().len()],
            drafts: vec![],
            constants: vec![],
        }
    }

    fn plan(mut self, log: Vec<LogEntry>) -> Result<Plan, EngineError> {
        let graph = self.graph;
        for id in graph.value_ids() {
            if matches!(graph.value(id).source, Source::Input | Source::Parameter(_)) {
                let layout = self.resting(id);
                let storage = self.storage(id, layout, true)?;
                self.native[id.index()] = layout;
                self.places.insert((id, layout), storage);
            }
        }
        for (id, _) in graph.node_ids() {
            self.add_node(id)?;
        }
        let mut output_places = vec![];
        for &id in graph.outputs() {
            output_places.push(self.place(id, Layout::RowMajor)?);
        }
        let mut assigned = vec![];
        for a in graph.assignments() {
            let layout = self.resting(a.target);
            let target = self.place(a.target, layout)?;
            assigned.push((target, self.place(a.value, layout)?));
        }

        let kept: Vec<StorageId> =
            output_places.iter().copied().chain(assigned.iter().map(|a| a.1)).collect();
        let roots = self.share(&kept, &assigned);
        let (spans, arena_bytes) = place(&self.storages);
        let span = |id: StorageId| spans[roots[id.0]];
        let port = |id: ValueId, storage: StorageId| -> Result<Port, EngineError> {
            let value = graph.value(id);
            let (name, dtype) = (graph.label(id), value.ty.dtype);
            let kept = self.kept.get(&id).filter(|_| graph.parameter_of(id).is_some()).cloned();
            Ok(Port { name, dtype, extents: graph.extents(id)?, span: span(storage), kept })
        };
        let resting = |id: ValueId| self.places[&(id, self.resting(id))];
        let inputs = graph.inputs().iter().map(|&id| port(id, resting(id))).collect::<Result<_, _>>()?;
        let outputs = graph
            .outputs()
            .iter()
            .zip(&output_places)
            .map(|(&id, &s)| port(id, s))
            .collect::<Result<_, _>>()?;
        let mut parameters = vec![];
        for id in graph.parameters() {
            if let Some(parameter) = graph.parameter_of(id) {
                parameters.push((parameter.clone(), port(id, resting(id))?));
            }
        }
        let copies = assigned
            .iter()
            .map(|&(target, value)| (span(value), span(target)))
            .filter(|(from, to)| from != to)
            .collect();
        let constants = self.constants.iter().map(|(s, bytes)| (span(*s), bytes.clone())).collect();
        let steps = self
            .drafts
            .into_iter()
            .map(|d| Step {
                info: d.info,
                op: d.op,
                kernel: d.kernel,
                inputs: d.inputs.iter().map(|i| i.map(span)).collect(),
                outputs: d.outputs.iter().map(|&o| span(o)).collect(),
                scratch: d.scratch.map_or(Span { offset: 0, bytes: 0 }, span),
                alone: d.alone,
            })
            .collect();
        Ok(Plan {
            graph: graph.clone(),
            steps,
            inputs,
            outputs,
            parameters,
            copies,
            constants,
            arena_bytes,
            parts: None,
            cpu: self.cpu.clone(),
            alone: Cpu { isa: self.cpu.isa, threads: Threads::single() },
            log,
        })
    }

    /// The layout of a value at the border of the plan.
    fn resting(&self, id: ValueId) -> Layout {
        let kept = self.graph.parameter_of(id).is_some() && self.kept.contains_key(&id);
        if kept { Layout::Kept } else { Layout::RowMajor }
    }

    /// A new storage for a value.
    fn storage(&mut self, id: ValueId, layout: Layout, persistent: bool) -> Result<StorageId, EngineError> {
        if let (Layout::Kept, Some(kept)) = (layout, self.kept.get(&id)) {
            return Ok(self.new_storage(kept.len() * size_of::<f32>(), persistent));
        }
        let ty = &self.graph.value(id).ty;
        let unknown =
            || EngineError::UnknownShape { value: self.graph.label(id), shape: ty.shape.to_string() };
        let extents = ty.shape.extents().ok_or_else(unknown)?;
        let elements = wattle_graph::element_count(&extents).and_then(|n| n.checked_mul(ty.dtype.size()));
        let bytes =
            elements.ok_or(EngineError::TooLarge { needed: usize::MAX, limit: isize::MAX as usize })?;
        Ok(self.new_storage(bytes, persistent))
    }

    fn new_storage(&mut self, bytes: usize, persistent: bool) -> StorageId {
        self.storages.push(Storage { bytes, first: usize::MAX, last: 0, persistent });
        StorageId(self.storages.len() - 1)
    }

    /// Where `id` is in the given layout; adds a change of layout where it is not there yet.
    fn place(&mut self, id: ValueId, layout: Layout) -> Result<StorageId, EngineError> {
        if let Some(&storage) = self.places.get(&(id, layout)) {
            return Ok(storage);
        }
        let graph = self.graph;
        if let Some(tensor) = graph.constant_of(id) {
            let storage = self.storage(id, layout, true)?;
            self.constants.push((storage, bytes::of(tensor, layout)));
            self.places.insert((id, layout), storage);
            return Ok(storage);
        }
        let extents = graph.extents(id)?;
        let mut native = self.native[id.index()];
        let between = native != layout && native != Layout::RowMajor && layout != Layout::RowMajor;
        if between && (native == Layout::Kept || layout == Layout::Kept) {
            self.place(id, Layout::RowMajor)?;
            native = Layout::RowMajor;
        }
        let from = *self.places.get(&(id, native)).ok_or_else(|| {
            EngineError::Defect(format!("`{}` is read before it has a place", graph.label(id)))
        })?;
        let storage = if native.same_bytes(layout, &extents) {
            from
        } else {
            let to = self.storage(id, layout, false)?;
            let kernel = match self.kept.get(&id) {
                Some(kept) if native == Layout::Kept || layout == Layout::Kept => {
                    kept::spread(kept, layout != Layout::Kept)
                }
                _ => bind::reorder(&extents, graph.value(id).ty.dtype, native, layout),
            };
            let info = StepInfo { node: None, name: graph.label(id), kernel: kernel.name(), why: None };
            self.drafts.push(Draft {
                info,
                op: "layout",
                kernel,
                inputs: vec![Some(from)],
                outputs: vec![to],
                scratch: None,
                in_place: vec![],
                alone: is_small_move(2 * self.storages[to.0].bytes),
            });
            to
        };
        self.places.insert((id, layout), storage);
        Ok(storage)
    }

    fn add_node(&mut self, id: NodeId) -> Result<(), EngineError> {
        let graph = self.graph;
        let node = graph.node(id);
        let mut site = self.site(id)?;
        let bound = self.bind(&mut site)?;
        let scratch = (bound.scratch > 0).then(|| self.new_storage(bound.scratch * size_of::<f32>(), false));
        let Bound { kernel, input_layouts, output_layouts, taken, in_place, why, density, .. } = bound;
        let mut inputs = vec![];
        for (index, input) in node.inputs.iter().enumerate() {
            inputs.push(match input {
                Some(input) if !taken.contains(&index) => Some(self.place(*input, input_layouts[index])?),
                _ => None,
            });
        }
        let Some(kernel) = kernel else {
            let storage = inputs[0].ok_or_else(|| EngineError::Defect("a view of nothing".into()))?;
            self.native[node.outputs[0].index()] = output_layouts[0];
            self.places.insert((node.outputs[0], output_layouts[0]), storage);
            return Ok(());
        };
        let mut outputs = vec![];
        for (&output, &layout) in node.outputs.iter().zip(&output_layouts) {
            let storage = self.storage(output, layout, false)?;
            self.native[output.index()] = layout;
            self.places.insert((output, layout), storage);
            outputs.push(storage);
        }
        let name = if node.name.is_empty() { graph.label(node.outputs[0]) } else { node.name.clone() };
        let info = StepInfo { node: Some(id), name, kernel: kernel.name(), why };
        let bytes: usize = inputs.iter().flatten().chain(&outputs).map(|s| self.storages[s.0].bytes).sum();
        let alone = is_small(&site, density, bytes);
        let op = node.op.name();
        self.drafts.push(Draft { info, op, kernel, inputs, outputs, scratch, in_place, alone });
        Ok(())
    }

    /// The kernel for a site; where the cost model is in doubt, the one that is fastest here.
    fn bind(&self, site: &mut Site<'a>) -> Result<Bound, EngineError> {
        let bound = bind::bind(site)?;
        let (Some(timings), Some(doubt)) = (self.timings, bound.doubt.clone()) else { return Ok(bound) };
        drop(bound);
        let mut contenders = vec![];
        for &form in doubt.forms() {
            site.form = Some(form);
            contenders.push((form, bind::bind(site)?));
        }
        site.form = None;
        let constants = self.graph.value_ids().filter_map(|id| self.graph.constant_of(id));
        let network = constants.map(|t| t.shape().iter().product::<usize>() * t.dtype().size()).sum();
        timings.fastest(site, &doubt, contenders, network, self.lone)
    }

    fn site(&self, id: NodeId) -> Result<Site<'a>, EngineError> {
        let graph = self.graph;
        let node = graph.node(id);
        let extents = |id: ValueId| {
            let shape = &graph.value(id).ty.shape;
            let unknown = || EngineError::UnknownShape { value: graph.label(id), shape: shape.to_string() };
            shape.extents().ok_or_else(unknown)
        };
        let operand = |id: ValueId| -> Result<Operand<'a>, EngineError> {
            Ok(Operand {
                extents: extents(id)?,
                dtype: graph.value(id).ty.dtype,
                layout: self.native[id.index()],
                constant: graph.constant_of(id).map(|t| &**t),
            })
        };
        let mask = |id: ValueId| {
            let parameter = graph.parameter_of(id)?;
            let mask = self.parameters.mask(&parameter.tensor)?;
            let full = self.parameters.get(&parameter.tensor)?.shape().to_vec();
            let positions = parameter.window.positions(&full)?;
            Some(positions.into_iter().map(|i| u8::from(mask.get(i))).collect())
        };
        Ok(Site {
            node,
            inputs: node.inputs.iter().map(|i| i.map(operand).transpose()).collect::<Result<_, _>>()?,
            outputs: node
                .outputs
                .iter()
                .map(|&o| Ok((extents(o)?, graph.value(o).ty.dtype)))
                .collect::<Result<_, EngineError>>()?,
            masks: node.inputs.iter().map(|i| i.and_then(mask)).collect(),
            kept: node.inputs.iter().map(|i| self.kept.get(&(*i)?).cloned()).collect(),
            kept_outputs: node.outputs.iter().map(|o| self.kept.get(o).cloned()).collect(),
            cpu: self.cpu,
            sparse: self.sparse,
            form: None,
            kernels: self.kernels,
        })
    }

    /// Finds lifetimes, then lets results take the memory of operands that die there, and assigned values the
    /// memory of their parameter. Returns the storage each storage has become part of.
    fn share(&mut self, kept: &[StorageId], assigned: &[(StorageId, StorageId)]) -> Vec<usize> {
        for (index, draft) in self.drafts.iter().enumerate() {
            let touched = draft.inputs.iter().flatten().chain(&draft.outputs).chain(&draft.scratch);
            for storage in touched {
                let storage = &mut self.storages[storage.0];
                storage.first = storage.first.min(index);
                storage.last = storage.last.max(index);
            }
        }
        for &id in kept {
            self.storages[id.0].last = usize::MAX;
        }
        let mut roots: Vec<usize> = (0..self.storages.len()).collect();
        for (index, draft) in self.drafts.iter().enumerate() {
            for &(input, output) in &draft.in_place {
                let Some(from) = draft.inputs.get(input).copied().flatten() else { continue };
                let (from, to) = (roots[from.0], draft.outputs[output].0);
                let operands = draft.inputs.iter().flatten().filter(|i| roots[i.0] == from).count();
                let parameter = assigned.iter().find(|(_, value)| value.0 == to).map(|(target, _)| target.0);
                let owned = !self.storages[from].persistent || parameter == Some(from);
                let dies = self.storages[from].last == index && owned;
                if !dies || operands != 1 || self.storages[from].bytes != self.storages[to].bytes {
                    continue;
                }
                roots[to] = from;
                self.storages[from].last = self.storages[from].last.max(self.storages[to].last);
                self.storages[to].bytes = 0;
            }
        }
        roots
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
