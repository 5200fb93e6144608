//! ONNX in and out: what operators see of a foreign file, the importer and the exporter.

mod export_node;
mod foreign_node;

pub use export_node::ExportNode;
pub use foreign_node::{ForeignNode, ImportError};

/// The opset of exported files, the first with Gelu.
pub const EXPORT_OPSET: i64 = 20;
