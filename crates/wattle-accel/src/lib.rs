//! The accelerator lens: mappings, mesh network, PE simulation, energy tables.
//!
//! It answers what a network would cost on a spatial accelerator such as Eyeriss v2. Everything is modelled: no
//! number here is a measurement, and each result names the architecture and the energy table behind it.

mod csc;
mod error;
mod layer;
pub mod pe;
mod workload;

pub use error::AccelError;
pub use layer::{Dim, Kind, Layer, Operand, Sparsity};
pub use workload::{HostWork, Workload};
