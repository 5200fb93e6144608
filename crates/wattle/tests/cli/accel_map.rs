//! `wattle accel map` and `archs`: mappings that go out and come back, constraints, foreign architectures and tables.

use std::path::Path;

use crate::golden;
use crate::sandbox::{Sandbox, stderr};

/// A file of the folder `examples/accel`.
fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/accel").join(name);
    path.to_str().expect("the repository's path is UTF-8").to_string()
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox
}

#[test]
fn mapping_commands_print_what_they_did() {
    let sandbox = sandbox();
    golden::check(&sandbox, "accel-map", "accel map m.onnx");
    golden::check(&sandbox, "accel-map-front", "accel map m.onnx --front --arch eyeriss-v1");
    golden::check(&sandbox, "accel-archs", "accel archs");
}

#[test]
fn mappings_go_out_and_come_back_and_cost_the_same() {
    let sandbox = sandbox();
    let found = sandbox.json("accel map m.onnx --out best.json");
    let given = sandbox.json("accel map m.onnx --mapping best.json --out again.json");
    assert_eq!(sandbox.read("best.json"), sandbox.read("again.json"));
    let layers = |d: &serde_json::Value| d["layers"].as_array().expect("a list").clone();
    for (found, given) in layers(&found).iter().zip(&layers(&given)) {
        for field in ["name", "value", "energy_pj", "cycles", "mapping"] {
            assert_eq!(found[field], given[field]);
        }
        assert!(found["proven"] == true && given["proven"] == false && given["lower_bound"].is_null());
    }
    let estimate = |flags: &str| sandbox.json(&format!("accel estimate m.onnx {flags}"))["totals"].clone();
    assert_eq!(estimate("--mapping best.json"), estimate(""));
}

#[test]
fn tables_and_mappings_from_files_go_wherever_a_model_is_priced() {
    let sandbox = sandbox();
    sandbox.json("accel map m.onnx --objective delay --out fast.json");
    let model_cycles = |command: &str| {
        let document = sandbox.json(&format!("accel {command}"));
        let layers = document["layers"].as_array().expect("a list").clone();
        let mut cycles: Vec<f64> = layers.iter().filter_map(|l| l["model_cycles"].as_f64()).collect();
        cycles.sort_by(f64::total_cmp);
        cycles
    };
    let fast = model_cycles("simulate m.onnx --objective delay");
    assert_eq!(model_cycles("simulate m.onnx --mapping fast.json"), fast);
    assert_eq!(model_cycles("explain m.onnx --remedies 0 --mapping fast.json"), fast);
    let energy = format!("--energy {}", example("ert-binding.toml"));
    let compared = sandbox.json(&format!("accel compare m.onnx --arch eyeriss-like-45nm {energy}"));
    let estimated = sandbox.json(&format!("accel estimate m.onnx --arch eyeriss-like-45nm {energy}"));
    let joules = |totals: &serde_json::Value| totals["energy_j"].as_f64().expect("a number");
    assert_eq!(joules(&compared["architectures"][0]["totals"]), joules(&estimated["totals"]));
    for command in ["simulate", "explain"] {
        sandbox.json(&format!("accel {command} m.onnx --arch eyeriss-like-45nm {energy}"));
    }
}

#[test]
fn a_front_runs_from_the_least_energy_to_the_fewest_cycles() {
    let sandbox = sandbox();
    let document = sandbox.json("accel map m.onnx --front --arch eyeriss-v1");
    let least = |objective: &str, field: &str| {
        let layers = sandbox.json(&format!("accel map m.onnx --arch eyeriss-v1 --objective {objective}"));
        layers["layers"].as_array().expect("a list").iter().map(|l| l[field].as_f64()).collect::<Vec<_>>()
    };
    let (energies, delays) = (least("energy", "energy_pj"), least("delay", "cycles"));
    for (at, layer) in document["layers"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(layer["proven"], true);
        let points = layer["points"].as_array().expect("a list");
        let (first, last) = (&points[0], &points[points.len() - 1]);
        let near = |a: &serde_json::Value, b: Option<f64>| {
            a.as_f64().zip(b).is_some_and(|(a, b)| (a / b - 1.0).abs() < 1e-9)
        };
        assert!(near(&first["energy_pj"], energies[at]) && near(&last["cycles"], delays[at]), "{layer}");
    }
}

