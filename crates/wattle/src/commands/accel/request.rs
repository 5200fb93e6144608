//! Arguments that the subcommands share: a model, an architecture, an objective.

use std::path::PathBuf;

use wattle_accel::Objective;
use wattle_data::NormalisationChoice;
use wattle_jobs::accel::request::{HardwareOptions, ModelOptions};
use wattle_jobs::models::{InputText, parse_input};

use crate::commands::model::ModelFile;

/// Arguments that name a model and how its zeros are known.
#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    #[command(flatten)]
    model: ModelFile,
    /// Shape or .npy file of an input; may be repeated.
    #[arg(long = "input", value_name = "NAME=SHAPE", value_parser = parse_input)]
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
    /// How they are normalised: none, unit, imagenet, measured, or mean=M,std=S; if left out as the model's file says, else
    /// as the training part of DATA measures.
    #[arg(long, value_name = "HOW")]
    normalise: Option<NormalisationChoice>,
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
    /// The model.
    pub fn options(self) -> ModelOptions {
        ModelOptions {
            model: self.model.path(),
            inputs: self.inputs,
            density_from: self.density_from.into(),
            calibration_samples: self.calibration_samples as usize,
            normalise: self.normalise,
            objective: match self.objective {
                ObjectiveName::Energy => Objective::Energy,
                ObjectiveName::Delay => Objective::Delay,
                ObjectiveName::Edp => Objective::Edp,
            },
        }
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
    /// The architecture of a name with what is given.
    pub fn options(self, arch: String) -> HardwareOptions {
        HardwareOptions { arch, energy: self.energy, mapping: self.mapping }
    }
}
