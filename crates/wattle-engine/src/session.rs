//! Sessions: an arena and the plan that runs in it, on the parameters of a store.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wattle_graph::Tensor;
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Arena, Outside, Span};

use crate::bytes;
use crate::element::Element;
use crate::error::EngineError;
use crate::kernel::{Io, lock};
use crate::plan::{Plan, Port, Step};
use crate::store::{Contents, Store};

/// A plan with its memory, ready to run again and again.
pub struct Session {
    plan: Arc<Plan>,
    /// What the steps work in, or the inputs and outputs of a batch that is run in parts.
    arena: Arena,
    /// For a batch in parts: one for each part that runs at the same time.
    lanes: Vec<Mutex<Lane>>,
    times: Vec<Duration>,
    store: Store,
    found: Found,
}

/// Where a session last found the stored tensors of its plan.
#[derive(Default)]
struct Found {
    /// What the store was at then; sessions find everything again when that has changed.
    revision: u64,
    slots: Vec<usize>,
    homes: Vec<u32>,
}

/// What one part of a batch works in. Each thread has a lane of its own, so nobody waits for its lock.
struct Lane {
    arena: Arena,
    /// Time of each step, added up over the parts.
    times: Vec<Duration>,
}

impl Session {
    /// Allocates the arena and writes constants into it; parameters stay in `store`, where other sessions share them.
    ///
    /// # Errors
    /// When the store lacks a parameter of the plan, or holds one of another type or under another mask than the plan was
    /// made for; when the system does not give the memory.
    pub fn new(plan: impl Into<Arc<Plan>>, store: &Store) -> Result<Session, EngineError> {
        let plan = plan.into();
        let times = vec![Duration::ZERO; plan.steps.len()];
        let filled = || filled(&plan, Arena::try_new(plan.arena_bytes)?);
        let (arena, lanes) = match &plan.parts {
            None => (filled()?, vec![]),
            Some(parts) => {
                let lane = |_| Ok(Mutex::new(Lane { arena: filled()?, times: times.clone() }));
                let lanes = (0..plan.lanes()).map(lane).collect::<Result<_, EngineError>>()?;
                (Arena::try_new(parts.border_bytes)?, lanes)
            }
        };
        let mut found = Found::default();
        if !plan.needed.is_empty() {
            found.find(&plan, &store.peek())?;
            found.refresh(&plan, &mut store.lock())?;
        }
        Ok(Session { plan, arena, lanes, times, store: store.clone(), found })
    }

