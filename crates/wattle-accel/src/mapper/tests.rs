//! The mapper against brute force, its bounds against every mapping, constraints, limits of effort.

use super::front::front_of;
use super::*;
use crate::arch::{Buffer, PeKind};
use crate::bounds::Floor;
use crate::constraints::{FREE, Limits};
use crate::layer::Sparsity;
use crate::mapping::{LevelLoops, ORDERS};
use crate::space::{self, splits};
use crate::syntax::Syntax;

/// Every way to give trips to the levels outside a PE tile, as far as the space has it, in every order.
fn all_levels(buffers: usize, trips: &[usize; 8], visit: &mut impl FnMut(&[LevelLoops])) {
    fn go(
        at: usize,
        trips: &[usize; 8],
        rows: usize,
        levels: &mut Vec<LevelLoops>,
        visit: &mut impl FnMut(&[LevelLoops]),
    ) {
        let in_order = |bounds, levels: &mut Vec<LevelLoops>, then: &mut dyn FnMut(&mut Vec<LevelLoops>)| {
            // Behind one buffer also the orders that differ in nothing; there are 216 behind two.
            let orders = if levels.len() > 2 { space::orders(&bounds, &FREE) } else { ORDERS.to_vec() };
            for order in orders {
                levels[at] = LevelLoops::new(bounds, order);
                then(levels);
            }
        };
        if at == 0 {
            return in_order(*trips, levels, &mut |levels| visit(levels));
        }
        for (bounds, rest) in splits(trips, rows, &FREE, &FREE) {
            in_order(bounds, levels, &mut |levels| go(at - 1, &rest, rows * bounds[4], levels, visit));
        }
    }
    go(buffers, trips, 1, &mut vec![LevelLoops::NONE; buffers + 1], visit);
}

/// Every mapping of the space that fits, one after the other, with no bound.
fn all_mappings(context: &Context<'_>, mut visit: impl FnMut(&Cost)) {
    let (arch, layer, free) = (context.arch, context.layer, Limits::default());
    for spatial in space::arrays(arch, layer, &free) {
        let facts = context.array(&spatial);
        for pe in space::pe_tiles(arch, &space::rest(layer, &spatial), &free) {
            let work = Works::default().of(context, &pe, &facts.spread);
            let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
            let mut mapping = Mapping { spatial: spatial.clone(), pe, levels: vec![] };
            all_levels(arch.buffers.len(), &trips, &mut |levels| {
                mapping.levels.clear();
                mapping.levels.extend_from_slice(levels);
                if context.misfit(&mapping, &facts, &work).is_none() {
                    visit(&context.evaluate(&mapping, &facts, &work));
                }
            });
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
    (arch.buffers[0].iact_bytes, arch.buffers[0].psum_bytes) = (160.0, 100.0);
    (arch.pe.iact_words, arch.pe.psum_words, arch.pe.weight_words) = (6, 4, 12);
    if draw(2) == 0 {
        arch.pe.kind = PeKind::Gated;
    } else {
        arch.dram_bytes_per_cycle = Some(4.0);
    }
    match draw(6) {
        0 => arch.buffers[0].shared_bytes = Some(200.0),
        1 => arch.buffers[0].bypass = vec!["iact".to_string()],
        2 => arch.buffers[0].bypass = vec!["psum".to_string()],
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
        2 => arch.buffers[0].read_bits_per_cycle = Some(8.0),
        3 => arch.buffers[0].write_bits_per_cycle = Some(8.0),
        _ => {}
    }
    arch
}

/// The same behind an outer buffer, which keeps what it may and often is too small as well.
fn two_buffers(draw: &mut impl FnMut(u64) -> usize) -> Architecture {
    let mut arch = small_arch(draw);
    let mut table = arch.table().unwrap();
    let mut row = table.buffers["glb"].clone();
    row.read *= 1.5;
    row.write *= 2.0;
    table.buffers.insert("l2".to_string(), row);
    let bypass = match draw(5) {
        0 => vec!["iact"],
        1 => vec!["weight"],
        2 => vec!["psum"],
        _ => vec![],
    };
    let width = |draw: &mut dyn FnMut(u64) -> usize| [None, None, Some(8.0), Some(64.0)][draw(4)];
    let outer = Buffer {
        name: "l2".to_string(),
        shared_bytes: Some([90.0, 300.0, 1e6][draw(3)]),
        bypass: bypass.into_iter().map(str::to_string).collect(),
        outputs_bypass: draw(2) == 0,
        read_bits_per_cycle: width(draw),
        write_bits_per_cycle: width(draw),
        ..arch.buffers[0].clone()
    };
    (arch.buffers[0].iact_bytes, arch.buffers[0].weight_bytes) = (60.0, [0.0, 40.0][draw(2)]);
    if draw(2) == 0 {
        arch.buffers[0].outputs_bypass = false;
    }
    arch.buffers.insert(0, outer);
    arch.with_energy(table).unwrap()
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
    let solved = solved_as_by_brute_force(500, &mut draw, small_arch);
    assert!(solved > 400, "{solved} solved");
}

#[test]
fn branch_and_bound_equals_brute_force_on_100_random_problems_with_two_buffers() {
    let mut draw = draws(19);
    let solved = solved_as_by_brute_force(100, &mut draw, two_buffers);
    assert!(solved > 60, "{solved} solved");
}

/// Maps random problems, compares each with all mappings there are, and tells how many have one.
fn solved_as_by_brute_force<D: FnMut(u64) -> usize>(
    problems: usize,
    draw: &mut D,
    architecture: fn(&mut D) -> Architecture,
) -> usize {
    let mut solved = 0;
    for case in 0..problems {
        let (arch, layer) = (architecture(draw), small_layer(draw));
        let table = arch.table().unwrap();
        let objective = [Objective::Energy, Objective::Delay, Objective::Edp][draw(3)];
        let compressed = arch.pe.kind == PeKind::Sparse && draw(2) == 0;
        let format = Format { iact: compressed, weight: compressed };
        let context = Context::new(&arch, &layer, &table, format).unwrap();
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
            }
        }
    }
    solved
}

