//! The report of an estimate: one HTML file with where energy and cycles go, and what the array does meanwhile.

use wattle_report::{Align, Axis, Bar, Bars, Plate, Plot, Report, Table, Tiles, number};

use crate::arch::{Architecture, PeKind};
use crate::error::AccelError;
use crate::estimate::{Estimate, LayerEstimate};
use crate::eyexam::{STEPS, deliveries, eyexam, useful};
use crate::layer::{Kind, Layer, Operand};
use crate::workload::Workload;

/// What the press said of the first chip, and of that one only.
pub const PRESS: &str =
    "\"10x less energy than a mobile GPU\" was said of Eyeriss v1 (MIT News, 2016), never of v2.";

/// Layers drawn in charts; the table shows all.
const DRAWN: usize = 24;
/// Arrays drawn.
const PLATES: usize = 8;
/// Squares of a side at most; larger arrays are drawn with several PEs a square.
const SQUARES: usize = 32;

/// The report as HTML: energy by component, the array at work, Eyexam's bounds as a waterfall and a roofline for the
/// layers that take longest, and a table of all.
pub fn report(arch: &Architecture, workload: &Workload, estimate: &Estimate) -> Result<String, AccelError> {
    let mut order: Vec<usize> = (0..estimate.layers.len()).collect();
    let cycles = |i: usize| estimate.layers[i].mapped.cost.cycles.total();
    order.sort_by(|&a, &b| cycles(b).total_cmp(&cycles(a)));
    order.truncate(DRAWN);
    let longest: Vec<usize> = order.iter().copied().take(PLATES).collect();
    order.sort_unstable();
    let mut bounds = vec![];
    for found in &estimate.layers {
        let layer = workload.layers.iter().find(|l| l.name == found.name);
        if let Some(layer) = layer {
            bounds.push((found, eyexam(arch, layer, found, None)?));
        }
    }
    let rate = |x: f64| if x > 0.0 { number::plain(1.0 / x) } else { "-".to_string() };
    let figures = [
        (number::seconds(estimate.latency_s()), "latency"),
        (rate(estimate.latency_s()), "inferences a second"),
        (number::si(estimate.energy_j(), "J"), "energy with DRAM"),
        (rate(estimate.energy_j()), "inferences a joule"),
        (number::percent(estimate.utilisation()), "multipliers usefully busy"),
    ];
    let figures: Vec<(&str, &str)> = figures.iter().map(|(value, what)| (value.as_str(), *what)).collect();
    let drawn = match estimate.layers.len() {
        n if n > DRAWN => format!("The {DRAWN} of {n} layers that take longest, in the network's order."),
        _ => "Layers in the network's order.".to_string(),
    };
    let title = format!("{} on {}", workload.name, arch.name);
    let mut report = Report::new("wattle accel", &title)
        .headline(&figures)
        .note("All figures are modelled; none is a measurement.")
        .section("Energy")
        .figure(&energy(estimate, &order).to_svg(), &drawn)
        .section("Array")
        .figure(&occupancy(arch, workload, estimate, &longest).to_svg(), ARRAY)
        .section("What holds it back")
        .figure(&waterfall(arch, &bounds).to_svg(), WATERFALL)
        .figure(&roofline(arch, &bounds).to_svg(), ROOFLINE)
        .section("Layers")
        .table(&table(estimate))
        .details("Mappings, loops from the outermost in", &mappings(estimate))
        .section("Sources");
    for host in estimate.host.iter().filter(|h| h.macs > 0) {
        report = report.note(&format!("Left to the host: {} ({}): {}.", host.name, host.op, host.reason));
    }
    for source in &estimate.sources {
        report = report.text(source);
    }
    Ok(report.text(PRESS).to_html())
}

const ARRAY: &str = "Each square is a PE, the longest layers first: grey when no loop reaches it, darker the larger \
                     the share of the layer's cycles in which it does useful products. In a layer of known channels \
                     PEs differ by the densities of the channels they hold.";
const WATERFALL: &str = "Multiplications a cycle that each step of Eyexam leaves, the whole network: cycles of all \
                         layers summed. Steps 1 to 5 bound the multipliers that can be active, 6 and 7 the useful \
                         products they do.";
