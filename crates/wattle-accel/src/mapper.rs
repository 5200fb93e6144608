//! The mapper: branch and bound over the space of mappings, with a proven optimum or a proven front.
//!
//! Branches are arrays with a PE tile and a format of the operands. The bound of a branch lets every tensor move as
//! if the order suited it best and external memory see each value once. Arrays are bounded from the most active PEs
//! to the fewest, the best branch of each block is opened at once, and what it finds cuts most of the others by
//! bounds that cost less ([`crate::bounds`]). What is left is opened from the least bound up, until what was found
//! cuts the rest.

mod front;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

use crate::arch::Architecture;
use crate::bounds::{self, Floor};
use crate::constraints::{Constraints, Limits};
use crate::cost::{Context, Cost, Format};
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::Layer;
use crate::mapping::{Mapping, Misfit, ORDERS};
use crate::skipping::{PeWork, fullest_words};
use crate::space::{self, Spatial, buffer_tiles, chain, orders};
pub use front::{Front, front};

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
    /// Is told the bound of every branch that is opened once all are bounded: it rises from the least value that was
    /// possible.
    pub watch: &'a (dyn Fn(f64) + Sync),
}

/// Remembers the work of PE tiles: many arrays share it.
#[derive(Default)]
struct Works(HashMap<WorkKey, PeWork, Quick>, HashMap<[usize; 8], Option<f64>, Quick>);

/// The tile; channels and taps of a chain; groups of filters.
type WorkKey = ([usize; 8], (usize, usize), usize);

/// Hashes small numbers by multiplying: the keys are ours, nobody can choose them to collide.
#[derive(Clone, Default)]
struct Quick(u64);

impl BuildHasher for Quick {
    type Hasher = Quick;

    fn build_hasher(&self) -> Quick {
        Quick(0)
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

impl Works {
    fn of(&mut self, context: &Context<'_>, pe: &[usize; 8], spread: &[usize; 8]) -> PeWork {
        let (members, filters) = chain(spread);
        // Without skipping PEs never wait for each other.
        let (members, filters) = if context.skips() { (members, filters) } else { ((1, 1), 1) };
        let key = (*pe, members, filters);
        let Works(works, fullest) = self;
        *works.entry(key).or_insert_with(|| {
            let mut work = PeWork::of(context, pe, members, filters);
            // Known weights decide by the fullest PE, whatever the array.
            let exact = fullest.entry(*pe).or_insert_with(|| fullest_words(context, pe));
            work.weight_words = exact.unwrap_or(work.weight_words);
            work
        })
    }
}

/// An array with a PE tile and a format, whose mappings are not known yet.
#[derive(Clone, Copy)]
struct Branch {
    /// pJ and cycles: every mapping of the branch is at or above one of these pairs in both.
    corners: [(f64, f64); 3],
    format: u8,
    array: u32,
    pe: [usize; 8],
}

impl Branch {
    fn bound(&self, objective: Objective) -> f64 {
        self.corners.iter().map(|&(e, c)| objective.of(e, c)).fold(f64::INFINITY, f64::min)
    }
}

/// What a search knows so far, by which it cuts branches.
trait Found {
    /// Whether mappings at or above this energy and these cycles are of no use.
    fn cuts(&self, energy: f64, cycles: f64) -> bool;

    /// Whether a branch is of no use.
    fn cuts_branch(&self, branch: &Branch) -> bool {
        branch.corners.iter().all(|&(energy, cycles)| self.cuts(energy, cycles))
    }

    /// Takes a mapping; `false` ends its branch.
    fn take(
        &mut self,
        mapping: &Mapping,
        cost: &Cost,
        work: &PeWork,
        format: Format,
        branch: &Branch,
    ) -> bool;
}

/// The tree of branches of a layer.
struct Tree<'a> {
    contexts: Vec<Context<'a>>,
    floors: Vec<Floor>,
    limits: Limits,
    /// From the most active PEs to the fewest.
    arrays: Vec<Spatial>,
    works: Vec<Works>,
    /// Branches seen so far, cut or not, and those that fit their pads.
    seen: u64,
    fitting: u64,
    opened: u64,
    /// Mappings evaluated.
    evaluated: u64,
    /// Tiles of the buffer that cover their layer, seen so far.
    tiles: u64,
    /// How far off the nearest of the tiles that do not fit is.
    nearest: Option<(Misfit, [usize; 8])>,
}

/// Arrays whose branches are bounded before the best of these is opened.
const BLOCK: usize = 16;

impl<'a> Tree<'a> {
    fn plant(
        arch: &'a Architecture,
        layer: &'a Layer,
        table: &'a EnergyTable,
        formats: &[Format],
        constraints: &Constraints,
    ) -> Result<Tree<'a>, AccelError> {
        layer.check()?;
        let limits = constraints.limits(arch, layer)?;
        let mut arrays = space::arrays(arch, layer, &limits);
        let active = |a: &Spatial| a.iter().flatten().map(|(_, n)| n).product::<usize>();
        arrays.sort_by_key(|a| std::cmp::Reverse(active(a)));
        let contexts: Vec<_> = formats.iter().map(|&format| Context { arch, layer, table, format }).collect();
        let floors = contexts.iter().map(Floor::of).collect();
        let works = formats.iter().map(|_| Works::default()).collect();
        Ok(Tree {
            contexts,
            floors,
            limits,
            arrays,
            works,
            seen: 0,
            fitting: 0,
            opened: 0,
            evaluated: 0,
            tiles: 0,
            nearest: None,
        })
    }

