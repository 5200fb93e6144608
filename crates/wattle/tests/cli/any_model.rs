//! `shrink` and `ticket find` on models that are no classifiers of one array: several inputs, tokens, a loss of their own.

use wattle_graph::ops::{
    Binary, BinaryFunction, Concat, Function, Gather, Gemm, MatMul, Reduce, Reduction, Unary,
};
use wattle_graph::{DType, Dim, Example, Graph, Model, Parameter, Parameters, ValueId};

use crate::sandbox::{Sandbox, npy, stderr};

/// A model under way.
struct Builder {
    graph: Graph,
    parameters: Parameters,
}

impl Builder {
    fn new() -> Builder {
        Builder { graph: Graph::new("any"), parameters: Parameters::new() }
    }

    fn input(&mut self, name: &str, dtype: DType, extents: &[usize]) -> ValueId {
        let mut shape = vec![Dim::symbol("N")];
        shape.extend(extents.iter().map(|&n| Dim::Known(n)));
        self.graph.input(name, dtype, shape)
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let seed = self.parameters.iter().count() as u32 + 1;
        self.parameters.insert(name, Example::noise(shape, seed));
        self.graph.parameter(Parameter::trainable(name), DType::F32, shape)
    }

    fn dense(&mut self, name: &str, x: ValueId, from: usize, to: usize) -> ValueId {
        let w = self.weight(name, &[from, to]);
        let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: false };
        self.graph.apply(op, &[x, w]).expect("the extents fit")
    }

    fn output(&mut self, id: ValueId, name: &str) {
        self.graph.rename(id, name);
        self.graph.output(id);
    }

    fn write(self, sandbox: &Sandbox, name: &str) {
        sandbox.model(name, &Model::new(self.graph, self.parameters));
    }
}

/// Arrays as a folder of .npy files.
fn arrays(sandbox: &Sandbox, folder: &str, arrays: &[(&str, &str, String, Vec<u8>)]) {
    std::fs::create_dir(sandbox.path(folder)).expect("it is new");
    for (name, dtype, shape, bytes) in arrays {
        sandbox.write(&format!("{folder}/{name}.npy"), npy(dtype, shape, bytes));
    }
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    Example::noise(&[count], seed).as_f32().expect("floats").to_vec()
}

const SAMPLES: usize = 120;

/// `y = sum(left) - sum(right)` of two inputs.
fn regression(sandbox: &Sandbox) {
    let mut b = Builder::new();
    let (left, right) = (b.input("left", DType::F32, &[3]), b.input("right", DType::F32, &[2]));
    let both = b.graph.apply(Concat { axis: 1 }, &[left, right]).expect("two rows");
    let hidden = b.dense("hidden", both, 5, 8);
    let hidden = b.graph.apply(Unary { function: Function::Tanh }, &[hidden]).expect("a float");
    let y = b.dense("head", hidden, 8, 1);
    b.output(y, "y");
    b.write(sandbox, "two.onnx");
    let (left, right) = (noise(3 * SAMPLES, 1), noise(2 * SAMPLES, 2));
    let sum =
        |i: usize| left[3 * i..3 * i + 3].iter().sum::<f32>() - right[2 * i..2 * i + 2].iter().sum::<f32>();
    let y = floats((0..SAMPLES).map(sum));
    arrays(
        sandbox,
        "two",
        &[
            ("left", "<f4", format!("({SAMPLES}, 3)"), floats(left.clone())),
            ("right", "<f4", format!("({SAMPLES}, 2)"), floats(right.clone())),
            ("y", "<f4", format!("({SAMPLES}, 1)"), y),
        ],
    );
}

