//! A model is named first or by `--model`, by every command; two models are timed in turns.

use crate::sandbox::{Sandbox, stderr};

#[test]
fn every_command_takes_its_model_first_or_as_a_flag() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.write("row.csv", vec!["0.5"; 64].join(",") + "\n" + &vec!["1.5"; 64].join(","));
    for (first, flag) in [
        ("eval m.onnx", "eval --model m.onnx"),
        ("profile m.onnx", "profile --model m.onnx"),
        ("predict m.onnx row.csv", "predict --model m.onnx row.csv"),
        ("accel estimate m.onnx", "accel estimate --model m.onnx"),
        ("run m.onnx --out a", "run --model m.onnx --out a"),
    ] {
        let [first, flag] = [first, flag].map(|line| {
            let mut document = sandbox.json(line);
            document.as_object_mut().expect("an object").remove("receipt");
            document
        });
        assert_eq!(first, flag);
    }
    for line in ["train", "eval", "ticket find", "profile", "run", "accel estimate"] {
        let output = sandbox.run(line);
        let message = stderr(&output);
        assert!(output.status.code() == Some(2) && message.contains("--model <MODEL>"), "{line}: {message}");
        let twice = sandbox.run(&format!("{line} m.onnx --model m.onnx"));
        assert!(stderr(&twice).contains("cannot be used with"), "{line}: {}", stderr(&twice));
    }
}

#[test]
fn two_models_are_timed_in_turns_and_their_outputs_compared() {
    let sandbox = Sandbox::new();
    sandbox.classifier("a.onnx", 10);
    sandbox.normalised_classifier("b.onnx");
    sandbox.classifier("three.onnx", 3);
    for line in ["bench a.onnx b.onnx", "bench --model a.onnx b.onnx"] {
        let found = sandbox.json(&format!("{line} --rounds 3 --runs 2 --threads 1"));
        assert_eq!((&found["schema"], &found["rounds"]), (&1.into(), &3.into()));
        let [a, b] = [0, 1].map(|at| found["models"][at]["median_ms"].as_f64().expect("a number"));
        assert!(a > 0.0 && b > a, "21 layers take longer than three: {found:#}");
        assert!(found["ratio"].as_f64().expect("a number") < 1.0, "{found:#}");
        assert_eq!(found["models"][1]["rounds_ms"].as_array().map(Vec::len), Some(3));
    }
    let same = sandbox.json("bench a.onnx a.onnx --rounds 2 --runs 2");
    assert_eq!(same["difference"]["max_absolute"], 0.0);
    let text = sandbox.text("bench a.onnx three.onnx --rounds 2 --runs 2");
    assert!(text.contains("other names or shapes") && text.contains("ratio"), "{text}");
    for (line, word) in [
        ("bench a.onnx none.onnx", "none.onnx"),
        ("bench a.onnx b.onnx --train", "--train"),
        ("bench a.onnx b.onnx --against torch", "--against"),
        ("bench --model a.onnx b.onnx three.onnx", "three models"),
        ("bench a.onnx --rounds 3", "OTHER"),
    ] {
        let output = sandbox.run(line);
        let message = stderr(&output);
        assert!(output.status.code() == Some(2) && message.contains(word), "{line}: {message}");
    }
}