    /// Goes on with another plan on the same store, in the memory that there is where it is enough: new memory has to be
    /// brought in page by page, which may take as long as a run. All inputs are to be written again.
    ///
    /// # Errors
    /// As [`Session::new`]; the session then keeps its plan.
    pub fn replan(&mut self, plan: impl Into<Arc<Plan>>) -> Result<(), EngineError> {
        let plan = plan.into();
        if plan.parts.is_some() || self.plan.parts.is_some() || self.arena.bytes() < plan.arena_bytes {
            *self = Session::new(plan, &self.store)?;
            return Ok(());
        }
        let mut found = Found::default();
        if !plan.needed.is_empty() {
            found.find(&plan, &self.store.peek())?;
            found.refresh(&plan, &mut self.store.lock())?;
        }
        self.arena = filled(&plan, std::mem::replace(&mut self.arena, Arena::new(0)))?;
        self.times = vec![Duration::ZERO; plan.steps.len()];
        (self.plan, self.found) = (plan, found);
        Ok(())
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The store that its parameters are in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes the named input.
    pub fn set_input(&mut self, name: &str, tensor: &Tensor) -> Result<(), EngineError> {
        let port = &self.plan.inputs[self.input_index(name)?];
        let bytes = Plan::checked(port, "input", tensor)?;
        self.arena.write::<u8>(port.span)?.copy_from_slice(&bytes);
        Ok(())
    }

    /// The place of the named input among the inputs of the graph.
    pub fn input_index(&self, name: &str) -> Result<usize, EngineError> {
        index_of(&self.plan.inputs, "input", name)
    }

    /// The place of the named output among the outputs of the graph.
    pub fn output_index(&self, name: &str) -> Result<usize, EngineError> {
        index_of(&self.plan.outputs, "output", name)
    }

    /// Writes input `index` (in the order of the graph), row-major.
    ///
    /// # Errors
    /// When there is no such input or it has another number of bytes.
    pub fn write(&mut self, index: usize, bytes: &[u8]) -> Result<(), EngineError> {
        let port = port_at(&self.plan.inputs, "input", index)?;
        if bytes.len() != port.span.bytes {
            return Err(EngineError::Feed {
                what: "input",
                name: port.name.clone(),
                found: format!("{} bytes", bytes.len()),
                expected: format!("{} bytes of {}{:?}", port.span.bytes, port.dtype, port.extents),
            });
        }
        self.arena.write::<u8>(port.span)?.copy_from_slice(bytes);
        Ok(())
    }

    /// The bytes of output `index` (in the order of the graph), row-major.
    ///
    /// # Errors
    /// When there is no such output.
    pub fn read(&self, index: usize) -> Result<&[u8], EngineError> {
        Ok(self.arena.read(port_at(&self.plan.outputs, "output", index)?.span)?)
    }

    /// The memory of input `index` (in the order of the graph), row-major, to be written in place.
    ///
    /// # Errors
    /// When there is no such input or `T` is not its element type.
    pub fn input_mut<T: Element>(&mut self, index: usize) -> Result<&mut [T], EngineError> {
        let port = port_of::<T>(&self.plan.inputs, "input", index)?;
        Ok(self.arena.write(port.span)?)
    }

    /// The memory of output `index` (in the order of the graph), row-major.
    ///
    /// # Errors
    /// When there is no such output or `T` is not its element type.
    pub fn output<T: Element>(&self, index: usize) -> Result<&[T], EngineError> {
        let port = port_of::<T>(&self.plan.outputs, "output", index)?;
        Ok(self.arena.read(port.span)?)
    }

    /// All outputs, copied, with their names.
    pub fn outputs(&self) -> Result<Vec<(String, Tensor)>, EngineError> {
        let mut outputs = vec![];
        for port in &self.plan.outputs {
            let tensor = bytes::tensor(port.dtype, &port.extents, self.arena.read::<u8>(port.span)?);
            outputs.push((port.name.clone(), tensor));
        }
        Ok(outputs)
    }

    /// Runs all steps and then the assignments. A run that assigns has the store to itself until it ends.
    ///
    /// # Errors
    /// When a node fails on the values it meets, or the mask of a parameter is no longer the one the plan was made for.
    /// Assigned parameters may then hold the values of either run.
    pub fn run(&mut self) -> Result<(), EngineError> {
        self.run_with(false)
    }

    /// Runs as [`Session::run`] does, timing each step; the times are those of [`Session::step_times`].
    pub fn run_timed(&mut self) -> Result<(), EngineError> {
        self.run_with(true)
    }

    fn run_with(&mut self, timed: bool) -> Result<(), EngineError> {
        if self.plan.needed.is_empty() {
            return self.run_reading(&[], timed);
        }
        let store = self.store.clone();
        if self.plan.writes() {
            return self.run_writing(&mut store.lock(), timed);
        }
        loop {
            let contents = store.peek();
            if self.found.is_current(&self.plan, &contents)? {
                return self.run_reading(&contents.buffers, timed);
            }
            drop(contents);
            self.found.refresh(&self.plan, &mut store.lock())?;
        }
    }

    fn run_writing(&mut self, contents: &mut Contents, timed: bool) -> Result<(), EngineError> {
        if self.found.revision != contents.revision {
            self.found.refresh(&self.plan, contents)?;
        }
        let mut outside = Outside::exclusive(&mut contents.buffers, &self.found.homes);
        let (plan, arena) = (&*self.plan, &mut self.arena);
        let times = timed.then_some(&mut *self.times);
        let done = run_steps(plan, arena, &mut outside, &plan.cpu, times).and_then(|()| {
            plan.copies.iter().try_for_each(|copy| {
                let (inputs, outputs) = (&copy.from, &copy.to);
                let views = arena.views_with(outside.reborrow());
                copy.run(&Io { views, inputs, outputs, scratch: Span::default(), cpu: &plan.cpu })
            })
        });
        for (needed, &slot) in plan.needed.iter().zip(&self.found.slots).filter(|(n, _)| n.written) {
            contents.wrote(slot, needed);
        }
        contents.revision += 1;
        self.found.revision = contents.revision;
        done
    }

    fn run_reading(&mut self, buffers: &[Arena], timed: bool) -> Result<(), EngineError> {
        if self.plan.parts.is_some() {
            return self.run_parts(buffers, timed);
        }
        let mut outside = Outside::shared(buffers, &self.found.homes);
        let times = timed.then_some(&mut *self.times);
        run_steps(&self.plan, &mut self.arena, &mut outside, &self.plan.cpu, times)?;
        for copy in &self.plan.copies {
            let views = self.arena.views_with(outside.reborrow());
            let (inputs, outputs, cpu) = (&copy.from, &copy.to, &*self.plan.cpu);
            copy.run(&Io { views, inputs, outputs, scratch: Span::default(), cpu })?;
        }
        Ok(())
    }

    /// Time of each step in the last timed run, in the order of [`Plan::steps`]. Where parts of a batch run at the same time,
    /// theirs are added up and divided by how many do.
    pub fn step_times(&self) -> &[Duration] {
        &self.times
    }

    /// Runs a batch in parts: as many at the same time as there are threads, each part on one thread, and what is left over
    /// one after the other on all of them.
    fn run_parts(&mut self, buffers: &[Arena], timed: bool) -> Result<(), EngineError> {
        let Session { plan, arena, lanes, times, found, .. } = self;
        let (plan, lanes, homes) = (&**plan, &*lanes, &*found.homes);
        let count = plan.parts();
        let together =
            if lanes.len() == plan.cpu.threads.count() { count / lanes.len() * lanes.len() } else { 0 };
        let border = Mutex::new(arena);
        let failure = Mutex::new(None);
        let run = |lane: usize, part: usize, cpu: &Cpu| {
            let outside = Outside::shared(buffers, homes);
            if let Err(error) = lock(&lanes[lane]).run(plan, part, &border, outside, cpu, timed) {
                lock(&failure).get_or_insert(error);
            }
        };
        plan.cpu.threads.for_each_slot(together, |slot, part| run(slot, part, &plan.alone));
        times.fill(Duration::ZERO);
        let mut take = |at_once: usize| {
            for lane in lanes {
                for (sum, time) in times.iter_mut().zip(&mut lock(lane).times) {
                    *sum += std::mem::take(time) / at_once as u32;
                }
            }
        };
        take(lanes.len());
        (together..count).for_each(|part| run(0, part, &plan.cpu));
        take(1);
        failure.into_inner().unwrap_or_default().map_or(Ok(()), Err)
    }
}

impl Found {
    /// Whether all stored tensors are where they were found, up to date, or are found elsewhere to be so.
    fn is_current(&mut self, plan: &Plan, contents: &Contents) -> Result<bool, EngineError> {
        if self.revision == contents.revision {
            return Ok(true);
        }
        for ((needed, &slot), home) in plan.needed.iter().zip(&self.slots).zip(&mut self.homes) {
            contents.check_mask(slot, needed)?;
            match contents.fresh(slot, needed) {
                Some(buffer) => *home = buffer,
                None => return Ok(false),
            }
        }
        self.revision = contents.revision;
        Ok(true)
    }

