//! `bench --against` with a peer that is a shell script: what is asked of it, and what is made of its answers.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;

use crate::golden::check;
use crate::sandbox::{Sandbox, npy, stderr};

const INPUTS: &str = "two.onnx --input x=x.npy --input y=x.npy";

/// A sandbox with a model, its results, and `peer`, which answers a load, runs of a second, and these outputs.
fn sandbox(load: &str, outputs: [&str; 2]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("two.onnx");
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[-1.0f32, 0.5, 2.0].map(f32::to_le_bytes).concat()));
    sandbox.text(&format!("run {INPUTS} --out results"));
    let files = outputs.map(|name| format!("\"{}\"", sandbox.path(&format!("results/{name}.npy")).display()));
    let script = format!(
        r#"#!/bin/sh
while read -r line; do
  case "$line" in
    *'"do":"load"'*) echo '{load}';;
    *'"do":"outputs"'*) echo '{{"files":[{}]}}';;
    *) runs="${{line##*'"runs":'}}"; runs="${{runs%%'}}'*}}"; times=1000
       while [ "$runs" -gt 1 ]; do times="$times,1000"; runs=$((runs - 1)); done
       echo "{{\"ms\":[$times]}}";;
  esac
done
"#,
        files.join(",")
    );
    sandbox.write("peer", script);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.path("peer"), mode).expect("the file is ours");
    sandbox
}

const LOADED: &str = r#"{"version":"9.9","variants":["plain","other"]}"#;

#[test]
fn a_comparison_prints_both_and_the_ratio() {
    let sandbox = sandbox(LOADED, ["positive", "squashed"]);
    let line =
        format!("bench {INPUTS} --against onnxruntime --python ./peer --rounds 2 --runs 3 --threads 1");
    check(&sandbox, "bench-against", &line);
    let compared = sandbox.json(&line);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    assert_eq!(number(&compared["peer"]["median_ms"]), 1000.0);
    assert!(number(&compared["ratio"]) > 1.0 && compared["undecided"] == false, "{compared:#}");
    assert_eq!(compared["slower"].as_array().map(Vec::len), Some(1));
    assert_eq!(number(&compared["agreement"]["max_absolute"]), 0.0);
}

/// The comparison must fail with this code and a message that has all of `words`.
fn refused(sandbox: &Sandbox, flags: &str, code: i32, words: &[&str]) {
    let output = sandbox.run(&format!("bench {INPUTS} {flags}"));
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{flags}: {message}");
    assert!(output.stdout.is_empty() && !message.contains("panicked"), "{flags}: {message}");
    for word in words {
        assert!(message.contains(word), "{flags} does not say `{word}`: {message}");
    }
}

#[test]
fn different_results_are_not_timed() {
    let sandbox = sandbox(LOADED, ["squashed", "positive"]);
    refused(&sandbox, "--against torch --python ./peer", 1, &["differ", "torch", "--tolerance"]);
}

#[test]
fn peers_that_cannot_be_used_are_named() {
    let missing = r#"{"error":"no torch; install it with: python -m pip install torch","unusable":true}"#;
    let sandbox = sandbox(missing, ["positive", "squashed"]);
    refused(&sandbox, "--against torch --python ./peer", 2, &["./peer", "pip install torch"]);
    refused(&sandbox, "--against torch --python ./none", 2, &["./none", "--python"]);
    refused(&sandbox, "--against tensorflow", 2, &["tensorflow", "onnxruntime"]);
    refused(&sandbox, "--against torch --python ./peer --tolerance NaN", 2, &["--tolerance"]);
    refused(&sandbox, "--rounds 3", 2, &["--against"]);
    sandbox.write("peer", "#!/bin/sh\necho no memory left >&2\nexit 3\n");
    refused(&sandbox, "--against torch --python ./peer", 1, &["ended", "3", "no memory left"]);
    sandbox.write("peer", "#!/bin/sh\nread -r line\necho hello\nread -r line\n");
    refused(&sandbox, "--against torch --python ./peer", 1, &["hello"]);
}
