//! ONNX in and out: what operators see of a foreign file, the importer and the exporter.

mod error;
mod export;
mod export_node;
mod external;
mod foreign_node;
mod functions;
mod import;
mod merged;
mod proto;
mod sparse;
mod spelled_out;
mod tensor_proto;
mod weigh;
mod weights;

pub use error::OnnxError;
pub use export::{encode_model, encode_model_as};
pub use export_node::ExportNode;
pub use foreign_node::{ForeignNode, ImportError};
pub use import::{Limits, decode_model, read_model};
pub use sparse::SparseFormat;
pub use spelled_out::ALL as SPELLED_OUT;
pub use tensor_proto::decode_tensor;
pub(crate) use tensor_proto::{dtype as dtype_of_number, number as number_of_dtype};

/// The opset of exported files, the first with Gelu.
pub const EXPORT_OPSET: i64 = 20;
