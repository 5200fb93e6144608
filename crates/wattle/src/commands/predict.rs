//! `wattle predict`: what a model says of images, tables, arrays and texts.

use std::path::PathBuf;

use wattle_data::{ColumnMap, NormalisationChoice, Resize};
use wattle_jobs::predict::{Predicted, Prediction};
use wattle_jobs::{PredictOptions, predict};
use wattle_report::{Align, Table, number, receipt as receipts};

use super::training::{inputs, told};
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use crate::names::named;

/// Arguments of `wattle predict`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle predict lean/lean.onnx photos/*.jpg --resize crop\n\
    Example: wattle predict run/model.onnx rows.csv --json")]
pub struct Args {
    /// The ONNX model. Its file says what inputs are normalised with and how classes are called, if wattle wrote it.
    model: PathBuf,
    /// Images (.png, .jpg), tables (.csv, .tsv), arrays (.npy, .npz) and texts (.txt).
    #[arg(required_unless_present = "model_flag")]
    files: Vec<PathBuf>,
    /// The same model, as a flag: then all others are files.
    #[arg(id = "model_flag", long = "model", value_name = "MODEL")]
    flag: Option<PathBuf>,
    /// A file with the name of a class a line, for a model whose file names none.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// How many classes are told of each sample.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    top: u32,
    /// What becomes of images of another size than the model's; refused if left out.
    #[arg(long, value_parser = named(&Resize::ALL))]
    resize: Option<Resize>,
    /// What float inputs are normalised with, if not as the model's file says: none, unit (x / 255), imagenet, or
    /// mean=M,std=S with one number or one a channel (M;M;M).
    #[arg(long, value_name = "HOW")]
    normalise: Option<NormalisationChoice>,
    /// Which columns or arrays feed which input of the model, where names differ: `input=array`, `x=a+b`.
    #[arg(long, value_name = "INPUT=COLUMN")]
    columns: Option<ColumnMap>,
    /// A tokenizer.json for text, or `bytes`.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, mut files, flag, classes, top, resize, normalise, columns, tokenizer } = args;
    let model = match flag {
        Some(flag) => {
            files.insert(0, model);
            flag
        }
        None => model,
    };
    let columns = columns.unwrap_or_default();
    let top = top as usize;
    let options = PredictOptions { model, files, classes, top, resize, normalise, columns, tokenizer };
    let predicted = predict(&options, context, &mut Bars::default())?;
    context.print(&predicted, &text(&predicted))
}

/// Numbers of an output that are shown of a sample.
const SHOWN: usize = 6;

fn text(predicted: &Predicted) -> String {
    let mut table = match predicted.probabilities {
        Some(_) => Table::new([
            ("sample", Align::Left),
            ("class", Align::Left),
            ("probability", Align::Right),
            ("then", Align::Left),
        ]),
        None => Table::new([("sample", Align::Left), (predicted.output.as_str(), Align::Left)]),
    };
    for (at, prediction) in predicted.predictions.iter().enumerate() {
        let is_one_of_several = predicted.predictions.get(at + 1).is_some_and(|next| next.sample > 0);
        let place = place(prediction, is_one_of_several);
        match &prediction.classes[..] {
            [] => {
                let mut values: Vec<String> =
                    prediction.values.iter().take(SHOWN).map(|value| format!("{value:.4}")).collect();
                if prediction.values.len() > SHOWN {
                    values.push(format!("and {} more", prediction.values.len() - SHOWN));
                }
                table.row([place, values.join(" ")]);
            }
            [first, rest @ ..] => {
                let shown = rest.iter().map(|c| format!("{} {}", c.class, number::percent(c.probability)));
                let rest = shown.collect::<Vec<_>>().join(", ");
                table.row([place, first.class.clone(), number::percent(first.probability), rest]);
            }
        }
    }
    let source = predicted.probabilities.as_ref().map(|source| format!("probabilities: {source}\n"));
    format!(
        "{table}\n{}{}{}\n{}",
        source.unwrap_or_default(),
        inputs(&predicted.normalisation),
        told(&predicted.notes),
        receipts::summary(&predicted.receipt)
    )
}

/// A file, and where in it, if it holds several samples.
fn place(prediction: &Prediction, is_one_of_several: bool) -> String {
    let file = prediction.file.display();
    match (prediction.line, prediction.sample) {
        (Some(line), _) => format!("{file}, line {line}"),
        (None, 0) if !is_one_of_several => file.to_string(),
        (None, sample) => format!("{file}, sample {sample}"),
    }
}
