//! The PE array simulated window by window: who computes, who waits for whom, and the exact integer result.
//!
//! Sources send the compressed windows that PEs really need, and wait until the slowest PE of their group has room
//! ([`crate::mesh`]). PEs of a chain, which add up one partial sum, leave a window together and wait for the port
//! that takes their sums. A set of weights follows the last one as soon as its pad is free. External memory, where
//! its bandwidth is limited, serves activations, weights and outputs as one port. PEs work on the actual non-zero
//! values, so every time is counted, none expected.

use std::collections::HashMap;

use crate::arch::Architecture;
use crate::cost::Format;
use crate::energy::EnergyTable;
use crate::error::AccelError;
use crate::evaluation::Context;
use crate::layer::{Dim, Kind, Layer, Operand};
use crate::mapping::{LevelLoops, Mapping, loops};
use crate::mesh::{Port, Source};
use crate::places::{Place, places};

/// What a simulation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// Cycles from the first load to the last drained sum.
    pub cycles: f64,
    /// Cycles in which each PE multiplied, by PE in order of the axes.
    pub busy: Vec<f64>,
    /// Cycles that an average PE waited for each cause.
    pub waiting: Waiting,
    /// Products of two non-zero values.
    pub products: u64,
    /// Sums `[N, G M, P, Q]`, exact.
    pub outputs: Vec<i32>,
}

/// Cycles of waiting, averaged over the PEs.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Waiting {
    /// For a window of activations.
    pub iact: f64,
    /// For a set of weights, beyond that.
    pub weight: f64,
    /// For the slowest PE of the chain and for the port that takes the sums.
    pub chain: f64,
}

/// Windows that a PE queues behind the one it works on.
const WINDOWS_AHEAD: usize = 1;

/// Parts of a cycle in which external memory is counted: chains send single values to it.
const PARTS: u64 = 1 << 10;

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
    simulates(arch)?;
    mapping.check(arch, layer)?;
    let expected = [Operand::Iact, Operand::Weight].map(|o| layer.elements(o) as usize);
    for ((what, found), expected) in
        [("activations", iacts.len()), ("weights", weights.len())].into_iter().zip(expected)
    {
        if found != expected {
            return Err(AccelError::Size { layer: layer.name.clone(), what, found, expected });
        }
    }
    let context = Context::new(arch, layer, table, format)?;
    let mut array = Array::new(&context, mapping, iacts, weights);
    array.run();
    let sums = array.sums.iter().map(Port::end).max().unwrap_or(0);
    let cycles = array.free.iter().copied().fold(sums.max(array.external.end().div_ceil(PARTS)), u64::max);
    let pes = array.places.len() as f64;
    let [iact, weight, chain] = array.waited.map(|w| w as f64 / pes);
    Ok(Simulation {
        cycles: cycles as f64,
        busy: array.busy.iter().map(|&b| b as f64).collect(),
        waiting: Waiting { iact, weight, chain },
        products: array.products,
        outputs: array.outputs,
    })
}

/// Refuses architectures that the simulator does not know: it runs a PE array behind one buffer.
pub fn simulates(arch: &Architecture) -> Result<(), AccelError> {
    match arch.buffer_names().as_slice() {
        [_] => Ok(()),
        names => Err(AccelError::invalid(
            format!("simulation of `{}`", arch.name),
            format!(
                "it has {} buffers ({}), and only arrays behind one buffer can be simulated; `wattle accel \
                 estimate` and `map` model all of them",
                names.len(),
                names.join(", ")
            ),
        )),
    }
}

/// The weights of a PE's tile as it walks them: columns (c, r, s) of non-zero weights, by filter.
#[derive(Clone, Default)]
struct Columns {
    /// First weight of each column, then the end.
    ends: Vec<u32>,
    /// Filter within the tile, and value.
    values: Vec<(u16, i8)>,
    /// Filters of the tile that exist.
    filters: usize,
    bits: u64,
    words: u64,
}

