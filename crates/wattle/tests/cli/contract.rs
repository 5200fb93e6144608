//! What `--json` promises to programs.

use serde_json::Value;
use wattle_graph::onnx::{Limits, read_model};

use crate::sandbox::{Sandbox, npy};

fn has(object: &Value, keys: &[&str]) {
    for key in keys {
        assert!(!object[key].is_null(), "no `{key}` in {object:#}");
    }
}

#[test]
fn shrink_writes_what_it_reports() {
    let sandbox = Sandbox::new();
    let shrunk = sandbox.json("shrink --epochs 2 --max-rounds 1 --tolerance 100 --out lean");
    has(&shrunk, &["dense", "lean", "receipt", "files"]);
    for side in ["dense", "lean"] {
        has(&shrunk[side], &["accuracy", "params", "macs", "bytes", "latency_ms"]);
    }
    let density = shrunk["lean"]["density"].as_f64().expect("a number");
    assert!(density > 0.7 && density < 0.9, "one round leaves about 80 %, not {density}");
    for (_, file) in shrunk["files"].as_object().expect("an object") {
        assert!(sandbox.path(file.as_str().expect("a path")).is_file(), "{file}");
    }
    assert_eq!(sandbox.read("lean/lean.onnx").len() as u64, shrunk["lean"]["bytes"]);

    let model =
        read_model(&sandbox.path("lean/lean.onnx"), &Limits::default()).expect("our own export is read");
    let alive: usize =
        model.parameters.iter().map(|(_, t)| t.to_f64().iter().filter(|x| **x != 0.0).count()).sum();
    assert_eq!(alive as u64, shrunk["lean"]["params"], "zeros in the file are as many as claimed");

    let evaluated = sandbox.json("eval --model lean/lean.onnx");
    assert_eq!(evaluated["accuracy"], shrunk["lean"]["accuracy"]);
}

#[test]
fn profile_has_totals_and_nodes() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let profile = sandbox.json("profile m.onnx --measure");
    has(&profile["totals"], &["params", "macs", "macs_effective", "bytes_read", "bytes_written"]);
    has(&profile["nodes"][0], &["name", "op"]);
    let weights = 64 * 300 + 300 * 100 + 100 * 10;
    assert_eq!(profile["totals"]["macs"], weights);
    assert_eq!(profile["totals"]["params"], weights + 410);
}

#[test]
fn run_writes_a_file_for_every_output() {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("m.onnx");
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[-1.0f32, 0.0, 2.5].map(f32::to_le_bytes).concat()));
    sandbox.write("y.npy", npy("<f4", "(1, 3)", &[0.0f32; 3].map(f32::to_le_bytes).concat()));
    let run = sandbox.json("run m.onnx --input x=x.npy --input y=y.npy --out results");
    has(&run, &["outputs", "receipt"]);
    assert!(
        sandbox.read("results/positive.npy").ends_with(&[0.0f32, 0.0, 2.5].map(f32::to_le_bytes).concat())
    );
    assert!(sandbox.read("results/squashed.npy").ends_with(&[0; 12]));
}

#[test]
fn bench_has_quantiles_in_order() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    for line in
        ["bench m.onnx --runs 5 --threads 1", "bench --train m.onnx --batch 4 --optimizer adam --runs 5"]
    {
        let bench = sandbox.json(line);
        let [p10, median, p90] =
            ["p10_ms", "median_ms", "p90_ms"].map(|k| bench[k].as_f64().expect("a number"));
        assert!(0.0 < p10 && p10 <= median && median <= p90, "{bench:#}");
    }
}

#[test]
fn bench_compares_every_node_with_what_limits_it() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let bench = sandbox.json("bench m.onnx --runs 3 --threads 1 --roofline");
    let roofline = &bench["roofline"];
    assert!(roofline["machine"]["flops_per_second"].as_f64().expect("a number") > 0.0);
    let nodes = roofline["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3, "{roofline:#}");
    for node in nodes {
        assert!(["arithmetic", "traffic"].contains(&node["limit"].as_str().expect("text")), "{node:#}");
        assert!(node["share"].as_f64().expect("a number") > 0.0, "{node:#}");
    }
    // 64 inputs, 300 outputs, one sample: two operations for each weight, and an element operation for each result.
    let flops = nodes[0]["flops"].as_f64().expect("a number");
    assert!((2.0 * 64.0 * 300.0..2.2 * 64.0 * 300.0).contains(&flops), "{flops}");
}

#[test]
fn train_and_ticket_find_judge_on_the_test_part() {
    let sandbox = Sandbox::new();
    let trained = sandbox.json("train --model lenet-300-100 --epochs 1 --out run");
    has(&trained, &["steps", "receipt"]);
    let accuracy = trained["test_accuracy"].as_f64().expect("a number");
    assert!(accuracy > 0.3 && accuracy <= 1.0, "{accuracy}");
    let found = sandbox.json("ticket find --model lenet-300-100 --epochs 1 --levels 1 --out tickets");
    has(&found, &["levels", "receipt", "run"]);
    assert_eq!(found["levels"].as_array().map(Vec::len), Some(2));
}
