//! What an error tells the user to type is typed here: it must be accepted.

use crate::sandbox::{Sandbox, stderr};

/// What stands between backquotes and begins as a flag does.
fn remedies(said: &str) -> Vec<String> {
    let quoted = said.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.starts_with("--")).map(str::to_owned).collect()
}

/// The line with this option in place of what it says of the same one.
fn with(line: &str, remedy: &str) -> String {
    let name = remedy.split(' ').next().unwrap_or_default();
    let mut words: Vec<&str> = line.split(' ').collect();
    if let Some(at) = words.iter().position(|word| *word == name) {
        words.drain(at..at + 2);
    }
    format!("{} {remedy}", words.join(" "))
}

/// The commands of a line: the words before the first option or argument that clap knows as no command.
fn help(sandbox: &Sandbox, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').take_while(|word| !word.starts_with('-')).collect();
    let two = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let output = sandbox.run(&format!("{two} --help"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_remedy_that_is_suggested_is_accepted() {
    let sandbox = Sandbox::new();
    sandbox.open_shape("open.onnx");
    sandbox.classifier("m.onnx", 10);
    sandbox.rows_classifier("rows.onnx", 2, 2);
    let rows: String = (0..40).map(|i| format!("{},{},{}\n", i % 7, i % 5, i % 2)).collect();
    sandbox.write("gaps.csv", format!("a,b,label\n{rows}1,,0\n"));
    let small = "--model lenet-300-100 --epochs 1";
    let lines = [
        format!("shrink {small} --max-rounds 0 --validation 0"),
        format!("ticket find {small} --levels 0 --validation 0"),
        format!("train {small} --stop 1 --validation 0"),
        "train --model rows.onnx --data csv:gaps.csv --epochs 1 --batch 4".into(),
        "run open.onnx".into(),
        "profile open.onnx".into(),
        "bench open.onnx --runs 1".into(),
        "accel estimate open.onnx".into(),
        "estimate --flops 1e18 --device nothing-like-it".into(),
        "estimate".into(),
        "estimate --flops 1e15 --device h100 --region Guinee".into(),
        "bench m.onnx --runs 1 --against onnxruntime --python /nowhere/python".into(),
    ];
    let (mut values, mut names) = (0, 0);
    for line in &lines {
        let refused = sandbox.run(line);
        let said = stderr(&refused);
        assert!(!refused.status.success(), "`wattle {line}` was not refused");
        let found = remedies(&said);
        assert!(!found.is_empty(), "`wattle {line}` suggests nothing that can be typed: {said}");
        for remedy in found {
            match remedy.split_once(' ') {
                // With a value, it is all that is missing.
                Some(_) => {
                    let mended = with(line, &remedy);
                    let output = sandbox.run(&mended);
                    assert!(output.status.success(), "`wattle {mended}`, as told: {}", stderr(&output));
                    values += 1;
                }
                None => {
                    assert!(
                        help(&sandbox, line).contains(&remedy),
                        "`wattle {line}` knows no {remedy}: {said}"
                    );
                    names += 1;
                }
            }
        }
    }
    assert!(values >= 8 && names >= 3, "{values} with values, {names} names");
}
