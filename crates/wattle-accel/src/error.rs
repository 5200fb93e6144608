//! What can be wrong with an architecture, a workload or a mapping.

use thiserror::Error;

/// Why the accelerator lens could not answer.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum AccelError {
    /// An architecture or energy table by a name that is not shipped and not a file.
    #[error("there is no {what} `{name}`; shipped are: {known}")]
    Unknown {
        /// `architecture` or `energy table`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that does not parse or contradicts itself.
    #[error("{place}: {reason}")]
    Invalid {
        /// File or field.
        place: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// No mapping of a layer fits the architecture, or a given mapping does not.
    #[error("layer `{layer}` on `{arch}`: {constraint}: required {required}, available {available}")]
    Infeasible {
        /// Layer.
        layer: String,
        /// Architecture.
        arch: String,
        /// Constraint and level, such as `C0·S in the iact SPad`.
        constraint: String,
        /// Least that the layer needs.
        required: String,
        /// What the level has.
        available: String,
    },
    /// Counts or masks whose sizes contradict the layer.
    #[error("layer `{layer}`: {what} has {found} entries, expected {expected}")]
    Size {
        /// Layer.
        layer: String,
        /// Which list.
        what: &'static str,
        /// Found.
        found: usize,
        /// Expected.
        expected: usize,
    },
    /// A graph whose shapes are not all known.
    #[error(transparent)]
    Graph(#[from] wattle_graph::GraphError),
}

impl AccelError {
    /// A file or field that cannot be used.
    pub fn invalid(place: impl ToString, reason: impl ToString) -> AccelError {
        AccelError::Invalid { place: place.to_string(), reason: reason.to_string() }
    }
}
