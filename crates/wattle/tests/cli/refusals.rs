//! Bad input: one paragraph that names the place, the right exit code, no panic.

use crate::sandbox::{Sandbox, npy, stderr};

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
fn every_unsupported_operator_is_listed() {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("m.onnx");
    let mut bytes = sandbox.read("m.onnx");
    for (known, unknown) in [(b"Relu", b"Rulu"), (b"Tanh", b"Tonh")] {
        let at = bytes.windows(4).position(|w| w == known).expect("the operator is in the file");
        bytes[at..at + 4].copy_from_slice(unknown);
    }
    sandbox.write("m.onnx", bytes);
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
