//! Four networks that PyTorch exported learn as they learn in PyTorch: the same losses, step by step.
//!
//! The files in `follow` are written by `benches/training/follow.py`, which needs PyTorch; this test needs only them. They
//! hold the networks with the weights that training starts from, the data in its order, and the loss before each of 50
//! updates. A Transformer reads tokens and a mask of its padding, an LSTM predicts the next token under clipped gradients,
//! a U-Net learns pixels of which some are ignored, and a network of two inputs learns numbers without decaying its biases.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wattle_data::{Batch, Column, ColumnInfo, Result, Source};
use wattle_engine::{Cpu, PlanOptions};
use wattle_graph::DType;
use wattle_graph::onnx::{Limits, decode_model};
use wattle_train::experiment::Experiment;
use wattle_train::objective::Loss;
use wattle_train::optimizer::Optimizer;
use wattle_train::options::TrainOptions;
use wattle_train::tensor_file::{Dtype, read_tensors};
use wattle_train::trainer::Trainer;

/// Largest difference of the loss before the last update, relative to it.
const TOLERANCE: f64 = 1e-4;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/follow").join(name)
}

/// The columns of a file, batch after batch, in order, over and over.
struct InOrder {
    infos: Vec<ColumnInfo>,
    whole: Vec<Column>,
    batch: usize,
}

impl InOrder {
    fn read(name: &str, batch: usize) -> InOrder {
        let (tensors, _) = read_tensors(&file(&format!("{name}.safetensors"))).unwrap();
        let dtype = |dtype| match dtype {
            Dtype::F32 => DType::F32,
            Dtype::U8 => DType::U8,
            Dtype::I16 => DType::I16,
            Dtype::BOOL => DType::Bool,
            other => panic!("no column of {other:?} was stored"),
        };
        let whole: Vec<Column> = tensors
            .into_iter()
            .map(|t| Column { name: t.name, dtype: dtype(t.dtype), extents: t.shape, bytes: t.bytes })
            .collect();
        let infos =
            whole.iter().map(|c| ColumnInfo::new(c.name.as_str(), c.dtype, &c.extents[1..])).collect();
        InOrder { infos, whole, batch }
    }
}

impl Source for InOrder {
    fn columns(&self) -> &[ColumnInfo] {
        &self.infos
    }

    fn epoch_len(&self) -> u64 {
        (self.whole[0].extents[0] / self.batch) as u64
    }

    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
        batch.shape_as(&self.infos, self.batch);
        let first = (step % self.epoch_len()) as usize * self.batch;
        for (column, (whole, info)) in batch.columns.iter_mut().zip(self.whole.iter().zip(&self.infos)) {
            let width = info.bytes();
            column.bytes.copy_from_slice(&whole.bytes[first * width..][..self.batch * width]);
        }
        (batch.step, batch.epoch, batch.real) = (step, step / self.epoch_len(), self.batch);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        "in order".into()
    }
}

/// Losses of 50 steps, here and in PyTorch.
fn followed(name: &str, options: TrainOptions) -> (Vec<f64>, Vec<f64>) {
    let bytes = std::fs::read(file(&format!("{name}.onnx"))).unwrap();
    let model = decode_model(&bytes, None, &Limits::default()).unwrap();
    let source = Arc::new(InOrder::read(name, options.batch));
    let plan = PlanOptions::new(Arc::new(Cpu::new(1).unwrap()));
    let mut trainer = Trainer::new(&Experiment::new(model, source, options, plan)).unwrap();
    assert_eq!(trainer.notes().without_gradient, Vec::<String>::new(), "{name}");
    let found = (0..50).map(|_| f64::from(trainer.advance().unwrap().loss)).collect();
    let text = std::fs::read_to_string(file(&format!("{name}.txt"))).unwrap();
    (found, text.lines().map(|line| line.parse().unwrap()).collect())
}

fn follows(name: &str, options: TrainOptions) {
    let (found, expected) = followed(name, options);
    let off = |step: usize| (found[step] - expected[step]).abs() / expected[step].abs();
    assert!(off(0) < 1e-6, "{name}: the first loss is {}, in PyTorch {}", found[0], expected[0]);
    assert!(
        off(49) < TOLERANCE,
        "{name}: off by {:?}",
        (0..50).map(|step| format!("{:.1e}", off(step))).collect::<Vec<_>>()
    );
    assert!(expected[49] < 0.7 * expected[0], "{name} learns");
}

fn options(loss: &str, batch: usize, learning_rate: f64, optimizer: Optimizer) -> TrainOptions {
    let loss: Loss = loss.parse().unwrap();
    let length = "50it".parse().unwrap();
    TrainOptions { batch, length, learning_rate, optimizer, ..TrainOptions::new(loss) }
}

#[test]
fn a_transformer_classifies_tokens_under_a_padding_mask() {
    let adamw = Optimizer::AdamW { weight_decay: 0.01 };
    follows("token-classifier", options("cross-entropy:ignore=-100", 8, 3e-3, adamw));
}

#[test]
fn an_lstm_predicts_the_next_token_under_clipped_gradients() {
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let clipped = TrainOptions { clip: Some(0.1), ..options("cross-entropy", 8, 0.3, sgd) };
    follows("lstm-language-model", clipped.clone());
    // The clipping is part of what is followed.
    let (found, expected) = followed("lstm-language-model", TrainOptions { clip: None, ..clipped });
    assert!((found[49] - expected[49]).abs() > TOLERANCE * expected[49]);
}

#[test]
fn a_u_net_learns_the_pixels_that_are_not_ignored() {
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-3 };
    follows("u-net", options("cross-entropy:ignore=255", 4, 0.05, sgd));
}

#[test]
fn two_inputs_give_numbers_and_biases_do_not_decay() {
    let mut two = options("mse", 8, 5e-3, Optimizer::Adam { weight_decay: 0.01 });
    two.groups.no_decay = "bias".parse().unwrap();
    follows("two-inputs", two);
}
