//! Graphs inside a node, on kernels: plans whose arenas are the node's scratch memory, so that what does not run costs
//! nothing.
//!
//! A nested plan's constants are not in that memory, which others use between runs, but in one buffer that the kernel owns and
//! all sessions read. What the graph captures is copied in, its results are copied out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use wattle_graph::{DType, Graph, GraphError, OpError, Operand, Operands, Shape, TensorType, ops, rewrite};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Arena, Outside, Span, Taken, Views};

use crate::error::EngineError;
use crate::kernel::{Bound, Inside, Io, Kernel, Site};
use crate::plan::{Plan, Port};
use crate::planner::Planner;
use crate::store::Facts;

/// Results that a loop may stack; more run by definition.
const MAX_SCANNED: usize = 16;

/// A planned graph inside a node.
struct Nested {
    plan: Plan,
    /// Which operand of the node each input of the plan is.
    operands: Vec<usize>,
    constants: Vec<Arena>,
    homes: Vec<u32>,
    taken: Mutex<Taken>,
    runs: AtomicU64,
}

impl Nested {
    /// Plans a graph whose inputs, by name, are operands of the node.
    fn new(
        site: &Site<'_>,
        graph: &Graph,
        operand: impl Fn(&str) -> Option<usize>,
    ) -> Result<Nested, EngineError> {
        let options = site.options;
        let graph = match options.rewrite {
            true => rewrite::run_passes(graph, rewrite::INFERENCE_PASSES, None)?.0,
            false => rewrite::remove_dead_code(graph)?,
        };
        let facts = Facts::default();
        let mut plan = Planner::nested(&graph, &facts, options).plan(vec![])?;
        let defect = |port: &Port| EngineError::Defect(format!("`{}` is captured by nobody", port.name));
        let operands = plan
            .inputs
            .iter()
            .map(|p| operand(&p.name).ok_or_else(|| defect(p)))
            .collect::<Result<_, _>>()?;
        let mut constants = vec![];
        for (span, bytes) in plan.constants.drain(..) {
            let mut buffer = Arena::new(bytes.len());
            buffer.write::<u8>(Span::in_arena(0, span.bytes))?.copy_from_slice(&bytes);
            constants.push(buffer);
        }
        let homes = (0..constants.len() as u32).collect();
        let mut taken = Taken::default();
        taken.reserve(2 * plan.steps.iter().map(|s| s.inputs.len() + s.outputs.len()).max().unwrap_or(0) + 8);
        Ok(Nested { plan, operands, constants, homes, taken: Mutex::new(taken), runs: AtomicU64::new(0) })
    }

    /// Scratch memory in f32 elements.
    fn scratch(&self) -> usize {
        self.plan.arena_bytes.div_ceil(size_of::<f32>())
    }

    /// Whether the results have these extents and types.
    fn gives(&self, results: &[(Vec<usize>, DType)]) -> bool {
        let port = |p: &Port| (p.extents.clone(), p.dtype);
        self.plan.outputs.iter().map(port).eq(results.iter().cloned())
    }

    /// Copies the operands in from input `first` on.
    fn load(&self, io: &Io<'_>, memory: &mut [u8], first: usize) -> Result<(), EngineError> {
        for (port, &operand) in self.plan.inputs.iter().zip(&self.operands).skip(first) {
            memory[bytes(port.span)].copy_from_slice(io.input::<u8>(operand)?);
        }
        Ok(())
    }

    fn inside(&self, name: &'static str) -> Inside<'_> {
        Inside { name, plan: &self.plan, runs: self.runs.load(Ordering::Relaxed) }
    }

    /// Runs all steps in this memory.
    fn run(&self, memory: &mut [u8], cpu: &Cpu) -> Result<(), EngineError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        // Sessions that share the plan and run at the same time do not wait for each other; all but one allocate.
        let (mut own, mut shared) = (Taken::default(), self.taken.try_lock());
        let taken = shared.as_deref_mut().unwrap_or(&mut own);
        let mut in_memory = |inputs: &[Option<Span>],
                             outputs: &[Span],
                             scratch: Span,
                             cpu: &Cpu,
                             run: &dyn Fn(&Io<'_>) -> Result<(), EngineError>| {
            let views = Views::within(memory, taken, Outside::shared(&self.constants, &self.homes));
            run(&Io { views, inputs, outputs, scratch, cpu })
        };
        for step in &self.plan.steps {
            let cpu = if step.alone { &self.plan.alone } else { cpu };
            let done = in_memory(&step.inputs, &step.outputs, step.scratch, cpu, &|io| step.kernel.run(io));
            done.map_err(|error| match error {
                EngineError::Node { node, reason, .. } if node.is_empty() => {
                    EngineError::failed(format!("{} `{}`: {reason}", step.op, step.info.name))
                }
                other => other,
            })?;
        }
        for copy in &self.plan.copies {
            in_memory(&copy.from, &copy.to, Span::default(), cpu, &|io| copy.run(io))?;
        }
        Ok(())
    }
}

