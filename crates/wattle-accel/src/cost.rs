//! What a mapping costs: accesses of each level, cycles with the bound that sets them, energy by component.
//!
//! Accesses follow from the loop nest (the concepts of Timeloop, ISPASS 2019): a level is filled once for each
//! iteration of the loops above it, except the innermost run of loops that the tensor does not depend on; spatial
//! loops it does not depend on share one read (multicast) or add up on the way (reduction); the first touch of a
//! partial sum reads nothing. Tiles that do not divide an extent are averaged for traffic, and rounded up for
//! cycles and capacity.

use crate::arch::{Architecture, Halo, PeKind};
use crate::csc;
use crate::energy::EnergyTable;
use crate::layer::{Dim, Kind, Layer, Operand};
use crate::mapping::{Limit, Mapping, Misfit, loops};
use crate::skipping::{PeWork, expected_largest};

/// Which tensors travel and rest compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Format {
    /// Activations as run-data pairs.
    pub iact: bool,
    /// Weights as run-data pairs.
    pub weight: bool,
}

/// Reads and writes, in values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accesses {
    /// Values read.
    pub reads: f64,
    /// Values written.
    pub writes: f64,
}

impl Accesses {
    /// Both directions.
    pub fn total(&self) -> f64 {
        self.reads + self.writes
    }
}

/// Accesses of every level, by tensor (in the order of [`Operand::ALL`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// External memory.
    pub dram: [Accesses; 3],
    /// Global buffer.
    pub glb: [Accesses; 3],
    /// Scratch pads of the PEs.
    pub pe: [Accesses; 3],
    /// Values delivered to or taken from PEs over the network, each receiver counted.
    pub delivered: [f64; 3],
}

/// What sets the number of cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The slowest PE.
    Compute,
    /// Delivery of activations.
    IactNetwork,
    /// Delivery of weights.
    WeightNetwork,
    /// Collection of partial sums.
    PsumNetwork,
    /// Reading or writing the buffer.
    Buffer,
    /// External memory.
    Dram,
}

impl Bound {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::IactNetwork => "iact network",
            Bound::WeightNetwork => "weight network",
            Bound::PsumNetwork => "psum network",
            Bound::Buffer => "buffer",
            Bound::Dram => "dram",
        }
    }
}

/// Cycles by cause. The first six overlap, the rest adds to the largest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cycles {
    /// Multiplying, in the slowest PE, with the drain of partial sums where it does not overlap.
    pub compute: f64,
    /// Activations through their ports.
    pub iact: f64,
    /// Weights through theirs.
    pub weight: f64,
    /// Partial sums through theirs.
    pub psum: f64,
    /// Reading or writing the buffer, whichever takes longer.
    pub buffer: f64,
    /// External memory, without what it moves during `start`.
    pub dram: f64,
    /// Fetching weights while the PEs wait.
    pub exposed_weights: f64,
    /// The first tile of activations, and filling pipelines.
    pub start: f64,
}

impl Cycles {
    /// All cycles.
    pub fn total(&self) -> f64 {
        let busy = self.compute + self.exposed_weights;
        let network = self.iact.max(self.weight).max(self.psum);
        busy.max(network).max(self.buffer).max(self.dram) + self.start
    }

    /// Which of the overlapping causes is the largest.
    pub fn bound(&self) -> Bound {
        let all = [
            (self.compute + self.exposed_weights, Bound::Compute),
            (self.iact, Bound::IactNetwork),
            (self.weight, Bound::WeightNetwork),
            (self.psum, Bound::PsumNetwork),
            (self.buffer, Bound::Buffer),
            (self.dram, Bound::Dram),
        ];
        all.into_iter().fold(all[0], |a, b| if b.0 > a.0 { b } else { a }).1
    }
}

/// Energy by component, pJ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Energy {
    /// Multiply-accumulates.
    pub mac: f64,
    /// Scratch pads.
    pub pe: f64,
    /// Network of the array.
    pub network: f64,
    /// Global buffer.
    pub glb: f64,
    /// Power that flows anyway.
    pub fixed: f64,
    /// External memory, which published energies of chips leave out.
    pub dram: f64,
}

