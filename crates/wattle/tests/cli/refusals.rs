//! Bad input: one paragraph that names the place, the right exit code, no panic.

use crate::sandbox::{Sandbox, contents, npy, stderr};

/// The command must fail with this code and a message that contains all of `words`.
fn refused(sandbox: &Sandbox, line: &str, code: i32, words: &[&str]) {
    let output = sandbox.run(line);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "`wattle {line}`: {message}");
    assert!(output.stdout.is_empty(), "`wattle {line}` printed a result");
    assert!(!message.contains("panicked"), "`wattle {line}`: {message}");
    for word in words {
        assert!(message.contains(word), "`wattle {line}` does not say `{word}`: {message}");
    }
}

#[test]
fn files_that_are_no_models_are_named() {
    let sandbox = Sandbox::new();
    sandbox.classifier("whole.onnx", 10);
    let bytes = sandbox.read("whole.onnx");
    sandbox.write("cut.onnx", &bytes[..bytes.len() / 2]);
    sandbox.write("text.onnx", "this is no model");
    for command in ["profile", "run", "bench"] {
        for file in ["missing.onnx", "cut.onnx", "text.onnx"] {
            refused(&sandbox, &format!("{command} {file}"), 2, &[file]);
        }
    }
    refused(&sandbox, "train --model missing.onnx", 2, &["missing.onnx"]);
}

#[test]
fn an_instruction_set_is_obeyed_or_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let bench = |isa: &str| {
        let mut command = sandbox.command("bench m.onnx --runs 1 --json");
        command.env("WATTLE_ISA", isa).output().expect("the binary was built with this test")
    };
    let scalar = bench("scalar");
    let document: serde_json::Value = serde_json::from_slice(&scalar.stdout).expect("one JSON document");
    assert_eq!(document["isa"], "scalar");
    let refused = bench("sse9");
    let message = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("WATTLE_ISA: `sse9`") && message.contains("scalar"), "{message}");
}

#[test]
fn every_unsupported_operator_is_listed() {
    let sandbox = Sandbox::new();
    sandbox.strange("m.onnx");
    refused(&sandbox, "profile m.onnx", 2, &["m.onnx", "Rulu", "Tonh"]);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("m.onnx");
    sandbox.write("ints.npy", npy("<i8", "(1, 3)", &[0; 24]));
    sandbox.write("flat.npy", npy("<f4", "(3,)", &[0; 12]));
    sandbox.write("short.npy", npy("<f4", "(1, 3)", &[0; 4]));
    refused(&sandbox, "profile m.onnx --input z=1x3", 2, &["`z`"]);
    refused(&sandbox, "profile m.onnx --input x=1x4", 2, &["`x`"]);
    refused(&sandbox, "profile m.onnx --input x=3", 2, &["`x`"]);
    refused(&sandbox, "run m.onnx --input x=ints.npy --input y=1x3", 2, &["`x`", "f32"]);
    refused(&sandbox, "run m.onnx --input x=flat.npy --input y=1x3", 2, &["`x`"]);
    refused(&sandbox, "run m.onnx --input x=short.npy --input y=1x3", 2, &["short.npy"]);
    refused(&sandbox, "run m.onnx --input x=none.npy --input y=1x3", 2, &["none.npy"]);
}

#[test]
fn data_that_cannot_be_learnt_from_is_named() {
    let sandbox = Sandbox::new();
    sandbox.classifier("nine.onnx", 9);
    sandbox.write("nan.csv", "a,b,label\n1,2,0\n3,NaN,1\n");
    refused(&sandbox, "train --model nine.onnx", 2, &["9 outputs", "10 classes"]);
    refused(&sandbox, "train --model lenet-300-100 --data csv:nan.csv", 2, &["nan.csv"]);
    refused(&sandbox, "train --model lenet-300-100 --data nothing", 2, &["nothing"]);
}

/// Every file of the sandbox outside the folder of the ledger.
fn everything(sandbox: &Sandbox) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let own = sandbox.path("data");
    contents(&sandbox.path("")).into_iter().filter(|(path, _)| !path.starts_with(&own)).collect()
}

