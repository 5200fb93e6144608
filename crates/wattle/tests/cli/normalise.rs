//! What inputs are normalised with: written into models, read from them, asked for, and always told.

use std::sync::Arc;

use serde_json::Value;
use wattle_data::{Batch, BatchOptions, Batches, DataSpec, LoadOptions, ModelNotes, Normalisation, Source};
use wattle_data::{SplitOptions, Splits};
use wattle_graph::Model;
use wattle_graph::onnx::{Limits, encode_model, read_model};

use crate::sandbox::{Sandbox, npy};

fn read(sandbox: &Sandbox, name: &str) -> Model {
    read_model(&sandbox.path(name), &Limits::default()).expect("our own export is read")
}

/// The same network as somebody else would write it: its file says nothing of its inputs.
fn forget(sandbox: &Sandbox, from: &str, to: &str) {
    let model = Model { metadata: Default::default(), ..read(sandbox, from) };
    sandbox.write(to, encode_model(&model).expect("our own graphs can be exported"));
}

/// Digits as arrays of floats from 0 to 16, times `factor`: the test part as it is, and a training part of a few
/// samples, on which mean and deviation are others.
fn arrays(sandbox: &Sandbox, name: &str, factor: f32) {
    let digits = Arc::new(DataSpec::Digits.load(&LoadOptions::default()).expect("they are embedded"));
    let splits = Splits::new(&*digits, &SplitOptions::default()).expect("the usual shares");
    let train = splits.train()[..30].to_vec();
    let test = splits.take_test().into_indices();
    std::fs::create_dir(sandbox.path(name)).expect("it is new");
    for (part, samples) in [("train", train), ("test", test)] {
        let raw = Normalisation { divisor: Some(1.0), ..Normalisation::identity(1) };
        let options = BatchOptions::evaluation(samples.len()).normalised("input", raw);
        let source = Batches::new(digits.clone(), &samples, options).expect("there are samples");
        let mut batch = Batch::default();
        source.fill(0, &mut batch).expect("they are in memory");
        let numbers = batch.columns[0].to_f32().expect("floats");
        let x: Vec<u8> = numbers.iter().flat_map(|v| (v * factor).to_le_bytes()).collect();
        let y: Vec<u8> = batch.columns[1].to_i64().expect("classes").iter().map(|&c| c as u8).collect();
        let count = samples.len();
        sandbox.write(&format!("{name}/x_{part}.npy"), npy("<f4", &format!("({count}, 1, 8, 8)"), &x));
        sandbox.write(&format!("{name}/y_{part}.npy"), npy("|u1", &format!("({count},)"), &y));
    }
}

fn same(found: &Value, trained: &Value) {
    for (here, there) in [("accuracy", "test_accuracy"), ("loss", "test_loss"), ("samples", "test_samples")] {
        assert_eq!(found[here], trained[there], "{here}: {found:#}");
    }
}

#[test]
fn a_trained_model_says_what_its_inputs_were_normalised_with_and_gives_the_same_numbers_on_any_data() {
    let sandbox = Sandbox::new();
    let trained = sandbox.json("train --model lenet-300-100 --epochs 2 --out run");
    let measured = &trained["normalisation"]["x"];
    assert_eq!(measured["source"], "measured on the training part of digits");
    assert_eq!(measured["divisor"], 16.0);
    let notes = ModelNotes::read(&read(&sandbox, "run/model.onnx").metadata).expect("our own notes");
    assert_eq!(notes.classes.len(), 10);
    assert_eq!(notes.normalisation.keys().collect::<Vec<_>>(), ["x"]);

    // Another division of the data, on which another mean would be measured, and other files.
    let found = sandbox.json("eval --model run/model.onnx --validation 60%");
    same(&found, &trained);
    assert_eq!(found["normalisation"]["x"]["source"], "the model's metadata");
    assert_eq!(found["normalisation"]["x"]["mean"], measured["mean"]);
    arrays(&sandbox, "floats", 1.0 / 16.0);
    same(&sandbox.json("eval --model run/model.onnx --data npz:floats"), &trained);
    let text = sandbox.text("eval --model run/model.onnx --data npz:floats");
    assert!(text.contains("input x: mean 0.") && text.contains("; the model's metadata"), "{text}");

    let line = "accel estimate run/model.onnx --density-from calibration:digits --calibration-samples 4";
    let text = sandbox.text(line);
    assert!(text.contains("of numbers divided by 16; the model's metadata"), "{text}");

    // What is learnt further is learnt on the same numbers.
    let further =
        sandbox.json("train --model run/model.onnx --data npz:floats --batch 8 --epochs 1 --out more");
    assert_eq!(further["normalisation"]["x"]["source"], "the model's metadata");
    let searched = sandbox.json("ticket find --model run/model.onnx --epochs 1 --levels 0 --out found");
    assert_eq!(searched["normalisation"]["x"]["mean"], measured["mean"]);
}

