//! A model on given inputs, one `.npy` file an output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wattle_engine::{EngineError, Session, Store};
use wattle_graph::{Model, Tensor, costs, interpret, totals};
use wattle_meter::{Receipt, Unit, WorkDone};

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
    /// An `.npy` file for each input, or a shape that is filled with reproducible noise; nothing, for noise in all.
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
    /// Inputs that no file was given for: reproducible noise was fed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<String>,
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
    // Who gives nothing at all, or shapes, wants to see it run; who gives some files has forgotten one.
    let only_files = feeds.len() == options.inputs.len() && !feeds.is_empty();
    let missing = |i: &&wattle_graph::ValueId| !feeds.contains_key(&model.graph.label(**i));
    if let Some(&id) = model.graph.inputs().iter().find(missing).filter(|_| only_files) {
        let name = model.graph.label(id);
        let ty = &model.graph.value(id).ty;
        return Err(JobError::option("input", format!("`{name}` ({ty}) has no file; expected {name}=x.npy")));
    }
    let noise = model.graph.inputs().iter().filter(missing).map(|&i| model.graph.label(i)).collect();
    let model = models::bind(&model, &options.inputs, &feeds)?;
    let feeds = models::made_up(&model, &feeds)?;
    std::fs::create_dir_all(&options.out).map_err(|e| wattle_data::Error::writing(&options.out, &e))?;
    let (outputs, execution) = execute(&model, &feeds, options.reference, env)?;
    let mut written = vec![];
    let names = file_names(outputs.iter().map(|(name, _)| name.as_str()));
    for ((name, tensor), file) in outputs.into_iter().zip(names) {
        let file = options.out.join(format!("{file}.npy"));
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
        receipt.work.macs_nominal = Some(WorkDone::counted(sums.macs, Unit::Mac));
        receipt.work.macs_effective = Some(WorkDone::counted(sums.effective_macs, Unit::Mac));
    }
    env.record(&mut receipt);
    Ok(Ran { outputs: written, noise, execution, receipt })
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

/// A file name for each output, no two alike: not even where upper and lower case are one.
fn file_names<'a>(outputs: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for output in outputs {
        let plain = file_name(output);
        let mut name = plain.clone();
        let mut count = 1;
        while names.iter().any(|taken| taken.to_lowercase() == name.to_lowercase()) {
            count += 1;
            name = format!("{plain}_{count}");
        }
        names.push(name);
    }
    names
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

    #[test]
    fn outputs_whose_names_become_one_have_files_of_their_own() {
        let names = ["a/b", "a_b", "A_B", "a_b_2", "..", "output"];
        assert_eq!(file_names(names.into_iter()), ["a_b", "a_b_2", "A_B_3", "a_b_2_2", "output", "output_2"]);
    }
}
