//! `wattle accel`: documents, refusals, and the closed loop from a ticket to an accelerator.

use serde_json::Value;

use crate::golden;
use crate::sandbox::{Sandbox, npy, stderr};

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
    let layer =
        |iact: &str| format!(r#"{{"L1":{{"C":2,"M":3,"E":1,"F":4,"nnz_iact":{iact},"nnz_weight":[1,3]}}}}"#);
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
    assert_eq!(document["schema"], 1);
    let layers = document["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let parts = layer["energy_parts_j"].as_object().expect("an object").values();
        let sum: f64 = parts.filter_map(Value::as_f64).sum();
        let energy = layer["energy_j"].as_f64().expect("a number");
        assert!((sum / energy - 1.0).abs() < 1e-9, "{layer:#}");
        assert!(layer["utilisation"].as_f64().is_some_and(|x| x > 0.0 && x <= 1.0), "{layer:#}");
        assert!(layer["compressed"]["iact"].is_boolean() && layer["compressed"]["weight"].is_boolean());
        assert!(layer["cycles"].as_f64().is_some_and(|x| x > 0.0) && layer["bound"].is_string());
        assert!(layer["mode"].as_str().is_some_and(|m| m.contains("weight")));
    }
    let sources = document["sources"].to_string();
    assert!(sources.contains("eyeriss-65nm-chip") && sources.contains("JETCAS 2019"), "{sources}");
    let html = String::from_utf8(sandbox.read("r.html")).expect("HTML is text");
    assert!(html.contains("modelled") && html.matches("<svg").count() == 4);
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
    assert!(
        compared["architectures"][2]["energy_gain"].is_null(),
        "45 and 65 nm must not be set against each other"
    );
    let explained = sandbox.json("accel explain m.onnx");
    for layer in explained["layers"].as_array().expect("a list") {
        let bounds: Vec<f64> =
            layer["bounds"].as_array().expect("seven").iter().filter_map(|b| b.as_f64()).collect();
        assert!(bounds.len() == 7 && bounds.is_sorted_by(|a, b| a >= b), "{bounds:?}");
        assert_eq!(layer["last_step"], "simulated");
    }
    let modelled = sandbox.json("accel explain m.onnx --max-macs 0");
    for (layer, simulated) in modelled["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(explained["layers"].as_array().expect("a list"))
    {
        assert_eq!((&layer["last_step"], &layer["cycles"]), (&"modelled".into(), &layer["model_cycles"]));
        assert_ne!(simulated["cycles"], simulated["model_cycles"]);
    }
    let mapped = sandbox.json("accel map m.onnx");
    assert!(mapped["layers"].as_array().expect("a list").iter().all(|l| l["proven"] == true));
    let simulated = sandbox.json("accel simulate m.onnx");
    assert_eq!(simulated["layers"].as_array().map(Vec::len), Some(3));
    assert_eq!(sandbox.json("accel archs")["architectures"].as_array().map(Vec::len), Some(5));
    assert!(sandbox.text("accel archs").contains("said of Eyeriss v1"));
}

#[test]
fn commands_print_what_they_did() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.write("counts.json", COUNTS);
    for (name, line) in [
        ("accel-estimate", "accel estimate m.onnx --density-from calibration:digits --calibration-samples 8"),
        ("accel-compare", "accel compare m.onnx --arch eyeriss-v2,eyeriss-v1,systolic-256x256"),
        ("accel-explain", "accel explain m.onnx --worst 2 --remedies 1"),
        ("accel-simulate", "accel simulate m.onnx"),
        ("accel-pe-cycles", "accel pe-cycles counts.json"),
        ("profile-accel", "profile m.onnx --accel eyeriss-v2"),
    ] {
        golden::check(&sandbox, name, line);
    }
}

