//! The mapper: branch and bound over the space of mappings, with a proven optimum or a proven front.
//!
//! Branches are arrays with a PE tile and a format of the operands. The bound of a branch lets every tensor move as
//! if the order suited it best and external memory see each value once. Arrays are bounded from the most active PEs
//! to the fewest, the best branch of each block is opened at once, and what it finds cuts most of the others by
//! bounds that cost less ([`crate::bounds`]). What is left is opened from the least bound up, until what was found
//! cuts the rest.

mod front;
mod levels;
mod tiles;
mod tree;
mod works;

use std::time::Instant;

use crate::arch::Architecture;
use crate::constraints::Constraints;
use crate::cost::{Cost, Format};
use crate::crew::Crew;
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::evaluation::Context;
use crate::layer::Layer;
use crate::mapping::Mapping;
use crate::skipping::PeWork;
pub use front::{Front, front};
use tree::{Branch, Corners, Found, Tree};
use works::Works;

/// What a mapping is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Objective {
    /// Least energy, external memory included.
    Energy,
    /// Fewest cycles.
    Delay,
    /// Least product of both.
    #[default]
    Edp,
}

impl Objective {
    /// The number to be small: pJ, cycles, or their product.
    pub fn value(self, cost: &Cost) -> f64 {
        self.of(cost.energy.total(), cost.cycles.total())
    }

    /// The same from pJ and cycles.
    fn of(self, energy: f64, cycles: f64) -> f64 {
        match self {
            Objective::Energy => energy,
            Objective::Delay => cycles,
            Objective::Edp => energy * cycles,
        }
    }

    /// The least value of mappings at or above these pairs.
    fn least(self, corners: &Corners) -> f64 {
        corners.iter().map(|&(e, c)| self.of(e, c)).fold(f64::INFINITY, f64::min)
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Energy => "energy",
            Objective::Delay => "delay",
            Objective::Edp => "edp",
        }
    }
}

/// The best mapping found, and what is known of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// The mapping.
    pub mapping: Mapping,
    /// Its cost.
    pub cost: Cost,
    /// Its PE tile's work.
    pub work: PeWork,
    /// Formats it was made for.
    pub format: Format,
    /// Value of the objective.
    pub value: f64,
    /// No mapping of the space has a smaller value; equal to `value` when the optimum is proven.
    pub lower_bound: f64,
    /// Mappings evaluated one by one.
    pub evaluated: u64,
    /// Branches, each an array with a PE tile and a format.
    pub branches: u64,
    /// Branches opened; the others were cut by their bound.
    pub opened: u64,
}

impl Mapped {
    /// Whether the search ended with a proof.
    pub fn proven(&self) -> bool {
        self.value <= self.lower_bound
    }
}

/// Limits of a search. One mapping is found whatever they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Evaluations after which the best so far is returned, with its gap.
    pub evaluations: u64,
    /// Moment after which the same happens; the search then depends on the machine.
    pub until: Option<Instant>,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { evaluations: 40_000_000, until: None }
    }
}

impl Effort {
    fn spent(&self, evaluated: u64) -> bool {
        evaluated >= self.evaluations || self.until.is_some_and(|moment| Instant::now() >= moment)
    }
}

/// How a layer is to be mapped.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// What for; a front is for energy and delay, whatever stands here.
    pub objective: Objective,
    /// How long.
    pub effort: Effort,
    /// Within what.
    pub constraints: &'a Constraints,
    /// By whom; the result is the same.
    pub crew: &'a Crew,
    /// Is told the least bound of the branches that are opened next, once all are bounded: it rises from the least
    /// value that was possible.
    pub watch: &'a (dyn Fn(f64) + Sync),
}

/// The best mapping of a layer with operands in this format.
pub fn map(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    format: Format,
    objective: Objective,
    effort: Effort,
) -> Result<Mapped, AccelError> {
    let (constraints, crew) = (&Constraints::default(), &Crew::of(1));
    let search = Search { objective, effort, constraints, crew, watch: &|_| {} };
    search_formats(arch, layer, table, &[format], &search)
}