/// Behind two buffers the space has 4 of the 6 orders at most at each level, as behind one: no other costs less.
#[test]
fn orders_that_count_as_one_cost_the_same_behind_two_buffers() {
    let mut draw = draws(29);
    for case in 0..150 {
        let (arch, layer) = (two_buffers(&mut draw), small_layer(&mut draw));
        let table = arch.table().unwrap();
        let context = Context::new(&arch, &layer, &table, Format::default()).unwrap();
        let arrays = space::arrays(&arch, &layer, &Limits::default());
        let spatial = arrays[draw(arrays.len() as u64)].clone();
        let facts = context.array(&spatial);
        let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i]));
        let inner = splits(&trips, 1, &FREE, &FREE);
        let (l1, rest) = inner[draw(inner.len() as u64)];
        let outer = splits(&rest, l1[4], &FREE, &FREE);
        let (l2, dram) = outer[draw(outer.len() as u64)];
        let work = Works::default().of(&context, &[1; 8], &facts.spread);
        let least = |orders: &dyn Fn(&[usize; 8]) -> Vec<crate::Order>| {
            let mut costs = vec![];
            for (a, b, c) in orders(&dram).into_iter().flat_map(|a| {
                let inner = orders(&l1);
                orders(&l2).into_iter().flat_map(move |b| inner.clone().into_iter().map(move |c| (a, b, c)))
            }) {
                let levels = vec![LevelLoops::new(dram, a), LevelLoops::new(l2, b), LevelLoops::new(l1, c)];
                let mapping = Mapping { spatial: spatial.clone(), pe: [1; 8], levels };
                costs.push(Objective::Edp.value(&context.evaluate(&mapping, &facts, &work)));
            }
            costs.into_iter().fold(f64::INFINITY, f64::min)
        };
        let (all, some) = (least(&|_| ORDERS.to_vec()), least(&|bounds| space::orders(bounds, &FREE)));
        assert!((some / all - 1.0).abs() < 1e-12, "case {case}: {some} {all} {arch:?} {layer:?}");
    }
}

