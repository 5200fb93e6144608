//! What the subcommands share: a model as a workload, an architecture, an objective.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wattle_accel::{
    AccelError, Architecture, Densities, Effort, EnergyFile, Estimate, MappingFile, Objective, Syntax,
    Workload, estimate, estimate_given,
};

use crate::context::Context;
use crate::failure::Failure;
use crate::models::{self, InputText};

/// Arguments that name a model and how its zeros are known.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// The ONNX model.
    model: PathBuf,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Where densities come from: `weights` counts the zeros of the weights; a JSON file sets densities of layers
    /// on top: {"conv1": {"iact": 0.6, "weight": 0.3}}.
    #[arg(long, default_value = "weights", value_name = "SOURCE")]
    density_from: String,
    /// What mappings are chosen for.
    #[arg(long, value_enum, default_value_t)]
    objective: ObjectiveName,
}

/// Objectives by name.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectiveName {
    /// Least energy.
    Energy,
    /// Fewest cycles.
    Delay,
    /// Least product of both.
    #[default]
    Edp,
}

impl ModelArgs {
    /// The objective.
    pub fn objective(&self) -> Objective {
        match self.objective {
            ObjectiveName::Energy => Objective::Energy,
            ObjectiveName::Delay => Objective::Delay,
            ObjectiveName::Edp => Objective::Edp,
        }
    }

    /// The model as layers, and a sentence on where its densities come from.
    pub fn workload(&self) -> Result<(Workload, String), Failure> {
        let model = models::load(&self.model)?;
        let feeds = models::read_feeds(&self.inputs)?;
        let model = models::bind(&model, &self.inputs, &feeds)?;
        let mut workload = Workload::from_model(&model).map_err(|e| Failure::at(self.model.display(), e))?;
        let counted = "densities of weights: counted in the model; of activations: assumed dense".to_string();
        if self.density_from == "weights" {
            return Ok((workload, counted));
        }
        if self.density_from.starts_with("calibration:") {
            return Err(Failure::Input(
                "--density-from calibration: is not there yet; measure densities elsewhere and give them in a \
                 JSON file"
                    .into(),
            ));
        }
        let given = densities(Path::new(&self.density_from))?;
        workload.set_densities(&given).map_err(|e| Failure::at(&self.density_from, e))?;
        Ok((workload, format!("{counted}, except {} layers set by {}", given.len(), self.density_from)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    iact: Option<f64>,
    weight: Option<f64>,
}

fn densities(path: &Path) -> Result<Densities, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e))?;
    let file: BTreeMap<String, Given> =
        serde_json::from_str(&text).map_err(|e| Failure::at(path.display(), e))?;
    Ok(file.into_iter().map(|(name, d)| (name, (d.iact, d.weight))).collect())
}

/// A shipped architecture by name, or one from a `.toml` or `.yaml` file.
pub fn architecture(name: &str) -> Result<Architecture, Failure> {
    let Some(syntax) = Syntax::of(Path::new(name)) else { return Ok(Architecture::named(name)?) };
    let text = std::fs::read_to_string(name).map_err(|e| Failure::at(name, e))?;
    Architecture::parse_as(syntax, &text).map_err(|e| Failure::at(name, e))
}

/// An architecture with the energy table of a file in place of its own: a table, or the binding of an Accelergy
/// table, which lies beside it.
pub fn priced(arch: Architecture, energy: Option<&Path>) -> Result<Architecture, Failure> {
    let Some(path) = energy else { return Ok(arch) };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e));
    let at = |e| Failure::at(path.display(), e);
    let syntax = Syntax::of(path).unwrap_or(Syntax::Toml);
    let text = read(path)?;
    let table = match EnergyFile::parse(syntax, &text).map_err(at)? {
        EnergyFile::Binding(binding) => {
            let ert = path.parent().unwrap_or(Path::new("")).join(&binding.ert);
            binding.table(&read(&ert)?).map_err(at)?
        }
        EnergyFile::Table(table) => *table,
    };
    Ok(arch.with_energy(table)?)
}

/// A workload under the mappings of a file.
pub fn given(arch: &Architecture, workload: &Workload, path: &Path) -> Result<Estimate, Failure> {
    let at = |e: AccelError| Failure::at(path.display(), e);
    let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path.display(), e))?;
    estimate_given(arch, workload, &MappingFile::parse(&text).map_err(at)?).map_err(at)
}

/// Maps a workload, with a progress bar.
pub fn estimated(
    arch: &Architecture,
    workload: &Workload,
    objective: Objective,
    context: &Context,
) -> Result<Estimate, Failure> {
    let bar = context.progress(&format!("mapping on {}", arch.name), workload.layers.len() as u64);
    let threads = context.cpu.threads.count();
    let found = estimate(arch, workload, objective, Effort::default(), threads, &|| bar.inc(1))?;
    bar.finish_and_clear();
    Ok(found)
}