    /// Opens branches until what was found cuts all others, or the effort is spent; returns the least bound of those
    /// that were not opened. Bounds come in three steps, each dearer and closer: a floor of the PE tile, corners
    /// without idle lanes or waiting, corners with them.
    fn search(
        &mut self,
        found: &mut impl Found,
        objective: Objective,
        effort: Effort,
        watch: &(dyn Fn(f64) + Sync),
    ) -> f64 {
        let mut kept: Vec<(f64, Branch)> = vec![];
        let mut energies: HashMap<([usize; 8], usize), (f64, f64), Quick> = HashMap::default();
        let mut fresh: Vec<(f64, Branch)> = vec![];
        for at in 0..self.arrays.len() {
            self.bound_array(at, found, objective, &mut energies, &mut fresh);
            if (at + 1) % BLOCK == 0 || at + 1 == self.arrays.len() {
                // The best of a block early cuts many of the next.
                let best = fresh.iter().enumerate().min_by(|a, b| a.1.0.total_cmp(&b.1.0)).map(|(i, _)| i);
                if let Some(i) = best
                    && (self.evaluated == 0 || !effort.spent(self.evaluated))
                    && !found.cuts_branch(&fresh[i].1)
                {
                    let (_, branch) = fresh.swap_remove(i);
                    self.open(&branch, found);
                }
                kept.extend(fresh.drain(..).filter(|(_, branch)| !found.cuts_branch(branch)));
            }
        }
        kept.sort_by(|(a, x), (b, y)| {
            a.total_cmp(b).then_with(|| (x.array, x.pe, x.format).cmp(&(y.array, y.pe, y.format)))
        });
        for (bound, branch) in &kept {
            if found.cuts_branch(branch) {
                continue;
            }
            if self.evaluated > 0 && effort.spent(self.evaluated) {
                return *bound;
            }
            self.open(branch, found);
            watch(*bound);
        }
        f64::INFINITY
    }

    /// Adds the branches of an array that what was found does not cut.
    fn bound_array(
        &mut self,
        at: usize,
        found: &impl Found,
        objective: Objective,
        energies: &mut HashMap<([usize; 8], usize), (f64, f64), Quick>,
        branches: &mut Vec<(f64, Branch)>,
    ) {
        let (arch, layer) = (self.contexts[0].arch, self.contexts[0].layer);
        // Spread loops and sharing do not depend on the format.
        let facts = self.contexts[0].array(&self.arrays[at]);
        for pe in space::pe_tiles(arch, layer, &facts.spread, &self.limits) {
            let tiles = bounds::tiles(layer, &facts.spread, &pe);
            for format in 0..self.contexts.len() {
                self.seen += 1;
                let (context, floor) = (&self.contexts[format], &self.floors[format]);
                let least = floor.work(context, &pe, &facts.spread);
                let energy =
                    *energies.entry((pe, format)).or_insert_with(|| context.energy_floor(floor, &pe));
                let cycles = tiles * least.synchronised;
                if found.cuts(context.energy_floor_within(energy, cycles), cycles) {
                    self.fitting += 1;
                    continue;
                }
                let slack = context.relaxed_slack(&facts, &pe);
                let corners = |work: &PeWork| {
                    context.relaxed(&facts, &pe, work).map(|cost| {
                        let none = (f64::INFINITY, f64::INFINITY);
                        cost.map_or(none, |c| ((c.energy.total() - slack).max(0.0), c.cycles.total()))
                    })
                };
                let mut branch =
                    Branch { corners: corners(&least), format: format as u8, array: at as u32, pe };
                if found.cuts_branch(&branch) {
                    self.fitting += 1;
                    continue;
                }
                let work = self.works[format].of(context, &pe, &facts.spread);
                if let Some(misfit) = context.pe_misfit(&pe, &work) {
                    self.remember(misfit, &pe);
                    continue;
                }
                self.fitting += 1;
                branch.corners = corners(&work);
                if !found.cuts_branch(&branch) {
                    branches.push((branch.bound(objective), branch));
                }
            }
        }
    }