#[test]
fn a_foreign_model_is_evaluated_as_it_was_trained_if_somebody_says_how() {
    let sandbox = Sandbox::new();
    let trained = sandbox.json("train --model lenet-300-100 --epochs 2 --normalise unit --out run");
    assert_eq!(trained["normalisation"]["x"]["source"], "asked for (unit)");
    forget(&sandbox, "run/model.onnx", "foreign.onnx");
    same(&sandbox.json("eval --model foreign.onnx --normalise unit"), &trained);
    let guessed = sandbox.json("eval --model foreign.onnx");
    assert_ne!(guessed["loss"], trained["test_loss"]);
    let text = sandbox.text("eval --model foreign.onnx");
    assert!(text.contains("does not say what its inputs were normalised with"), "{text}");
    assert!(text.contains("`--normalise unit`"), "{text}");

    // A teacher is fed what its student is fed.
    let taught = "train --model lenet-300-100 --epochs 1 --teacher run/model.onnx";
    let notes = sandbox.json(taught)["notes"].to_string();
    assert!(notes.contains("the teacher is fed what the student is fed"), "{notes}");
    let notes = sandbox.json(&format!("{taught} --normalise unit"))["notes"].to_string();
    assert!(!notes.contains("the teacher is fed"), "{notes}");

    // The option wins over the file, and that is said.
    let told = sandbox.json("eval --model run/model.onnx --normalise none");
    assert_eq!(told["normalisation"]["x"]["source"], "asked for (none)");
    assert!(told["notes"].to_string().contains("the model's file says otherwise"), "{told:#}");
    assert!(told["loss"] != trained["test_loss"]);
}

#[test]
fn a_model_that_normalises_its_inputs_itself_takes_what_is_stored() {
    let sandbox = Sandbox::new();
    let plain = sandbox.json("train --model small-conv --epochs 1 --out plain");
    let trained = sandbox.json("train --model small-conv --epochs 1 --with-normalisation --out run");
    let model = read(&sandbox, "run/model.onnx");
    let first: Vec<&str> = model.graph.nodes().iter().take(2).map(|node| node.op.name()).collect();
    assert_eq!(first, ["Sub", "Div"], "{}", model.graph);
    assert_eq!(plain["test_loss"], trained["test_loss"], "the nodes are added to what was learnt");
    let close = |found: &Value| {
        let (found, expected) = (found["loss"].as_f64().unwrap(), trained["test_loss"].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    };
    let found = sandbox.json("eval --model run/model.onnx");
    assert_eq!(found["normalisation"]["x"]["divisor"], 1.0);
    close(&found);
    forget(&sandbox, "run/model.onnx", "foreign.onnx");
    close(&sandbox.json("eval --model foreign.onnx --normalise none"));
    arrays(&sandbox, "raw", 1.0);
    close(&sandbox.json("eval --model foreign.onnx --normalise none --data npz:raw"));

    let shrunk = sandbox.json(
        "shrink --model lenet-300-100 --epochs 1 --max-rounds 1 --tolerance 100 --with-normalisation --out lean",
    );
    let found = sandbox.json("eval --model lean/lean.onnx");
    assert_eq!(found["normalisation"]["x"]["divisor"], 1.0);
    let (found, expected) = (found["loss"].as_f64().unwrap(), shrunk["lean"]["loss"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
}

#[test]
fn how_inputs_are_normalised_names_the_run() {
    let sandbox = Sandbox::new();
    let mut runs = vec![];
    for options in
        ["", "--normalise none", "--normalise unit", "--normalise mean=0.5,std=0.25", "--with-normalisation"]
    {
        let trained = sandbox.json(&format!("train --model lenet-300-100 --epochs 0 {options}"));
        runs.push(trained["files"]["run"].clone());
    }
    let all = runs.len();
    runs.sort_by_key(Value::to_string);
    runs.dedup();
    assert_eq!(runs.len(), all, "{runs:?}");
    let refused = sandbox.run("train --model lenet-300-100 --epochs 0 --normalise imagenet");
    let said = crate::sandbox::stderr(&refused);
    assert!(refused.status.code() == Some(2) && said.contains("imagenet"), "{said}");
}
