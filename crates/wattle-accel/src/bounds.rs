//! Lower bounds that cost less than the bound of a branch, so that most branches need no more.
//!
//! A bound is a cost under traffic and PE work that no mapping goes below. Costs do not fall when either rises, with
//! two exceptions: a sum that comes over the network need not be read from its pad, and one that comes from outside a
//! buffer need not be read there. Where the first pays, the bound takes as many of them as there can be; the second
//! costs more energy than it saves ([`Architecture`](crate::Architecture) sees to that when it is read), and ports of
//! buffers are not charged for it.

use crate::arch::MAX_BUFFERS;
use crate::cost::Cost;
use crate::evaluation::{ArrayFacts, Context, Traffic};
use crate::layer::{Dim, Layer, Operand};
use crate::mapping::{Group, Mapping};
use crate::skipping::PeWork;

/// Approximate normal distributions put the slowest of some PEs below the mean of all by less than this.
const SLACK: f64 = 1.0 - 1e-6;

/// What is known of a layer and a format before any array is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// Products done, as a share of all, by which energy counts.
    products: f64,
    /// The same over the channels of one group, by which the work of PEs counts.
    slots: f64,
    skips: bool,
}

impl Floor {
    pub fn of(context: &Context<'_>) -> Floor {
        let layer = context.layer;
        if !context.skips() {
            return Floor { products: 1.0, slots: 1.0, skips: false };
        }
        let format = context.format;
        let channels = layer.bound(Dim::C);
        let share = |c: usize| {
            let iact = if format.iact { layer.iact.of_channel(c) } else { 1.0 };
            iact * if format.weight { layer.weight.of_channel(c) } else { 1.0 }
        };
        let (iact, weight) = context.densities();
        let both = format.iact && format.weight;
        let products = if both { layer.effective_macs() / layer.macs() } else { iact * weight };
        Floor { products, slots: (0..channels).map(share).sum::<f64>() / channels as f64, skips: true }
    }

    /// Work of a PE tile that [`PeWork::of`] never goes below for an array that spreads loops this wide: no idle lane,
    /// no waiting for PEs with more to do, and weights that take no room. The last of several tiles may be smaller, so
    /// the channels of a layer are shared evenly by all tiles of all PEs.
    pub fn work(&self, context: &Context<'_>, pe: &[usize; 8], spread: &[usize; 8]) -> PeWork {
        let [n, g, m, c, p, q, r, s] = *pe;
        let windows = (n * g * p * q * r * s) as f64;
        let lanes = context.arch.pe.lanes;
        let synchronised = if self.skips {
            let (channels, wide) = (context.layer.bound(Dim::C), spread[Dim::C as usize]);
            let held = channels as f64 / (channels.div_ceil(wide * c) * wide) as f64;
            windows * held * m as f64 / lanes as f64 * self.slots * SLACK
        } else {
            windows * (c * m.div_ceil(lanes)) as f64
        };
        PeWork {
            synchronised,
            products_share: self.products,
            slots_share: self.slots.min(1.0),
            filters: m as f64,
            ..PeWork::default()
        }
    }

    /// Cycles of all visits of PE tiles, but for [`Floor::share`] of the array, which leaves this much of the loops:
    /// together no more than the work of each tile times their number.
    pub fn steps(&self, context: &Context<'_>, pe: &[usize; 8], rest: &[usize; 8]) -> f64 {
        let [n, g, m, c, p, q, r, s] = *pe;
        let lanes = context.arch.pe.lanes;
        let trips = |d: Dim| rest[d as usize].div_ceil(pe[d as usize]);
        let visits = (trips(Dim::M) * trips(Dim::R) * trips(Dim::S) * n * g * p * q * r * s) as f64;
        if self.skips {
            visits * m as f64 / lanes as f64 * self.slots * SLACK
        } else {
            visits * (trips(Dim::C) * c * m.div_ceil(lanes)) as f64
        }
    }

    /// How often an array that spreads loops this wide does the steps of a PE tile, one of its tiles given.
    pub fn share(&self, layer: &Layer, spread: &[usize; 8], pe: &[usize; 8]) -> f64 {
        let trips = |d: Dim| layer.bound(d).div_ceil(spread[d as usize] * pe[d as usize]);
        let outer = (trips(Dim::N) * trips(Dim::G) * trips(Dim::P) * trips(Dim::Q)) as f64;
        // Zeros save time, so all tiles share the channels evenly; without skipping the fullest tile counts.
        let channels = layer.bound(Dim::C) as f64 / spread[Dim::C as usize] as f64;
        outer * if self.skips { channels } else { 1.0 }
    }
}