impl Energy {
    /// Without external memory, pJ.
    pub fn chip(&self) -> f64 {
        self.mac + self.pe + self.network + self.glb + self.fixed
    }

    /// All, pJ.
    pub fn total(&self) -> f64 {
        self.chip() + self.dram
    }

    /// Names and values, for tables and stacks.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("MAC", self.mac),
            ("scratch pads", self.pe),
            ("network", self.network),
            ("buffer", self.glb),
            ("static", self.fixed),
            ("DRAM", self.dram),
        ]
    }
}

/// Cost of one layer under one mapping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Cycles by cause.
    pub cycles: Cycles,
    /// Energy by component.
    pub energy: Energy,
    /// Accesses.
    pub counts: Counts,
    /// Bits moved from and to external memory.
    pub dram_bits: f64,
}

/// What moves under a mapping, in values: the part of a cost that the order of the loops decides.
pub(crate) struct Traffic {
    /// PE tiles, one after the other.
    pub tiles: f64,
    /// Sets of weights that a PE sees.
    pub weight_fills: f64,
    pub weights_per_pe: f64,
    pub iacts_per_pe: f64,
    pub psums_per_pe: f64,
    /// Values that the buffer takes from external memory, or gives to it.
    pub glb_iacts: f64,
    pub glb_weights: f64,
    pub glb_psums: f64,
    /// Sums that do not come back from the buffer because they come from external memory: for a mapping those
    /// above, for a bound all there may be.
    pub not_reread: f64,
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
}

