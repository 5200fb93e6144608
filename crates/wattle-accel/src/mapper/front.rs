//! Fronts: all mappings of a layer that no other beats in both energy and delay, proven within the space.

use super::tree::{Branch, Found, Tree};
use super::{Mapped, Objective, Search, formats, mapped};
use crate::arch::Architecture;
use crate::cost::{Cost, Format};
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::Layer;
use crate::mapping::Mapping;
use crate::skipping::PeWork;

/// All mappings that no other beats in both energy and delay.
#[derive(Clone, Debug, PartialEq)]
pub struct Front {
    /// From the least energy to the fewest cycles.
    pub points: Vec<Mapped>,
    /// Whether every mapping of the space is matched or beaten in both by a point.
    pub proven: bool,
    /// Mappings evaluated one by one.
    pub evaluated: u64,
    /// Branches there are.
    pub branches: u64,
    /// Branches opened.
    pub opened: u64,
}

/// All mappings of a layer that no other beats in both energy and delay, over all formats worth it. Of mappings
/// with equal energy and delay one is kept.
pub fn front(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    search: &Search<'_>,
) -> Result<Front, AccelError> {
    front_of(arch, layer, table, &formats(arch, layer, table)?, search)
}

/// Points that rise in energy and fall in cycles.
#[derive(Clone)]
struct Points(Vec<Mapped>);

impl Points {
    fn add(&mut self, energy: f64, cycles: f64, point: impl FnOnce() -> Mapped) {
        if !self.cuts(energy, cycles) {
            self.0.retain(|p| p.cost.energy.total() < energy || p.cost.cycles.total() < cycles);
            let at = self.0.partition_point(|p| p.cost.energy.total() < energy);
            self.0.insert(at, point());
        }
    }
}

impl Found for Points {
    fn cuts(&self, energy: f64, cycles: f64) -> bool {
        // The last point at or below this energy has the fewest cycles of those.
        let after = self.0.partition_point(|p| p.cost.energy.total() <= energy);
        after > 0 && self.0[after - 1].cost.cycles.total() <= cycles
    }

    fn take(&mut self, mapping: &Mapping, cost: &Cost, work: &PeWork, format: Format, _: &Branch) -> bool {
        let (energy, cycles) = (cost.energy.total(), cost.cycles.total());
        self.add(energy, cycles, || mapped(mapping, cost, work, format, energy * cycles));
        true
    }

    fn fork(&self) -> Points {
        self.clone()
    }

    fn join(&mut self, fork: Points) {
        for point in fork.0 {
            self.add(point.cost.energy.total(), point.cost.cycles.total(), || point);
        }
    }
}

pub(super) fn front_of(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    formats: &[Format],
    search: &Search<'_>,
) -> Result<Front, AccelError> {
    let tree = Tree::plant(arch, layer, table, formats, search.constraints)?;
    let mut points = Points(vec![]);
    let (rest, tally) = tree.search(&mut points, Objective::Edp, search);
    if points.0.is_empty() {
        return Err(tree.infeasible(&tally));
    }
    Ok(Front {
        points: points.0,
        proven: rest == f64::INFINITY,
        evaluated: tally.evaluated,
        branches: tree.branches(),
        opened: tally.opened,
    })
}
