//! An estimate as a table for the terminal.

use std::collections::BTreeMap;

use wattle_report::{Align, Table, number};

use crate::estimate::{Estimate, LayerEstimate};
use crate::layer::Layer;
use crate::workload::{HostWork, Workload};

/// `iact`, `weight`, both or `-`.
fn compressed(l: &LayerEstimate) -> &'static str {
    match (l.mapped.format.iact, l.mapped.format.weight) {
        (true, true) => "both",
        (true, false) => "iact",
        (false, true) => "weight",
        (false, false) => "-",
    }
}

/// Layer by layer, the sums, and what is left to the host.
pub fn listing(estimate: &Estimate, workload: &Workload) -> String {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("MACs", Align::Right),
        ("iact", Align::Right),
        ("weight", Align::Right),
        ("CSC", Align::Left),
        ("cycles", Align::Right),
        ("energy", Align::Right),
        ("useful", Align::Right),
        ("bound", Align::Left),
        ("network", Align::Left),
    ]);
    for l in &estimate.layers {
        let density = |of: fn(&Layer) -> f64| {
            workload
                .layers
                .iter()
                .find(|w| w.name == l.name)
                .map_or(String::new(), |layer| format!("{:.0} %", 100.0 * of(layer)))
        };
        table.row([
            l.name.clone(),
            number::count(l.macs),
            density(|l| l.iact.density),
            density(|l| l.weight.density),
            compressed(l).to_string(),
            number::count(l.mapped.cost.cycles.total().round()),
            number::si(l.mapped.cost.energy.total() * 1e-12, "J"),
            number::percent(l.utilisation),
            l.mapped.cost.cycles.bound().name(&estimate.buffers).to_string(),
            l.mode.clone(),
        ]);
    }
    let mut text = String::new();
    if estimate.layers.is_empty() {
        text +=
            &format!("nothing for {} to do: no convolution or matrix product in the model\n", estimate.arch);
    } else {
        let t = estimate.totals();
        text += &format!(
            "{table}\nmodelled on {}: {} and {} an inference ({} without DRAM)\n{} inferences/s, {} \
             inferences/J, DRAM {}, multipliers usefully busy {}\n",
            estimate.arch,
            number::seconds(t.latency_s),
            number::si(t.energy_j, "J"),
            number::si(t.chip_energy_j, "J"),
            number::plain(t.inferences_per_s),
            number::plain(t.inferences_per_j),
            number::si(t.dram_bytes, "B"),
            number::percent(t.utilisation),
        );
    }
    text += &host_text(&estimate.host);
    for source in &estimate.sources {
        text += &format!("source: {source}\n");
    }
    text
}

/// What is left to the host: each node that multiplies or that nobody knows, the others counted.
fn host_text(host: &[HostWork]) -> String {
    let (apart, rest): (Vec<&HostWork>, Vec<&HostWork>) =
        host.iter().partition(|h| h.macs > 0 || h.reason.starts_with("custom"));
    let mut text = String::new();
    for h in &apart {
        text += &format!(
            "left to the host: {} ({}), {} MACs: {}\n",
            h.name,
            h.op,
            number::count(h.macs as f64),
            h.reason
        );
    }
    if !rest.is_empty() {
        let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
        rest.iter().for_each(|h| *ops.entry(&h.op).or_default() += 1);
        let list: Vec<String> = ops.iter().map(|(op, n)| format!("{n} {op}")).collect();
        text += &format!("left to the host, without multiply-accumulates: {}\n", list.join(", "));
    }
    if !host.is_empty() {
        text += "time and energy of the host are in no figure here\n";
    }
    text
}
