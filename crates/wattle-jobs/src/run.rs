//! A model on given inputs, one `.npy` file an output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_engine::{EngineError, Session, Store};
use wattle_graph::{Model, Tensor, costs, interpret, totals};
use wattle_meter::{Receipt, Unit, Work};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::models::{self, InputText};
use crate::npy;
use crate::observer::Observer;
use crate::timings;

/// What to run on what.
#[derive(Clone, Debug, Serialize)]
pub struct RunOptions {
    /// The ONNX model.
    pub model: PathBuf,
    /// An `.npy` file for each input, or a shape that is filled with reproducible noise.
    pub inputs: Vec<(String, InputText)>,
    /// Folder for one `.npy` file per output.
    pub out: PathBuf,
    /// Run by the reference interpreter, the slow definition that the engine is tested against.
    pub reference: bool,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    /// The outputs, in the model's order.
    pub outputs: Vec<Output>,
    /// `planned`, or `interpreted` when shapes depend on the data or the reference was asked for.
    pub execution: &'static str,
    /// What it took.
    pub receipt: Receipt,
}

/// An output that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// Its name in the model.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: String,
    /// Where it is.
    pub file: PathBuf,
}

/// Runs a model once and writes its outputs.
pub fn run(options: &RunOptions, env: &Env, _observer: &mut dyn Observer) -> Result<Ran> {
    let meter = env.meter();
    let model = models::load(&options.model)?;
    let feeds = models::read_feeds(&options.inputs)?;
    let shapes = options.inputs.iter().any(|(_, i)| matches!(i, InputText::Shape(_)));
    if let Some(&id) =
        model.graph.inputs().iter().find(|&&i| !feeds.contains_key(&model.graph.label(i)) && !shapes)
    {
        let name = model.graph.label(id);
        let ty = &model.graph.value(id).ty;
        return Err(JobError::option("input", format!("`{name}` ({ty}) has no file; expected {name}=x.npy")));
    }
    let model = models::bind(&model, &options.inputs, &feeds)?;
    let feeds = models::made_up(&model, &feeds)?;
    std::fs::create_dir_all(&options.out).map_err(|e| wattle_data::Error::writing(&options.out, &e))?;
    let (outputs, execution) = execute(&model, &feeds, options.reference, env)?;
    let mut written = vec![];
    for (name, tensor) in outputs {
        let file = options.out.join(format!("{}.npy", file_name(&name)));
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
        receipt.work.macs_nominal = Some(Work::counted(sums.macs, Unit::Mac));
        receipt.work.macs_effective = Some(Work::counted(sums.effective_macs, Unit::Mac));
    }
    env.record(&mut receipt);
    Ok(Ran { outputs: written, execution, receipt })
}

/// Outputs with their names.
type Named = Vec<(String, Tensor)>;

/// Plans and runs the model; a model whose shapes depend on its data is interpreted instead, slowly.
fn execute(
    model: &Model,
    feeds: &BTreeMap<String, Tensor>,
    reference: bool,
    env: &Env,
) -> Result<(Named, &'static str)> {
    if reference {
        return Ok((interpreted(model, feeds)?, "interpreted"));
    }
    let store = Store::new(&model.parameters);
    match timings::compile_once(&model.graph, &store, env.plan_options()) {
        Ok(plan) => {
            let mut session = Session::new(plan, &store)?;
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

fn interpreted(model: &Model, feeds: &BTreeMap<String, Tensor>) -> Result<Named> {
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
