//! The PE array simulated tile by tile: who computes, who waits, and the exact integer result.
//!
//! Chains of PEs that add up one partial sum wait for their slowest member at every position; ports deliver one
//! window ahead at most; all wait for each other when weights or buffer tiles change. PEs work on the actual
//! non-zero values, so their times are counted, not expected; deliveries take the average compressed size.

use std::collections::HashMap;

use crate::arch::Architecture;
use crate::cost::{Context, Format};
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::layer::{Dim, Kind, Layer, Operand};
use crate::mapping::{Mapping, loops};

/// What a simulation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// Cycles from the first load to the last drained sum.
    pub cycles: f64,
    /// Cycles in which each PE multiplied, by PE in order of the axes.
    pub busy: Vec<f64>,
    /// Products of two non-zero values.
    pub products: u64,
    /// Sums `[N, G M, P, Q]`, exact.
    pub outputs: Vec<i32>,
}

/// One PE's place in every loop.
struct Place {
    index: [usize; 8],
    chain: usize,
    port: usize,
}

/// Runs a layer on 8-bit activations `[N, G C, H, W]` and weights `[G M, C, R, S]` under a mapping.
pub fn simulate(
    arch: &Architecture,
    layer: &Layer,
    table: &EnergyTable,
    format: Format,
    mapping: &Mapping,
    iacts: &[i8],
    weights: &[i8],
) -> Result<Simulation, AccelError> {
    layer.check()?;
    mapping.check(arch, layer)?;
    let expected = [Operand::Iact, Operand::Weight].map(|o| layer.elements(o) as usize);
    for ((what, found), expected) in [("activations", iacts.len()), ("weights", weights.len())].into_iter().zip(expected) {
        if found != expected {
            return Err(AccelError::Size { layer: layer.name.clone(), what, found, expected });
        }
    }
    let context = Context { arch, layer, table, format };
    let mut array = Array::new(&context, mapping, iacts, weights);
    array.run();
    let cycles = array.chains.iter().copied().fold(array.floor, f64::max);
    Ok(Simulation { cycles, busy: array.busy, products: array.products, outputs: array.outputs })
}

/// The array while it runs; times are cycles since the start.
struct Array<'a> {
    context: &'a Context<'a>,
    mapping: &'a Mapping,
    iacts: &'a [i8],
    weights: &'a [i8],
    places: Vec<Place>,
    /// When each chain is done with its last position.
    chains: Vec<f64>,
    /// When each activation port has delivered its last window.
    ports: Vec<f64>,
    /// Nothing starts before this: the last barrier.
    floor: f64,
    /// When the set of weights in use was complete.
    last_set: f64,
    busy: Vec<f64>,
    products: u64,
    outputs: Vec<i32>,
    /// Cycles to deliver a window to all PEs of a port, and to drain a chain's sums.
    window_cycles: f64,
    drain_cycles: f64,
    /// Cycles of the longest member of each chain in the current step.
    slowest: Vec<f64>,
}