/// The bound of a tile of the inner buffer, whatever the outer one and external memory do with the rest.
#[test]
fn every_mapping_lies_above_the_bounds_of_its_inner_tile() {
    let (mut draw, free) = (draws(23), Limits::default());
    for case in 0..40 {
        let (arch, layer) = (two_buffers(&mut draw), small_layer(&mut draw));
        let table = arch.table().unwrap();
        let context = Context::new(&arch, &layer, &table, Format::default()).unwrap();
        for spatial in space::arrays(&arch, &layer, &free) {
            let facts = context.array(&spatial);
            for pe in space::pe_tiles(&arch, &space::rest(&layer, &spatial), &free) {
                let work = Works::default().of(&context, &pe, &facts.spread);
                let slack = context.relaxed_slack(&facts, &pe);
                let whole = context.relaxed(&facts, &pe, &work);
                let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
                for (inner, rest) in splits(&trips, 1, &FREE, &FREE) {
                    let inside = [LevelLoops::new(inner, ORDERS[draw(6)])];
                    let known = context.relaxed_outside(&facts, &pe, &work, &inside, &rest);
                    for (l2, dram) in splits(&rest, inner[4], &FREE, &FREE) {
                        let outer = [dram, l2].map(|bounds| LevelLoops::new(bounds, ORDERS[draw(6)]));
                        let levels = [&outer[..], &inside[..]].concat();
                        let mapping = Mapping { spatial: spatial.clone(), pe, levels };
                        let cost = context.evaluate(&mapping, &facts, &work);
                        let near = 1.0 + 1e-9;
                        let (e, c) = (near * cost.energy.total(), near * cost.cycles.total());
                        for corners in [&whole, &known] {
                            let above = |k: &Cost| e >= k.energy.total() - slack && c >= k.cycles.total();
                            let any = corners.iter().flatten().any(above);
                            assert!(any, "case {case}: {mapping:?} {cost:?} {corners:?} {arch:?} {layer:?}");
                        }
                    }
                }
            }
        }
    }
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
        let context = Context::new(&arch, &layer, &table, format).unwrap();
        let floor = Floor::of(&context);
        let mut works = Works::default();
        for spatial in space::arrays(&arch, &layer, &free) {
            let facts = context.array(&spatial);
            let rest = space::rest(&layer, &spatial);
            for pe in space::pe_tiles(&arch, &rest, &free) {
                let work = works.of(&context, &pe, &facts.spread);
                let least = floor.work(&context, &pe, &facts.spread);
                let delay = floor.share(&layer, &facts.spread, &pe) * floor.steps(&context, &pe, &rest);
                let energy = context.energy_floor_within(context.energy_floor(&floor, &pe), delay);
                let slack = context.relaxed_slack(&facts, &pe);
                let steps = [&least, &work].map(|w| context.relaxed(&facts, &pe, w));
                let trips = std::array::from_fn(|i| layer.bounds[i].div_ceil(facts.spread[i] * pe[i]));
                for (glb, dram) in splits(&trips, 1, &FREE, &FREE) {
                    let (dram_order, glb_order) = (ORDERS[draw(6)], ORDERS[draw(6)]);
                    let levels = vec![LevelLoops::new(dram, dram_order), LevelLoops::new(glb, glb_order)];
                    let mut mapping = Mapping { spatial: spatial.clone(), pe, levels };
                    let cost = context.evaluate(&mapping, &facts, &work);
                    let tile = context.tile_floor(&mut mapping, &facts, &work);
                    let near = 1.0 + 1e-9;
                    let (e, c) = (near * cost.energy.total(), near * cost.cycles.total());
                    assert!(e >= energy && c >= delay, "case {case}: {mapping:?} {arch:?} {layer:?}");
                    assert!(
                        e >= tile.energy.total() - slack && c >= tile.cycles.total(),
                        "case {case}: {mapping:?} {cost:?} {tile:?} {arch:?} {layer:?}"
                    );
                    for corners in &steps {
                        let above = |k: &Cost| e >= k.energy.total() - slack && c >= k.cycles.total();
                        let any = corners.iter().flatten().any(above);
                        assert!(any, "case {case}: {mapping:?} {cost:?} {corners:?} {arch:?} {layer:?}");
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
        let context = Context::new(&arch, &layer, &table, format).unwrap();
        let mut all: Vec<(f64, f64)> = vec![];
        all_mappings(&context, |cost| all.push((cost.energy.total(), cost.cycles.total())));
        let none = Constraints::default();
        let search = Search {
            objective: Objective::Edp,
            effort: Effort::default(),
            constraints: &none,
            crew: &Crew::of(1),
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
    let search = Search {
        objective: Objective::Edp,
        effort,
        constraints: &constraints,
        crew: &Crew::of(1),
        watch: &|_| {},
    };
    map_within(&arch, &layer, &arch.table()?, &search)
}

#[test]
fn what_is_found_does_not_depend_on_the_threads() {
    let arch = Architecture::named("eyeriss-v2").unwrap();
    let (table, none) = (arch.table().unwrap(), Constraints::default());
    for (c, m, map, taps) in [(24, 40, 13, 3), (64, 32, 14, 1), (3, 16, 32, 3)] {
        let sparsity = (Sparsity::uniform(0.7), Sparsity::uniform(0.8));
        let layer = Layer::conv("conv", 1, c, m, map, taps, 1).with_sparsity(sparsity.0, sparsity.1);
        let with = |objective, threads| {
            let (crew, effort) = (&Crew::of(threads), Effort::default());
            let search = Search { objective, effort, constraints: &none, crew, watch: &|_| {} };
            let points = front(&arch, &layer, &table, &search).unwrap();
            (map_within(&arch, &layer, &table, &search).unwrap(), points)
        };
        for objective in [Objective::Energy, Objective::Delay, Objective::Edp] {
            let alone = with(objective, 1);
            assert!(alone.0.proven() && alone.1.proven);
            assert!([2, 5].into_iter().all(|threads| with(objective, threads) == alone));
        }
    }
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
        found.mapping.levels[1].order,
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
    arch.buffers[0].iact_bytes = 64.0;
    let constraints = Constraints::parse(Syntax::Toml, text).unwrap();
    let effort = Effort::default();
    let search = Search {
        objective: Objective::Edp,
        effort,
        constraints: &constraints,
        crew: &Crew::of(1),
        watch: &|_| {},
    };
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
        assert!(0.0 < hasty.lower_bound && hasty.lower_bound <= proven.value && proven.value <= hasty.value);
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
        spatial: vec![vec![(crate::Dim::C, 4)], vec![(crate::Dim::M, 2)], vec![(crate::Dim::R, 3)], vec![]],
        pe: [1, 1, 20, 3, 1, 1, 1, 3],
        levels: vec![LevelLoops::NONE, LevelLoops::new([1, 1, 1, 2, 13, 13, 1, 1], ORDERS[0])],
    };
    let of =
        |arch: &Architecture| evaluate(arch, &layer, &table, Format::default(), &mapping).unwrap().counts;
    let (shared, alone) = (of(&arch), of(&apart));
    // Activations are the same for 2 cluster columns; sums are added over 4 cluster rows and 3 PE rows.
    assert!(alone.buffers[0][0].reads > 1.99 * shared.buffers[0][0].reads);
    assert_eq!(
        alone.buffers[0][2].writes + layer.elements(crate::Operand::Psum),
        12.0 * (shared.buffers[0][2].writes + layer.elements(crate::Operand::Psum))
    );
    let mut bypassing = arch.clone();
    bypassing.buffers[0].bypass = vec!["iact".to_string()];
    let passed = of(&bypassing);
    assert_eq!(passed.buffers[0][0], crate::Accesses::default());
    assert_eq!(passed.dram[0].reads, shared.buffers[0][0].reads);
}
