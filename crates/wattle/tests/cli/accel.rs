//! `wattle accel`: documents, refusals.

use crate::sandbox::{Sandbox, stderr};

const COUNTS: &str = include_str!("../../../wattle-accel/tests/data/sparse_mobilenet_channel_counts.json");

#[test]
fn pe_cycles_are_the_published_ones() {
    let sandbox = Sandbox::new();
    sandbox.write("counts.json", COUNTS);
    let document = sandbox.json("accel pe-cycles counts.json");
    let published: serde_json::Value = serde_json::from_str(COUNTS).expect("a committed file");
    let layers = document["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 5);
    for layer in layers {
        let name = layer["name"].as_str().expect("a name");
        assert_eq!(layer["cycles"], published[name]["cycles"], "{name}");
    }
}

#[test]
fn counts_that_contradict_their_shape_are_named() {
    let sandbox = Sandbox::new();
    let layer = |iact: &str| format!(r#"{{"L1":{{"C":2,"M":3,"E":1,"F":4,"nnz_iact":{iact},"nnz_weight":[1,3]}}}}"#);
    for (counts, word) in [("[4]", "1 entries"), ("[4,5]", "a count of 5"), ("[4,-1]", "counts.json")] {
        sandbox.write("counts.json", layer(counts));
        let output = sandbox.run("accel pe-cycles counts.json");
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn an_estimate_keeps_the_contract_and_cites_its_sources() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let document = sandbox.json("accel estimate m.onnx --arch eyeriss-v2 --report r.html");
    for field in
        ["latency_s", "energy_j", "inferences_per_s", "inferences_per_j", "dram_bytes", "utilisation"]
    {
        assert!(document["totals"][field].as_f64().is_some_and(|x| x > 0.0), "{field}");
    }
    let layers = document["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 3);
    for layer in layers {
        assert!(layer["compressed"]["iact"].is_boolean() && layer["compressed"]["weight"].is_boolean());
        assert!(layer["cycles"].as_f64().is_some_and(|x| x > 0.0) && layer["bound"].is_string());
        assert!(layer["mode"].as_str().is_some_and(|m| m.contains("weight")));
    }
    let sources = document["sources"].to_string();
    assert!(sources.contains("eyeriss-65nm-chip") && sources.contains("JETCAS 2019"), "{sources}");
    let html = String::from_utf8(sandbox.read("r.html")).expect("HTML is text");
    assert!(html.contains("modelled") && html.matches("<svg").count() == 3);
}

#[test]
fn zeros_that_are_given_make_the_sparse_array_faster_and_leave_the_dense_one_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let cycles = |flags: &str| {
        let document = sandbox.json(&format!("accel estimate m.onnx --objective delay {flags}"));
        document["totals"]["latency_s"].as_f64().expect("a number")
    };
    let document = sandbox.json("accel estimate m.onnx");
    let name = document["layers"][0]["name"].as_str().expect("a name");
    sandbox.write("d.json", format!(r#"{{"{name}": {{"iact": 0.3, "weight": 0.1}}}}"#));
    assert!(cycles("--density-from d.json") < cycles(""));
    let dense = "--arch eyeriss-v1.5";
    assert_eq!(cycles(&format!("{dense} --density-from d.json")), cycles(dense));
}

#[test]
fn every_subcommand_answers_in_json() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let compared = sandbox.json("accel compare m.onnx --arch eyeriss-v1,eyeriss-v2,systolic-256x256");
    assert_eq!(compared["architectures"].as_array().map(Vec::len), Some(3));
    assert!(compared["architectures"][2]["energy_gain"].is_null(), "45 and 65 nm must not be set against each other");
    let explained = sandbox.json("accel explain m.onnx");
    for layer in explained["layers"].as_array().expect("a list") {
        let bounds: Vec<f64> = layer["bounds"].as_array().expect("seven").iter().filter_map(|b| b.as_f64()).collect();
        assert!(bounds.len() == 7 && bounds.is_sorted_by(|a, b| a >= b), "{bounds:?}");
    }
    let mapped = sandbox.json("accel map m.onnx");
    assert!(mapped["layers"].as_array().expect("a list").iter().all(|l| l["proven"] == true));
    let simulated = sandbox.json("accel simulate m.onnx");
    assert_eq!(simulated["layers"].as_array().map(Vec::len), Some(3));
    assert_eq!(sandbox.json("accel archs")["architectures"].as_array().map(Vec::len), Some(5));
    assert!(sandbox.text("accel archs").contains("said of Eyeriss v1"));
}

#[test]
fn architectures_and_densities_that_cannot_be_used_are_named() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.write("a.toml", "name = \"x\"");
    sandbox.write("d.json", r#"{"nothing": {"iact": 0.5}}"#);
    for (flags, word) in [
        ("--arch tpu", "eyeriss-v2"),
        ("--arch a.toml", "a.toml"),
        ("--density-from d.json", "nothing"),
        ("--density-from none.json", "none.json"),
        ("--density-from calibration:digits", "calibration"),
    ] {
        let output = sandbox.run(&format!("accel estimate m.onnx {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
