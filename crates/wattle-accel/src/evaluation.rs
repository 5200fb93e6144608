//! What a mapping costs, evaluated.
//!
//! Accesses follow from the loop nest (the concepts of Timeloop, ISPASS 2019): a level is filled once for each
//! iteration of the loops above it, except the innermost run of loops that the tensor does not depend on; spatial
//! loops it does not depend on share one read (multicast) or add up on the way (reduction); the first touch of a
//! partial sum reads nothing. Tiles that do not divide an extent are averaged for traffic, and rounded up for
//! cycles and capacity.

use crate::arch::{Architecture, Buffer, Halo, MAX_BUFFERS, PeKind};
use crate::cost::{Accesses, Cost, Counts, Cycles, Energy, Format};
use crate::csc;
use crate::energy::{AccessEnergy, EnergyTable};
use crate::error::AccelError;
use crate::layer::{Dim, Kind, Layer, Operand};
use crate::mapping::{LevelLoops, Limit, Mapping, Misfit, loops};
use crate::skipping::{PeWork, expected_largest};

/// What moves under a mapping, in values: the part of a cost that the order of the loops decides.
pub(crate) struct Traffic {
    /// PE tiles, one after the other.
    pub tiles: f64,
    /// Sets of weights that a PE sees.
    pub weight_fills: f64,
    pub weights_per_pe: f64,
    pub iacts_per_pe: f64,
    pub psums_per_pe: f64,
    /// Values that each buffer takes from outside (activations, weights) or gives to it (sums), by tensor.
    pub fills: [[f64; 3]; MAX_BUFFERS],
    /// Loop bounds inside the first tile of each buffer.
    pub held: [[usize; 8]; MAX_BUFFERS],
    /// Not a mapping's, but no more than any mapping's. Sums that leave a buffer oftener come back oftener from
    /// outside, and are read and written less where they would have stayed; ports are not charged for what may be less.
    pub least: bool,
}

/// Footprint of a window: elements that `p` positions with `r` taps touch.
fn window(p: f64, r: f64, stride: usize, dilation: usize, extent: usize) -> f64 {
    let reach = (r - 1.0).max(0.0) * dilation as f64 + r.min(1.0);
    let slid = if p <= 1.0 { p * reach } else { (p - 1.0) * stride as f64 + reach };
    slid.min(p * r).min(extent as f64)
}

/// What an array of spread loops means for traffic.
#[derive(Clone, Debug)]
pub(crate) struct ArrayFacts {
    /// Positions over which each loop is spread.
    pub spread: [usize; 8],
    /// Active PEs.
    pub instances: f64,
    /// PEs that differ in each tensor.
    pub relevant: [f64; 3],
    /// Distinct values that one port carries for the PEs that share it, in PE tiles.
    pub shared: [f64; 3],
    /// Share of the activations that PEs read which are distinct.
    union: f64,
    /// The same within the reach of one port.
    pub port_union: f64,
}

impl ArrayFacts {
    /// One PE alone.
    pub fn single() -> ArrayFacts {
        ArrayFacts {
            spread: [1; 8],
            instances: 1.0,
            relevant: [1.0; 3],
            shared: [0.0; 3],
            union: 1.0,
            port_union: 1.0,
        }
    }
}

/// Fixed facts of a layer on an architecture, shared by the evaluation of many mappings.
#[derive(Clone, Debug)]
pub(crate) struct Context<'a> {
    pub arch: &'a Architecture,
    pub layer: &'a Layer,
    pub table: &'a EnergyTable,
    pub format: Format,
    /// Energies of the buffers, from the outermost in.
    rows: Vec<&'a AccessEnergy>,
}

