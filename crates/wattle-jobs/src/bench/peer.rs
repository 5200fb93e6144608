//! Another runtime in a child process: a Python that is asked for runs, a JSON line for a question and for an answer.
//!
//! The script is part of the binary (`peer.py`). Tensors go through `.npy` files in a temporary folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use wattle_graph::Tensor;

use crate::error::{JobError, Result};
use crate::npy;

const SCRIPT: &str = include_str!("peer.py");

/// Which runtime to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerName {
    /// ONNX Runtime's processor provider.
    Onnxruntime,
    /// PyTorch, eager, the model's operators translated one by one; contiguous and channels-last tensors.
    Torch,
    /// DeepSparse 1.8 (discontinued, evaluation only): pip install deepsparse==1.8.0 "numpy<2" on Python 3.11.
    Deepsparse,
}

impl PeerName {
    /// Every runtime with its name and a sentence about it.
    pub const ALL: [(&str, PeerName, &str); 3] = [
        ("onnxruntime", PeerName::Onnxruntime, "ONNX Runtime's processor provider"),
        (
            "torch",
            PeerName::Torch,
            "PyTorch, eager, the model's operators translated one by one; contiguous and channels-last tensors",
        ),
        (
            "deepsparse",
            PeerName::Deepsparse,
            "DeepSparse 1.8 (discontinued, evaluation only): pip install deepsparse==1.8.0 \"numpy<2\" on Python 3.11",
        ),
    ];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerName::Onnxruntime => "onnxruntime",
            PeerName::Torch => "torch",
            PeerName::Deepsparse => "deepsparse",
        }
    }
}

/// What is to be run.
pub struct Task<'a> {
    /// The ONNX file.
    pub model: &'a Path,
    /// Its inputs.
    pub feeds: &'a BTreeMap<String, Tensor>,
    /// The outputs to be compared.
    pub outputs: &'a [String],
    /// Threads to compute with.
    pub threads: usize,
    /// A training step instead of an inference: the optimiser by name, its rate, and the labels.
    pub training: Option<(&'a str, f64, &'a Tensor)>,
}

#[derive(Serialize)]
struct Training<'a> {
    optimizer: &'a str,
    rate: f64,
    labels: PathBuf,
}

/// A question.
#[derive(Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Question<'a> {
    Load {
        peer: &'a str,
        model: &'a Path,
        threads: usize,
        inputs: &'a BTreeMap<String, PathBuf>,
        outputs: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        training: Option<Training<'a>>,
    },
    Run {
        variant: &'a str,
        runs: usize,
    },
    Outputs {
        variant: &'a str,
        folder: &'a Path,
    },
}

/// An answer; `error` alone when there is none.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    /// Whether what was asked for cannot work here, rather than failed.
    unusable: bool,
    version: String,
    variants: Vec<String>,
    ms: Vec<f64>,
    files: Vec<PathBuf>,
}

/// A peer with a model loaded.
pub struct Peer {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
    /// Its version.
    pub version: String,
    /// Ways of running the model, such as memory formats.
    pub variants: Vec<String>,
}

impl Peer {
    /// Starts `python` and has it load the model and its inputs.
    pub fn start(python: &Path, peer: PeerName, task: &Task<'_>) -> Result<Peer> {
        let &Task { threads, outputs, .. } = task;
        let io = |e: std::io::Error| JobError::run(format!("temporary folder for the peer: {e}"));
        let folder = tempfile::Builder::new().prefix("wattle-bench-").tempdir().map_err(io)?;
        let mut inputs = BTreeMap::new();
        for (index, (name, tensor)) in task.feeds.iter().enumerate() {
            let path = folder.path().join(format!("input{index}.npy"));
            npy::write(&path, tensor)?;
            inputs.insert(name.clone(), path);
        }
        let mut training = None;
        if let Some((optimizer, rate, labels)) = task.training {
            let path = folder.path().join("labels.npy");
            npy::write(&path, labels)?;
            training = Some(Training { optimizer, rate, labels: path });
        }
        // The runtimes read their thread counts before the script can say anything.
        let said = File::create(folder.path().join("stderr")).map_err(io)?;
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("MKL_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .map_err(|e| {
                JobError::input(format!(
                    "cannot start `{}`: {e}; name a Python that has {} by its path: option `python`",
                    python.display(),
                    peer.as_str()
                ))
            })?;
        let missing = || JobError::run("the peer has no pipe");
        let (questions, answers) =
            (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
        let mut started = Peer {
            child,
            questions: Some(questions),
            answers: BufReader::new(answers),
            folder,
            version: String::new(),
            variants: vec![],
        };
        let model = std::path::absolute(task.model).map_err(|e| JobError::at(task.model.display(), e))?;
        let load = Question::Load {
            peer: peer.as_str(),
            model: &model,
            threads,
            inputs: &inputs,
            outputs,
            training,
        };
        let answer = started.ask(&load).map_err(|e| e.context(python.display()))?;
        started.version = answer.version;
        started.variants = answer.variants;
        if started.variants.is_empty() {
            return Err(JobError::run(format!("{}: the peer names no way to run the model", peer.as_str())));
        }
        Ok(started)
    }

    /// The process, for its share of the processor.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Times `runs` runs after one that is not counted: milliseconds.
    pub fn run(&mut self, variant: &str, runs: usize) -> Result<Vec<f64>> {
        let answer = self.ask(&Question::Run { variant, runs })?;
        if answer.ms.len() != runs || answer.ms.iter().any(|ms| !(*ms > 0.0 && ms.is_finite())) {
            return Err(JobError::run(format!("the peer gave {} times for {runs} runs", answer.ms.len())));
        }
        Ok(answer.ms)
    }

    /// The outputs of a run, in the order asked for.
    pub fn outputs(&mut self, variant: &str) -> Result<Vec<Tensor>> {
        let folder = self.folder.path().to_path_buf();
        let answer = self.ask(&Question::Outputs { variant, folder: &folder })?;
        answer.files.iter().map(|path| npy::read(path)).collect()
    }

    fn ask(&mut self, question: &Question<'_>) -> Result<Answer> {
        let mut line = serde_json::to_string(question)
            .map_err(|e| JobError::run(format!("a question to the peer cannot be written: {e}")))?;
        line.push('\n');
        let mut text = String::new();
        let sent = self.questions.as_mut().map(|pipe| pipe.write_all(line.as_bytes()));
        if sent.is_none_or(|sent| sent.is_err()) || self.answers.read_line(&mut text).unwrap_or(0) == 0 {
            let code = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            return Err(JobError::run(format!("the peer's process ended ({code}){}", self.said())));
        }
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|e| JobError::run(format!("the peer answered `{}`: {e}", text.trim())))?;
        match answer.error {
            Some(error) if answer.unusable => Err(JobError::input(error)),
            Some(error) => Err(JobError::run(format!("{error}{}", self.said()))),
            None => Ok(answer),
        }
    }

    /// The last lines on the peer's stderr.
    fn said(&self) -> String {
        let text = std::fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        match &lines[lines.len().saturating_sub(4)..] {
            [] => String::new(),
            last => format!("; it said last:\n{}", last.join("\n")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its stdin closes, which ends a script that still listens; a runtime that hangs is ended.
        self.questions = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