#[test]
fn a_search_without_time_says_its_gap() {
    let sandbox = sandbox();
    let document = sandbox.json("accel map m.onnx --seconds 0");
    for layer in document["layers"].as_array().expect("a list") {
        let bound = layer["lower_bound"].as_f64().expect("a number");
        assert!(bound > 0.0 && bound <= layer["value"].as_f64().expect("a number"));
    }
}

#[test]
fn architectures_tables_and_constraints_come_from_files() {
    let sandbox = sandbox();
    for flags in [
        format!("--arch {}", example("small.yaml")),
        format!("--arch {}", example("tpu-like.toml")),
        format!("--arch {}", example("two-level.toml")),
        format!("--arch eyeriss-like-45nm --energy {}", example("ert-binding.toml")),
    ] {
        let document = sandbox.json(&format!("accel map m.onnx {flags}"));
        assert!(
            document["layers"].as_array().expect("a list").iter().all(|l| l["proven"] == true),
            "{flags}"
        );
    }
    let text = sandbox.text("accel archs eyeriss-v2");
    sandbox.write("mine.toml", text.replace("name = \"eyeriss-v2\"", "name = \"mine\""));
    assert_eq!(sandbox.json("accel map m.onnx --arch mine.toml")["arch"], "mine");
    sandbox.write("c.toml", "[[constraint]]\nlayers = [\"fc*\"]\npe = { factors = { C = 4 } }\n");
    let document = sandbox.json("accel map m.onnx --constraints c.toml");
    for layer in document["layers"].as_array().expect("a list") {
        assert_eq!(layer["loops"]["pe"]["C"], 4);
    }
}