impl Context<'_> {
    /// Energy, pJ, that no mapping with this PE tile goes below, on any array: weights and outputs move once. Then
    /// the cycles for which power that flows anyway is in it.
    pub fn energy_floor(&self, floor: &Floor, pe: &[usize; 8]) -> (f64, f64) {
        let whole = self.layer.bounds.map(|n| n as f64);
        let [iacts, weights, psums] = Operand::ALL.map(|o| self.footprint(o, &whole));
        // Sums that leave through one PE take longer than through all of them.
        let pes = self.arch.pes() as f64;
        let mut array = ArrayFacts::single();
        (array.instances, array.relevant) = (pes, [pes; 3]);
        let traffic = Traffic {
            tiles: 1.0,
            weight_fills: 1.0,
            weights_per_pe: weights / pes,
            iacts_per_pe: 0.0,
            psums_per_pe: psums / pes,
            fills: [[iacts, weights, psums]; MAX_BUFFERS],
            held: [[1; 8]; MAX_BUFFERS],
            least: true,
        };
        let work = PeWork { synchronised: 0.0, ..floor.work(self, pe, &[1; 8]) };
        let cost = self.cost(&array, pe, &work, &traffic);
        let saved = self.chip_factor() * self.saved_per_sum().max(0.0) * (self.layer.macs() - psums).max(0.0);
        ((cost.energy.total() - saved).max(0.0), cost.cycles.total())
    }

    /// The same for mappings that take at least these cycles.
    pub fn energy_floor_within(&self, (energy, counted): (f64, f64), cycles: f64) -> f64 {
        energy + self.fixed_energy((cycles - counted).max(0.0))
    }

    /// Energy, pJ, that the costs of [`Context::relaxed`] may lie above a mapping's, because they let as few sums
    /// come over the network as possible.
    pub fn relaxed_slack(&self, array: &ArrayFacts, pe: &[usize; 8]) -> f64 {
        let spread = &array.spread;
        let trips: [f64; 8] =
            std::array::from_fn(|i| self.layer.bounds[i].div_ceil(spread[i] * pe[i]) as f64);
        // A sum that comes and goes once more is read and written once more.
        let bits = self.arch.bits.psum;
        let place = self.row_behind_pes(Operand::Psum);
        let costs =
            array.relevant[2] * (place.reading(bits) + place.writing(bits)) / self.chip_factor().max(1.0);
        let gain = array.instances * self.saved_per_sum() - costs;
        if gain <= 0.0 {
            return 0.0;
        }
        let all: f64 = trips.iter().product();
        let tile: [f64; 8] =
            std::array::from_fn(|i| self.layer.bounds[i] as f64 / (trips[i] * spread[i] as f64));
        self.chip_factor() * gain * self.footprint(Operand::Psum, &tile) * all
    }

    /// Cost that every order of the loops at external memory and at the outermost buffer is at or above, but for
    /// [`Context::relaxed_slack`]: each tensor moves as in the order that suits it best. These orders of `mapping` are
    /// overwritten.
    pub fn tile_floor(&self, mapping: &mut Mapping, array: &ArrayFacts, work: &PeWork) -> Cost {
        use Group::{Filters, Positions, Reduction};
        let pes = mapping.levels.len() - 1;
        let mut times = [[0.0; 3]; MAX_BUFFERS + 1];
        for operand in Operand::ALL {
            let order = match operand {
                Operand::Iact => [Filters, Positions, Reduction],
                Operand::Weight => [Positions, Reduction, Filters],
                Operand::Psum => [Reduction, Positions, Filters],
            };
            (mapping.levels[0].order, mapping.levels[1].order) = (order, order);
            for (place, times) in times.iter_mut().enumerate().take(pes + 1) {
                times[operand as usize] = self.fills(operand, &mapping.levels[..=place]).0;
            }
        }
        let (tiles, pe_tile) = self.tiles_of(mapping, array);
        let taken = |place: usize, tile: &[f64; 8]| {
            // Windows overlap the more, the longer the loop is that slides them.
            let along = |d: Dim| {
                let longest = mapping.levels[..=place].iter().map(|level| level.bounds[d as usize]).max();
                self.fetched(tile, longest.map(|n| (d, n)))
            };
            let [iacts, weights, psums] = times[place];
            [
                along(Dim::P).min(along(Dim::Q)) * iacts,
                self.footprint(Operand::Weight, tile) * weights,
                self.footprint(Operand::Psum, tile) * psums,
            ]
        };
        let mut fills = [[0.0; 3]; MAX_BUFFERS];
        (0..pes).for_each(|b| fills[b] = taken(b, &tiles[b]));
        let [iacts_per_pe, weights_per_pe, psums_per_pe] = taken(pes, &pe_tile);
        let traffic = Traffic {
            tiles: mapping.tiles(),
            weight_fills: times[pes][1],
            weights_per_pe,
            iacts_per_pe,
            psums_per_pe,
            fills,
            held: self.held(mapping, array),
            least: true,
        };
        self.cost(array, &mapping.pe, work, &traffic)
    }

    /// pJ that a sum's pad saves more than its delivery costs, before the calibration.
    fn saved_per_sum(&self) -> f64 {
        let bits = self.arch.bits.psum;
        self.table.psum_spad.reading(bits) - self.table.array.reading(bits)
    }

    pub(crate) fn chip_factor(&self) -> f64 {
        self.arch.calibration.as_ref().map_or(1.0, |c| c.chip)
    }
}
