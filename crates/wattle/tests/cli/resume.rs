//! Kill a run at any moment, run it again: the same bytes. On any number of threads: the same bytes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Sandbox, contents, stderr};

/// Moments to kill at, the same in every run of the tests: xorshift, Marsaglia 2003.
struct Dice(u64);

impl Dice {
    /// A number from 0 to below 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How often each of the two commands is killed: `WATTLE_KILLS=200` looks longer.
fn kills() -> u32 {
    std::env::var("WATTLE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Runs the command to its end in one folder, and in others with a kill -9 at random moments until it has ended; every
/// result must have these files with the same bytes, a receipt that adds up, and nothing of the killed left behind.
fn killed_at_any_moment(command: &str, files: &[&str], seed: u64) {
    let sandbox = Sandbox::new();
    let whole = sandbox.json(&format!("{command} --out whole"));
    // While it learns, and what comes just before and after; not while inferences are timed at the end of a search.
    let learning = whole["receipt"]["scopes"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|scope| ["train", "find"].iter().any(|path| scope["path"] == *path));
    let learning = learning.and_then(|scope| scope["duration"]["value"].as_f64()).expect("it learnt");
    let span = Duration::from_secs_f64(0.15 + 1.2 * learning);
    let expected: Vec<_> = files.iter().map(|file| sandbox.read(&format!("whole/{file}"))).collect();
    let (mut dice, mut killed, mut run) = (Dice(seed), 0, 0);
    while killed < kills() {
        run += 1;
        let out = format!("killed-{run}");
        let (begun, mut processes) = (Instant::now(), 0);
        // Ever earlier kills would never let it end; the last of a run's processes is let alone.
        for _ in 0..8 {
            let mut child = sandbox.command(&format!("{command} --out {out}")).spawn().expect("it was built");
            std::thread::sleep(span.mul_f64(dice.roll()));
            processes += 1;
            match child.try_wait().expect("the child is ours") {
                Some(_) => {
                    let output = child.wait_with_output().expect("the child is ours");
                    assert!(output.status.success(), "{command}, seed {seed}: {}", stderr(&output));
                    break;
                }
                None => {
                    child.kill().expect("the child is ours");
                    child.wait().expect("the child is ours");
                    killed += 1;
                }
            }
        }
        let result = sandbox.json(&format!("{command} --out {out}"));
        for (file, expected) in files.iter().zip(&expected) {
            assert!(
                sandbox.read(&format!("{out}/{file}")) == *expected,
                "{file} after {processes} processes, seed {seed}"
            );
        }
        adds_up(&result["receipt"], begun.elapsed().as_secs_f64());
        let left: Vec<_> = contents(&sandbox.path(&out)).into_iter().map(|(path, _)| path).collect();
        let strays = |path: &&PathBuf| path.ends_with("lease") || path.to_string_lossy().contains("partial");
        assert_eq!(left.iter().find(strays), None, "the killed left something behind");
    }
}

/// The parts of a receipt are its whole, and no more than passed on the clock.
fn adds_up(receipt: &Value, passed: f64) {
    let number = |value: &Value| value["value"].as_f64().expect("a number");
    let (duration, energy) = (number(&receipt["duration"]), number(&receipt["energy"]["total"]));
    assert!(duration <= passed, "{duration} s in {passed} s");
    let Some(stints) = receipt["stints"].as_array() else { return };
    assert!(stints.len() > 1);
    let sum = |of: &dyn Fn(&Value) -> f64| stints.iter().map(of).sum::<f64>();
    let is_whole = |sum: f64, whole: f64| (sum - whole).abs() <= 1e-9 * whole;
    assert!(is_whole(sum(&|stint| number(&stint["duration"])), duration), "{receipt:#}");
    assert!(is_whole(sum(&|stint| number(&stint["energy"])), energy), "{receipt:#}");
}

#[test]
fn a_training_killed_at_any_moment_ends_in_the_same_bytes() {
    let files = ["final.safetensors", "model.onnx"];
    killed_at_any_moment("train --model lenet-300-100 --epochs 12 --threads 1", &files, 0x2545_f491);
}

#[test]
fn a_training_that_may_stop_early_is_killed_and_keeps_its_best() {
    let line = "train --model lenet-300-100 --epochs 12 --stop 2 --average 0.99 --accumulate 2 --threads 1";
    killed_at_any_moment(line, &["final.safetensors", "model.onnx"], 0x9e37_79b9);
}

/// Waits until a run has noted something new in its receipt, sends it this signal, and returns how it ended.
#[cfg(unix)]
fn ended_by(sandbox: &Sandbox, line: &str, signal: &str) -> std::process::Output {
    let before = std::fs::read(sandbox.path("run/receipt.json")).ok();
    let child = sandbox.command(line).spawn().expect("it was built");
    let begun = Instant::now();
    while std::fs::read(sandbox.path("run/receipt.json")).ok() == before {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was noted");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("every Unix has it").success());
    child.wait_with_output().expect("the child is ours")
}

/// The step of the run's checkpoint.
#[cfg(unix)]
fn step_of(sandbox: &Sandbox) -> u64 {
    let names = contents(&sandbox.path("run")).into_iter().map(|(path, _)| path);
    let step = |path: PathBuf| {
        path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
    };
    names.filter_map(step).max().expect("a checkpoint")
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_at_the_next_step_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let line = "train --model lenet-300-100 --epochs 20000 --batch 64 --threads 1 --out run";
    for (count, (signal, code)) in [("-INT", 130), ("-TERM", 143)].into_iter().enumerate() {
        let output = ended_by(&sandbox, line, signal);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("the same command goes on"), "{}", stderr(&output));
        let receipt: Value = serde_json::from_slice(&sandbox.read("run/receipt.json")).expect("a receipt");
        assert_eq!(receipt["stop_reason"], "interrupted");
        assert_eq!(receipt["work"]["samples"]["value"].as_f64(), Some(64.0 * step_of(&sandbox) as f64));
        let ledger = String::from_utf8(sandbox.read("data/wattle/ledger.jsonl")).expect("text");
        assert_eq!(ledger.lines().count(), count + 1);
    }
    // A checkpoint that the disk has cut short is no reason to refuse: the run starts again.
    let checkpoint = format!("run/step-{}.safetensors", step_of(&sandbox));
    sandbox.write(&checkpoint, &sandbox.read(&checkpoint)[..100]);
    let output = ended_by(&sandbox, line, "-INT");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
}

#[test]
fn a_training_that_fails_is_in_the_ledger() {
    let sandbox = Sandbox::new();
    let failed = sandbox.run("train --model lenet-300-100 --epochs 2 --lr 1e30 --out run");
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    let ledger = String::from_utf8(sandbox.read("data/wattle/ledger.jsonl")).expect("text");
    let line: Value = serde_json::from_str(ledger.lines().next().expect("a line")).expect("a receipt");
    assert_eq!(line["stop_reason"], "failed");
}

#[test]
fn a_search_killed_at_any_moment_ends_in_the_same_bytes() {
    let line =
        "shrink --model lenet-300-100 --epochs 4 --max-rounds 2 --rewind 10% --tolerance 100 --threads 1";
    killed_at_any_moment(line, &["lean.onnx", "lean.safetensors"], 0x1234_5678);
}

#[test]
fn threads_do_not_change_the_result() {
    let sandbox = Sandbox::new();
    for threads in [1, 2] {
        sandbox.json(&format!("train --model small-conv --epochs 1 --threads {threads} --out t{threads}"));
    }
    assert!(sandbox.read("t1/final.safetensors") == sandbox.read("t2/final.safetensors"));
}

#[test]
fn a_finished_run_is_read_back_and_anothers_folder_left_alone() {
    let sandbox = Sandbox::new();
    let line = "train --model lenet-300-100 --epochs 1 --out run";
    assert_eq!(sandbox.json(line)["reused"], false);
    assert_eq!(sandbox.json(line)["reused"], true);
    let before = contents(&sandbox.path("run"));
    let other = sandbox.run("train --model lenet-300-100 --epochs 2 --out run");
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(contents(&sandbox.path("run")) == before);
}

#[test]
fn a_changed_model_file_is_another_run() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    for line in [
        "train --model m.onnx --epochs 1 --out run",
        "shrink --model m.onnx --epochs 1 --max-rounds 0 --out lean",
    ] {
        sandbox.classifier("m.onnx", 10);
        sandbox.json(line);
        sandbox.classifier("m.onnx", 11);
        let changed = sandbox.run(line);
        assert_eq!(changed.status.code(), Some(2), "{line}: {}", stderr(&changed));
    }
}

#[test]
fn more_rounds_go_on_from_the_ones_there_are() {
    let sandbox = Sandbox::new();
    let line = "shrink --model lenet-300-100 --epochs 1 --tolerance 100 --out lean --max-rounds";
    sandbox.json(&format!("{line} 1"));
    let first = sandbox.read("lean/level_01/final.safetensors");
    let more = sandbox.json(&format!("{line} 2"));
    assert_eq!(more["levels"].as_array().map(Vec::len), Some(3));
    assert!(sandbox.read("lean/level_01/final.safetensors") == first);
}
