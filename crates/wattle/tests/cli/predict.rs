//! What a model says of files: the right class with its name, and refusals that name what to do.

use serde_json::Value;

use crate::sandbox::{Sandbox, npy, stderr};

/// 16 x 12, gray, rising to the right.
const JPEG: &[u8] = include_bytes!("../../../wattle-data/src/testdata/ramp-gray.jpg");

fn refused(sandbox: &Sandbox, line: &str, words: &[&str]) {
    let output = sandbox.run(line);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "`wattle {line}`: {message}");
    assert!(!message.contains("panicked"), "`wattle {line}`: {message}");
    for word in words {
        assert!(message.contains(word), "`wattle {line}` does not say `{word}`: {message}");
    }
}

fn predictions(document: &Value) -> &[Value] {
    document["predictions"].as_array().expect("a list")
}

#[test]
fn a_model_that_wattle_trained_calls_rows_by_the_names_of_their_classes() {
    let sandbox = Sandbox::new();
    let mut text = "height,width,kind\n".to_string();
    for row in 0..60 {
        let (kind, at) = if row % 2 == 0 { ("tall", 500) } else { ("flat", 100) };
        text += &format!("{}.5,{}.5,{kind}\n", at + row, 600 - at - row);
    }
    sandbox.write("rows.csv", &text);
    sandbox.text("train --model lenet-300-100 --data rows.csv --epochs 20 --out run");
    let document = sandbox.json("predict run/model.onnx rows.csv");
    assert_eq!((&document["schema"], predictions(&document).len()), (&1.into(), 60));
    assert!(document["normalisation"]["x"]["source"].as_str().expect("text").contains("metadata"));
    for (row, prediction) in predictions(&document).iter().enumerate() {
        let expected = if row % 2 == 0 { "tall" } else { "flat" };
        assert_eq!(prediction["classes"][0]["class"], expected, "{prediction:#}");
        assert_eq!((&prediction["line"], &prediction["sample"]), (&(row + 2).into(), &row.into()));
        let sum: f64 = (0..2).map(|i| prediction["classes"][i]["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{prediction:#}");
    }
    // The same rows without what was to be learnt, as an array.
    let row = [500.5f32, 100.5].map(f32::to_le_bytes).concat();
    sandbox.write("row.npy", npy("<f4", "(2,)", &row));
    let text = sandbox.text("predict run/model.onnx row.npy");
    assert!(
        text.contains("row.npy") && text.contains("tall") && text.contains("softmax of output"),
        "{text}"
    );
}

#[test]
fn images_say_what_they_lack() {
    let sandbox = Sandbox::new();
    sandbox.classifier("m.onnx", 10);
    sandbox.write("photo.jpg", JPEG);
    refused(&sandbox, "predict m.onnx photo.jpg", &["16 x 12", "8 x 8", "`--resize crop`", "`--resize fit`"]);
    refused(&sandbox, "predict m.onnx photo.jpg --resize crop", &["m.onnx", "`--normalise unit`"]);
    refused(
        &sandbox,
        "predict m.onnx photo.jpg --resize crop --normalise measured",
        &["--normalise", "unit"],
    );
    let asked = "predict m.onnx photo.jpg photo.jpg --resize fit --normalise unit";
    let plain = sandbox.json(asked);
    assert!(plain["probabilities"].is_null(), "nobody says that these are classes");
    assert_eq!(predictions(&plain)[1]["values"].as_array().expect("a list").len(), 10);
    assert!(plain["notes"].to_string().contains("classes=names.txt"), "{plain:#}");
    sandbox.write("names.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    let named = sandbox.json(&format!("{asked} --classes names.txt --top 10"));
    let classes = predictions(&named)[0]["classes"].as_array().expect("a list");
    let sum: f64 = classes.iter().map(|class| class["probability"].as_f64().expect("a number")).sum();
    assert!(classes.len() == 10 && (sum - 1.0).abs() < 1e-6, "{named:#}");
    sandbox.write("few.txt", "a\nb\n");
    refused(&sandbox, &format!("{asked} --classes few.txt"), &["--classes", "2 names", "10 numbers"]);
}

#[test]
fn files_that_cannot_be_asked_about_are_named_with_what_can() {
    let sandbox = Sandbox::new();
    sandbox.two_by_two("two.onnx");
    sandbox.rows_classifier("rows.onnx", 3, 2);
    sandbox.write("x.npy", npy("<f4", "(1, 3)", &[0; 12]));
    sandbox.write("note.txt", "hello");
    sandbox.write("four.csv", "a,b,c,d,e\n1,2,3,4,5\n");
    sandbox.write("odd.bin", "?");
    refused(&sandbox, "predict two.onnx x.npy", &["x.npy", "2 inputs", ".npz"]);
    refused(&sandbox, "predict rows.onnx four.csv", &["four.csv", "5 columns", "`--columns x=a+b`"]);
    refused(&sandbox, "predict rows.onnx note.txt", &["note.txt", "`--tokenizer bytes`"]);
    refused(&sandbox, "predict rows.onnx odd.bin", &["odd.bin", ".csv"]);
    refused(&sandbox, "predict rows.onnx nowhere.png", &["nowhere.png"]);
    refused(&sandbox, "predict rows.onnx .", &["directory"]);
    refused(&sandbox, "predict rows.onnx", &["FILES"]);
    let chosen = sandbox.json("predict rows.onnx four.csv --columns x=a+c+e");
    assert_eq!(predictions(&chosen).len(), 1);
}
