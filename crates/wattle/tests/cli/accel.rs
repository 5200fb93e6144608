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
