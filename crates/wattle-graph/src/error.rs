//! What can go wrong with a graph.

/// Why an operator refused its operands or attributes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpError {
    /// An operand that the operator needs is missing.
    #[error("operand {index} ({name}) is missing")]
    MissingOperand {
        /// Position in the operator's list of operands.
        index: usize,
        /// Its role.
        name: &'static str,
    },
    /// Shapes, types or attributes do not fit together.
    #[error("{what}: found {found}, expected {expected}")]
    Mismatch {
        /// The quantity in question.
        what: &'static str,
        /// What was given.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// The operator needs something to be constant or known that is not yet.
    #[error("{0} must be known here; bind the graph's input shapes first: option `input`")]
    Unbound(&'static str),
    /// The operator has no form in the exported format.
    #[error("{0}")]
    Unsupported(String),
}

impl OpError {
    /// A mismatch between what was found and what was expected.
    pub fn mismatch(what: &'static str, found: impl ToString, expected: impl ToString) -> OpError {
        OpError::Mismatch { what, found: found.to_string(), expected: expected.to_string() }
    }
}

/// Why a graph could not be built, checked, differentiated, rewritten or evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// An operator refused its operands.
    #[error("node `{node}` ({op}) on ({operands}): {cause}")]
    Operator {
        /// Name of the node, possibly empty.
        node: String,
        /// Name of the operator.
        op: String,
        /// Types of the operands it saw.
        operands: String,
        /// The operator's own words.
        cause: OpError,
    },
    /// A shape is still symbolic where numbers are needed.
    #[error("the shape of `{value}` is {shape}; give the sizes of the inputs: option `input`")]
    UnboundShape {
        /// Name of the value.
        value: String,
        /// Its shape so far.
        shape: String,
    },
    /// An assignment whose target is no parameter or whose types differ.
    #[error("cannot assign {value} to {target}: the target must be a parameter of the same type")]
    Assignment {
        /// Name and type of the target.
        target: String,
        /// Name and type of the value.
        value: String,
    },
    /// Two assignments that write the same element, so that the result would depend on their order.
    #[error(
        "`{target}` is assigned although `{earlier}` is: an element can be assigned once in a run; add the two values, or \
         give them windows that do not overlap"
    )]
    AssignedTwice {
        /// Tensor and window of the later assignment.
        target: String,
        /// Tensor and window of the earlier one.
        earlier: String,
    },
    /// No gradient is defined where one is needed.
    #[error("no gradient through node `{node}` ({op}): {reason}")]
    NotDifferentiable {
        /// Name of the node.
        node: String,
        /// Name of the operator.
        op: String,
        /// Why.
        reason: &'static str,
    },
    /// The graph breaks its invariant, or a request does not fit it.
    #[error("{0}")]
    Invalid(String),
    /// A tensor given for an input or parameter is missing or of the wrong type.
    #[error("{what} `{name}`: found {found}, expected {expected}")]
    Feed {
        /// `input` or `parameter`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What was given.
        found: String,
        /// What the graph declares.
        expected: String,
    },
}
