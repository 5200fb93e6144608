//! The page of the suite: tables, bars, and the roofline with every node of every sparse network on it.

use wattle_report::{Axis, Bar, Bars, Plot, Report, number};

use super::suite::{Inferred, Suite, Time, tables};
use crate::roofline::machine::Machine;

/// Operations for a byte between which roofs are drawn.
const INTENSITIES: (f64, f64) = (0.05, 2000.0);

/// The page as one HTML file.
pub fn page(document: &Suite) -> String {
    let machine = &document.machine;
    let about = format!("{} threads, {}, random weights; times are medians", machine.threads, machine.isa);
    let mut report = Report::new("wattle bench", &about);
    if let Some(disturbed) = &document.disturbed {
        report = report.note(disturbed);
    }
    let [inference, products, training] = tables(document);
    report = report.section(inference.0).table(&inference.1).figure(
        &gains(&document.inferences),
        "How many times faster a network is with a tenth of its weights, both on wattle. Intervals: the dense median over \
         the 90 % and 10 % quantiles of the sparse times.",
    );
    report = report.section("Roofline").text(&machine.text()).figure(
        &roofline(machine, &document.inferences),
        "Each node of the sparse networks: operations with non-zero weights for a byte touched, and operations a second. \
         A node above the slope of memory has its operands in a cache. Roofs are measured: fused multiply-adds in \
         registers, and copying within the smallest footprint that holds a node's operands.",
    );
    report = report.section(products.0).table(&products.1).figure(
        &useful(document),
        "Useful operations (with non-zeros) a second, as a share of the arithmetic peak, by the share of weights kept.",
    );
    report.section(training.0).table(&training.1).to_html()
}

fn gains(inferences: &[Inferred]) -> String {
    let mut bars = Bars::new("Dense over sparse time", "times faster with 10 % of the weights", ["gain"]);
    for i in inferences {
        let Time { p10_ms, p90_ms, .. } = i.sparse;
        let interval = Some((i.dense.median_ms / p90_ms, i.dense.median_ms / p10_ms));
        bars =
            bars.group(format!("{}, batch {}", i.network, i.batch), [Some(Bar { value: i.gain, interval })]);
    }
    bars.to_svg()
}

fn roofline(machine: &Machine, inferences: &[Inferred]) -> String {
    let gflops = machine.flops_per_second / 1e9;
    let roof = |bytes_per_second: f64| {
        let ridge = machine.flops_per_second / bytes_per_second;
        [INTENSITIES.0, ridge, INTENSITIES.1].map(|i| (i, (i * bytes_per_second / 1e9).min(gflops)))
    };
    let innermost = machine.bytes_per_second(0.0);
    let mut plot = Plot::new("Roofline", Axis::log("operations for a byte"), Axis::log("GFLOP/s"))
        .line("memory", roof(machine.memory_bytes_per_second()))
        .line("innermost cache", roof(innermost));
    for i in inferences {
        let points = i.nodes.iter().filter(|n| n.flops > 0.0 && n.bytes > 0.0 && n.ms > 0.0);
        let points: Vec<(f64, f64)> = points.map(|n| (n.flops / n.bytes, n.flops / n.ms / 1e6)).collect();
        plot = plot.scatter(format!("{}, batch {}", i.network, i.batch), points);
    }
    plot.to_svg()
}

fn useful(document: &Suite) -> String {
    let mut densities: Vec<f64> = vec![];
    for p in document.products.iter().filter(|p| p.block == "1x1") {
        if !densities.contains(&p.density) {
            densities.push(p.density);
        }
    }
    let names = densities.iter().map(|d| format!("{} kept", number::percent(*d)));
    let mut bars = Bars::new("Sparse products", "share of the arithmetic peak, %", names);
    let mut shapes: Vec<(usize, usize, usize)> = vec![];
    for p in &document.products {
        if shapes.contains(&(p.m, p.k, p.n)) {
            continue;
        }
        shapes.push((p.m, p.k, p.n));
        let of = |density: f64| {
            let found = document
                .products
                .iter()
                .find(|q| (q.m, q.k, q.n, q.block) == (p.m, p.k, p.n, "1x1") && q.density == density);
            found.map(|q| Bar::from(100.0 * q.fraction_of_peak))
        };
        bars = bars.group(format!("{} x {}, {} columns", p.m, p.k, p.n), densities.iter().map(|d| of(*d)));
    }
    bars.to_svg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::{Multiplied, Stepped};
    use crate::roofline::machine::Bandwidth;

    #[test]
    fn the_page_has_its_plots_and_asks_the_network_for_nothing() {
        let time = || Time { median_ms: 2.0, p10_ms: 1.5, p90_ms: 2.5, runs: 9 };
        let product = Multiplied {
            m: 4,
            k: 5,
            n: 6,
            density: 0.1,
            block: "1x1",
            median_us: 3.0,
            useful_gflops: 1.0,
            fraction_of_peak: 0.25,
        };
        let document = Suite {
            machine: Machine {
                flops_per_second: 1e11,
                bandwidth: vec![Bandwidth { footprint_bytes: 1e6, bytes_per_second: 1e10 }],
                threads: 2,
                isa: "scalar",
                source: "made up",
            },
            inferences: vec![Inferred {
                network: "a net".into(),
                batch: 1,
                dense: time(),
                sparse: time(),
                gain: 1.0,
                nodes: vec![],
            }],
            products: vec![product],
            steps: vec![Stepped {
                network: "a net".into(),
                batch: 60,
                optimizer: "sgd".into(),
                time: time(),
            }],
            page: "bench.html".into(),
            disturbed: Some("the machine was <busy>".into()),
            source: "made up",
            weights: "random",
            seconds: 1.0,
        };
        let page = page(&document);
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("&lt;busy&gt;") && page.contains("4 x 5"), "{page}");
        assert!(!page.contains("<script") && !page.contains("src="), "{page}");
    }
}
