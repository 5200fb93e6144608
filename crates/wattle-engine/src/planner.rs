//! Planning: a kernel, layouts and memory for every node, decided once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wattle_graph::rewrite::LogEntry;
use wattle_graph::{Assignment, Graph, NodeId, Source, ValueId};
use wattle_kernels::arena::{Home, Span};
use wattle_kernels::{Cpu, Threads};

use crate::assign::{self, Draft as Assigned};
use crate::bind;
use crate::bytes;
use crate::choices::{PlanOptions, Sparse};
use crate::error::EngineError;
use crate::kept::{self, Kept};
use crate::kernel::{Bound, Kernel, Operand, Site};
use crate::layout::Layout;
use crate::memory::{Storage, StorageId, place};
use crate::packing::Packing;
use crate::plan::{Plan, Port, Step, StepInfo, Stored};
use crate::sharing::{is_small, is_small_move};
use crate::store::{Fact, Facts, Needed, Wanted};
use crate::strided::{ReadWindow, Strided};
use crate::timings::Timings;

/// A step whose places are still storages.
pub(crate) struct Draft {
    info: StepInfo,
    op: &'static str,
    kernel: Box<dyn Kernel>,
    pub inputs: Vec<Option<StorageId>>,
    pub outputs: Vec<StorageId>,
    pub scratch: Option<StorageId>,
    pub in_place: Vec<(usize, usize)>,
    alone: bool,
}

pub(crate) struct Planner<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    options: &'a PlanOptions,
    cpu: &'a Arc<Cpu>,
    sparse: Sparse,
    timings: Option<&'a Timings>,
    /// Whether every step will run on one thread.
    lone: bool,
    /// Values stored by kept elements where they are parameters, and wanted so where they are computed.
    kept: HashMap<ValueId, Arc<Kept>>,
    storages: Vec<Storage>,
    /// The stored tensors that steps name, and the storage of each by name.
    needed: Vec<Needed>,
    tensors: HashMap<&'a str, StorageId>,
    /// Those that the store packs for kernels.
    packed: Vec<(&'a str, Arc<Packing>, StorageId)>,
    /// Tensors that the graph assigns to.
    assigned: HashSet<&'a str>,
    /// Where a value is, in each layout it exists in.
    places: HashMap<(ValueId, Layout), StorageId>,
    /// The layout each value is made in.
    native: Vec<Layout>,
    drafts: Vec<Draft>,
    constants: Vec<(StorageId, Vec<u8>)>,
    /// Whether the arena belongs to others between runs, so that constants must be elsewhere.
    nested: bool,
}

