//! Writes a report with invented results to standard output, to look at its design:
//! `cargo run -p wattle-report --example sample_report > sample.html`

use std::io::Write;
use std::time::{Duration, Instant};

use wattle_meter::{Meter, MeterConfig, Unit, WorkDone};
use wattle_report::{Align, Axis, Bar, Bars, Plot, Point, Report, Table, number};

fn main() -> std::io::Result<()> {
    let config = MeterConfig { interval: Duration::from_millis(50), ..MeterConfig::new(["sample_report"]) };
    let meter = Meter::start(config);
    {
        let training = meter.scope("train");
        for _ in 0..3 {
            let _epoch = training.scope("epoch");
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(250) {
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    let mut receipt = meter.stop();
    receipt.work.macs_nominal = Some(WorkDone::counted(2_233_000_000, Unit::Mac));
    receipt.seeds.insert("init".to_owned(), 7);

    let mut result = Table::new([
        ("", Align::Left),
        ("dense", Align::Right),
        ("lean", Align::Right),
        ("change", Align::Right),
    ]);
    result.row(["parameters", "61.7 k", "6.17 k", "-90 %"]).row(["file size", "247 kB", "31 kB", "-87 %"]);

    let ladder = (0..12).map(|round| {
        let density = 0.8f64.powi(round);
        let accuracy = 97.5 - 0.02 / density.powi(2);
        Point { x: density, y: accuracy, interval: Some((accuracy - 0.4, accuracy + 0.4)) }
    });
    let loss =
        |rate: f64| (1..200).map(move |step| (f64::from(step), 2.3 * (-rate * f64::from(step)).exp() + 0.05));
    let report = Report::new("Sample report", "invented numbers, to look at the design")
        .headline(&[("10 %", "density"), ("-0.3 points", "accuracy"), ("2.1 x", "invented speed-up")])
        .section("Result")
        .table(&result)
        .note("These numbers are invented; a real report takes them from a run.")
        .section("How it got there")
        .figure(
            &Plot::new("Accuracy by density", Axis::log("density"), Axis::linear("accuracy (%)"))
                .line("validation", ladder)
                .to_svg(),
            "Each point is one round; bars are 95 % intervals.",
        )
        .figure(
            &Plot::new("Loss", Axis::linear("step"), Axis::log("cross entropy"))
                .line("dense", loss(0.02))
                .line("lean", loss(0.03))
                .to_svg(),
            "",
        )
        .figure(
            &Bars::new("Latency by layer", "milliseconds", ["dense", "lean"])
                .labelled(|ms| number::seconds(ms / 1000.0))
                .group("conv1", [Some(Bar { value: 1.9, interval: Some((1.7, 2.2)) }), Some(1.1.into())])
                .group("layer2/0/conv_with_a_rather_long_name", [Some(3.4.into()), Some(1.6.into())])
                .group("classifier", [Some(0.31.into()), None])
                .to_svg(),
            "Missing bars were not measured.",
        )
        .receipt(&receipt);
    std::io::stdout().write_all(report.to_html().as_bytes())
}