/// The bytes of a span of nested memory.
fn bytes(span: Span) -> std::ops::Range<usize> {
    span.offset..span.end()
}

/// A branch, or why it can never run here.
type Branch = Result<Nested, String>;

struct Branches {
    then: Branch,
    otherwise: Branch,
}

/// `If` on kernels; `None` where the shapes inside a branch depend on data.
pub(super) fn branches(site: &Site<'_>, op: &ops::If) -> Result<Option<Bound>, EngineError> {
    let mut planned = vec![];
    for condition in [true, false] {
        let captures = op.captures(condition);
        let names: Vec<_> =
            op.branch(condition).inputs().iter().map(|&i| op.branch(condition).label(i)).collect();
        let types = types(site);
        let graph = op.specialised(condition, Operands::new(&operands(site, &types)));
        let position = |name: &str| names.iter().position(|n| n == name).map(|i| captures.start + i);
        planned.push(match branch(site, graph, position)? {
            Some(branch) => branch,
            None => return Ok(None),
        });
    }
    let (Some(otherwise), Some(then)) = (planned.pop(), planned.pop()) else { return Ok(None) };
    let scratch =
        [&then, &otherwise].iter().map(|b| b.as_ref().map_or(0, Nested::scratch)).max().unwrap_or(0);
    let mut bound = Bound::row_major(site, Branches { then, otherwise }).scratch(scratch);
    bound.taken = constants(site);
    Ok(Some(bound))
}

fn branch(
    site: &Site<'_>,
    graph: Result<Graph, OpError>,
    position: impl Fn(&str) -> Option<usize>,
) -> Result<Option<Branch>, EngineError> {
    // A branch that does not fit its operands is never taken in a correct graph.
    let graph = match graph {
        Ok(graph) => graph,
        Err(reason) => return Ok(Some(Err(reason.to_string()))),
    };
    match Nested::new(site, &graph, position) {
        Ok(nested) if nested.gives(&site.outputs) => Ok(Some(Ok(nested))),
        Ok(_) => Ok(Some(Err("its results have other shapes than planned".into()))),
        Err(EngineError::UnknownShape { .. } | EngineError::Graph(GraphError::UnboundShape { .. })) => {
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// Types of the operands.
fn types(site: &Site<'_>) -> Vec<Option<TensorType>> {
    let ty = |o: &crate::kernel::Operand<'_>| TensorType::new(o.dtype, Shape::known(&o.extents));
    site.inputs.iter().map(|o| o.as_ref().map(ty)).collect()
}

/// The operands as shape inference sees them.
fn operands<'a>(site: &'a Site<'_>, types: &'a [Option<TensorType>]) -> Vec<Option<Operand<'a>>> {
    let constants = site.inputs.iter().map(|o| o.as_ref().and_then(|o| o.constant));
    types.iter().zip(constants).map(|(ty, constant)| Some(Operand { ty: ty.as_ref()?, constant })).collect()
}

/// Operands that are constant, which nested plans have taken in.
fn constants(site: &Site<'_>) -> Vec<usize> {
    let is_constant = |i: &usize| site.inputs[*i].as_ref().is_some_and(|o| o.constant.is_some());
    (1..site.inputs.len()).filter(is_constant).collect()
}

impl Kernel for Branches {
    fn name(&self) -> String {
        "if".into()
    }

    fn inside(&self) -> Vec<Inside<'_>> {
        let named = [("then", &self.then), ("else", &self.otherwise)];
        named.into_iter().filter_map(|(name, branch)| Some(branch.as_ref().ok()?.inside(name))).collect()
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let condition = io.input::<u8>(0)?;
        let [condition] = condition else {
            return Err(EngineError::failed(format!(
                "a condition of {} elements; expected one",
                condition.len()
            )));
        };
        let (name, branch) = if *condition != 0 { ("then", &self.then) } else { ("else", &self.otherwise) };
        let nested = branch.as_ref().map_err(|reason| {
            EngineError::failed(format!("the {name}-branch does not fit its operands: {reason}"))
        })?;
        let memory = scratch_of(io, nested)?;
        nested.load(io, memory, 0)?;
        nested.run(memory, io.cpu)?;
        for (index, port) in nested.plan.outputs.iter().enumerate() {
            io.output::<u8>(index)?.copy_from_slice(&memory[bytes(port.span)]);
        }
        Ok(())
    }
}

