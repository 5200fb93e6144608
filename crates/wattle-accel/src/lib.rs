//! The accelerator lens: mappings, mesh network, PE simulation, energy tables.
//!
//! It answers what a network would cost on a spatial accelerator such as Eyeriss v2. Everything is modelled: no
//! number here is a measurement, and each result names the architecture and the energy table behind it.

mod arch;
mod cost;
pub mod csc;
mod energy;
mod error;
mod estimate;
mod eyexam;
mod layer;
mod mapper;
mod mapping;
mod mesh;
pub mod pe;
mod report;
mod simulate;
mod skipping;
mod workload;

pub use arch::{Architecture, Axis, Bits, Calibration, Glb, Halo, Pe, PeKind, Ports, architectures};
pub use cost::{Accesses, Bound, Cost, Counts, Cycles, Energy, Format};
pub use energy::{AccessEnergy, EnergyTable, MacEnergy, tables};
pub use error::AccelError;
pub use estimate::{Estimate, LayerEstimate, estimate, estimate_layer, mode};
pub use eyexam::{STEPS, eyexam};
pub use layer::{Dim, Kind, Layer, Operand, Sparsity};
pub use mapper::{Effort, Mapped, Objective, evaluate, map, map_best_format};
pub use mapping::{Group, Mapping, ORDERS, Order};
pub use report::report;
pub use simulate::{Simulation, made_up, simulate};
pub use skipping::PeWork;
pub use workload::{Densities, HostWork, Workload};
