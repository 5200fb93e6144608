//! `wattle run`: a model on given inputs, one `.npy` file an output.

use std::path::PathBuf;

use wattle_jobs::RunOptions;
use wattle_jobs::models::{InputText, parse_input};
use wattle_report::{Align, Table, receipt as receipts};

use super::model::ModelFile;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle run model.onnx --input x=image.npy --out results")]
pub struct Args {
    #[command(flatten)]
    model: ModelFile,
    /// .npy file for an input; may be repeated. A shape instead of a file feeds reproducible noise, and so does nothing at all.
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Folder for one .npy file per output.
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Run by the reference interpreter, the slow definition that the engine is tested against.
    #[arg(long)]
    reference: bool,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let Args { model, inputs, out, reference } = args;
    let model = model.path();
    let ran = wattle_jobs::run(&RunOptions { model, inputs, out, reference }, context, &mut Bars::default())?;
    let mut table = Table::new([("output", Align::Left), ("shape", Align::Left), ("file", Align::Left)]);
    for output in &ran.outputs {
        let shape = format!("{}{:?}", output.dtype, output.shape);
        table.row([output.name.clone(), shape, output.file.display().to_string()]);
    }
    let noise = match &ran.noise[..] {
        [] => String::new(),
        names => format!("note: no file was given for {}: noise was fed\n", names.join(", ")),
    };
    context.print(&ran, &format!("{table}\n{noise}\n{}", receipts::summary(&ran.receipt)))
}