/// The scratch memory that a nested plan works in.
fn scratch_of<'a>(io: &Io<'a>, nested: &Nested) -> Result<&'a mut [u8], EngineError> {
    let memory: &'a mut [f32] = io.scratch()?;
    Ok(&mut bytemuck::cast_slice_mut::<f32, u8>(memory)[..nested.plan.arena_bytes])
}

struct Trips {
    body: Nested,
    trips: usize,
    carried: usize,
}

/// `Loop` on kernels; `None` where a trip changes the shape of what it carries, or shapes inside depend on data.
pub(super) fn trips(site: &Site<'_>, op: &ops::Loop) -> Result<Option<Bound>, EngineError> {
    let scanned = op.body.outputs().len() - op.carried;
    let types = types(site);
    let graph = op.specialised(Operands::new(&operands(site, &types)));
    let Ok(graph) = graph else { return Ok(None) };
    let names: Vec<_> = op.body.inputs().iter().map(|&i| op.body.label(i)).collect();
    // The trip's number is no operand; it stands where none is.
    let position =
        |name: &str| names.iter().position(|n| n == name).map(|i| i.checked_sub(1).unwrap_or(usize::MAX));
    let body = match Nested::new(site, &graph, position) {
        Ok(body) => body,
        Err(EngineError::UnknownShape { .. } | EngineError::Graph(GraphError::UnboundShape { .. })) => {
            return Ok(None);
        }
        Err(other) => return Err(other),
    };
    let same = |(port, operand): (&Port, &Option<crate::kernel::Operand<'_>>)| {
        operand.as_ref().is_some_and(|o| o.extents == port.extents && o.dtype == port.dtype)
    };
    let settled = body.plan.outputs.iter().take(op.carried).zip(&site.inputs).all(same);
    if !settled || scanned > MAX_SCANNED {
        return Ok(None);
    }
    // Behind the memory of the body: what one trip leaves to the next, all of it at once.
    let staged: usize = body.plan.outputs[..op.carried].iter().map(|p| p.span.bytes).sum();
    let scratch = body.scratch() + staged.div_ceil(size_of::<f32>());
    let mut bound =
        Bound::row_major(site, Trips { body, trips: op.trips, carried: op.carried }).scratch(scratch);
    bound.taken = constants(site).into_iter().filter(|&i| i >= op.carried).collect();
    Ok(Some(bound))
}

impl Kernel for Trips {
    fn name(&self) -> String {
        "loop".into()
    }

    fn inside(&self) -> Vec<Inside<'_>> {
        vec![self.body.inside("body")]
    }

    fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        let (plan, cpu) = (&self.body.plan, io.cpu);
        let scratch: &mut [u8] = bytemuck::cast_slice_mut(io.scratch()?);
        let (memory, staged) = scratch.split_at_mut(self.body.scratch() * size_of::<f32>());
        let memory = &mut memory[..plan.arena_bytes];
        // Inputs are the trip's number, the carried values, and captures that are not constant.
        self.body.load(io, memory, 1)?;
        let mut scanned: [Option<&mut [u8]>; MAX_SCANNED] = Default::default();
        for (index, slot) in (self.carried..plan.outputs.len()).zip(&mut scanned) {
            *slot = Some(io.output(index)?);
        }
        let carried_in = &plan.inputs[1..=self.carried];
        for trip in 0..self.trips {
            memory[bytes(plan.inputs[0].span)].copy_from_slice(&(trip as i64).to_ne_bytes());
            self.body.run(memory, cpu)?;
            // First what is scanned: it may be a carried value as it came in, which is overwritten next.
            for (port, to) in plan.outputs[self.carried..].iter().zip(scanned.iter_mut().flatten()) {
                let bytes = bytes(port.span);
                to[trip * bytes.len()..][..bytes.len()].copy_from_slice(&memory[bytes]);
            }
            let mut at = 0;
            for port in &plan.outputs[..self.carried] {
                staged[at..at + port.span.bytes].copy_from_slice(&memory[bytes(port.span)]);
                at += port.span.bytes;
            }
            let mut at = 0;
            for port in carried_in {
                memory[bytes(port.span)].copy_from_slice(&staged[at..at + port.span.bytes]);
                at += port.span.bytes;
            }
        }
        for (index, port) in carried_in.iter().enumerate() {
            io.output::<u8>(index)?.copy_from_slice(&memory[bytes(port.span)]);
        }
        Ok(())
    }
}
