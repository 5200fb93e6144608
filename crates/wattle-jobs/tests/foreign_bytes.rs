//! The fuzz targets on their corpus and on mutations of it, the same ones in every run.
#![cfg(feature = "networks")]

#[path = "../../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "libFuzzer runs a target by its name")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use wattle_graph::suite::Dice;

/// Mutations of each target, a second's worth, unless `WATTLE_FUZZ_ROUNDS` (and `WATTLE_FUZZ_SEED`) say otherwise.
const ROUNDS: u64 = 600;

/// One to four changes: a byte, a digit, a block of another file, a cut.
fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = dice.roll() as u8,
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            3 if at < bytes.len() => {
                bytes[at] = [0, 0xff, b'-', b'9', b'"', b'\n', 0x7f, b'['][dice.below(8)]
            }
            4 => {
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len() + 1);
                let block = &other[from..other.len().min(from + dice.below(64))];
                bytes.splice(at..at, block.iter().copied());
            }
            _ => {
                let end = bytes.len().min(at + dice.below(32));
                bytes.drain(at..end);
            }
        }
    }
    bytes.truncate(1 << 16);
    bytes
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The target on its corpus and on mutations: never a panic, each soon.
fn survives(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    // Models to run are models to read.
    let own = if name == "plan_and_run" { "onnx_import" } else { name };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(own);
    let mut corpus = vec![];
    for entry in std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display())) {
        corpus.push(std::fs::read(entry.expect("a readable folder").path()).expect("a readable file"));
    }
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", root.display());
    let folder = tempfile::tempdir().expect("there is room");
    let mut dice = Dice(number("WATTLE_FUZZ_SEED").unwrap_or(1));
    let rounds = number("WATTLE_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let mutations = (0..rounds).map(|_| mutated(&corpus, &mut dice));
    for bytes in corpus.clone().into_iter().chain(mutations) {
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| target(&bytes, folder.path()))).is_err() {
            let kept = std::env::temp_dir().join(format!("wattle-{name}-{:x}", bytes.len()));
            let _ = std::fs::write(&kept, &bytes);
            panic!("{name} panics on {}", kept.display());
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} took {:?} for {bytes:?}", begun.elapsed());
    }
}

#[test]
fn every_target_is_run_here_and_by_libfuzzer() {
    let ours = include_str!("foreign_bytes.rs");
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    for (name, _) in targets::TARGETS {
        assert!(ours.contains(&format!("{name} => ")), "{name} is not run here");
        assert!(manifest.contains(&format!("fuzz_targets/{name}.rs")), "{name} is no target of cargo-fuzz");
    }
}

macro_rules! survivors {
    ($($target:ident => $test:ident),* $(,)?) => {
        $(#[test] fn $test() { survives(stringify!($target)); })*
    };
}

survivors! {
    accel_files => files_of_accelerators_are_read_or_refused,
    csv => text_tables_are_read_or_refused,
    epoch_log => logs_of_epochs_are_read_or_passed_over,
    idx => idx_files_are_read_or_refused,
    images => images_are_read_or_refused,
    jsonl => json_lines_are_read_or_refused,
    ledger => ledgers_are_read_or_counted_as_unreadable,
    npy => arrays_are_read_or_refused,
    npz => archives_of_arrays_are_read_or_refused,
    onnx_import => models_are_read_or_refused,
    option_texts => texts_of_options_mean_what_they_are_written_as,
    plan_and_run => kernels_agree_with_the_interpreter_on_whatever_is_read,
    receipt => receipts_are_read_or_refused,
    safetensors => weights_are_read_or_refused,
    series => series_and_points_are_read_or_refused,
    text => texts_are_read_or_refused,
}
