//! What can go wrong with an ONNX file.

use super::ImportError;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        cause: std::io::Error,
    },
    /// The bytes are not an ONNX file, or break its rules.
    #[error("not a valid ONNX file: {0}")]
    Malformed(String),
    /// The file is larger than the limits allow.
    #[error("{what}: {found}, more than the limit of {limit}")]
    TooLarge {
        /// Which quantity.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Operators that wattle does not know, all of them.
    #[error("unsupported operators: {}", .0.join("; "))]
    UnsupportedOperators(Vec<String>),
    /// Nodes that could not be imported, all of them.
    #[error("{}", texts(.0))]
    Nodes(Vec<ImportError>),
    /// Nodes that have no ONNX form, all of them.
    #[error("the graph cannot be written as ONNX: {}", .0.join("; "))]
    NotExpressible(Vec<String>),
}

fn texts(errors: &[ImportError]) -> String {
    errors.iter().map(ImportError::to_string).collect::<Vec<_>>().join("; ")
}