impl<'a> Context<'a> {
    /// Refuses a table without a row for each buffer.
    pub fn new(
        arch: &'a Architecture,
        layer: &'a Layer,
        table: &'a EnergyTable,
        format: Format,
    ) -> Result<Context<'a>, AccelError> {
        Ok(Context { arch, layer, table, format, rows: table.rows(&arch.buffers)? })
    }

    /// Energy of an access to the innermost place outside the PEs that keeps a tensor.
    pub fn row_behind_pes(&self, operand: Operand) -> &'a AccessEnergy {
        let at = self.arch.buffers.iter().rposition(|b| b.keeps(operand));
        at.map_or(&self.table.dram, |b| self.rows[b])
    }

    /// Whether zeros save cycles: only in a sparse PE, only where there is reuse to skip over.
    pub fn skips(&self) -> bool {
        self.arch.pe.kind == PeKind::Sparse && self.layer.kind != Kind::Depthwise
    }

    /// Densities that the PE sees: a raw tensor is processed with its zeros.
    pub fn densities(&self) -> (f64, f64) {
        if !self.skips() {
            return (1.0, 1.0);
        }
        let iact = if self.format.iact { self.layer.iact.density } else { 1.0 };
        (iact, if self.format.weight { self.layer.weight.density } else { 1.0 })
    }

    /// Bits of a stored or moved activation: 12-bit pairs and one 4-bit address a segment of `C0 U`.
    pub fn iact_bits(&self, c0: usize) -> f64 {
        if !self.format.iact {
            return self.arch.bits.iact;
        }
        let segment = (c0 * self.layer.stride[1]).max(1) as f64;
        12.0 * self.layer.iact.density + 4.0 / segment
    }

    /// Places in the pad that a window of `values` activations takes: pairs, two deviations above the mean, or values.
    pub fn iact_words(&self, values: f64) -> f64 {
        let d = self.layer.iact.density;
        if self.format.iact {
            (values * d + 2.0 * (values * d * (1.0 - d)).sqrt()).min(values)
        } else {
            values
        }
    }

    /// Bits of a stored or moved weight in columns of `m0`.
    pub fn weight_bits(&self, m0: usize) -> f64 {
        if !self.format.weight {
            return self.arch.bits.weight;
        }
        csc::expected_weight_bits(m0, self.layer.weight.density)
    }

    /// Elements of a tile with these extents.
    pub fn footprint(&self, operand: Operand, e: &[f64; 8]) -> f64 {
        let [n, g, m, c, p, q, r, s] = *e;
        let l = self.layer;
        match operand {
            Operand::Weight => g * m * c * r * s,
            Operand::Psum => n * g * m * p * q,
            Operand::Iact => {
                let rows = window(p, r, l.stride[0], l.dilation[0], l.input[0]);
                n * g * c * rows * window(q, s, l.stride[1], l.dilation[1], l.input[1])
            }
        }
    }

    /// Average elements fetched a fill when the innermost relevant loop above slides over the map.
    pub fn fetched(&self, e: &[f64; 8], innermost: Option<(Dim, usize)>) -> f64 {
        let whole = self.footprint(Operand::Iact, e);
        let l = self.layer;
        let (axis, extent, taps) = match innermost {
            Some((Dim::P, _)) => (0, e[4], e[6]),
            Some((Dim::Q, _)) => (1, e[5], e[7]),
            _ => return whole,
        };
        let Some((_, steps)) = innermost.filter(|_| self.arch.halo == Halo::Reuse) else { return whole };
        let full = window(extent, taps, l.stride[axis], l.dilation[axis], l.input[axis]);
        let fresh = full.min(extent * l.stride[axis] as f64);
        let steps = steps as f64;
        whole * (1.0 + (steps - 1.0) * fresh / full) / steps
    }

    /// Iterations of the loops above a tile that fetch it anew, and the innermost of those loops.
    pub fn fills(&self, operand: Operand, above: &[LevelLoops]) -> (f64, Option<(Dim, usize)>) {
        let (mut product, mut innermost) = (1.0, None);
        for LevelLoops { bounds, order } in above.iter().rev() {
            for (dim, n) in loops(*order).map(|d| (d, bounds[d as usize])) {
                if n == 1 || (innermost.is_none() && !operand.depends_on(dim)) {
                    continue;
                }
                innermost.get_or_insert((dim, n));
                product *= n as f64;
            }
        }
        (product, innermost)
    }

    /// Facts of an array.
    pub fn array(&self, spatial: &[Vec<(Dim, usize)>]) -> ArrayFacts {
        let mut spread = [1usize; 8];
        for &(dim, n) in spatial.iter().flatten() {
            spread[dim as usize] *= n;
        }
        let product = |operand: Operand, ports: bool| {
            let mut product = 1.0;
            for (axis, loops) in self.arch.axes.iter().zip(spatial) {
                if !(ports && axis.has_port(operand)) {
                    let shares = axis.shares(operand);
                    let dims = loops.iter().filter(|(d, _)| operand.depends_on(*d) || !shares);
                    product *= dims.map(|(_, n)| *n as f64).product::<f64>();
                }
            }
            product
        };
        let union = self.union(&spread);
        // Clusters with ports of their own hold rows of their own.
        let apart = self.arch.axes.iter().any(|a| a.has_port(Operand::Iact));
        ArrayFacts {
            spread,
            instances: spread.iter().map(|&n| n as f64).product(),
            relevant: Operand::ALL.map(|o| product(o, false)),
            shared: Operand::ALL.map(|o| product(o, true)),
            union,
            port_union: if apart { 1.0 } else { union },
        }
    }

    /// Cost of a mapping that fits; `work` is what [`PeWork::of`] says of its PE tile.
    pub fn evaluate(&self, mapping: &Mapping, array: &ArrayFacts, work: &PeWork) -> Cost {
        let levels = &mapping.levels;
        let (tiles, tile) = self.tiles_of(mapping, array);
        let mut fills = [[0.0; 3]; MAX_BUFFERS];
        for (b, tile) in tiles.iter().enumerate().take(levels.len() - 1) {
            fills[b] = self.taken(tile, &levels[..=b]);
        }
        let weight_fills = self.fills(Operand::Weight, levels).0;
        let [iacts_per_pe, weights_per_pe, psums_per_pe] = self.taken(&tile, levels);
        let traffic = Traffic {
            tiles: mapping.tiles(),
            weight_fills,
            weights_per_pe,
            iacts_per_pe,
            psums_per_pe,
            fills,
            held: self.held(mapping, array),
            least: false,
        };
        self.cost(array, &mapping.pe, work, &traffic)
    }

    /// What tiles under these loops take in, by tensor.
    fn taken(&self, tile: &[f64; 8], above: &[LevelLoops]) -> [f64; 3] {
        let (iacts, innermost) = self.fills(Operand::Iact, above);
        [
            self.fetched(tile, innermost) * iacts,
            self.footprint(Operand::Weight, tile) * self.fills(Operand::Weight, above).0,
            self.footprint(Operand::Psum, tile) * self.fills(Operand::Psum, above).0,
        ]
    }

    /// Average extents of the tiles of each buffer, and of a PE.
    pub fn tiles_of(&self, mapping: &Mapping, array: &ArrayFacts) -> ([[f64; 8]; MAX_BUFFERS], [f64; 8]) {
        let mut tile = self.layer.bounds.map(|n| n as f64);
        let mut tiles = [tile; MAX_BUFFERS];
        let innermost = mapping.levels.len() - 1;
        for (b, level) in mapping.levels[..innermost].iter().enumerate() {
            (0..8).for_each(|i| tile[i] /= level.bounds[i] as f64);
            tiles[b] = tile;
        }
        let inside = &mapping.levels[innermost].bounds;
        (tiles, std::array::from_fn(|i| tile[i] / (inside[i] * array.spread[i]) as f64))
    }

    /// Largest extents of the tiles of each buffer.
    pub fn held(&self, mapping: &Mapping, array: &ArrayFacts) -> [[usize; 8]; MAX_BUFFERS] {
        let mut all = [[1; 8]; MAX_BUFFERS];
        for (b, held) in all.iter_mut().enumerate().take(mapping.levels.len() - 1) {
            let bounds = mapping.held(b, &array.spread);
            *held = std::array::from_fn(|i| bounds[i].min(self.layer.bounds[i]));
        }
        all
    }

    /// Costs such that every mapping with this array and PE tile is at or above one of them, component by
    /// component. Only one tensor can stay while the innermost loop runs: for each group that could be innermost,
    /// the tensor that it suits moves least and the others move at every step. External memory is met once. A group
    /// without loops cannot be innermost and has no cost, unless none has loops.
    pub fn relaxed(&self, array: &ArrayFacts, pe: &[usize; 8], work: &PeWork) -> [Option<Cost>; 3] {
        let trips = std::array::from_fn(|i| self.layer.bounds[i].div_ceil(array.spread[i] * pe[i]));
        self.relaxed_outside(array, pe, work, &[], &trips)
    }

    /// The same where the loops of the innermost levels are known (`inside`, the innermost last), and the levels
    /// outside have `rest` trips between them. Buffers whose tiles are not known yet are filled once.
    pub fn relaxed_outside(
        &self,
        array: &ArrayFacts,
        pe: &[usize; 8],
        work: &PeWork,
        inside: &[LevelLoops],
        rest: &[usize; 8],
    ) -> [Option<Cost>; 3] {
        let spread = &array.spread;
        let trips = rest.map(|n| n as f64);
        let all: f64 = trips.iter().product();
        let [n, _, m, c, p, q, r, s] = trips;
        // Iterations of the group that leaves each tensor where it is: M, then N P Q, then C R S.
        let staying = [m, n * p * q, c * r * s];
        let whole: [f64; 8] = self.layer.bounds.map(|n| n as f64);
        // Bounds inside the outermost known tile; those of unknown tiles are no smaller.
        let mut held: [usize; 8] = std::array::from_fn(|i| {
            inside.iter().map(|level| level.bounds[i]).product::<usize>() * spread[i] * pe[i]
        });
        let mut all_held = [held; MAX_BUFFERS];
        // Trips outside each known tile: of the buffers inside from the outermost, then of the PEs.
        let mut outside = [trips; MAX_BUFFERS + 1];
        let known = self.arch.buffers.len() - inside.len();
        for (at, level) in inside.iter().enumerate() {
            all_held[known + at] = held;
            (0..8).for_each(|i| held[i] /= level.bounds[i]);
            let last = outside[at];
            outside[at + 1] = std::array::from_fn(|i| last[i] * level.bounds[i] as f64);
        }
        for held in &mut all_held {
            (0..8).for_each(|i| held[i] = held[i].min(self.layer.bounds[i]));
        }
        Operand::ALL.map(|stays| {
            if staying[stays as usize] <= 1.0 && staying.iter().any(|&n| n > 1.0) {
                return None;
            }
            let fills = |operand: Operand, at: usize| match self.fills(operand, &inside[..at]) {
                (_, None) if operand == stays => (all / staying[operand as usize], None),
                (product, innermost) => (product * all, innermost),
            };
            // What the tiles of a place take in, by tensor.
            let taken = |at: usize, tile: &[f64; 8]| {
                let (iact_fills, innermost) = fills(Operand::Iact, at);
                let iacts = match innermost {
                    Some(_) => self.fetched(tile, innermost),
                    None => {
                        let slide = |d: Dim| self.fetched(tile, Some((d, rest[d as usize])));
                        slide(Dim::P).min(slide(Dim::Q))
                    }
                };
                [
                    iacts * iact_fills,
                    self.footprint(Operand::Weight, tile) * fills(Operand::Weight, at).0,
                    self.footprint(Operand::Psum, tile) * fills(Operand::Psum, at).0,
                ]
            };
            let mut filled = [Operand::ALL.map(|o| self.footprint(o, &whole)); MAX_BUFFERS];
            for at in 0..inside.len() {
                filled[known + at] = taken(at, &std::array::from_fn(|i| whole[i] / outside[at][i]));
            }
            let outside = &outside[inside.len()];
            let tile = std::array::from_fn(|i| whole[i] / (outside[i] * spread[i] as f64));
            let [iacts_per_pe, weights_per_pe, psums_per_pe] = taken(inside.len(), &tile);
            let traffic = Traffic {
                tiles: outside.iter().product(),
                weight_fills: fills(Operand::Weight, inside.len()).0,
                weights_per_pe,
                iacts_per_pe,
                psums_per_pe,
                fills: filled,
                held: all_held,
                least: true,
            };
            Some(self.cost(array, pe, work, &traffic))
        })
    }

    /// Cost of what moves; it never falls when the traffic or the work rises.
    pub fn cost(&self, array: &ArrayFacts, pe: &[usize; 8], work: &PeWork, traffic: &Traffic) -> Cost {
        let (arch, layer) = (self.arch, self.layer);
        let macs = layer.macs();
        // What all PEs take in, and what of it is distinct.
        let into_pes = [
            traffic.iacts_per_pe * array.instances,
            traffic.weights_per_pe * array.instances,
            traffic.psums_per_pe * array.instances,
        ];
        let distinct = [
            traffic.iacts_per_pe * array.relevant[0] * array.union,
            traffic.weights_per_pe * array.relevant[1],
            traffic.psums_per_pe * array.relevant[2],
        ];

        let mut counts = Counts { delivered: into_pes, ..Counts::default() };
        let places = arch.buffers.len();
        let kept = |operand: Operand| (0..places).rev().filter(move |&b| arch.buffers[b].keeps(operand));
        for operand in [Operand::Iact, Operand::Weight] {
            let tensor = operand as usize;
            // What the next place in takes.
            let mut taken = distinct[tensor];
            for b in kept(operand) {
                let filled = traffic.fills[b][tensor];
                counts.buffers[b][tensor] = Accesses { reads: taken, writes: filled };
                taken = filled;
            }
            counts.dram[tensor].reads = taken;
        }
        let from_dram = counts.dram[0].reads;
        let outputs = layer.elements(Operand::Psum);
        // A sum that comes from outside is written to every buffer on its way, and read from none of them. One that
        // leaves a buffer does so on its last visit, without being read again.
        let mut given = distinct[2];
        for b in kept(Operand::Psum) {
            let drained = traffic.fills[b][2];
            let again = (drained - outputs).max(0.0);
            let refetched = (given - drained).max(0.0);
            let finished = if arch.buffers[b].outputs_bypass { drained } else { 0.0 };
            counts.buffers[b][2] = Accesses { reads: refetched, writes: given - finished + again };
            given = drained;
        }
        let again = (given - outputs).max(0.0);
        counts.dram[2] = Accesses { reads: again, writes: given };

        // Inside the PEs.
        if arch.pe.keeps(Operand::Iact) {
            counts.pe[0] = Accesses { reads: macs, writes: into_pes[0] };
        }
        counts.pe[1] = Accesses { reads: macs, writes: into_pes[1] };
        counts.pe[2] = Accesses { reads: macs - into_pes[2], writes: macs };

        let (iact_bits, weight_bits) = (self.iact_bits(pe[3]), self.weight_bits(pe[2]));
        let read_bits =
            counts.dram[0].reads * iact_bits + counts.dram[1].reads * weight_bits + again * arch.bits.psum;
        let written_bits = again * arch.bits.psum + outputs * arch.bits.output;
        let dram_bits = read_bits + written_bits;
        let mut cycles = self.cycles(array, pe, work, traffic);
        // A buffer holds one tile at a time, so the array waits for each.
        let limit = arch.dram_bytes_per_cycle.map_or(f64::INFINITY, |b| 8.0 * b);
        let first = |b: usize, filled: f64| {
            let whole = self.footprint(Operand::Iact, &traffic.held[b].map(|n| n as f64)).min(filled);
            if arch.pe.serial_weights { filled } else { whole }
        };
        let outermost = kept(Operand::Iact).next_back();
        let before = first(outermost.unwrap_or(places - 1), from_dram) * iact_bits;
        cycles.start += before / arch.fill_bits().min(limit);
        // What comes before the start does not come again. The sum of both still rises with either: what comes
        // before is filled no faster than external memory gives it.
        cycles.dram = (dram_bits - before) / limit;
        let width = |bits: Option<f64>| bits.unwrap_or(f64::INFINITY);
        let mut before = [0.0; MAX_BUFFERS];
        let mut inside = None;
        for b in kept(Operand::Iact) {
            if let Some(inner) = inside.replace(b) {
                let bits = first(inner, traffic.fills[inner][0]) * iact_bits;
                let (from, to): (&Buffer, &Buffer) = (&arch.buffers[b], &arch.buffers[inner]);
                cycles.start += bits / width(from.read_bits_per_cycle).min(width(to.write_bits_per_cycle));
                before[b] = bits;
            }
        }
        let bits = [iact_bits, weight_bits, arch.bits.psum];
        for (b, buffer) in arch.buffers.iter().enumerate() {
            let mut through_ports = counts.buffers[b];
            if traffic.least {
                through_ports[2].reads = 0.0;
            }
            let moved =
                |of: fn(&Accesses) -> f64| (0..3).map(|i| of(&through_ports[i]) * bits[i]).sum::<f64>();
            let through = |bits: f64, width: Option<f64>| width.map_or(0.0, |width| bits / width);
            let reading = through(moved(|a| a.reads) - before[b], buffer.read_bits_per_cycle);
            cycles.buffers[b] = reading.max(through(moved(|a| a.writes), buffer.write_bits_per_cycle));
        }
        if cycles.exposed_weights > 0.0 {
            // Sets come from the place behind the PEs, no faster than it gives them.
            let source = kept(Operand::Weight).next();
            let given = source.map_or(limit, |b| width(arch.buffers[b].read_bits_per_cycle));
            let sets = distinct[1] * weight_bits / given;
            cycles.exposed_weights =
                cycles.exposed_weights.max(sets * cycles.exposed_weights / cycles.weight);
        }
        let dram_energy = self.table.dram.reading(read_bits) + self.table.dram.writing(written_bits);
        let energy = self.energy(&counts, work, iact_bits, weight_bits, dram_energy, cycles.total());
        Cost { cycles, energy, counts, dram_bits }
    }

    /// Share of the rows that PEs read which are distinct, when filter rows and output rows lie on the diagonal.
    fn union(&self, spread: &[usize; 8]) -> f64 {
        let (p, r) = (spread[4] as f64, spread[6] as f64);
        if self.arch.halo == Halo::Refetch || p * r <= 1.0 {
            return 1.0;
        }
        window(p, r, self.layer.stride[0], self.layer.dilation[0], usize::MAX) / (p * r)
    }

    fn cycles(&self, array: &ArrayFacts, pe: &[usize; 8], work: &PeWork, traffic: &Traffic) -> Cycles {
        let arch = self.arch;
        let [iact_shared, weight_shared, psum_shared] = array.shared;
        let iact_share = iact_shared * array.port_union * self.iact_bits(pe[3]) / arch.ports.iact_bits;
        let iact = traffic.iacts_per_pe * iact_share;
        let weight_port = weight_shared * self.weight_bits(pe[2]) / arch.ports.weight_bits;
        let weight = traffic.weights_per_pe * weight_port;
        let psum = traffic.psums_per_pe * psum_shared * arch.bits.psum / arch.ports.psum_bits;
        // Over many positions the luck of single windows evens out, that of filters does not.
        let positions = traffic.tiles / traffic.weight_fills;
        let luck = work.deviation * expected_largest(array.relevant[2]) / positions.sqrt();
        let tight = self.window_is_tight(pe, traffic);
        // Chains that wait for each other's windows meet the slowest at each of them, not once a set of weights.
        let barrier = if tight { work.barrier / self.densities().0.sqrt() } else { work.barrier };
        let working = traffic.tiles * (work.synchronised + barrier.hypot(luck));
        // Sums that have one copy leave when the last stages of the pipeline are empty, chains of one port in turn.
        // Meanwhile the next window comes in, if it could not before.
        let sums: f64 = [0, 1, 2, 4, 5].iter().map(|&i| pe[i] as f64).product();
        let visits = traffic.psums_per_pe / sums;
        // A port moves whole words: a lone sum takes a cycle.
        let own = visits * (sums * arch.bits.psum / arch.ports.psum_bits).ceil();
        let leaving = if arch.pe.serial_psums { own + arch.pe.update as f64 * visits } else { 0.0 };
        let entering = if tight { iact } else { 0.0 };
        let compute = working + leaving.max(entering);
        let stored = work.weight_words;
        let twice = 2.0 * stored <= arch.pe.weight_words as f64;
        let exposed = match (arch.pe.serial_weights, twice) {
            (true, false) => weight,
            (true, true) => weight / traffic.weight_fills,
            (false, _) => 0.0,
        };
        let start = arch.pe.pipeline as f64 * traffic.weight_fills;
        Cycles { compute, iact, weight, psum, exposed_weights: exposed, start, ..Cycles::default() }
    }

    /// Whether a window and what the next one brings do not fit in the activation pad together.
    fn window_is_tight(&self, pe: &[usize; 8], traffic: &Traffic) -> bool {
        let [n, g, _, c, p, q, r, s] = pe.map(|x| x as f64);
        let fresh = traffic.iacts_per_pe / traffic.tiles;
        self.arch.pe.serial_weights
            && self.arch.pe.keeps(Operand::Iact)
            && self.iact_words(n * g * c * p.max(q) * r * s) + self.iact_words(fresh)
                > self.arch.pe.iact_words as f64
    }

    fn energy(
        &self,
        counts: &Counts,
        work: &PeWork,
        iact_bits: f64,
        weight_bits: f64,
        dram: f64,
        cycles: f64,
    ) -> Energy {
        let (arch, t, layer) = (self.arch, self.table, self.layer);
        let macs = layer.macs();
        let done = match arch.pe.kind {
            PeKind::Dense => macs,
            PeKind::Gated => macs * layer.iact.density,
            PeKind::Sparse if self.skips() => work.products_share * macs,
            PeKind::Sparse => macs * layer.iact.density,
        };
        let slots = if self.skips() { work.slots_share * macs } else { macs };
        let mac =
            done * t.mac.of(arch.bits.iact, arch.bits.weight) + (slots - done).max(0.0) * t.mac_gated_pj;
        let reuse = if arch.pe.iact_register { work.filters } else { 1.0 };
        let iact_reads = if self.skips() { macs / reuse * self.densities().0 } else { macs / reuse };
        let pair = if self.format.iact { 12.0 } else { arch.bits.iact };
        // A word of the sparse PE holds a pair for every lane, filled or not.
        let weight_word = if self.format.weight { 12.0 } else { arch.bits.weight };
        let weights_read = if self.skips() { slots } else { done };
        let psum_reads = done * counts.pe[2].reads / macs;
        let iact_pad = if arch.pe.keeps(Operand::Iact) {
            t.iact_spad.reading(iact_reads * pair) + t.iact_spad.writing(counts.pe[0].writes * iact_bits)
        } else {
            0.0
        };
        let pe = iact_pad
            + t.weight_spad.reading(weights_read * weight_word)
            + t.weight_spad.writing(counts.pe[1].writes * weight_bits)
            + t.psum_spad.reading(psum_reads * arch.bits.psum)
            + t.psum_spad.writing(done * arch.bits.psum);
        let bits = [iact_bits, weight_bits, arch.bits.psum];
        let network: f64 = (0..3).map(|i| t.array.reading(counts.delivered[i] * bits[i])).sum();
        let k = self.chip_factor();
        let mut buffers = [0.0; MAX_BUFFERS];
        for (b, row) in self.rows.iter().enumerate() {
            let of = |i: usize| {
                let accesses = counts.buffers[b][i];
                row.reading(accesses.reads * bits[i]) + row.writing(accesses.writes * bits[i])
            };
            buffers[b] = k * (0..3).map(of).sum::<f64>();
        }
        let fixed = self.fixed_energy(cycles);
        Energy { mac: k * mac, pe: k * pe, network: k * network, buffers, fixed, dram }
    }

    /// Energy, pJ, of power that flows anyway.
    pub fn fixed_energy(&self, cycles: f64) -> f64 {
        self.chip_factor() * (self.table.static_watts * cycles / self.arch.clock_hz * 1e12)
    }

    /// What a mapping's tiles lack, if anything.
    pub fn misfit(&self, mapping: &Mapping, array: &ArrayFacts, work: &PeWork) -> Option<Misfit> {
        self.pe_misfit(&mapping.pe, work).or_else(|| {
            let once = [Dim::C, Dim::R, Dim::S]
                .iter()
                .all(|&d| mapping.levels.iter().all(|level| level.bounds[d as usize] == 1));
            (0..self.arch.buffers.len())
                .find_map(|b| self.buffer_misfit(b, &mapping.held(b, &array.spread), &mapping.pe, once))
        })
    }

    /// The same for one buffer, counted from the outermost, whose tiles have these bounds. Where sums are finished
    /// in one visit (`once`), those that leave without passing the buffer never rest there.
    pub fn buffer_misfit(&self, at: usize, held: &[usize; 8], pe: &[usize; 8], once: bool) -> Option<Misfit> {
        let buffer = &self.arch.buffers[at];
        let tile: [f64; 8] = std::array::from_fn(|i| held[i].min(self.layer.bounds[i]) as f64);
        let through = buffer.outputs_bypass && once;
        let bits = |operand| match operand {
            Operand::Iact => self.iact_bits(pe[3]),
            Operand::Weight => self.weight_bits(pe[2]),
            Operand::Psum => self.arch.bits.psum,
        };
        let need = Operand::ALL.map(|o| {
            let rests = buffer.keeps(o) && !(o == Operand::Psum && through);
            if rests { self.footprint(o, &tile) * bits(o) / 8.0 } else { 0.0 }
        });
        if let Some(available) = buffer.shared_bytes {
            let required = need.iter().sum();
            return (required > available).then_some(Misfit {
                limit: Limit::Buffer(at),
                required,
                available,
            });
        }
        let have = [buffer.iact_bytes, buffer.weight_bytes, buffer.psum_bytes];
        let lacks = |o: &Operand| need[*o as usize] > have[*o as usize];
        Operand::ALL.into_iter().find(lacks).map(|o| Misfit {
            limit: Limit::BufferOf(at, o),
            required: need[o as usize],
            available: have[o as usize],
        })
    }

    /// The same for the pads of a PE.
    pub fn pe_misfit(&self, pe: &[usize; 8], work: &PeWork) -> Option<Misfit> {
        let spec = &self.arch.pe;
        let [n, g, m, c, p, q, r, s] = pe.map(|x| x as f64);
        let all = [
            (Operand::Iact, n * g * c * p.max(q) * r * s, spec.iact_words),
            (Operand::Psum, n * g * m * p * q, spec.psum_words),
            (Operand::Weight, work.weight_words, spec.weight_words),
        ];
        let lacks = |&(o, need, have): &(Operand, f64, usize)| spec.keeps(o) && need > have as f64;
        all.into_iter().find(lacks).map(|(o, required, have)| Misfit {
            limit: Limit::Pad(o),
            required,
            available: have as f64,
        })
    }
}
