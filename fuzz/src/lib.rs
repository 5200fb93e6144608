//! What is done with any bytes by each parser of foreign files: an error or a value that keeps its promises, never a panic.
//!
//! A target takes bytes as a file has them; those that are read by path are written to a folder first. The same functions
//! run under libFuzzer (`fuzz_targets`) and, on the corpus and seeded mutations of it, in the tests of `wattle-jobs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wattle_accel::{Architecture, Constraints, EnergyFile, MappingFile, Syntax};
use wattle_data::{DataSpec, LoadOptions, TableOptions, Wanted};
use wattle_engine::{Cpu, Plan, PlanOptions, Session, Store};
use wattle_graph::onnx::{Limits, decode_model};
use wattle_graph::{DType, Example, Model, NodeCost, Tensor, costs, interpret};
use wattle_jobs::measure::{EpochOptions, Epochs};
use wattle_meter::{Receipt, Snapshot, export, ledger, scaling, schedule};

/// A target by its name, which is also that of its folder in `corpus`.
pub type Target = (&'static str, fn(&[u8], &Path));

/// Every target. The folder is the caller's, and empty at first; targets write files of their own names into it.
pub const TARGETS: &[Target] = &[
    ("accel_files", |bytes, _| accel_files(bytes)),
    ("csv", |bytes, folder| table(bytes, folder, "rows.csv", DataSpec::Csv)),
    ("epoch_log", epoch_log),
    ("idx", idx),
    ("images", images),
    ("jsonl", |bytes, folder| table(bytes, folder, "lines.jsonl", DataSpec::Jsonl)),
    ("ledger", ledger_lines),
    ("npy", npy),
    ("npz", |bytes, folder| table(bytes, folder, "arrays.npz", DataSpec::Npz)),
    ("onnx_import", |bytes, _| onnx_import(bytes)),
    ("option_texts", |bytes, _| option_texts(bytes)),
    ("plan_and_run", |bytes, _| plan_and_run(bytes)),
    ("receipt", |bytes, _| receipt(bytes)),
    ("safetensors", safetensors),
    ("series", |bytes, _| series(bytes)),
    ("text", |bytes, folder| table(bytes, folder, "lines.txt", DataSpec::Text)),
];

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a writable folder");
    std::fs::write(&path, bytes).expect("a writable folder");
    path
}

/// Limits under which a model of a few kilobytes may be anything.
fn limits() -> Limits {
    Limits {
        max_structure_bytes: 1 << 26,
        max_tensor_elements: 1 << 20,
        max_folded_elements: 1 << 20,
        max_nodes: 1 << 12,
        max_depth: 4,
        ..Limits::default()
    }
}

/// An ONNX file.
pub fn onnx_import(bytes: &[u8]) {
    if let Ok(model) = decode_model(bytes, None, &limits()) {
        model.graph.check().expect("an imported graph keeps its invariant");
    }
}

/// Most elements and operations of a model that is run: more is honest work, not a fault.
const MAX_WORK: u64 = 1 << 18;

/// A small model, planned and run on kernels, beside the interpreter.
pub fn plan_and_run(bytes: &[u8]) {
    let Ok(model) = decode_model(bytes, None, &limits()) else { return };
    let Some(model) = bound(&model) else { return };
    let Ok(costs) = costs(&model.graph, &model.parameters) else { return };
    let work = |c: &NodeCost| {
        let parts = [c.work.macs, c.work.element_ops, c.bytes_read, c.bytes_written];
        parts.into_iter().fold(0, u64::saturating_add)
    };
    if costs.iter().map(work).fold(0, u64::saturating_add) > MAX_WORK {
        return;
    }
    let Some(feeds) = feeds(&model) else { return };
    let options = PlanOptions::new(std::sync::Arc::new(Cpu::new(1).expect("one thread")));
    let options = PlanOptions { memory_limit: 1 << 28, ..options };
    let store = Store::new(&model.parameters);
    let Ok(plan) = Plan::compile(&model.graph, &store, &options) else { return };
    let Ok(mut session) = Session::new(plan, &store) else { return };
    for (name, tensor) in &feeds {
        if session.set_input(name, tensor).is_err() {
            return;
        }
    }
    let planned = session.run().and_then(|()| session.outputs());
    let interpreted = interpret(&model.graph, &mut model.parameters.clone(), &feeds);
    let (Ok(planned), Ok(interpreted)) = (planned, interpreted) else { return };
    for ((name, planned), interpreted) in planned.iter().zip(&interpreted) {
        let shapes = (planned.shape(), interpreted.shape());
        assert_eq!((planned.dtype(), shapes.0), (interpreted.dtype(), shapes.1), "`{name}`");
        if is_smooth(&model) {
            assert!(agree(planned, interpreted), "`{name}`: {planned:?}, interpreted {interpreted:?}");
        }
    }
}