    fn remember(&mut self, misfit: Misfit, pe: &[usize; 8]) {
        if self.nearest.is_none_or(|(nearest, _)| misfit.excess() < nearest.excess()) {
            self.nearest = Some((misfit, *pe));
        }
    }

    /// Evaluates the mappings of a branch.
    fn open(&mut self, branch: &Branch, found: &mut impl Found) {
        self.opened += 1;
        let format = branch.format as usize;
        let context = self.contexts[format].clone();
        let spatial = &self.arrays[branch.array as usize];
        let facts = context.array(spatial);
        let work = self.works[format].of(&context, &branch.pe, &facts.spread);
        let trips: [usize; 8] =
            std::array::from_fn(|i| context.layer.bounds[i].div_ceil(facts.spread[i] * branch.pe[i]));
        let mut mapping = Mapping {
            spatial: spatial.clone(),
            pe: branch.pe,
            glb: [1; 8],
            glb_order: ORDERS[0],
            dram: [1; 8],
            dram_order: ORDERS[0],
        };
        for (glb, dram) in buffer_tiles(&trips, &self.limits) {
            (mapping.glb, mapping.dram) = (glb, dram);
            self.tiles += 1;
            if let Some(misfit) = context.misfit(&mapping, &facts, &work) {
                self.remember(misfit, &branch.pe);
                continue;
            }
            for dram_order in orders(&dram, &self.limits.dram) {
                for glb_order in orders(&glb, &self.limits.glb) {
                    (mapping.dram_order, mapping.glb_order) = (dram_order, glb_order);
                    let cost = context.evaluate(&mapping, &facts, &work);
                    self.evaluated += 1;
                    if !found.take(&mapping, &cost, &work, context.format, branch) {
                        return;
                    }
                }
            }
        }
    }

    /// Why there is no mapping at all.
    fn infeasible(&self) -> AccelError {
        let (arch, layer) = (self.contexts[0].arch, self.contexts[0].layer);
        match self.nearest {
            Some((misfit, pe)) if self.fitting == 0 || self.tiles > 0 => misfit.error(arch, layer, &pe),
            _ => AccelError::Infeasible {
                layer: layer.name.clone(),
                arch: arch.name.clone(),
                constraint: "constraints leave no tile that covers the layer".to_string(),
                required: "at least one".to_string(),
                available: "none".to_string(),
            },
        }
    }
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
    let search = Search { objective, effort, constraints: &Constraints::default(), watch: &|_| {} };
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
    let search = Search { objective, effort, constraints: &Constraints::default(), watch: &|_| {} };
    map_within(arch, layer, table, &search)
}

/// The same within constraints.
pub fn map_within(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    search: &Search<'_>,
) -> Result<Mapped, AccelError> {
    search_formats(arch, layer, table, &formats(arch, layer, table), search)
}

/// Formats that may be worth it: compressed below 98 % density, raw above 60 %.
fn formats(arch: &Architecture, layer: &Layer, table: &EnergyTable) -> Vec<Format> {
    let context = Context { arch, layer, table, format: Format::default() };
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
    formats
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
    let mut tree = Tree::plant(arch, layer, table, formats, search.constraints)?;
    let mut best = Best { objective: search.objective, least: f64::INFINITY, mapped: None };
    let rest = tree.search(&mut best, search.objective, search.effort, search.watch);
    let Some(mut best) = best.mapped else { return Err(tree.infeasible()) };
    best.lower_bound = best.value.min(rest);
    (best.evaluated, best.branches, best.opened) = (tree.evaluated, tree.seen, tree.opened);
    Ok(best)
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
    let context = Context { arch, layer, table, format };
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
