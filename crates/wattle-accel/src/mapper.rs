//! The mapper: branch and bound over the space of mappings, with a proven optimum or a proven front.
//!
//! Branches are arrays with a PE tile and a format of the operands. The bound of a branch lets every tensor move as
//! if the order suited it best and external memory see each value once. Arrays are bounded from the most active PEs
//! to the fewest, the best branch of each block is opened at once, and what it finds cuts most of the others by
//! bounds that cost less ([`crate::bounds`]). What is left is opened from the least bound up, until what was found
//! cuts the rest.

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

/// All mappings of a layer that no other beats in both energy and delay, over all formats worth it. Of mappings
/// with equal energy and delay one is kept.
pub fn front(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    search: &Search<'_>,
) -> Result<Front, AccelError> {
    front_of(arch, layer, table, &formats(arch, layer, table), search)
}

/// Points that rise in energy and fall in cycles.
struct Points(Vec<Mapped>);

impl Found for Points {
    fn cuts(&self, energy: f64, cycles: f64) -> bool {
        // The last point at or below this energy has the fewest cycles of those.
        let after = self.0.partition_point(|p| p.cost.energy.total() <= energy);
        after > 0 && self.0[after - 1].cost.cycles.total() <= cycles
    }

    fn take(&mut self, mapping: &Mapping, cost: &Cost, work: &PeWork, format: Format, _: &Branch) -> bool {
        let (energy, cycles) = (cost.energy.total(), cost.cycles.total());
        if !self.cuts(energy, cycles) {
            self.0.retain(|p| p.cost.energy.total() < energy || p.cost.cycles.total() < cycles);
            let at = self.0.partition_point(|p| p.cost.energy.total() < energy);
            self.0.insert(at, mapped(mapping, cost, work, format, energy * cycles));
        }
        true
    }
}