#[test]
fn activations_counted_on_real_inputs_go_out_and_come_back() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let line = "accel estimate m.onnx --density-from calibration:digits --calibration-samples 16";
    let counted = sandbox.json(line);
    let density = |layer: usize| counted["layers"][layer]["density"]["iact"].as_f64().expect("a number");
    // Normalised pixels are not zero; what follows a ReLU is for about half.
    assert!(density(0) > 0.9, "{}", density(0));
    assert!(density(1) > 0.2 && density(1) < 0.8, "{}", density(1));
    let channels = counted["layers"][1]["channel_density"]["iact"].as_array().expect("300 channels");
    assert_eq!(channels.len(), 300);
    let mean = channels.iter().filter_map(Value::as_f64).sum::<f64>() / 300.0;
    assert!((mean - density(1)).abs() < 1e-5, "{mean} {}", density(1));
    assert!(counted["sources"].to_string().contains("16 samples of digits"));

    sandbox.write("e.json", counted.to_string());
    let again = sandbox.json("accel estimate m.onnx --density-from e.json");
    let cycles = |d: &Value| d["layers"][1]["cycles"].as_f64().expect("a number");
    assert!(
        (cycles(&again) / cycles(&counted) - 1.0).abs() < 1e-3,
        "{} {}",
        cycles(&again),
        cycles(&counted)
    );

    // The same by a file for the only input.
    sandbox.write("x.npy", npy("<f4", "(1, 1, 8, 8)", &[0; 256]));
    let zero = sandbox.json("accel estimate m.onnx --input x=x.npy --density-from calibration:inputs");
    assert_eq!(zero["layers"][0]["density"]["iact"], 0.0);
}

#[test]
fn a_density_file_takes_fractions_lists_and_masks() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    let document = sandbox.json("accel estimate m.onnx");
    let name = |i: usize| document["layers"][i]["name"].as_str().expect("a name").to_string();
    let mask: Vec<u8> = (0..300 * 64).flat_map(|i| f32::from(u8::from(i % 4 == 0)).to_le_bytes()).collect();
    sandbox.write("mask.npy", npy("<f4", "(300, 64)", &mask));
    let list = vec!["0.25"; 300].join(",");
    let (a, b) = (name(0), name(1));
    sandbox.write(
        "d.json",
        format!(r#"{{"{a}": {{"weight": "mask.npy"}}, "{b}": {{"iact": [{list}], "weight": 0.5}}}}"#),
    );
    let set = sandbox.json("accel estimate m.onnx --density-from d.json");
    assert_eq!(set["layers"][0]["density"]["weight"], 0.25);
    assert_eq!(set["layers"][1]["density"]["iact"], 0.25);
    assert_eq!(set["layers"][1]["density"]["weight"], 0.5);
}

