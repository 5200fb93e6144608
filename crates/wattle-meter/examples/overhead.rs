//! What metering itself costs: `cargo run --release -p wattle-meter --example overhead` prints the time to start and
//! stop, the time of one scope, and the processor share at 1 kHz.

use std::io::Write;
use std::time::{Duration, Instant};

use wattle_meter::{Meter, MeterConfig};

fn main() -> std::io::Result<()> {
    let start = Instant::now();
    let meter = Meter::start(MeterConfig::new(["overhead"]));
    let started = start.elapsed();
    let scopes = 1000;
    let begun = Instant::now();
    for _ in 0..scopes {
        drop(meter.scope("scope"));
    }
    let scope = begun.elapsed() / scopes;
    let stopping = Instant::now();
    drop(meter.stop());
    let stopped = stopping.elapsed();

    let interval = Duration::from_millis(1);
    let meter = Meter::start(MeterConfig { interval, ..MeterConfig::new(["overhead"]) });
    std::thread::sleep(Duration::from_secs(10));
    let receipt = meter.stop();
    let busy = receipt.cpu_time.map_or(f64::NAN, |time| time.value());
    let share = busy / receipt.duration.value() * 100.0;
    let taken = receipt.samples.taken;
    let mut out = std::io::stdout();
    writeln!(out, "start {started:?}, stop {stopped:?}, one scope {scope:?}")?;
    writeln!(out, "at 1 kHz: {taken} readings in 10 s, {share:.2} % of one core (to 0.1)")
}