#[test]
fn a_regression_of_two_inputs_is_shrunk_by_its_r2() {
    let sandbox = Sandbox::new();
    regression(&sandbox);
    let line =
        "shrink --model two.onnx --data npz:two --epochs 8 --batch 8 --lr 0.05 --max-rounds 3 --tolerance 5";
    let shrunk = sandbox.json(&format!("{line} --out lean"));
    assert_eq!((&shrunk["metric"], &shrunk["higher_is_better"]), (&"r2".into(), &true.into()));
    assert_eq!(shrunk["tolerance_unit"], "percent of the dense network's");
    let [dense, lean] =
        ["dense", "lean"].map(|side| shrunk[side]["validation_value"].as_f64().expect("a number"));
    assert!(dense > 0.5, "it learns: {dense}");
    assert!(lean >= dense - 0.05 * dense - 1e-6, "{lean} of {dense}");
    assert!(shrunk["dense"]["accuracy"].is_null() && shrunk["dense"]["mae"].is_number(), "{shrunk:#}");
    assert_eq!(shrunk["dense"]["macs"], 5 * 8 + 8);
    assert_eq!(shrunk["normalisation"]["left"]["source"], shrunk["normalisation"]["right"]["source"]);
    let found = sandbox.json("eval --model lean/lean.onnx --data npz:two");
    assert_eq!(found["r2"], shrunk["lean"]["value"]);
    assert_eq!(found["normalisation"]["left"]["source"], "the model's metadata");
    let text = sandbox.text(&format!("{line} --out lean"));
    assert!(text.contains("test r2") && text.contains("validation r2"), "{text}");

    // A metric of which less is better chooses the other way round.
    let shrunk = sandbox.json(&format!("{line} --metric mae --out absolute"));
    assert_eq!((&shrunk["metric"], &shrunk["higher_is_better"]), (&"mae".into(), &false.into()));
    let [dense, lean] =
        ["dense", "lean"].map(|side| shrunk[side]["validation_value"].as_f64().expect("a number"));
    assert!(lean <= 1.05 * dense + 1e-6, "{lean} of {dense}");
    let levels = shrunk["levels"].as_array().expect("a list");
    let chosen = levels.iter().position(|level| level["chosen"] == true).expect("one is chosen");
    for level in &levels[chosen + 1..] {
        let value = level["validation_value"].as_f64().expect("a number");
        assert!(value > 1.05 * dense - 1e-6, "a sparser level was good enough: {level}");
    }
}

/// Each token is of the class `token % 3`.
fn tagger(sandbox: &Sandbox) {
    let mut b = Builder::new();
    let ids = b.input("ids", DType::I64, &[4]);
    let table = b.weight("table", &[12, 6]);
    let x = b.graph.apply(Gather { axis: 0 }, &[table, ids]).expect("a table");
    let w = b.weight("head", &[6, 3]);
    let y = b.graph.apply(MatMul::default(), &[x, w]).expect("the extents fit");
    b.output(y, "tags");
    b.write(sandbox, "tagger.onnx");
    let ids: Vec<i64> = (0..4 * SAMPLES as i64).map(|i| (i * 7 + i / 5) % 12).collect();
    let bytes =
        |values: &mut dyn Iterator<Item = i64>| values.flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
    let tags = bytes(&mut ids.iter().map(|id| id % 3));
    let shape = format!("({SAMPLES}, 4)");
    let ids = bytes(&mut ids.iter().copied());
    arrays(sandbox, "tags", &[("ids", "<i8", shape.clone(), ids), ("labels", "<i8", shape, tags)]);
}

#[test]
fn ids_and_labels_that_the_model_does_not_know_are_refused_by_their_place() {
    let sandbox = Sandbox::new();
    tagger(&sandbox);
    let whole = ["ids", "labels"].map(|name| (name, sandbox.read(&format!("tags/{name}.npy"))));
    for (changed, value, expected) in
        [(0, 12, "0 to 11"), (0, -1, "0 to 11"), (1, 9, "0 to 2"), (1, 255, "ignore-index 255")]
    {
        for (place, (name, bytes)) in whole.iter().enumerate() {
            let mut bytes = bytes.clone();
            if place == changed {
                // Sample 3, element 2, behind the header.
                let start = bytes.len() - 8 * (4 * SAMPLES - 14);
                bytes[start..start + 8].copy_from_slice(&i64::to_le_bytes(value));
            }
            sandbox.write(&format!("tags/{name}.npy"), bytes);
        }
        for command in ["train", "eval", "shrink", "ticket find"] {
            let output = sandbox.run(&format!("{command} --model tagger.onnx --data npz:tags"));
            let text = crate::sandbox::stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{command}, {value}: {text}");
            let place = format!("sample 3, element 2: the number {value}");
            assert!(text.contains(&place) && text.contains(expected), "{command}: {text}");
        }
    }
}

#[test]
fn a_model_with_nothing_to_learn_is_judged_and_written_as_it_is() {
    let sandbox = Sandbox::new();
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, &[3]);
    let y = b.graph.apply(Unary { function: Function::Relu }, &[x]).expect("one float operand");
    b.output(y, "y");
    b.write(&sandbox, "plain.onnx");
    let x = floats((0..3 * SAMPLES).map(|i| (i % 7) as f32 - 3.0));
    let labels = (0..SAMPLES as i64).flat_map(|i| i64::to_le_bytes(i % 3)).collect();
    let shapes = [format!("({SAMPLES}, 3)"), format!("({SAMPLES},)")];
    let [rows, row] = shapes;
    arrays(&sandbox, "plain", &[("x", "<f4", rows, x), ("labels", "<i8", row, labels)]);
    let trained = sandbox.json("train --model plain.onnx --data npz:plain --out run");
    assert_eq!(trained["steps"], 0);
    let notes = trained["notes"].to_string();
    assert!(notes.contains("no trainable parameter"), "{notes}");
    let judged = sandbox.json("eval --model run/model.onnx --data npz:plain");
    assert_eq!(judged["loss"], trained["test_loss"]);
}

