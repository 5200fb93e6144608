//! What `train` says of how it went.

use wattle_graph::onnx::{Limits, encode_model, read_model};

use crate::sandbox::{Sandbox, npy, stderr};

/// All notes in one text.
fn notes(document: &serde_json::Value) -> String {
    document["notes"].to_string()
}

#[test]
fn a_training_that_stops_early_gives_its_best_network_and_says_which() {
    let sandbox = Sandbox::new();
    let run = sandbox.json("train --model lenet-300-100 --epochs 30 --lr 5 --stop 1 --threads 1 --out run");
    let told = notes(&run);
    assert!(told.contains("is given, the best in validation: loss"), "{told}");
    let step: u64 =
        told.split("the network of step ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(step < run["steps"].as_u64().unwrap(), "{told}: it went on after its best");
    assert!(run["steps"].as_u64().unwrap() < 30 * 17, "it ended before 30 epochs");
}

#[test]
fn fewer_samples_than_the_usual_batch_are_one_batch_and_that_is_said() {
    let sandbox = Sandbox::new();
    let rows: String = (0..30).map(|i| format!("{},{},{}\n", i, (i * 7) % 11, i % 2)).collect();
    sandbox.write("few.csv", format!("a,b,label\n{rows}"));
    let line = "train --model lenet-300-100 --data few.csv --epochs 2 --threads 1";
    let told = notes(&sandbox.json(line));
    assert!(told.contains("training samples: there are fewer than the usual 64"), "{told}");
    let told = notes(&sandbox.json(&format!("{line} --batch 8")));
    assert!(!told.contains("fewer than the usual"), "{told}");
    let refused = sandbox.run(&format!("{line} --batch 64"));
    assert_eq!(refused.status.code(), Some(2), "more than there are is refused where it is asked for");
}

/// Forty rows of 64 numbers as `x` (of this type), and two numbers of 0 and 1 for each as `answers`.
fn rows(sandbox: &Sandbox, x: &str, dtype: &str, cell: impl Fn(usize) -> Vec<u8>) {
    std::fs::create_dir_all(sandbox.path("rows")).unwrap();
    let cells: Vec<u8> = (0..40 * 64).flat_map(cell).collect();
    sandbox.write(&format!("rows/{x}.npy"), npy(dtype, "(40, 64)", &cells));
    let answers: Vec<u8> = (0..80usize).flat_map(|i| ((i * 7 % 3 == 0) as u8 as f32).to_le_bytes()).collect();
    sandbox.write("rows/answers.npy", npy("<f4", "(40, 2)", &answers));
}

fn noise(i: usize) -> Vec<u8> {
    ((i * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).to_le_bytes().to_vec()
}

#[test]
fn a_target_is_not_mistaken_for_an_input_that_is_named_targets() {
    let sandbox = Sandbox::new();
    sandbox.rows_classifier("m.onnx", 64, 2);
    let losses = ["x", "targets"].map(|input| {
        let mut model = read_model(&sandbox.path("m.onnx"), &Limits::default()).unwrap();
        let id = model.graph.inputs()[0];
        model.graph.rename(id, input);
        sandbox.write("renamed.onnx", encode_model(&model).unwrap());
        rows(&sandbox, input, "<f4", noise);
        let line =
            "train --model renamed.onnx --data npz:rows --target answers --loss mse --epochs 1 --batch 8";
        sandbox.json(&format!("{line} --threads 1 --out {input}"))["test_loss"].clone()
    });
    assert_eq!(losses[0], losses[1]);
}

#[test]
fn a_metric_that_is_asked_for_is_told() {
    let sandbox = Sandbox::new();
    sandbox.rows_classifier("m.onnx", 64, 2);
    rows(&sandbox, "x", "<f4", noise);
    let line =
        "train --model m.onnx --data npz:rows --target answers --loss bce --epochs 1 --batch 8 --threads 1";
    assert!(sandbox.json(&format!("{line} --metric accuracy"))["test_accuracy"].is_number());
}

#[test]
fn rows_of_bytes_are_normalised_alike_whether_their_target_is_named_or_not() {
    let sandbox = Sandbox::new();
    sandbox.rows_classifier("m.onnx", 64, 3);
    rows(&sandbox, "x", "|u1", |i| vec![(i * 37 % 256) as u8]);
    let labels: Vec<u8> = (0..40i64).flat_map(|i| (i % 3).to_le_bytes()).collect();
    sandbox.write("rows/y.npy", npy("<i8", "(40,)", &labels));
    let line = "train --model m.onnx --data npz:rows --epochs 1 --batch 8 --threads 1";
    let [named, plain] =
        [" --target y", ""].map(|more| sandbox.json(&format!("{line}{more}"))["normalisation"].clone());
    assert_eq!(named, plain);
    assert_eq!(plain["x"]["divisor"], 255.0);
    // Numbers that would change are refused both ways.
    rows(&sandbox, "x", "<i8", |i| ((1i64 << 40) + i as i64).to_le_bytes().to_vec());
    for more in [" --target y", ""] {
        let refused = sandbox.run(&format!("{line}{more}"));
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("which no f32 is equal to"), "{}", stderr(&refused));
    }
}

#[test]
fn what_a_teacher_teaches_can_be_chosen_and_labels_that_nobody_reads_are_no_hindrance() {
    let sandbox = Sandbox::new();
    let taught = sandbox.json("train --model lenet-300-100 --epochs 1 --threads 1 --out teacher");
    assert!(taught["files"]["model"].is_string());
    let line = "train --model lenet-300-100 --epochs 1 --threads 1 --teacher teacher/model.onnx --loss";
    for loss in ["distil:t=4,match=logits/logits,matched=0.1", "cross-entropy + 0.5*distil:t=2"] {
        let output = sandbox.command(line).args([loss, "--json"]).output().unwrap();
        let document = String::from_utf8(output.stdout).unwrap();
        assert!(document.contains("distil:t="), "{document}{}", String::from_utf8_lossy(&output.stderr));
    }
    let refused = sandbox.run(&format!("{line} mse"));
    assert!(stderr(&refused).contains("does not ask for one"), "{}", stderr(&refused));
}
