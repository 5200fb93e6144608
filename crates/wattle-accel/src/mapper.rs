//! The mapper: branch and bound over arrays, PE tiles, buffer tiles and orders, with a proven optimum.
//!
//! The space: every axis of the array carries one or two loops it allows, as wide as the axis lets the last of
//! them be; a PE holds `M0` filters, `C0` channels
//! and all or one of the filter's rows and columns; the buffer holds tiles of M, C, P, and of Q when a row does
//! not fit; N and G run outermost. Bounds are the least factors that reach a number of tiles, divisors or not.
//! Branches are arrays with a PE tile; their bound lets every tensor move as if the order suited it best.

use std::collections::HashMap;

use crate::arch::Architecture;
use crate::cost::{Context, Cost, Format};
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::{Dim, Layer};
use crate::mapping::{Group, Mapping, ORDERS, Order};
use crate::skipping::PeWork;

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
        match self {
            Objective::Energy => cost.energy.total(),
            Objective::Delay => cost.cycles.total(),
            Objective::Edp => cost.energy.total() * cost.cycles.total(),
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
    /// Branches, each an array with a PE tile.
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

/// Limits of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Evaluations after which the best so far is returned, with its gap.
    pub evaluations: u64,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { evaluations: 40_000_000 }
    }
}

/// The least factors that cut `extent` into each possible number of tiles, up to `limit`, largest first.
pub(crate) fn covers(extent: usize, limit: usize) -> Vec<usize> {
    let mut factors = vec![];
    let mut tiles = 1;
    while tiles <= extent {
        let factor = extent.div_ceil(tiles);
        if factor <= limit {
            factors.push(factor);
        }
        if factor == 1 {
            break;
        }
        // The next number of tiles that allows a smaller factor.
        tiles = extent.div_ceil(factor - 1);
    }
    factors
}

/// All ways to spread loops over one axis.
fn axis_choices(arch: &Architecture, axis: usize, layer: &Layer) -> Vec<Vec<(Dim, usize)>> {
    let axis = &arch.axes[axis];
    let dims: Vec<Dim> = Dim::ALL.into_iter().filter(|&d| axis.allows(d) && layer.bound(d) > 1).collect();
    let mut choices = vec![];
    let widest = |d: Dim, room: usize| covers(layer.bound(d), room).first().copied().filter(|&n| n > 1);
    for &a in &dims {
        choices.extend(widest(a, axis.size).map(|x| vec![(a, x)]));
    }
    for (i, &a) in dims.iter().enumerate() {
        for &b in &dims[i + 1..] {
            for x in covers(layer.bound(a), axis.size / 2).into_iter().filter(|&x| x > 1) {
                choices.extend(widest(b, axis.size / x).map(|y| vec![(a, x), (b, y)]));
            }
        }
    }
    // An axis stays idle where no loop fits it.
    choices.push(vec![]);
    choices
}

/// All arrays: one choice for every axis, no loop spread wider than it is long.
pub(crate) fn arrays(arch: &Architecture, layer: &Layer) -> Vec<Vec<Vec<(Dim, usize)>>> {
    let mut arrays: Vec<Vec<Vec<(Dim, usize)>>> = vec![vec![]];
    for axis in 0..arch.axes.len() {
        let choices = axis_choices(arch, axis, layer);
        let mut longer = Vec::with_capacity(arrays.len() * choices.len());
        for array in &arrays {
            for choice in &choices {
                let wide = |&(dim, n): &(Dim, usize)| {
                    let before: usize =
                        array.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| *n).product();
                    before * n > layer.bound(dim)
                };
                if !choice.iter().any(wide) {
                    let mut array = array.clone();
                    array.push(choice.clone());
                    longer.push(array);
                }
            }
        }
        arrays = longer;
    }
    arrays
}