#[test]
fn a_search_of_no_steps_starts_where_it_ends() {
    let sandbox = Sandbox::new();
    tagger(&sandbox);
    let line = "--model tagger.onnx --data npz:tags --epochs 0";
    let found = sandbox.json(&format!("ticket find {line} --levels 1 --out tickets"));
    assert_eq!(found["levels"].as_array().map(Vec::len), Some(2));
    sandbox.json(&format!("shrink {line} --max-rounds 1 --tolerance 100 --out lean"));
}

#[test]
fn a_classifier_of_tokens_is_shrunk_and_searched_by_the_accuracy_of_its_tokens() {
    let sandbox = Sandbox::new();
    tagger(&sandbox);
    let line = "--model tagger.onnx --data npz:tags --epochs 6 --batch 8 --optimizer adam --lr 0.05";
    let shrunk = sandbox.json(&format!("shrink {line} --max-rounds 2 --tolerance 5 --out lean"));
    assert_eq!((&shrunk["metric"], &shrunk["tolerance_unit"]), (&"accuracy".into(), &"points of 100".into()));
    let accuracy = shrunk["dense"]["accuracy"].as_f64().expect("a number");
    assert!(accuracy > 0.9, "{accuracy}");
    assert_eq!(shrunk["dense"]["value"], shrunk["dense"]["accuracy"]);
    assert_eq!(shrunk["normalisation"].as_object().map(|o| o.len()), Some(0), "tokens mean themselves");
    assert_eq!(
        sandbox.json("eval --model lean/lean.onnx --data npz:tags")["accuracy"],
        shrunk["lean"]["accuracy"]
    );

    let found = sandbox.json(&format!("ticket find {line} --levels 1 --metric exact-match --out tickets"));
    assert_eq!(found["metric"], "exact-match");
    let rows = found["levels"].as_array().expect("a list");
    assert!(rows.len() == 2 && rows[1]["density"].as_f64() < Some(1.0), "{found:#}");
    assert_eq!(rows[0]["test_value"], rows[0]["test_exact_match"]);
    let page = String::from_utf8(sandbox.read("tickets/report.html")).expect("a page is text");
    assert!(page.contains("<svg") && page.contains("finished: 2 levels"), "the curves of the last level");
}

#[test]
fn a_model_with_a_loss_of_its_own_is_shrunk_by_that_loss() {
    let sandbox = Sandbox::new();
    let mut b = Builder::new();
    let (x, t) = (b.input("x", DType::F32, &[3]), b.input("t", DType::F32, &[1]));
    let hidden = b.dense("hidden", x, 3, 8);
    let hidden = b.graph.apply(Unary { function: Function::Relu }, &[hidden]).expect("a float");
    let y = b.dense("head", hidden, 8, 1);
    let off = b.graph.apply(Binary { function: BinaryFunction::Sub }, &[y, t]).expect("one shape");
    let squared = b.graph.apply(Binary { function: BinaryFunction::Mul }, &[off, off]).expect("one shape");
    let mean = Reduce { kind: Reduction::Mean, axes: vec![], keep_dims: false };
    let loss = b.graph.apply(mean, &[squared]).expect("a float");
    b.output(y, "y");
    b.output(loss, "loss");
    b.write(&sandbox, "own.onnx");
    let x = noise(3 * SAMPLES, 3);
    let t = floats((0..SAMPLES).map(|i| 2.0 * x[3 * i] - x[3 * i + 1]));
    let shape = |n: usize| format!("({SAMPLES}, {n})");
    arrays(&sandbox, "own", &[("x", "<f4", shape(3), floats(x.clone())), ("t", "<f4", shape(1), t)]);
    let line = "--model own.onnx --data npz:own --loss output:loss --epochs 6 --batch 8 --lr 0.05";
    let shrunk = sandbox.json(&format!("shrink {line} --max-rounds 2 --tolerance 50 --out lean"));
    assert_eq!((&shrunk["metric"], &shrunk["higher_is_better"]), (&"loss".into(), &false.into()));
    let [dense, lean] =
        ["dense", "lean"].map(|side| shrunk[side]["validation_value"].as_f64().expect("a number"));
    assert!(dense < 0.5 && lean <= 1.5 * dense + 1e-6, "{lean} of {dense}");
    assert_eq!(shrunk["lean"]["loss"], shrunk["lean"]["value"]);
    let text = sandbox.text(&format!("ticket find {line} --levels 1 --out tickets"));
    assert!(text.contains("validation loss") && text.contains("test loss"), "{text}");
}

