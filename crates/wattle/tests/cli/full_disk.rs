//! A disk that is full: exit code 1, a message that says so, and everything written before untouched.
//!
//! A limit on the size of files stands in for the disk: writing fails in the same place and in the same way, for
//! root too.
#![cfg(target_os = "linux")]

use std::process::{Command, Output};

use crate::sandbox::{Sandbox, contents, npy, stderr};

/// Runs a command that can write no file of more than `blocks` times 512 bytes.
fn confined(sandbox: &Sandbox, line: &str, blocks: u32) -> Output {
    let inner = sandbox.command(line);
    let mut shell = Command::new("sh");
    // Without the trap the signal would kill the process before it sees the error.
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    shell.arg(inner.get_program()).args(inner.get_args());
    shell.current_dir(sandbox.path(""));
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.output().expect("there is a shell")
}

fn refused(output: &Output, words: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(output.stdout.is_empty(), "a result was printed");
    assert!(message.contains(words) && !message.contains("panicked"), "{message}");
}

#[test]
fn commands_that_train_stop_and_go_on_when_there_is_room_again() {
    for (command, name) in [
        ("train --model lenet-300-100 --epochs 2", "final.safetensors"),
        ("shrink --model lenet-300-100 --epochs 1 --max-rounds 1 --tolerance 100", "lean.onnx"),
        ("ticket find --model lenet-300-100 --epochs 1 --levels 1", "level_01/final.safetensors"),
    ] {
        let sandbox = Sandbox::new();
        let output = confined(&sandbox, &format!("{command} --out run"), 16);
        refused(&output, "free some space");
        let leftovers = contents(&sandbox.path("run")).into_iter().map(|(path, _)| path);
        let partial: Vec<_> = leftovers.filter(|p| p.to_string_lossy().contains("partial")).collect();
        assert!(partial.is_empty(), "{command}: {partial:?}");

        sandbox.json(&format!("{command} --out run"));
        sandbox.json(&format!("{command} --out whole"));
        let file = |folder: &str| sandbox.read(&format!("{folder}/{name}"));
        assert!(file("run") == file("whole"), "{command}: the failure left a mark");

        // A finished run is read back; what it has to write again does not fit, and the old files stay.
        let before = contents(&sandbox.path("run"));
        let output = confined(&sandbox, &format!("{command} --out run"), 0);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", stderr(&output));
        assert!(contents(&sandbox.path("run")) == before, "{command}: an earlier output changed");
    }
}

#[test]
fn run_keeps_the_outputs_of_the_last_time() {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("m.onnx");
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[0; 12]));
    let line = "run m.onnx --input x=x.npy --input y=x.npy --out results";
    sandbox.json(line);
    let before = contents(&sandbox.path("results"));
    refused(&confined(&sandbox, line, 0), "free some space");
    assert!(contents(&sandbox.path("results")) == before);
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = sandbox.command("profile m.onnx").stdout(full).output().expect("the binary was built");
    refused(&output, "stdout");
}