const ROOFLINE: &str = "Useful products for each cycle in which the busiest port or memory is occupied, against what \
                        is achieved. Left of the corner delivery holds a layer back, right of it the multipliers do.";

/// Energy of layers, stacked by component.
fn energy(estimate: &Estimate, order: &[usize]) -> Bars {
    let parts = estimate.layers.first().map(|l| l.mapped.cost.energy.parts(&estimate.buffers));
    let parts = parts.map(|list| list.into_iter().map(|(name, _)| name));
    let mut bars =
        Bars::new("Energy of each layer by component", "energy (µJ)", parts.into_iter().flatten()).stacked();
    for &i in order {
        let l = &estimate.layers[i];
        let parts = l.mapped.cost.energy.parts(&estimate.buffers);
        let parts = parts.into_iter().map(|(_, pj)| Some(Bar::from(pj * 1e-6)));
        bars = bars.group(&l.name, parts);
    }
    bars
}

/// The whole network's bound after each step: the sum of the layers' cycles at that bound.
fn waterfall(arch: &Architecture, bounds: &[(&LayerEstimate, [f64; 7])]) -> Bars {
    let title = format!("Eyexam: multiplications a cycle, of {} multipliers", arch.multipliers());
    let mut bars = Bars::new(title, "multiplications a cycle", ["bound"]);
    // The first two steps know no array: their bounds would make the others invisible.
    for (step, value) in network_bounds(arch, bounds).into_iter().enumerate().skip(2) {
        bars = bars.group(format!("{} {}", step + 1, STEPS[step]), [Some(Bar::from(value))]);
    }
    bars
}

/// Eyexam's bounds for all layers together: useful products over the cycles that each bound allows.
pub fn network_bounds(arch: &Architecture, bounds: &[(&LayerEstimate, [f64; 7])]) -> [f64; 7] {
    let work = |(found, _): &(&LayerEstimate, [f64; 7])| useful(arch, found);
    let all: f64 = bounds.iter().map(work).sum();
    std::array::from_fn(|step| {
        let cycles: f64 = bounds.iter().map(|b| work(b) / b.1[step].max(f64::MIN_POSITIVE)).sum();
        if cycles > 0.0 { all / cycles } else { 0.0 }
    })
}

/// Each layer under the roof of its deliveries and of the multipliers.
fn roofline(arch: &Architecture, bounds: &[(&LayerEstimate, [f64; 7])]) -> Plot {
    let peak = arch.multipliers() as f64;
    let mut plot = Plot::new(
        "Roofline",
        Axis::log("useful products for each cycle of the busiest port"),
        Axis::log("useful products a cycle"),
    );
    let mut points: Vec<(Kind, Vec<(f64, f64)>)> = vec![];
    let (mut least, mut most) = (peak / 4.0, peak * 4.0);
    for (found, bounds) in bounds {
        let c = found.mapped.cost.cycles;
        let busiest = deliveries(arch, found).into_iter().map(|(_, cycles)| cycles).fold(0.0, f64::max);
        if busiest > 0.0 {
            let x = bounds[6] * c.total() / busiest;
            (least, most) = (least.min(x), most.max(x));
            match points.iter_mut().find(|(kind, _)| *kind == found.kind) {
                Some((_, list)) => list.push((x, bounds[6])),
                None => points.push((found.kind, vec![(x, bounds[6])])),
            }
        }
    }
    plot = plot.line("roof", [(least.min(peak), least.min(peak)), (peak, peak), (most, peak)]);
    for (kind, list) in points {
        plot = plot.scatter(kind.name(), list);
    }
    plot
}

/// The array under the mappings of some layers.
fn occupancy(arch: &Architecture, workload: &Workload, estimate: &Estimate, layers: &[usize]) -> Tiles {
    let grid = Grid::of(arch);
    let mut tiles = Tiles::new("PEs at work", grid.block());
    for &i in layers {
        let found = &estimate.layers[i];
        if let Some(layer) = workload.layers.iter().find(|l| l.name == found.name) {
            tiles = tiles.plate(Plate { name: found.name.clone(), rows: grid.shares(arch, layer, found) });
        }
    }
    tiles
}