impl<'a> Context<'a> {
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
    pub fn fills(&self, operand: Operand, mapping: &Mapping, with_glb: bool) -> (f64, Option<(Dim, usize)>) {
        let (mut product, mut innermost) = (1.0, None);
        let inner = loops(mapping.glb_order).map(|d| (d, mapping.glb[d as usize]));
        let outer = loops(mapping.dram_order).map(|d| (d, mapping.dram[d as usize]));
        for (dim, n) in inner.filter(|_| with_glb).chain(outer) {
            if n == 1 || (innermost.is_none() && !operand.depends_on(dim)) {
                continue;
            }
            innermost.get_or_insert((dim, n));
            product *= n as f64;
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
        let [glb_tile, pe_tile] = self.tiles_of(mapping, array);
        let fills = |operand| self.fills(operand, mapping, true);
        let (iact_fills, inner) = fills(Operand::Iact);
        let glb_fills = |operand| self.fills(operand, mapping, false);
        let (glb_iact_fills, glb_inner) = glb_fills(Operand::Iact);
        let glb_psums = self.footprint(Operand::Psum, &glb_tile) * glb_fills(Operand::Psum).0;
        let traffic = Traffic {
            tiles: (0..8).map(|i| (mapping.glb[i] * mapping.dram[i]) as f64).product(),
            weight_fills: fills(Operand::Weight).0,
            weights_per_pe: self.footprint(Operand::Weight, &pe_tile) * fills(Operand::Weight).0,
            iacts_per_pe: self.fetched(&pe_tile, inner) * iact_fills,
            psums_per_pe: self.footprint(Operand::Psum, &pe_tile) * fills(Operand::Psum).0,
            glb_iacts: self.fetched(&glb_tile, glb_inner) * glb_iact_fills,
            glb_weights: self.footprint(Operand::Weight, &glb_tile) * glb_fills(Operand::Weight).0,
            glb_psums,
            not_reread: glb_psums,
        };
        self.cost(array, &mapping.pe, work, &traffic, &self.held(mapping, array))
    }

    /// Average extents of the tiles of the buffer and of a PE.
    pub fn tiles_of(&self, mapping: &Mapping, array: &ArrayFacts) -> [[f64; 8]; 2] {
        let glb: [f64; 8] = std::array::from_fn(|i| self.layer.bounds[i] as f64 / mapping.dram[i] as f64);
        [glb, std::array::from_fn(|i| glb[i] / (mapping.glb[i] * array.spread[i]) as f64)]
    }

    /// Largest extents of the tile of the buffer.
    pub fn held(&self, mapping: &Mapping, array: &ArrayFacts) -> [usize; 8] {
        std::array::from_fn(|i| (mapping.glb[i] * array.spread[i] * mapping.pe[i]).min(self.layer.bounds[i]))
    }

    /// Costs such that every mapping with this array and PE tile is at or above one of them, component by
    /// component. Only one tensor can stay while the innermost loop runs: for each group that could be innermost,
    /// the tensor that it suits moves least and the others move at every step. External memory is met once. A group
    /// without loops cannot be innermost and has no cost, unless none has loops.
    pub fn relaxed(&self, array: &ArrayFacts, pe: &[usize; 8], work: &PeWork) -> [Option<Cost>; 3] {
        let spread = &array.spread;
        let trips: [f64; 8] =
            std::array::from_fn(|i| self.layer.bounds[i].div_ceil(spread[i] * pe[i]) as f64);
        let tile: [f64; 8] =
            std::array::from_fn(|i| self.layer.bounds[i] as f64 / (trips[i] * spread[i] as f64));
        let held: [usize; 8] = std::array::from_fn(|i| (spread[i] * pe[i]).min(self.layer.bounds[i]));
        let all: f64 = trips.iter().product();
        let [n, _, m, c, p, q, r, s] = trips;
        // Iterations of the group that leaves each tensor where it is: M, then N P Q, then C R S.
        let staying = [m, n * p * q, c * r * s];
        let whole: [f64; 8] = self.layer.bounds.map(|n| n as f64);
        let slides = [Dim::P, Dim::Q].map(|d| self.fetched(&tile, Some((d, trips[d as usize] as usize))));
        let iacts = slides[0].min(slides[1]);
        Operand::ALL.map(|stays| {
            if staying[stays as usize] <= 1.0 && staying.iter().any(|&n| n > 1.0) {
                return None;
            }
            let fills = |operand: Operand| {
                let skipped = if operand == stays { staying[operand as usize] } else { 1.0 };
                all / skipped
            };
            let traffic = Traffic {
                tiles: all,
                weight_fills: fills(Operand::Weight),
                weights_per_pe: self.footprint(Operand::Weight, &tile) * fills(Operand::Weight),
                iacts_per_pe: iacts * fills(Operand::Iact),
                psums_per_pe: self.footprint(Operand::Psum, &tile) * fills(Operand::Psum),
                glb_iacts: self.footprint(Operand::Iact, &whole),
                glb_weights: self.footprint(Operand::Weight, &whole),
                glb_psums: self.footprint(Operand::Psum, &whole),
                not_reread: f64::INFINITY,
            };
            Some(self.cost(array, pe, work, &traffic, &held))
        })
    }

    /// Cost of what moves; it never falls when the traffic or the work rises.
    pub fn cost(
        &self,
        array: &ArrayFacts,
        pe: &[usize; 8],
        work: &PeWork,
        traffic: &Traffic,
        held: &[usize; 8],
    ) -> Cost {
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
        for (operand, filled) in [(Operand::Iact, traffic.glb_iacts), (Operand::Weight, traffic.glb_weights)]
        {
            let reads = distinct[operand as usize];
            if arch.glb.keeps(operand) {
                counts.dram[operand as usize].reads = filled;
                counts.glb[operand as usize] = Accesses { reads, writes: filled };
            } else {
                counts.dram[operand as usize].reads = reads;
            }
        }
        let from_dram = counts.dram[0].reads;
        let outputs = layer.elements(Operand::Psum);
        let kept = arch.glb.keeps(Operand::Psum);
        let drained = if kept { traffic.glb_psums } else { distinct[2] };
        let again = (drained - outputs).max(0.0);
        counts.dram[2] = Accesses { reads: again, writes: drained };
        if kept {
            let refetched = (distinct[2] - drained).max(0.0);
            let finished = if arch.glb.outputs_bypass { drained } else { 0.0 };
            counts.glb[2] = Accesses { reads: refetched, writes: distinct[2] - finished + again };
        }

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
        // The buffer holds one tile at a time, so the array waits for each.
        let limit = arch.dram_bytes_per_cycle.map_or(f64::INFINITY, |b| 8.0 * b);
        let first = self.footprint(Operand::Iact, &held.map(|n| n as f64)).min(from_dram);
        let exposed = if arch.pe.serial_weights { from_dram } else { first };
        let before = exposed * iact_bits;
        cycles.start += before / arch.fill_bits().min(limit);
        // What comes before the start does not come again. The sum of both still rises with either: what comes
        // before is filled no faster than external memory gives it.
        cycles.dram = (dram_bits - before) / limit;
        let bits = [iact_bits, weight_bits, arch.bits.psum];
        let mut through_ports = counts.glb;
        if kept {
            through_ports[2].reads = (distinct[2] - traffic.not_reread).max(0.0);
        }
        let moved = |of: fn(&Accesses) -> f64| (0..3).map(|i| of(&through_ports[i]) * bits[i]).sum::<f64>();
        let through = |bits: f64, width: Option<f64>| width.map_or(0.0, |width| bits / width);
        let reading = through(moved(|a| a.reads), arch.glb.read_bits_per_cycle);
        cycles.buffer = reading.max(through(moved(|a| a.writes), arch.glb.write_bits_per_cycle));
        // A bound cannot tell sets of weights from their number where both are as small as they can be.
        let bound = traffic.not_reread == f64::INFINITY;
        if cycles.exposed_weights > 0.0 && !(bound && arch.glb.keeps(Operand::Weight)) {
            let sets = counts.dram[1].reads * weight_bits / limit;
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
        Cycles { compute, iact, weight, psum, buffer: 0.0, dram: 0.0, exposed_weights: exposed, start }
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
        let glb: f64 = (0..3)
            .map(|i| {
                t.glb.reading(counts.glb[i].reads * bits[i]) + t.glb.writing(counts.glb[i].writes * bits[i])
            })
            .sum();
        let fixed = self.fixed_energy(cycles);
        let k = self.chip_factor();
        Energy { mac: k * mac, pe: k * pe, network: k * network, glb: k * glb, fixed, dram }
    }

    /// Energy, pJ, of power that flows anyway.
    pub fn fixed_energy(&self, cycles: f64) -> f64 {
        self.chip_factor() * (self.table.static_watts * cycles / self.arch.clock_hz * 1e12)
    }

    /// What a mapping's tiles lack, if anything.
    pub fn misfit(&self, mapping: &Mapping, array: &ArrayFacts, work: &PeWork) -> Option<Misfit> {
        let glb = &self.arch.glb;
        self.pe_misfit(&mapping.pe, work).or_else(|| {
            let tile: [f64; 8] = std::array::from_fn(|i| {
                (mapping.glb[i] * array.spread[i] * mapping.pe[i]).min(self.layer.bounds[i]) as f64
            });
            // Sums that are finished in one visit never rest in the buffer.
            let through = glb.outputs_bypass
                && [Dim::C, Dim::R, Dim::S]
                    .iter()
                    .all(|&d| mapping.glb[d as usize] * mapping.dram[d as usize] == 1);
            let bits = |operand| match operand {
                Operand::Iact => self.iact_bits(mapping.pe[3]),
                Operand::Weight => self.weight_bits(mapping.pe[2]),
                Operand::Psum => self.arch.bits.psum,
            };
            let need = Operand::ALL.map(|o| {
                let rests = glb.keeps(o) && !(o == Operand::Psum && through);
                if rests { self.footprint(o, &tile) * bits(o) / 8.0 } else { 0.0 }
            });
            if let Some(available) = glb.shared_bytes {
                let required = need.iter().sum();
                return (required > available).then_some(Misfit {
                    limit: Limit::Buffer,
                    required,
                    available,
                });
            }
            let have = [glb.iact_bytes, glb.weight_bytes, glb.psum_bytes];
            let lacks = |o: &Operand| need[*o as usize] > have[*o as usize];
            Operand::ALL.into_iter().find(lacks).map(|o| Misfit {
                limit: Limit::BufferOf(o),
                required: need[o as usize],
                available: have[o as usize],
            })
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
