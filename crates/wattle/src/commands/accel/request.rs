//! What the subcommands share: a model as a workload, an architecture, an objective.

use std::path::{Path, PathBuf};

use wattle_accel::{Architecture, Estimate, Objective, Workload};
use wattle_jobs::accel::calibration::calibrate;
use wattle_jobs::accel::{architecture, estimated, given, priced};

use super::densities;
use crate::bars::Bars;
use crate::context::Context;
use crate::failure::Failure;
use wattle_jobs::models::{self, InputText};

/// Arguments that name a model and how its zeros are known.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// The ONNX model.
    model: PathBuf,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = models::parse_input)]
    inputs: Vec<(String, InputText)>,
    /// Where densities come from. `weights`: zeros of the weights are counted, activations are dense.
    /// `calibration:DATA`: activations are counted too, while the model runs on DATA (as in `wattle eval --data`, or
    /// `inputs` for the files of --input). A JSON file sets densities of layers on top of `weights`:
    /// {"conv1": {"iact": 0.6, "weight": [0.3, 0.2]}}, numbers, lists by input channel or .npy masks; the output of
    /// `wattle accel estimate --json` is such a file.
    #[arg(long, default_value = "weights", value_name = "SOURCE")]
    density_from: String,
    /// Samples to run for calibration:DATA, at most.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calibration_samples: u32,
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
    pub fn workload(&self, context: &Context) -> Result<(Workload, String), Failure> {
        let model = models::load(&self.model)?;
        let feeds = models::read_feeds(&self.inputs)?;
        let model = models::bind(&model, &self.inputs, &feeds)?;
        let (mut workload, tally) =
            Workload::with_tally(&model).map_err(|e| Failure::at(self.model.display(), e))?;
        let counted = "densities of weights: counted in the model";
        if self.density_from == "weights" {
            return Ok((workload, format!("{counted}; of activations: assumed dense")));
        }
        if let Some(data) = self.density_from.strip_prefix("calibration:") {
            let samples = self.calibration_samples as usize;
            let (tally, told) =
                calibrate(&model, tally, &feeds, data, samples, context, &mut Bars::default())?;
            tally.apply(&mut workload);
            return Ok((workload, format!("{counted}; of activations: {told}")));
        }
        let given = densities::read(Path::new(&self.density_from))?;
        workload.set_densities(&given).map_err(|e| Failure::at(&self.density_from, e))?;
        let set = given.len();
        let text =
            format!("{counted}; of activations: assumed dense; {set} layers as {} says", self.density_from);
        Ok((workload, text))
    }
}

/// An energy table and mappings in place of the architecture's and of a search.
#[derive(clap::Args, Debug)]
pub struct Given {
    /// Energy table, or binding of an Accelergy table, in place of the architecture's.
    #[arg(long, value_name = "FILE")]
    energy: Option<PathBuf>,
    /// Use these mappings, which `accel map --out` writes, as given instead of searching.
    #[arg(long, value_name = "FILE", conflicts_with = "objective")]
    mapping: Option<PathBuf>,
}

impl Given {
    /// The architecture of a name with the table given, if one is.
    pub fn architecture(&self, name: &str) -> Result<Architecture, Failure> {
        Ok(priced(architecture(name)?, self.energy.as_deref())?)
    }

    /// The workload under the mappings given, or under those that are best.
    pub fn estimate(
        &self,
        arch: &Architecture,
        workload: &Workload,
        objective: Objective,
        context: &Context,
    ) -> Result<Estimate, Failure> {
        match &self.mapping {
            Some(path) => Ok(given(arch, workload, path)?),
            None => Ok(estimated(arch, workload, objective, context, &mut Bars::default())?),
        }
    }
}