impl<'a> Array<'a> {
    fn new(context: &'a Context<'a>, mapping: &'a Mapping, iacts: &'a [i8], weights: &'a [i8]) -> Array<'a> {
        let (arch, layer) = (context.arch, context.layer);
        let mut places = vec![Place { index: [0; 8], chain: 0, port: 0 }];
        let (mut chains, mut ports) = (1, 1);
        for (axis, spread) in arch.axes.iter().zip(&mapping.spatial) {
            for &(dim, n) in spread {
                let reduces = !Operand::Psum.depends_on(dim);
                let own = axis.has_port(Operand::Iact);
                let mut wider = Vec::with_capacity(places.len() * n);
                for place in &places {
                    for i in 0..n {
                        let mut index = place.index;
                        index[dim as usize] = index[dim as usize] * n + i;
                        let chain = if reduces { place.chain } else { place.chain * n + i };
                        wider.push(Place { index, chain, port: if own { place.port * n + i } else { place.port } });
                    }
                }
                places = wider;
                chains *= if reduces { 1 } else { n };
                ports *= if own { n } else { 1 };
            }
        }
        let facts = context.array(&mapping.spatial);
        let [_, _, m0, c0, _, _, r0, s0] = mapping.pe;
        // A window that slides along a row brings one stride of new columns.
        let slides = arch.halo == crate::arch::Halo::Reuse && mapping.glb[5] > 1;
        let columns = if slides { s0.min(layer.stride[1]) } else { s0 };
        let (iact_shared, psum_shared) = (facts.shared[0] * facts.port_union, facts.shared[2]);
        let window_cycles =
            (c0 * r0 * columns) as f64 * iact_shared * context.iact_bits(c0) / arch.ports.iact_bits;
        let drain_cycles = m0 as f64 * psum_shared * arch.bits.psum / arch.ports.psum_bits;
        let busy = vec![0.0; places.len()];
        Array {
            context,
            mapping,
            iacts,
            weights,
            places,
            chains: vec![0.0; chains],
            ports: vec![0.0; ports],
            floor: 0.0,
            last_set: 0.0,
            busy,
            products: 0,
            outputs: vec![0; layer.elements(Operand::Psum) as usize],
            window_cycles,
            drain_cycles: if arch.pe.serial_psums { drain_cycles } else { 0.0 },
            slowest: vec![0.0; chains],
        }
    }

    /// All steps: the loops above the PEs, from the outermost in.
    fn run(&mut self) {
        let level = |bounds: &[usize; 8], order| {
            let mut list: Vec<(Dim, usize)> =
                loops(order).map(|d| (d, bounds[d as usize])).filter(|(_, n)| *n > 1).collect();
            list.reverse();
            list
        };
        let outer = level(&self.mapping.dram, self.mapping.dram_order);
        let inner = level(&self.mapping.glb, self.mapping.glb_order);
        let (mut last_weights, mut last_sums, mut last_tile) = (None, None, None);
        let mut at_dram = [0usize; 8];
        loop {
            let mut at_glb = [0usize; 8];
            loop {
                let base: [usize; 8] = std::array::from_fn(|i| at_dram[i] * self.mapping.glb[i] + at_glb[i]);
                let of = |operand: Operand, at: &[usize; 8]| -> [usize; 8] {
                    std::array::from_fn(|i| if operand.depends_on(Dim::ALL[i]) { at[i] } else { 0 })
                };
                let tile = of(Operand::Iact, &at_dram);
                if last_tile != Some(tile) {
                    self.load_buffer(&at_dram, last_tile.is_none());
                    last_tile = Some(tile);
                }
                let sums = of(Operand::Psum, &base);
                if last_sums.is_some_and(|last| last != sums) {
                    self.chains.iter_mut().for_each(|t| *t += self.drain_cycles);
                }
                last_sums = Some(sums);
                let set = of(Operand::Weight, &base);
                if last_weights != Some(set) {
                    self.load_weights(&base, last_weights.is_none());
                    last_weights = Some(set);
                }
                self.step(&base);
                if !advance(&inner, &mut at_glb) {
                    break;
                }
            }
            if !advance(&outer, &mut at_dram) {
                break;
            }
        }
        self.chains.iter_mut().for_each(|t| *t += self.drain_cycles);
    }

    fn barrier(&mut self, cycles: f64) {
        self.floor = self.chains.iter().copied().fold(self.floor, f64::max) + cycles;
        self.chains.fill(self.floor);
        self.ports.fill(self.floor);
    }

    fn load_buffer(&mut self, at: &[usize; 8], first: bool) {
        let c = self.context;
        if !first && !c.arch.pe.serial_weights {
            return;
        }
        let tile: [f64; 8] = std::array::from_fn(|i| {
            let whole = c.layer.bounds[i].div_ceil(self.mapping.dram[i]);
            c.layer.bounds[i].saturating_sub(at[i] * whole).min(whole) as f64
        });
        let ports = c.arch.port_count(Operand::Iact) * c.arch.ports.iact_bits;
        let limit = c.arch.dram_bytes_per_cycle.map_or(f64::INFINITY, |b| 8.0 * b);
        let bits = c.footprint(Operand::Iact, &tile) * c.iact_bits(self.mapping.pe[3]);
        self.barrier(bits / ports.min(limit));
    }

    /// Bits of each PE's new weights; PEs that share a port and differ wait for each other.
    fn load_weights(&mut self, base: &[usize; 8], first: bool) {
        let c = self.context;
        let facts = c.array(&self.mapping.spatial);
        let mut seen: HashMap<[usize; 8], (f64, f64)> = HashMap::new();
        let (mut bits, mut words) = (0.0f64, 0.0f64);
        for place in 0..self.places.len() {
            let mut key = self.places[place].index;
            for i in [0, 4, 5] {
                key[i] = 0;
            }
            let (b, w) = *seen.entry(key).or_insert_with(|| self.weight_bits(place, base));
            bits = bits.max(b);
            words = words.max(w);
        }
        let cycles = bits * facts.shared[1] / c.arch.ports.weight_bits;
        let twice = 2.0 * words <= c.arch.pe.weight_words as f64;
        let limit = c.arch.dram_bytes_per_cycle.map_or(0.0, |bytes| seen.values().map(|s| s.0).sum::<f64>() / (8.0 * bytes));
        let cycles = cycles.max(limit);
        // A second set that fits comes in while the first is used, as fast as the port allows.
        let exposed = if c.arch.pe.serial_weights && (first || !twice) { cycles } else { 0.0 };
        let delivered = if exposed > 0.0 { 0.0 } else { self.last_set + cycles };
        self.barrier(0.0);
        let wait = (delivered - self.floor).max(exposed);
        self.last_set = self.floor + wait;
        self.barrier(wait + c.arch.pe.pipeline as f64);
    }

    fn weight_bits(&self, place: usize, base: &[usize; 8]) -> (f64, f64) {
        let c = self.context;
        let (mut pairs, mut columns) = (0, 0);
        self.each_column(place, base, |_, filters, _| {
            let alive = filters.iter().filter(|&&(_, w)| w != 0).count();
            pairs += if c.format.weight { alive.next_multiple_of(c.arch.pe.lanes) } else { filters.len() };
            columns += 1;
        });
        let bits = if c.format.weight {
            12.0 * pairs as f64 + 7.0 * (columns + 1) as f64
        } else {
            pairs as f64 * c.arch.bits.weight
        };
        (bits, pairs as f64)
    }

    /// Visits the columns (c, r, s) of a PE's tile: the position of the activation, the weights of its filters.
    fn each_column(
        &self,
        place: usize,
        base: &[usize; 8],
        mut visit: impl FnMut(Option<usize>, &[(usize, i8)], [usize; 2]),
    ) {
        let layer = self.context.layer;
        let [_, groups, filters, channels, rows, columns, taps_r, taps_s] = layer.bounds;
        let first: [usize; 8] = std::array::from_fn(|i| {
            let spread = self.mapping.spread(Dim::ALL[i]);
            (base[i] * spread + self.places[place].index[i]) * self.mapping.pe[i]
        });
        let [n, g, m, c, p, q, r, s] = first;
        if n >= layer.bounds[0] || g >= groups || m >= filters || c >= channels || p >= rows || q >= columns {
            return;
        }
        let mut tile = Vec::with_capacity(self.mapping.pe[2]);
        for channel in c..(c + self.mapping.pe[3]).min(channels) {
            for tap_r in r..(r + self.mapping.pe[6]).min(taps_r) {
                for tap_s in s..(s + self.mapping.pe[7]).min(taps_s) {
                    tile.clear();
                    for filter in m..(m + self.mapping.pe[2]).min(filters) {
                        let at = (((g * filters + filter) * channels + channel) * taps_r + tap_r) * taps_s + tap_s;
                        tile.push((g * filters + filter, self.weights[at]));
                    }
                    let y = p * layer.stride[0] + tap_r * layer.dilation[0];
                    let x = q * layer.stride[1] + tap_s * layer.dilation[1];
                    let inside = y.checked_sub(layer.pad[0]).zip(x.checked_sub(layer.pad[1]));
                    let at = inside.filter(|(y, x)| *y < layer.input[0] && *x < layer.input[1]).map(|(y, x)| {
                        ((n * groups * channels + g * channels + channel) * layer.input[0] + y) * layer.input[1] + x
                    });
                    let of_image = n * groups * filters;
                    visit(at, &tile, [of_image, p * columns + q]);
                }
            }
        }
    }

    /// One window in every PE.
    fn step(&mut self, base: &[usize; 8]) {
        let c = self.context;
        let skips = c.skips();
        let lanes = if c.layer.kind == Kind::Depthwise { 1 } else { c.arch.pe.lanes };
        let plane = c.layer.bounds[4] * c.layer.bounds[5];
        self.slowest.fill(0.0);
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut products = 0;
        for place in 0..self.places.len() {
            let mut cycles = 0;
            self.each_column(place, base, |at, filters, [image, position]| {
                let iact = at.map_or(0, |at| self.iacts[at]);
                let mut alive = 0;
                for &(filter, weight) in filters {
                    if weight != 0 {
                        alive += 1;
                        outputs[(image + filter) * plane + position] += i32::from(iact) * i32::from(weight);
                    }
                }
                if iact != 0 {
                    products += alive as u64;
                }
                if !skips || !c.format.iact || iact != 0 {
                    let slots = if skips && c.format.weight { alive } else { filters.len() };
                    cycles += slots.div_ceil(lanes);
                }
            });
            self.busy[place] += cycles as f64;
            let chain = self.places[place].chain;
            self.slowest[chain] = self.slowest[chain].max(cycles as f64);
        }
        (self.outputs, self.products) = (outputs, self.products + products);
        // A port sends the next window when the slowest of its PEs has started on the last one.
        let mut started = vec![0.0f64; self.ports.len()];
        let mut seen = vec![false; self.chains.len()];
        for place in &self.places {
            started[place.port] = started[place.port].max(self.chains[place.chain]);
        }
        for place in &self.places {
            let chain = place.chain;
            if !std::mem::replace(&mut seen[chain], true) {
                let ready = self.ports[place.port] + self.window_cycles;
                self.chains[chain] = self.chains[chain].max(ready) + self.slowest[chain];
            }
        }
        for (port, started) in self.ports.iter_mut().zip(started) {
            *port = (*port + self.window_cycles).max(started);
        }
    }
}

/// The next index of a loop nest given from the outermost in; false after the last.
fn advance(list: &[(Dim, usize)], at: &mut [usize; 8]) -> bool {
    for &(dim, n) in list.iter().rev() {
        let i = dim as usize;
        at[i] += 1;
        if at[i] < n {
            return true;
        }
        at[i] = 0;
    }
    false
}

/// Values with the zeros of the layer's densities, for layers whose tensors are not at hand: small integers drawn
/// by a fixed generator, channel by channel. Returns activations and weights.
pub fn made_up(layer: &Layer, seed: u64) -> (Vec<i8>, Vec<i8>) {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut draw = move |density: f64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let alive = ((state >> 40) as f64) < density * (1u64 << 24) as f64;
        if alive { ((state >> 33) % 15) as i8 + 1 } else { 0 }
    };
    let [_, g, m, c, _, _, r, s] = layer.bounds;
    let plane = layer.input[0] * layer.input[1];
    let iacts = (0..layer.elements(Operand::Iact) as usize)
        .map(|i| draw(layer.iact.of_channel(i / plane % (g * c))))
        .collect();
    let weights = (0..g * m * c * r * s)
        .map(|i| match &layer.weight.mask {
            Some(mask) if mask.len() == g * m * c * r * s => i8::from(mask.get(i)),
            _ => draw(layer.weight.of_channel(i / (m * c * r * s) * c + i / (r * s) % c)),
        })
        .collect();
    (iacts, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Sparsity;
    use crate::mapper::{Effort, Objective, map_best_format};

    /// The definition of a convolution.
    fn convolved(layer: &Layer, iacts: &[i8], weights: &[i8]) -> Vec<i32> {
        let [n, g, m, c, p, q, r, s] = layer.bounds;
        let mut sums = vec![];
        for i in 0..n * g * m * p * q {
            let (x, y, filter, image) = (i % q, i / q % p, i / (p * q) % (g * m), i / (p * q * g * m));
            let mut sum = 0;
            for j in 0..c * r * s {
                let (tx, ty, channel) = (j % s, j / s % r, j / (r * s));
                let at = (y * layer.stride[0] + ty * layer.dilation[0]).checked_sub(layer.pad[0]);
                let left = (x * layer.stride[1] + tx * layer.dilation[1]).checked_sub(layer.pad[1]);
                if let (Some(at), Some(left)) = (at, left)
                    && at < layer.input[0]
                    && left < layer.input[1]
                {
                    let map = image * g * c + filter / m * c + channel;
                    let value = iacts[(map * layer.input[0] + at) * layer.input[1] + left];
                    sum += i32::from(value) * i32::from(weights[(filter * c + channel) * r * s + ty * s + tx]);
                }
            }
            sums.push(sum);
        }
        sums
    }

    #[test]
    fn sums_are_those_of_the_convolution_and_products_those_of_the_masks() {
        let mut padded = Layer::conv("padded", 2, 6, 10, 5, 3, 2);
        (padded.pad, padded.input) = ([1; 2], [9, 10]);
        let layers = [padded, Layer::conv("depthwise", 8, 8, 8, 6, 3, 1), Layer::gemm("fc", 3, 40, 33)];
        for arch in ["eyeriss-v1", "eyeriss-v1.5", "eyeriss-v2", "systolic-256x256", "eyeriss-like-45nm"] {
            let arch = Architecture::named(arch).unwrap();
            let table = arch.table().unwrap();
            for layer in &layers {
                let layer = layer.clone().with_sparsity(Sparsity::uniform(0.6), Sparsity::uniform(0.4));
                let (iacts, weights) = made_up(&layer, 3);
                let mapped = map_best_format(&arch, &layer, &table, Objective::Delay, Effort::default()).unwrap();
                let run = simulate(&arch, &layer, &table, mapped.format, &mapped.mapping, &iacts, &weights).unwrap();
                assert_eq!(run.outputs, convolved(&layer, &iacts, &weights), "{} {}", arch.name, layer.name);
                let mask = |v: &[i8]| wattle_graph::Mask::from_bools(v.iter().map(|&x| x != 0));
                let pairs = crate::pe::cycles_from_masks(&layer, &mask(&iacts), &mask(&weights)).unwrap();
                assert_eq!(run.products, pairs, "{} {}", arch.name, layer.name);
            }
        }
    }

    #[test]
    fn tensors_of_another_size_are_refused() {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let table = arch.table().unwrap();
        let layer = Layer::gemm("fc", 1, 4, 4);
        let mapped = map_best_format(&arch, &layer, &table, Objective::Edp, Effort::default()).unwrap();
        let run = simulate(&arch, &layer, &table, mapped.format, &mapped.mapping, &[1; 3], &[1; 16]);
        assert!(run.unwrap_err().to_string().contains("3 entries, expected 4"));
    }
}
