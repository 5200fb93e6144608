//! The tree of branches of a layer: how they are bounded, cut and opened, by one thread or several.
//!
//! What is found does not depend on the number of threads: pieces of work that run side by side know what was found
//! before all of them, and what they find is joined in order.

use super::levels::Allowance;
use super::tiles::{Shelves, Tile};
use super::works::Works;
use super::{Effort, Objective, Search};
use crate::arch::Architecture;
use crate::bounds::Floor;
use crate::constraints::{Constraints, Limits};
use crate::cost::{Cost, Format};
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::evaluation::Context;
use crate::layer::Layer;
use crate::mapping::{Mapping, Misfit};
use crate::skipping::PeWork;
use crate::space::{self, Spatial};

/// pJ and cycles: every mapping meant is at or above one of these pairs in both.
pub(super) type Corners = [(f64, f64); 3];

/// The pairs of costs; those that cannot be are above everything.
pub(super) fn corners(costs: [Option<Cost>; 3], slack: f64) -> Corners {
    costs.map(|cost| {
        let none = (f64::INFINITY, f64::INFINITY);
        cost.map_or(none, |c| ((c.energy.total() - slack).max(0.0), c.cycles.total()))
    })
}

/// An array with a PE tile and a format, whose mappings are not known yet.
#[derive(Clone, Copy)]
pub(super) struct Branch {
    corners: Corners,
    pub format: u8,
    pub array: u32,
    pub pe: [usize; 8],
}

impl Branch {
    pub fn bound(&self, objective: Objective) -> f64 {
        objective.least(&self.corners)
    }
}

/// What a search knows so far, by which it cuts branches.
pub(super) trait Found: Send + Sync {
    /// Whether mappings at or above this energy and these cycles are of no use.
    fn cuts(&self, energy: f64, cycles: f64) -> bool;

    /// Whether mappings that are each at or above one of these pairs are of no use.
    fn cuts_all(&self, corners: &Corners) -> bool {
        corners.iter().all(|&(energy, cycles)| self.cuts(energy, cycles))
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

    /// What is found beside other branches.
    fn fork(&self) -> Self;

    /// Takes what a fork has found.
    fn join(&mut self, fork: Self);
}

/// How far a tile is off, its array and what a PE holds.
type Near = (Misfit, u32, [usize; 8]);

/// What was seen on the way.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    /// Branches that fit their pads.
    fitting: u64,
    /// Branches opened.
    pub opened: u64,
    /// Mappings evaluated.
    pub evaluated: u64,
    /// Loops of inner buffers bounded.
    pub bounded: u64,
    /// Tiles of buffers that cover their layer.
    pub tiles: u64,
    /// Least bound of the branches that were left before their end.
    pub unfinished: Option<f64>,
    /// The nearest of the tiles that do not fit.
    nearest: Option<Near>,
}

impl Tally {
    pub fn remember(&mut self, near: Near) {
        let rank = |(misfit, array, pe): &Near| (misfit.excess(), *array, *pe);
        if self.nearest.is_none_or(|nearest| rank(&near) < rank(&nearest)) {
            self.nearest = Some(near);
        }
    }

    /// Leaves a branch with this bound before its end.
    pub fn leave(&mut self, bound: f64) {
        self.unfinished = Some(self.unfinished.map_or(bound, |least| least.min(bound)));
    }

    fn of(workers: &[Worker]) -> Tally {
        let mut all = Tally::default();
        for Worker { tally, .. } in workers {
            all.fitting += tally.fitting;
            all.opened += tally.opened;
            all.evaluated += tally.evaluated;
            all.bounded += tally.bounded;
            all.tiles += tally.tiles;
            tally.unfinished.into_iter().for_each(|bound| all.leave(bound));
            tally.nearest.into_iter().for_each(|near| all.remember(near));
        }
        all
    }
}

/// What a thread keeps for itself.
pub(super) struct Worker {
    /// Works in each format.
    pub works: Vec<Works>,
    pub tally: Tally,
}

/// The tree of branches of a layer.
pub(super) struct Tree<'a> {
    pub contexts: Vec<Context<'a>>,
    floors: Vec<Floor>,
    pub limits: Limits,
    /// From the most active PEs to the fewest.
    pub arrays: Vec<Spatial>,
    shelves: Shelves,
}

/// Arrays whose branches are bounded before the best of these is opened: first so many, then twice as many each time.
const FEW: usize = 16;
const MANY: usize = 512;

/// Most branches that are opened before what was found in one cuts others.
const TOGETHER: usize = 32;

