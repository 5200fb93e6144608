//! Whose joules they are: a command's share, what it leaves behind, a stated processor, two runs compared.
#![cfg(unix)]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::measure::{conserved, counters, measured, receipt};
use crate::sandbox::{Sandbox, stderr};

#[test]
fn what_a_shell_leaves_in_the_background_is_told() {
    let sandbox = Sandbox::new();
    let script = "sleep 3 & exit 0";
    let output = measured(&sandbox, "--out r.json", script).output().expect("it runs");
    let said = stderr(&output);
    assert!(said.contains("still run") && said.contains("`--attach "), "{said}");
    assert!(receipt(&sandbox, "r.json")["warnings"].to_string().contains("still_running"));
    let waits = measured(&sandbox, "--out r.json", "sleep 0.1 & wait").output().expect("it runs");
    assert!(!stderr(&waits).contains("still run"), "{}", stderr(&waits));
}

/// A package of 30 W, kept up to date while `work` is done.
fn with_a_package_of_30_watts<T>(sandbox: &Sandbox, work: impl FnOnce() -> T) -> T {
    counters(sandbox, 1_000_000_000);
    let file = sandbox.path("sys/class/powercap/intel-rapl:0/energy_uj");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (begun, mut file) =
                (Instant::now(), fs::OpenOptions::new().write(true).open(&file).expect("open"));
            while !done.load(Ordering::Relaxed) {
                // Always as many bytes, in place: no reader finds half of a number.
                let text = format!("{:015}", 1_000_000_000 + 30 * begun.elapsed().as_micros());
                file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(text.as_bytes())).expect("written");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Busy time of the machine in seconds, by the kernel's totals.
#[cfg(target_os = "linux")]
fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("Linux");
    let ticks: Vec<f64> =
        text.lines().next().expect("a line").split_whitespace().skip(1).flat_map(str::parse).collect();
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / 100.0
}

#[cfg(target_os = "linux")]
#[test]
fn the_share_of_a_command_whose_children_work_is_that_of_the_kernels_totals() {
    let sandbox = Sandbox::new();
    for seconds in ["0.2", "2.1"] {
        // The child starts after the first look and works until just before the last.
        let script = format!("sleep 0.02; timeout {seconds} sh -c 'while :; do :; done'; true");
        let flags = "--sysfs sys --idle-power 0 --out r.json";
        let (before, output, after) = with_a_package_of_30_watts(&sandbox, || {
            let before = busy();
            (before, measured(&sandbox, flags, &script).output().expect("it runs"), busy())
        });
        assert!(output.status.success(), "{}", stderr(&output));
        let r = receipt(&sandbox, "r.json");
        conserved(&r);
        let number = |name: &str| r.pointer(name).and_then(Value::as_f64).expect("a number");
        // The start and the end of wattle itself lie outside of what it measures.
        let (own, machine) = (number("/cpu_time/value"), number("/shares/machine_uj") / 1e6);
        let expected = machine * own / (after - before).max(own);
        let (low, high) = (number("/shares/process/low"), number("/shares/process/high"));
        assert!(
            0.8 * low <= expected && expected <= 1.2 * high,
            "{seconds} s: {expected} in {low} to {high}"
        );
        assert!(high - low < 0.7 * machine, "{seconds} s: {low} to {high} of {machine}");
    }
}

#[test]
fn a_stated_processor_narrows_what_a_virtual_machine_may_have_spent() {
    let sandbox = Sandbox::new();
    let energy = |flags: &str| {
        let flags = format!("--sysfs nowhere --out r.json {flags}");
        let output = measured(&sandbox, &flags, "sleep 0.3").output().expect("it runs");
        assert!(output.status.success(), "{}", stderr(&output));
        let r = receipt(&sandbox, "r.json");
        let idle = &r["energy"]["components"][0]["energy"];
        let end = |name: &str| idle[name].as_f64().expect("a number");
        (end("high") / end("low"), idle["source"].as_str().expect("text").to_owned())
    };
    let (width, source) = energy("--cpu-tdp 280 --cpu-threads 128");
    assert_eq!(source, "modelled:cpu-tdp/1:stated, 280 W, 128 threads");
    assert!(width < 10.0, "50 % of the TDP over 6 %: {width}");
    assert!(energy("").0 > 9.0);
    let refused = measured(&sandbox, "--cpu-tdp 280", ":").output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("`--cpu-threads`"), "{}", stderr(&refused));
}

#[test]
fn two_runs_of_one_machine_are_compared_by_their_ratio() {
    let sandbox = Sandbox::new();
    for script in ["sleep 0.4", "sleep 0.2"] {
        assert!(measured(&sandbox, "", script).output().expect("it runs").status.success());
    }
    let found = sandbox.json("ledger compare 1 2");
    let number =
        |name: &str| found.pointer(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{found:#}"));
    let (low, high) = (number("/energy/low"), number("/energy/high"));
    let durations = number("/duration/value");
    assert!(durations > 1.2 && low <= durations && durations <= high, "nobody worked: {found:#}");
    // Each alone is known to a factor of eleven; ticks of runs as short as these are what is left.
    assert!(high / low < 20.0, "{found:#}");
    let text = sandbox.text("ledger compare 1 2");
    assert!(
        text.contains("receipt 1 over 2") && text.contains("cancelled") && text.contains("PUE"),
        "{text}"
    );
    assert_eq!(sandbox.run("ledger compare 1 9").status.code(), Some(2));
}
