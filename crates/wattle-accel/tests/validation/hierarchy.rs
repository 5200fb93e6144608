//! Access counts of hierarchies of one to three buffers against a walk that moves every element.
//!
//! The walk knows nothing of the model: it steps through all loops, keeps for each place the elements that it holds,
//! and counts when one crosses. Its rules are those that `docs/decisions/0036-buffers-in-a-row.md` states.

use std::collections::HashSet;

use wattle_accel::{
    Accesses, Architecture, Buffer, Counts, Dim, Format, Group, Halo, Layer, LevelLoops, MAX_BUFFERS,
    Mapping, ORDERS, Operand, PeKind, evaluate,
};

use crate::trace::{elements, nest, walk};

type Element = Vec<usize>;

/// What a place holds of a tensor.
#[derive(Default)]
struct Held {
    /// Where its tile begins, in the loops that the tensor depends on.
    origin: Option<Vec<usize>>,
    elements: HashSet<Element>,
    /// Elements that the next place in has taken from here, or through here, since the tile came.
    passed: HashSet<Element>,
}

/// A place that keeps a tensor: its number (0 is external memory, then the buffers, then the PE) and what it holds.
struct Place {
    number: usize,
    held: Held,
}

/// Walks all loops of a mapping on an array of one PE.
fn walked(arch: &Architecture, layer: &Layer, mapping: &Mapping) -> Counts {
    let pes = arch.buffers.len() + 1;
    // Bounds inside a tile of each place; external memory holds all.
    let inside: Vec<[usize; 8]> = (0..=pes)
        .map(|place| {
            std::array::from_fn(|i| {
                mapping.levels[place..].iter().map(|l| l.bounds[i]).product::<usize>() * mapping.pe[i]
            })
        })
        .collect();
    // Where each place's tile begins at every step.
    let mut steps: Vec<Vec<[usize; 8]>> = vec![vec![[0; 8]]];
    for (level, loops) in mapping.levels.iter().enumerate() {
        let indices = walk(&nest(&loops.bounds, loops.order));
        let next = |places: &Vec<[usize; 8]>, index: &[usize; 8]| {
            let last = places[level];
            let origin = std::array::from_fn(|i| last[i] + index[i] * inside[level + 1][i]);
            [places.clone(), vec![origin]].concat()
        };
        steps = steps.iter().flat_map(|places| indices.iter().map(|i| next(places, i))).collect();
    }
    let mut totals = vec![[Accesses::default(); 3]; pes + 1];
    for operand in Operand::ALL {
        let keeps = |&place: &usize| place == 0 || place == pes || arch.buffers[place - 1].keeps(operand);
        let mut places: Vec<Place> =
            (0..=pes).filter(keeps).map(|number| Place { number, held: Held::default() }).collect();
        let tensor = operand as usize;
        // Sums that have been in a PE.
        let mut seen: HashSet<Element> = HashSet::new();
        for origins in &steps {
            let origin = |number: usize| -> Vec<usize> {
                let relevant = Dim::ALL.into_iter().filter(|&d| operand.depends_on(d));
                relevant.map(|d| origins[number][d as usize]).collect()
            };
            let moves = |p: &Place| p.held.origin.as_ref() != Some(&origin(p.number));
            let first = places.iter().position(moves).unwrap_or(places.len());
            if operand == Operand::Psum {
                leave(arch, &mut places, first, &mut totals, &mut seen);
            }
            for at in first..places.len() {
                let number = places[at].number;
                let tile = elements(layer, operand, &origins[number], &inside[number]);
                if number > 0 {
                    let [source, place] = places.get_disjoint_mut([at - 1, at]).expect("two places");
                    for element in &tile {
                        assert!(
                            source.held.elements.contains(element),
                            "{operand:?} {element:?} from nowhere"
                        );
                        let known = operand != Operand::Psum || seen.contains(element);
                        // A sum that the source has not passed on since its tile came arrives with that tile.
                        let read = match operand {
                            Operand::Psum if source.number == 0 => known,
                            Operand::Psum => !source.held.passed.insert(element.clone()),
                            _ => true,
                        };
                        totals[source.number][tensor].reads += f64::from(u8::from(read));
                        totals[place.number][tensor].writes += f64::from(u8::from(known));
                    }
                }
                places[at].held =
                    Held { origin: Some(origin(number)), elements: tile, passed: HashSet::new() };
            }
        }
        if operand == Operand::Psum {
            leave(arch, &mut places, 1, &mut totals, &mut seen);
        }
    }
    let mut counts = Counts { dram: totals[0], ..Counts::default() };
    counts.buffers[..pes - 1].copy_from_slice(&totals[1..pes]);
    counts
}

