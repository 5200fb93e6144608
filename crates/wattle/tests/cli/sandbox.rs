//! A folder of its own for a test, and the binary run in it; the user's ledger is out of reach.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use wattle_data::SampleShape;
use wattle_graph::ops::{Conv, Function, Sliding, Unary};
use wattle_graph::{DType, Dim, Graph, Model, Parameters, Tensor, onnx};
use wattle_train::network::{self, Init};

/// A temporary folder.
pub struct Sandbox(TempDir);

impl Sandbox {
    /// An empty one.
    pub fn new() -> Sandbox {
        Sandbox(TempDir::new().expect("the machine has room for a temporary folder"))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The bytes of a file in it.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// The command, not yet started; arguments are separated by blanks.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle"));
        command.args(line.split_whitespace()).current_dir(self.0.path());
        command.env("XDG_DATA_HOME", self.path("data")).env("HOME", self.0.path());
        // What the person at the keyboard has set must not change what a test sees.
        command.env_remove("WATTLE_LEDGER").env_remove("WATTLE_ISA").env("WATTLE_TIMINGS", "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("the binary was built with this test")
    }

    /// Runs a command that must succeed; returns its stdout.
    pub fn text(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "`wattle {line}` failed: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("stdout is UTF-8")
    }

    /// Runs a command with `--json` that must succeed; stdout must be one JSON document and nothing else.
    pub fn json(&self, line: &str) -> Value {
        let text = self.text(&format!("{line} --json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("`wattle {line} --json` printed no JSON: {e}\n{text}"))
    }

    /// Writes LeNet-300-100 for rows of 64 numbers and this many classes.
    pub fn classifier(&self, name: &str, outputs: usize) {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let model =
            network::build("lenet-300-100", &sample, outputs, Init::KaimingNormal, 5).expect("it exists");
        self.model(name, &model);
    }

    /// Writes LeNet-300-100 for rows of so many numbers and this many outputs.
    pub fn rows_classifier(&self, name: &str, inputs: usize, outputs: usize) {
        let sample = SampleShape::Features(inputs);
        let model =
            network::build("lenet-300-100", &sample, outputs, Init::KaimingNormal, 5).expect("it exists");
        self.model(name, &model);
    }

    /// Writes ResNet-20 for images of 1x8x8 and ten classes: 21 batch normalisations.
    pub fn normalised_classifier(&self, name: &str) {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let model = network::build("resnet-20", &sample, 10, Init::KaimingNormal, 5).expect("it exists");
        self.model(name, &model);
    }

    /// Writes the model of [`Sandbox::two_by_two`] with two operators that nobody knows, Rulu and Tonh.
    pub fn strange(&self, name: &str) {
        self.two_by_two(name);
        let mut bytes = self.read(name);
        for (known, unknown) in [(b"Relu", b"Rulu"), (b"Tanh", b"Tonh")] {
            let at = bytes.windows(4).position(|w| w == known).expect("the operator is in the file");
            bytes[at..at + 4].copy_from_slice(unknown);
        }
        self.write(name, bytes);
    }

    /// Writes a model of two inputs `x` and `y` (f32 `[N, 3]`) with two outputs, `relu(x)` and `tanh(y)`.
    pub fn two_by_two(&self, name: &str) {
        let mut graph = Graph::new("two");
        let shape = vec![Dim::symbol("N"), Dim::Known(3)];
        for (input, output, function) in
            [("x", "positive", Function::Relu), ("y", "squashed", Function::Tanh)]
        {
            let value = graph.input(input, DType::F32, shape.clone());
            let value = graph.apply(Unary { function }, &[value]).expect("one float operand");
            graph.rename(value, output);
            graph.output(value);
        }
        self.model(name, &Model::new(graph, Parameters::new()));
    }

    /// Writes a convolution of `x` (f32 `[N, 2, H, W]`) by a constant.
    pub fn open_shape(&self, name: &str) {
        let mut graph = Graph::new("open");
        let shape = vec![Dim::symbol("N"), Dim::Known(2), Dim::symbol("H"), Dim::symbol("W")];
        let x = graph.input("x", DType::F32, shape);
        let w = graph.constant(Tensor::f32([3, 2, 3, 3], vec![1.0; 54]));
        let y = graph.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &[x, w]).expect("it fits");
        graph.rename(y, "y");
        graph.output(y);
        self.model(name, &Model::new(graph, Parameters::new()));
    }

    /// Writes a model.
    pub fn model(&self, name: &str, model: &Model) {
        self.write(name, onnx::encode_model(model).expect("our own graphs can be exported"));
    }
}

/// What was said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files and their bytes below a folder, sorted, without the lock that every process rewrites.
pub fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder exists") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|n| n != "lock") {
                found.push((path.clone(), std::fs::read(&path).expect("the file can be read")));
            }
        }
    }
    found.sort();
    found
}

/// An `.npy` file, version 1.0, of this type and shape as numpy writes them.
pub fn npy(dtype: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat(64 - (10 + header.len() + 1) % 64);
    header.push('\n');
    [b"\x93NUMPY\x01\x00", (header.len() as u16).to_le_bytes().as_slice(), header.as_bytes(), elements]
        .concat()
}