#[test]
fn buffers_in_a_row_are_mapped_priced_explained_and_named() {
    let sandbox = sandbox();
    let arch = format!("--arch {}", example("two-level.toml"));
    let found = sandbox.json(&format!("accel map m.onnx {arch} --out best.json"));
    let given = sandbox.json(&format!("accel map m.onnx {arch} --mapping best.json --out again.json"));
    assert_eq!(sandbox.read("best.json"), sandbox.read("again.json"));
    let text = String::from_utf8(sandbox.read("best.json")).expect("JSON is text");
    let at = |field: &str| text.find(field).unwrap_or_else(|| panic!("{field} in {text}"));
    assert!(at("\"dram\"") < at("\"l2\"") && at("\"l2\"") < at("\"l1\""), "from the outermost in: {text}");
    for (found, given) in
        found["layers"].as_array().expect("a list").iter().zip(given["layers"].as_array().expect("a list"))
    {
        assert_eq!(found["energy_pj"], given["energy_pj"]);
        let mapping = found["mapping"].as_str().expect("text");
        assert!(mapping.contains("| L2") && mapping.contains("| L1"), "{mapping}");
    }
    // Energy has a part for each buffer, and the parts add up.
    let estimate = sandbox.json(&format!("accel estimate m.onnx {arch} --report r.html"));
    let layer = &estimate["layers"][0];
    let parts = layer["energy_parts_j"].as_object().expect("parts");
    assert!(parts.contains_key("l1") && parts.contains_key("l2") && !parts.contains_key("buffer"));
    let sum: f64 = parts.values().filter_map(serde_json::Value::as_f64).sum();
    assert!((sum / layer["energy_j"].as_f64().expect("a number") - 1.0).abs() < 1e-9);
    assert!(String::from_utf8_lossy(&sandbox.read("r.html")).contains("L1"));
    // Bandwidths stand alone beside the sixth step, which no one of them is below.
    let explained = sandbox.json(&format!("accel explain m.onnx {arch} --remedies 1"));
    for layer in explained["layers"].as_array().expect("a list") {
        let bandwidths = layer["bandwidths"].as_object().expect("bandwidths");
        let sixth = layer["bounds"][5].as_f64().expect("a number");
        assert!(bandwidths.contains_key("l2") && bandwidths.contains_key("l1"));
        assert!(bandwidths.values().all(|b| b.as_f64().is_some_and(|b| b >= sixth * (1.0 - 1e-9))));
        assert_eq!(layer["last_step"], "modelled");
    }
    let constrained = |text: &str| {
        sandbox.write("c.toml", format!("[[constraint]]\n{text}\n"));
        sandbox.run(&format!("accel map m.onnx {arch} --constraints c.toml --json"))
    };
    let kept = constrained("l1 = { factors = { C = 2 } }\nl2 = { factors = { M = 1 } }");
    let kept: serde_json::Value = serde_json::from_slice(&kept.stdout).expect("JSON");
    assert_eq!(kept["layers"][0]["loops"]["l1"]["factors"]["C"], 2);
    assert_eq!(kept["layers"][0]["loops"]["l2"]["factors"]["M"], serde_json::Value::Null);
    for (output, words) in [
        (constrained("glb = { factors = { C = 2 } }"), ["`glb`", "dram, l2, l1, pe"]),
        (sandbox.run(&format!("accel simulate m.onnx {arch}")), ["2 buffers (l2, l1)", "behind one buffer"]),
    ] {
        assert_eq!(output.status.code(), Some(2));
        assert!(words.iter().all(|w| stderr(&output).contains(w)), "{}", stderr(&output));
    }
    let text = std::fs::read_to_string(example("two-level.toml")).expect("a committed file");
    // Pads that hold enough leave the L1 as what lacks room.
    sandbox.write("tiny.toml", text.replace("shared_bytes = 65536", "shared_bytes = 2"));
    sandbox.write("c.toml", "[[constraint]]\npe = { factors = { C = 1, M = 1 } }\n");
    let output = sandbox.run("accel map m.onnx --arch tiny.toml --constraints c.toml");
    let told = stderr(&output);
    assert!(told.contains("buffer `l1`: required") && told.contains("available 2 bytes"), "{told}");
    for (from, to, words) in [
        ("name = \"l1\"", "name = \"l3\"", ["no buffer `l3`", "glb, l1, l2"]),
        ("name = \"l1\"", "name = \"l2\"", ["buffer `l2`", "two buffers"]),
        ("bypass = [\"weight\"]", "bypass = [\"weights\"]", ["buffer `l1`.bypass", "`weights`"]),
    ] {
        sandbox.write("bad.toml", text.replace(from, to));
        let output = sandbox.run("accel map m.onnx --arch bad.toml");
        assert!(words.iter().all(|w| stderr(&output).contains(w)), "{}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_mapped_says_what_is_missing() {
    let sandbox = sandbox();
    sandbox.text("accel map m.onnx --out best.json");
    let best = String::from_utf8(sandbox.read("best.json")).expect("JSON is text");
    sandbox.write("wide.json", best.replacen("\"pe\": {", "\"pe\": { \"R\": 99,", 1));
    sandbox.write("other.json", best.replace("eyeriss-v2", "eyeriss-v1"));
    sandbox.write("c.toml", "[[constraint]]\npe = { factors = { C = 24 } }\n");
    sandbox.write("d.toml", "[[constraint]]\nlayers = [\"conv9\"]\n");
    sandbox.write("ERT.yaml", "ERT:\n  version: '0.4'\n  tables: []\n");
    for (flags, words) in [
        ("--constraints c.toml".to_string(), ["24 words", "available 16 words"]),
        ("--constraints d.toml".to_string(), ["`conv9`", "the layers are: fc1"]),
        ("--mapping wide.json".to_string(), ["iact pad of a PE", "available 16 words"]),
        ("--mapping other.json".to_string(), ["`eyeriss-v1`", "`eyeriss-v2`"]),
        ("--energy ERT.yaml".to_string(), ["binding", "technology"]),
        (format!("--energy {}", example("ert-binding.toml")), ["65 nm", "45 nm"]),
        ("--seconds=-1".to_string(), ["seconds", "-1"]),
    ] {
        let output = sandbox.run(&format!("accel map m.onnx {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(words.iter().all(|w| stderr(&output).contains(w)), "{flags}: {}", stderr(&output));
    }
}
