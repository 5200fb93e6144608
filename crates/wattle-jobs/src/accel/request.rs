//! What the jobs of the accelerator share: a model as a workload, an architecture with its energies, mappings.

use std::path::{Component, Path, PathBuf};

use wattle_accel::{
    AccelError, Architecture, Effort, EnergyFile, Estimate, MappingFile, Objective, Syntax, Workload,
    estimate, estimate_given,
};
use wattle_data::NormalisationChoice;

use super::calibration::{Inputs, calibrate};
use super::densities;
use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::models::{self, InputText};
use crate::observer::{Observer, Stage};

/// A model, how its zeros are known, and what its mappings are chosen for.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// The ONNX model.
    pub model: PathBuf,
    /// Shapes or `.npy` files of inputs.
    pub inputs: Vec<(String, InputText)>,
    /// Where densities come from.
    pub density_from: DensityFrom,
    /// Samples to run for a calibration, at most.
    pub calibration_samples: usize,
    /// How the samples of a calibration are normalised; if left out as the model's file says, else as they measure.
    pub normalise: Option<NormalisationChoice>,
    /// What mappings are chosen for.
    pub objective: Objective,
}

/// Where densities come from; zeros of the weights are always counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DensityFrom {
    /// Activations are dense.
    Weights,
    /// Activations are counted while the model runs on data: a specification as for training, or `inputs` for the files
    /// of the inputs.
    Calibration(String),
    /// A JSON file sets densities of layers: `{"conv1": {"iact": 0.6, "weight": [0.3, 0.2]}}`, numbers, lists by input
    /// channel or .npy masks; the document of an estimate is such a file.
    File(PathBuf),
}

impl From<String> for DensityFrom {
    /// `weights`, `calibration:DATA` or a path.
    fn from(text: String) -> DensityFrom {
        match text.strip_prefix("calibration:") {
            _ if text == "weights" => DensityFrom::Weights,
            Some(data) => DensityFrom::Calibration(data.to_owned()),
            None => DensityFrom::File(text.into()),
        }
    }
}

impl ModelOptions {
    /// The model as layers, and a sentence on where its densities come from.
    pub(super) fn workload(&self, env: &Env, observer: &mut dyn Observer) -> Result<(Workload, String)> {
        let model = models::load(&self.model)?;
        let feeds = models::read_feeds(&self.inputs)?;
        let model = models::bind(&model, &self.inputs, &feeds)?;
        let (mut workload, tally) =
            Workload::with_tally(&model).map_err(|e| JobError::at(self.model.display(), e))?;
        let counted = "densities of weights: counted in the model";
        match &self.density_from {
            DensityFrom::Weights => Ok((workload, format!("{counted}; of activations: assumed dense"))),
            DensityFrom::Calibration(data) => {
                let (samples, normalise) = (self.calibration_samples, self.normalise.as_ref());
                let inputs = Inputs { feeds: &feeds, data, samples, normalise };
                let (tally, told) = calibrate(&model, tally, &inputs, env, observer)?;
                tally.apply(&mut workload);
                Ok((workload, format!("{counted}; of activations: {told}")))
            }
            DensityFrom::File(path) => {
                let given = densities::read(path)?;
                workload.set_densities(&given).map_err(|e| JobError::at(path.display(), e))?;
                let (set, path) = (given.len(), path.display());
                let text = format!("{counted}; of activations: assumed dense; {set} layers as {path} says");
                Ok((workload, text))
            }
        }
    }
}

/// A shipped architecture by name, or one from a `.toml` or `.yaml` file.
///
/// # Errors
/// If there is no such architecture, or the file is none.
pub fn architecture(name: &str) -> Result<Architecture> {
    let Some(syntax) = Syntax::of(Path::new(name)) else { return Ok(Architecture::named(name)?) };
    let text = given_file::text(Path::new(name))?;
    Architecture::parse_as(syntax, &text).map_err(|e| JobError::at(name, e))
}

/// An architecture with the energy table of a file in place of its own: a table, or the binding of an Accelergy
/// table, which lies beside it.
pub(super) fn priced(arch: Architecture, energy: Option<&Path>) -> Result<Architecture> {
    let Some(path) = energy else { return Ok(arch) };
    let at = |e| JobError::at(path.display(), e);
    let syntax = Syntax::of(path).unwrap_or(Syntax::Toml);
    let text = given_file::text(path)?;
    let table = match EnergyFile::parse(syntax, &text).map_err(at)? {
        EnergyFile::Binding(binding) => {
            let outside = |found: String| JobError::at(path.display(), found);
            let ert = beside(path, Path::new(&binding.ert)).map_err(outside)?;
            binding.table(&given_file::text(&ert)?).map_err(at)?
        }
        EnergyFile::Table(table) => *table,
    };
    Ok(arch.with_energy(table)?)
}

/// A file that another names: beside it or below, wherever links lead, for its text may be told in an error.
fn beside(file: &Path, named: &Path) -> std::result::Result<PathBuf, String> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let place = |path: &Path| path.canonicalize().map_err(|e| format!("`{}`: {e}", named.display()));
    let outside = format!("`{}` lies elsewhere; expected a file beside this one", named.display());
    if !named.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside);
    }
    let found = place(&folder.join(named))?;
    if found.starts_with(place(folder)?) { Ok(found) } else { Err(outside) }
}

/// An architecture, and what is given in place of its energies and of a search.
#[derive(Clone, Debug)]
pub struct HardwareOptions {
    /// A shipped architecture, or one from a `.toml` or `.yaml` file.
    pub arch: String,
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    pub energy: Option<PathBuf>,
    /// Mappings as given instead of a search.
    pub mapping: Option<PathBuf>,
}

impl HardwareOptions {
    /// The architecture with its energies.
    pub(super) fn architecture(&self) -> Result<Architecture> {
        priced(architecture(&self.arch)?, self.energy.as_deref())
    }

    /// The workload under the mappings given, or under those that are best.
    pub(super) fn estimate(
        &self,
        arch: &Architecture,
        workload: &Workload,
        objective: Objective,
        env: &Env,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        match &self.mapping {
            Some(path) => given(arch, workload, path),
            None => estimated(arch, workload, objective, env, observer),
        }
    }
}

/// A workload under the mappings of a file.
pub(super) fn given(arch: &Architecture, workload: &Workload, path: &Path) -> Result<Estimate> {
    let at = |e: AccelError| JobError::at(path.display(), e);
    let text = given_file::text(path)?;
    estimate_given(arch, workload, &MappingFile::parse(&text).map_err(at)?).map_err(at)
}

/// Maps a workload.
///
/// # Errors
/// If a layer has no mapping on the architecture.
pub fn estimated(
    arch: &Architecture,
    workload: &Workload,
    objective: Objective,
    env: &Env,
    observer: &mut dyn Observer,
) -> Result<Estimate> {
    let threads = env.cpu.threads.count();
    let stage = Stage::begin(observer, format!("mapping on {}", arch.name), workload.layers.len() as u64);
    Ok(estimate(arch, workload, objective, Effort::default(), threads, &|| stage.advance())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_come_from_weights_data_or_a_file() {
        assert_eq!(DensityFrom::from("weights".to_owned()), DensityFrom::Weights);
        let data = DensityFrom::Calibration("csv:a.csv".to_owned());
        assert_eq!(DensityFrom::from("calibration:csv:a.csv".to_owned()), data);
        assert_eq!(DensityFrom::from("weights.json".to_owned()), DensityFrom::File("weights.json".into()));
    }
}