/// The array while it runs; times are cycles since the start.
struct Array<'a> {
    context: &'a Context<'a>,
    mapping: &'a Mapping,
    iacts: &'a [i8],
    weights: &'a [i8],
    places: Vec<Place>,
    /// PEs that between them see every activation that a source sends, once; the same for sets of weights.
    iact_readers: Vec<Vec<usize>>,
    weight_readers: Vec<Vec<usize>>,
    sources: Vec<Source>,
    loaders: Vec<Source>,
    sums: Vec<Port>,
    external: Port,
    /// Bits a cycle from and to external memory, if limited.
    limit: Option<f64>,
    columns: Vec<Columns>,
    /// When each chain has left its last window.
    free: Vec<u64>,
    /// When each loader's set was complete, and when its PEs began to use it.
    loaded: Vec<u64>,
    begun: Vec<Option<u64>>,
    /// The pad holds one set only.
    single: bool,
    busy: Vec<u64>,
    waited: [u64; 3],
    products: u64,
    outputs: Vec<i32>,
    /// Of the current step: when each PE and each chain is done, and what each source has sent and when it was taken.
    ends: Vec<u64>,
    done: Vec<u64>,
    arrived: Vec<u64>,
    taken: Vec<u64>,
}

/// Cycles to move bits through a port.
fn cycles_of(bits: f64, width: f64) -> u64 {
    (bits / width).ceil() as u64
}