/// Sums of the places from `first` on leave, from the PE outwards; external memory keeps what it holds.
fn leave(
    arch: &Architecture,
    places: &mut [Place],
    first: usize,
    totals: &mut [[Accesses; 3]],
    seen: &mut HashSet<Element>,
) {
    for at in (first.max(1)..places.len()).rev() {
        let [outside, place] = places.get_disjoint_mut([at - 1, at]).expect("two places");
        totals[outside.number][2].writes += place.held.elements.len() as f64;
        if place.number + 1 == totals.len() {
            seen.extend(place.held.elements.iter().cloned());
        } else if arch.buffers[place.number - 1].outputs_bypass {
            // The last visit of each went past this buffer.
            totals[place.number][2].writes -= place.held.elements.len() as f64;
        }
        place.held.elements.clear();
        place.held.origin = None;
    }
}

fn draws(mut state: u64) -> impl FnMut(usize) -> usize {
    move |n| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    }
}

/// One PE with room for everything behind so many buffers, each of which keeps what it may.
fn hierarchy(buffers: usize, draw: &mut impl FnMut(usize) -> usize) -> Architecture {
    let mut arch = Architecture::named("eyeriss-v1").expect("it is shipped");
    arch.halo = Halo::Refetch;
    arch.pe.kind = PeKind::Dense;
    (arch.pe.iact_words, arch.pe.weight_words, arch.pe.psum_words) = (4096, 4096, 4096);
    arch.axes.iter_mut().for_each(|axis| axis.size = 1);
    (arch.technology, arch.calibration) = (None, None);
    let mut table = arch.table().expect("it is shipped");
    let row = table.buffers["glb"].clone();
    table.buffers.clear();
    arch.buffers = (0..buffers)
        .map(|at| {
            let name = format!("l{}", buffers - at);
            let mut row = row.clone();
            row.read *= 1.0 + (buffers - at) as f64;
            row.write = 0.5 * row.read;
            table.buffers.insert(name.clone(), row);
            let bypass: Vec<String> =
                ["iact", "weight", "psum"].into_iter().filter(|_| draw(3) == 0).map(str::to_string).collect();
            Buffer {
                name,
                shared_bytes: Some(1e9),
                iact_bytes: 0.0,
                weight_bytes: 0.0,
                psum_bytes: 0.0,
                outputs_bypass: draw(2) == 0,
                bypass,
                read_bits_per_cycle: Some(8.0 + draw(64) as f64),
                write_bits_per_cycle: Some(8.0 + draw(64) as f64),
            }
        })
        .collect();
    arch.with_energy(table).expect("its rows are those of the buffers")
}

/// Loops at every level, random, and the layer that they make up.
fn nested(buffers: usize, draw: &mut impl FnMut(usize) -> usize) -> (Layer, Mapping) {
    let mut bounds = vec![[1usize; 8]; buffers + 2];
    for level in &mut bounds {
        for (dim, factor) in level.iter_mut().enumerate() {
            *factor = if dim == 1 { 1 } else { [1, 1, 1, 2, 3][draw(5)] };
        }
    }
    // Filters lie within a tile: a window that slides over a tap at a time is not a tile of its own.
    for level in &mut bounds[..=buffers] {
        (level[6], level[7]) = (1, 1);
    }
    let all: [usize; 8] = std::array::from_fn(|i| bounds.iter().map(|l| l[i]).product());
    let stride = 1 + draw(2);
    let layer = Layer {
        bounds: all,
        stride: [stride; 2],
        input: [(all[4] - 1) * stride + all[6], (all[5] - 1) * stride + all[7]],
        ..Layer::conv("nest", 1, 1, 1, 1, 1, 1)
    };
    let levels = bounds[..=buffers].iter().map(|&b| LevelLoops::new(b, ORDERS[draw(6)])).collect();
    (layer, Mapping { spatial: vec![vec![], vec![]], pe: bounds[buffers + 1], levels })
}

