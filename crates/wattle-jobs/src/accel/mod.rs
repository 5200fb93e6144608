//! What a network would cost on a flexible sparse accelerator. Everything here is modelled.

pub mod archs;
pub mod calibration;
pub mod compare;
pub mod densities;
pub mod estimate;
pub mod explain;
pub mod map;
pub mod modelled;
pub mod pe_cycles;
pub mod request;
pub mod simulate;

pub use archs::{ArchsOptions, Shipped, archs};
pub use compare::{CompareOptions, Compared, compare};
pub use estimate::{EstimateOptions, Estimated, estimate};
pub use explain::{ExplainOptions, Explained, explain};
pub use map::{MapOptions, Mapped, map};
pub use modelled::Modelled;
pub use pe_cycles::{PeCycles, PeCyclesOptions, pe_cycles};
pub use request::{DensityFrom, HardwareOptions, ModelOptions, architecture, estimated};
pub use simulate::{SimulateOptions, Simulated, simulate};