/// PE tiles for an array that spreads loops this wide.
pub(crate) fn pe_tiles(arch: &Architecture, layer: &Layer, spread: &[usize; 8]) -> Vec<[usize; 8]> {
    let rest = |d: Dim| layer.bound(d).div_ceil(spread[d as usize]);
    let taps = |d: Dim| if rest(d) == 1 { vec![1] } else { vec![rest(d), 1] };
    let mut tiles = vec![];
    for m in covers(rest(Dim::M), arch.pe.psum_words) {
        for r in taps(Dim::R) {
            for s in taps(Dim::S) {
                for c in covers(rest(Dim::C), arch.pe.iact_words / (r * s)) {
                    tiles.push([1, 1, m, c, 1, 1, r, s]);
                }
            }
        }
    }
    tiles
}

/// Buffer tiles: bounds at the buffer and at external memory that cover these trips.
pub(crate) fn buffer_tiles(trips: &[usize; 8]) -> Vec<([usize; 8], [usize; 8])> {
    let [n, g, m, c, p, q, r, s] = *trips;
    let mut maps = vec![];
    for rows in covers(p, p) {
        let columns = if rows == 1 { covers(q, q) } else { vec![q] };
        maps.extend(columns.into_iter().map(|columns| (rows, columns)));
    }
    let mut tiles = vec![];
    for (rows, columns) in maps {
        for filters in covers(m, m) {
            for channels in covers(c, c) {
                let glb = [1, 1, filters, channels, rows, columns, r, s];
                let dram =
                    [n, g, m.div_ceil(filters), c.div_ceil(channels), p.div_ceil(rows), q.div_ceil(columns), 1, 1];
                tiles.push((glb, dram));
            }
        }
    }
    tiles
}

/// Orders that differ: groups without loops do not count.
pub(crate) fn orders(bounds: &[usize; 8]) -> Vec<Order> {
    let moves = |group: &Group| match group {
        Group::Positions => bounds[0] * bounds[4] * bounds[5] > 1,
        Group::Reduction => bounds[3] * bounds[6] * bounds[7] > 1,
        Group::Filters => bounds[2] > 1,
    };
    let mut seen: Vec<Vec<Group>> = vec![];
    let mut orders = vec![];
    for order in ORDERS {
        let moving: Vec<Group> = order.into_iter().filter(moves).collect();
        if !seen.contains(&moving) {
            seen.push(moving);
            orders.push(order);
        }
    }
    orders
}

/// How many channels and taps a chain of PEs adds up, and how many such chains hold other filters.
pub(crate) fn chain(spread: &[usize; 8]) -> ((usize, usize), usize) {
    ((spread[3], spread[6] * spread[7]), spread[2])
}

/// Remembers the work of PE tiles: many arrays share it.
#[derive(Default)]
struct Works(HashMap<([usize; 4], (usize, usize), usize), PeWork>);