#[test]
fn counts_of_every_level_equal_a_walk_that_moves_each_element() {
    let mut draw = draws(5);
    let mut checked = [0; MAX_BUFFERS + 1];
    while checked.iter().sum::<usize>() < 240 {
        let buffers = 1 + draw(3);
        let (arch, (layer, mapping)) = (hierarchy(buffers, &mut draw), nested(buffers, &mut draw));
        // Walks of millions of elements find nothing that short ones do not.
        if layer.macs() > 60e3 || mapping.tiles() > 4e3 {
            continue;
        }
        checked[buffers] += 1;
        let table = arch.table().expect("it was given");
        let cost = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("it fits");
        let walked = walked(&arch, &layer, &mapping);
        let close = |what: String, model: f64, walk: f64| {
            assert!(
                (model - walk).abs() <= 1e-6 * walk.abs().max(1.0),
                "{what}: {model} against {walk} walked\n{arch:?}\n{mapping:?}"
            );
        };
        let widths = [arch.bits.iact, arch.bits.weight, arch.bits.psum];
        for operand in Operand::ALL {
            let tensor = operand as usize;
            let pair = |c: &Counts, place: usize| {
                let a = if place == 0 { c.dram[tensor] } else { c.buffers[place - 1][tensor] };
                (a.reads, a.writes)
            };
            for place in 0..=buffers {
                let (model, walk) = (pair(&cost.counts, place), pair(&walked, place));
                close(format!("{operand:?} read at place {place}"), model.0, walk.0);
                close(format!("{operand:?} written at place {place}"), model.1, walk.1);
            }
        }
        for (at, buffer) in arch.buffers.iter().enumerate() {
            let row = &table.buffers[&buffer.name];
            let bits = |of: fn(&Accesses) -> f64| -> f64 {
                (0..3).map(|t| of(&walked.buffers[at][t]) * widths[t]).sum()
            };
            let (read, written) = (bits(|a| a.reads), bits(|a| a.writes));
            close(
                format!("energy of {}", buffer.name),
                cost.energy.buffers[at],
                row.reading(read) + row.writing(written),
            );
            let busy = written / buffer.write_bits_per_cycle.expect("given");
            assert!(cost.cycles.buffers[at] >= busy - 1e-6 && cost.cycles.total() >= busy - 1e-6);
        }
    }
    assert!(checked[1..=3].iter().all(|&n| n > 40), "{checked:?}");
}

/// Two buffers counted by hand: 4 filters, 6 channels, 1 x 1 taps, a map of 1 x 4; external memory loops over 2 halves
/// of the channels, the L2 over 2 halves of the filters, the L1 over 4 positions, a PE holds 2 filters of 3 channels.
#[test]
fn two_buffers_by_hand() {
    let mut draw = draws(1);
    let mut arch = hierarchy(2, &mut draw);
    for buffer in &mut arch.buffers {
        (buffer.bypass, buffer.outputs_bypass) = (vec![], false);
    }
    arch.buffers[1].bypass = vec!["weight".to_string()];
    let layer = Layer { bounds: [1, 1, 4, 6, 1, 4, 1, 1], ..Layer::gemm("fc", 4, 6, 4) };
    let level = |dim: Dim, n: usize| {
        let mut bounds = [1; 8];
        bounds[dim as usize] = n;
        LevelLoops::new(bounds, ORDERS[0])
    };
    let mapping = Mapping {
        spatial: vec![vec![], vec![]],
        pe: [1, 1, 2, 3, 1, 1, 1, 1],
        levels: vec![level(Dim::C, 2), level(Dim::M, 2), level(Dim::Q, 4)],
    };
    let table = arch.table().expect("it was given");
    let counts = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("it fits").counts;
    let of = |reads: f64, writes: f64| Accesses { reads, writes };
    // Activations: 24 values come in once. The L1 holds a half of the channels at all positions through both halves of
    // the filters, so it too is filled once; the PE takes its 3 x 4 values again for each half of the filters.
    assert_eq!(counts.dram[0], of(24.0, 0.0));
    assert_eq!((counts.buffers[0][0], counts.buffers[1][0]), (of(24.0, 24.0), of(48.0, 24.0)));
    // Weights: 24 values, each used from one set that stays through the positions; they pass the L1 by.
    assert_eq!(counts.dram[1], of(24.0, 0.0));
    assert_eq!((counts.buffers[0][1], counts.buffers[1][1]), (of(24.0, 24.0), of(0.0, 0.0)));
    // Sums: 16 of them. The L2 holds all 16 through both halves of the channels and gives them out once. The L1 holds
    // 8 at a time: 32 visits, of which 16 are first touches and 16 come back from the L2, where they are read.
    assert_eq!(counts.dram[2], of(0.0, 16.0));
    assert_eq!((counts.buffers[0][2], counts.buffers[1][2]), (of(16.0, 32.0), of(0.0, 48.0)));
}

