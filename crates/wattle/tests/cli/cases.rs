//! Small inputs that once gave wrong results, panics or files outside: each with what is right. The models lie in `cases`.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use wattle_graph::onnx::{Limits, read_model};
use wattle_graph::ops::{Conv, Sliding};
use wattle_graph::{DType, Graph, Model, Parameters, Tensor};

use crate::sandbox::{Sandbox, npy, stderr};

/// A sandbox with these files of the folder `cases`.
fn with(files: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/cases");
    for file in files {
        std::fs::copy(cases.join(file), sandbox.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    sandbox
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The floats at the end of an `.npy` file.
fn read_floats(sandbox: &Sandbox, name: &str, count: usize) -> Vec<f32> {
    let bytes = sandbox.read(name);
    let data = &bytes[bytes.len() - 4 * count..];
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    let near =
        |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    found.len() == expected.len() && found.iter().zip(expected).all(near)
}

/// Planned and interpreted, the model gives these numbers as `y`.
fn gives(model: &str, input: &str, expected: &[f32]) {
    let sandbox = with(&[model]);
    sandbox.write("x.npy", input_file(input));
    for reference in ["", " --reference"] {
        sandbox.json(&format!("run {model} --input x=x.npy --out o{reference}"));
        let found = read_floats(&sandbox, "o/y.npy", expected.len());
        assert!(close(&found, expected), "{model}{reference}: {found:?}, expected {expected:?}");
    }
}

/// `2x3: 1 2 3 4 5 6` as an `.npy` file.
fn input_file(text: &str) -> Vec<u8> {
    let (shape, values) = text.split_once(':').expect("shape: values");
    let values: Vec<f32> = values.split_whitespace().map(|x| x.parse().expect("a number")).collect();
    npy("<f4", &format!("({},)", shape.replace('x', ",")), &floats(&values))
}

/// Planned and interpreted, the model gives the same on noise.
fn both_ways_alike(model: &str) {
    let sandbox = with(&[model]);
    for (out, reference) in [("a", ""), ("b", " --reference")] {
        sandbox.json(&format!("run {model} --out {out}{reference}"));
    }
    let count = (sandbox.read("a/y.npy").len() - 128) / 4;
    let [a, b] = ["a/y.npy", "b/y.npy"].map(|name| read_floats(&sandbox, name, count.max(1)));
    assert!(close(&a, &b), "{model}: {a:?}, interpreted {b:?}");
}

#[test]
fn models_of_bug_reports_give_what_the_standard_says() {
    gives("celu-nan.onnx", "3: NaN 1 -1", &[f32::NAN, 1.0, -0.786_938_67]);
    gives("resize-10-down-0.6.onnx", "1x1x2x4: 1 2 3 4 5 6 7 8", &[1.0, 3.0]);
    gives("reduce-sum-square-noop.onnx", "2x3: -2 3 0.5 1 0 -1", &[4.0, 9.0, 0.25, 1.0, 0.0, 1.0]);
    gives("strings-unused.onnx", "2x3: 1 -1 2 -2 3 -3", &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
    // Rows of -8, 7, 3, -1, 0, 5 tenths, each row alike: the sum of a row of x times those.
    gives(
        "int4-weights.onnx",
        "2x4: 1 2 3 4 0 0 0 1",
        &[-8.0, 7.0, 3.0, -1.0, 0.0, 5.0, -0.8, 0.7, 0.3, -0.1, 0.0, 0.5],
    );
    // Statistics of the model, although training's five results are declared.
    let row = [0.796_159_27f32, 0.630_091_13, 1.096_820_8];
    let x: String = (0..2).flat_map(|_| row.iter().flat_map(|m| [*m; 16])).map(|m| format!("{m} ")).collect();
    let bias = [2.487_955, 2.817_178_5, 2.316_183];
    let expected: Vec<f32> = bias.iter().flat_map(|b| [*b; 16]).collect();
    gives("batch-norm-5-outputs.onnx", &format!("2x3x4x4: {x}"), &[&expected[..], &expected[..]].concat());
}

#[test]
fn plans_and_the_interpreter_agree_on_them() {
    for model in [
        "attention-row-masked.onnx",
        "concat-64.onnx",
        "convt_dyn_1_1.onnx",
        "convt_dyn_g2.onnx",
        "gemm-bias-add.onnx",
        "layer-norm-scale-1.onnx",
    ] {
        both_ways_alike(model);
    }
    let sandbox = with(&["split65.onnx"]);
    sandbox.json("run split65.onnx --out o");
    assert_eq!(std::fs::read_dir(sandbox.path("o")).expect("it was made").count(), 65);
}

#[test]
fn unsigned_integers_above_the_signed_ones_are_exact() {
    let sandbox = with(&["uint64-max.onnx"]);
    let file = |values: [u64; 3]| npy("<u8", "(3,)", &values.map(u64::to_le_bytes).concat());
    sandbox.write("a.npy", file([9_223_372_036_854_775_818, 5, u64::MAX]));
    sandbox.write("b.npy", file([3, 9, 9_223_372_036_854_775_808]));
    sandbox.json("run uint64-max.onnx --input a=a.npy --input b=b.npy --out o");
    let largest = [9_223_372_036_854_775_818, 9, u64::MAX].map(u64::to_le_bytes).concat();
    assert!(sandbox.read("o/y.npy").ends_with(&largest));
}

#[test]
fn every_output_has_a_file_of_its_own() {
    let sandbox = with(&["collide.onnx", "output-is-input.onnx"]);
    let ran = sandbox.json("run collide.onnx --out o");
    let files: Vec<&str> =
        ran["outputs"].as_array().expect("a list").iter().filter_map(|o| o["file"].as_str()).collect();
    assert!(files.len() == 2 && files[0] != files[1], "{files:?}");
    assert_ne!(sandbox.read(files[0]), sandbox.read(files[1]));
    assert_eq!(ran["noise"].as_array().map(Vec::len), Some(1), "{ran:#}");

    sandbox.write("x.npy", input_file("2x3: 1 -1 2 -2 3 -3"));
    sandbox.json("run output-is-input.onnx --input x=x.npy --out p");
    assert_eq!(read_floats(&sandbox, "p/x.npy", 6), [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]);
    assert_eq!(read_floats(&sandbox, "p/y.npy", 6), [1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
}

#[test]
fn outputs_keep_their_names_when_a_model_is_written_again() {
    let sandbox = with(&["metadata.onnx"]);
    sandbox.json("shrink --model metadata.onnx --data digits --epochs 1 --max-rounds 0 --out lean");
    let read = |name: &str| read_model(&sandbox.path(name), &Limits::default()).expect("it is read");
    let (before, after) = (read("metadata.onnx"), read("lean/lean.onnx"));
    for (key, value) in &before.metadata {
        assert_eq!(after.metadata.get(key), Some(value), "{key}");
    }
    assert!(!before.metadata.is_empty());
    let outputs = |model: &wattle_graph::Model| -> Vec<String> {
        model.graph.outputs().iter().map(|&o| model.graph.label(o)).collect()
    };
    assert_eq!(outputs(&before), outputs(&after));
}

fn notes(document: &Value) -> String {
    let notes = document["notes"].as_array().expect("a list").iter().filter_map(Value::as_str);
    notes.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_mask_in_the_graph_stays_and_weights_out_of_reach_are_named() {
    let sandbox = with(&["mask-mul.onnx"]);
    let trained = sandbox.json("train --model mask-mul.onnx --epochs 1 --out run");
    assert!(notes(&trained).contains("`mask` is not trained"), "{trained:#}");
    let shrunk =
        sandbox.json("shrink --model mask-mul.onnx --epochs 1 --max-rounds 1 --tolerance 100 --out lean");
    assert!(notes(&shrunk).contains("not pruned") && notes(&shrunk).contains(": w"), "{shrunk:#}");
}

#[test]
fn parameters_behind_expand_and_single_numbers_learn() {
    for (model, names) in [("cls_expand.onnx", vec!["cls"]), ("scalar_params.onnx", vec![])] {
        let sandbox = with(&[model]);
        let before = read_model(&sandbox.path(model), &Limits::default()).expect("it is read");
        let trained = sandbox.json(&format!("train --model {model} --epochs 1 --out run"));
        let after = read_model(&sandbox.path("run/model.onnx"), &Limits::default()).expect("our own");
        let said = notes(&trained);
        for (name, tensor) in before.parameters.iter() {
            let moved = after.parameters.get(name) != Some(tensor);
            assert!(
                moved || said.contains(name),
                "{model}: `{name}` did not learn and nothing says so: {said}"
            );
        }
        assert!(before.parameters.iter().count() >= names.len());
    }
}

#[test]
fn labels_with_a_point_are_learnt_or_refused_by_name() {
    let sandbox = Sandbox::new();
    let rows: String = (0..60).map(|i| format!("{}.5,{}.25,{}.0\n", i % 7, i % 5, i % 3)).collect();
    sandbox.write("real.csv", format!("a,b,label\n{rows}"));
    sandbox.rows_classifier("m.onnx", 2, 3);
    for command in ["train --epochs 1 --batch 4 --out run", "eval"] {
        let output = sandbox.run(&format!("{command} --model m.onnx --data csv:real.csv"));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("targets") && said.contains("[3]"), "{said}");
    }
}

#[test]
fn unlike_work_is_not_compared() {
    let sandbox = with(&["tiny-buffer.toml"]);
    let mut graph = Graph::new("two");
    let mut x = graph.input("x", DType::F32, vec![1.into(), 2.into(), 8.into(), 8.into()]);
    for (filters, side) in [(2, 1), (64, 7)] {
        let w = graph.constant(Tensor::f32([filters, 2, side, side], vec![0.5; filters * 2 * side * side]));
        x = graph.apply(Conv { sliding: Sliding::padded(2, 0), groups: 1 }, &[x, w]).expect("it fits");
    }
    graph.output(x);
    sandbox.model("m.onnx", &Model::new(graph, Parameters::new()));
    let text = sandbox.text("accel compare m.onnx --arch tiny-buffer.toml,eyeriss-v2");
    assert!(text.contains("no ratios of unlike work") && text.contains("not comparable"), "{text}");
}

#[test]
fn a_plan_of_hours_is_the_one_that_is_counted() {
    let sandbox = with(&["hourly.csv"]);
    let line = "schedule --series hourly.csv --hours 2.5 --watts 1000 --pue 1 --deadline 5";
    let text = sandbox.text(line);
    assert!(text.contains("runs: 2026-03-29T02:30Z for 2.5 h") && text.contains("450 g"), "{text}");
}

#[test]
fn totals_of_nothing_are_no_negative_zero() {
    let sandbox = with(&["output-is-input.onnx"]);
    let text = sandbox.text("accel estimate output-is-input.onnx --json");
    assert!(!text.contains("-0.0"), "{text}");
}

#[test]
fn a_receipt_of_negative_time_is_left_out_and_counted() {
    let sandbox = Sandbox::new();
    sandbox.text("measure --ledger l.jsonl -- true");
    let line = String::from_utf8(sandbox.read("l.jsonl")).expect("JSON");
    let mut receipt: Value = serde_json::from_str(&line).expect("one receipt");
    for (value, unreadable) in [(-5.0, true), (1e-300, false)] {
        for bound in ["value", "low", "high"] {
            receipt["duration"][bound] = value.into();
        }
        sandbox.write("m.jsonl", format!("{receipt}\n"));
        let text = sandbox.text("ledger sum --ledger m.jsonl");
        assert_eq!(text.contains("could not be read"), unreadable, "{text}");
        assert!(!text.contains("inf") && !text.contains("NaN"), "{text}");
        let exported = sandbox.run("ledger export --ledger m.jsonl --format csv --out rows.csv");
        assert!(!stderr(&exported).contains("panicked"), "{}", stderr(&exported));
    }
}

/// The command fails with code 2 and one paragraph, soon, with these words.
fn refused(sandbox: &Sandbox, line: &str, words: &[&str]) {
    let begun = Instant::now();
    let output: Output = sandbox.run(line);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "`wattle {line}`: {said}");
    assert!(
        !said.contains("panicked") && words.iter().all(|word| said.contains(word)),
        "`wattle {line}`: {said}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "`wattle {line}` took {:?}", begun.elapsed());
}

#[test]
fn a_convolution_beyond_any_memory_is_refused_with_the_limit() {
    let sandbox = with(&["convbig.onnx"]);
    for line in ["run convbig.onnx --out o", "bench convbig.onnx --runs 1", "profile convbig.onnx --measure"]
    {
        refused(&sandbox, line, &["bytes of memory", "limit"]);
    }
}

#[test]
fn headers_and_palettes_that_are_made_to_break_a_parser_are_refused_by_file() {
    let sandbox = with(&["collide.onnx", "nest20.npy", "short-palette.png"]);
    refused(&sandbox, "run collide.onnx --input x=nest20.npy", &["nest20.npy"]);
    let deep = format!("{{'descr': {}, 'fortran_order': False, 'shape': (1,), }}", "[".repeat(60_000));
    let length = (deep.len() as u32).to_le_bytes();
    sandbox.write("deep.npy", [b"\x93NUMPY\x02\x00", &length[..], deep.as_bytes()].concat());
    refused(&sandbox, "run collide.onnx --input x=deep.npy", &["deep.npy"]);
    for class in ["a", "b"] {
        std::fs::create_dir_all(sandbox.path(&format!("images/{class}"))).expect("it is new");
        for i in 0..6 {
            sandbox.write(&format!("images/{class}/{i}.png"), sandbox.read("short-palette.png"));
        }
    }
    refused(
        &sandbox,
        "train --model small-conv --data folder:images --epochs 1 --out run",
        &[".png", "palette"],
    );
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_planted_in_an_output_folder_are_not_followed() {
        let sandbox = Sandbox::new();
        for name in
            ["lock", "lease", "metrics.jsonl", "config.toml", "receipt.json", "model.onnx", "report.html"]
        {
            sandbox.write("victim", "precious");
            let out = format!("out-{name}");
            std::fs::create_dir(sandbox.path(&out)).expect("it is new");
            symlink("../victim", sandbox.path(&format!("{out}/{name}"))).expect("it is new");
            symlink("../made", sandbox.path(&format!("{out}/.wattle-partial-1-0-x"))).expect("it is new");
            sandbox.run(&format!("train --model lenet-300-100 --epochs 1 --out {out}"));
            assert_eq!(sandbox.read("victim"), b"precious", "{name}");
            assert!(!sandbox.path("made").exists(), "{name}");
        }
    }

    #[test]
    fn an_energy_file_names_only_files_beside_it() {
        let sandbox = Sandbox::new();
        sandbox.classifier("m.onnx", 10);
        sandbox.write("secret", "top-secret: [words");
        std::fs::create_dir(sandbox.path("energy")).expect("it is new");
        symlink("../secret", sandbox.path("energy/link.yaml")).expect("it is new");
        for named in ["/etc/hostname", "/dev/zero", "../secret", "link.yaml"] {
            let binding = include_str!("../../../../examples/accel/ert-binding.toml");
            let line = |line: &str| match line.starts_with("ert") {
                true => format!("ert = \"{named}\"\n"),
                false => format!("{line}\n"),
            };
            let text: String = binding.lines().map(line).collect();
            sandbox.write("energy/e.toml", text);
            let output = sandbox.run("accel map m.onnx --energy energy/e.toml");
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains("beside") && !said.contains("top-secret"), "{named}: {said}");
        }
    }

    #[test]
    fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
        let sandbox = with(&["collide.onnx"]);
        sandbox.classifier("m.onnx", 10);
        let made = std::process::Command::new("mkfifo").arg(sandbox.path("pipe")).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        for (named, endings) in [("pipe", true), ("/dev/zero", false)] {
            let link = |ending: &str| {
                let name = format!("{}{ending}", named.trim_start_matches("/dev/"));
                let _ =
                    symlink(if endings { sandbox.path("pipe") } else { named.into() }, sandbox.path(&name));
                name
            };
            for line in [
                format!("profile {}", link(".onnx")),
                format!("run collide.onnx --input x={}", link(".npy")),
                format!("train --model m.onnx --data csv:{named}"),
                format!("train --model m.onnx --data npz:{named}"),
                format!("train --model m.onnx --data jsonl:{named}"),
                format!("train --model m.onnx --init-from {named}"),
                format!("train --model m.onnx --teacher {}", link(".onnx")),
                format!("accel map m.onnx --arch {}", link(".toml")),
                format!("accel map m.onnx --energy {}", link(".toml")),
                format!("accel map m.onnx --constraints {}", link(".toml")),
                format!("accel map m.onnx --mapping {}", link(".json")),
                format!("accel estimate m.onnx --density-from {}", link(".json")),
                format!("schedule --series {named} --hours 1 --watts 10"),
                format!("measure --series {named} -- true"),
                format!("measure --epochs 2 --epoch-log {named} -- true"),
                format!("scaling fit {named}"),
            ] {
                refused(&sandbox, &line, &[named.trim_start_matches("/dev/")]);
            }
        }
    }
}

#[test]
fn nodes_that_runtimes_made_of_several_are_read_as_those() {
    // Expected is what onnxruntime 1.32 gives.
    gives(
        "fused-matmul.onnx",
        "3x2: -2.33 -0.22 -1.25 -0.73 -0.54 -0.32",
        &[-0.243, 0.1238, -1.91925, 1.85625, -0.06925, 0.1285, -0.37775, 0.3596],
    );
    gives(
        "bias-gelu.onnx",
        "2x3: 1.37 -0.67 0.35 0.9 0.09 -0.74",
        &[1.713182, 0.238394, 0.129154, 1.185422, 0.983961, -0.167171],
    );
    gives(
        "fast-gelu.onnx",
        "2x3: -1.01 -0.21 -0.16 0.54 0.21 0.36",
        &[-0.051693, -0.168505, 0.031435, -0.133756, -0.100325, 0.417016],
    );
    gives(
        "quick-gelu.onnx",
        "2x3: -0.65 -0.13 0.78 1.49 -1.26 1.51",
        &[-0.178025, -0.058683, 0.595253, 1.34599, -0.165368, 1.367964],
    );
    gives(
        "skip-layer-norm.onnx",
        "1x2x4: 1.74 -0.5 0.33 -0.26 1.58 1.32 0.63 -2.2",
        &[-0.76027, 0.737598, 0.43, -0.17027, -1.142631, -0.593928, 0.43, -0.429016],
    );
    gives(
        "skip-rms-norm.onnx",
        "1x2x4: -0.38 -1.09 -1.28 0.63 0.58 1.29 -0.75 1.69",
        &[-0.055038, -2.735234, -0.177457, -0.021015, 0.062661, -0.031331, -0.139891, -0.865192],
    );
    gives(
        "rms-norm.onnx",
        "2x4: 0.25 1.03 0.16 -0.59 -1.34 -1.4 0.5 0.99",
        &[-0.118349, 2.639746, -0.112309, 0.712704, 0.347933, -1.967979, -0.1925, -0.655933],
    );
    gives(
        "matmul-4-bits.onnx",
        "1x20: -0.01 1.04 1.4 1.15 -2.37 1.23 0.34 0.42 0.37 0.38 0.32 -0.36 -1.9 -0.11 -0.8 1.08 -0.29 0.08 -0.85 -0.51",
        &[-15.718597, -14.921598, -2.002],
    );
    gives(
        "matmul-4-bits-zero-points.onnx",
        "1x20: -0.01 -1.49 0.3 -0.11 -1.19 -2.4 0.51 -0.3 -0.53 -0.24 1.82 -0.05 0.09 -1.49 1.65 0.92 1.07 0.05 0.92 0.37",
        &[-20.8241, 2.321401, 36.3377],
    );
}
