//! The accelerator lens: mappings, mesh network, PE simulation, energy tables.
//!
//! It answers what a network would cost on a spatial accelerator such as Eyeriss v2. Everything is modelled: no
//! number here is a measurement, and each result names the architecture and the energy table behind it.

mod advice;
mod arch;
mod bounds;
mod constraints;
mod cost;
mod crew;
pub mod csc;
mod distinct;
mod energy;
mod error;
mod ert;
mod estimate;
mod evaluation;
mod eyexam;
mod layer;
mod made_up;
mod mapper;
mod mapping;
mod mapping_file;
mod mesh;
mod nests;
pub mod pe;
mod places;
mod remedies;
mod report;
mod simulate;
mod skipping;
mod space;
mod syntax;
mod table;
mod totals;
mod workload;
mod zeros;

pub use advice::{advice, held_back};
pub use arch::{
    Architecture, Axis, Bits, Buffer, Calibration, Halo, MAX_BUFFERS, Pe, PeKind, Ports, architecture_text,
    architectures,
};
pub use constraints::{Constraint, Constraints, LevelConstraint};
pub use cost::{Accesses, Bound, Cost, Counts, Cycles, Energy, Format};
pub use crew::Crew;
pub use distinct::each_distinct;
pub use energy::{AccessEnergy, EnergyTable, MacEnergy, tables};
pub use error::AccelError;
pub use ert::{Binding, EnergyFile, Part};
pub use estimate::{Estimate, LayerEstimate, estimate, estimate_given, estimate_layer, mode};
pub use eyexam::{STEPS, bandwidths, eyexam};
pub use layer::{Dim, Kind, Layer, Operand, Sparsity};
pub use made_up::made_up;
pub use mapper::{
    Effort, Front, Mapped, Objective, Search, as_given, evaluate, front, map, map_best_format, map_within,
};
pub use mapping::{Group, LevelLoops, Mapping, ORDERS, Order};
pub use mapping_file::{AxisLoops, Compressed, LayerMapping, Loops, MAPPING_SCHEMA, MappingFile};
pub use remedies::{Remedy, remedies};
pub use report::{PRESS, network_bounds, report};
pub use simulate::{Simulation, simulate, simulates};
pub use skipping::PeWork;
pub use space::SPACE;
pub use syntax::Syntax;
pub use table::listing;
pub use totals::Totals;
pub use workload::{Densities, Density, HostWork, Workload};
pub use zeros::Tally;
