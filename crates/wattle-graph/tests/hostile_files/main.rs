//! Files that lie, loop, explode or break off: importing, binding and running them returns, soon and within bounded
//! memory.
//!
//! The corpus is that of the fuzz target; here its files are mutated a fixed number of times, the same ones in
//! every run.

mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wattle_graph::onnx::{Limits, OnnxError, decode_model, read_model};
use wattle_graph::suite::Dice;
use wattle_graph::{Example, Model, NodeCost, costs, interpret};

/// Mutations that are tried, a few seconds' worth, unless `WATTLE_FUZZ_ROUNDS` (and `WATTLE_FUZZ_SEED`) say
/// otherwise.
const ROUNDS: u64 = 30_000;

/// Bounds under which every import of this file runs.
fn limits() -> Limits {
    Limits {
        max_file_bytes: 1 << 20,
        max_structure_bytes: 1 << 24,
        max_tensor_elements: 1 << 20,
        max_folded_elements: 1 << 20,
        max_nodes: 1 << 12,
        max_depth: 4,
    }
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/onnx_import");
    let files = std::fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read(path).expect("a readable file"))).collect()
}

fn file(name: &str) -> Vec<u8> {
    let (_, bytes) = corpus().into_iter().find(|(n, _)| n == name).expect("a file of the corpus");
    bytes
}

fn import(bytes: &[u8]) -> Result<Model, OnnxError> {
    decode_model(bytes, Some(Path::new(env!("CARGO_MANIFEST_DIR"))), &limits())
}

/// Imports, binds small shapes where it can, checks the graph and runs it where that is cheap; returns what the importer said.
fn survive(bytes: &[u8]) -> Result<Model, OnnxError> {
    let model = import(bytes)?;
    model.graph.check().expect("an imported graph keeps its invariant");
    let names: Vec<String> =
        model.graph.inputs().iter().map(|&i| model.graph.value(i).name.clone()).collect();
    let extents = |i: usize| -> Option<Vec<usize>> {
        let dims = model.graph.value(model.graph.inputs()[i]).ty.shape.dims()?;
        Some(dims.iter().map(|d| d.known().unwrap_or(3)).collect())
    };
    let shapes: Option<Vec<_>> = (0..names.len()).map(extents).collect();
    if let Some(shapes) = shapes {
        let named: Vec<_> = names.iter().map(String::as_str).zip(shapes.iter().map(Vec::as_slice)).collect();
        // A shape that the network cannot take is a fair answer; a panic would not be.
        if let Ok(bound) = model.bind(&named) {
            evaluate(&bound);
        }
    }
    Ok(model)
}

/// Most elements and operations of a model that is run: more is honest work, not a fault.
const MAX_WORK: u64 = 1 << 20;

/// Runs a bound model that is small enough; errors are fair, for its operands are what mutation made them.
fn evaluate(model: &Model) {
    let Ok(costs) = costs(&model.graph, &model.parameters) else { return };
    let work = |c: &NodeCost| {
        [c.work.macs, c.work.element_ops, c.bytes_read, c.bytes_written]
            .into_iter()
            .fold(0, u64::saturating_add)
    };
    if costs.iter().map(work).fold(0, u64::saturating_add) > MAX_WORK {
        return;
    }
    let mut feeds = BTreeMap::new();
    for &input in model.graph.inputs() {
        let value = model.graph.value(input);
        let Some(extents) = value.ty.shape.extents() else { return };
        if extents.iter().fold(1u64, |n, &e| n.saturating_mul(e as u64)) > MAX_WORK {
            return;
        }
        feeds.insert(value.name.clone(), Example::noise(&extents, 1).cast(value.ty.dtype));
    }
    if let Ok(results) = interpret(&model.graph, &mut model.parameters.clone(), &feeds) {
        for (&output, result) in model.graph.outputs().iter().zip(&results) {
            let ty = &model.graph.value(output).ty;
            assert_eq!(ty.dtype, result.dtype(), "the type of a result was inferred");
            let shape = ty.shape.extents();
            assert!(shape.is_none_or(|s| s == result.shape()), "the shape of a result was inferred");
        }
    }
}

/// One to four changes of bytes, blocks or length.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            _ if bytes.is_empty() => bytes.push(dice.roll() as u8),
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = dice.roll() as u8,
            2 => bytes[at] = [0, 0x7f, 0x80, 0xff][dice.below(4)],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + 1 + dice.below(8)).min(bytes.len()))),
            5 => {
                let block: Vec<u8> = bytes[at..(at + 1 + dice.below(64)).min(bytes.len())].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, block);
            }
            _ => {
                let from = dice.below(other.len());
                let block = other[from..(from + 1 + dice.below(64)).min(other.len())].to_vec();
                bytes.splice(at..(at + block.len()).min(bytes.len()), block);
            }
        }
    }
}