#[test]
fn what_cannot_be_used_is_named() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.two_by_two("two.onnx");
    sandbox.write("a.toml", "name = \"x\"");
    sandbox.write("no.onnx", "not a model");
    let names = sandbox.json("accel estimate m.onnx");
    let name = names["layers"][0]["name"].as_str().expect("a name");
    for (file, text) in [
        ("misspelt.json", r#"{"nothing": {"iact": 0.5}}"#.to_string()),
        ("range.json", format!(r#"{{"{name}": {{"iact": 1.5}}}}"#)),
        ("length.json", format!(r#"{{"{name}": {{"iact": [0.5, 0.5]}}}}"#)),
        ("field.json", format!(r#"{{"{name}": {{"act": 0.5}}}}"#)),
        ("text.json", "0.5 of it".to_string()),
    ] {
        sandbox.write(file, text);
    }
    for (line, words) in [
        ("estimate none.onnx", &["none.onnx"][..]),
        ("estimate no.onnx", &["no.onnx"]),
        ("estimate m.onnx --arch tpu", &["tpu", "eyeriss-v2", "systolic-256x256"]),
        ("estimate m.onnx --arch a.toml", &["a.toml"]),
        ("estimate m.onnx --arch none.toml", &["none.toml"]),
        ("compare m.onnx --arch eyeriss-v1,tpu", &["tpu", "eyeriss-v2"]),
        ("explain m.onnx --arch tpu", &["tpu", "eyeriss-v2"]),
        ("simulate none.onnx", &["none.onnx"]),
        ("estimate m.onnx --input y=1x64", &["`y`", "the inputs are: x"]),
        ("estimate m.onnx --input x=1x1x8x9", &["9", "8"]),
        ("estimate m.onnx --density-from misspelt.json", &["misspelt.json", "nothing", name]),
        ("estimate m.onnx --density-from range.json", &["range.json", name, "1.5", "from 0 to 1"]),
        ("estimate m.onnx --density-from length.json", &["length.json", name, "2 numbers", "64 channels"]),
        ("estimate m.onnx --density-from field.json", &["field.json", name, "act"]),
        ("estimate m.onnx --density-from text.json", &["text.json", "expected"]),
        ("estimate m.onnx --density-from none.json", &["none.json"]),
        ("estimate m.onnx --density-from weigths", &["weigths", "calibration:DATA"]),
        ("estimate m.onnx --density-from calibration:none", &["none"]),
        ("estimate m.onnx --density-from calibration:inputs", &["no file for x"]),
        ("estimate two.onnx --density-from calibration:digits", &["2 without a file", "x, y"]),
        ("estimate m.onnx --report none/r.html", &["none/r.html"]),
        ("pe-cycles none.json", &["none.json"]),
        ("pe-cycles text.json", &["text.json"]),
    ] {
        let output = sandbox.run(&format!("accel {line}"));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
        for word in words {
            assert!(said.contains(word), "`{line}` does not say `{word}`: {said}");
        }
    }
    for line in ["profile m.onnx --accel tpu", "shrink --accel tpu"] {
        let output = sandbox.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains("eyeriss-v2") && stderr(&output).contains("--accel"), "{line}");
    }
}

#[test]
fn a_shape_left_open_is_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.open_shape("open.onnx");
    let output = sandbox.run("accel estimate open.onnx");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--input x="), "{}", stderr(&output));
    assert!(sandbox.json("accel estimate open.onnx --input x=1x2x8x8")["totals"]["latency_s"].is_number());
}

#[test]
fn layers_and_host_do_the_multiplications_that_profile_counts() {
    let sandbox = Sandbox::new();
    sandbox.normalised_classifier("m.onnx");
    let estimate = sandbox.json("accel estimate m.onnx --objective delay");
    let profile = sandbox.json("profile m.onnx --accel eyeriss-v2");
    let layers: f64 =
        estimate["layers"].as_array().expect("a list").iter().filter_map(|l| l["macs"].as_f64()).sum();
    let host = estimate["totals"]["host_macs"].as_f64().expect("a number");
    assert_eq!(layers + host, profile["totals"]["macs"].as_f64().expect("a number"));
    // Node by node, profile shows the layers it has mapped.
    let on = |node: &&Value| node["accel"]["cycles"].is_number();
    let nodes = profile["nodes"].as_array().expect("a list");
    assert_eq!(nodes.iter().filter(on).count(), estimate["layers"].as_array().map_or(0, Vec::len));
    let cycles: f64 = nodes.iter().filter_map(|n| n["accel"]["cycles"].as_f64()).sum();
    let seconds = profile["accel"]["latency_s"].as_f64().expect("a number");
    assert!((cycles / 200e6 / seconds - 1.0).abs() < 1e-9, "{cycles} {seconds}");
}

#[test]
fn an_operator_that_nobody_knows_is_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.strange("strange.onnx");
    let output = sandbox.run("accel estimate strange.onnx");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Rulu"), "{}", stderr(&output));
}

#[test]
fn a_ticket_goes_straight_into_the_accelerator() {
    let sandbox = Sandbox::new();
    let line = "shrink --model lenet-300-100 --epochs 1 --max-rounds 8 --tolerance 100 --accel eyeriss-v2 --out lean";
    let text = sandbox.text(line);
    assert!(text.contains("inferences/J, modelled on eyeriss-v2"), "{text}");
    let shrunk = sandbox.json(line);
    let of = |side: &str, field: &str| shrunk[side]["accel"][field].as_f64().expect("a number");
    for side in ["dense", "lean"] {
        assert_eq!(shrunk[side]["accel"]["kind"], "modelled");
        assert!((of(side, "inferences_per_s") * of(side, "latency_s") - 1.0).abs() < 1e-9);
        let label = &shrunk["receipt"]["labels"][format!("accel, {side}")];
        assert!(label.as_str().is_some_and(|l| l.starts_with("modelled on eyeriss-v2")), "{label}");
    }
    assert!(of("lean", "inferences_per_j") > of("dense", "inferences_per_j"), "{shrunk:#}");
    // What shrink says of its file is what the file gives.
    let data = "--density-from calibration:digits";
    let again = sandbox.json(&format!("accel estimate lean/lean.onnx {data}"));
    let joules = again["totals"]["energy_j"].as_f64().expect("a number");
    assert!((joules / of("lean", "energy_j") - 1.0).abs() < 0.01, "{joules} {}", of("lean", "energy_j"));
}

#[test]
fn the_press_figure_is_told_of_the_first_chip_only() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.text("accel estimate m.onnx --report r.html");
    let html = String::from_utf8(sandbox.read("r.html")).expect("HTML is text");
    let told = [html, sandbox.text("accel archs"), sandbox.text("accel compare m.onnx")];
    for text in &told {
        for sentence in text.split(['\n', '.']).filter(|s| s.contains("mobile GPU")) {
            assert!(sentence.contains("Eyeriss v1") && sentence.contains("2016"), "{sentence}");
        }
    }
    assert!(told[0].contains("mobile GPU") && told[1].contains("mobile GPU"));
}
