//! Access counts of the model against a walk through the loops that remembers which tile each level holds.

use std::collections::HashSet;

use wattle_accel::{
    Architecture, Dim, Format, Group, Halo, Layer, LevelLoops, Mapping, ORDERS, Operand, PeKind, evaluate,
};

/// Loops of one level from the outermost in.
pub fn nest(bounds: &[usize; 8], order: [Group; 3]) -> Vec<(usize, usize)> {
    let of = |group: Group| match group {
        Group::Positions => vec![Dim::Q, Dim::P, Dim::N],
        Group::Reduction => vec![Dim::S, Dim::R, Dim::C],
        Group::Filters => vec![Dim::M],
    };
    let mut loops: Vec<Dim> = order.into_iter().flat_map(of).collect();
    loops.push(Dim::G);
    loops.iter().rev().map(|&d| (d as usize, bounds[d as usize])).collect()
}

/// All indices of a nest in the order they are visited.
pub fn walk(loops: &[(usize, usize)]) -> Vec<[usize; 8]> {
    let mut list = vec![[0usize; 8]];
    for &(dim, n) in loops {
        let with = |at: &[usize; 8], i: usize| {
            let mut at = *at;
            at[dim] = i;
            at
        };
        list = list.iter().flat_map(|at| (0..n).map(move |i| with(at, i))).collect();
    }
    list
}

/// Distinct elements of a tensor that tiles at `origin` of `extents` touch.
pub fn elements(
    layer: &Layer,
    operand: Operand,
    origin: &[usize; 8],
    extents: &[usize; 8],
) -> HashSet<Vec<usize>> {
    let ranges: Vec<(usize, usize)> = extents.iter().enumerate().map(|(i, &n)| (i, n)).collect();
    let at = |place: &[usize; 8]| {
        let [n, g, m, c, p, q, r, s]: [usize; 8] = std::array::from_fn(|i| origin[i] + place[i]);
        match operand {
            Operand::Weight => vec![g, m, c, r, s],
            Operand::Psum => vec![n, g, m, p, q],
            Operand::Iact => vec![n, g, c, p * layer.stride[0] + r, q * layer.stride[1] + s],
        }
    };
    walk(&ranges).iter().map(at).collect()
}

/// Elements that a level with tiles of `extents` takes in, when the loops above it visit `indices`: a tile is taken
/// when it differs from the one that is held.
fn taken(layer: &Layer, operand: Operand, indices: &[[usize; 8]], extents: &[usize; 8]) -> f64 {
    let (mut held, mut sum) = (None, 0);
    for index in indices {
        let origin: [usize; 8] = std::array::from_fn(|i| index[i] * extents[i]);
        let key: Vec<usize> =
            Dim::ALL.iter().map(|&d| if operand.depends_on(d) { origin[d as usize] } else { 0 }).collect();
        if held.as_ref() != Some(&key) {
            sum += elements(layer, operand, &origin, extents).len();
            held = Some(key);
        }
    }
    sum as f64
}

#[test]
fn counts_equal_a_walk_through_the_loops_on_random_nests() {
    let mut arch = Architecture::named("eyeriss-v1").expect("it is shipped");
    arch.halo = Halo::Refetch;
    arch.pe.kind = PeKind::Dense;
    (arch.pe.iact_words, arch.pe.weight_words, arch.pe.psum_words) = (4096, 4096, 4096);
    arch.buffers[0].outputs_bypass = false;
    // Two axes of one PE each: the array is told apart in other tests.
    arch.axes.iter_mut().for_each(|axis| axis.size = 1);
    let table = arch.table().expect("it is shipped");
    let mut state = 3u64;
    let mut draw = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for case in 0..200 {
        // Factors at external memory, at the buffer and in the PE; their products are the extents.
        let mut levels = [[1usize; 8]; 3];
        for level in &mut levels {
            for (dim, factor) in level.iter_mut().enumerate() {
                *factor = if dim == 1 { 1 } else { [1, 1, 2, 3][draw(4)] };
            }
        }
        // Filters lie within a tile: a window that slides over a tap at a time is not a tile of its own.
        for tap in [6, 7] {
            (levels[0][tap], levels[1][tap]) = (1, 1);
        }
        let bounds: [usize; 8] = std::array::from_fn(|i| levels.iter().map(|l| l[i]).product());
        let stride = 1 + draw(2);
        let layer = Layer {
            bounds,
            stride: [stride; 2],
            input: [(bounds[4] - 1) * stride + bounds[6], (bounds[5] - 1) * stride + bounds[7]],
            ..Layer::conv("nest", 1, 1, 1, 1, 1, 1)
        };
        let mapping = Mapping {
            spatial: vec![vec![], vec![]],
            pe: levels[2],
            levels: vec![
                LevelLoops::new(levels[0], ORDERS[draw(6)]),
                LevelLoops::new(levels[1], ORDERS[draw(6)]),
            ],
        };
        let cost = evaluate(&arch, &layer, &table, Format::default(), &mapping);
        let counts = cost.unwrap_or_else(|e| panic!("case {case}: {e}")).counts;
        let outer = walk(&nest(&levels[0], mapping.levels[0].order));
        let inner = walk(&nest(&levels[1], mapping.levels[1].order));
        let both: Vec<[usize; 8]> = outer
            .iter()
            .flat_map(|o| inner.iter().map(|i| std::array::from_fn(|d| o[d] * levels[1][d] + i[d])))
            .collect();
        let in_buffer: [usize; 8] = std::array::from_fn(|i| levels[1][i] * levels[2][i]);
        let into_buffer = taken(&layer, Operand::Iact, &outer, &in_buffer);
        let into_pe = |operand| taken(&layer, operand, &both, &levels[2]);
        let close = |what: &str, model: f64, walked: f64| {
            assert!(
                (model - walked).abs() <= 1e-6 * walked,
                "case {case}, {what}: {model} against {walked} {mapping:?}"
            );
        };
        close("external activations", counts.dram[0].reads, into_buffer);
        close("activations into the PE", counts.buffers[0][0].reads, into_pe(Operand::Iact));
        close("weights into the PE", counts.dram[1].reads, into_pe(Operand::Weight));
        // Sums leave whenever their tile does; all but the first visit read them back.
        let visits = into_pe(Operand::Psum);
        let drained = taken(&layer, Operand::Psum, &outer, &in_buffer);
        let outputs = layer.elements(Operand::Psum);
        close("sums that leave the chip", counts.dram[2].writes, drained);
        close("sums read back from outside", counts.dram[2].reads, drained - outputs);
        close("sums read back from the buffer", counts.buffers[0][2].reads, visits - drained);
    }
}
