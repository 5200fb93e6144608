//! The door for whoever runs graphs: tensors go in and come out as bytes, and nobody holds an executor's memory.

use std::sync::Arc;

use wattle_graph::{Graph, Parameters};

use crate::choices::PlanOptions;
use crate::error::EngineError;
use crate::plan_cache::PlanCache;
use crate::session::Session;
use crate::store::Store;

/// What can hold parameters and run graphs on them. Tensors are row-major bytes in the order of the machine, a bool one byte.
pub trait Executor {
    /// Parameters that outlive sessions.
    type Store;
    /// A compiled graph with its memory.
    type Session;

    /// Takes parameters in.
    fn store(&self, parameters: &Parameters) -> Result<Self::Store, EngineError>;

    /// The parameters as they are now.
    fn parameters(&self, store: &Self::Store) -> Result<Parameters, EngineError>;

    /// Prepares to run `graph` on the parameters of `store`.
    fn compile(&self, graph: &Graph, store: &Self::Store) -> Result<Self::Session, EngineError>;

    /// Writes input `input`, in the order of the graph.
    fn write(&self, session: &mut Self::Session, input: usize, bytes: &[u8]) -> Result<(), EngineError>;

    /// Runs the graph and its assignments.
    fn run(&self, session: &mut Self::Session) -> Result<(), EngineError>;

    /// Copies output `output`, in the order of the graph, to `bytes`, which are as many.
    fn read(&self, session: &Self::Session, output: usize, bytes: &mut [u8]) -> Result<(), EngineError>;
}

/// This machine's processor.
pub struct CpuExecutor {
    options: PlanOptions,
    plans: Arc<PlanCache>,
}

impl CpuExecutor {
    /// Runs plans that are made with these options, and kept in `plans`.
    pub fn new(options: PlanOptions, plans: Arc<PlanCache>) -> CpuExecutor {
        CpuExecutor { options, plans }
    }
}

impl Executor for CpuExecutor {
    type Store = Store;
    type Session = Session;

    fn store(&self, parameters: &Parameters) -> Result<Store, EngineError> {
        Ok(Store::new(parameters))
    }

    fn parameters(&self, store: &Store) -> Result<Parameters, EngineError> {
        Ok(store.parameters())
    }

    fn compile(&self, graph: &Graph, store: &Store) -> Result<Session, EngineError> {
        Session::new(self.plans.get(graph, store, &self.options)?, store)
    }

    fn write(&self, session: &mut Session, input: usize, bytes: &[u8]) -> Result<(), EngineError> {
        session.write(input, bytes)
    }

    fn run(&self, session: &mut Session) -> Result<(), EngineError> {
        session.run()
    }

    fn read(&self, session: &Session, output: usize, bytes: &mut [u8]) -> Result<(), EngineError> {
        let from = session.read(output)?;
        if from.len() != bytes.len() {
            return Err(EngineError::Feed {
                what: "output",
                name: output.to_string(),
                found: format!("{} bytes to read it to", bytes.len()),
                expected: format!("{} bytes", from.len()),
            });
        }
        bytes.copy_from_slice(from);
        Ok(())
    }
}
