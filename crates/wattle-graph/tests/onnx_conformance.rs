//! The ONNX project's own node cases, imported and interpreted: every case of supported operators must pass.
//!
//! Data: Debian package `libonnx-testdata`, or the folder named by `WATTLE_ONNX_TESTDATA`.
#![allow(clippy::print_stderr, reason = "what was skipped must be seen")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use wattle_graph::onnx::{Limits, OnnxError, decode_model, decode_tensor};
use wattle_graph::{Parameters, Tensor, interpret};

/// Where Debian puts the data.
const DEBIAN: &str = "/usr/share/libonnx-testdata/data";

/// onnxruntime differs from these data in the same way.
const UNROUNDED: &str = "aligns to the corner of an extent that is not rounded down to whole pixels";
const RANDOM: &str = "draws other random numbers than the generator of the data";

/// Cases of supported operators that are known to differ, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("test_bernoulli", RANDOM),
    ("test_bernoulli_double", RANDOM),
    ("test_bernoulli_double_expanded", RANDOM),
    ("test_bernoulli_expanded", RANDOM),
    ("test_bernoulli_seed", RANDOM),
    ("test_bernoulli_seed_expanded", RANDOM),
    ("test_resize_downsample_scales_cubic_align_corners", UNROUNDED),
    ("test_resize_downsample_scales_linear_align_corners", UNROUNDED),
    ("test_training_dropout", RANDOM),
    ("test_training_dropout_default", RANDOM),
    ("test_training_dropout_default_mask", RANDOM),
    ("test_training_dropout_mask", RANDOM),
];

/// The name inside a serialised tensor.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "8")]
    name: String,
}

/// What became of one case.
enum Outcome {
    Passed,
    /// Names of the operators that are not supported.
    Operators(Vec<String>),
    /// An element type, a sequence or an optional that wattle does not compute with.
    Types,
    /// An operator set outside what is read.
    OperatorSet,
    Failed(String),
}

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("WATTLE_ONNX_TESTDATA").map_or_else(|| DEBIAN.into(), PathBuf::from);
    let nodes = folder.join("node");
    [nodes, folder].into_iter().find(|f| f.is_dir())
}

/// The inputs of a case, serialised, by name.
fn inputs(case: &Path) -> Vec<(String, Vec<u8>)> {
    (0..)
        .map_while(|index| std::fs::read(case.join(format!("test_data_set_0/input_{index}.pb"))).ok())
        .map(|bytes| (Named::decode(&bytes[..]).map_or(String::new(), |named| named.name), bytes))
        .collect()
}

/// The model with some inputs fixed: cases feed axes and the like, which wattle wants to know on import.
/// Serialised messages merge when they are joined, so initialisers can be added at the end.
fn with_initializers(mut model: Vec<u8>, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2];
        prost::encode_length_delimiter(content.len(), &mut bytes).expect("a vector grows");
        [bytes, content.to_vec()].concat()
    };
    for (_, tensor) in inputs {
        model.extend(field(7, &field(5, tensor)));
    }
    model
}

