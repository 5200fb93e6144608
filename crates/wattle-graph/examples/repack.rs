//! Reads an ONNX file and writes it with its sparse weights in another form, for comparing the forms in other runtimes:
//! `cargo run -p wattle-graph --example repack -- in.onnx out.onnx compact|sparse-tensor|dense`.
#![allow(clippy::print_stdout, reason = "an example that prints")]

use std::path::Path;

use wattle_graph::onnx::{Limits, SparseFormat, encode_model_as, read_model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, format] = &arguments[..] else { return Err("expected: in.onnx out.onnx FORMAT".into()) };
    let format = match format.as_str() {
        "compact" => SparseFormat::Compact,
        "sparse-tensor" => SparseFormat::SparseTensor,
        "dense" => SparseFormat::Dense,
        other => return Err(format!("`{other}`: expected compact, sparse-tensor or dense").into()),
    };
    let bytes = encode_model_as(&read_model(Path::new(from), &Limits::default())?, format)?;
    std::fs::write(to, &bytes)?;
    println!("{to}: {} bytes", bytes.len());
    Ok(())
}
