//! What every command prints, for people and for programs, against stored text.
//!
//! Measured numbers differ from run to run and from machine to machine, so digits become `#`, units of time and energy
//! `unit`, how a figure is known `known`, the instruction set `isa`, bars `█`, and runs of blanks one blank; receipts have their
//! own tests and are left out; so is that the machine was busy. To store the text again after a change that is meant, run the tests with
//! `WATTLE_WRITE_GOLDEN=1` and read the difference.

use std::path::Path;

use serde_json::Value;

use crate::sandbox::{Sandbox, npy};

/// Lines with numbers and layout taken out; the receipt's summary, which follows the last blank line, is cut.
fn plain(text: &str) -> String {
    let body = text
        .trim_end()
        .rsplit_once("\n\n")
        .map_or(text, |(body, receipt)| if receipt.starts_with("cost ") { body } else { text });
    let mut lines = vec![];
    // Other tests may run beside a comparison, which then says so.
    for line in body.lines().filter(|line| !line.contains("the machine was busy")) {
        let words: Vec<String> = line.split_whitespace().map(without_digits).collect();
        lines.push(words.join(" "));
    }
    lines.join("\n") + "\n"
}

/// A word with what differs between runs and machines replaced.
fn without_digits(word: &str) -> String {
    match word.trim_end_matches([',', ')']) {
        unit @ ("ns" | "µs" | "ms" | "s" | "µJ" | "mJ" | "J") => return word.replacen(unit, "unit", 1),
        known @ ("measured" | "modelled") => return word.replacen(known, "known", 1),
        isa @ ("scalar" | "avx2" | "avx512" | "neon") => return word.replacen(isa, "isa", 1),
        line if line.chars().all(|c| c == '─') && !line.is_empty() => return "─".into(),
        _ => {}
    }
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '█' if text.ends_with('█') => {}
            '0'..='9' => text.push('#'),
            '.' | ',' if text.ends_with('#') => {}
            c => text.push(c),
        }
    }
    text
}

/// One line for each field: its path and the kind of its value; a list is shown by its first element.
fn shape(value: &Value, path: &str, lines: &mut Vec<String>) {
    match value {
        _ if path == "disturbed" => lines.push(format!("{path}: text, where the machine is busy")),
        Value::Object(fields) if path == "receipt" || path.ends_with("energy_per_1000") => {
            lines.push(format!("{path}: {} fields", if fields.is_empty() { "no" } else { "its own" }));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                shape(value, &path, lines);
            }
        }
        Value::Array(items) => match items.first() {
            None => lines.push(format!("{path}: empty list")),
            Some(first) => shape(first, &format!("{path}[]"), lines),
        },
        Value::Null => lines.push(format!("{path}: null")),
        Value::Bool(_) => lines.push(format!("{path}: bool")),
        Value::Number(_) => lines.push(format!("{path}: number")),
        Value::String(_) => lines.push(format!("{path}: text")),
    }
}

/// Compares a command's two faces with the stored ones.
pub fn check(sandbox: &Sandbox, name: &str, line: &str) {
    let text = plain(&sandbox.text(line));
    let mut lines = vec![];
    shape(&sandbox.json(line), "", &mut lines);
    lines.sort();
    let found = format!("$ wattle {line}\n{text}\n$ wattle {line} --json\n{}\n", lines.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/golden/{name}.txt"));
    if std::env::var_os("WATTLE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("the folder is part of the repository");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == stored, "{name} prints otherwise than stored:\n{found}\nstored:\n{stored}");
}

#[test]
fn commands_on_models_print_what_they_did() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.two_by_two("two.onnx");
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[0; 12]));
    check(&sandbox, "profile", "profile m.onnx");
    check(&sandbox, "profile-measure", "profile m.onnx --measure --threads 1");
    check(&sandbox, "run", "run two.onnx --input x=x.npy --input y=x.npy --out results");
    check(&sandbox, "bench", "bench m.onnx --runs 3 --threads 1");
    check(&sandbox, "bench-spmm", "bench spmm --m 40 --n 20 --k 30 --runs 3 --threads 1 --backward");
    check(&sandbox, "bench-train", "bench --train m.onnx --batch 4 --runs 3 --threads 1");
    sandbox.normalised_classifier("deep.onnx");
    check(&sandbox, "bench-pair", "bench m.onnx deep.onnx --rounds 2 --runs 2 --threads 1");
    check(&sandbox, "eval", "eval --model m.onnx");
    sandbox.write("row.csv", vec!["0.5"; 64].join(",") + "\n");
    sandbox.write("names.txt", (0..10).map(|class| format!("class-{class}\n")).collect::<String>());
    check(&sandbox, "predict", "predict m.onnx row.csv --classes names.txt");
    check(&sandbox, "data", "data digits --report digits.html");
}

#[test]
fn commands_that_train_print_what_they_found() {
    let sandbox = Sandbox::new();
    check(&sandbox, "train", "train --model lenet-300-100 --epochs 1 --out run");
    check(&sandbox, "ticket-find", "ticket find --model lenet-300-100 --epochs 1 --levels 1 --out tickets");
    check(
        &sandbox,
        "shrink",
        "shrink --model lenet-300-100 --epochs 1 --max-rounds 1 --tolerance 100 --out lean",
    );
}
