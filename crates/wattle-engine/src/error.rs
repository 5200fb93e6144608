//! What can go wrong while planning or running.

use wattle_graph::GraphError;

/// Why a graph could not be planned or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The graph itself is at fault.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A shape is known only once the data is: such a graph can be interpreted but not planned.
    #[error(
        "the shape of `{value}`, {shape}, is not known before the run; bind all input shapes \
         (option `input`), and if that is done, the shape depends on the data"
    )]
    UnknownShape {
        /// The value.
        value: String,
        /// Its shape so far.
        shape: String,
    },
    /// What the caller fed or asked for does not fit the plan.
    #[error("{what} `{name}`: found {found}, expected {expected}")]
    Feed {
        /// `input`, `output` or `parameter`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What was given.
        found: String,
        /// What the plan holds.
        expected: String,
    },
    /// A node failed on the values it met.
    #[error("node `{node}` ({op}) failed: {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Why.
        reason: String,
    },
    /// The plan is larger than the memory it may use.
    #[error(
        "the plan needs {needed} bytes of memory, more than the limit of {limit}; use smaller inputs or batches"
    )]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The system does not give the memory of a session or of a store.
    #[error("{0}; use smaller inputs or batches, or end other programs")]
    OutOfMemory(#[from] wattle_kernels::arena::OutOfMemory),
    /// The plan contradicts itself: a defect of this crate.
    #[error("defect in the plan: {0}; please report this with the model")]
    Defect(String),
}

impl EngineError {
    /// A kernel's complaint about the values it met; the plan adds which node it was.
    pub fn failed(reason: impl Into<String>) -> EngineError {
        EngineError::Node { node: String::new(), op: String::new(), reason: reason.into() }
    }
}

impl From<wattle_kernels::arena::ViewError> for EngineError {
    fn from(error: wattle_kernels::arena::ViewError) -> EngineError {
        EngineError::Defect(error.to_string())
    }
}
