//! `wattle run`: a model on given inputs, one `.npy` file an output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_engine::{EngineError, Session};
use wattle_graph::{Model, Tensor, costs, interpret, totals};
use wattle_meter::{Receipt, Unit};
use wattle_report::{Align, Table, receipt as receipts};

use crate::context::Context;
use crate::failure::Failure;
use crate::models::{self, InputText};
use crate::npy;
use crate::timings;

/// Arguments of `wattle run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle run model.onnx --input x=image.npy --out results")]
pub struct Args {
    /// The ONNX model.
    model: PathBuf,
    /// .npy file for an input; may be repeated. A shape instead of a file feeds reproducible noise.
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Folder for one .npy file per output.
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// Run by the reference interpreter, the slow definition that the engine is tested against.
    #[arg(long)]
    reference: bool,
}

#[derive(Serialize)]
struct Document {
    outputs: Vec<Output>,
    /// `planned`, or `interpreted` when shapes depend on the data or `--reference` asks for it.
    execution: &'static str,
    receipt: Receipt,
}

#[derive(Serialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    file: PathBuf,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let meter = context.meter();
    let model = models::load(&args.model)?;
    let feeds = models::read_feeds(&args.inputs)?;
    let shapes = args.inputs.iter().any(|(_, i)| matches!(i, InputText::Shape(_)));
    if let Some(&id) =
        model.graph.inputs().iter().find(|&&i| !feeds.contains_key(&model.graph.label(i)) && !shapes)
    {
        let name = model.graph.label(id);
        let ty = &model.graph.value(id).ty;
        return Err(Failure::Input(format!(
            "input `{name}` ({ty}) has no file; give one with --input {name}=x.npy"
        )));
    }
    let model = models::bind(&model, &args.inputs, &feeds)?;
    let feeds = models::made_up(&model, &feeds)?;
    std::fs::create_dir_all(&args.out).map_err(|e| wattle_data::Error::writing(&args.out, &e))?;
    let (outputs, execution) = execute(&model, &feeds, args.reference, context)?;
    let mut written = vec![];
    for (name, tensor) in outputs {
        let file = args.out.join(format!("{}.npy", file_name(&name)));
        npy::write(&file, &tensor)?;
        written.push(Output {
            name,
            shape: tensor.shape().to_vec(),
            dtype: tensor.dtype().to_string(),
            file,
        });
    }
    let mut receipt = meter.stop();
    if let Ok(costs) = costs(&model.graph, &model.parameters) {
        let sums = totals(&costs);
        receipt.work.macs_nominal = Some(wattle_meter::Work::counted(sums.macs, Unit::Mac));
        receipt.work.macs_effective = Some(wattle_meter::Work::counted(sums.effective_macs, Unit::Mac));
    }
    context.record(&mut receipt);
    let mut table = Table::new([("output", Align::Left), ("shape", Align::Left), ("file", Align::Left)]);
    for output in &written {
        let shape = format!("{}{:?}", output.dtype, output.shape);
        table.row([output.name.clone(), shape, output.file.display().to_string()]);
    }
    let text = format!("{table}\n{}", receipts::summary(&receipt));
    context.print(&Document { outputs: written, execution, receipt }, &text)
}

/// Outputs with their names.
type Named = Vec<(String, Tensor)>;

/// Plans and runs the model; a model whose shapes depend on its data is interpreted instead, slowly.
fn execute(
    model: &Model,
    feeds: &BTreeMap<String, Tensor>,
    reference: bool,
    context: &Context,
) -> Result<(Named, &'static str), Failure> {
    if reference {
        return Ok((interpreted(model, feeds)?, "interpreted"));
    }
    match timings::compile_once(&model.graph, &model.parameters, context.plan_options()) {
        Ok(plan) => {
            let mut session = Session::new(plan, &model.parameters)?;
            for (name, tensor) in feeds {
                session.set_input(name, tensor)?;
            }
            session.run()?;
            Ok((session.outputs()?, "planned"))
        }
        Err(EngineError::UnknownShape { .. }) => Ok((interpreted(model, feeds)?, "interpreted")),
        Err(other) => Err(other.into()),
    }
}

fn interpreted(model: &Model, feeds: &BTreeMap<String, Tensor>) -> Result<Named, Failure> {
    let tensors = interpret(&model.graph, &mut model.parameters.clone(), feeds)?;
    let names = model.graph.outputs().iter().map(|&o| model.graph.label(o));
    Ok(names.zip(tensors).collect())
}

/// The output's name as a file name: separators and the like become `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let text: String = name.chars().map(safe).collect();
    if text.trim_matches('.').is_empty() { "output".into() } else { text.trim_start_matches('.').into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_output_names_stay_in_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_name(".."), "output");
    }
}