#[test]
fn a_buffer_that_keeps_nothing_changes_nothing() {
    let mut draw = draws(9);
    for _ in 0..60 {
        let (mut arch, (layer, mapping)) = (hierarchy(1, &mut draw), nested(1, &mut draw));
        let table = arch.table().expect("it was given");
        let one = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("it fits");
        let mut idle = arch.buffers[0].clone();
        idle.name = "idle".to_string();
        idle.bypass = Operand::ALL.iter().map(|o| o.name().to_string()).collect();
        let mut table = table;
        table.buffers.insert("idle".to_string(), table.buffers["l1"].clone());
        for at in [0, 1] {
            let mut two = mapping.clone();
            arch.buffers.insert(at, idle.clone());
            two.levels.insert(at, LevelLoops::NONE);
            let cost = evaluate(&arch, &layer, &table, Format::default(), &two).expect("it fits");
            let parts = (cost.cycles.total(), cost.energy.total(), cost.counts.dram);
            assert_eq!(parts, (one.cycles.total(), one.energy.total(), one.counts.dram), "{mapping:?}");
            arch.buffers.remove(at);
        }
    }
}

/// A layer as ZigZag maps it: channels, filters, output map, input map, taps, stride; its loops above the array from
/// the innermost out; how many of them lie in the PE, in the tile of the L1 for sums, in that for activations; pJ that
/// activations cost at the L1, at the L2 and at external memory, and weights there; sums written to the L2.
type Peer = ([usize; 6], &'static [(Dim, usize)], [usize; 3], [f64; 4], f64);

/// ZigZag 3.9.1 on its `tpu_like` with an L1 of 64 KiB for activations and sums below its 2 MiB (60 and 50 pJ for 2048
/// bits), every memory moving single values, its own orders of loops for its ResNet-18; what `benches/peers/hierarchy.py`
/// prints, but for the last layer, whose filters ZigZag rounds up.
const PEERS: [Peer; 11] = {
    use Dim::{C, M, P, Q, R, S};
    [
        (
            [3, 64, 112, 224, 7, 2],
            &[(S, 7), (R, 7), (Q, 112), (P, 112), (M, 2)],
            [2, 3, 3],
            [1070160.0, 1935413.76, 13171200.0, 823200.0],
            802816.0,
        ),
        (
            [64, 64, 56, 56, 3, 1],
            &[(C, 2), (S, 3), (R, 3), (Q, 56), (P, 56), (M, 2)],
            [3, 4, 4],
            [1081920.0, 2254282.24, 17561600.0, 3225600.0],
            200704.0,
        ),
        (
            [64, 128, 28, 56, 3, 2],
            &[(C, 2), (S, 3), (R, 3), (Q, 28), (P, 28), (M, 4)],
            [3, 5, 4],
            [658560.0, 2254282.24, 17561600.0, 6451200.0],
            100352.0,
        ),
        (
            [64, 128, 28, 56, 1, 2],
            &[(C, 2), (Q, 28), (P, 28), (M, 4)],
            [1, 2, 4],
            [56840.0, 155733.76, 4390400.0, 716800.0],
            100352.0,
        ),
        (
            [128, 128, 28, 28, 3, 1],
            &[(C, 4), (S, 3), (R, 3), (Q, 28), (P, 28), (M, 4)],
            [3, 5, 4],
            [1081920.0, 2105949.44, 8780800.0, 12902400.0],
            100352.0,
        ),
        (
            [128, 256, 14, 28, 3, 2],
            &[(C, 4), (S, 3), (R, 3), (Q, 14), (P, 14), (M, 8)],
            [3, 6, 4],
            [658560.0, 2105949.44, 8780800.0, 25804800.0],
            50176.0,
        ),
        (
            [128, 256, 14, 28, 1, 2],
            &[(C, 4), (Q, 14), (P, 14), (M, 8)],
            [1, 3, 4],
            [51940.0, 77866.88, 2195200.0, 2867200.0],
            50176.0,
        ),
        (
            [256, 256, 14, 14, 3, 1],
            &[(C, 8), (R, 3), (Q, 14), (P, 14), (M, 8), (S, 3)],
            [2, 4, 6],
            [856520.0, 155733.76, 4390400.0, 51609600.0],
            150528.0,
        ),
        (
            [256, 512, 7, 14, 3, 2],
            &[(R, 3), (Q, 7), (P, 7), (M, 16), (S, 3), (C, 8)],
            [1, 6, 5],
            [433160.0, 155733.76, 4390400.0, 103219200.0],
            25088.0,
        ),
        (
            [256, 512, 7, 14, 1, 2],
            &[(C, 8), (Q, 7), (P, 7), (M, 16)],
            [1, 4, 4],
            [49490.0, 38933.44, 1097600.0, 11468800.0],
            25088.0,
        ),
        (
            [512, 512, 7, 7, 3, 1],
            &[(C, 16), (Q, 7), (P, 7), (M, 16), (S, 3), (R, 3)],
            [1, 3, 6],
            [851620.0, 77866.88, 2195200.0, 206438400.0],
            225792.0,
        ),
    ]
};

/// `tpu_like` with an L1 for each of the two tensors, so that their tiles can differ as ZigZag's do, in this order.
fn with_two_l1(sums_outside: bool) -> Architecture {
    let mut arch =
        Architecture::parse(include_str!("../../../../examples/accel/tpu-like.toml")).expect("a file");
    let mut table = arch.table().expect("it is shipped");
    let mut row = table.buffers["glb"].clone();
    (row.read, row.write) = (60.0, 50.0);
    let l1 = |name: &str, passing: &str| {
        let bypass = vec!["weight".to_string(), passing.to_string()];
        Buffer { name: name.to_string(), bypass, ..arch.buffers[0].clone() }
    };
    let mut both = [l1("sums", "iact"), l1("iacts", "psum")];
    if !sums_outside {
        both.reverse();
    }
    for buffer in both {
        table.buffers.insert(buffer.name.clone(), row.clone());
        arch.buffers.push(buffer);
    }
    arch.with_energy(table).expect("its rows are those of the buffers")
}

/// A sum is counted by other rules there (its way out is read, its last word is 8 bits wide), how often it moves is not.
#[test]
fn activations_and_weights_cost_at_every_level_what_zigzag_counts() {
    for ([c, m, map, input, taps, stride], loops, [in_pe, in_sums, in_iacts], pj, sums) in PEERS {
        let arch = with_two_l1(in_sums >= in_iacts);
        let table = arch.table().expect("it was given");
        let layer = Layer { input: [input; 2], ..Layer::conv("l", 1, c, m, map, taps, stride) };
        // Loops from one place of the order to another; groups in the order in which they come.
        let level = |from: usize, to: usize| {
            let (mut bounds, mut groups) = ([1; 8], vec![]);
            for &(dim, n) in &loops[from..to] {
                bounds[dim as usize] = n;
                let group = match dim {
                    Dim::M => Group::Filters,
                    Dim::C | Dim::R | Dim::S => Group::Reduction,
                    _ => Group::Positions,
                };
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            for group in [Group::Positions, Group::Reduction, Group::Filters] {
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            LevelLoops::new(bounds, [groups[0], groups[1], groups[2]])
        };
        let (inner, outer) = (in_sums.min(in_iacts), in_sums.max(in_iacts));
        let mapping = Mapping {
            spatial: vec![vec![(Dim::M, m.min(32))], vec![(Dim::C, c.min(32))]],
            pe: level(0, in_pe).bounds,
            levels: vec![
                LevelLoops::NONE,
                level(outer, loops.len()),
                level(inner, outer),
                level(in_pe, inner),
            ],
        };
        let counts = evaluate(&arch, &layer, &table, Format::default(), &mapping).expect("it fits").counts;
        let at = |name: &str| arch.buffers.iter().position(|b| b.name == name).expect("it has one");
        let cost = |name: &str, a: Accesses| {
            let row = &table.buffers[name];
            row.reading(8.0 * a.reads) + row.writing(8.0 * a.writes)
        };
        let found = [
            cost("iacts", counts.buffers[at("iacts")][0]),
            cost("glb", counts.buffers[0][0]),
            table.dram.reading(8.0 * counts.dram[0].reads),
            table.dram.reading(8.0 * counts.dram[1].reads),
        ];
        for (found, pj) in found.into_iter().zip(pj) {
            assert!((found / pj - 1.0).abs() < 1e-9, "{layer:?}: {found} pJ against {pj}");
        }
        assert_eq!(
            (counts.buffers[0][2].writes, counts.dram[2].writes),
            (sums, layer.elements(Operand::Psum))
        );
    }
}
