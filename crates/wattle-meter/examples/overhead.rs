//! What metering itself costs: `cargo run --release -p wattle-meter --example overhead` prints the time to start and
//! stop, the time of one scope, and the processor share at 1 kHz, beside a thread that does nothing but wake up as often.

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
    let (asleep, awake) = sleeper(interval)?;
    let meter = Meter::start(MeterConfig { interval, ..MeterConfig::new(["overhead"]) });
    std::thread::sleep(Duration::from_secs(10));
    let receipt = meter.stop();
    let busy = receipt.cpu_time.map_or(f64::NAN, |time| time.value());
    let share = busy / receipt.duration.value() * 100.0;
    let taken = receipt.samples.taken;
    let mut out = std::io::stdout();
    writeln!(out, "start {started:?}, stop {stopped:?}, one scope {scope:?}")?;
    writeln!(out, "at 1 kHz: {taken} readings in 10 s, {share:.2} % of one core (to 0.1)")?;
    writeln!(out, "a thread that only sleeps until the next millisecond: {:.2} %", 100.0 * awake / asleep)
}

/// Seconds, and processor time of a thread that sleeps from one beat to the next and does nothing else.
fn sleeper(interval: Duration) -> std::io::Result<(f64, f64)> {
    let spent = || -> std::io::Result<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9)
    };
    let (begun, before) = (Instant::now(), spent()?);
    for beat in 1..=5000 {
        std::thread::sleep((interval * beat).saturating_sub(begun.elapsed()));
    }
    Ok((begun.elapsed().as_secs_f64(), spent()? - before))
}