fn front_of(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    formats: &[Format],
    search: &Search<'_>,
) -> Result<Front, AccelError> {
    let mut tree = Tree::plant(arch, layer, table, formats, search.constraints)?;
    let mut points = Points(vec![]);
    let rest = tree.search(&mut points, Objective::Edp, search.effort, search.watch);
    if points.0.is_empty() {
        return Err(tree.infeasible());
    }
    Ok(Front {
        points: points.0,
        proven: rest == f64::INFINITY,
        evaluated: tree.evaluated,
        branches: tree.seen,
        opened: tree.opened,
    })
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
mod tests {
    use super::*;
    use crate::arch::PeKind;
    use crate::layer::Sparsity;
    use crate::syntax::Syntax;

    /// Every mapping of the space that fits, one after the other, with no bound.
    fn all_mappings(context: &Context<'_>, mut visit: impl FnMut(&Cost)) {
        let (arch, layer, free) = (context.arch, context.layer, Limits::default());
        for spatial in space::arrays(arch, layer, &free) {
            let facts = context.array(&spatial);
            for pe in space::pe_tiles(arch, layer, &facts.spread, &free) {
                let work = Works::default().of(context, &pe, &facts.spread);
                let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
                for (glb, dram) in buffer_tiles(&trips, &free) {
                    for dram_order in ORDERS {
                        for glb_order in ORDERS {
                            let spatial = spatial.clone();
                            let mapping = Mapping { spatial, pe, glb, glb_order, dram, dram_order };
                            if context.misfit(&mapping, &facts, &work).is_none() {
                                visit(&context.evaluate(&mapping, &facts, &work));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Numbers below a limit, always the same ones.
    fn draws(seed: u64) -> impl FnMut(u64) -> usize {
        let mut state = seed;
        move |n| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % n) as usize
        }
    }

    /// An architecture small enough to enumerate, with what can be switched switched at random: one axis of
    /// clusters, one chain, pads and buffers that often do not fit.
    fn small_arch(draw: &mut impl FnMut(u64) -> usize) -> Architecture {
        let mut arch = Architecture::named("eyeriss-v2").unwrap();
        arch.axes.retain(|a| a.name == "cluster row" || a.name == "PE row");
        arch.axes.iter_mut().for_each(|a| a.size = 2);
        (arch.glb.iact_bytes, arch.glb.psum_bytes) = (160.0, 100.0);
        (arch.pe.iact_words, arch.pe.psum_words, arch.pe.weight_words) = (6, 4, 12);
        if draw(2) == 0 {
            arch.pe.kind = PeKind::Gated;
        } else {
            arch.dram_bytes_per_cycle = Some(4.0);
        }
        match draw(6) {
            0 => arch.glb.shared_bytes = Some(200.0),
            1 => arch.glb.bypass = vec!["iact".to_string()],
            2 => arch.glb.bypass = vec!["psum".to_string()],
            3 => arch.pe.bypass = vec!["iact".to_string()],
            _ => {}
        }
        let tables = crate::tables();
        if draw(2) == 0 {
            arch.technology = None;
            arch = arch.with_energy(tables[draw(tables.len() as u64)].clone()).unwrap();
        }
        match draw(5) {
            0 => arch.axes[0].multicast = false,
            1 => arch.axes[1].reduction = false,
            2 => arch.glb.read_bits_per_cycle = Some(8.0),
            3 => arch.glb.write_bits_per_cycle = Some(8.0),
            _ => {}
        }
        arch
    }

    fn small_layer(draw: &mut impl FnMut(u64) -> usize) -> Layer {
        let (groups, taps, stride) = (1 + draw(2), [1, 1, 2, 2][draw(4)], 1 + draw(2));
        let (c, m) = (groups * (1 + draw(3)), groups * (1 + draw(4)));
        let densities = [draw(100) as f64 / 99.0, draw(100) as f64 / 99.0];
        let of = |density: f64, each: bool, draw: &mut dyn FnMut(u64) -> usize| {
            if each {
                Sparsity::per_channel((0..c).map(|_| draw(100) as f64 / 99.0).collect())
            } else {
                Sparsity::uniform(density)
            }
        };
        let each = draw(2) == 0;
        let sparsity = (of(densities[0], each, draw), of(densities[1], each, draw));
        Layer::conv("l", groups, c, m, 1 + draw(3), taps, stride).with_sparsity(sparsity.0, sparsity.1)
    }

    #[test]
    fn branch_and_bound_equals_brute_force_on_500_random_problems() {
        let mut draw = draws(7);
        let (mut solved, mut infeasible) = (0, 0);
        for case in 0..500 {
            let (arch, layer) = (small_arch(&mut draw), small_layer(&mut draw));
            let table = arch.table().unwrap();
            let objective = [Objective::Energy, Objective::Delay, Objective::Edp][draw(3)];
            let compressed = arch.pe.kind == PeKind::Sparse && draw(2) == 0;
            let format = Format { iact: compressed, weight: compressed };
            let context = Context { arch: &arch, layer: &layer, table: &table, format };
            let mut least: Option<f64> = None;
            all_mappings(&context, |cost| {
                let value = objective.value(cost);
                least = Some(least.map_or(value, |l| l.min(value)));
            });
            match map(&arch, &layer, &table, format, objective, Effort::default()) {
                Ok(found) => {
                    // The bound and the value of one mapping round differently in the last place.
                    let least = least.unwrap_or_else(|| panic!("case {case}: nothing fits {layer:?}"));
                    let off = found.value / least - 1.0;
                    assert!(off.abs() < 1e-12, "case {case}: {off} {objective:?} {arch:?} {layer:?}");
                    assert!(found.proven());
                    let again = evaluate(&arch, &layer, &table, format, &found.mapping).unwrap();
                    assert_eq!(again, found.cost, "case {case}");
                    solved += 1;
                }
                Err(error) => {
                    assert_eq!(least, None, "case {case}: {layer:?}");
                    let text = error.to_string();
                    assert!(
                        text.contains("required") && (text.contains(" words") || text.contains(" bytes")),
                        "{text}"
                    );
                    infeasible += 1;
                }
            }
        }
        assert!(solved > 400, "{solved} solved, {infeasible} infeasible");
    }

    /// Stronger than the least values being equal: each bound on the way to a branch holds for each of its mappings.
    #[test]
    fn every_mapping_lies_above_all_bounds_of_its_branch() {
        let (mut draw, free) = (draws(3), Limits::default());
        for case in 0..60 {
            let (arch, layer) = (small_arch(&mut draw), small_layer(&mut draw));
            let table = arch.table().unwrap();
            let compressed = arch.pe.kind == PeKind::Sparse && draw(2) == 0;
            let format = Format { iact: compressed, weight: compressed };
            let context = Context { arch: &arch, layer: &layer, table: &table, format };
            let floor = Floor::of(&context);
            let mut works = Works::default();
            for spatial in space::arrays(&arch, &layer, &free) {
                let facts = context.array(&spatial);
                for pe in space::pe_tiles(&arch, &layer, &facts.spread, &free) {
                    let work = works.of(&context, &pe, &facts.spread);
                    let least = floor.work(&context, &pe, &facts.spread);
                    let delay = bounds::tiles(&layer, &facts.spread, &pe) * least.synchronised;
                    let energy = context.energy_floor_within(context.energy_floor(&floor, &pe), delay);
                    let slack = context.relaxed_slack(&facts, &pe);
                    let steps = [&least, &work].map(|w| context.relaxed(&facts, &pe, w));
                    let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
                    for (glb, dram) in buffer_tiles(&trips, &free) {
                        let (dram_order, glb_order) = (ORDERS[draw(6)], ORDERS[draw(6)]);
                        let spatial = spatial.clone();
                        let mapping = Mapping { spatial, pe, glb, glb_order, dram, dram_order };
                        let cost = context.evaluate(&mapping, &facts, &work);
                        let near = 1.0 + 1e-9;
                        let (e, c) = (near * cost.energy.total(), near * cost.cycles.total());
                        assert!(e >= energy && c >= delay, "case {case}: {mapping} {arch:?} {layer:?}");
                        for corners in &steps {
                            let above = |k: &Cost| e >= k.energy.total() - slack && c >= k.cycles.total();
                            let any = corners.iter().flatten().any(above);
                            assert!(any, "case {case}: {mapping} {cost:?} {corners:?} {arch:?} {layer:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_front_is_that_of_all_mappings_on_100_random_problems() {
        let mut draw = draws(11);
        let mut longest = 0;
        for case in 0..100 {
            let (arch, layer) = (small_arch(&mut draw), small_layer(&mut draw));
            let table = arch.table().unwrap();
            let format = Format::default();
            let context = Context { arch: &arch, layer: &layer, table: &table, format };
            let mut all: Vec<(f64, f64)> = vec![];
            all_mappings(&context, |cost| all.push((cost.energy.total(), cost.cycles.total())));
            let none = Constraints::default();
            let search = Search {
                objective: Objective::Edp,
                effort: Effort::default(),
                constraints: &none,
                watch: &|_| {},
            };
            let Ok(front) = front_of(&arch, &layer, &table, &[format], &search) else {
                assert!(all.is_empty(), "case {case}");
                continue;
            };
            assert!(front.proven);
            longest = longest.max(front.points.len());
            let near = 1.0 + 1e-9;
            let points: Vec<(f64, f64)> =
                front.points.iter().map(|p| (p.cost.energy.total(), p.cost.cycles.total())).collect();
            assert!(points.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 > w[1].1), "case {case}: {points:?}");
            for (e, c) in &all {
                assert!(points.iter().any(|p| p.0 <= e * near && p.1 <= c * near), "case {case}: {e} {c}");
            }
            for (e, c) in &points {
                assert!(all.iter().all(|a| a.0 * near > *e || a.1 * near > *c), "case {case}: {e} {c}");
                assert!(all.iter().any(|a| (a.0, a.1) == (*e, *c)), "case {case}: {e} {c} is no mapping's");
            }
        }
        assert!(longest > 1, "no front has more than one point");
    }

    fn v2() -> (Architecture, Layer) {
        let layer = Layer::conv("conv", 1, 24, 40, 13, 3, 1)
            .with_sparsity(Sparsity::uniform(0.7), Sparsity::uniform(0.5));
        (Architecture::named("eyeriss-v2").unwrap(), layer)
    }

    fn constrained(text: &str, effort: Effort) -> Result<Mapped, AccelError> {
        let (arch, layer) = v2();
        let constraints = Constraints::parse(Syntax::Toml, text)?;
        let search = Search { objective: Objective::Edp, effort, constraints: &constraints, watch: &|_| {} };
        map_within(&arch, &layer, &arch.table()?, &search)
    }

    #[test]
    fn constraints_are_kept_also_by_factors_that_the_space_does_not_have() {
        let free = constrained("", Effort::default()).unwrap();
        // 5 is no least factor of 24 channels: 24 / 5 is 5 tiles, which 5 covers, but so does 6 in 4.
        let text = "[[constraint]]\npe = { factors = { C = 5 }, most = { M = 8 } }\n\
                    glb = { order = [\"filters\", \"positions\", \"reduction\"] }\n\
                    axes = { \"PE row\" = { R = 3 }, \"cluster column\" = {} }\n";
        let found = constrained(text, Effort::default()).unwrap();
        assert!(found.proven() && found.value >= free.value);
        assert_eq!(found.mapping.pe[3], 5);
        assert!(found.mapping.pe[2] <= 8);
        assert_eq!(
            found.mapping.glb_order,
            [crate::Group::Reduction, crate::Group::Positions, crate::Group::Filters]
        );
        let (arch, _) = v2();
        let at = |name: &str| arch.axes.iter().position(|a| a.name == name).unwrap();
        assert_eq!(found.mapping.spatial[at("PE row")], [(crate::Dim::R, 3)]);
        assert_eq!(found.mapping.spatial[at("cluster column")], []);
    }

    #[test]
    fn constraints_that_no_mapping_keeps_are_an_error_with_what_is_missing() {
        let text = "[[constraint]]\nglb = { factors = { C = 1 } }\ndram = { factors = { C = 1 } }\n\
                    pe = { factors = { C = 2 } }\naxes = { \"cluster row\" = { M = 8 }, \"PE row\" = {} }\n";
        let error = constrained(text, Effort::default()).unwrap_err().to_string();
        assert!(
            error.contains("factors of C") && error.contains("24 iterations") && error.contains("at most 2"),
            "{error}"
        );
        let text = "[[constraint]]\ndram = { factors = { P = 1, Q = 1, M = 1, C = 1 } }\n";
        let (mut arch, layer) = v2();
        arch.glb.iact_bytes = 64.0;
        let constraints = Constraints::parse(Syntax::Toml, text).unwrap();
        let effort = Effort::default();
        let search = Search { objective: Objective::Edp, effort, constraints: &constraints, watch: &|_| {} };
        let error = map_within(&arch, &layer, &arch.table().unwrap(), &search).unwrap_err().to_string();
        assert!(error.contains("iact tile in the buffer") && error.contains("64 bytes"), "{error}");
    }

    #[test]
    fn a_search_without_time_has_a_mapping_and_a_bound_that_holds() {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let table = arch.table().unwrap();
        let mut gaps = 0;
        for (c, m, map, taps) in [(24, 40, 13, 3), (64, 32, 14, 1), (12, 100, 28, 5), (3, 16, 32, 3)] {
            let layer = Layer::conv("conv", 1, c, m, map, taps, 1);
            let within = |until| {
                let effort = Effort { until, ..Effort::default() };
                map_best_format(&arch, &layer, &table, Objective::Edp, effort).unwrap()
            };
            let (proven, hasty) = (within(None), within(Some(Instant::now())));
            assert!(proven.proven() && hasty.opened <= 1);
            assert!(
                0.0 < hasty.lower_bound && hasty.lower_bound <= proven.value && proven.value <= hasty.value
            );
            gaps += u32::from(!hasty.proven());
        }
        assert!(gaps > 0, "the first branch is the best everywhere");
    }

    #[test]
    fn networks_that_do_not_share_cost_accesses_and_tensors_that_bypass_the_buffer_leave_it() {
        let (arch, layer) = v2();
        let table = arch.table().unwrap();
        let mut apart = arch.clone();
        apart.axes.iter_mut().for_each(|a| (a.multicast, a.reduction) = (false, false));
        let mapping = Mapping {
            spatial: vec![
                vec![(crate::Dim::C, 4)],
                vec![(crate::Dim::M, 2)],
                vec![(crate::Dim::R, 3)],
                vec![],
            ],
            pe: [1, 1, 20, 3, 1, 1, 1, 3],
            glb: [1, 1, 1, 2, 13, 13, 1, 1],
            glb_order: ORDERS[0],
            dram: [1; 8],
            dram_order: ORDERS[0],
        };
        let of =
            |arch: &Architecture| evaluate(arch, &layer, &table, Format::default(), &mapping).unwrap().counts;
        let (shared, alone) = (of(&arch), of(&apart));
        // Activations are the same for 2 cluster columns; sums are added over 4 cluster rows and 3 PE rows.
        assert!(alone.glb[0].reads > 1.99 * shared.glb[0].reads);
        assert_eq!(
            alone.glb[2].writes + layer.elements(crate::Operand::Psum),
            12.0 * (shared.glb[2].writes + layer.elements(crate::Operand::Psum))
        );
        let mut bypassing = arch.clone();
        bypassing.glb.bypass = vec!["iact".to_string()];
        let passed = of(&bypassing);
        assert_eq!(passed.glb[0], crate::Accesses::default());
        assert_eq!(passed.dram[0].reads, shared.glb[0].reads);
    }
}
