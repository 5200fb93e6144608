//! Kill a run at any moment, run it again: the same bytes. On any number of threads: the same bytes.

use std::time::Duration;

use crate::sandbox::{Sandbox, contents, stderr};

/// Starts the command and kills it after each of these times.
fn killed(sandbox: &Sandbox, line: &str, milliseconds: &[u64]) {
    for &time in milliseconds {
        let mut child = sandbox.command(line).spawn().expect("the binary was built with this test");
        std::thread::sleep(Duration::from_millis(time));
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
    }
}

#[test]
fn a_killed_training_ends_in_the_same_bytes() {
    let sandbox = Sandbox::new();
    let line = "train --model lenet-300-100 --epochs 12 --threads 1 --out";
    sandbox.json(&format!("{line} whole"));
    killed(&sandbox, &format!("{line} killed"), &[40, 210, 330]);
    sandbox.json(&format!("{line} killed"));
    assert!(sandbox.read("whole/final.safetensors") == sandbox.read("killed/final.safetensors"));
}

#[test]
fn a_killed_search_ends_in_the_same_bytes() {
    let sandbox = Sandbox::new();
    let line = "shrink --model lenet-300-100 --epochs 4 --max-rounds 2 --tolerance 100 --threads 1 --out";
    sandbox.json(&format!("{line} whole"));
    killed(&sandbox, &format!("{line} killed"), &[90, 310, 450]);
    sandbox.json(&format!("{line} killed"));
    assert!(sandbox.read("whole/lean.onnx") == sandbox.read("killed/lean.onnx"));
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