/// Where the positions of the axes lie on paper: axes in turn down and across, as the files list them.
struct Grid {
    /// Sizes of the axes.
    sizes: Vec<usize>,
    /// PEs a square, down and across.
    merged: [usize; 2],
}

impl Grid {
    fn of(arch: &Architecture) -> Grid {
        let mut grid = Grid { sizes: arch.axes.iter().map(|a| a.size).collect(), merged: [1; 2] };
        grid.merged = grid.extents().map(|n| n.div_ceil(SQUARES));
        grid
    }

    /// Rows and columns of PEs.
    fn extents(&self) -> [usize; 2] {
        [0, 1].map(|side| self.sizes.iter().skip(side).step_by(2).product())
    }

    /// The innermost two axes make a block.
    fn block(&self) -> [usize; 2] {
        let inner = |side: usize| {
            let sizes: Vec<usize> = self.sizes.iter().skip(side).step_by(2).copied().collect();
            if sizes.len() > 1 { sizes[sizes.len() - 1].div_ceil(self.merged[side]) } else { usize::MAX }
        };
        [inner(0), inner(1)]
    }

    /// Share of the cycles in which each PE does useful products, several PEs of a square averaged.
    fn shares(&self, arch: &Architecture, layer: &Layer, found: &LayerEstimate) -> Vec<Vec<f64>> {
        let [rows, columns] = self.extents();
        let [down, across] = self.merged;
        let mut sums = vec![vec![0.0; columns.div_ceil(across)]; rows.div_ceil(down)];
        for (index, share) in pe_shares(arch, layer, found).into_iter().enumerate() {
            // The position on each axis, the last axis fastest.
            let mut rest = index;
            let mut at = vec![0; self.sizes.len()];
            for axis in (0..self.sizes.len()).rev() {
                at[axis] = rest % self.sizes[axis];
                rest /= self.sizes[axis];
            }
            let place = |side: usize| {
                let axes = self.sizes.iter().zip(&at).skip(side).step_by(2);
                axes.fold(0, |place, (size, at)| place * size + at)
            };
            sums[place(0) / down][place(1) / across] += share / (down * across) as f64;
        }
        sums
    }
}

/// For each PE, axes in order, the last fastest: useful products over what its lanes could do in the layer's cycles.
fn pe_shares(arch: &Architecture, layer: &Layer, found: &LayerEstimate) -> Vec<f64> {
    let spatial = &found.mapped.mapping.spatial;
    let skips = arch.pe.kind == PeKind::Sparse && layer.kind != Kind::Depthwise;
    // Channels of a group that the axes spread: each PE's share of the work follows its own channels.
    let spread = found.mapped.mapping.spread(crate::Dim::C);
    let (groups, channels) = (layer.bound(crate::Dim::G), layer.bound(crate::Dim::C));
    let c0 = found.mapped.mapping.pe[crate::Dim::C as usize];
    let mut work = vec![0.0; spread];
    for channel in 0..channels {
        let density = |g: usize| {
            layer.iact.of_channel(g * channels + channel) * layer.weight.of_channel(g * channels + channel)
        };
        let of: f64 = if skips { (0..groups).map(density).sum::<f64>() / groups as f64 } else { 1.0 };
        work[channel / c0 % spread] += of;
    }
    let mean = work.iter().sum::<f64>() / spread as f64;
    let mut shares = vec![];
    let sizes: Vec<usize> = arch.axes.iter().map(|a| a.size).collect();
    let pes: usize = sizes.iter().product();
    let active = found.mapped.mapping.active_pes().max(1) as f64;
    for index in 0..pes {
        let (mut rest, mut step, mut idle, mut channel) = (index, 1, false, 0);
        for (axis, size) in sizes.iter().enumerate().rev() {
            let mut at = rest % size;
            rest /= size;
            let used: usize = spatial[axis].iter().map(|(_, n)| n).product();
            idle |= at >= used;
            for &(dim, n) in spatial[axis].iter().rev() {
                if !Operand::Psum.depends_on(dim) && dim == crate::Dim::C {
                    channel += at % n * step;
                    step *= n;
                }
                at /= n;
            }
        }
        let relative = if mean > 0.0 { work[channel % spread] / mean } else { 0.0 };
        let average = found.utilisation * pes as f64 / active;
        shares.push(if idle { 0.0 } else { average * relative });
    }
    shares
}