    /// Finds all stored tensors of a plan by name, once: they stay where they are.
    fn find(&mut self, plan: &Plan, contents: &Contents) -> Result<(), EngineError> {
        self.slots = plan.needed.iter().map(|needed| contents.find(needed)).collect::<Result<_, _>>()?;
        self.homes = vec![0; plan.needed.len()];
        Ok(())
    }

    /// Brings all stored tensors up to date in the forms that the plan reads.
    fn refresh(&mut self, plan: &Plan, contents: &mut Contents) -> Result<(), EngineError> {
        for ((needed, &slot), home) in plan.needed.iter().zip(&self.slots).zip(&mut self.homes) {
            contents.check_mask(slot, needed)?;
            *home = contents.refresh(slot, needed, &plan.cpu)?;
        }
        self.revision = contents.revision;
        Ok(())
    }
}

impl Lane {
    /// Runs one part of the batch, from and to the arena that holds all of it.
    fn run(
        &mut self,
        plan: &Plan,
        part: usize,
        border: &Mutex<&mut Arena>,
        mut outside: Outside<'_>,
        cpu: &Cpu,
        timed: bool,
    ) -> Result<(), EngineError> {
        let Some(parts) = &plan.parts else { return Err(EngineError::Defect("a plan without parts".into())) };
        let piece = |whole: Span, own: Span| Span::in_arena(whole.offset + part * own.bytes, own.bytes);
        for (port, &own) in plan.inputs.iter().zip(&parts.inputs) {
            let border = lock(border);
            self.arena.write::<u8>(own)?.copy_from_slice(border.read(piece(port.span, own))?);
        }
        for (step, time) in plan.steps.iter().zip(&mut self.times) {
            let start = timed.then(Instant::now);
            run_step(plan, step, &mut self.arena, &mut outside, cpu)?;
            *time += start.map_or(Duration::ZERO, |start| start.elapsed());
        }
        for (port, &own) in plan.outputs.iter().zip(&parts.outputs) {
            let mut border = lock(border);
            border.write::<u8>(piece(port.span, own))?.copy_from_slice(self.arena.read(own)?);
        }
        Ok(())
    }
}

/// The arena with the constants of the plan, and room to remember what its steps ask for.
fn filled(plan: &Plan, mut arena: Arena) -> Result<Arena, EngineError> {
    for (span, bytes) in &plan.constants {
        arena.write::<u8>(*span)?.copy_from_slice(bytes);
    }
    let slices = plan.steps.iter().map(|s| s.inputs.len() + s.outputs.len()).max().unwrap_or(0);
    arena.reserve(2 * slices + 8);
    Ok(arena)
}

/// Runs all steps, and times them where there is somewhere to put the times.
fn run_steps(
    plan: &Plan,
    arena: &mut Arena,
    outside: &mut Outside<'_>,
    cpu: &Cpu,
    times: Option<&mut [Duration]>,
) -> Result<(), EngineError> {
    let Some(times) = times else {
        return plan.steps.iter().try_for_each(|step| run_step(plan, step, arena, outside, cpu));
    };
    for (step, time) in plan.steps.iter().zip(times) {
        let start = Instant::now();
        run_step(plan, step, arena, outside, cpu)?;
        *time = start.elapsed();
    }
    Ok(())
}

fn run_step(
    plan: &Plan,
    step: &Step,
    arena: &mut Arena,
    outside: &mut Outside<'_>,
    cpu: &Cpu,
) -> Result<(), EngineError> {
    let io = Io {
        views: arena.views_with(outside.reborrow()),
        inputs: &step.inputs,
        outputs: &step.outputs,
        scratch: step.scratch,
        cpu: if step.alone { &plan.alone } else { cpu },
    };
    step.kernel.run(&io).map_err(|error| match error {
        EngineError::Node { reason, .. } => {
            EngineError::Node { node: step.info.name.clone(), op: step.op.to_string(), reason }
        }
        other => other,
    })
}

fn index_of(ports: &[Port], what: &'static str, name: &str) -> Result<usize, EngineError> {
    ports.iter().position(|port| port.name == name).ok_or_else(|| {
        let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
        EngineError::Feed {
            what,
            name: name.into(),
            found: format!("no {what} of that name"),
            expected: format!("one of: {}", names.join(", ")),
        }
    })
}

fn port_at<'a>(ports: &'a [Port], what: &'static str, index: usize) -> Result<&'a Port, EngineError> {
    ports.get(index).ok_or_else(|| EngineError::Feed {
        what,
        name: index.to_string(),
        found: format!("a plan with {}", ports.len()),
        expected: "one more".into(),
    })
}

fn port_of<'a, T: Element>(
    ports: &'a [Port],
    what: &'static str,
    index: usize,
) -> Result<&'a Port, EngineError> {
    let port = port_at(ports, what, index)?;
    if !T::DTYPES.contains(&port.dtype) {
        return Err(EngineError::Feed {
            what,
            name: port.name.clone(),
            found: format!("elements of {}", T::DTYPES[0]),
            expected: port.dtype.to_string(),
        });
    }
    Ok(port)
}
