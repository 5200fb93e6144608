//! The mappings of a branch: levels take their loops from the PEs outwards, and what no level outside can mend is cut
//! on the way.
//!
//! With one buffer there is one step: its loops and those of external memory, every order. Each buffer more is a step
//! before it, whose choices (a tile and an order) are bounded like branches, with the loops inside known
//! ([`Context::relaxed_outside`]), and opened from the least bound up.

use super::tree::{Branch, Corners, Found, Tree, Worker, corners};
use super::{Effort, Objective};
use crate::constraints::FREE;
use crate::evaluation::{ArrayFacts, Context};
use crate::layer::Dim;
use crate::mapping::{LevelLoops, Mapping};
use crate::skipping::PeWork;
use crate::space::{orders, splits};

/// What a branch may cost.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    pub objective: Objective,
    /// Of this branch alone; only buffers beyond the first make a branch so large that it can be spent.
    pub effort: Effort,
    /// Whether there is a mapping already.
    pub found: bool,
}

/// A branch while it is open.
struct Opening<'a, 'b, F> {
    tree: &'b Tree<'a>,
    branch: &'b Branch,
    context: &'b Context<'a>,
    facts: ArrayFacts,
    work: PeWork,
    slack: f64,
    found: &'b mut F,
    worker: &'b mut Worker,
    allowance: Allowance,
    spent: u64,
    mapping: Mapping,
}

/// Loops of a buffer and the trips that they leave to the levels outside.
struct Choice {
    bound: f64,
    corners: Corners,
    loops: LevelLoops,
    rest: [usize; 8],
}

impl<'a> Tree<'a> {
    /// Evaluates the mappings of a branch, or as many as the allowance lasts for.
    pub(super) fn open(
        &self,
        branch: &Branch,
        found: &mut impl Found,
        worker: &mut Worker,
        allowance: Allowance,
    ) {
        worker.tally.opened += 1;
        let format = branch.format as usize;
        let context = &self.contexts[format];
        let spatial = self.arrays[branch.array as usize].clone();
        let facts = context.array(&spatial);
        let work = worker.works[format].of(context, &branch.pe, &facts.spread);
        let slack = context.relaxed_slack(&facts, &branch.pe);
        let trips: [usize; 8] =
            std::array::from_fn(|i| context.layer.bounds[i].div_ceil(facts.spread[i] * branch.pe[i]));
        let innermost = context.arch.buffers.len();
        let mapping = Mapping { spatial, pe: branch.pe, levels: vec![LevelLoops::NONE; innermost + 1] };
        let mut opening = Opening {
            tree: self,
            branch,
            context,
            facts,
            work,
            slack,
            found,
            worker,
            allowance,
            spent: 0,
            mapping,
        };
        opening.fill(innermost, &trips, 1);
    }
}

impl<F: Found> Opening<'_, '_, F> {
    /// Gives trips to a level and to those outside it; `rows` of PE tiles lie in a tile of the next level in. `false`
    /// ends the branch.
    fn fill(&mut self, at: usize, trips: &[usize; 8], rows: usize) -> bool {
        if at == 1 {
            return self.finish(trips, rows);
        }
        for choice in self.choices(at, trips, rows) {
            if self.found.cuts_all(&choice.corners) {
                continue;
            }
            if self.allowance.found && self.allowance.effort.spent(self.spent) {
                self.worker.tally.leave(self.branch.bound(self.allowance.objective));
                return false;
            }
            self.mapping.levels[at] = choice.loops;
            if !self.fill(at - 1, &choice.rest, rows * choice.loops.bounds[Dim::P as usize]) {
                return false;
            }
        }
        true
    }

    /// Loops of a buffer that is not the outermost, from the least bound up.
    fn choices(&mut self, at: usize, trips: &[usize; 8], rows: usize) -> Vec<Choice> {
        let mut choices = vec![];
        let limits = self.tree.limits.level(at).clone();
        for (bounds, rest) in splits(trips, rows, &limits, &FREE) {
            self.worker.tally.tiles += 1;
            let pe = self.mapping.pe;
            self.mapping.levels[at].bounds = bounds;
            let held = self.mapping.held(at - 1, &self.facts.spread);
            let once = [Dim::C, Dim::R, Dim::S].iter().all(|&d| {
                let inside: usize =
                    self.mapping.levels[at..].iter().map(|level| level.bounds[d as usize]).product();
                inside * rest[d as usize] == 1
            });
            if let Some(misfit) = self.context.buffer_misfit(at - 1, &held, &pe, once) {
                self.worker.tally.remember((misfit, self.branch.array, pe));
                continue;
            }
            for order in orders(&bounds, &limits) {
                let loops = LevelLoops::new(bounds, order);
                self.mapping.levels[at] = loops;
                let inside = &self.mapping.levels[at..];
                let costs = self.context.relaxed_outside(&self.facts, &pe, &self.work, inside, &rest);
                let corners = corners(costs, self.slack);
                (self.worker.tally.bounded, self.spent) = (self.worker.tally.bounded + 1, self.spent + 1);
                if !self.found.cuts_all(&corners) {
                    choices.push(Choice {
                        bound: self.allowance.objective.least(&corners),
                        corners,
                        loops,
                        rest,
                    });
                }
            }
        }
        choices.sort_by(|a, b| a.bound.total_cmp(&b.bound));
        choices
    }

    /// Evaluates every tile and order of the outermost buffer and external memory. `false` ends the branch.
    fn finish(&mut self, trips: &[usize; 8], rows: usize) -> bool {
        let [outside, limits] = [0, 1].map(|at| self.tree.limits.level(at).clone());
        for (inner, outer) in splits(trips, rows, &limits, &outside) {
            (self.mapping.levels[1].bounds, self.mapping.levels[0].bounds) = (inner, outer);
            self.worker.tally.tiles += 1;
            if let Some(misfit) = self.context.misfit(&self.mapping, &self.facts, &self.work) {
                self.worker.tally.remember((misfit, self.branch.array, self.mapping.pe));
                continue;
            }
            let floor = self.context.tile_floor(&mut self.mapping, &self.facts, &self.work);
            if self.found.cuts((floor.energy.total() - self.slack).max(0.0), floor.cycles.total()) {
                continue;
            }
            for outer_order in orders(&outer, &outside) {
                for inner_order in orders(&inner, &limits) {
                    (self.mapping.levels[0].order, self.mapping.levels[1].order) = (outer_order, inner_order);
                    let cost = self.context.evaluate(&self.mapping, &self.facts, &self.work);
                    (self.worker.tally.evaluated, self.spent) =
                        (self.worker.tally.evaluated + 1, self.spent + 1);
                    self.allowance.found = true;
                    let format = self.context.format;
                    if !self.found.take(&self.mapping, &cost, &self.work, format, self.branch) {
                        return false;
                    }
                }
            }
        }
        true
    }
}
