//! An ONNX classifier from elsewhere, with batch normalisation and weights of its own, through every command that
//! trains.

use wattle_graph::Model;
use wattle_graph::onnx::{Limits, read_model};

use crate::sandbox::Sandbox;

fn read(sandbox: &Sandbox, name: &str) -> Model {
    read_model(&sandbox.path(name), &Limits::default()).expect("our own export is read")
}

fn normalisations(model: &Model) -> usize {
    model.graph.nodes().iter().filter(|n| n.op.name() == "BatchNormalization").count()
}

/// Names of the parameters whose bits differ.
fn changed(before: &Model, after: &Model) -> Vec<String> {
    let differ = |name: &str| before.parameters.get(name) != after.parameters.get(name);
    before.parameters.iter().filter(|(name, _)| differ(name)).map(|(name, _)| name.to_string()).collect()
}

#[test]
fn training_starts_from_the_files_weights_and_moves_the_running_statistics() {
    let sandbox = Sandbox::new();
    sandbox.normalised_classifier("m.onnx");
    let before = read(&sandbox, "m.onnx");
    assert_eq!(normalisations(&before), 21);

    // A step too small to change any weight (but for biases, which are 0) leaves the statistics of the batches as the
    // only news.
    sandbox.json("train --model m.onnx --epochs 1 --optimizer sgd-plain --lr 1e-30 --out still");
    let mut still = changed(&before, &read(&sandbox, "still/model.onnx"));
    still.retain(|name| !name.ends_with(".bias"));
    let statistics = |name: &&String| name.ends_with(".running_mean") || name.ends_with(".running_var");
    assert_eq!(still.iter().filter(statistics).count(), still.len(), "{still:?}");
    assert_eq!(still.len(), 2 * 21, "{still:?}");

    let trained = sandbox.json("train --model m.onnx --epochs 1 --out run");
    let after = read(&sandbox, "run/model.onnx");
    assert_eq!(normalisations(&after), 21, "normalisation stays what it was");
    assert_eq!(changed(&before, &after).len(), before.parameters.iter().count(), "everything learns");
    let evaluated = sandbox.json("eval --model run/model.onnx");
    assert_eq!(evaluated["accuracy"], trained["test_accuracy"], "the file holds what was judged");
}

#[test]
fn shrink_and_ticket_find_prune_it() {
    let sandbox = Sandbox::new();
    sandbox.normalised_classifier("m.onnx");
    let shrunk = sandbox.json("shrink --model m.onnx --epochs 1 --max-rounds 1 --tolerance 100 --out lean");
    let lean = read(&sandbox, "lean/lean.onnx");
    assert_eq!(sandbox.json("eval --model lean/lean.onnx")["accuracy"], shrunk["lean"]["accuracy"]);
    assert_eq!(normalisations(&lean), 21);
    let zeros = |suffix: &str| -> usize {
        let of = lean.parameters.iter().filter(|(name, _)| name.ends_with(suffix));
        of.map(|(_, t)| t.to_f64().iter().filter(|x| **x == 0.0).count()).sum()
    };
    assert!(zeros("conv1.weight") > 0, "convolutions lose weights");
    assert_eq!(zeros("bn1.weight") + zeros(".running_var"), 0, "normalisations do not");

    let found = sandbox.json("ticket find --model m.onnx --epochs 1 --levels 1 --rewind 2it --out tickets");
    let levels = found["levels"].as_array().expect("a list");
    assert_eq!(levels.len(), 2);
    assert!(levels[1]["density"].as_f64().expect("a number") < 0.85);
}
