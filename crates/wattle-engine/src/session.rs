//! Sessions: an arena and the plan that runs in it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use wattle_graph::{GraphError, Parameters, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Arena, Span};

use crate::bytes;
use crate::error::EngineError;
use crate::kernel::{Io, lock};
use crate::plan::{Plan, Port, Step};

/// A plan with its memory, ready to run again and again.
pub struct Session {
    plan: Plan,
    /// What the steps work in, or the inputs and outputs of a batch that is run in parts.
    arena: Arena,
    /// For a batch in parts: one for each part that runs at the same time.
    lanes: Vec<Mutex<Lane>>,
    times: Vec<Duration>,
}

/// What one part of a batch works in. Each thread has a lane of its own, so nobody waits for its lock.
struct Lane {
    arena: Arena,
    /// Time of each step, added up over the parts.
    times: Vec<Duration>,
}

impl Session {
    /// Allocates the arena and writes constants and parameters into it.
    pub fn new(plan: Plan, parameters: &Parameters) -> Result<Session, EngineError> {
        let times = vec![Duration::ZERO; plan.steps.len()];
        let filled = || -> Result<Arena, EngineError> {
            let mut arena = Arena::new(plan.arena_bytes);
            for (span, bytes) in &plan.constants {
                arena.write::<u8>(*span)?.copy_from_slice(bytes);
            }
            Ok(arena)
        };
        let (arena, lanes) = match &plan.parts {
            None => (filled()?, vec![]),
            Some(parts) => {
                let lane = |_| Ok(Mutex::new(Lane { arena: filled()?, times: times.clone() }));
                let lanes = (0..plan.lanes()).map(lane).collect::<Result<_, EngineError>>()?;
                (Arena::new(parts.border_bytes), lanes)
            }
        };
        let mut session = Session { plan, arena, lanes, times };
        session.load_parameters(parameters)?;
        Ok(session)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Writes all parameters (weights, statistics, optimiser state) of a training plan from `parameters`.
    pub fn load_parameters(&mut self, parameters: &Parameters) -> Result<(), EngineError> {
        for (parameter, port) in &self.plan.parameters {
            let tensor = parameters.view(parameter).ok_or_else(|| GraphError::Feed {
                what: "parameter",
                name: port.name.clone(),
                found: "none, or one that the window does not fit".into(),
                expected: format!("{}{:?}", port.dtype, port.extents),
            })?;
            let bytes = Plan::checked(port, "parameter", &tensor)?;
            match (&port.kept, tensor.as_f32()) {
                (Some(kept), Some(whole)) => kept.gather(whole, self.arena.write(port.span)?),
                _ => self.arena.write::<u8>(port.span)?.copy_from_slice(&bytes),
            }
        }
        Ok(())
    }

    /// Reads all parameters of a training plan back into `parameters`, through their windows.
    pub fn read_parameters(&mut self, parameters: &mut Parameters) -> Result<(), EngineError> {
        for (parameter, port) in &self.plan.parameters {
            let tensor = match &port.kept {
                Some(kept) => {
                    let mut whole = vec![0.0; port.extents.iter().product()];
                    kept.scatter(self.arena.read::<f32>(port.span)?, &mut whole);
                    Tensor::f32(port.extents.clone(), whole)
                }
                None => bytes::tensor(port.dtype, &port.extents, self.arena.read::<u8>(port.span)?),
            };
            if !parameters.write_view(parameter, tensor) {
                return Err(EngineError::Defect(format!("parameter `{}` has changed its shape", port.name)));
            }
        }
        Ok(())
    }

    /// Writes the named input.
    pub fn set_input(&mut self, name: &str, tensor: &Tensor) -> Result<(), EngineError> {
        let port = self.plan.inputs.iter().find(|p| p.name == name).ok_or_else(|| {
            let names: Vec<_> = self.plan.inputs.iter().map(|p| p.name.as_str()).collect();
            EngineError::Feed {
                what: "input",
                name: name.into(),
                found: "no input of that name".into(),
                expected: format!("one of: {}", names.join(", ")),
            }
        })?;
        let bytes = Plan::checked(port, "input", tensor)?;
        self.arena.write::<u8>(port.span)?.copy_from_slice(&bytes);
        Ok(())
    }

    /// The memory of input `index` (in the order of the graph), row-major, to be written in place.
    ///
    /// # Errors
    /// When there is no such input or `T` is not its element type's size.
    pub fn input_mut<T: Pod>(&mut self, index: usize) -> Result<&mut [T], EngineError> {
        let port = port_of::<T>(&self.plan.inputs, "input", index)?;
        Ok(self.arena.write(port.span)?)
    }

    /// The memory of output `index` (in the order of the graph), row-major.
    ///
    /// # Errors
    /// When there is no such output or `T` is not its element type's size.
    pub fn output<T: Pod>(&mut self, index: usize) -> Result<&[T], EngineError> {
        let port = port_of::<T>(&self.plan.outputs, "output", index)?;
        Ok(self.arena.read(port.span)?)
    }

    /// All outputs, copied, with their names.
    pub fn outputs(&mut self) -> Result<Vec<(String, Tensor)>, EngineError> {
        let mut outputs = vec![];
        for port in &self.plan.outputs {
            let tensor = bytes::tensor(port.dtype, &port.extents, self.arena.read::<u8>(port.span)?);
            outputs.push((port.name.clone(), tensor));
        }
        Ok(outputs)
    }

    /// Runs all steps and then the assignments.
    pub fn run(&mut self) -> Result<(), EngineError> {
        if self.plan.parts.is_some() {
            return self.run_parts(false);
        }
        for step in &self.plan.steps {
            run_step(&self.plan, step, &mut self.arena, &self.plan.cpu)?;
        }
        self.assign()
    }

    /// Runs all steps, timing each; the times are those of [`Session::step_times`].
    pub fn run_timed(&mut self) -> Result<(), EngineError> {
        if self.plan.parts.is_some() {
            return self.run_parts(true);
        }
        for (step, time) in self.plan.steps.iter().zip(&mut self.times) {
            let start = Instant::now();
            run_step(&self.plan, step, &mut self.arena, &self.plan.cpu)?;
            *time = start.elapsed();
        }
        self.assign()
    }

    /// Time of each step in the last timed run, in the order of [`Plan::steps`]. Where parts of a batch run at the same time,
    /// theirs are added up and divided by how many do.
    pub fn step_times(&self) -> &[Duration] {
        &self.times
    }

    /// Runs a batch in parts: as many at the same time as there are threads, each part on one thread, and what is left over
    /// one after the other on all of them.
    fn run_parts(&mut self, timed: bool) -> Result<(), EngineError> {
        let Session { plan, arena, lanes, times } = self;
        let (plan, lanes) = (&*plan, &*lanes);
        let count = plan.parts();
        let together =
            if lanes.len() == plan.cpu.threads.count() { count / lanes.len() * lanes.len() } else { 0 };
        let border = Mutex::new(arena);
        let failure = Mutex::new(None);
        let run = |lane: usize, part: usize, cpu: &Cpu| {
            if let Err(error) = lock(&lanes[lane]).run(plan, part, &border, cpu, timed) {
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

    fn assign(&mut self) -> Result<(), EngineError> {
        for &(from, to) in &self.plan.copies {
            let views = self.arena.views();
            views.write::<u8>(to)?.copy_from_slice(views.read::<u8>(from)?);
        }
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
        cpu: &Cpu,
        timed: bool,
    ) -> Result<(), EngineError> {
        let Some(parts) = &plan.parts else { return Err(EngineError::Defect("a plan without parts".into())) };
        let piece =
            |whole: Span, own: Span| Span { offset: whole.offset + part * own.bytes, bytes: own.bytes };
        for (port, &own) in plan.inputs.iter().zip(&parts.inputs) {
            let mut border = lock(border);
            self.arena.write::<u8>(own)?.copy_from_slice(border.read(piece(port.span, own))?);
        }
        for (step, time) in plan.steps.iter().zip(&mut self.times) {
            let start = timed.then(Instant::now);
            run_step(plan, step, &mut self.arena, cpu)?;
            *time += start.map_or(Duration::ZERO, |start| start.elapsed());
        }
        for (port, &own) in plan.outputs.iter().zip(&parts.outputs) {
            let mut border = lock(border);
            border.write::<u8>(piece(port.span, own))?.copy_from_slice(self.arena.read(own)?);
        }
        Ok(())
    }
}

fn run_step(plan: &Plan, step: &Step, arena: &mut Arena, cpu: &Cpu) -> Result<(), EngineError> {
    let io = Io {
        views: arena.views(),
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

fn port_of<'a, T>(ports: &'a [Port], what: &'static str, index: usize) -> Result<&'a Port, EngineError> {
    let port = ports.get(index).ok_or_else(|| EngineError::Feed {
        what,
        name: index.to_string(),
        found: format!("a plan with {}", ports.len()),
        expected: "one more".into(),
    })?;
    if port.dtype.size() != size_of::<T>() {
        return Err(EngineError::Feed {
            what,
            name: port.name.clone(),
            found: format!("elements of {} bytes", size_of::<T>()),
            expected: port.dtype.to_string(),
        });
    }
    Ok(port)
}
