//! The page of a shrinking: both networks, the search, the receipt.

use wattle_meter::Quantity;
use wattle_report::{Align, Axis, Plot, Report, Table, number};

use crate::shrink::Shrunk;

/// Both networks side by side.
pub fn table(shrunk: &Shrunk) -> Table {
    let mut table = Table::new([("", Align::Left), ("dense", Align::Right), ("lean", Align::Right)]);
    let (d, l) = (&shrunk.dense, &shrunk.lean);
    let energy = |q: &Option<Quantity>| q.as_ref().map_or("unknown".to_string(), number::quantity);
    let metric = shrunk.metric;
    for (part, dense, lean) in
        [("test", d.value, l.value), ("validation", d.validation_value, l.validation_value)]
    {
        table.row([format!("{part} {metric}"), metric.shown(dense), metric.shown(lean)]);
    }
    table.row(["parameters".to_string(), number::count(d.params as f64), number::count(l.params as f64)]);
    table.row(["density".to_string(), number::percent(d.density), number::percent(l.density)]);
    table.row(["effective MACs".to_string(), number::count(d.macs as f64), number::count(l.macs as f64)]);
    table.row(["file size".to_string(), number::si(d.bytes as f64, "B"), number::si(l.bytes as f64, "B")]);
    table.row([
        "latency, measured".to_string(),
        format!("{:.3} ms", d.latency_ms),
        format!("{:.3} ms", l.latency_ms),
    ]);
    let known = d.energy_per_1000.as_ref().map_or(String::new(), |e| format!(", {}", e.source().kind()));
    table.row([
        format!("energy of 1000 inferences{known}"),
        energy(&d.energy_per_1000),
        energy(&l.energy_per_1000),
    ]);
    if let (Some(d), Some(l)) = (&d.accel, &l.accel) {
        let rows = [
            ("inferences/s", d.inferences_per_s, l.inferences_per_s),
            ("inferences/J", d.inferences_per_j, l.inferences_per_j),
        ];
        for (what, dense, lean) in rows {
            let name = format!("{what}, modelled on {}", l.arch);
            table.row([name, number::plain(dense), number::plain(lean)]);
        }
    }
    table
}

/// The page.
pub fn page(shrunk: &Shrunk) -> String {
    let metric = shrunk.metric;
    let scale = if metric.is_share() { 100.0 } else { 1.0 };
    let points = shrunk.levels.iter().map(|l| (l.density, scale * l.validation_value));
    let unit = if metric.is_share() { " (%)" } else { "" };
    let plot = Plot::new(
        format!("{metric} over density"),
        Axis::log("share of prunable weights left"),
        Axis::linear(format!("validation {metric}{unit}")),
    )
    .line("levels", points.collect::<Vec<_>>());
    let quality = metric.shown(shrunk.lean.value);
    let density = number::percent(shrunk.lean.density);
    let mut levels = Table::new([
        ("round", Align::Right),
        ("density", Align::Right),
        ("validation", Align::Right),
        ("", Align::Left),
    ]);
    for level in &shrunk.levels {
        let mark = if level.chosen { "chosen" } else { "" };
        levels.row([
            level.level.to_string(),
            number::percent(level.density),
            metric.shown(level.validation_value),
            mark.to_string(),
        ]);
    }
    let mut report = Report::new("A leaner network", "wattle shrink")
        .headline(&[("density", &density), (&format!("test {metric}"), &quality)])
        .section("Before and after")
        .table(&table(shrunk));
    for note in &shrunk.notes {
        report = report.note(note);
    }
    report
        .section("The search")
        .text("Each round prunes a fifth of the weights left, rewinds the others, and trains again. The validation part chooses; the test part was looked at once, at the end.")
        .figure(&plot.to_svg(), &format!("{metric} of every round on the validation part, over the share of prunable weights left."))
        .table(&levels)
        .receipt(&shrunk.receipt)
        .to_html()
}