/// Largest resident memory of this process so far, where the system says.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[test]
fn mutated_files_are_read_or_refused_in_bounded_time_and_memory() {
    let corpus = corpus();
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let rounds = number("WATTLE_FUZZ_ROUNDS", ROUNDS);
    let mut dice = Dice(number("WATTLE_FUZZ_SEED", 1));
    let mut accepted = 0;
    for round in 0..rounds {
        let (name, original) = &corpus[dice.below(corpus.len())];
        let (_, other) = &corpus[dice.below(corpus.len())];
        let mut bytes = original.clone();
        // Most mutations keep the framing of messages: a file whose framing is broken is refused at once.
        match (round % 8, wire::parse(original), wire::parse(other)) {
            (1.., Some(mut fields), Some(mut others)) => {
                (0..=dice.below(3)).for_each(|_| wire::mutate(&mut fields, &mut others, &mut dice));
                bytes = wire::serialise(&fields);
            }
            _ => mutate(&mut bytes, other, &mut dice),
        }
        let begun = Instant::now();
        accepted += usize::from(survive(&bytes).is_ok());
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "round {round}, from {name}, took {:?}",
            begun.elapsed()
        );
    }
    assert!(accepted > 0, "mutations never leave a file readable: they test nothing but the decoder");
    if let Some(peak) = peak_bytes() {
        assert!(peak < 1 << 30, "peak memory {peak} bytes");
    }
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_as_its_name_says() {
    let valid = [
        "attention",
        "branch",
        "compact",
        "constants",
        "gru",
        "indexing",
        "blocks",
        "scan_axes",
        "lenet",
        "lstm",
        "old_ir",
        "quantised",
        "resize",
        "shapes",
        "sparse",
        "types",
    ];
    let harmless = ["doubling_symbol"];
    for (name, bytes) in corpus() {
        let result = survive(&bytes);
        if valid.contains(&&*name) {
            let graph = result.unwrap_or_else(|e| panic!("{name}: {e}")).graph;
            let named = graph.outputs().iter().all(|&o| !graph.value(o).name.is_empty());
            assert!(named, "{name}: an output lost its name");
        } else if !harmless.contains(&&*name) {
            assert!(result.is_err(), "{name} was accepted");
        }
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let cases = [
        ("cycle", "cycle"),
        ("self_reference", "cycle"),
        ("undefined_name", "`nowhere`"),
        ("twice_defined", "two nodes"),
        ("huge_dims", "elements"),
        ("negative_dims", "negative"),
        ("external_escape", "outside the model's folder"),
        ("duplicate_initialiser", "defined twice"),
        ("wrong_raw_length", "7 bytes"),
        ("wrong_type", "i64"),
        ("opset_8", "operator set 8"),
        ("opset_23", "operator set 23"),
        ("sparse_bomb", "too sparse"),
        ("compact_gap_outside", "gap"),
        ("sparse_negative_index", "outside the tensor"),
        ("deep_branches", "nesting"),
        ("doubling", "2^48"),
        ("huge_constant_of_shape", "2^31"),
    ];
    for (name, words) in cases {
        let text = survive(&file(name)).err().map_or("accepted".to_string(), |e| e.to_string());
        assert!(text.contains(words), "{name}: {text}");
    }
}

#[test]
fn a_file_broken_off_anywhere_is_refused_or_read_but_never_fatal() {
    let whole = file("lenet");
    assert!(survive(&whole).is_ok());
    for length in 0..whole.len() {
        drop(survive(&whole[..length]));
    }
    assert!(survive(&[]).is_err());
}

#[test]
fn messages_nested_hundreds_of_thousands_deep_are_refused() {
    // A graph in an attribute of a node of a graph, and so on: each level is three length-delimited fields,
    // whose lengths are written from the inside out.
    let mut reversed: Vec<u8> = vec![];
    for _ in 0..200_000 {
        for tag in [6u8 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2] {
            let mut length = vec![];
            let mut rest = reversed.len();
            while rest >= 0x80 {
                length.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            length.push(rest as u8);
            reversed.extend(length.iter().rev());
            reversed.push(tag);
        }
    }
    let mut length = vec![];
    prost::encode_length_delimiter(reversed.len(), &mut length).expect("a vector grows");
    let mut bytes = [vec![7u8 << 3 | 2], length].concat();
    bytes.extend(reversed.iter().rev());
    assert!(import(&bytes).is_err());
}

#[test]
fn a_file_of_empty_messages_is_refused_before_it_takes_memory() {
    // A graph of 400,000 empty nodes, initialisers, inputs, outputs or sparse tensors: 2 bytes each here, hundreds decoded.
    for tag in [1u8, 5, 11, 12, 15] {
        let content = [tag << 3 | 2, 0].repeat(400_000);
        let mut bytes = vec![7 << 3 | 2];
        prost::encode_length_delimiter(content.len(), &mut bytes).expect("a vector grows");
        bytes.extend(content);
        let error = import(&bytes).unwrap_err().to_string();
        assert!(error.contains("bytes that its messages take in memory"), "field {tag}: {error}");
    }
}

#[test]
fn a_file_larger_than_the_limit_is_not_even_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/onnx_import/lenet.onnx");
    let error = read_model(&path, &Limits { max_file_bytes: 10, ..limits() }).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { limit: 10, .. }), "{error}");
    let error = read_model(Path::new("no such file"), &limits()).unwrap_err();
    assert!(error.to_string().contains("no such file"));
}
