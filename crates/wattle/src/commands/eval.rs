//! `wattle eval`: how good a model is on a part of a data set.

use wattle_jobs::eval::Part;
use wattle_jobs::{EvalOptions, eval};
use wattle_report::receipt as receipts;
use wattle_train::metric::Metric;
use wattle_train::objective::Loss;

use super::model::{NETWORK, Network};
use super::training::{ColumnArgs, DataArgs, inputs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// Arguments of `wattle eval`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle eval lean.onnx --data digits --part test")]
#[command(group = clap::ArgGroup::new("needed").args(NETWORK).required(true))]
pub struct Args {
    #[command(flatten)]
    model: Network,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    /// The samples to evaluate.
    #[arg(long, default_value = "test", value_parser = named(&Part::ALL))]
    part: Part,
    /// The loss to report; by the kind of targets if left out.
    #[arg(long)]
    loss: Option<Loss>,
    /// The label of positions that do not count.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ignore_index: Option<i64>,
    /// What is told beside the loss, such as accuracy, top-5, mean-iou, perplexity, f1, r2; may be repeated.
    #[arg(long = "metric", value_name = "METRIC")]
    metrics: Vec<Metric>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, data, columns, part, loss, ignore_index, metrics } = args;
    let model = model.name().unwrap_or_default();
    let options = EvalOptions { model, data: data.with_columns(columns), part, loss, ignore_index, metrics };
    let found = eval(&options, context, &mut Bars::default())?;
    let accuracy = found.accuracy.map_or(String::new(), |a| format!("accuracy {:.2} %, ", 100.0 * a));
    let metrics: String = found.metrics.iter().map(|(name, value)| format!("{name} {value:.4}, ")).collect();
    let text = format!(
        "{accuracy}{metrics}loss {:.4} on {} {} samples\n{}{}\n{}",
        found.loss,
        found.samples,
        part.as_str(),
        inputs(&found.normalisation),
        told(&found.notes),
        receipts::summary(&found.receipt)
    );
    context.print(&found, &text)
}