#[test]
fn every_command_names_each_kind_of_bad_input_and_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.classifier("good.onnx", 10);
    sandbox.classifier("nine.onnx", 9);
    sandbox.two_by_two("two.onnx");
    sandbox.strange("strange.onnx");
    sandbox.write("file", "precious");
    sandbox.write("short.csv", "a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n");
    sandbox.write("nan.csv", "a,b,label\n1,2,0\n3,NaN,1\n");
    sandbox.write("x.npy", npy("<f4", "(1, 1, 8, 8)", &[0; 256]));
    sandbox.write("wide.npy", npy("<f4", "(1, 1, 8, 9)", &[0; 288]));
    sandbox.write("results", "an earlier output that is no folder");
    let before = everything(&sandbox);
    for command in ["shrink", "train", "ticket find", "eval"] {
        let on = |rest: &str| format!("{command} --model {rest}");
        refused(&sandbox, &on("missing.onnx"), 2, &["missing.onnx"]);
        refused(&sandbox, &on("good.onnx --data missing.csv"), 2, &["missing.csv"]);
        refused(&sandbox, &on("good.onnx --data csv:short.csv"), 2, &["[2]", "[N, 1, 8, 8]"]);
        refused(&sandbox, &on("two.onnx"), 2, &["the model"]);
        refused(&sandbox, &on("nine.onnx"), 2, &["9 outputs", "expected"]);
        refused(&sandbox, &on("good.onnx --data csv:nan.csv"), 2, &["nan.csv", "NaN"]);
        refused(&sandbox, &on("strange.onnx"), 2, &["strange.onnx", "Rulu", "Tonh"]);
    }
    for command in ["profile", "run", "bench"] {
        let with = if command == "run" { " --input x=x.npy" } else { "" };
        refused(&sandbox, &format!("{command} missing.onnx{with}"), 2, &["missing.onnx"]);
        refused(&sandbox, &format!("{command} good.onnx --input x=missing.npy"), 2, &["missing.npy"]);
        refused(&sandbox, &format!("{command} good.onnx --input x=wide.npy"), 2, &["`x`", "[1, 1, 8, 9]"]);
        refused(&sandbox, &format!("{command} strange.onnx{with}"), 2, &["strange.onnx", "Rulu", "Tonh"]);
    }
    refused(&sandbox, "bench --train strange.onnx", 2, &["Rulu"]);
    refused(&sandbox, "run good.onnx --input x=x.npy --out results", 1, &["results"]);
    refused(&sandbox, "run good.onnx --input x=x.npy --out file/results", 1, &["file/results"]);
    for command in ["shrink", "train", "ticket find"] {
        let line = format!("{command} --model good.onnx --epochs 1 --out file/run");
        refused(&sandbox, &line, 1, &["file/run", "directory"]);
    }
    let changed: Vec<_> =
        before.iter().filter(|(path, bytes)| std::fs::read(path).ok().as_ref() != Some(bytes)).collect();
    assert!(changed.is_empty(), "{changed:?}");
    let after = everything(&sandbox);
    let new: Vec<_> =
        after.iter().filter(|(path, _)| !before.iter().any(|(p, _)| p == path)).map(|(p, _)| p).collect();
    assert!(new.is_empty(), "refused commands leave files behind: {new:?}");
}

#[test]
fn a_folder_of_other_things_is_no_place_for_a_run() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("thesis")).expect("it is new");
    sandbox.write("thesis/chapter.txt", "precious");
    let before = contents(&sandbox.path("thesis"));
    for command in ["shrink", "train", "ticket find"] {
        let line = format!("{command} --model lenet-300-100 --epochs 1 --out thesis");
        refused(&sandbox, &line, 2, &["thesis", "chapter.txt", "empty directory"]);
    }
    assert!(contents(&sandbox.path("thesis")) == before && !sandbox.path("thesis/lock").exists());
}

#[test]
fn flags_out_of_range_are_named() {
    let sandbox = Sandbox::new();
    refused(&sandbox, "shrink --tolerance 101", 2, &["--tolerance"]);
    refused(&sandbox, "shrink --tolerance NaN", 2, &["--tolerance"]);
    refused(&sandbox, "shrink --epochs 1 --max-rounds 1 --rewind 99ep", 2, &["rewind"]);
    refused(&sandbox, "train --model lenet-5 --optimizer rmsprop", 2, &["rmsprop", "adamw"]);
    refused(&sandbox, "train --model lenet-6", 2, &["lenet-6", "lenet-5"]);
    refused(&sandbox, "train --model lenet-5 --validation 1.5", 2, &["validation"]);
}

#[test]
fn an_output_folder_that_cannot_be_made_is_a_failure_of_the_machine() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "precious");
    let output = sandbox.run("train --model lenet-300-100 --epochs 1 --out file/run");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("file/run") && !stderr(&output).contains("panicked"),
        "{}",
        stderr(&output)
    );
    assert_eq!(sandbox.read("file"), b"precious");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_ledger_only_warns() {
    let document = Sandbox::new().json("train --model lenet-300-100 --epochs 1 --out run --ledger /dev/full");
    let warnings = document["receipt"]["warnings"].as_array().expect("a list");
    assert!(warnings.iter().any(|w| w.to_string().contains("ledger")), "{warnings:?}");
}