impl<'a> Array<'a> {
    fn new(context: &'a Context<'a>, mapping: &'a Mapping, iacts: &'a [i8], weights: &'a [i8]) -> Array<'a> {
        let (arch, layer) = (context.arch, context.layer);
        let places = places(arch, mapping);
        let count = |of: fn(&Place) -> usize| places.iter().map(of).max().map_or(0, |n| n + 1);
        let (chains, sources) = (count(|p| p.chain), count(|p| p.source));
        let (loaders, takers) = (count(|p| p.weights), count(|p| p.sums));
        let mut iact_readers = vec![vec![]; sources];
        let mut weight_readers = vec![vec![]; loaders];
        let (mut seen, mut held) = (HashMap::new(), HashMap::new());
        for (number, place) in places.iter().enumerate() {
            let [n, g, _, c, p, q, r, s] = place.index;
            // Filter rows and output rows on one diagonal read the same row.
            let shares = arch.halo == crate::arch::Halo::Reuse && mapping.pe[6] == 1;
            let rows = if shares { [p * layer.stride[0] + r * layer.dilation[0], 0] } else { [p, r] };
            if seen.insert((place.source, [n, g, c, q, s], rows), ()).is_none() {
                iact_readers[place.source].push(number);
            }
            if held.insert((place.weights, place.set), ()).is_none() {
                weight_readers[place.weights].push(number);
            }
        }
        // A pad that takes two sets, or copies of it, fetches one set ahead.
        Array {
            sources: vec![Source::new(WINDOWS_AHEAD); sources],
            loaders: vec![Source::new(1); loaders],
            sums: vec![Port::default(); takers],
            external: Port::default(),
            limit: arch.dram_bytes_per_cycle.map(|bytes| 8.0 * bytes),
            columns: vec![Columns::default(); count(|p| p.set)],
            free: vec![0; chains],
            loaded: vec![0; loaders],
            begun: vec![None; loaders],
            single: false,
            busy: vec![0; places.len()],
            waited: [0; 3],
            products: 0,
            outputs: vec![0; layer.elements(Operand::Psum) as usize],
            ends: vec![0; places.len()],
            done: vec![0; chains],
            arrived: vec![0; sources],
            taken: vec![0; sources],
            context,
            mapping,
            iacts,
            weights,
            places,
            iact_readers,
            weight_readers,
        }
    }

    /// All steps: the loops above the PEs, from the outermost in.
    fn run(&mut self) {
        let level = |LevelLoops { bounds, order }: &LevelLoops| {
            let mut list: Vec<(Dim, usize)> =
                loops(*order).map(|d| (d, bounds[d as usize])).filter(|(_, n)| *n > 1).collect();
            list.reverse();
            list
        };
        let [outer, inner] = [0, 1].map(|at| level(&self.mapping.levels[at]));
        let in_buffer = self.mapping.levels[1].bounds;
        let of = |operand: Operand, at: &[usize; 8]| -> [usize; 8] {
            std::array::from_fn(|i| if operand.depends_on(Dim::ALL[i]) { at[i] } else { 0 })
        };
        let (mut last_weights, mut last_tile) = (None, None);
        let mut last: Option<[usize; 8]> = None;
        let mut at_dram = [0usize; 8];
        loop {
            let mut at_glb = [0usize; 8];
            loop {
                let base: [usize; 8] = std::array::from_fn(|i| at_dram[i] * in_buffer[i] + at_glb[i]);
                if let Some(last) = last.filter(|last| of(Operand::Psum, last) != of(Operand::Psum, &base)) {
                    self.drain(&last);
                }
                let tile = of(Operand::Iact, &at_dram);
                if last_tile != Some(tile) {
                    self.load_buffer(&at_dram, last_tile.is_none());
                    last_tile = Some(tile);
                }
                let set = of(Operand::Weight, &base);
                let new_set = last_weights != Some(set);
                if new_set {
                    self.load_weights(&base);
                    last_weights = Some(set);
                }
                self.step(&base, last.as_ref(), new_set);
                last = Some(base);
                if !advance(&inner, &mut at_glb) {
                    break;
                }
            }
            if !advance(&outer, &mut at_dram) {
                break;
            }
        }
        if let Some(last) = last {
            self.drain(&last);
        }
    }

    /// Moves bits from or to external memory, beside a port that would be done at `end`.
    fn external(&mut self, ready: u64, bits: f64, end: u64) -> u64 {
        match self.limit {
            Some(width) => {
                let done = self.external.serve(ready * PARTS, cycles_of(bits * PARTS as f64, width));
                end.max(done.div_ceil(PARTS))
            }
            None => end,
        }
    }

    /// A new tile of activations overwrites the last one, so it waits until that has been sent.
    fn load_buffer(&mut self, at: &[usize; 8], first: bool) {
        let c = self.context;
        if !first && !c.arch.pe.serial_weights {
            return;
        }
        let tile: [f64; 8] = std::array::from_fn(|i| {
            let whole = c.layer.bounds[i].div_ceil(self.mapping.levels[0].bounds[i]);
            c.layer.bounds[i].saturating_sub(at[i] * whole).min(whole) as f64
        });
        let bits = c.footprint(Operand::Iact, &tile) * c.iact_bits(self.mapping.pe[3]);
        let begin = self.sources.iter().map(Source::ready).max().unwrap_or(0);
        let end = self.external(begin, bits, begin + cycles_of(bits, c.arch.fill_bits()));
        self.sources.iter_mut().for_each(|s| s.hold(end));
    }

    /// Sends the next set of weights: while the last one is used if the pad takes two, else after it.
    fn load_weights(&mut self, base: &[usize; 8]) {
        let c = self.context;
        for (loader, begun) in self.begun.iter_mut().enumerate() {
            if let Some(begun) = begun.take() {
                let last =
                    self.places.iter().filter(|p| p.weights == loader).map(|p| self.free[p.chain]).max();
                self.loaders[loader].take(if self.single { last.unwrap_or(begun) } else { begun });
            }
        }
        let mut packed = vec![false; self.columns.len()];
        let mut most = 0;
        for place in 0..self.places.len() {
            let set = self.places[place].set;
            if !std::mem::replace(&mut packed[set], true) {
                let columns = self.pack(place, base);
                most = most.max(columns.words);
                self.columns[set] = columns;
            }
        }
        self.single = c.arch.pe.serial_weights && 2 * most > c.arch.pe.weight_words as u64;
        let distinct: u64 = self.columns.iter().map(|c| c.bits).sum();
        let begin = self.loaders.iter().map(Source::ready).min().unwrap_or(0);
        let from_outside = self.external(begin, distinct as f64, 0);
        for loader in 0..self.loaders.len() {
            let bits: u64 =
                self.weight_readers[loader].iter().map(|&p| self.columns[self.places[p].set].bits).sum();
            let cycles = cycles_of(bits as f64, c.arch.ports.weight_bits);
            self.loaded[loader] = self.loaders[loader].send(cycles, from_outside);
        }
    }

    /// First index of a PE's tile in every loop; `None` beyond the end of the layer.
    fn origin(&self, place: usize, base: &[usize; 8], dims: &[Dim]) -> Option<[usize; 8]> {
        let first: [usize; 8] = std::array::from_fn(|i| {
            let spread = self.mapping.spread(Dim::ALL[i]);
            (base[i] * spread + self.places[place].index[i]) * self.mapping.pe[i]
        });
        dims.iter().all(|&d| first[d as usize] < self.context.layer.bound(d)).then_some(first)
    }

    /// The weights of a PE's tile, packed as the PE holds them.
    fn pack(&self, place: usize, base: &[usize; 8]) -> Columns {
        let (c, layer) = (self.context, self.context.layer);
        let mut columns = Columns { ends: vec![0], ..Columns::default() };
        let dims = [Dim::G, Dim::M, Dim::C, Dim::R, Dim::S];
        let Some([_, g, m, c0, _, _, r, s]) = self.origin(place, base, &dims) else { return columns };
        let [_, _, filters, channels, _, _, taps_r, taps_s] = layer.bounds;
        let tile = self.mapping.pe;
        let last = (m + tile[2]).min(filters);
        columns.filters = last - m;
        let mut pairs = 0;
        for channel in c0..(c0 + tile[3]).min(channels) {
            for tap_r in r..(r + tile[6]).min(taps_r) {
                for tap_s in s..(s + tile[7]).min(taps_s) {
                    let before = columns.values.len();
                    for filter in m..last {
                        let row = (g * filters + filter) * channels + channel;
                        let weight = self.weights[(row * taps_r + tap_r) * taps_s + tap_s];
                        if weight != 0 {
                            columns.values.push(((filter - m) as u16, weight));
                        }
                    }
                    let alive = columns.values.len() - before;
                    pairs += if c.format.weight { alive.next_multiple_of(c.arch.pe.lanes) } else { last - m };
                    columns.ends.push(columns.values.len() as u32);
                }
            }
        }
        columns.words = pairs as u64;
        columns.bits = if c.format.weight {
            12 * columns.words + 7 * columns.ends.len() as u64
        } else {
            (pairs as f64 * c.arch.bits.weight) as u64
        };
        columns
    }

    /// Where the activation of a tap lies, unless in the padding.
    fn iact(&self, image: usize, channel: usize, y: usize, x: usize) -> Option<usize> {
        let layer = self.context.layer;
        let (y, x) = (y.checked_sub(layer.pad[0])?, x.checked_sub(layer.pad[1])?);
        let channels = layer.bound(Dim::G) * layer.bound(Dim::C);
        (y < layer.input[0] && x < layer.input[1])
            .then(|| ((image * channels + channel) * layer.input[0] + y) * layer.input[1] + x)
    }

    /// Bits of the activations that are new in a PE's window: all, or what one stride brings.
    fn window_bits(&self, place: usize, base: &[usize; 8], slides: [bool; 2]) -> f64 {
        let (c, layer) = (self.context, self.context.layer);
        let dims = [Dim::N, Dim::G, Dim::C, Dim::P, Dim::Q, Dim::R, Dim::S];
        let Some([n, g, _, c0, p, q, r, s]) = self.origin(place, base, &dims) else { return 0.0 };
        let [_, _, _, channels, _, _, taps_r, taps_s] = layer.bounds;
        let tile = self.mapping.pe;
        let (rows, columns) = ((r + tile[6]).min(taps_r), (s + tile[7]).min(taps_s));
        // The last taps are the new ones.
        let first_row = if slides[0] { r.max(rows.saturating_sub(layer.stride[0])) } else { r };
        let first_column = if slides[1] { s.max(columns.saturating_sub(layer.stride[1])) } else { s };
        let (mut sent, mut alive) = (0usize, 0usize);
        for channel in c0..(c0 + tile[3]).min(channels) {
            for tap_r in first_row..rows {
                for tap_s in first_column..columns {
                    let y = p * layer.stride[0] + tap_r * layer.dilation[0];
                    let x = q * layer.stride[1] + tap_s * layer.dilation[1];
                    if let Some(at) = self.iact(n, g * channels + channel, y, x) {
                        sent += 1;
                        alive += usize::from(self.iacts[at] != 0);
                    }
                }
            }
        }
        if !c.format.iact {
            return sent as f64 * c.arch.bits.iact;
        }
        let segment = (tile[3] * layer.stride[1]).max(1);
        12.0 * alive as f64 + 4.0 * sent.div_ceil(segment) as f64
    }

    /// Whether a window and what the next one brings do not fit in the activation pad together.
    fn window_is_tight(&self, slides: [bool; 2]) -> bool {
        let c = self.context;
        let (pe, stride) = (self.mapping.pe, c.layer.stride);
        let rows = if slides[0] { pe[6].min(stride[0]) } else { pe[6] };
        let columns = if slides[1] { pe[7].min(stride[1]) } else { pe[7] };
        c.arch.pe.serial_weights
            && c.iact_words((pe[3] * pe[6] * pe[7]) as f64) + c.iact_words((pe[3] * rows * columns) as f64)
                > c.arch.pe.iact_words as f64
    }

    /// One window in every PE.
    fn step(&mut self, base: &[usize; 8], last: Option<&[usize; 8]>, new_set: bool) {
        let c = self.context;
        // A window slides where the innermost loop moved by one and nothing else did.
        let moved = |dim: Dim| {
            c.arch.halo == crate::arch::Halo::Reuse
                && last
                    .is_some_and(|last| (0..8).all(|i| base[i] == last[i] + usize::from(i == dim as usize)))
        };
        let slides = [moved(Dim::P), moved(Dim::Q)];
        for source in 0..self.sources.len() {
            let bits: f64 =
                self.iact_readers[source].iter().map(|&p| self.window_bits(p, base, slides)).sum();
            self.arrived[source] = self.sources[source].send(cycles_of(bits, c.arch.ports.iact_bits), 0);
        }
        let tight = self.window_is_tight(slides);
        self.taken.fill(0);
        self.done.copy_from_slice(&self.free);
        let fill = if new_set { c.arch.pe.pipeline as u64 } else { 0 };
        for place in 0..self.places.len() {
            let cycles = self.compute(place, base);
            let p = &self.places[place];
            let (free, window) = (self.free[p.chain], self.arrived[p.source].max(self.free[p.chain]));
            let start = window.max(self.loaded[p.weights]);
            self.waited[0] += window - free;
            self.waited[1] += start - window;
            self.busy[place] += cycles;
            // A window that leaves no room for the next keeps its pad until it is done.
            let taken = if tight { start + cycles } else { start };
            self.taken[p.source] = self.taken[p.source].max(taken);
            if new_set {
                let begun = &mut self.begun[p.weights];
                *begun = Some(begun.map_or(start, |b| b.max(start)));
            }
            self.ends[place] = start + fill + cycles;
            self.done[p.chain] = self.done[p.chain].max(self.ends[place]);
        }
        self.waited[2] +=
            self.places.iter().zip(&self.ends).map(|(p, end)| self.done[p.chain] - end).sum::<u64>();
        for (source, &at) in self.sources.iter_mut().zip(&self.taken) {
            source.take(at);
        }
        std::mem::swap(&mut self.free, &mut self.done);
    }

    /// The products of a PE's window: adds them to the outputs and returns the cycles they take.
    fn compute(&mut self, place: usize, base: &[usize; 8]) -> u64 {
        let (c, layer) = (self.context, self.context.layer);
        let Some([n, g, m, c0, p, q, r, s]) = self.origin(place, base, &Dim::ALL) else { return 0 };
        let [_, _, filters, channels, height, width, taps_r, taps_s] = layer.bounds;
        let tile = self.mapping.pe;
        let skips = c.skips();
        let lanes = if layer.kind == Kind::Depthwise { 1 } else { c.arch.pe.lanes };
        let columns = std::mem::take(&mut self.columns[self.places[place].set]);
        let plane = height * width;
        let first = (n * layer.bound(Dim::G) * filters + g * filters + m) * plane + p * width + q;
        let (mut cycles, mut column) = (0, 0);
        for channel in c0..(c0 + tile[3]).min(channels) {
            for tap_r in r..(r + tile[6]).min(taps_r) {
                for tap_s in s..(s + tile[7]).min(taps_s) {
                    let ends = [columns.ends[column], columns.ends[column + 1]].map(|e| e as usize);
                    column += 1;
                    let y = p * layer.stride[0] + tap_r * layer.dilation[0];
                    let x = q * layer.stride[1] + tap_s * layer.dilation[1];
                    let iact = self.iact(n, g * channels + channel, y, x).map_or(0, |at| self.iacts[at]);
                    let alive = ends[1] - ends[0];
                    if iact != 0 {
                        self.products += alive as u64;
                        for &(filter, weight) in &columns.values[ends[0]..ends[1]] {
                            self.outputs[first + usize::from(filter) * plane] +=
                                i32::from(iact) * i32::from(weight);
                        }
                    }
                    if !skips || !c.format.iact || iact != 0 {
                        let slots = if skips && c.format.weight { alive } else { columns.filters };
                        cycles += slots.div_ceil(lanes) as u64;
                    }
                }
            }
        }
        self.columns[self.places[place].set] = columns;
        cycles
    }

    /// Sums of the last window leave: the chain waits where it has one copy of them.
    fn drain(&mut self, last: &[usize; 8]) {
        let c = self.context;
        let (pe, serial) = (&c.arch.pe, c.arch.pe.serial_psums);
        let finished = [Dim::C, Dim::R, Dim::S].iter().all(|&d| {
            let i = d as usize;
            last[i] + 1 == self.mapping.levels.iter().map(|level| level.bounds[i]).product::<usize>()
        });
        let mut drained = vec![false; self.free.len()];
        for place in 0..self.places.len() {
            let (chain, port) = (self.places[place].chain, self.places[place].sums);
            let dims = [Dim::N, Dim::G, Dim::M, Dim::P, Dim::Q];
            let Some(first) = self.origin(place, last, &dims) else { continue };
            if std::mem::replace(&mut drained[chain], true) {
                continue;
            }
            let sums = self.mapping.pe[2].min(c.layer.bound(Dim::M) - first[2]) as f64;
            let ready = self.free[chain] + if serial { pe.update as u64 } else { 0 };
            let cycles = cycles_of(sums * c.arch.bits.psum, c.arch.ports.psum_bits);
            let mut end = self.sums[port].serve(ready, cycles);
            if finished {
                end = self.external(ready, sums * c.arch.bits.output, end);
            }
            if serial {
                let members = self.places.iter().filter(|p| p.chain == chain).count() as u64;
                self.waited[2] += members * (end - self.free[chain]);
                self.free[chain] = end;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Sparsity;
    use crate::made_up::made_up;
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
                    sum +=
                        i32::from(value) * i32::from(weights[(filter * c + channel) * r * s + ty * s + tx]);
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
                let mapped =
                    map_best_format(&arch, &layer, &table, Objective::Delay, Effort::default()).unwrap();
                let run = simulate(&arch, &layer, &table, mapped.format, &mapped.mapping, &iacts, &weights)
                    .unwrap();
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