fn table(estimate: &Estimate) -> Table {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("MACs", Align::Right),
        ("cycles", Align::Right),
        ("energy", Align::Right),
        ("useful", Align::Right),
        ("bound", Align::Left),
        ("network", Align::Left),
    ]);
    for l in &estimate.layers {
        table.row([
            l.name.clone(),
            number::count(l.macs),
            number::count(l.mapped.cost.cycles.total().round()),
            number::si(l.mapped.cost.energy.total() * 1e-12, "J"),
            number::percent(l.utilisation),
            l.mapped.cost.cycles.bound().name(&estimate.buffers).to_string(),
            l.mode.clone(),
        ]);
    }
    table
}

/// One line a layer.
fn mappings(estimate: &Estimate) -> String {
    estimate
        .layers
        .iter()
        .map(|l| format!("{}: {}\n", l.name, l.mapped.mapping.text(&estimate.buffers)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::estimate;
    use crate::layer::Sparsity;
    use crate::mapper::{Effort, Objective};

    fn workload() -> Workload {
        let mut layers =
            vec![Layer::conv("conv1", 1, 16, 32, 8, 3, 1), Layer::conv("dw", 32, 32, 32, 8, 3, 1)];
        layers.push(Layer::gemm("fc", 1, 256, 100));
        layers[0].weight = Sparsity::per_channel((0..16).map(|c| f64::from(c + 1) / 16.0).collect());
        Workload { name: "net".into(), layers, host: vec![] }
    }

    #[test]
    fn shares_of_pes_average_to_the_utilisation_of_the_layer() {
        for name in ["eyeriss-v1", "eyeriss-v2", "systolic-256x256"] {
            let arch = Architecture::named(name).unwrap();
            let workload = workload();
            let found = estimate(&arch, &workload, Objective::Edp, Effort::default(), 1, &|| ()).unwrap();
            for (layer, found) in workload.layers.iter().zip(&found.layers) {
                let shares = pe_shares(&arch, layer, found);
                let idle = shares.iter().filter(|&&s| s == 0.0).count();
                assert_eq!(shares.len() - idle, found.mapped.mapping.active_pes(), "{name} {}", layer.name);
                let mean = shares.iter().sum::<f64>() / shares.len() as f64;
                let error = mean / found.utilisation - 1.0;
                assert!(error.abs() < 0.05, "{name} {}: {mean} {}", layer.name, found.utilisation);
            }
        }
    }

    #[test]
    fn the_bounds_of_a_network_fall_and_end_at_its_rate() {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let workload = workload();
        let found = estimate(&arch, &workload, Objective::Edp, Effort::default(), 1, &|| ()).unwrap();
        let bounds: Vec<_> = workload
            .layers
            .iter()
            .zip(&found.layers)
            .map(|(layer, found)| (found, eyexam(&arch, layer, found, None).unwrap()))
            .collect();
        let all = network_bounds(&arch, &bounds);
        assert!(all.is_sorted_by(|a, b| a >= b), "{all:?}");
        let achieved = found.utilisation() * arch.multipliers() as f64;
        assert!((all[6] / achieved - 1.0).abs() < 1e-6, "{all:?} {achieved}");
    }

    #[test]
    fn the_report_is_whole_and_gives_the_press_figure_to_the_first_chip() {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let workload = workload();
        let found = estimate(&arch, &workload, Objective::Edp, Effort::default(), 1, &|| ()).unwrap();
        let html = report(&arch, &workload, &found).unwrap();
        assert_eq!(html.matches("<svg").count(), 4);
        for word in ["modelled", "Roofline", "conv1", "eyeriss-65nm-chip", "JETCAS 2019"] {
            assert!(html.contains(word), "{word}");
        }
        // Wherever the figure is told, the chip it belongs to is told with it.
        assert!(html.contains("mobile GPU"));
        for sentence in html.split('.').filter(|s| s.contains("mobile GPU")) {
            assert!(sentence.contains("Eyeriss v1") && sentence.contains("2016"), "{sentence}");
        }
    }
}