impl<'a> Planner<'a> {
    pub fn new(graph: &'a Graph, facts: &'a Facts, options: &'a PlanOptions, lone: bool) -> Planner<'a> {
        let PlanOptions { cpu, sparse, timings, .. } = options;
        let tensor = |a: &Assignment| graph.parameter_of(a.target).map(|p| p.tensor.as_str());
        Planner {
            graph,
            facts,
            options,
            cpu,
            sparse: *sparse,
            timings: timings.as_deref(),
            lone,
            kept: kept::find(graph, facts, cpu, *sparse),
            storages: vec![],
            needed: vec![],
            tensors: HashMap::new(),
            packed: vec![],
            assigned: graph.assignments().iter().filter_map(tensor).collect(),
            places: HashMap::new(),
            native: vec![Layout::RowMajor; graph.values().len()],
            drafts: vec![],
            constants: vec![],
            nested: false,
        }
    }

    /// A planner for a graph inside a node: the constant of number i of the plan is in the outside buffer of that number.
    pub fn nested(graph: &'a Graph, facts: &'a Facts, options: &'a PlanOptions) -> Planner<'a> {
        Planner { nested: true, ..Planner::new(graph, facts, options, false) }
    }

    pub fn plan(mut self, log: Vec<LogEntry>) -> Result<Plan, EngineError> {
        let graph = self.graph;
        for id in graph.value_ids() {
            match graph.value(id).source {
                Source::Input => {
                    let storage = self.storage(id, Layout::RowMajor, true)?;
                    self.places.insert((id, Layout::RowMajor), storage);
                }
                Source::Parameter(_) => self.native[id.index()] = self.resting(id),
                Source::Constant(_) | Source::Node { .. } => {}
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
            let (layout, (target, part)) = (self.resting(a.target), self.target(a.target)?);
            assigned.push(Assigned { from: self.place(a.value, layout)?, to: target, part });
        }
        let after: Vec<StorageId> =
            output_places.iter().copied().chain(assigned.iter().map(|a| a.from)).collect();
        let roots = assign::share(&mut self.storages, &self.drafts, &after, &assigned);
        let mut copies = vec![];
        for output in &mut output_places {
            // Outputs stay what they were when the run ended, whoever writes to the store afterwards.
            let root = StorageId(roots[output.0]);
            if self.storages[root.0].home != Home::Arena {
                let from = std::mem::replace(output, self.new_storage(self.storages[root.0].bytes, true));
                copies.push(Assigned { from, to: *output, part: None });
            }
        }
        copies.extend(assigned);
        let root = |id: StorageId| StorageId(roots.get(id.0).copied().unwrap_or(id.0));
        let copies =
            assign::ordered(copies, root, |like| self.new_storage(self.storages[like.0].bytes, true));
        let (spans, arena_bytes) = place(&self.storages);
        let span = |id: StorageId| spans[root(id).0];
        let port = |id: ValueId, storage: StorageId| -> Result<Port, EngineError> {
            let (name, dtype) = (graph.label(id), graph.value(id).ty.dtype);
            Ok(Port { name, dtype, extents: graph.extents(id)?, span: span(storage) })
        };
        let input = |&id: &ValueId| port(id, self.places[&(id, Layout::RowMajor)]);
        let inputs = graph.inputs().iter().map(input).collect::<Result<_, _>>()?;
        let outputs = graph
            .outputs()
            .iter()
            .zip(&output_places)
            .map(|(&id, &s)| port(id, s))
            .collect::<Result<_, _>>()?;
        let mut parameters = vec![];
        for id in graph.parameters() {
            if let Some(parameter) = graph.parameter_of(id) {
                let kept = self.kept.get(&id).cloned();
                let elements: usize = graph.extents(id)?.iter().product();
                let size = graph.value(id).ty.dtype.size();
                let bytes = kept.as_ref().map_or(elements, |kept| kept.len()) * size;
                parameters.push(Stored { parameter: parameter.clone(), bytes, kept });
            }
        }
        let copies = copies.into_iter().map(|c| c.placed(span)).collect();
        let needed = self.needed;
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
                scratch: d.scratch.map_or(Span::default(), span),
                alone: d.alone,
            })
            .collect();
        Ok(Plan {
            graph: graph.clone(),
            steps,
            inputs,
            outputs,
            parameters,
            needed,
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

    /// The name of the tensor behind a parameter, and what is known of it.
    fn stored(&self, id: ValueId) -> Result<(&'a str, &'a Fact), EngineError> {
        let graph = self.graph;
        let defect = || EngineError::Defect(format!("`{}` is no stored parameter", graph.label(id)));
        let name = &graph.parameter_of(id).ok_or_else(defect)?.tensor;
        Ok((name, self.facts.get(name).ok_or_else(defect)?))
    }

    /// The storage of the tensor behind a parameter.
    fn tensor(&mut self, id: ValueId) -> Result<StorageId, EngineError> {
        let (name, fact) = self.stored(id)?;
        if let Some(storage) = self.tensors.get(name) {
            return Ok(*storage);
        }
        let elements: usize = fact.extents.iter().product();
        let (wanted, bytes) = match self.kept.get(&id).cloned() {
            Some(kept) => (Wanted::Kept(kept.clone()), kept.len() * size_of::<f32>()),
            None => (Wanted::Whole, elements * fact.dtype.size()),
        };
        let storage = self.in_store(name, fact, wanted, bytes);
        self.tensors.insert(name, storage);
        Ok(storage)
    }

    /// The storage of the tensor behind a parameter as the store packs it.
    fn packed(&mut self, id: ValueId, packing: &Arc<Packing>) -> Result<StorageId, EngineError> {
        let (name, fact) = self.stored(id)?;
        let same = |(of, held, _): &&(&str, Arc<Packing>, StorageId)| *of == name && held.alike(packing);
        if let Some((_, _, storage)) = self.packed.iter().find(same) {
            return Ok(*storage);
        }
        let bytes = packing.len() * size_of::<f32>();
        let storage = self.in_store(name, fact, Wanted::Packed(packing.clone()), bytes);
        self.packed.push((name, packing.clone(), storage));
        Ok(storage)
    }

    /// A storage for a tensor in the store, in a form of so many bytes.
    fn in_store(&mut self, name: &str, fact: &Fact, wanted: Wanted, bytes: usize) -> StorageId {
        let written = self.assigned.contains(name) && !matches!(wanted, Wanted::Packed(_));
        let storage = self.new_storage(bytes, true);
        self.storages[storage.0].home = Home::Store(self.needed.len() as u32);
        self.needed.push(Needed {
            name: name.to_string(),
            dtype: fact.dtype,
            extents: fact.extents.clone(),
            mask_key: fact.mask_key,
            wanted,
            written,
        });
        storage
    }

    /// Whether a value is all of a stored tensor that the plan does not write: its packed form lasts until others write it.
    fn rests(&self, id: ValueId) -> bool {
        let whole = self.graph.parameter_of(id).filter(|p| p.window.is_full() && !self.nested);
        whole.is_some_and(|p| !self.assigned.contains(&*p.tensor)) && !self.kept.contains_key(&id)
    }

    /// Where what is assigned to a parameter goes: its tensor, or a part of it.
    fn target(&mut self, id: ValueId) -> Result<(StorageId, Option<Strided>), EngineError> {
        let storage = self.tensor(id)?;
        Ok((storage, self.window(id)))
    }

    /// The part of its tensor that a parameter shows, unless that is all.
    fn window(&self, id: ValueId) -> Option<Strided> {
        let parameter = self.graph.parameter_of(id).filter(|p| !p.window.is_full())?;
        let fact = self.facts.get(&parameter.tensor)?;
        Some(Strided::new(&parameter.window, &fact.extents, fact.dtype))
    }

    /// Adds the step that reads a window, before whatever reads it first.
    fn read_window(&mut self, id: ValueId, part: Strided) -> Result<(), EngineError> {
        let (whole, to) = (self.tensor(id)?, self.storage(id, Layout::RowMajor, false)?);
        self.places.insert((id, Layout::RowMajor), to);
        self.add_move(id, Box::new(ReadWindow(part)), whole, to);
        Ok(())
    }

    /// Adds a step that no node asks for.
    fn add_move(&mut self, id: ValueId, kernel: Box<dyn Kernel>, from: StorageId, to: StorageId) {
        let info = StepInfo { node: None, name: self.graph.label(id), kernel: kernel.name(), why: None };
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
        self.storages.push(Storage { bytes, first: usize::MAX, last: 0, home: Home::Arena, persistent });
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
            if self.nested {
                self.storages[storage.0].home = Home::Store(self.constants.len() as u32);
            }
            self.constants.push((storage, bytes::of(tensor, layout)));
            self.places.insert((id, layout), storage);
            return Ok(storage);
        }
        let resting = self.resting(id);
        if graph.parameter_of(id).is_some() && !self.places.contains_key(&(id, resting)) {
            match self.window(id) {
                Some(part) => self.read_window(id, part)?,
                None => {
                    let whole = self.tensor(id)?;
                    self.places.insert((id, resting), whole);
                }
            }
            return self.place(id, layout);
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
            self.add_move(id, kernel, from, to);
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
        let Bound { kernel, input_layouts, output_layouts, taken, packed, in_place, why, density, .. } =
            bound;
        let mut inputs = vec![];
        for (index, input) in node.inputs.iter().enumerate() {
            let packing = packed.iter().find(|(operand, _)| *operand == index);
            inputs.push(match (input, packing) {
                (Some(input), Some((_, packing))) => Some(self.packed(*input, packing)?),
                (Some(input), None) if !taken.contains(&index) => {
                    Some(self.place(*input, input_layouts[index])?)
                }
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
                rests: self.rests(id),
            })
        };
        let mask = |id: ValueId| {
            let parameter = graph.parameter_of(id)?;
            let fact = self.facts.get(&parameter.tensor)?;
            let mask = fact.mask.as_ref()?;
            let positions = parameter.window.positions(&fact.extents)?;
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
            options: self.options,
        })
    }
}