impl<'a> Tree<'a> {
    pub fn plant(
        arch: &'a Architecture,
        layer: &'a Layer,
        table: &'a EnergyTable,
        formats: &[Format],
        constraints: &Constraints,
    ) -> Result<Tree<'a>, AccelError> {
        layer.check()?;
        let limits = constraints.limits(arch, layer)?;
        let mut arrays = space::arrays(arch, layer, &limits);
        arrays
            .sort_by_cached_key(|a| std::cmp::Reverse(a.iter().flatten().map(|(_, n)| n).product::<usize>()));
        let contexts = formats.iter().map(|&format| Context::new(arch, layer, table, format));
        let contexts = contexts.collect::<Result<Vec<_>, AccelError>>()?;
        let floors: Vec<_> = contexts.iter().map(Floor::of).collect();
        let shelves = Shelves::of(&contexts, &floors, &arrays, &limits);
        Ok(Tree { contexts, floors, limits, arrays, shelves })
    }

    /// Branches there are.
    pub fn branches(&self) -> u64 {
        self.shelves.branches()
    }

    /// Opens branches until what was found cuts all others, or the effort is spent; returns the least bound of those
    /// that were not opened or left before their end. Bounds come in steps, each dearer and closer: floors of all PE tiles of an array and of
    /// one, corners without idle lanes or waiting, corners with them, floors of the buffer's tiles.
    pub fn search(&self, found: &mut impl Found, objective: Objective, search: &Search<'_>) -> (f64, Tally) {
        let Search { effort, crew, watch, .. } = *search;
        let worker = || Worker {
            works: self.contexts.iter().map(|_| Works::default()).collect(),
            tally: Tally::default(),
        };
        let mut workers: Vec<Worker> = (0..crew.size()).map(|_| worker()).collect();
        let enough = |workers: &[Worker]| {
            let tally = Tally::of(workers);
            tally.evaluated > 0 && effort.spent(tally.evaluated + tally.bounded)
        };
        // What branches opened side by side may spend each.
        let share = |workers: &[Worker], branches: usize| {
            let Tally { evaluated, bounded, .. } = Tally::of(workers);
            let left = effort.evaluations.saturating_sub(evaluated + bounded) / branches as u64;
            Allowance { objective, effort: Effort { evaluations: left, ..effort }, found: evaluated > 0 }
        };
        let mut kept: Vec<(f64, Branch)> = vec![];
        let (mut from, mut block) = (0, FEW);
        while from < self.arrays.len() {
            let to = (from + block).min(self.arrays.len());
            let before = &*found;
            let bounded = crew.each(&mut workers, to - from, |worker, at| {
                self.bound_array(from + at, before, objective, worker)
            });
            let mut fresh: Vec<_> = bounded.into_iter().flatten().collect();
            // The best of a block early cuts many of the next.
            let best = fresh.iter().enumerate().min_by(|a, b| a.1.0.total_cmp(&b.1.0)).map(|(i, _)| i);
            if let Some(i) = best
                && !enough(&workers)
                && !found.cuts_all(&fresh[i].1.corners)
            {
                let (_, branch) = fresh.swap_remove(i);
                let allowance = share(&workers, 1);
                self.open(&branch, found, &mut workers[0], allowance);
            }
            kept.extend(fresh.into_iter().filter(|(_, branch)| !found.cuts_all(&branch.corners)));
            (from, block) = (to, (2 * block).min(MANY));
        }
        kept.sort_by(|(a, x), (b, y)| {
            a.total_cmp(b).then_with(|| (x.array, x.pe, x.format).cmp(&(y.array, y.pe, y.format)))
        });
        let (mut kept, mut together) = (kept.iter(), 1);
        loop {
            let next: Vec<_> =
                kept.by_ref().filter(|(_, b)| !found.cuts_all(&b.corners)).take(together).collect();
            let rest = |bound: f64| {
                let tally = Tally::of(&workers);
                (tally.unfinished.map_or(bound, |left| left.min(bound)), tally)
            };
            let Some((bound, _)) = next.first() else { return rest(f64::INFINITY) };
            if enough(&workers) {
                return rest(*bound);
            }
            let allowance = share(&workers, next.len());
            let before = &*found;
            let forks = crew.each(&mut workers, next.len(), |worker, at| {
                let mut fork = before.fork();
                self.open(&next[at].1, &mut fork, worker, allowance);
                fork
            });
            forks.into_iter().for_each(|fork| found.join(fork));
            watch(*bound);
            together = (2 * together).min(TOGETHER);
        }
    }

    /// The branches of an array that what was found does not cut.
    fn bound_array(
        &self,
        at: usize,
        found: &impl Found,
        objective: Objective,
        worker: &mut Worker,
    ) -> Vec<(f64, Branch)> {
        let mut branches = vec![];
        // Spread loops and sharing do not depend on the format.
        let facts = self.contexts[0].array(&self.arrays[at]);
        for (format, tiles) in self.shelves.array(at).iter().enumerate() {
            let (context, floor) = (&self.contexts[format], &self.floors[format]);
            let Some(Tile { pe, .. }) = tiles.list.first() else { continue };
            let share = floor.share(context.layer, &facts.spread, pe);
            for (i, tile) in tiles.list.iter().enumerate() {
                if found.cuts(tile.energy.0, share * tiles.steps) {
                    // The others have no less energy.
                    worker.tally.fitting += (tiles.list.len() - i) as u64;
                    break;
                }
                let cycles = share * tile.steps;
                if found.cuts(context.energy_floor_within(tile.energy, cycles), cycles) {
                    worker.tally.fitting += 1;
                    continue;
                }
                let slack = context.relaxed_slack(&facts, &tile.pe);
                let corners = |work: &PeWork| corners(context.relaxed(&facts, &tile.pe, work), slack);
                let least = floor.work(context, &tile.pe, &facts.spread);
                let mut branch =
                    Branch { corners: corners(&least), format: format as u8, array: at as u32, pe: tile.pe };
                if found.cuts_all(&branch.corners) {
                    worker.tally.fitting += 1;
                    continue;
                }
                let work = worker.works[format].of(context, &tile.pe, &facts.spread);
                if let Some(misfit) = context.pe_misfit(&tile.pe, &work) {
                    worker.tally.remember((misfit, at as u32, tile.pe));
                    continue;
                }
                worker.tally.fitting += 1;
                branch.corners = corners(&work);
                if !found.cuts_all(&branch.corners) {
                    branches.push((branch.bound(objective), branch));
                }
            }
        }
        branches
    }

    /// Why there is no mapping at all.
    pub fn infeasible(&self, tally: &Tally) -> AccelError {
        let (arch, layer) = (self.contexts[0].arch, self.contexts[0].layer);
        match tally.nearest {
            Some((misfit, _, pe)) if tally.fitting == 0 || tally.tiles > 0 => misfit.error(arch, layer, &pe),
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
