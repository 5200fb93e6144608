//! The report of an estimate: one HTML file with where energy and cycles go.

use wattle_report::{Align, Bar, Bars, Report, Table, number};

use crate::arch::Architecture;
use crate::error::AccelError;
use crate::estimate::Estimate;
use crate::eyexam::{STEPS, eyexam};
use crate::workload::Workload;

/// Layers drawn in charts; the table shows all.
const DRAWN: usize = 24;

/// The report as HTML: energy by component, use of the array and Eyexam's bounds for the layers that take longest,
/// and a table of all.
pub fn report(arch: &Architecture, workload: &Workload, estimate: &Estimate) -> Result<String, AccelError> {
    let mut order: Vec<usize> = (0..estimate.layers.len()).collect();
    let cycles = |i: usize| estimate.layers[i].mapped.cost.cycles.total();
    order.sort_by(|&a, &b| cycles(b).total_cmp(&cycles(a)));
    order.truncate(DRAWN);
    order.sort_unstable();
    let mut energy = Bars::new("Energy of each layer by component", "energy (µJ)", [
        "MAC",
        "scratch pads",
        "network",
        "buffer",
        "static",
        "DRAM",
    ]);
    let mut occupancy = Bars::new("Use of the array", "share (%)", ["active PEs", "useful multiplications"]);
    let mut waterfall =
        Bars::new("Eyexam: multiplications a cycle after each step", "multiplications a cycle", STEPS[2..].iter().copied());
    for &i in &order {
        let l = &estimate.layers[i];
        let parts = l.mapped.cost.energy.parts().map(|(_, pj)| Some(Bar::from(pj * 1e-6)));
        energy = energy.group(&l.name, parts);
        let active = l.mapped.mapping.active_pes() as f64 / arch.pes() as f64;
        occupancy = occupancy.group(&l.name, [Some(Bar::from(100.0 * active)), Some(Bar::from(100.0 * l.utilisation))]);
        if let Some(layer) = workload.layers.iter().find(|w| w.name == l.name) {
            let bounds = eyexam(arch, layer, l, None)?;
            waterfall = waterfall.group(&l.name, bounds[2..].iter().map(|&b| Some(Bar::from(b))));
        }
    }
    let mut table = Table::new([
        ("layer", Align::Left),
        ("cycles", Align::Right),
        ("energy", Align::Right),
        ("bound", Align::Left),
        ("mapping", Align::Left),
    ]);
    for l in &estimate.layers {
        table.row([
            l.name.clone(),
            number::count(l.mapped.cost.cycles.total()),
            number::si(l.mapped.cost.energy.total() * 1e-12, "J"),
            l.mapped.cost.cycles.bound().name().to_string(),
            l.mapped.mapping.to_string(),
        ]);
    }
    let (latency, joules) = (number::seconds(estimate.latency_s()), number::si(estimate.energy_j(), "J"));
    let busy = number::percent(estimate.utilisation());
    let figures = [(latency.as_str(), "latency"), (joules.as_str(), "energy"), (busy.as_str(), "useful multiplications")];
    let longest = format!("The {} layers that take longest, in the network's order.", order.len());
    let mut report = Report::new("wattle accel", &format!("{} on {}", workload.name, arch.name))
        .headline(&figures)
        .note("All figures are modelled; none is a measurement.")
        .section("Energy")
        .figure(&energy.to_svg(), &longest)
        .section("Array")
        .figure(&occupancy.to_svg(), &longest)
        .section("What holds it back")
        .figure(&waterfall.to_svg(), "Each bound is at or below the last.")
        .section("Layers")
        .table(&table)
        .section("Sources");
    for host in &estimate.host {
        if host.macs > 0 {
            report = report.note(&format!("Left to the host: {} ({}): {}.", host.name, host.op, host.reason));
        }
    }
    for source in &estimate.sources {
        report = report.text(source);
    }
    Ok(report.to_html())
}
