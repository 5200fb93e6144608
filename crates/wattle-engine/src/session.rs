//! Sessions: an arena and the plan that runs in it.

use std::time::{Duration, Instant};

use bytemuck::Pod;
use wattle_graph::{GraphError, Parameters, Tensor};
use wattle_kernels::arena::Arena;

use crate::bytes;
use crate::error::EngineError;
use crate::kernel::Io;
use crate::plan::{Plan, Port};

/// A plan with its memory, ready to run again and again.
pub struct Session {
    plan: Plan,
    arena: Arena,
    times: Vec<Duration>,
}

impl Session {
    /// Allocates the arena and writes constants and parameters into it.
    pub fn new(plan: Plan, parameters: &Parameters) -> Result<Session, EngineError> {
        let arena = Arena::new(plan.arena_bytes);
        let times = vec![Duration::ZERO; plan.steps.len()];
        let mut session = Session { plan, arena, times };
        for (span, bytes) in &session.plan.constants {
            session.arena.write::<u8>(*span)?.copy_from_slice(bytes);
        }
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
        for index in 0..self.plan.steps.len() {
            self.run_step(index)?;
        }
        self.assign()
    }

    /// Runs all steps, timing each; the times are those of [`Session::step_times`].
    pub fn run_timed(&mut self) -> Result<(), EngineError> {
        for index in 0..self.plan.steps.len() {
            let start = Instant::now();
            self.run_step(index)?;
            self.times[index] = start.elapsed();
        }
        self.assign()
    }

    /// Time of each step in the last timed run, in the order of [`Plan::steps`].
    pub fn step_times(&self) -> &[Duration] {
        &self.times
    }

    fn run_step(&mut self, index: usize) -> Result<(), EngineError> {
        let step = &mut self.plan.steps[index];
        let io = Io {
            views: self.arena.views(),
            inputs: &step.inputs,
            outputs: &step.outputs,
            scratch: step.scratch,
            cpu: if step.alone { &self.plan.alone } else { &self.plan.cpu },
        };
        step.kernel.run(&io).map_err(|error| match error {
            EngineError::Node { reason, .. } => {
                EngineError::Node { node: step.info.name.clone(), op: step.op.to_string(), reason }
            }
            other => other,
        })
    }

    fn assign(&mut self) -> Result<(), EngineError> {
        for &(from, to) in &self.plan.copies {
            let views = self.arena.views();
            views.write::<u8>(to)?.copy_from_slice(views.read::<u8>(from)?);
        }
        Ok(())
    }
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
