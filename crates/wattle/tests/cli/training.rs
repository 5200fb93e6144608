//! What `train` says of how it went.

use crate::sandbox::Sandbox;

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