/// The model with three for every extent that is open.
fn bound(model: &Model) -> Option<Model> {
    let shapes: Option<Vec<(String, Vec<usize>)>> = model
        .graph
        .inputs()
        .iter()
        .map(|&id| {
            let dims = model.graph.value(id).ty.shape.dims()?;
            Some((model.graph.label(id), dims.iter().map(|d| d.known().unwrap_or(3)).collect()))
        })
        .collect();
    let shapes = shapes?;
    let named: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    model.bind(&named).ok()
}

fn feeds(model: &Model) -> Option<BTreeMap<String, Tensor>> {
    let feed = |&id: &wattle_graph::ValueId| {
        let value = model.graph.value(id);
        let extents = value.ty.shape.extents()?;
        let elements = extents.iter().fold(1u64, |n, &e| n.saturating_mul(e as u64));
        (elements <= MAX_WORK)
            .then(|| (model.graph.label(id), Example::noise(&extents, 1).cast(value.ty.dtype)))
    };
    model.graph.inputs().iter().map(feed).collect()
}

/// Whether rounding in the last place cannot become a large difference: no steps, no choices, no powers.
fn is_smooth(model: &Model) -> bool {
    const SMOOTH: &[&str] = &[
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "Flatten",
        "Gemm",
        "Identity",
        "MatMul",
        "Mul",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ];
    model.graph.nodes().iter().all(|node| SMOOTH.contains(&node.op.name()))
}

/// Floats to a thousandth of the largest; where some are not finite, anything.
fn agree(a: &Tensor, b: &Tensor) -> bool {
    let (a, b) = (a.to_f64(), b.to_f64());
    let all = || a.iter().chain(b.iter());
    let largest = all().fold(0.0, |m: f64, x| m.max(x.abs()));
    all().any(|x| !x.is_finite() || x.abs() > 1e6)
        || a.iter().zip(b.iter()).all(|(x, y)| (x - y).abs() <= 1e-3 * largest.max(1.0))
}

/// One `.npy` array, read in both ways.
pub fn npy(bytes: &[u8], folder: &Path) {
    let path = written(folder, "array.npy", bytes);
    let tensor = wattle_data::npy::read_tensor(&path);
    if let Ok(array) = wattle_data::npy::parse(&path, bytes) {
        let elements: usize = array.shape.iter().product();
        assert_eq!(elements, array.into_floats().len());
    }
    if let Ok(tensor) = tensor {
        assert!(tensor.len() <= bytes.len());
    }
}

/// A file of samples, as rows of numbers and as a table for a model.
fn table(bytes: &[u8], folder: &Path, name: &str, spec: fn(PathBuf) -> DataSpec) {
    let spec = spec(written(folder, name, bytes));
    if let Ok(set) = spec.load(&LoadOptions::default()) {
        assert!(set.targets.class_count() != Some(0));
    }
    let wanted = [Wanted::new("x", DType::F32, vec![Some(2)])];
    let options =
        TableOptions { columns: Default::default(), targets: vec!["y".into()], ..TableOptions::default() };
    for options in [TableOptions::default(), options] {
        let Ok(table) = spec.table(&wanted, &options) else { continue };
        for column in table.columns() {
            assert!(!column.name.is_empty());
        }
    }
}

/// Images and labels in IDX files: one input is both, cut at its middle.
pub fn idx(bytes: &[u8], folder: &Path) {
    let (images, labels) = bytes.split_at(bytes.len() / 2);
    written(folder, "train-images-idx3-ubyte", images);
    written(folder, "train-labels-idx1-ubyte", labels);
    let _ = DataSpec::Idx(folder.to_path_buf()).load(&LoadOptions::default());
    written(folder, "train-images-idx3-ubyte", bytes);
    let _ = DataSpec::Idx(folder.to_path_buf()).load(&LoadOptions::default());
}

