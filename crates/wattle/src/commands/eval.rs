//! `wattle eval`: how good a model is on a part of a data set.

use serde::Serialize;
use wattle_meter::{Receipt, Unit, Work};
use wattle_report::receipt as receipts;
use wattle_train::evaluation::evaluate;
use wattle_train::network::Init;

use super::training::{self, DataArgs, LossName};
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle eval`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle eval --model lean.onnx --data digits --part test")]
pub struct Args {
    /// The .onnx model.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    data: DataArgs,
    /// The samples to evaluate.
    #[arg(long, value_enum, default_value_t = Part::Test)]
    part: Part,
    /// The loss to report; by the kind of targets if left out.
    #[arg(long, value_enum)]
    loss: Option<LossName>,
}

/// A part of a data set.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What is trained on.
    Train,
    /// What chooses.
    Validation,
    /// What judges.
    Test,
}

#[derive(Serialize)]
struct Document {
    accuracy: Option<f64>,
    loss: f64,
    samples: usize,
    part: Part,
    receipt: Receipt,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let meter = context.meter();
    let prepared = training::prepare(&args.data, args.loss)?;
    let data = &prepared.training;
    let model = training::model(&args.model, data, Init::KaimingNormal, 0)?;
    let classes = data.dataset.targets.class_count().is_some();
    let loss = args.loss.unwrap_or(if classes { LossName::CrossEntropy } else { LossName::Mse }).loss();
    let indices = match args.part {
        Part::Train => prepared.splits.train().to_vec(),
        Part::Validation => prepared.splits.validation().to_vec(),
        Part::Test => prepared.splits.take_test().into_indices(),
    };
    if indices.is_empty() {
        return Err(Failure::Input(format!(
            "--part: the {:?} part of {} is empty",
            args.part, data.dataset.name
        )));
    }
    let found = evaluate(&model, &data.part(&indices)?, &loss, &[], &context.plan_options())?;
    let mut receipt = meter.stop();
    receipt.work.samples = Some(Work::counted(found.samples as u64, Unit::Sample));
    context.record(&mut receipt);
    let accuracy = found.accuracy.map_or(String::new(), |a| format!("accuracy {:.2} %, ", 100.0 * a));
    let part = format!("{:?}", args.part).to_lowercase();
    let text = format!(
        "{accuracy}loss {:.4} on {} {part} samples\n\n{}",
        found.loss,
        found.samples,
        receipts::summary(&receipt)
    );
    let (accuracy, loss, samples) = (found.accuracy, found.loss, found.samples);
    context.print(&Document { accuracy, loss, samples, part: args.part, receipt }, &text)
}
