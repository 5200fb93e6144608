//! What data are understood as, told before anything is trained.

use crate::sandbox::{Sandbox, npy, stderr};

#[test]
fn digits_have_their_classes_parts_and_a_page_of_pictures() {
    let sandbox = Sandbox::new();
    let found = sandbox.json("data digits --report digits.html");
    assert_eq!((&found["schema"], &found["samples"]), (&1.into(), &1797.into()));
    assert_eq!(found["columns"][0]["extents"], serde_json::json!([1, 8, 8]));
    assert_eq!(
        (&found["columns"][0]["full_scale"], &found["columns"][0]["largest"]),
        (&16.0.into(), &16.0.into())
    );
    assert_eq!((&found["columns"][1]["target"], &found["classes"][3]["class"]), (&true.into(), &"3".into()));
    let parts = &found["parts"];
    let sum: u64 = ["train", "validation", "test"].iter().map(|p| parts[p].as_u64().expect("a number")).sum();
    assert_eq!((sum, &parts["own_test"]), (1797, &false.into()));
    let of_class: u64 = found["classes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["test"].as_u64().expect("a number"))
        .sum();
    assert_eq!(parts["test"], of_class);
    let page = String::from_utf8(sandbox.read("digits.html")).expect("a page is UTF-8");
    assert_eq!(page.matches("<img").count(), 50, "five of each class");
    let text = sandbox.text("data digits");
    assert!(text.contains("1797 samples") && text.contains("cut out of the training part"), "{text}");
}

#[test]
fn tables_and_arrays_are_told_by_column() {
    let sandbox = Sandbox::new();
    let rows: String = (0..40).map(|row| format!("{row}.5,{},{}\n", row * 2, ["b", "a"][row % 2])).collect();
    sandbox.write("rows.csv", format!("one,two,kind\n{rows}"));
    let found = sandbox.json("data rows.csv --report rows.html");
    assert_eq!((&found["classes"][0]["class"], &found["data"]), (&"a".into(), &"csv:rows.csv".into()));
    assert!(String::from_utf8(sandbox.read("rows.html")).expect("text").contains("<td>"));
    let chosen = sandbox.json("data rows.csv --columns x=two --target one");
    assert_eq!(chosen["columns"][1]["name"], "one");
    assert_eq!(chosen["classes"], serde_json::json!([]), "numbers with a fraction are no classes");
}

#[test]
fn data_that_only_a_model_can_read_say_so() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "lines.jsonl",
        "{\"a\": [1.5, 2.5], \"label\": 0}\n".repeat(8) + "{\"a\": [1.5, 2.5], \"label\": 1}\n",
    );
    sandbox.write("few.txt", "one text\nanother\n");
    std::fs::create_dir(sandbox.path("arrays")).expect("a new folder");
    sandbox.write("arrays/left.npy", npy("<f4", "(4, 3)", &[0; 48]));
    for (line, word) in [
        ("data lines.jsonl", "`--model model.onnx`"),
        ("data digits --target x", "`--model model.onnx`"),
        ("data npz:arrays", "`--model model.onnx`"),
        ("data few.txt", "`--tokenizer bytes`"),
        ("data nowhere", "nowhere"),
        ("data digits --validation 2", "validation"),
        ("data digits --report none/page.html", "none/page.html"),
    ] {
        let output = sandbox.run(line);
        let message = stderr(&output);
        assert!(!output.status.success() && !message.contains("panicked"), "{line}: {message}");
        assert!(message.contains(word) && output.stdout.is_empty(), "{line}: {message}");
    }
    assert_eq!(
        sandbox.json("data few.txt --tokenizer bytes")["columns"][0]["extents"],
        serde_json::json!([128])
    );
    sandbox.rows_classifier("m.onnx", 2, 2);
    let found = sandbox.run("data lines.jsonl --model m.onnx --columns x=a --json");
    assert!(found.status.success(), "{}", stderr(&found));
}