/// A PNG or JPEG image, in two classes and as a mask.
pub fn images(bytes: &[u8], folder: &Path) {
    for name in ["train/a/1.png", "train/b/1.png", "masks/images/1.png", "masks/masks/1.png"] {
        written(folder, name, bytes);
    }
    let options = LoadOptions { image_shape: Some([1, 4, 4]), ..LoadOptions::default() };
    if let Ok(set) = DataSpec::Folder(folder.join("train")).load(&options) {
        // Decodes them.
        let all: Vec<u32> = (0..set.parts.train.len() as u32).collect();
        let _ = wattle_data::Normalisation::measure(&set, &all);
    }
    let wanted = [Wanted::new("x", DType::F32, vec![Some(1), Some(4), Some(4)])];
    if let Ok(table) = DataSpec::Masks(folder.join("masks")).table(&wanted, &TableOptions::default()) {
        let _ = wattle_data::Splits::new(&table, &wattle_data::SplitOptions::default());
    }
}

/// A safetensors file, as tensors, as weights and as a checkpoint.
pub fn safetensors(bytes: &[u8], folder: &Path) {
    let path = written(folder, "w.safetensors", bytes);
    let _ = wattle_train::tensor_file::read_tensors(&path);
    let _ = wattle_train::weights::read_weights(&path);
    let _ = wattle_train::checkpoint::Checkpoint::read(&path);
}

/// Architectures, energies, constraints and mappings, in TOML and in YAML.
pub fn accel_files(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for syntax in [Syntax::Toml, Syntax::Yaml] {
        let _ = Architecture::parse_as(syntax, text);
        let _ = Constraints::parse(syntax, text);
        if let Ok(EnergyFile::Binding(binding)) = EnergyFile::parse(syntax, text) {
            let _ = binding.table(text);
        }
    }
    let _ = MappingFile::parse(text);
}

/// A receipt, its sum with itself, and every form it is exported in.
pub fn receipt(bytes: &[u8]) {
    let Ok(receipt) = Receipt::from_json(&String::from_utf8_lossy(bytes)) else { return };
    let again = Receipt::from_json(&receipt.to_json()).expect("what is written is read");
    assert_eq!(again.to_json(), receipt.to_json());
    let receipts = [receipt.clone()];
    let _ = receipt.plus(&receipt).map(|sum| sum.to_json());
    let _ = (export::spreadsheet(&receipts), export::codecarbon(&receipts), export::open_metrics(&receipt));
    let _ = (export::otlp(&receipt), export::model_card(&receipt));
    let _ = ledger::sums(&receipts, &ledger::Group::Month);
}

/// A ledger.
pub fn ledger_lines(bytes: &[u8], folder: &Path) {
    let path = written(folder, "ledger.jsonl", bytes);
    let (receipts, unreadable) = ledger::read(&path).expect("it can be opened");
    assert!(receipts.len() + unreadable <= bytes.len());
    let _ = ledger::sums(&receipts, &ledger::Group::All);
}

/// A log of epochs that grows.
pub fn epoch_log(bytes: &[u8], folder: &Path) {
    let log = written(folder, "metrics.jsonl", b"");
    let epochs = Epochs::new(EpochOptions { total: 3, pattern: None, log: Some(log) });
    let (first, _) = bytes.split_at(bytes.len() / 2);
    for (second, part) in [(1, first), (2, bytes)] {
        written(folder, "metrics.jsonl", part);
        let now = Snapshot { elapsed: Duration::from_secs(second), energy: None, power: None };
        let _ = epochs.look(&now);
    }
}

/// Series of carbon intensities, and points of error against computation.
pub fn series(bytes: &[u8]) {
    let _ = schedule::read(bytes);
    let _ = scaling::read(bytes);
}

/// What options say as text: what is understood is written as a text that means the same.
pub fn option_texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    fn again<T: std::str::FromStr + std::fmt::Display>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            let written = value.to_string();
            let read = written.parse::<T>().map(|value| value.to_string());
            assert!(read.as_ref().is_ok_and(|read| *read == written), "{text:?} becomes {written:?}");
        }
    }
    again::<wattle_train::schedule::Schedule>(text);
    again::<wattle_train::objective::Loss>(text);
    again::<wattle_train::moment::Moment>(text);
    again::<wattle_train::early_stop::EarlyStop>(text);
    again::<wattle_train::groups::Names>(text);
    again::<wattle_train::groups::Rates>(text);
    again::<wattle_train::metric::Metric>(text);
    again::<wattle_data::Augmentation>(text);
    again::<wattle_data::ColumnMap>(text);
    let _ = wattle_data::parse_share(text);
}

/// Runs a target by its name, in a folder of this process.
pub fn run(name: &str, bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("wattle-fuzz-{}", std::process::id()));
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes, &folder);
}