/// The best mapping over all formats that the architecture knows: compressed where that is worth it.
pub fn map_best_format(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    objective: Objective,
    effort: Effort,
) -> Result<Mapped, AccelError> {
    let (constraints, crew) = (&Constraints::default(), &Crew::of(1));
    let search = Search { objective, effort, constraints, crew, watch: &|_| {} };
    map_within(arch, layer, table, &search)
}

/// The same within constraints.
pub fn map_within(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    search: &Search<'_>,
) -> Result<Mapped, AccelError> {
    search_formats(arch, layer, table, &formats(arch, layer, table)?, search)
}

/// Formats that may be worth it: compressed below 98 % density, raw above 60 %.
fn formats(arch: &Architecture, layer: &Layer, table: &EnergyTable) -> Result<Vec<Format>, AccelError> {
    let context = Context::new(arch, layer, table, Format::default())?;
    let worth = |density: f64| {
        if !context.skips() || density >= 0.98 {
            &[false][..]
        } else if density < 0.6 {
            &[true][..]
        } else {
            &[true, false][..]
        }
    };
    let mut formats = vec![];
    for &iact in worth(layer.iact.density) {
        formats.extend(worth(layer.weight.density).iter().map(|&weight| Format { iact, weight }));
    }
    Ok(formats)
}

/// The best mapping so far.
struct Best {
    objective: Objective,
    least: f64,
    mapped: Option<Mapped>,
}

impl Found for Best {
    fn cuts(&self, energy: f64, cycles: f64) -> bool {
        self.objective.of(energy, cycles) >= self.least
    }

    fn take(
        &mut self,
        mapping: &Mapping,
        cost: &Cost,
        work: &PeWork,
        format: Format,
        branch: &Branch,
    ) -> bool {
        let value = self.objective.value(cost);
        if value < self.least {
            self.least = value;
            self.mapped = Some(mapped(mapping, cost, work, format, value));
        }
        self.least > branch.bound(self.objective)
    }

    fn fork(&self) -> Best {
        Best { mapped: None, ..*self }
    }

    fn join(&mut self, fork: Best) {
        if fork.least < self.least {
            *self = fork;
        }
    }
}

fn mapped(mapping: &Mapping, cost: &Cost, work: &PeWork, format: Format, value: f64) -> Mapped {
    Mapped {
        mapping: mapping.clone(),
        cost: *cost,
        work: *work,
        format,
        value,
        lower_bound: value,
        evaluated: 0,
        branches: 0,
        opened: 0,
    }
}

fn search_formats(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    formats: &[Format],
    search: &Search<'_>,
) -> Result<Mapped, AccelError> {
    let tree = Tree::plant(arch, layer, table, formats, search.constraints)?;
    let mut best = Best { objective: search.objective, least: f64::INFINITY, mapped: None };
    let (rest, tally) = tree.search(&mut best, search.objective, search);
    let best = best.mapped.ok_or_else(|| tree.infeasible(&tally))?;
    let lower_bound = best.value.min(rest);
    let (evaluated, branches, opened) = (tally.evaluated, tree.branches(), tally.opened);
    Ok(Mapped { lower_bound, evaluated, branches, opened, ..best })
}

/// The cost of a given mapping, after checking that it covers the layer and fits.
pub fn evaluate(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    format: Format,
    mapping: &Mapping,
) -> Result<Cost, AccelError> {
    Ok(as_given(arch, layer, table, format, mapping)?.cost)
}

/// A given mapping with its cost. Nothing was searched: its lower bound is 0, and its value is of `Edp`.
pub fn as_given(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    format: Format,
    mapping: &Mapping,
) -> Result<Mapped, AccelError> {
    layer.check()?;
    mapping.check(arch, layer)?;
    let context = Context::new(arch, layer, table, format)?;
    let facts = context.array(&mapping.spatial);
    let work = Works::default().of(&context, &mapping.pe, &facts.spread);
    if let Some(misfit) = context.misfit(mapping, &facts, &work) {
        return Err(misfit.error(arch, layer, &mapping.pe));
    }
    let cost = context.evaluate(mapping, &facts, &work);
    let value = Objective::Edp.value(&cost);
    Ok(Mapped { lower_bound: 0.0, evaluated: 1, ..mapped(mapping, &cost, &work, format, value) })
}

#[cfg(test)]
mod tests;