impl Works {
    fn of(&mut self, context: &Context<'_>, pe: &[usize; 8], spread: &[usize; 8]) -> PeWork {
        let (members, filters) = chain(spread);
        // Without skipping PEs never wait for each other.
        let (members, filters) = if context.skips() { (members, filters) } else { ((1, 1), 1) };
        let key = ([pe[2], pe[3], pe[6], pe[7]], members, filters);
        *self.0.entry(key).or_insert_with(|| PeWork::of(context, pe, members, filters))
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
    layer.check()?;
    let context = Context { arch, layer, table, format };
    let mut works = Works::default();
    let arrays = arrays(arch, layer);
    let mut branches: Vec<(f64, u32, [usize; 8])> = vec![];
    let mut misfit = None;
    for (index, array) in arrays.iter().enumerate() {
        let facts = context.array(array);
        for pe in pe_tiles(arch, layer, &facts.spread) {
            let work = works.of(&context, &pe, &facts.spread);
            if let Some(found) = context.pe_misfit(&pe, &work) {
                misfit.get_or_insert(found);
                continue;
            }
            let values = context.relaxed(&facts, &pe, &work).map(|cost| objective.value(&cost));
            branches.push((values.into_iter().fold(f64::INFINITY, f64::min), index as u32, pe));
        }
    }
    branches.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut best: Option<Mapped> = None;
    let (mut evaluated, mut opened) = (0, 0);
    let mut lower_bound = f64::INFINITY;
    for (bound, array, pe) in &branches {
        if best.as_ref().is_some_and(|b| *bound >= b.value) {
            break;
        }
        if evaluated >= effort.evaluations {
            lower_bound = *bound;
            break;
        }
        opened += 1;
        let spatial = &arrays[*array as usize];
        let facts = context.array(spatial);
        let work = works.of(&context, pe, &facts.spread);
        let trips: [usize; 8] = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
        let mut mapping = Mapping {
            spatial: spatial.clone(),
            pe: *pe,
            glb: [1; 8],
            glb_order: ORDERS[0],
            dram: [1; 8],
            dram_order: ORDERS[0],
        };
        'tiles: for (glb, dram) in buffer_tiles(&trips) {
            (mapping.glb, mapping.dram) = (glb, dram);
            if let Some(found) = context.misfit(&mapping, &facts, &work) {
                misfit.get_or_insert(found);
                continue;
            }
            for dram_order in orders(&dram) {
                for glb_order in orders(&glb) {
                    (mapping.dram_order, mapping.glb_order) = (dram_order, glb_order);
                    let cost = context.evaluate(&mapping, &facts, &work);
                    evaluated += 1;
                    let value = objective.value(&cost);
                    if best.as_ref().is_none_or(|b| value < b.value) {
                        best = Some(Mapped {
                            mapping: mapping.clone(),
                            cost,
                            work,
                            format,
                            value,
                            lower_bound: value,
                            evaluated: 0,
                            branches: 0,
                            opened: 0,
                        });
                        if value <= *bound {
                            break 'tiles;
                        }
                    }
                }
            }
        }
    }
    let Some(mut best) = best else {
        let (constraint, required, available) =
            misfit.unwrap_or_else(|| ("PE tile".to_string(), 1.0, 0.0));
        return Err(AccelError::Infeasible {
            layer: layer.name.clone(),
            arch: arch.name.clone(),
            constraint,
            required: format!("{required:.0}"),
            available: format!("{available:.0}"),
        });
    };
    best.lower_bound = best.value.min(lower_bound);
    (best.evaluated, best.branches, best.opened) = (evaluated, branches.len() as u64, opened);
    Ok(best)
}