#[test]
fn arrays_of_the_models_own_names_feed_a_model_of_one_input() {
    let sandbox = Sandbox::new();
    let mut b = Builder::new();
    let x = b.input("signal", DType::F32, &[3]);
    let y = b.dense("head", x, 3, 2);
    b.output(y, "y");
    b.write(&sandbox, "one.onnx");
    let (x, y) = (floats(noise(3 * SAMPLES, 5)), floats(noise(2 * SAMPLES, 6)));
    let shape = |n: usize| format!("({SAMPLES}, {n})");
    arrays(&sandbox, "one", &[("signal", "<f4", shape(3), x), ("target", "<f4", shape(2), y)]);
    let found = sandbox.json("eval --model one.onnx --data npz:one");
    assert!(found["r2"].is_number() && found["normalisation"]["signal"]["mean"][2].is_number(), "{found:#}");
}

#[test]
fn the_padding_of_text_counts_nowhere_unasked() {
    let sandbox = Sandbox::new();
    let mut b = Builder::new();
    let ids = b.input("ids", DType::I64, &[6]);
    let table = b.weight("table", &[256, 4]);
    let x = b.graph.apply(Gather { axis: 0 }, &[table, ids]).expect("a table");
    let w = b.weight("head", &[4, 256]);
    let y = b.graph.apply(MatMul::default(), &[x, w]).expect("the extents fit");
    b.output(y, "next");
    b.write(&sandbox, "lm.onnx");
    let lines: Vec<String> = (0..40).map(|i| format!("the cat sat on mat {}", i % 7)).collect();
    sandbox.write("lines.txt", lines.join("\n"));
    let data = "--model lm.onnx --data text:lines.txt --tokenizer bytes";
    let line = format!("{data} --epochs 1 --batch 8 --lr 0.05");
    let trained = sandbox.json(&format!("train {line} --out run"));
    assert!(trained["train"]["loss"].to_string().contains("ignore=-100"), "{trained:#}");
    assert_eq!(
        sandbox.json("eval --model run/model.onnx --data text:lines.txt --tokenizer bytes")["loss"],
        trained["test_loss"]
    );
    sandbox.json(&format!("shrink {line} --max-rounds 1 --tolerance 50 --out lean"));
    sandbox.json(&format!("ticket find {line} --levels 1 --out tickets"));
}

/// Rows of two numbers that say which animal they are.
fn animals(names: &[&str]) -> String {
    let row = |i: usize| {
        let name = names[i % names.len()];
        let (a, b) = match name {
            "ant" => (4, 0),
            "bee" => (0, 4),
            _ => (-4, -4),
        };
        format!("{}.{},{}.{},{name}\n", a, i % 10, b, (i * 3) % 10)
    };
    "a,b,kind\n".to_string() + &(0..SAMPLES).map(row).collect::<String>()
}

#[test]
fn classes_are_known_by_their_names_whatever_their_order_in_the_data() {
    let sandbox = Sandbox::new();
    sandbox.rows_classifier("rows.onnx", 2, 3);
    for (file, names) in [
        ("three.csv", &["ant", "bee", "cat"][..]),
        ("two.csv", &["bee", "cat"]),
        ("strange.csv", &["bee", "zebra"]),
        ("more.csv", &["ant", "bee", "cat", "zebra"]),
    ] {
        sandbox.write(file, animals(names));
    }
    let line = "train --model rows.onnx --data csv:three.csv --target kind --epochs 5 --batch 8 --out run";
    assert_eq!(sandbox.json(line)["test_accuracy"], 1.0);
    let found = sandbox.json("eval --model run/model.onnx --data csv:two.csv --target kind");
    assert_eq!(found["accuracy"], 1.0, "{found:#}");
    for file in ["strange.csv", "more.csv"] {
        let output = sandbox.run(&format!("eval --model run/model.onnx --data csv:{file} --target kind"));
        let told = stderr(&output);
        assert!(!output.status.success() && told.contains("`zebra` is not among the classes"), "{told}");
    }
    // Learnt further on some of the classes, it keeps the names of all.
    sandbox
        .json("train --model run/model.onnx --data csv:two.csv --target kind --epochs 1 --batch 8 --out on");
    let found = sandbox.json("eval --model on/model.onnx --data csv:two.csv --target kind");
    assert_eq!(found["accuracy"], 1.0, "{found:#}");
}

#[test]
fn a_loss_names_its_targets_as_the_data_does() {
    let sandbox = Sandbox::new();
    regression(&sandbox);
    for (targets, loss) in
        [("--target y", "mse + 0.5*mae:target=y"), ("--target y --target left", "mse:target=y")]
    {
        let line = format!("train --model two.onnx --data npz:two --epochs 1 --batch 8 {targets}");
        let output = sandbox.command(&line).args(["--loss", loss]).output().expect("it was built");
        assert!(output.status.success(), "{targets}, {loss}: {}", stderr(&output));
    }
}
