//! Any bytes, imported as an ONNX file: an error or a graph that keeps its invariant, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wattle_graph::onnx::{Limits, decode_model};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_structure_bytes: 1 << 26,
        max_tensor_elements: 1 << 20,
        max_folded_elements: 1 << 20,
        max_nodes: 1 << 12,
        max_depth: 4,
        ..Limits::default()
    };
    if let Ok(model) = decode_model(bytes, None, &limits) {
        model.graph.check().expect("an imported graph keeps its invariant");
    }
});