/// The best mapping over all formats that the architecture knows: compressed where that is worth it.
pub fn map_best_format(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    objective: Objective,
    effort: Effort,
) -> Result<Mapped, AccelError> {
    let mut best: Option<Mapped> = None;
    let context = Context { arch, layer, table, format: Format::default() };
    let worth = |density: f64| if !context.skips() || density >= 0.98 {
        &[false][..]
    } else if density < 0.6 {
        &[true][..]
    } else {
        &[true, false][..]
    };
    let (mut evaluated, mut branches, mut opened) = (0, 0, 0);
    let mut bound = f64::INFINITY;
    for &iact in worth(layer.iact.density) {
        for &weight in worth(layer.weight.density) {
            let found = map(arch, layer, table, Format { iact, weight }, objective, effort)?;
            evaluated += found.evaluated;
            branches += found.branches;
            opened += found.opened;
            bound = bound.min(found.lower_bound);
            if best.as_ref().is_none_or(|b| found.value < b.value) {
                best = Some(found);
            }
        }
    }
    let mut best = best.expect("both lists of formats have at least one entry");
    (best.evaluated, best.branches, best.opened, best.lower_bound) = (evaluated, branches, opened, bound);
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
    layer.check()?;
    mapping.check(arch, layer)?;
    let context = Context { arch, layer, table, format };
    let facts = context.array(&mapping.spatial);
    let work = Works::default().of(&context, &mapping.pe, &facts.spread);
    if let Some((constraint, required, available)) = context.misfit(mapping, &facts, &work) {
        return Err(AccelError::Infeasible {
            layer: layer.name.clone(),
            arch: arch.name.clone(),
            constraint,
            required: format!("{required:.0}"),
            available: format!("{available:.0}"),
        });
    }
    Ok(context.evaluate(mapping, &facts, &work))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Sparsity;

    #[test]
    fn covers_are_the_least_factors_for_every_number_of_tiles() {
        assert_eq!(covers(13, 13), [13, 7, 5, 4, 3, 2, 1]);
        assert_eq!(covers(13, 6), [5, 4, 3, 2, 1]);
        assert_eq!(covers(1, 8), [1]);
    }

    /// The least value over the whole space, one mapping after the other, with no bound.
    fn brute_force(
        arch: &Architecture,
        layer: &Layer,
        table: &EnergyTable,
        format: Format,
        objective: Objective,
    ) -> Option<f64> {
        let context = Context { arch, layer, table, format };
        let mut least: Option<f64> = None;
        for spatial in arrays(arch, layer) {
            let facts = context.array(&spatial);
            for pe in pe_tiles(arch, layer, &facts.spread) {
                let work = Works::default().of(&context, &pe, &facts.spread);
                let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
                for (glb, dram) in buffer_tiles(&trips) {
                    for dram_order in ORDERS {
                        for glb_order in ORDERS {
                            let spatial = spatial.clone();
                            let mapping = Mapping { spatial, pe, glb, glb_order, dram, dram_order };
                            if context.misfit(&mapping, &facts, &work).is_none() {
                                let value = objective.value(&context.evaluate(&mapping, &facts, &work));
                                least = Some(least.map_or(value, |l| l.min(value)));
                            }
                        }
                    }
                }
            }
        }
        least
    }

    #[test]
    fn branch_and_bound_equals_brute_force_on_500_random_problems() {
        let text = include_str!("../data/arch/eyeriss-v2.toml");
        let small = text
            .replace("size = 8", "size = 2")
            .replace("size = 3", "size = 2")
            .replace("size = 4", "size = 2")
            .replace("iact_bytes = 73728", "iact_bytes = 160")
            .replace("psum_bytes = 122880", "psum_bytes = 100")
            .replace("iact_words = 16", "iact_words = 6")
            .replace("psum_words = 32", "psum_words = 4")
            .replace("weight_words = 192", "weight_words = 12");
        let mut sparse = Architecture::parse(&small).unwrap();
        let mut dense = sparse.clone();
        dense.pe.kind = crate::arch::PeKind::Gated;
        sparse.dram_bytes_per_cycle = Some(4.0);
        let table = sparse.table().unwrap();
        let mut state = 7u64;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % n) as usize
        };
        let (mut solved, mut infeasible) = (0, 0);
        for case in 0..500 {
            let (groups, taps, stride) = (1 + draw(2), [1, 1, 2, 3][draw(4)], 1 + draw(2));
            let (c, m) = (groups * (1 + draw(4)), groups * (1 + draw(5)));
            let densities = [draw(100) as f64 / 99.0, draw(100) as f64 / 99.0];
            let layer = Layer::conv("l", groups, c, m, 1 + draw(5), taps, stride)
                .with_sparsity(Sparsity::uniform(densities[0]), Sparsity::uniform(densities[1]));
            let objective = [Objective::Energy, Objective::Delay, Objective::Edp][draw(3)];
            let arch = if draw(2) == 0 { &sparse } else { &dense };
            let compressed = arch.pe.kind == crate::arch::PeKind::Sparse && draw(2) == 0;
            let format = Format { iact: compressed, weight: compressed };
            let least = brute_force(arch, &layer, &table, format, objective);
            match map(arch, &layer, &table, format, objective, Effort::default()) {
                Ok(found) => {
                    assert_eq!(Some(found.value), least, "case {case}: {layer:?}");
                    assert!(found.proven());
                    let again = evaluate(arch, &layer, &table, format, &found.mapping).unwrap();
                    assert_eq!(again, found.cost, "case {case}");
                    solved += 1;
                }
                Err(_) => {
                    assert_eq!(least, None, "case {case}: {layer:?}");
                    infeasible += 1;
                }
            }
        }
        assert!(solved > 400, "{solved} solved, {infeasible} infeasible");
    }
}