fn run(case: &Path) -> Outcome {
    let bytes = std::fs::read(case.join("model.onnx")).expect("the case has a model");
    let inputs = inputs(case);
    let limits = Limits::default();
    let mut read = decode_model(&bytes, Some(case), &limits);
    if read.as_ref().is_err_and(|e| e.to_string().contains("must be constant")) {
        let is_setting = |bytes: &[u8]| {
            decode_tensor(bytes, &limits).is_ok_and(|t| !t.dtype().is_float() || t.shape().is_empty())
        };
        let settings: Vec<_> = inputs.iter().filter(|(_, bytes)| is_setting(bytes)).cloned().collect();
        read = decode_model(&with_initializers(bytes, &settings), Some(case), &limits);
    }
    let model = match read {
        Ok(model) => model,
        Err(OnnxError::UnsupportedOperators(list)) => {
            let name = |text: &String| text.split(' ').next().unwrap_or("").to_string();
            return Outcome::Operators(list.iter().map(name).collect());
        }
        Err(error) => {
            let text = error.to_string();
            return match () {
                () if text.contains("operator set") => Outcome::OperatorSet,
                () if text.contains("element type") || text.contains("not a tensor") => Outcome::Types,
                () => Outcome::Failed(format!("import: {text}")),
            };
        }
    };
    let mut feeds = BTreeMap::new();
    for (name, bytes) in &inputs {
        let Ok(tensor) = decode_tensor(bytes, &limits) else { return Outcome::Types };
        feeds.insert(name.clone(), tensor);
    }
    let mut parameters: Parameters = model.parameters;
    let results = match interpret(&model.graph, &mut parameters, &feeds) {
        Ok(results) => results,
        Err(error) => return Outcome::Failed(format!("run: {error}")),
    };
    for (index, result) in results.iter().enumerate() {
        let expected =
            std::fs::read(case.join(format!("test_data_set_0/output_{index}.pb"))).unwrap_or_default();
        let Ok(expected) = decode_tensor(&expected, &limits) else { return Outcome::Types };
        // The data of the windows were computed with fewer digits of pi.
        let tolerance = if case.to_string_lossy().contains("window") { 1e-3 } else { 1e-4 };
        if let Err(reason) = agree(result, &expected, tolerance) {
            return Outcome::Failed(format!("output {index}: {reason}"));
        }
    }
    Outcome::Passed
}

/// Equal types and shapes; integers equal, floats within a fraction of their value (the ONNX project allows 1e-3).
fn agree(found: &Tensor, expected: &Tensor, fraction: f64) -> Result<(), String> {
    let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
    if ty(found) != ty(expected) {
        return Err(format!("{}, expected {}", ty(found), ty(expected)));
    }
    let tolerance = if found.dtype().is_float() { fraction } else { 0.0 };
    for (index, (a, b)) in found.to_f64().iter().zip(expected.to_f64().iter()).enumerate() {
        let equal = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1e-2);
        if !equal {
            return Err(format!("element {index} is {a}, expected {b}"));
        }
    }
    Ok(())
}

#[test]
fn node_cases_of_supported_operators_pass() {
    let Some(folder) = data() else {
        eprintln!(
            "SKIPPED: 1 test, all ONNX node cases: install libonnx-testdata or set WATTLE_ONNX_TESTDATA"
        );
        return;
    };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder was found")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("model.onnx").is_file())
        .collect();
    cases.sort();
    let (mut passed, mut types, mut sets, mut blocked) = (0, 0, 0, 0);
    let mut unsupported: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = vec![];
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let exception = EXCEPTIONS.iter().find(|(excepted, _)| *excepted == name);
        match (run(case), exception) {
            (Outcome::Passed, None) => passed += 1,
            (Outcome::Passed, Some(_)) => {
                failures.push(format!("{name}: passes, but is listed as an exception"))
            }
            (Outcome::Operators(list), _) => {
                blocked += 1;
                list.into_iter().for_each(|op| *unsupported.entry(op).or_default() += 1);
            }
            (Outcome::Types, _) => types += 1,
            (Outcome::OperatorSet, _) => sets += 1,
            (Outcome::Failed(_), Some((_, reason))) => eprintln!("excepted: {name}: {reason}"),
            (Outcome::Failed(reason), None) => failures.push(format!("{name}: {reason}")),
        }
    }
    eprintln!(
        "{} node cases: {passed} passed, {} failed, {blocked} of unsupported operators, {types} of unsupported \
         types, {sets} of other operator sets",
        cases.len(),
        failures.len(),
    );
    let list: Vec<_> = unsupported.iter().map(|(op, count)| format!("{op} {count}")).collect();
    eprintln!("unsupported operators and their cases: {}", list.join(", "));
    assert!(passed > 0, "no case of {} passed", folder.display());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}
